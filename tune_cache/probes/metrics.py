"""Accuracy, macro F1 and R², each over all tracks at once.

Conventions
-----------
A metric is a row of terms per track and a function from their *sums* to the
score; nothing is ever averaged over batches, and the bootstrap needs no second
definition. Classes are integers; a class that training never saw has a number
too, which no probe predicts, so its tracks count as errors. Undefined is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.errors import TaskError
from tune_cache.probes.statistics import N_RESAMPLES, bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DEFAULT_METRICS", "Metric", "Score", "metrics_of", "score"]

Array = np.ndarray[Any, np.dtype[Any]]

DEFAULT_METRICS = {"multiclass": ("accuracy", "macro_f1"), "regression": ("r2", "r2_each")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A score with its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A score as a function of sums over tracks; larger is better.

    Parameters
    ----------
    terms
        From truth and prediction to an array (n_tracks, n_terms).
    reduce
        From sums (n, n_terms) to n scores.
    """

    name: str
    terms: Callable[[Array, Array], Array]
    reduce: Callable[[Array], Array]

    def __call__(self, truth: Array, prediction: Array) -> float:
        return float(self.reduce(self.terms(truth, prediction).sum(axis=0, keepdims=True))[0])


def _divide(numerator: Array, denominator: Array) -> Array:
    """Divide, NaN where the denominator is not positive."""
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def _accuracy_terms(truth: Array, prediction: Array) -> Array:
    return np.column_stack([truth == prediction, np.ones(len(truth))]).astype(np.float64)


def _accuracy(sums: Array) -> Array:
    return _divide(sums[:, 0], sums[:, 1])


def _f1_terms(truth: Array, prediction: Array) -> Array:
    """Per class: right, predicted plus true."""
    n_classes = int(max(truth.max(), prediction.max())) + 1
    is_true = np.eye(n_classes)[truth]
    is_predicted = np.eye(n_classes)[prediction]
    return np.hstack([is_true * is_predicted, is_true + is_predicted])


def _macro_f1(sums: Array) -> Array:
    """Mean over the classes that occur, in truth or prediction, as scikit-learn's."""
    right, marked = np.split(sums, 2, axis=1)
    f1 = np.divide(2 * right, marked, out=np.zeros_like(right), where=marked > 0)
    return _divide(f1.sum(axis=1), (marked > 0).sum(axis=1))


def _r2_terms(truth: Array, prediction: Array) -> Array:
    """Per target: 1, y, y², squared error; y from the mean, so that no digits are lost."""
    y = truth - truth.mean(axis=0)
    y[:, np.ptp(truth, axis=0) == 0] = 0.0
    return np.hstack([np.ones_like(y), y, y**2, (truth - prediction) ** 2])


def _r2_each(sums: Array) -> Array:
    n, y, y2, error = np.split(sums, 4, axis=1)
    spread = y2 - y**2 / n
    spread[spread < 1e-12 * y2] = 0.0  # a resample of equal values, up to rounding
    return 1 - _divide(error, spread)


def _r2_of(target: int) -> Callable[[Array], Array]:
    return lambda sums: _r2_each(sums)[:, target]


def metrics_of(kind: str, targets: Sequence[str], names: Sequence[str] = ()) -> tuple[Metric, ...]:
    """Look metrics up for a task; the first is the one that selection goes by.

    Parameters
    ----------
    names
        ``accuracy``, ``macro_f1``; ``r2`` (mean over targets), ``r2_<target>``,
        and ``r2_each`` for all targets. Empty: those of :data:`DEFAULT_METRICS`.

    Raises
    ------
    TaskError
        If a metric does not exist for this kind of task.
    """
    known = {
        "accuracy": Metric(name="accuracy", terms=_accuracy_terms, reduce=_accuracy),
        "macro_f1": Metric(name="macro_f1", terms=_f1_terms, reduce=_macro_f1),
    }
    each = [f"r2_{target}" for target in targets]
    if kind == "regression":
        known = {
            name: Metric(name=name, terms=_r2_terms, reduce=_r2_of(index))
            for index, name in enumerate(each)
        }
        known["r2"] = Metric(
            name="r2", terms=_r2_terms, reduce=lambda sums: _r2_each(sums).mean(axis=1)
        )
    found: dict[str, Metric] = {}
    for name in names or DEFAULT_METRICS[kind]:
        # one target: its R² is the mean
        expanded = [name] if name != "r2_each" else each if len(each) > 1 else []
        for one in expanded:
            if one not in known:
                raise TaskError(f"metric is {one!r}, expected one of {', '.join(known)} for {kind}")
            found[one] = known[one]
    return tuple(found.values())


def score(
    metric: Metric,
    truth: Array,
    prediction: Array,
    groups: Sequence[str],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Score:
    """Compute a metric over all tracks, with its interval over groups."""
    terms = metric.terms(truth, prediction)
    low, high = bootstrap_interval(terms, groups, metric.reduce, seed=seed, n_resamples=n_resamples)
    return Score(value=float(metric.reduce(terms.sum(axis=0)[None])[0]), low=low, high=high)
