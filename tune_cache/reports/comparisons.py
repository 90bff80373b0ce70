"""Tables of `tune compare`: what two result sets differ by, and what they cannot show.

Conventions
-----------
Differences are first minus second. ``verdict`` is ``first`` or ``second`` (better,
p after Holm below 0.05), ``equivalent`` (neither worse by the margin, each with
95 % confidence), or ``undecided``, which is what few tracks can say at best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune_cache.probes.compare import FEW_GROUPS, Comparison, TrackDifference
from tune_cache.probes.result import Label
from tune_cache.reports.results import SavedRun
from tune_cache.reports.runs import without_leaks
from tune_cache.reports.sweeps import ALPHA, TESTS, interval, number, p_value
from tune_cache.reports.tables import with_options
from tune_cache.reports.text import fitted_table, folded, plain_table

__all__ = ["compare_row", "compare_text"]

LONGEST_LABEL = 40


def compare_row(
    first: Sequence[SavedRun],
    second: Sequence[SavedRun],
    found: Comparison,
    p_holm: float,
    tracks: Sequence[TrackDifference],
    *,
    sides: tuple[str, str],
    margin: float,
) -> dict[str, Any]:
    """Flatten one metric of one task.

    Parameters
    ----------
    tracks
        Those to list.
    """
    return {
        "dataset": first[0].context.dataset,
        "task": first[0].result.task,
        "metric": found.metric,
        "first": sides[0],
        "second": sides[1],
        "first_is": _configuration(first),
        "second_is": _configuration(second),
        "first_run_ids": [run.run_id for run in first],
        "second_run_ids": [run.run_id for run in second],
        "first_test": found.first,
        "second_test": found.second,
        "difference": found.difference,
        "difference_low": found.low,
        "difference_high": found.high,
        "first_loss_bound": found.loss_bound,
        "second_loss_bound": found.gain_bound,
        "margin": margin,
        "p": found.p,
        "p_holm": p_holm,
        "p_test": found.test,
        "verdict": _verdict(found, p_holm, margin),
        "n_common": found.n,
        "n_groups": found.n_groups,
        "n_seeds": found.n_seeds,
        "n_differ": found.n_differ,
        "smallest": found.smallest,
        "tracks": [
            {
                "track_id": track.track_id,
                "truth": track.truth,
                "first": track.first,
                "second": track.second,
                "gain": track.gain,
            }
            for track in tracks
        ],
    }


def _verdict(found: Comparison, p_holm: float, margin: float) -> str:
    if p_holm < ALPHA and found.difference != 0:
        return "first" if found.difference > 0 else "second"
    return "equivalent" if found.is_equivalent(margin) else "undecided"


def _configuration(runs: Sequence[SavedRun]) -> str:
    """All that decides a side, in words."""
    result, context = runs[0].result, runs[0].context
    seeds = ", ".join(str(run.result.seed) for run in runs)
    return (
        f"{context.encoder}, seg {context.seg},"
        f" {with_options(result.aggregation, result.aggregation_options)}, {result.probe},"
        f" layer {result.layer}, seed {seeds}"
        + (", without leaks" if without_leaks(result) else "")
        + (f" ({context.note})" if context.note else "")
    )


def compare_text(rows: Sequence[dict[str, Any]], *, width: int) -> str:
    """Draw the table, what the sides are, and the tracks that differ."""
    first = rows[0]
    words = {"first": "A", "second": "B"}
    table, absent = fitted_table(
        [
            {
                "task": row["task"],
                "metric": row["metric"],
                "A": number(row["first_test"]),
                "B": number(row["second_test"]),
                "A − B": interval(
                    row["difference"], row["difference_low"], row["difference_high"], sign="+"
                ),
                "p": p_value(row["p_holm"]),
                "better": words.get(row["verdict"], row["verdict"]),
                "n": row["n_common"],
                "differ": row["n_differ"],
                "could show": number(row["smallest"]),
            }
            for row in rows
        ],
        width=width,
        firm=("A", "B", "A − B", "p", "better", "n", "differ", "could show"),
        droppable=("differ", "n", "could show", "p", "A", "B"),
    )
    drawn = {table}
    lines = [f"{first['dataset']}: A is {first['first']}, B is {first['second']}", table]
    tests = " or ".join(TESTS[name] for name in sorted({row["p_test"] for row in rows}))
    lines += [
        "A − B: on common test tracks [95 % interval]",
        f"p: {tests}, Holm over {len(rows)} comparisons; * below {ALPHA}",
        f"equivalent: neither is worse by {first['margin']:g}, each with 95 % confidence",
        "could show: the smallest difference that n tracks would (power 0.8, one pair)",
        *([f"too narrow for: {', '.join(absent)}"] if absent else []),
    ]
    if any(row["n_groups"] < FEW_GROUPS for row in rows):
        lines.append(f"fewer than {FEW_GROUPS} groups can show no equivalence")
    for row in rows:
        if row["metric"] == next(r["metric"] for r in rows if r["task"] == row["task"]):
            lines += [f"{row['task']}: A {row['first_is']}", f"{row['task']}: B {row['second_is']}"]
            tracks = _tracks(row, width)
            drawn |= set(tracks[1:])
            lines += tracks
    return "\n".join(line if line in drawn else folded(line, width=width) for line in lines)


def _tracks(row: dict[str, Any], width: int) -> list[str]:
    if not row["tracks"]:
        return [f"{row['task']}: no track differs"] if row["n_differ"] == 0 else []
    shown = [
        {
            "track": track["track_id"],
            "truth": _label(track["truth"]),
            "A": _label(track["first"]),
            "B": _label(track["second"]),
            "for": "A" if track["gain"] > 0 else "B",
        }
        for track in row["tracks"]
    ]
    head = f"{row['task']}: {len(shown)} of {row['n_differ']} tracks that differ, the most first"
    return [head, *plain_table(shown, width=width).splitlines()]


def _label(label: Label) -> str:
    """A class, or numbers; rows of tags are too long to read."""
    if isinstance(label, str):
        return label
    text = ", ".join(f"{value:.2f}" for value in label)
    return text if len(text) <= LONGEST_LABEL else ""
