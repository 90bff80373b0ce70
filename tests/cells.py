"""Cells made by hand: results with predictions, for tests of comparisons."""

from __future__ import annotations

import numpy as np

from tune_cache.probes.metrics import Score, metrics_of
from tune_cache.probes.result import Prediction, ProbeResult

METRICS = {
    "multiclass": ("accuracy", "macro_f1"),
    "regression": ("r2", "r2_a", "r2_v"),
    "multilabel": ("roc_auc", "ap"),
}


def cell(kind, truth, prediction, groups=None, *, names=None, **changed):
    """One result; labels by their names for classes, else rows of numbers."""
    names = names or [f"t{number:05}" for number in range(len(truth))]
    groups = groups or names
    as_label = str if kind == "multiclass" else lambda row: tuple(map(float, row))
    predictions = tuple(
        Prediction(
            track_id=name, split="test", group=group, truth=as_label(t), prediction=as_label(p)
        )
        for name, group, t, p in zip(names, groups, truth, prediction, strict=True)
    )
    targets = ("a", "v") if kind == "regression" else ()
    if kind == "multiclass":
        number = {label: place for place, label in enumerate(sorted({*truth, *prediction}))}
        arrays = [np.array([number[label] for label in some]) for some in (truth, prediction)]
    else:
        arrays = [np.asarray(truth, float), np.asarray(prediction, float)]
    scores = {
        metric.name: Score(value=metric(*arrays), low=0.0, high=1.0)
        for metric in metrics_of(kind, targets, METRICS[kind])
    }
    fields = {
        "task": "task",
        "kind": kind,
        "aggregation": "mean",
        "probe": "ridge",
        "layer_asked": "last",
        "layer": "12",
        "params": {},
        "grid": (),
        "seed": 1234,
        "metric": METRICS[kind][0],
        "scores": {"val": scores, "test": scores},
        "n": {"train": 1, "val": 1, "test": len(truth)},
        "n_classes": None,
        "n_features": 8,
        "share_one_segment": 0.0,
        "targets": targets,
        "predictions": predictions,
    }
    return ProbeResult(**fields | changed)


def classifiers(rng, n, *, first, second, discordant, group_size=1):
    """Two cells that are right with given chances and disagree on a share of tracks.

    Tracks of one group share their fate, each with probability a half.
    """
    only_first, only_second = (
        (discordant + first - second) / 2,
        (discordant - first + second) / 2,
    )
    chances = [first - only_first, only_first, only_second, 1 - first - only_second]
    n_groups = n // group_size
    of_group = rng.choice(4, size=n_groups, p=chances)
    number = np.repeat(np.arange(n_groups), group_size)
    own = rng.choice(4, size=len(number), p=chances)
    fate = np.where(rng.random(len(number)) < 0.5, of_group[number], own)
    if group_size == 1:
        fate = own
    groups = [f"g{group:05}" for group in number]
    truth = ["x"] * len(number)
    return tuple(
        cell("multiclass", truth, ["x" if one in right else "y" for one in fate], groups)
        for right in ((0, 1), (0, 2))
    )


def regressors(rng, n, *, first, second, correlation):
    """Two cells of two targets of variance 1, with errors of given variances, correlated."""
    truth = rng.standard_normal((n, 2))
    between = correlation * np.sqrt(first * second)
    root = np.linalg.cholesky([[first, between], [between, second]])
    errors = np.einsum("ij,njk->nik", root, rng.standard_normal((n, 2, 2)))
    return tuple(cell("regression", truth, truth + errors[:, side]) for side in (0, 1))
