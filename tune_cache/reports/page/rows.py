"""Cells of a task as rows of a table and as points of cost and curve.

Conventions
-----------
A row is one of :func:`~tune_cache.reports.sweeps.sweep_rows`, with what a page adds.
An unknown figure is None; nothing is made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from tune_cache.probes.sweep import merge_aggregations
from tune_cache.probes.verdicts import Verdict
from tune_cache.reports.cost import costs_of
from tune_cache.reports.page.model import StoreFacts, TaskResults
from tune_cache.reports.runs import SavedRun, without_leaks
from tune_cache.reports.sweeps import sweep_rows

__all__ = [
    "COSTS", "Cost", "Glance", "Row", "aggregation_name", "cell_rows", "encoder_name", "glance",
    "layer_name", "pareto_front", "seg_name", "seg_order", "short_titles", "title_of",
]  # fmt: skip

Row = dict[str, Any]

STAGE_TWO = ("read", "fit", "predict")


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost that scores are drawn against."""

    key: str
    name: str
    column: str
    unit: str
    tells: str
    of: Callable[[Row], float | None]


def _giga(name: str) -> Callable[[Row], float | None]:
    return lambda row: None if row[name] is None else row[name] / 1e9


# the memory of a process comes last: lengths made together share it
COSTS = (
    Cost(
        "vram",
        "peak VRAM, GB",
        "VRAM, GB",
        "GB",
        "what tensors took at most on the GPU during stage one",
        _giga("peak_vram_bytes"),
    ),
    Cost(
        "hour",
        "stage one, s per hour of audio",
        "s per hour",
        "s/h",
        "waiting for decoders, encoding and writing, for each hour of audio; loading is apart",
        lambda row: row["seconds_per_hour"],
    ),
    Cost(
        "disk",
        "vectors on disk, MB",
        "disk, MB",
        "MB",
        "files of the store, all layers that it keeps",
        lambda row: None if row["store_bytes"] is None else row["store_bytes"] / 1e6,
    ),
    Cost(
        "probe",
        "stage two, s",
        "stage two, s",
        "s",
        "reading vectors, fitting every layer and strength that was looked at, predicting",
        lambda row: row["probe_seconds"],
    ),
    Cost(
        "rss",
        "peak RSS, GB",
        "RSS, GB",
        "GB",
        "resident memory of the encoding process since its start: Python, torch, weights and "
        "audio included; not comparable with VRAM",
        _giga("peak_rss_bytes"),
    ),
)


def cell_rows(found: TaskResults, stores: Mapping[str, StoreFacts]) -> list[Row]:
    """Flatten a task's cells, in their order.

    Parameters
    ----------
    stores
        By content digest.
    """
    rows: list[Row] = []
    several = list(zip(found.verdicts, found.runs, strict=True))
    for number, row in enumerate(sweep_rows(found.verdicts, found.runs, margin=found.margin)):
        verdict, runs = several[number]
        store = stores.get(runs[0].context.content_digest)
        rows.append(row | _added(number, verdict, runs, store))
    for row in rows:
        _tell_same(row, rows, stores.get(row["content_digest"]))
    return rows


def _tell_same(row: Row, rows: Sequence[Row], store: StoreFacts | None) -> None:
    """Name what a row is too, where every track is one segment: a sweep works it out once."""
    if row["share_one_segment"] < 1.0:
        return
    beside = [other for other in rows if other["encoder"] == row["encoder"]]
    names = list(dict.fromkeys(str(other["aggregation"]) for other in beside))
    merged = merge_aggregations(names, one_segment=True)
    here = {other["aggregation"] for other in beside if _alike(other, row, "seg")}
    (same,) = [some for some in merged if row["aggregation"] in some]
    row["same_aggregation"] = [name for name in same if name not in here]
    whole = {other["seg"] for other in beside if _alike(other, row, "aggregation")}
    if store is not None and store.seconds and row["seg"] not in ("full", *row["same_seg"]):
        order = seg_order(row["seg"])
        if order[0] == 0 and max(store.seconds) <= order[1] and "full" not in whole:
            row["same_seg"] = ["full"]


def _alike(row: Row, other: Row, also: str) -> bool:
    """Whether two rows share what they were asked for, and one thing more."""
    return all(row[name] == other[name] for name in ("layer_asked", "layer", "probe", also))


def _added(
    number: int, verdict: Verdict, runs: Sequence[SavedRun], store: StoreFacts | None
) -> Row:
    first = verdict.entry.results[0]
    context = runs[0].context
    others = {
        name: mean(result.scores["test"][name].value for result in verdict.entry.results)
        for name in first.scores["test"]
        if name != first.metric and all(name in r.scores["test"] for r in verdict.entry.results)
    }
    spans = {
        name: (first.scores["test"][name].low, first.scores["test"][name].high)
        for name in others
        if len(runs) == 1
    }
    seconds = [sum(r.seconds.get(name, 0.0) for name in STAGE_TWO) for r in verdict.entry.results]
    return {
        "number": number,
        "pooling": context.pooling,
        "params": dict(first.params),
        "n_train": first.n.get("train", 0),
        "n_val": first.n.get("val", 0),
        "n_excluded": len(first.excluded),
        "without_leaks": without_leaks(first),
        "others": others,
        "other_spans": spans,
        "probe_seconds": mean(seconds) if any(seconds) else None,
        "seconds_per_hour": costs_of(context.cost).seconds,
        "store_bytes": store.n_bytes if store is not None else None,
        "spec_key": context.spec_key,
        "content_digest": context.content_digest,
        "created": runs[0].created,
        "is_whole_track": first.share_one_segment >= 1.0 and context.seg != "full",
    }


