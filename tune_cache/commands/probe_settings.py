"""What ``tune probe`` and ``tune sweep`` read alike from flags and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.probes.sources import OnLeaks

__all__ = ["aggregation_options", "on_leaks"]


def aggregation_options(
    aggregations: Iterable[str], given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Options that each aggregation takes, of those that are given.

    A wrong name, or value, is found here, before anything is read.

    Examples
    --------
    >>> aggregation_options(["mean", "concat"], {"max_segments": 2, "fill": None})
    {'mean': {}, 'concat': {'max_segments': 2}}
    """
    options = {}
    for name in aggregations:
        takes = make_aggregation(name).get_params()
        options[name] = {
            key: value for key, value in given.items() if value is not None and key in takes
        }
        make_aggregation(name, **options[name]).check_options()
    return options


def on_leaks(setting: Callable[[str, Any, Any], Any], *, strict: bool, drop_leaks: bool) -> OnLeaks:
    """What to do about splits that leak; of both flags, leaving out leaves nothing to refuse.

    Parameters
    ----------
    setting
        As :meth:`~tune_cache.commands.context.Context.setting`.
    """
    if drop_leaks or setting("drop_leaks", None, False):
        return "drop"
    return "refuse" if strict or setting("strict", None, False) else "tell"
