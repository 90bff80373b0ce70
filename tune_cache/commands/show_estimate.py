"""What ``tune estimate`` found, as text for people and as JSON.

Conventions
-----------
As in :mod:`tune_cache.commands.show`; bytes are decimal.
"""

from __future__ import annotations

from typing import Any

from tune_cache.cache.forecast import LengthEstimate
from tune_cache.commands.estimate import EstimateReport
from tune_cache.commands.show import amount, warn, width
from tune_cache.reports.tables import json_table
from tune_cache.reports.text import plain_table

__all__ = ["estimate_report"]


def estimate_report(report: EstimateReport, *, as_json: bool) -> str:
    """What each length would cost, and all together."""
    if as_json:
        return json_table(
            [_row(report, row) for row in report.rows],
            command="estimate",
            dataset=report.dataset.name,
            warnings=report.warnings,
        )
    lines = [plain_table([_shown(row) for row in report.rows], width=width())]
    lines += _pieces(report)
    lines.append(_total(report))
    warn(report.warnings)
    return "\n".join(lines)


def _row(report: EstimateReport, row: LengthEstimate) -> dict[str, Any]:
    """Every figure of one length, by its full name."""
    work, batch, measured = row.ahead.work, row.batch, report.measured
    return {
        "seg": row.ahead.spec.segments.label,
        "found": row.ahead.found,
        "tracks_to_encode": work.n_encode,
        "tracks_copied": work.n_copied,
        "tracks_resumed": work.n_done,
        "tracks_failing": work.n_failing,
        "segments": work.n_segments,
        "segments_to_encode": work.n_encode_segments,
        "audio_hours": work.audio_seconds / 3600,
        "x_real_time": row.x_real_time,
        "assumed": measured.assumed_x_real_time is not None,
        "encode_seconds": row.encode_seconds,
        "load_seconds": measured.load_seconds,
        "decode_x_real_time": measured.decode_x_real_time,
        "seconds": row.seconds,
        "device": report.measured.device,
        "batch_size": batch.n_items if batch else None,
        "peak_bytes": batch.peak_bytes if batch else None,
        **{name: batch.pieces.get(name) if batch else None for name in _piece_names(report)},
        "weights_bytes": report.weights_bytes,
        "max_memory_bytes": report.max_memory_bytes,
        "free_bytes": report.free_bytes,
        "store_bytes": row.ahead.n_bytes,
        "store": str(row.ahead.path),
    }


def _piece_names(report: EstimateReport) -> list[str]:
    return list(dict.fromkeys(name for r in report.rows if r.batch for name in r.batch.pieces))


def _shown(row: LengthEstimate) -> dict[str, Any]:
    """The figures that decide, in few columns."""
    work, batch = row.ahead.work, row.batch
    parts = [f"{work.n_encode} to encode"] if work.n_encode else []
    parts += [f"{n} {name}" for n, name in ((work.n_copied, "copied"), (work.n_done, "done")) if n]
    peak = batch.peak_bytes if batch else None
    return {
        "seg": row.ahead.spec.segments.label,
        "tracks": "found" if row.ahead.found else ", ".join(parts) or "nothing to encode",
        "segments": work.n_segments,
        "hours": f"{work.audio_seconds / 3600:.2f}" if work.n_encode else None,
        "× real time": f"{row.x_real_time:.1f}" if row.x_real_time else None,
        "time": _time(row.seconds) if work.n_encode else None,
        "batch": batch.n_items if batch else None,
        "memory": None if peak is None else amount(peak),
        "disk": amount(row.ahead.n_bytes),
    }


def _pieces(report: EstimateReport) -> list[str]:
    """How batches are taken apart; lengths with the same pieces share a line."""
    labels: dict[str, list[str]] = {}
    for row in report.rows:
        if row.batch is not None and row.batch.pieces:
            sizes = (f"{name.replace('_', ' ')} {n}" for name, n in row.batch.pieces.items())
            labels.setdefault(", ".join(sizes), []).append(row.ahead.spec.segments.label)
    return [f"seg {', '.join(here)}: {text}" for text, here in labels.items()]


def _total(report: EstimateReport) -> str:
    """One sentence or two: how long, on what, and how sure that is."""
    measured = report.measured
    if not any(row.ahead.work.n_encode for row in report.rows):
        return "nothing to encode: tune extract would return at once"
    said = f"about {_time(report.seconds)} on {report.measured.device}"
    if measured.assumed_x_real_time is not None:
        said += f", if it runs at {measured.assumed_x_real_time:g} × real time"
    else:
        said += f", {measured.load_seconds:.1f} s of it to load the encoder"
    if report.weights_bytes is not None:
        said += f"; its weights take {amount(report.weights_bytes)}, memory comes on top"
    return said + "\nestimates: lengths of tracks are those of their headers"


def _time(seconds: float) -> str:
    """Seconds as a person says them.

    Examples
    --------
    >>> [_time(seconds) for seconds in (0.04, 7.3, 75, 5400, 90000)]
    ['0.0 s', '7.3 s', '1 min 15 s', '1 h 30 min', '25 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours} h"
