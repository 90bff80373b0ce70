"""What both stages cost, for tables of results and for people.

Conventions
-----------
A cost is the ledger of a store, as its store or a saved result has it. Ledgers
of older versions lack figures and are shown with what they have: nothing is
made up, an unknown figure is None. Memory of the GPU, of the encoding process
and of decoders stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cache.errors import printable

__all__ = [
    "COST_COLUMNS",
    "COST_NAMES",
    "STAGE_TWO_COST",
    "STAGE_TWO_SECONDS",
    "Costs",
    "cost_cells",
    "cost_notes",
    "cost_of",
    "costs_of",
    "ledger_rows",
    "left_out",
    "probe_seconds",
]

Cost = Mapping[str, Any]

# keys of a result's row, and headings of a table of results
COST_NAMES = (
    "stage_one_seconds",
    "peak_vram_bytes",
    "peak_rss_bytes",
    "n_lengths_together",
    "n_copied_tracks",
)
ABSENT = "–"
STAGE_TWO_SECONDS = ("seconds_read", "seconds_fit", "seconds_predict")
STAGE_TWO_COST = ("seconds_predict_per_1000", "peak_fit_bytes", "peak_predict_bytes")
COST_COLUMNS = ("extract s", "VRAM GB", "RSS GB")


def cost_of(cost: Cost) -> dict[str, float | None]:
    """Choose the figures that stand beside a result, under :data:`COST_NAMES`.

    ``stage_one_seconds`` is loading the encoder, waiting for decoders, encoding
    and writing; hashing the audio files and starting Python are not in it.
    ``peak_vram_bytes`` is what tensors took at most, None without a GPU.
    """
    fields = ("stage_one_seconds", "peak_vram_allocated_bytes", "peak_rss_bytes", "n_lengths")
    found = [_number(cost, name) for name in (*fields, "n_copied_tracks")]
    found[1] = found[1] or None
    return dict(zip(COST_NAMES, found, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What to weigh scores against; None is unknown, neither nothing nor too much.

    Parameters
    ----------
    memory_kind
        ``vram``: tensors on a GPU; ``rss``: the encoding process, where there was
        none. Never compared with each other. Empty if unknown.
    memory_is_bound
        Lengths made together share a process: this one may have taken less.
    seconds
        Of stage one for an hour of audio, loading the encoder apart.
    disk_bytes
        Of the store.
    device
        Where stage one ran; its seconds are those of that machine.
    """

    memory_kind: str = ""
    memory_bytes: float | None = None
    memory_is_bound: bool = False
    seconds: float | None = None
    disk_bytes: float | None = None
    device: str = ""


def costs_of(cost: Cost, *, disk_bytes: float | None = None) -> Costs:
    """Read the costs of a ledger: peak memory, and seconds an hour of audio.

    Seconds are waiting for decoders, encoding and writing over the audio that
    was really encoded; rows copied from other stores count in neither.

    Examples
    --------
    >>> ledger = {"wait_seconds": 1, "encode_seconds": 8, "write_seconds": 1}
    >>> costs_of({**ledger, "audio_seconds": 1800, "peak_rss_bytes": 2e9}).seconds
    20.0
    """
    vram, rss = _number(cost, "peak_vram_allocated_bytes"), _number(cost, "peak_rss_bytes")
    parts = [_number(cost, f"{name}_seconds") for name in ("wait", "encode", "write")]
    known = [part for part in parts if part is not None]
    audio = _number(cost, "audio_seconds")
    return Costs(
        memory_kind="vram" if vram else "rss" if rss else "",
        memory_bytes=vram or rss or None,
        memory_is_bound=not vram and _together(cost) > 0,
        seconds=sum(known) * 3600 / audio if audio and len(known) == len(parts) else None,
        disk_bytes=disk_bytes,
        device=_listed(*_texts(cost.get("devices"))),
    )


def cost_cells(rows: Sequence[Cost]) -> dict[str, list[str]]:
    """Columns of a table of results; a column that no row has is left out.

    Memory is that of the GPU where there was one, else of the encoding process.
    """
    seconds = [_cell(row, "stage_one_seconds", 1.0, 1) for row in rows]
    vram = [_cell(row, "peak_vram_bytes", 1e9, 2) for row in rows]
    rss = [
        _cell(row, "peak_rss_bytes", 1e9, 2) if on_gpu == ABSENT else ABSENT
        for row, on_gpu in zip(rows, vram, strict=True)
    ]
    columns = zip(COST_COLUMNS, (seconds, vram, rss), strict=True)
    return {name: cells for name, cells in columns if set(cells) != {ABSENT}}


