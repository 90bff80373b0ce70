"""Tables of sweeps: rows for programs, text for people.

Conventions
-----------
A row stands for everything that is the same thing: ``same_seg`` and
``same_aggregation`` list what else it is. Differences are minus the reference,
which validation chose. ``as_good`` is null where n cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tune_cache.probes.compare import FEW_GROUPS, Comparison
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.verdicts import Verdict, smallest_difference
from tune_cache.reports.cost import (
    COST_COLUMNS,
    STAGE_TWO_COST,
    STAGE_TWO_SECONDS,
    cost_cells,
    cost_of,
    probe_seconds,
)
from tune_cache.reports.results import SavedRun
from tune_cache.reports.tables import with_options
from tune_cache.reports.text import Curve, fitted_table, folded, layer_curves

__all__ = [
    "ALPHA",
    "TESTS",
    "interval",
    "number",
    "p_value",
    "sweep_rows",
    "sweep_text",
]

ALPHA = 0.05
SAID_ONCE = ("probe", "layer", "n")
TESTS = {"mcnemar": "McNemar's exact test", "permutation": "10,000 permutations by group"}
NAMES = ("seg", "agg", "probe", "flags")  # folded where they are too wide
# what may go where a table is too wide, the first first: costs and facts before findings
DROPPABLE = (*COST_COLUMNS[::-1], "probe s", "n", "± seeds", "p", "val", "difference")


def sweep_rows(
    verdicts: Sequence[Verdict], runs: Sequence[Sequence[SavedRun]], *, margin: float
) -> list[dict[str, Any]]:
    """Flatten one task's table, in its order."""
    smallest = smallest_difference(verdicts)
    rows = []
    for verdict, some in zip(verdicts, runs, strict=True):
        entry, context = verdict.entry, some[0].context
        first = entry.results[0]
        layers = list(dict.fromkeys(result.layer for result in entry.results))
        row: dict[str, Any] = {
            "dataset": context.dataset,
            "task": first.task,
            "encoder": context.encoder,
            "note": context.note,
            "seg": entry.segs[0],
            "same_seg": list(entry.segs[1:]),
            "aggregation": entry.aggregations[0],
            "same_aggregation": list(entry.aggregations[1:]),
            "aggregation_options": dict(first.aggregation_options),
            "probe": first.probe,
            "layer": ", ".join(layers),
            "layer_asked": first.layer_asked,
            "seeds": [result.seed for result in entry.results],
            "run_ids": [run.run_id for run in some],
            "metric": entry.metric,
            "test": verdict.score.value,
            "test_low": verdict.score.low,
            "test_high": verdict.score.high,
            "seed_deviation": entry.seed_deviation(),
            "val": entry.validation(),
            "n_test": first.n["test"],
            "is_reference": verdict.is_reference,
            "as_good": verdict.as_good,
            "margin": margin,
            **_comparison_row(verdict.comparison, verdict.p_holm),
            "smallest_in_table": smallest,
            "n_features": first.n_features,
            "share_one_segment": first.share_one_segment,
            "flags": list(first.flags),
            "warnings": list(first.warnings),
            "store": context.store,
            **_stage_two(entry.results),
            **cost_of(context.cost),
        }
        rows.append(row)
    return rows


def _stage_two(results: Sequence[ProbeResult]) -> dict[str, float | None]:
    """What the seeds of a row cost: seconds add up, the rest is of the dearest."""
    cost: dict[str, float | None] = {}
    for name in STAGE_TWO_SECONDS:
        cost[name] = sum(
            result.seconds.get(name.removeprefix("seconds_"), 0.0) for result in results
        )
    for name in STAGE_TWO_COST:
        cost[name] = max((r.cost[name] for r in results if name in r.cost), default=None)
    return cost


def _comparison_row(found: Comparison | None, p_holm: float) -> dict[str, Any]:
    """Values of a comparison; all None without one."""
    names = ("difference", "low", "high", "loss_bound", "p", "test", "n", "n_groups", "n_differ")
    keys = {"low": "difference_low", "high": "difference_high", "test": "p_test", "n": "n_common"}
    values = {keys.get(name, name): getattr(found, name, None) for name in names}
    return values | {
        "p_holm": None if found is None else p_holm,
        "smallest": None if found is None else found.smallest,
    }


