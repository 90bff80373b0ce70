"""Aggregations by the names of ``--agg``.

Conventions
-----------
A name is data: what follows it in a table, a file or a command is the same
text. Statistics may be joined, as ``mean+max``; ``multiscale-…`` takes several
segment lengths at once. Modules are imported when their name is asked for; those
of :data:`TRAINED` need torch.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from tune_cache.errors import UsageError, first_few

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation

__all__ = ["AGGREGATIONS", "MULTISCALE", "SLICES", "TRAINED", "make_aggregation"]

STATISTICS = ("mean", "mean-duration", "median", "max", "min", "std", "first", "middle")
AGGREGATIONS = (*STATISTICS, "mean+std", "concat")
MULTISCALE = ("multiscale-mean", "multiscale-concat")
TRAINED = ("transformer", "attention")
SLICES = "slices"  # no vector a track, so in no list: a probe that averages what it predicts


def make_aggregation(name: str, **options: Any) -> TrackAggregation:
    """Make an unfitted aggregation.

    Parameters
    ----------
    name
        One of :data:`AGGREGATIONS`, :data:`MULTISCALE` or :data:`TRAINED`, statistics
        joined by ``+``, or :data:`SLICES`.
    options
        Constructor arguments, as ``max_segments=5`` of ``concat``.

    Raises
    ------
    UsageError
        If the name or an option is unknown.
    """
    made: TrackAggregation
    fixed = set()
    if name == "concat":
        from tune_cache.aggregation.concat import Concat

        made = Concat()
    elif name == SLICES:
        from tune_cache.aggregation.slices import Slices

        made = Slices()
    elif name in MULTISCALE:
        from tune_cache.aggregation.scales import MultiScale

        made, fixed = MultiScale("mean" if name == MULTISCALE[0] else "concat"), {"combine"}
    elif name == "transformer":
        from tune_cache.aggregation.transformer import Transformer

        made = Transformer()
    elif name == "attention":
        from tune_cache.aggregation.attention import Attention

        made = Attention()
    elif set(name.split("+")) <= set(STATISTICS):
        from tune_cache.aggregation.pooling import Pooling

        made, fixed = Pooling(name), {"statistics"}
        _ = made.sees_length  # the same statistic twice is an error of the name
    else:
        known = (*AGGREGATIONS, *MULTISCALE, *TRAINED)
        near = difflib.get_close_matches(name, known, n=1)
        raise UsageError(
            f"aggregation is {name!r}, expected one of " + ", ".join(known),
            hint=f"did you mean {near[0]!r}?" if near else "statistics are joined by '+'",
        )
    allowed = sorted(made.get_params().keys() - fixed)
    if unknown := sorted(options.keys() - set(allowed)):
        raise UsageError(
            f"aggregation {name!r} has no option {first_few(unknown)}",
            hint="its options: " + (", ".join(allowed) or "none"),
        )
    made.set_params(**options)
    return made
