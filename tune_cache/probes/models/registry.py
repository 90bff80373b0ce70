"""Probes by the names of ``--probe``."""

from __future__ import annotations

import difflib

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.models.base import Probe
from tune_cache.probes.models.estimator import Estimator
from tune_cache.probes.models.linear import LinearSVM, Logistic
from tune_cache.probes.models.neighbours import KNN, NearestCentroid
from tune_cache.probes.models.ridge import Ridge

__all__ = ["AUTO", "PROBES", "make_probe"]

PROBES: dict[str, type[Probe]] = {
    "logistic": Logistic,
    "ridge": Ridge,
    "svm": LinearSVM,
    "knn": KNN,
    "centroid": NearestCentroid,
}
AUTO = {"multiclass": "logistic", "multilabel": "logistic", "regression": "ridge"}


def make_probe(name: str, kind: str, *, seed: int = 0) -> tuple[str, Probe]:
    """Make an unfitted probe for a kind of task; ``auto`` chooses by the kind.

    Parameters
    ----------
    name
        One of :data:`PROBES`, ``auto``, or a scikit-learn estimator by its dotted
        path, see :mod:`tune_cache.probes.models.estimator`.
    seed
        Of an estimator that has a ``random_state``; the others use no chance.

    Returns
    -------
    the probe's own name, and the probe

    Raises
    ------
    UsageError
        If there is no such probe.
    TaskError
        If it cannot learn such a task.
    """
    name = AUTO.get(kind, name) if name == "auto" else name
    if "." in name:
        return name, Estimator(name, kind, seed=seed)
    if name not in PROBES:
        near = difflib.get_close_matches(name, PROBES, n=1)
        raise UsageError(
            f"probe is {name!r}, expected auto or one of {', '.join(PROBES)}",
            hint=f"did you mean {near[0]!r}?"
            if near
            else "a scikit-learn estimator goes by its dotted path, as sklearn.svm.SVC",
        )
    if kind not in PROBES[name].kinds:
        able = [other for other, probe in PROBES.items() if kind in probe.kinds]
        raise TaskError(
            f"probe {name!r} cannot learn a {kind} task",
            hint=f"use --probe {able[0]}" if able else None,
        )
    return name, PROBES[name]()