def probe_seconds(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seconds of reading, fitting and predicting, of each row."""
    return [f"{sum(row.get(name, 0.0) for name in STAGE_TWO_SECONDS):.1f}" for row in rows]


def cost_notes(rows: Sequence[Cost]) -> list[str]:
    """What must be said about these columns."""
    notes = []
    if any(row.get("peak_vram_bytes") is None and _together(row) for row in rows):
        notes.append(
            "RSS GB: lengths extracted together share a process and its peak; "
            "one at a time tells them apart"
        )
    if any((row.get("n_copied_tracks") or 0) > 0 for row in rows):
        notes.append("extract s: rows copied from other stores cost nothing here")
    return notes


def left_out(
    widths: Mapping[str, int], width: int, *, droppable: Sequence[str] = COST_COLUMNS[::-1]
) -> list[str]:
    """Choose columns without which the others fit, as few as that takes.

    Parameters
    ----------
    widths
        Of all columns by name, with the space between them.
    droppable
        Columns that may go, the first of them first; those of cost, from the right.

    Returns
    -------
    in the order of ``widths``

    Examples
    --------
    >>> left_out({"seg": 6, "extract s": 11, "RSS GB": 8}, 20)
    ['RSS GB']
    """
    absent: set[str] = set()
    for name in droppable:
        if name in widths and sum(widths[n] for n in widths if n not in absent) > width:
            absent.add(name)
    return [name for name in widths if name in absent]


def ledger_rows(cost: Cost) -> list[dict[str, str]]:
    """Tell a ledger as lines of three columns: what, how much, and what that means."""
    speed = _number(cost, "x_real_time")
    first = _text(cost, "first_batch_seconds", "s")
    lines = [
        ("stage one", _text(cost, "stage_one_seconds", "s"), "load + wait + encode + write"),
        ("load", _text(cost, "load_seconds", "s"), "the encoder"),
        ("wait", _text(cost, "wait_seconds", "s"), "of the encoder, for decoders"),
        (
            "encode",
            _text(cost, "encode_seconds", "s"),
            _listed(
                f"{speed:.1f} × real time" if speed else "",
                f"first batch {first}" if first else "",
            ),
        ),
        ("write", _text(cost, "write_seconds", "s"), "units and the store"),
        ("decode", _text(cost, "decode_seconds", "s"), "in decoders, beside the encoder"),
        ("audio", _text(cost, "audio_seconds", "s"), _count(cost, "n_segments", "segments")),
        (
            "batch",
            _text(cost, "batch_size", ""),
            _listed(
                "items at most",
                _count(cost, "n_backoffs", "halved for lack of memory"),
                _count(cost, "n_fallbacks", "items again in fp32"),
            ),
        ),
        (
            "VRAM",
            _gigabytes(cost, "peak_vram_allocated_bytes"),
            f"in tensors; {_gigabytes(cost, 'peak_vram_reserved_bytes')} held by torch",
        ),
        (
            "RSS",
            _gigabytes(cost, "peak_rss_bytes"),
            "of the encoding process since its start"
            + (f"; made together: {_together(cost) + 1} lengths" if _together(cost) else ""),
        ),
        (
            "RSS of a decoder",
            _gigabytes(cost, "peak_decoder_rss_bytes"),
            "the largest of them",
        ),
        ("units", _text(cost, "n_units", ""), "each adds its seconds; memory is the highest"),
        ("copied", _count(cost, "n_copied_tracks", "tracks"), "from other stores, at no cost"),
        ("device", _listed(*_texts(cost.get("devices"))), _machine(cost)),
    ]
    rows = [{"cost": what, "value": value, "note": note} for what, value, note in lines]
    return [row for row in rows if row["value"]]


def _machine(cost: Cost) -> str:
    """Where it was assembled, in one line."""
    machine = cost.get("machine")
    facts: Cost = machine if isinstance(machine, Mapping) else {}
    versions = facts.get("versions")
    torch = versions.get("torch") if isinstance(versions, Mapping) else None
    return _listed(
        *(f"{name} {facts[name]}" for name in ("driver", "cuda") if facts.get(name)),
        f"torch {torch}" if torch else "",
        _count(facts, "n_cpus", "CPUs"),
        _count(cost, "n_threads", "threads of torch"),
    )


def _number(cost: Cost, name: str) -> float | None:
    """A finite number, else None: ledgers are files, and old ones lack names."""
    value = cost.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _cell(row: Cost, name: str, unit: float, n_digits: int) -> str:
    value = _number(row, name)
    return ABSENT if value is None else f"{value / unit:.{n_digits}f}"


def _together(cost: Cost) -> int:
    """Other lengths that were made in the same process."""
    n_lengths = _number(cost, "n_lengths_together") or _number(cost, "n_lengths") or 1
    return int(n_lengths) - 1


def _text(cost: Cost, name: str, unit: str) -> str:
    value = _number(cost, name)
    if value is None:
        return ""
    return f"{value:.1f} {unit}" if unit else f"{value:g}"


def _gigabytes(cost: Cost, name: str) -> str:
    value = _number(cost, name)
    return f"{value / 1e9:.2f} GB" if value else ""


def _count(cost: Cost, name: str, what: str) -> str:
    value = _number(cost, name)
    return f"{value:g} {what}" if value else ""


def _listed(*texts: str) -> str:
    return "; ".join(printable(text) for text in texts if text)
