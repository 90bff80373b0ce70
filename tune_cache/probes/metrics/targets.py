"""R² and root mean squared error of regression targets, each and their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tune_cache.probes.metrics.base import Array, Metric, divide

__all__ = ["target_metrics"]

Reduce = Callable[[Array], Array]


def _terms(truth: Array, prediction: Array) -> Array:
    """Per target: 1, y, y², squared error; y from the mean, so that no digits are lost."""
    y = truth - truth.mean(axis=0)
    y[:, np.ptp(truth, axis=0) == 0] = 0.0
    return np.hstack([np.ones_like(y), y, y**2, (truth - prediction) ** 2])


def _r2(sums: Array) -> Array:
    n, y, y2, error = np.split(sums, 4, axis=1)
    spread = y2 - y**2 / n
    spread[spread < 1e-12 * y2] = 0.0  # a resample of equal values, up to rounding
    return 1 - divide(error, spread)


def _rmse(sums: Array) -> Array:
    n, _, _, error = np.split(sums, 4, axis=1)
    return np.sqrt(divide(error, n))


def target_metrics(targets: Sequence[str]) -> dict[str, Metric]:
    """Make ``r2`` and ``rmse`` (means over targets), and both of each target by its name.

    The mean of R² over targets is undefined where one of them is: where the
    truth of a target does not vary.
    """
    made: dict[str, Metric] = {}
    for name, each in (("r2", _r2), ("rmse", _rmse)):
        for place, target in enumerate(targets):
            made[f"{name}_{target}"] = _metric(f"{name}_{target}", _one_of(each, place))
        made[name] = _metric(name, _mean_of(each))
    return made


def _metric(name: str, reduce: Reduce) -> Metric:
    is_r2 = not name.startswith("rmse")
    return Metric(
        name=name,
        terms=_terms,
        reduce=reduce,
        larger_is_better=is_r2,
        loss=_unexplained if is_r2 else np.asarray,
    )


def _unexplained(r2: Array) -> Array:
    return np.asarray(1 - r2)


def _one_of(each: Reduce, place: int) -> Reduce:
    return lambda sums: each(sums)[:, place]


def _mean_of(each: Reduce) -> Reduce:
    return lambda sums: np.asarray(each(sums).mean(axis=1))
