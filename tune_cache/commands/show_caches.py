"""What the verbs of ``tune cache`` found, as text for people and as JSON.

Conventions
-----------
As in :mod:`tune_cache.commands.show`; bytes and rates are decimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_cache.cache.compare import StoreDiff
from tune_cache.cache.layout import cache_of
from tune_cache.cache.listing import mending
from tune_cache.cache.status import Progress
from tune_cache.commands.integrity import Repaired, Verified
from tune_cache.commands.management import Removal, StatusReport, Usage
from tune_cache.commands.show import amount, width
from tune_cache.commands.terminal import say
from tune_cache.errors import printable, quoted
from tune_cache.reports.tables import json_table
from tune_cache.reports.text import plain_table

__all__ = ["compared", "removals", "repaired", "status", "usage", "verified"]

TRACKS_SHOWN = 5


def _named(tracks: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in tracks[:TRACKS_SHOWN])
    rest = len(tracks) - TRACKS_SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown


def verified(found: Sequence[Verified], *, as_json: bool) -> str:
    """Every damaged file and the tracks it hits, and how fast it went."""
    rows = [_verified_row(item) for item in found]
    if as_json:
        return json_table(rows, command="cache verify", dataset=None)
    lines: list[str] = []
    for item, row in zip(found, rows, strict=True):
        n_damaged = len(item.found.findings)
        state = "whole" if item.found.is_ok else f"damaged in {n_damaged} place(s)"
        if item.found.is_ok and not item.found.n_files:
            state = "not looked at"
        lines.append(
            f"{row['store']}: {state} ({row['files']} files, {amount(row['bytes'])}, "
            f"{row['mb_per_second']:.0f} MB/s)"
        )
        for finding in item.found.findings:
            hit = {"none": "no vector is affected", "store": "the whole store is in doubt"}
            whom = hit.get(finding.scope, f"{len(finding.tracks)} tracks")
            if finding.tracks:
                whom += f": {_named(finding.tracks)}"
            lines.append(f"  {printable(finding.file or 'the store')} {finding.problem}; {whom}")
        if item.found.findings:
            is_copyable = item.found.is_trusted and not item.found.tracks
            lines.append(f"  {mending(item.found.path, is_copyable=is_copyable)}")
        lines += _reencoded_lines(item)
        if item.problem:
            lines.append(f"  {item.problem}")
    return "\n".join(map(printable, lines)) if lines else "nothing here yet"


def _reencoded_lines(item: Verified) -> list[str]:
    """What encoding some segments again came to."""
    if not item.reencoded:
        return []
    same = sum(again.is_same for again in item.reencoded)
    largest = max(again.largest_difference for again in item.reencoded)
    share = max(again.largest_share for again in item.reencoded)
    lines = [
        f"  {same} of {len(item.reencoded)} segments came out as stored; largest difference "
        f"{largest:.3g}, {share:.2g} of what is tolerated"
    ]
    for again in item.reencoded:
        if not again.is_same:
            told = again.problem or f"differs by {again.largest_difference:.3g}"
            lines.append(f"  {printable(again.track_id)}, segment {again.segment}: {told}")
    return lines


def _verified_row(item: Verified) -> dict[str, Any]:
    found = item.found
    return {
        "store": f"{found.path.parent.name}/{found.path.name}",
        "ok": item.is_ok,
        "files": found.n_files,
        "bytes": found.n_bytes,
        "seconds": found.seconds,
        "mb_per_second": found.n_bytes / 1e6 / max(found.seconds, 1e-9),
        "damaged": [
            {
                "file": finding.file,
                "problem": finding.problem,
                "scope": finding.scope,
                "tracks": list(finding.tracks),
            }
            for finding in found.findings
        ],
        "tracks": list(found.tracks),
        "problem": item.problem,
        "reencoded": [
            {
                "track_id": again.track_id,
                "segment": again.segment,
                "same": again.is_same,
                "largest_difference": again.largest_difference,
                "largest_share_of_tolerance": again.largest_share,
                "problem": again.problem,
            }
            for again in item.reencoded
        ],
    }


def repaired(found: Repaired, *, as_json: bool) -> str:
    """What was damaged, what was encoded again and what copied."""
    repair = found.repair
    path = found.found.path
    row: dict[str, Any] = {
        "store": f"{path.parent.name}/{path.name}",
        "replaced": repair is not None and repair.is_replaced,
        "damaged": [finding.file for finding in found.found.findings],
        "tracks": list(found.found.tracks),
        "encoded": repair.n_encoded if repair else 0,
        "copied": repair.n_copied if repair else 0,
        "failed": len(repair.failed) if repair else 0,
        "same_content": repair.is_same if repair else True,
        "kept": str(repair.kept) if repair and repair.kept else "",
    }
    warnings = [f"{n}: {text}" for n, text in sorted(repair.failed.items())] if repair else []
    if as_json:
        return json_table([row], command="cache repair", dataset=None, warnings=warnings)
    for warning in warnings:
        say(f"failed: {printable(warning)}")
    if repair is None:
        return f"{row['store']}: nothing is damaged"
    if not repair.is_replaced:
        return f"{row['store']}: nothing is damaged, and what failed before failed again"
    lines = [
        f"{row['store']}: replaced; {repair.n_encoded} tracks encoded again, "
        f"{repair.n_copied} copied"
    ]
    if all(finding.scope == "none" for finding in found.found.findings):
        lines.append("  no vector was affected: all that was damaged follows from the rest")
    if any(finding.file.startswith("ledger/") for finding in found.found.findings):
        lines.append(
            "  what making it had cost was in the damaged ledger and is not known any more"
        )
    if repair.is_same is False:
        lines.append(
            "  its values differ from the first ones in rounding, or tracks that had failed "
            "are there now: results made from it before are of the earlier content"
        )
    if repair.kept:
        root = cache_of(path)
        where = "" if root is None else f" --cache-dir {quoted(root.absolute())}"
        lines.append(
            f"  the damaged store is still being read and lies at {repair.kept}; "
            f"`tune cache prune --orphans --yes{where}` removes it later"
        )
    return "\n".join(map(printable, lines))


def compared(found: StoreDiff, *, as_json: bool) -> str:
    """Every difference of two stores."""
    left, right = (f"{s.path.parent.name}/{s.name}" for s in (found.left, found.right))
    row: dict[str, Any] = {
        "left": left,
        "right": right,
        "same": found.is_same,
        "fields": [{"field": name, "left": a, "right": b} for name, a, b in found.fields],
        "only_left": list(found.only_left),
        "only_right": list(found.only_right),
        "other_audio": list(found.other_audio),
        "other_status": list(found.other_status),
        "common_tracks": found.n_common,
        "same_content": found.is_same_content,
        "largest_difference": found.largest_difference,
    }
    if as_json:
        return json_table([row], command="cache diff", dataset=None)
    lines = [f"A {left}", f"B {right}"]
    lines += [f"{name}: {a!r} in A, {b!r} in B" for name, a, b in found.fields]
    if not found.fields:
        lines.append("settings are the same")
    for names, what in (
        (found.only_left, "tracks only in A"),
        (found.only_right, "tracks only in B"),
        (found.other_audio, "tracks with other audio"),
        (found.other_status, "tracks that failed in one of them"),
    ):
        if names:
            lines.append(f"{len(names)} {what}: {_named(names)}")
    lines.append(f"content digests are {'the same' if found.is_same_content else 'different'}")
    for pooling, largest in found.largest_difference.items():
        lines.append(f"largest difference over {found.n_common} tracks ({pooling}): {largest:.3g}")
    if not found.largest_difference:
        lines.append("vectors cannot be compared")
    return "\n".join(printable(line) for line in lines)


def status(found: StatusReport, *, as_json: bool) -> str:
    """What there is of a dataset, store by store."""
    rows = [_status_row(item) for item in found.rows]
    n_tracks = len(found.dataset.tracks)
    warnings = []
    if found.n_known < n_tracks:
        warnings.append(
            f"audio of {n_tracks - found.n_known} of {n_tracks} tracks is new, changed or absent: "
            "it was not read, and is taken to be what the stores have"
        )
    if as_json:
        return json_table(
            rows, command="cache status", dataset=found.dataset.name, warnings=warnings
        )
    say(printable(f"dataset {found.dataset.name}: {n_tracks} tracks; encoder {found.encoder}"))
    for warning in warnings:
        say(f"warning: {warning}")
    return plain_table(rows, width=width()) if rows else "nothing of it is in the cache"


def _status_row(item: Progress) -> dict[str, Any]:
    units = None
    if item.units_done is not None:
        units = f"{item.units_done} of {'?' if item.units_planned is None else item.units_planned}"
    claims = sorted(set((item.claims or {}).values()))
    who = ", ".join(f"process {process}" if process else "another machine" for process in claims)
    return {
        "seg": item.label,
        "state": item.state,
        "tracks": item.n_there,
        "failed": item.n_failed,
        "missing": item.n_missing,
        "changed": item.n_changed,
        "units": units,
        "at_work": who or ("yes" if item.is_worked_on else ""),
        "problem": item.problem,
        "store": f"{item.path.parent.name}/{item.path.name}",
    }


def usage(found: Sequence[Usage], *, as_json: bool) -> str:
    """What takes how much room."""
    rows: list[dict[str, Any]] = [
        {
            "kind": item.kind,
            "encoder": item.encoder,
            "name": item.name,
            "files": item.n_files,
            "bytes": item.n_bytes,
            "orphan": item.is_orphan,
        }
        for item in found
    ]
    if as_json:
        return json_table(rows, command="cache du", dataset=None)
    if not rows:
        return "nothing here yet"
    shown: list[Mapping[str, Any]] = [
        {
            **{name: row[name] for name in ("kind", "encoder", "name", "files")},
            "size": amount(row["bytes"]),
            "": "orphan" if row["orphan"] else "",
        }
        for row in rows
    ]
    total = sum(item.n_bytes for item in found)
    return f"{plain_table(shown, width=width())}\n{amount(total)} in all"


def removals(found: Sequence[Removal], *, command: str, did: bool, as_json: bool) -> str:
    """What was removed, or would be."""
    rows = [
        {
            "kind": item.kind,
            "path": str(item.path),
            "bytes": item.n_bytes,
            "why": item.why,
            "removed": item.is_removed,
            "problem": item.problem,
        }
        for item in found
    ]
    if as_json:
        return json_table(rows, command=command, dataset=None)
    if not found:
        return "nothing to remove"
    lines = []
    for item in found:
        verb = "removed" if item.is_removed else "would remove"
        if item.problem:
            verb = "left" if did else "would leave"
        reason = item.problem or item.why
        lines.append(f"{verb} {item.kind} {item.path} ({amount(item.n_bytes)}): {reason}")
    total = sum(item.n_bytes for item in found if not item.problem)
    lines.append(f"{amount(total)} {'freed' if did else 'to be freed; do it with --yes'}")
    return "\n".join(printable(line) for line in lines)
