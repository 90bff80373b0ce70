"""Choose on validation, score on test: one probe on the vectors of a store.

Conventions
-----------
Layer and strength are those with the best validation score; ties go to the
lower layer, then to the stronger regularisation. Without a validation split,
folds of the training tracks predict each other, all predictions are scored at
once, and what is chosen is fitted again on all of them. Aggregation, scaling and
model are fitted on training tracks only, and never again on more. Test labels
are read after every choice is made. Pure: vectors and labels in, values out; the
seed draws the bootstrap, few-shot examples, and what estimators of others draw.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import TRAINED
from tune_cache.errors import TaskError
from tune_cache.probes.fitting import Chosen, Fitted, Plan, fit_seeds, rates_to_follow
from tune_cache.probes.layers import LAYER_POLICIES, layers_asked
from tune_cache.probes.measure import measured
from tune_cache.probes.models import Params, make_probe
from tune_cache.probes.scoring import WHY_UNDEFINED, scored
from tune_cache.probes.shots import draw_shots
from tune_cache.probes.statistics import N_RESAMPLES
from tune_cache.probes.workshop import Workshop, head_named, is_joint

if TYPE_CHECKING:
    from tune_cache.probes.features import Features, Tracks
    from tune_cache.probes.joint import Joint
    from tune_cache.probes.mlp import MLPOptions
    from tune_cache.probes.result import ProbeResult
    from tune_cache.probes.tasks import TaskData

__all__ = ["LAYER_POLICIES", "N_REPEATS", "layer_for", "probe_for", "run_probe"]

Array = np.ndarray[Any, np.dtype[Any]]

N_REPEATS = 10


def run_probe(
    features: Features,
    data: TaskData,
    *,
    aggregation: str = "mean",
    aggregation_options: Mapping[str, Any] | None = None,
    probe: str = "auto",
    probe_options: MLPOptions | None = None,
    probe_label: str | None = None,
    layer: str | int = "best",
    seed: int | Sequence[int] = 1234,
    n_resamples: int = N_RESAMPLES,
    shots: int | None = None,
    repeats: int = N_REPEATS,
    workshop: Workshop | None = None,
) -> tuple[ProbeResult, ...]:
    """Fit, choose and score.

    Each layer is read once; memory holds one layer's segments and track vectors,
    and the segments and model of the best layer so far.

    Parameters
    ----------
    aggregation, aggregation_options
        As :func:`~tune_cache.aggregation.registry.make_aggregation` takes them.
    probe_options, probe_label
        What shapes ``mlp``, and what the result calls it; its name if None.
    layer
        An index (negative counts from the store's last), ``last``, ``mean``
        (of the vectors of all layers), ``mix`` (weights of all layers, learnt with a
        head), ``best`` on validation, or ``all``. What is trained takes one layer:
        ``best`` is ``last`` there.
    seed
        One or several; those of ``mlp`` are trained together, each to what it is alone.
    shots, repeats
        Learn from so many training tracks a class, drawn ``repeats`` times; the
        layer and strength are those with the best mean score on the whole
        validation split, and scores are means over repeats. None learns from all.
    workshop
        What training may use, and where its weights are kept; they are not, if None.

    Returns
    -------
    one result, or under ``all`` one for every layer; each with the curve of all
    layers looked at

    Raises
    ------
    TaskError
        If the vectors, the labels or the layer cannot support it.
    """
    options = dict(aggregation_options or {})
    asked, notes = layer_for(aggregation, str(layer))
    name = probe_for(probe, data.kind, aggregation, options, asked)
    seeds = (seed,) if isinstance(seed, int) else tuple(dict.fromkeys(seed))
    plans = [
        Plan(
            data=data,
            aggregation=aggregation,
            options=options,
            told=features.options,
            probe=name,
            probe_options=probe_options,
            probe_label=probe_label or name,
            layer_asked=asked,
            seed=one,
            n_resamples=n_resamples,
            shots=shots,
            draws=() if shots is None else tuple(draw_shots(data, shots, repeats, seed=one)),
            workshop=workshop or Workshop(),
            notes=notes,
        )
        for one in seeds
    ]
    # draws of few shots, and what is trained before a probe, differ by seed
    if plans[0].is_stepped and shots is None and aggregation not in TRAINED:
        return _run(features, plans)
    return tuple(result for plan in plans for result in _run(features, [plan]))


def _run(features: Features, plans: Sequence[Plan]) -> tuple[ProbeResult, ...]:
    """Look at every layer with all seeds at once; what that takes is shared among them."""
    asked = plans[0].layer_asked
    seconds = _no_seconds()
    curves: list[list[tuple[str, float]]] = [[] for _ in plans]
    results: list[list[ProbeResult]] = [[] for _ in plans]
    best: dict[int, Chosen] = {}
    peak_bytes = 0.0
    for label, tracks, seconds_read in layers_asked(features, asked):
        if asked == "all":
            seconds = _no_seconds()
        is_first = not curves[0]
        seconds["read"] += seconds_read / len(plans)
        with measured(memory=is_first and plans[0].counts_memory) as fit:
            fitted = _fitted(label, tracks, plans)
        seconds["fit"] += fit.seconds / len(plans)
        peak_bytes = fit.peak_bytes if is_first else peak_bytes
        with measured(memory=False) as predict:
            cells = [
                _choose(label, tracks, plan, some) for plan, some in zip(plans, fitted, strict=True)
            ]
        seconds["predict"] += predict.seconds / len(plans)
        for number, cell in enumerate(cells):
            curves[number].append((label, cell.val_score))
            if asked == "all":
                results[number].append(scored(cell, plans[number], seconds, peak_bytes))
            elif number not in best or cell.val_score > best[number].val_score:
                best[number] = cell
    for number, cell in best.items():
        results[number].append(scored(cell, plans[number], seconds, peak_bytes))
    return tuple(
        dataclasses.replace(result, layer_curve=tuple(curve))
        for some, curve in zip(results, curves, strict=True)
        for result in some
    )


def _no_seconds() -> dict[str, float]:
    return dict.fromkeys(("read", "fit", "predict"), 0.0)


def layer_for(aggregation: str, asked: str) -> tuple[str, tuple[str, ...]]:
    """The layer policy that an aggregation can follow, and what must be said of it.

    Examples
    --------
    >>> layer_for("mean", "best"), layer_for("attention", "best")[0]
    (('best', ()), 'last')
    """
    if aggregation in TRAINED and asked == "best":
        return "last", (
            f"{aggregation} is trained at one layer, not at each to choose from: the last is"
            " taken; --layer N, mean or mix takes others",
        )
    return asked, ()


def probe_for(
    probe: str, kind: str, aggregation: str, options: Mapping[str, Any], layer: str
) -> str:
    """A probe's own name, or that of the head that is trained with the aggregation.

    Raises
    ------
    UsageError
        If there is no such probe.
    TaskError
        If it cannot learn such a task, or not together with the aggregation.
    """
    if is_joint(aggregation, options, layer):
        return head_named(probe)
    return make_probe(probe, kind)[0]


def _fitted(
    layer: str, tracks: Mapping[str, Tracks], plans: Sequence[Plan]
) -> list[list[Fitted | Joint]]:
    """Fit every strength at one layer: to all of train, or all but each fold, or each draw.

    Returns
    -------
    by seed, one for each of these
    """
    data = plans[0].data
    for split, part in data.splits.items():
        if len(tracks[split]) != len(part):
            raise TaskError(
                f"{split} has vectors of {len(tracks[split])} tracks, expected {len(part)}"
            )
    train, folds = tracks["train"], data.folds
    if folds is not None:
        truth = data.splits["train"].truth
        each = []
        for fold in range(int(folds.max()) + 1):
            out = np.flatnonzero(folds == fold)
            held_out = (train[out], truth[out])
            each.append(
                fit_seeds(plans, layer, train, np.flatnonzero(folds != fold), held_out=held_out)
            )
    else:
        held_out = (tracks["val"], data.splits["val"].truth)
        each = [
            fit_seeds(plans, layer, train, rows, held_out=held_out)
            for rows in plans[0].draws or (None,)
        ]
    return [list(some) for some in zip(*each, strict=True)]


def _choose(
    layer: str, tracks: Mapping[str, Tracks], plan: Plan, fitted: list[Fitted | Joint]
) -> Chosen:
    """Take the strength that is best on validation, or over folds."""
    data, folds = plan.data, plan.data.folds
    # fewer tracks may support fewer settings
    grid = tuple(
        params for params in fitted[0].model.grid if all(params in f.model.grid for f in fitted)
    )
    if folds is not None:
        truth = data.splits["train"].truth
        predictions = [_by_folds(tracks["train"], folds, fitted, grid)]
    else:
        truth = data.splits["val"].truth
        predictions = [one.predict_all(tracks["val"], grid) for one in fitted]
    metric = data.metrics[0]
    scores = np.mean([[metric(truth, one) for one in each] for each in predictions], axis=0)
    if np.all(np.isnan(scores)):
        raise TaskError(
            f"{metric.name} is undefined on the {len(truth)} validation tracks, so nothing"
            " can be chosen on them",
            hint=WHY_UNDEFINED[data.kind],
        )
    choice = int(np.nanargmax(scores))
    return Chosen(
        layer=layer,
        params=grid[choice],
        grid=grid,
        val_score=float(scores[choice]),
        val=[each[choice] for each in predictions],
        fitted=[] if folds is not None else fitted,
        rates=None if folds is None else rates_to_follow(fitted),
        tracks=tracks,
    )


def _by_folds(
    train: Tracks, folds: Array, fitted: list[Fitted | Joint], grid: tuple[Params, ...]
) -> list[Array]:
    """Predict each training track by the model that did not see its fold."""
    rows = [np.flatnonzero(folds == fold) for fold in range(len(fitted))]
    parts = [one.predict_all(train[some], grid) for one, some in zip(fitted, rows, strict=True)]
    order = np.argsort(np.concatenate(rows))
    return [np.concatenate([part[choice] for part in parts])[order] for choice in range(len(grid))]
