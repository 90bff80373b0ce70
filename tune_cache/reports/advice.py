"""Which cell to use under which budget: scores and costs in, advice out.

Conventions
-----------
Choices are made by validation scores, larger being better, and by costs; test
decides nothing and is only told. The *front* are the cells that no other beats:
only they are ever recommended. A cost that is unknown is neither small nor
large: such a cell is in no budget of that kind, and the advice names it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tune_cache.errors import StoreMismatchError, TaskError, UsageError
from tune_cache.probes.compare import MARGIN, Comparison, compare, score_of
from tune_cache.probes.metrics import Score
from tune_cache.probes.statistics import N_PERMUTATIONS
from tune_cache.probes.verdicts import check_margin
from tune_cache.reports.doubts import doubts
from tune_cache.reports.front import (
    KINDS,
    Budget,
    Candidate,
    by_memory,
    by_seconds,
    front_of,
    unknown_costs,
)

__all__ = ["SHARE", "Advice", "Choice", "advise"]

SHARE = 0.98
RULES = ("margin", "share")
DECIDING_PERMUTATIONS = 1  # the p-value of a comparison on validation is not read


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A cell with the reason to take it.

    Parameters
    ----------
    roles
        Of ``best``, ``cheapest``, ``within`` (the budget) and ``fastest``.
    as_good
        As good as the best by the rule; None if the data cannot tell.
    fits
        Within the budget; None if that is not known.
    score
        On test; None where there is none.
    on_validation, on_test
        This cell minus the best; None for the best itself, and where predictions
        are not at hand.
    """

    roles: tuple[str, ...]
    candidate: Candidate
    as_good: bool | None
    fits: bool | None
    score: Score | None
    on_validation: Comparison | None
    on_test: Comparison | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to use.

    Parameters
    ----------
    choices
        The best first; a cell with several reasons is one choice.
    n_cells
        Cells with a validation score, each thing once.
    front
        Those that no other beats in score and all costs.
    unknown
        Cells that may or may not fit the budget, and the costs that are not known.
    statements
        What must be said, above all what the data cannot tell.
    """

    choices: tuple[Choice, ...]
    n_cells: int
    front: tuple[Candidate, ...]
    unknown: tuple[tuple[Candidate, tuple[str, ...]], ...]
    budget: Budget
    rule: str
    threshold: float
    statements: tuple[str, ...]

    def of(self, role: str) -> Choice | None:
        """The first choice with a role."""
        return next((choice for choice in self.choices if role in choice.roles), None)


def advise(
    candidates: Sequence[Candidate],
    *,
    budget: Budget | None = None,
    rule: str = "margin",
    margin: float = MARGIN,
    share: float = SHARE,
) -> Advice:
    """Choose the best cell, the cheapest and the fastest as good as it, and the best in a budget.

    *Cheapest* is least memory, of each kind there is, then seconds, then bytes.
    Cheapest and fastest are not limited by the budget: they say what a score as
    good as the best takes.

    The study's guidelines come out of its published table under
    ``rule="share"``. FACTS has no words of its own for them; what 98 % of the best
    give, for EMO and GTZAN alike, is: the whole track is best and fastest, if its
    6.5 to 6.8 GB are there; the mean of 10-s segments is as good and takes least
    memory, 3.4 to 3.6 GB; transformers are never as good, and concat is never a
    choice, since the mean beats it in score or cost.

    Parameters
    ----------
    candidates
        Each thing once, in any order; results with predictions at least of those in
        :func:`front_of`.
    rule
        ``margin``: the one-sided 95 % bound of the paired loss on validation is
        below ``margin``. ``share``: the score is at least ``share`` of the best, as
        studies without intervals have it; it says nothing of chance.

    Raises
    ------
    UsageError
        If a rule or limit cannot be followed, or a memory budget could mean two kinds.
    TaskError
        If no cell has a validation score.
    """
    budget = (budget or Budget()).settled(candidates)
    if rule not in RULES:
        raise UsageError(f"rule is {rule!r}, expected margin or share")
    check_margin(margin)
    if not 0 < share <= 1:
        raise UsageError(f"share is {share!r}, expected more than 0 and at most 1", hint="as 0.98")
    front = front_of(candidates)
    if not front:
        raise TaskError(
            f"none of {len(candidates)} cells has a validation score, so nothing can be chosen",
            hint="probe with splits that have a validation part",
        )
    best = front[0]
    compared = {id(item): _compared(item, best, "val") for item in front if item is not best}
    good: dict[int, bool | None] = {id(best): True}
    for item in front[1:]:
        good[id(item)] = (
            best.value > 0 and item.value >= share * best.value
            if rule == "share"
            else _as_good(compared[id(item)], margin)
        )
    roles = _roles(front, [item for item in front if good[id(item)]], budget)
    choices = tuple(
        Choice(
            roles=tuple(roles[id(item)]),
            candidate=item,
            as_good=good[id(item)],
            fits=budget.fits(item.costs),
            score=score_of(item.results) if item.results else None,
            on_validation=compared.get(id(item)),
            on_test=None if item is best else _compared(item, best, "test"),
        )
        for item in front
        if id(item) in roles
    )
    return Advice(
        choices=choices,
        n_cells=sum(not math.isnan(item.value) for item in candidates),
        front=tuple(front),
        unknown=tuple(unknown_costs(candidates, budget)),
        budget=budget,
        rule=rule,
        threshold=margin if rule == "margin" else share,
        statements=tuple(
            doubts(
                [item for item in candidates if not math.isnan(item.value)],
                [item for item in front if good[id(item)]],
                [compared[id(item)] for item in front[1:]],
                choices,
                budget,
                rule=rule,
                margin=margin,
            )
        ),
    )


def _compared(one: Candidate, best: Candidate, split: str) -> Comparison | None:
    if not one.results or not best.results:
        return None
    n = DECIDING_PERMUTATIONS if split == "val" else N_PERMUTATIONS
    try:
        return compare(one.results, best.results, split=split, n_permutations=n)
    except (TaskError, StoreMismatchError):
        return None


def _as_good(found: Comparison | None, margin: float) -> bool | None:
    return None if found is None else found.as_good(margin)


def _roles(
    front: Sequence[Candidate], as_good: Sequence[Candidate], budget: Budget
) -> dict[int, list[str]]:
    """Reasons to take a cell, by its identity, in the order of their names in Choice."""
    roles: dict[int, list[str]] = {id(front[0]): ["best"]}
    weighed = [item for item in as_good if item.costs.memory_bytes is not None]
    timed = [item for item in as_good if item.costs.seconds is not None]
    chosen = [
        ("cheapest", min(some, key=by_memory))
        for kind in KINDS
        if (some := [item for item in weighed if item.costs.memory_kind == kind])
    ]
    fitting = [item for item in front if budget.fits(item.costs)]
    chosen += [("within", fitting[0])] if budget.is_limited and fitting else []
    chosen += [("fastest", min(timed, key=by_seconds))] if timed else []
    for role, item in chosen:
        roles.setdefault(id(item), []).append(role)
    return roles
