"""Scores of predictions, each over all tracks at once.

Conventions
-----------
A metric is a scorer over resamples of groups (see
:mod:`tune_cache.probes.statistics`), so that the score and its interval have one
definition, and nothing is ever averaged over batches. Larger is better for every
metric that choices are made by. Undefined is NaN.
"""

from tune_cache.probes.metrics.base import Metric, Score, score
from tune_cache.probes.metrics.classes import confusion_matrix
from tune_cache.probes.metrics.registry import DEFAULT_METRICS, METRICS, metrics_of

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "Metric",
    "Score",
    "confusion_matrix",
    "metrics_of",
    "score",
]
