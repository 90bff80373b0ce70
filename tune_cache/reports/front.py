"""Cells with scores and costs: which a budget admits, and which no other beats.

Conventions
-----------
Scores are of validation, larger being better. A cost that is unknown is neither
small nor large; memory of a GPU and of a process are never compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tune_cache.errors import UsageError
from tune_cache.probes.result import ProbeResult
from tune_cache.reports.cost import Costs

__all__ = ["KINDS", "Budget", "Candidate", "by_memory", "by_seconds", "front_of", "unknown_costs"]

KINDS = ("vram", "rss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent; None is no limit.

    Parameters
    ----------
    memory_kind
        Which memory ``memory_bytes`` is of, ``vram`` or ``rss``; the only kind that
        the cells have if empty.
    seconds
        Of stage one for an hour of audio.
    """

    memory_bytes: float | None = None
    memory_kind: str = ""
    seconds: float | None = None
    disk_bytes: float | None = None

    def __post_init__(self) -> None:
        if self.memory_kind not in ("", *KINDS):
            raise UsageError(
                f"kind of memory is {self.memory_kind!r}, expected vram or rss",
                hint="vram is a GPU's, rss that of the encoding process",
            )
        limits = {
            "memory": self.memory_bytes,
            "seconds": self.seconds,
            "room on disk": self.disk_bytes,
        }
        for name, limit in limits.items():
            if limit is not None and not 0 < limit < math.inf:
                raise UsageError(
                    f"budget of {name} is {limit!r}, expected a positive number",
                    hint="leave it out for no limit",
                )

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return any(x is not None for x in (self.memory_bytes, self.seconds, self.disk_bytes))

    def settled(self, cells: Sequence[Candidate]) -> Budget:
        """Say which memory is meant where only one kind can be.

        Raises
        ------
        UsageError
            If it could be two.
        """
        kinds = {cell.costs.memory_kind for cell in cells if cell.costs.memory_bytes is not None}
        if self.memory_bytes is None or self.memory_kind or not kinds:
            return self
        if len(kinds) > 1:
            raise UsageError(
                "the memory budget could mean two things: some cells have VRAM of a GPU, others "
                "RSS of a process",
                hint="name one, as --memory-kind vram; cells of the other are then in no budget",
            )
        return dataclasses.replace(self, memory_kind=kinds.pop())

    def fits(self, costs: Costs) -> bool | None:
        """Whether costs are within all limits; None if that is not known."""
        memory = costs.memory_bytes if costs.memory_kind == self.memory_kind else None
        if self.memory_bytes and memory and costs.memory_is_bound and memory > self.memory_bytes:
            memory = None
        found = [
            None if spent is None else spent <= limit
            for limit, spent in (
                (self.memory_bytes, memory),
                (self.seconds, costs.seconds),
                (self.disk_bytes, costs.disk_bytes),
            )
            if limit is not None
        ]
        if False in found:
            return False
        return None if None in found else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One cell: what it scored where choices are made, and what it costs.

    Parameters
    ----------
    name
        The configuration in words.
    value
        Validation score, the mean over seeds; NaN is never chosen.
    results
        One a seed, with predictions; empty where only a score is known.
    same
        Names of other configurations that are this very thing.
    about
        The configuration as data, for tables.
    """

    name: str
    value: float
    costs: Costs
    n_features: int = 0
    results: tuple[ProbeResult, ...] = ()
    same: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)


def front_of(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Cells that no other beats: none is as good in score and every cost, and better in one.

    Costs that the two cannot be compared by (unknown to one, or memory of another
    kind) beat nobody; a cost that no cell knows is left aside.

    Returns
    -------
    in an order that does not depend on that of ``candidates``: best score first,
    then fewer features, less memory, seconds, bytes, and by name
    """
    defined = sorted((c for c in candidates if not math.isnan(c.value)), key=_order)
    known = {
        name
        for name in ("memory_bytes", "seconds", "disk_bytes")
        if any(getattr(item.costs, name) is not None for item in defined)
    }
    return [one for one in defined if not any(_beats(other, one, known) for other in defined)]


def _beats(one: Candidate, other: Candidate, known: set[str]) -> bool:
    pairs = [(-one.value, -other.value)]
    for name in known:
        mine, theirs = getattr(one.costs, name), getattr(other.costs, name)
        if mine is None or theirs is None:
            return False
        if name == "memory_bytes" and one.costs.memory_kind != other.costs.memory_kind:
            return False
        pairs.append((mine, theirs))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _or_most(value: float | None) -> float:
    return math.inf if value is None else value


def _order(item: Candidate) -> tuple[Any, ...]:
    costs = item.costs
    return (
        -item.value,
        item.n_features,
        costs.memory_kind,
        _or_most(costs.memory_bytes),
        _or_most(costs.seconds),
        _or_most(costs.disk_bytes),
        item.name,
    )


def by_memory(item: Candidate) -> tuple[Any, ...]:
    costs = item.costs
    spent = (costs.memory_bytes, costs.seconds, costs.disk_bytes)
    return (*map(_or_most, spent), *_order(item))


def by_seconds(item: Candidate) -> tuple[Any, ...]:
    return (_or_most(item.costs.seconds), *_order(item))


def unknown_costs(
    candidates: Sequence[Candidate], budget: Budget
) -> list[tuple[Candidate, tuple[str, ...]]]:
    """Cells that may or may not fit, and why, the best score first."""
    found = []
    for item in sorted((c for c in candidates if not math.isnan(c.value)), key=_order):
        if not budget.is_limited or budget.fits(item.costs) is not None:
            continue
        costs = item.costs
        memory = costs.memory_bytes if costs.memory_kind == budget.memory_kind else None
        lacking = [
            name
            for name, limit, spent in (
                (budget.memory_kind.upper() or "memory", budget.memory_bytes, memory),
                ("seconds", budget.seconds, costs.seconds),
                ("bytes on disk", budget.disk_bytes, costs.disk_bytes),
            )
            if limit is not None and (spent is None or spent > limit)
        ]
        found.append((item, tuple(lacking)))
    return found
