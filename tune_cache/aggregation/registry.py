"""Aggregations by the names of ``--agg``.

Conventions
-----------
A name is data: what follows it in a table, a file or a command is the same
text. Modules are imported when their name is asked for.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tune_cache.errors import UsageError, first_few

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation

__all__ = ["AGGREGATIONS", "make_aggregation"]

AGGREGATIONS = ("mean", "max", "mean+std", "concat")


def make_aggregation(name: str, **options: Any) -> TrackAggregation:
    """Make an unfitted aggregation.

    Parameters
    ----------
    name
        One of :data:`AGGREGATIONS`.
    options
        Constructor arguments, as ``max_segments=5`` of ``concat``.

    Raises
    ------
    UsageError
        If the name or an option is unknown.
    """
    if name not in AGGREGATIONS:
        near = difflib.get_close_matches(name, AGGREGATIONS, n=1)
        raise UsageError(
            f"aggregation is {name!r}, expected one of " + ", ".join(AGGREGATIONS),
            hint=f"did you mean {near[0]!r}?" if near else None,
        )
    if name == "concat":
        from tune_cache.aggregation.concat import Concat

        made: TrackAggregation = Concat()
    else:
        from tune_cache.aggregation.pooling import Pooling

        made = Pooling(name)
    allowed = sorted(made.get_params().keys() - {"statistics"})
    if unknown := sorted(options.keys() - set(allowed)):
        raise UsageError(
            f"aggregation {name!r} has no option {first_few(unknown)}",
            hint="its options: " + (", ".join(allowed) or "none"),
        )
    made.set_params(**options)
    return made