def sweep_text(
    rows: Sequence[dict[str, Any]],
    *,
    width: int,
    curves: Sequence[Curve] = (),
    encoding: str = "utf-8",
) -> str:
    """Draw one task's table, the best test score first, in lines of at most ``width`` columns.

    Columns that do not fit are left out and named, names are folded.

    Parameters
    ----------
    curves, encoding
        Of scores over layers, and of the terminal, for
        :func:`~tune_cache.reports.text.layer_curves`.
    """
    shown = sorted(rows, key=lambda row: _last_if_undefined(row["test"]))
    first, metric = shown[0], shown[0]["metric"]
    flags = list(dict.fromkeys(flag for row in shown for flag in row["flags"]))
    columns: dict[str, list[str]] = {
        "seg": [" = ".join([row["seg"], *row["same_seg"]]) for row in shown],
        "agg": [
            " = ".join(
                [
                    with_options(row["aggregation"], row["aggregation_options"]),
                    *row["same_aggregation"],
                ]
            )
            for row in shown
        ],
        "probe": [row["probe"] for row in shown],
        "layer": [_layer(row) for row in shown],
        metric: [interval(row["test"], row["test_low"], row["test_high"]) for row in shown],
        "± seeds": [number(row["seed_deviation"], absent="") for row in shown],
        "val": [number(row["val"]) for row in shown],
        **_comparison_cells(shown),
        "good": [_as_good(row) for row in shown],
        "n": [str(row["n_test"]) for row in shown],
        **cost_cells(shown),
        "probe s": probe_seconds(shown),
        "flags": [",".join(str(flags.index(flag) + 1) for flag in row["flags"]) for row in shown],
    }
    said = [f"encoder {first['encoder']}"]
    same = [name for name in SAID_ONCE if len(set(columns[name])) == 1]
    said += [f"{name} {columns.pop(name)[0]}" for name in same]
    said.append(f"seed {', '.join(map(str, first['seeds']))}")
    lines = [
        dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
    ]
    firm = [name for name in columns if name not in NAMES]
    table, absent = fitted_table(lines, width=width, firm=firm, droppable=DROPPABLE)
    warnings = dict.fromkeys(warning for row in shown for warning in row["warnings"])
    above = [
        f"{first['dataset']} · {first['task']}: {metric} on test [95 % interval]",
        "; ".join(said),
    ]
    below = [
        *_notes(shown, absent),
        *layer_curves(curves, width=width, encoding=encoding),
        *([f"too narrow for: {', '.join(absent)}"] if absent else []),
        *(f"flag {mark}: {flag}" for mark, flag in enumerate(flags, start=1)),
        *(f"warning: {warning}" for warning in warnings),
    ]
    texts = [[folded(line, width=width) for line in lines] for lines in (above, below)]
    return "\n".join([*texts[0], table, *texts[1]])


def _comparison_cells(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Columns of a comparison; empty where there is none."""
    return {
        "difference": [
            interval(row["difference"], row["difference_low"], row["difference_high"], sign="+")
            if row["difference"] is not None
            else ""
            for row in rows
        ],
        "p": [p_value(row["p_holm"]) for row in rows],
    }


def _notes(rows: Sequence[dict[str, Any]], absent: Sequence[str]) -> list[str]:
    """What the columns that are there mean, and what n can show."""
    notes = []
    row = rows[0]
    if len({text for text in (item["note"] for item in rows) if text}):
        notes.append(f"encoder {row['encoder']}: {row['note']}")
    compared = [item for item in rows if item["difference"] is not None]
    if compared:
        tests = " or ".join(TESTS[name] for name in sorted({item["p_test"] for item in compared}))
        if "difference" not in absent:
            notes.append(
                "difference: to the cell that validation chose, on common test tracks "
                "[95 % interval]"
            )
        if "p" not in absent:
            notes.append(f"p: {tests}, Holm over {len(compared)} comparisons; * below {ALPHA}")
        notes.append(
            f"good: loses less than {row['margin']:g}, with 95 % confidence"
            + (
                f"; ?: fewer than {FEW_GROUPS} groups cannot tell"
                if any(item["as_good"] is None for item in rows)
                else ""
            )
        )
        if math.isfinite(row["smallest_in_table"]):
            notes.append(
                f"the smallest difference that {compared[0]['n_common']} test tracks would show"
                f" (power 0.8, one pair): about {row['smallest_in_table']:.3f}"
            )
    elif len(rows) > 1:
        notes.append("few-shot results keep no predictions: rows are not compared")
    if any(item["same_seg"] for item in rows):
        notes.append("seg a = b: these lengths cut every track alike; encoded and counted once")
    if any(item["same_aggregation"] for item in rows):
        notes.append("agg a = b: no track has more than one segment; computed and counted once")
    return notes


def _last_if_undefined(value: float) -> tuple[bool, float]:
    return math.isnan(value), -value


def _layer(row: dict[str, Any]) -> str:
    found = row["layer_asked"] in ("best", "last")
    return f"{row['layer']} ({row['layer_asked']})" if found else str(row["layer"])


def number(value: float | None, *, absent: str = "–", sign: str = "") -> str:
    """A score to three digits, or what stands for none."""
    return absent if value is None or math.isnan(value) else f"{value:{sign}.3f}"


def interval(value: float, low: float, high: float, *, sign: str = "") -> str:
    """A score with its interval, if it has one."""
    text = number(value, sign=sign)
    return text if math.isnan(low) else f"{text} [{low:{sign}.2f}, {high:{sign}.2f}]"


def p_value(value: float | None) -> str:
    """A p-value, marked if it is small."""
    if value is None:
        return ""
    if math.isnan(value):
        return "–"
    text = "<0.001" if value < 0.001 else f"{value:.3f}"
    return f"{text}*" if value < ALPHA else text


def _as_good(row: dict[str, Any]) -> str:
    if row["is_reference"]:
        return "chosen"
    if row["difference"] is None:
        return ""
    return {True: "yes", False: "no", None: "?"}[row["as_good"]]
