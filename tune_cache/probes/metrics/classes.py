"""Accuracy, macro F1, weighted key score, confusion matrix.

Conventions
-----------
Classes are integers; a class that training never saw has a number too, which no
probe predicts, so its tracks count as errors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tune_cache.errors import TaskError, first_few
from tune_cache.probes.metrics.base import Array, Metric, divide

__all__ = ["ACCURACY", "MACRO_F1", "confusion_matrix", "weighted_key"]

KEY = re.compile(r"([A-Ga-g])([#b]?)[ :_]*(maj(?:or)?|min(?:or)?)", re.IGNORECASE)

SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def _accuracy_terms(truth: Array, prediction: Array) -> Array:
    return np.column_stack([truth == prediction, np.ones(len(truth))]).astype(np.float64)


def _share(sums: Array) -> Array:
    return divide(sums[:, 0], sums[:, 1])


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
    return divide(f1.sum(axis=1), (marked > 0).sum(axis=1))


ACCURACY = Metric(name="accuracy", terms=_accuracy_terms, reduce=_share, is_share=True)
MACRO_F1 = Metric(name="macro_f1", terms=_f1_terms, reduce=_macro_f1)


def weighted_key(classes: Sequence[str]) -> Metric:
    """MIREX's score of key detection, which forgives near misses.

    1 for the key, 0.5 for the fifth above it, 0.3 for its relative, 0.2 for its
    parallel, else 0: as ``mir_eval.key.weighted_score`` without descending fifths.

    Parameters
    ----------
    classes
        Names of keys by the numbers of classes, as ``Eb minor`` or ``F#:min``.

    Raises
    ------
    TaskError
        If a class is no key.

    References
    ----------
    Raffel et al., "mir_eval: a transparent implementation of common MIR metrics",
    ISMIR 2014.
    """
    keys = [_key(name) for name in classes]
    odd = [name for name, key in zip(classes, keys, strict=True) if key is None]
    if odd:
        raise TaskError(
            f"weighted_key needs classes that are keys, found {first_few(odd)}",
            hint="write them as 'Eb minor', or choose another metric in tune.toml",
        )
    known = [key for key in keys if key is not None]
    table = np.array([[_credit(true, found) for found in known] for true in known])

    def terms(truth: Array, prediction: Array) -> Array:
        return np.column_stack([table[truth, prediction], np.ones(len(truth))])

    return Metric(name="weighted_key", terms=terms, reduce=_share, is_share=True)


def _key(name: str) -> tuple[int, bool] | None:
    """Semitones above C, and whether it is minor.

    Examples
    --------
    >>> _key("F#:min"), _key("Eb major"), _key("loud")
    ((6, True), (3, False), None)
    """
    match = KEY.fullmatch(name.strip())
    if match is None:
        return None
    tonic = SEMITONES[match[1].upper()] + {"": 0, "#": 1, "b": -1}[match[2]]
    return tonic % 12, match[3].lower().startswith("min")


def _credit(true: tuple[int, bool], found: tuple[int, bool]) -> float:
    steps = (found[0] - true[0]) % 12
    if found[1] == true[1]:
        return {0: 1.0, 7: 0.5}.get(steps, 0.0)
    relative = 3 if true[1] else 9
    return {relative: 0.3, 0: 0.2}.get(steps, 0.0)


def confusion_matrix(truth: Any, prediction: Any, n_classes: int) -> Array:
    """Count pairs of classes, of shape (n_classes, n_classes): rows are the truth.

    Examples
    --------
    >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = np.asarray(truth) * n_classes + np.asarray(prediction)
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
