"""Advice as rows for programs and as text for people.

Conventions
-----------
One row a choice, in the order of the text; a cell with several reasons is one.
Losses are of the best cell: positive is worse than it.
"""

from __future__ import annotations

import math
from typing import Any

from tune_cache.errors import first_few
from tune_cache.reports.advice import Advice, Choice
from tune_cache.reports.cost import Costs
from tune_cache.reports.front import Budget
from tune_cache.reports.sweeps import interval, number
from tune_cache.reports.text import folded

__all__ = ["advice_rows", "advice_text"]

PER_HOUR = "s an hour of audio"


def advice_rows(advice: Advice) -> list[dict[str, Any]]:
    """Flatten an advice, one row a choice."""
    budget = advice.budget
    rows = []
    for choice in advice.choices:
        cell, costs = choice.candidate, choice.candidate.costs
        found, test = choice.on_validation, choice.on_test
        rows.append(
            {
                **cell.about,
                "roles": list(choice.roles),
                "name": cell.name,
                "same": list(cell.same),
                "val": cell.value,
                "test": None if choice.score is None else choice.score.value,
                "test_low": None if choice.score is None else choice.score.low,
                "test_high": None if choice.score is None else choice.score.high,
                "rule": advice.rule,
                "threshold": advice.threshold,
                "as_good": choice.as_good,
                "val_loss": None if found is None else -found.difference,
                "val_loss_bound": None if found is None else found.loss_bound,
                "val_n_groups": None if found is None else found.n_groups,
                "val_smallest": None if found is None else found.smallest,
                "test_loss": None if test is None else -test.difference,
                "test_loss_low": None if test is None else -test.high,
                "test_loss_high": None if test is None else -test.low,
                "test_smallest": None if test is None else test.smallest,
                "memory_kind": costs.memory_kind or None,
                "memory_bytes": costs.memory_bytes,
                "memory_is_bound": costs.memory_is_bound,
                "seconds_per_hour": costs.seconds,
                "disk_bytes": costs.disk_bytes,
                "device": costs.device,
                "budget_memory_kind": budget.memory_kind or None,
                "budget_memory_bytes": budget.memory_bytes,
                "budget_seconds_per_hour": budget.seconds,
                "budget_disk_bytes": budget.disk_bytes,
                "fits": choice.fits if budget.is_limited else None,
                "n_cells": advice.n_cells,
                "n_on_front": len(advice.front),
                "n_unknown": len(advice.unknown),
                "n_features": cell.n_features,
                "flags": list(cell.flags),
            }
        )
    return rows


def advice_text(advice: Advice, *, width: int, seconds_are: str = PER_HOUR) -> str:
    """Write an advice as blocks of a few lines, each at most ``width`` columns.

    Parameters
    ----------
    seconds_are
        What the seconds of these cells are of.
    """
    best = advice.choices[0]
    about, limits = best.candidate.about, _limits(advice.budget, seconds_are)
    decided = f"validation ({_tracks(about, 'n_val')})" if "n_val" in about else "published scores"
    lines = [f"{about.get('dataset', '')} · {about.get('task', '')}: {about.get('metric', '')}"]
    lines.append(f"{advice.n_cells} cells, each thing once, chosen by {decided}")
    for choice in advice.choices:
        lines += ["", *_block(choice, advice, limits, seconds_are)]
    if advice.budget.is_limited and advice.of("within") is None:
        lines += ["", f"best within {limits}: none is known to fit"]
    lines += ["", *_meaning(advice)] if len(advice.choices) > 1 or advice.n_cells > 1 else [""]
    lines += advice.statements
    if advice.unknown:
        cell, lacking = advice.unknown[0]
        lines.append(f"not known of {cell.name}: {', '.join(lacking)}; extract it here to know")
    return "\n".join(folded(line, width=width) if line else "" for line in lines)


