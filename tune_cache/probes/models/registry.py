"""Probes by the names of ``--probe``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.models.base import Probe
from tune_cache.probes.models.estimator import Estimator
from tune_cache.probes.models.linear import LinearSVM, Logistic
from tune_cache.probes.models.neighbours import KNN, NearestCentroid
from tune_cache.probes.models.ridge import Ridge

if TYPE_CHECKING:
    from tune_cache.probes.mlp import MLPOptions

__all__ = ["AUTO", "PROBES", "is_trained", "make_probe"]

SOLVED: dict[str, type[Probe]] = {
    "logistic": Logistic,
    "ridge": Ridge,
    "svm": LinearSVM,
    "knn": KNN,
    "centroid": NearestCentroid,
}
TRAINED = {"mlp": ("multiclass", "multilabel", "regression")}  # by steps, in torch
PROBES: dict[str, tuple[str, ...]] = {  # to the kinds of task that each can learn
    **{name: probe.kinds for name, probe in SOLVED.items()},
    **TRAINED,
}
AUTO = {"multiclass": "logistic", "multilabel": "logistic", "regression": "ridge"}


def is_trained(name: str) -> bool:
    """Whether a probe is trained by steps, so that its seed matters and seeds go together."""
    return name in TRAINED


def make_probe(
    name: str, kind: str, *, seed: int = 0, options: MLPOptions | None = None
) -> tuple[str, Probe]:
    """Make an unfitted probe for a kind of task; ``auto`` chooses by the kind.

    Parameters
    ----------
    name
        One of :data:`PROBES`, ``auto``, or a scikit-learn estimator by its dotted
        path, see :mod:`tune_cache.probes.models.estimator`.
    seed
        Of ``mlp``, and of an estimator that has a ``random_state``; the others use no
        chance.
    options
        Of ``mlp``.

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
    if name in TRAINED:
        from tune_cache.probes.mlp import MLP

        return name, MLP(kind, seed=seed, options=options)
    if kind not in SOLVED[name].kinds:
        able = [other for other, kinds in PROBES.items() if kind in kinds]
        raise TaskError(
            f"probe {name!r} cannot learn a {kind} task",
            hint=f"use --probe {able[0]}" if able else None,
        )
    return name, SOLVED[name]()
