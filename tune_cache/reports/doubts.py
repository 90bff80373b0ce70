"""What must be said beside an advice: above all what the data cannot tell.

Conventions
-----------
Plain sentences, each with its figures; none where there is nothing to doubt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING

from tune_cache.errors import first_few
from tune_cache.probes.compare import FEW_GROUPS, Comparison

if TYPE_CHECKING:
    from tune_cache.reports.advice import Choice
    from tune_cache.reports.front import Budget, Candidate

__all__ = ["doubts"]


def doubts(
    cells: Sequence[Candidate],
    as_good: Sequence[Candidate],
    compared: Sequence[Comparison | None],
    choices: Sequence[Choice],
    budget: Budget,
    *,
    rule: str,
    margin: float,
) -> Iterator[str]:
    """Tell what weakens an advice.

    Parameters
    ----------
    cells
        All that have a validation score.
    as_good
        Those that are shown to be as good as the best, and the best.
    compared
        On validation, each cell of the front but the best; None without predictions.
    """
    if len(cells) == 1:
        yield "there is one cell: nothing to choose from"
    elif rule == "share":
        yield "as good is by plain scores: what chance can do is not looked at"
        if cells and max(cell.value for cell in cells) <= 0:
            yield "the best score is not positive, and a share of it says nothing"
    else:
        yield from _equivalence([found for found in compared if found], margin)
        n_lost = sum(found is None for found in compared)
        if n_lost:
            yield (
                f"the data cannot tell: {n_lost} of {len(compared)} cells have no predictions in "
                "common with the best (`--rule share` compares plain scores)"
            )
    yield from _budget(cells, as_good, budget)
    yield from _costs(cells)
    for choice in choices:
        found = choice.on_test
        if found is not None and choice.as_good and found.high < 0:
            yield (
                f"test disagrees: {choice.candidate.name} is worse than the best there, by "
                f"{-found.difference:.3f} [{-found.high:.3f}, {-found.low:.3f}]"
            )


def _equivalence(compared: Sequence[Comparison], margin: float) -> Iterator[str]:
    if not compared:
        return
    n, n_groups = max((found.n, found.n_groups) for found in compared)
    if n_groups < FEW_GROUPS:
        yield (
            f"the data cannot tell: {n} validation tracks in {n_groups} groups cannot show that "
            f"a cell is as good as the best (it takes {FEW_GROUPS} groups); only the best counts"
        )
        return
    near = [found for found in compared if not found.as_good(margin) and -found.difference < margin]
    if near:
        smallest = median(found.smallest for found in near)
        yield (
            f"the data cannot tell of {len(near)} cells that lose less than {margin:g} as "
            f"measured: {n} validation tracks do not exclude more (the smallest difference that "
            f"they would show is about {smallest:.3f})"
        )


def _budget(
    cells: Sequence[Candidate], as_good: Sequence[Candidate], budget: Budget
) -> Iterator[str]:
    if not budget.is_limited:
        return
    fits = [budget.fits(cell.costs) for cell in cells]
    if True not in fits:
        yield "no cell is known to fit the budget"
    elif not any(budget.fits(cell.costs) for cell in as_good):
        yield "no cell that is shown to be as good as the best is known to fit the budget"
    unknown = [cell.name for cell, fit in zip(cells, fits, strict=True) if fit is None]
    if unknown:
        yield (
            f"{len(unknown)} of {len(cells)} cells are of unknown cost and not in the budget, "
            f"though they may fit: {first_few(sorted(unknown))}"
        )


def _costs(cells: Sequence[Candidate]) -> Iterator[str]:
    costs = [cell.costs for cell in cells]
    kinds = Counter(cost.memory_kind for cost in costs if cost.memory_bytes is not None)
    n_unweighed = len(cells) - kinds.total()
    if n_unweighed:
        yield f"the memory of {n_unweighed} of {len(cells)} cells is not known"
    if len(kinds) > 1:
        yield (
            f"memory is VRAM of a GPU for {kinds['vram']} cells and RSS of a process for "
            f"{kinds['rss']}: compared within a kind only"
        )
    n_untimed = sum(cost.seconds is None for cost in costs)
    if n_untimed:
        yield f"the seconds of {n_untimed} of {len(cells)} cells are not known"
    devices = sorted({cost.device for cost in costs if cost.device})
    if len(devices) > 1:
        yield f"cells ran on different devices ({', '.join(devices)}): their seconds tell those too"
    if any(cost.memory_is_bound for cost in costs):
        yield (
            "RSS of lengths extracted together is their common peak: extract one at a time to "
            "tell them apart"
        )