def _block(choice: Choice, advice: Advice, limits: str, seconds_are: str) -> list[str]:
    cell = choice.candidate
    words = {
        "best": "best",
        "cheapest": f"least {cell.costs.memory_kind.upper()} as good as the best",
        "within": f"best within {limits}",
        "fastest": "fastest as good as the best",
    }
    if "best" in choice.roles:
        words["cheapest"] = f"none that takes less {cell.costs.memory_kind.upper()} is as good"
        words["fastest"] = "none that is faster is as good"
        if advice.rule == "margin":
            words = {
                role: text.replace("is as", "is shown to be as") for role, text in words.items()
            }
    lines = ["; ".join(words[role] for role in choice.roles), f"  {cell.name}"]
    if cell.same:
        lines.append(f"  the same as {first_few(cell.same, 2)}")
    if choice.score is None:
        lines.append(f"  {number(cell.value)}")
    else:
        score, about = choice.score, cell.about
        lines.append(
            f"  test {interval(score.value, score.low, score.high)}"
            f" ({_tracks(about, 'n_test')}); validation {number(cell.value)}"
        )
    costs = _costs(cell.costs, seconds_are)
    if advice.budget.is_limited:
        costs += {True: "", False: "; over the budget", None: "; not known to fit"}[choice.fits]
    lines.append(f"  {costs}")
    lines += _losses(choice, advice)
    lines += [f"  flag: {flag}" for flag in cell.flags]
    return lines


def _losses(choice: Choice, advice: Advice) -> list[str]:
    """How far from the best, where the choice was made and on test."""
    found, test = choice.on_validation, choice.on_test
    if found is None:
        best = advice.choices[0].candidate
        if choice.candidate is best:
            return []
        return [f"  {choice.candidate.value / best.value:.1%} of the best: {_good(choice)}"]
    lines = []
    if advice.rule == "margin":
        bound = "no bound" if math.isnan(found.loss_bound) else f"at most {found.loss_bound:.3f}"
        lines.append(
            f"  loses {number(-found.difference)} on validation, {bound} with 95 % confidence:"
            f" {_good(choice)}"
        )
    else:
        best = advice.choices[0].candidate
        share = choice.candidate.value / best.value if best.value > 0 else math.nan
        lines.append(f"  {share:.1%} of the best on validation: {_good(choice)}")
    if test is not None:
        lines.append(
            f"  loses {interval(-test.difference, -test.high, -test.low, sign='+')} on test;"
            f" {test.n} tracks could show {number(test.smallest)}"
        )
    return lines


def _good(choice: Choice) -> str:
    return {True: "as good", False: "not shown to be as good", None: "cannot tell"}[choice.as_good]


def _tracks(about: Any, name: str) -> str:
    return f"{about.get(name)} tracks"


def _limits(budget: Budget, seconds_are: str) -> str:
    memory, kind = budget.memory_bytes, budget.memory_kind.upper() or "memory"
    parts = [
        f"{memory / 1e9:g} GB {kind}" if memory else "",
        f"{budget.seconds:g} {seconds_are}" if budget.seconds else "",
        f"{budget.disk_bytes / 1e9:g} GB on disk" if budget.disk_bytes else "",
    ]
    return ", ".join(filter(None, parts))


def _costs(costs: Costs, seconds_are: str) -> str:
    memory = (
        "memory not known"
        if costs.memory_bytes is None
        else f"{costs.memory_kind.upper()} {'at most ' * costs.memory_is_bound}"
        f"{costs.memory_bytes / 1e9:.2f} GB"
    )
    seconds = "seconds not known" if costs.seconds is None else f"{costs.seconds:.3g} {seconds_are}"
    disk = "" if costs.disk_bytes is None else f"; {costs.disk_bytes / 1e6:.3g} MB on disk"
    return f"{memory}; {seconds}{disk}"


def _meaning(advice: Advice) -> list[str]:
    """What as good means here."""
    if advice.rule == "share":
        return [f"as good: at least {advice.threshold:.0%} of the best score"]
    return [
        f"as good: loses less than {advice.threshold:g} of the score, with 95 % confidence, "
        "on validation; test decides nothing"
    ]
