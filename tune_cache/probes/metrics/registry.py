"""Metrics by their names, as tasks and ``tune.toml`` have them."""

from __future__ import annotations

from collections.abc import Sequence

from tune_cache.errors import TaskError
from tune_cache.probes.metrics.base import Metric
from tune_cache.probes.metrics.classes import ACCURACY, MACRO_F1, weighted_key
from tune_cache.probes.metrics.targets import target_metrics

__all__ = ["DEFAULT_METRICS", "METRICS", "metrics_of"]

DEFAULT_METRICS = {
    "multiclass": ("accuracy", "macro_f1"),
    "multilabel": ("roc_auc", "ap"),
    "regression": ("r2", "r2_each"),
}
METRICS = {
    "multiclass": ("accuracy", "macro_f1", "weighted_key"),
    "multilabel": ("roc_auc", "ap"),
    "regression": ("r2", "r2_each", "rmse", "rmse_each"),
}


def metrics_of(
    kind: str, targets: Sequence[str], names: Sequence[str] = (), *, classes: Sequence[str] = ()
) -> tuple[Metric, ...]:
    """Look metrics up for a task; the first is the one that selection goes by.

    Parameters
    ----------
    names
        Those of :data:`METRICS`, or ``r2_<target>`` and ``rmse_<target>``;
        ``…_each`` stands for all targets. Empty: those of :data:`DEFAULT_METRICS`.
        Where none is better when it is larger, ``r2`` is put in front.
    classes
        Names of all classes, those that training lacks too, by their numbers;
        only ``weighted_key`` needs them.

    Raises
    ------
    TaskError
        If a metric does not exist for this kind of task.
    """
    known: dict[str, Metric]
    if kind == "regression":
        known = target_metrics(targets)
    elif kind == "multilabel":
        known = {
            "roc_auc": Metric(name="roc_auc", ranks="roc_auc"),
            "ap": Metric(name="ap", ranks="ap"),
        }
    else:
        known = {"accuracy": ACCURACY, "macro_f1": MACRO_F1}
    found: dict[str, Metric] = {}
    for name in names or DEFAULT_METRICS[kind]:
        if name in ("r2_each", "rmse_each") and kind == "regression":
            # one target: its R² is the mean
            some = [f"{name.removesuffix('each')}{target}" for target in targets]
            found |= {one: known[one] for one in some if len(targets) > 1}
        elif name == "weighted_key" and kind == "multiclass":
            found[name] = weighted_key(classes)
        elif name in known:
            found[name] = known[name]
        else:
            raise TaskError(
                f"metric is {name!r}, expected one of {', '.join(METRICS[kind])} for {kind}"
            )
    chosen_by = [metric for metric in found.values() if metric.larger_is_better][:1]
    first = chosen_by[0] if chosen_by else known["r2"]
    return tuple({first.name: first, **found}.values())