def encoder_name(row: Row) -> str:
    """Its name, and what must be said wherever its scores stand."""
    return f"{row['encoder']} ({row['note']})" if row["note"] else str(row["encoder"])


def seg_name(row: Row) -> str:
    """A length with its unit.

    Examples
    --------
    >>> seg_name({"seg": "10", "same_seg": [], "is_whole_track": False})
    '10 s'
    >>> seg_name({"seg": "60", "same_seg": ["full"], "is_whole_track": True})
    '60 s = full'
    """
    return " = ".join(_with_unit(label) for label in (row["seg"], *row["same_seg"]))


def _with_unit(label: str) -> str:
    parts = label.split("+")
    return "+".join(f"{part} s" if part != "full" else part for part in parts)


def seg_order(label: str) -> tuple[int, float]:
    """Shorter lengths first, then whole tracks, then several lengths at once."""
    try:
        return 0, float(label)
    except ValueError:
        return (1, 0.0) if label == "full" else (2, 0.0)


def aggregation_name(row: Row) -> str:
    """With its options, and what else it is here."""
    options = ", ".join(f"{name}={value}" for name, value in row["aggregation_options"].items())
    name = f"{row['aggregation']}({options})" if options else str(row["aggregation"])
    return " = ".join((name, *row["same_aggregation"]))


def layer_name(row: Row) -> str:
    """The layer, and how it was found if it was looked for."""
    found = row["layer_asked"] in ("best", "last")
    return f"{row['layer']} ({row['layer_asked']})" if found else str(row["layer"])


def title_of(row: Row) -> str:
    """A cell in words."""
    parts = [encoder_name(row), seg_name(row), aggregation_name(row), str(row["probe"])]
    parts.append(f"layer {layer_name(row)}")
    return ", ".join(parts + ["without leaks"] * row["without_leaks"])


def short_titles(rows: Sequence[Row]) -> dict[int, str]:
    """Cells in words, by number, without what is the same in all of them."""
    parts = {
        "encoder": {row["number"]: encoder_name(row) for row in rows},
        "seg": {row["number"]: seg_name(row) for row in rows},
        "aggregation": {row["number"]: aggregation_name(row) for row in rows},
        "probe": {row["number"]: str(row["probe"]) for row in rows},
        "layer": {row["number"]: f"layer {layer_name(row)}" for row in rows},
        "leaks": {
            row["number"]: "without leaks" if row["without_leaks"] else "with leaks" for row in rows
        },
    }
    asked = {row["layer_asked"] for row in rows}
    if len(asked) == 1 and asked <= {"best", "last", "mean"}:
        del parts["layer"]
    told = [texts for texts in parts.values() if len(set(texts.values())) > 1]
    told = told or [parts["seg"], parts["aggregation"]]
    return {row["number"]: ", ".join(texts[row["number"]] for texts in told) for row in rows}


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of points that no other point beats: cheaper and as good, or better and as cheap.

    Of equal points the first is kept; a point without a score is none.

    Examples
    --------
    >>> pareto_front([3, 1, 2, 2], [0.9, 0.5, 0.9, 0.4])
    [1, 2]
    """
    best, front = -math.inf, []
    for place in sorted(range(len(costs)), key=lambda p: (costs[p], -_score(scores[p]))):
        if _score(scores[place]) > best:
            best = scores[place]
            front.append(place)
    return front


def _score(value: float) -> float:
    return value if math.isfinite(value) else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """Aggregation × length: of each pair the cell that validation chooses.

    Parameters
    ----------
    cells
        A row an aggregation, a column a length; None where nothing was tried.
    """

    encoder: str
    lengths: tuple[str, ...]
    aggregations: tuple[str, ...]
    cells: tuple[tuple[Row | None, ...], ...]


def glance(rows: Sequence[Row]) -> list[Glance]:
    """Arrange the cells of each encoder in TUNE's two axes.

    A cell that stands for several lengths or aggregations stands in each of their places.
    """
    found: list[Glance] = []
    for encoder in dict.fromkeys(encoder_name(row) for row in rows):
        place: dict[tuple[str, str], Row] = {}
        for row in (row for row in rows if encoder_name(row) == encoder):
            for seg in (row["seg"], *row["same_seg"]):
                for name in (row["aggregation"], *row["same_aggregation"]):
                    before = place.get((name, seg))
                    if before is None or _score(row["val"]) > _score(before["val"]):
                        place[name, seg] = row
        lengths = sorted({seg for _, seg in place}, key=seg_order)
        names = list(dict.fromkeys(name for name, _ in place))
        found.append(
            Glance(
                encoder=encoder,
                lengths=tuple(map(_with_unit, lengths)),
                aggregations=tuple(names),
                cells=tuple(tuple(place.get((name, seg)) for seg in lengths) for name in names),
            )
        )
    return found
