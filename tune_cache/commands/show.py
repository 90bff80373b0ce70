"""What the verbs found, as text for people and as one JSON object for programs.

Conventions
-----------
JSON is ``{schema, command, dataset, rows, warnings}``. Names from manifests are
data: control characters never reach the terminal.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tune_cache.cache.store import Store
from tune_cache.commands.datasets import dataset_rows
from tune_cache.commands.terminal import say
from tune_cache.datasets.base import Dataset, Problem
from tune_cache.datasets.scan import ScanResult
from tune_cache.encoders.base import EncoderInfo
from tune_cache.errors import first_few, printable, quoted
from tune_cache.reports.cost import ledger_rows
from tune_cache.reports.results import SavedRun
from tune_cache.reports.tables import (
    json_table,
    rows_of,
    text_table,
)
from tune_cache.reports.text import plain_table

if TYPE_CHECKING:  # printing an extract must not load what probes need
    from tune_cache.commands.demo import DemoReport
    from tune_cache.commands.extract import ExtractReport

__all__ = [
    "amount",
    "colour",
    "demo_report",
    "describe_dataset",
    "describe_store",
    "encoding",
    "extract_report",
    "problems",
    "results",
    "scan_report",
    "started",
    "table",
    "warn",
    "width",
]

FAILED_SHOWN = 10
NARROWEST = 40


def width() -> int:
    """Columns of the terminal, or what COLUMNS says, or a fixed number where there is neither."""
    told = os.environ.get("COLUMNS", "")
    if not sys.stdout.isatty():
        return max(int(told), NARROWEST) if told.isdecimal() else 100
    return max(shutil.get_terminal_size((80, 24)).columns, NARROWEST)


def colour() -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR is set."""
    wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return wanted and sys.stdout.isatty()


def encoding() -> str:
    """Which characters stdout has."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def amount(n_bytes: int) -> str:
    """Bytes for people, decimal."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def warn(warnings: Iterable[str]) -> None:
    """Say warnings, one a line."""
    for warning in warnings:
        say(f"warning: {printable(warning)}")


def started(dataset: Dataset, info: EncoderInfo | None = None) -> None:
    """Say what is being worked on."""
    text = f"dataset {dataset.name}: {len(dataset.tracks)} tracks"
    if info is not None:
        text += f"; encoder {info.name}" + (f" ({info.note})" if info.note else "")
    say(printable(text))
    for note in (dataset.note, info.license_note if info else ""):
        if note:
            say(printable(note))


def results(
    runs: Sequence[SavedRun],
    *,
    form: str,
    command: str,
    dataset: str | None,
    warnings: Sequence[str] = (),
) -> str:
    """Results as a table for people (``text``), or as one object (``json``)."""
    rows = rows_of(runs)
    if form == "json":
        return json_table(rows, command=command, dataset=dataset, warnings=warnings)
    return text_table(rows, width=width(), colour=colour(), encoding=encoding())


def table(rows: Sequence[Mapping[str, Any]], *, command: str, as_json: bool) -> str:
    """A list of things."""
    if as_json:
        return json_table(rows, command=command, dataset=None)
    shown = [
        {name: amount(value) if name == "bytes" else value for name, value in row.items()}
        for row in rows
    ]
    return plain_table(shown, width=width()) if shown else "nothing here yet"


def extract_report(report: ExtractReport, *, as_json: bool) -> str:
    """Stores made or found, and every track that failed."""
    rows = []
    for outcome in report.outcomes:
        store = outcome.store
        done = "found" if outcome.hit else f"{outcome.n_encoded} encoded"
        if outcome.n_copied:
            done += f", {outcome.n_copied} copied"
        if store is None:
            done += f"; {outcome.n_missing_units} units of other parts missing"
        rows.append(
            {
                "seg": outcome.spec.segments.label,
                "tracks": done,
                "failed": len(outcome.failed),
                "segments": store.n_segments if store else None,
                "encode_seconds": None if outcome.hit else outcome.ledger.get("encode_seconds"),
                "x_real_time": None if outcome.hit else outcome.ledger.get("x_real_time"),
                "store": str(outcome.path),
            }
        )
    warnings = [f"{name}: {text}" for name, text in sorted(report.failed.items())]
    if as_json:
        return json_table(rows, command="extract", dataset=report.dataset.name, warnings=warnings)
    names = {"encode_seconds": "seconds", "x_real_time": "× real time"}
    shown = [
        {
            names.get(key, key): round(value, 1) if isinstance(value, float) else value
            for key, value in row.items()
            if key != "store"
        }
        for row in rows
    ]
    text = plain_table(shown, width=width())
    text += "".join(f"\n{printable(row['store'])}" for row in rows)
    if warnings:
        say(f"{len(warnings)} tracks failed:")
        for warning in warnings[:FAILED_SHOWN]:
            say(f"  {printable(warning)}")
        if len(warnings) > FAILED_SHOWN:
            say(f"  and {len(warnings) - FAILED_SHOWN} more (--json lists all)")
    return text


def scan_report(found: ScanResult, *, as_json: bool) -> str:
    """Manifests written and what was left out."""
    rows = [
        {
            "split": split,
            "tracks": found.n_tracks[split],
            "groups": found.n_groups[split],
            "manifest": str(path),
        }
        for split, path in found.files.items()
    ]
    warnings = []
    for text, items in (
        ("files whose header tells no length", found.without_header),
        ("files without a label", found.unlabelled),
        ("paths of the CSV that are no files", found.missing),
    ):
        if items:
            warnings.append(f"{len(items)} {text}, as {printable(str(items[0]))!r}")
    if found.ungrouped:
        warnings.append(f"{found.ungrouped} files have no group and are one each")
    if found.mixed_groups:
        warnings.append(
            f"{len(found.mixed_groups)} groups hold several labels "
            f"({first_few(found.mixed_groups)}) and stay in one split: "
            "if their names mean different things, capture the label too"
        )
    present = [split for split, count in found.n_tracks.items() if count]
    if len(present) < len(found.n_tracks) or min(found.n_tracks.values()) < 0.1 * sum(
        found.n_tracks.values()
    ):
        warnings.append(
            f"splits are far from 60/20/20: {found.n_tracks}; the groups are too large or too few"
        )
    if as_json:
        return json_table(
            rows, command="dataset scan", dataset=str(found.prefix), warnings=warnings
        )
    warn(warnings)
    text = plain_table(rows, width=width())
    if found.config:
        text += f"\n\nput this into tune.toml:\n{found.config}"
    return f"{text}\n\nnext: tune dataset check {quoted(found.prefix)}"


def problems(found: Sequence[Problem], *, dataset: str | None, as_json: bool) -> str:
    """Everything that is wrong, or that nothing is."""
    rows = [
        {
            "severity": item.severity,
            "code": item.code,
            "where": item.where,
            "track_id": item.track_id,
            "message": item.message,
            "hint": item.hint,
        }
        for item in found
    ]
    if as_json:
        return json_table(rows, command="dataset check", dataset=dataset)
    if not found:
        return "no problems found"
    lines = []
    for item in found:
        place = f"{printable(item.where)}: " if item.where else ""
        lines.append(f"{item.severity}: {place}{printable(item.message)} [{item.code}]")
        if item.hint:
            lines.append(f"    {printable(item.hint)}")
    n_errors = sum(item.severity == "error" for item in found)
    return "\n".join([*lines, f"{n_errors} errors, {len(found) - n_errors} warnings"])


def describe_dataset(dataset: Dataset, *, as_json: bool) -> str:
    """Tasks, splits and labels of a dataset."""
    rows = dataset_rows(dataset)
    if as_json:
        return json_table(rows, command="dataset info", dataset=dataset.name)
    seconds = sum(track.duration_seconds or 0.0 for track in dataset.tracks)
    lines = [
        f"{printable(dataset.name)}: {len(dataset.tracks)} tracks, "
        f"{seconds / 60:.0f} min by their manifests, below {printable(dataset.data_root)}",
        *(printable(text) for text in (dataset.note, dataset.licence, dataset.citation) if text),
        plain_table(rows, width=width()),
    ]
    return "\n".join(lines)


def describe_store(store: Store, *, as_json: bool) -> str:
    """What a store holds, what made it, what it cost."""
    facts: dict[str, Any] = {
        "store": str(store.path),
        **{name: store.attrs[name] for name in ("n_tracks", "n_segments", "layers", "dim")},
        "coverage": store.attrs["coverage"],
        "spec": store.spec.to_json(),
        "spec_key": store.spec.key,
        "collection_digest": store.collection_digest,
        "content_digest": store.content_digest,
        "provenance": store.attrs.get("provenance", {}),
        "license_note": store.attrs.get("license_note", ""),
        "encoder_note": store.attrs.get("encoder_note", ""),
        "ledger": store.ledger,
        "failed": store.failed,
    }
    if as_json:
        return json_table([facts], command="cache info", dataset=None)
    cost = ledger_rows(facts.pop("ledger"))
    shown = plain_table(cost, width=width()) if cost else "what it cost is not known"
    return "\n".join([*_lines(facts), "", shown])


def _lines(facts: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{printable(name)}:", *_lines(value, indent + "  ")]
        else:
            if isinstance(value, float):
                value = f"{value:.6g}"
            lines.append(f"{indent}{printable(name)}: {printable(value)}")
    return lines


def demo_report(report: DemoReport, *, as_json: bool) -> str:
    """The table of the demo, and every file and folder it wrote."""
    runs = [run for found in report.probes for run in found.runs]
    text = results(runs, form="json" if as_json else "text", command="demo", dataset="demo")
    if as_json:
        return text
    stores = [outcome.path for found in report.extracts for outcome in found.outcomes]
    lines = [text, "", "written:", f"  music    {printable(report.folder)}"]
    lines += [f"  vectors  {printable(path)}" for path in stores]
    lines += [f"  results  {printable(report.results)}"]
    lines += [f"  page     {printable(report.page)}", "", "open the page in a browser:"]
    lines += [f"  {report.page.resolve().as_uri()}"]
    return "\n".join(lines)
