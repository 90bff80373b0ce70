"""Choose on validation, score on test: one probe on the vectors of a store.

Conventions
-----------
Layer and strength are those with the best validation score; ties go to the
lower layer, then to the stronger regularisation. Aggregation, scaling and
model are fitted on training tracks and never again on more. Test labels are
read after every choice is made. Pure: vectors and labels in, values out; the
seed draws the bootstrap, nothing else is random.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.metrics import Score, score
from tune_cache.probes.models import Probe, make_probe
from tune_cache.probes.result import Prediction, ProbeResult
from tune_cache.probes.statistics import N_RESAMPLES

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Features
    from tune_cache.probes.tasks import TaskData

__all__ = ["LAYER_POLICIES", "run_probe"]

Array = np.ndarray[Any, np.dtype[Any]]

LAYER_POLICIES = ("best", "last", "mean", "all")
FEW_GROUPS = 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    """What is asked for, the same for every layer."""

    data: TaskData
    aggregation: str
    options: Mapping[str, Any]
    probe: str
    layer_asked: str
    seed: int
    n_resamples: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Cell:
    """The best strength at one layer, ready to be scored."""

    layer: str
    choice: int
    val_score: float
    probe: Probe
    held_out: Mapping[str, Array]  # vectors of val and test
    share_one_segment: float
    flags: tuple[str, ...]


def run_probe(
    features: Features,
    data: TaskData,
    *,
    aggregation: str = "mean",
    aggregation_options: Mapping[str, Any] | None = None,
    probe: str = "auto",
    layer: str | int = "best",
    seed: int = 1234,
    n_resamples: int = N_RESAMPLES,
) -> tuple[ProbeResult, ...]:
    """Fit, choose and score.

    Each layer is read once; memory holds one layer's segments, its track
    vectors, and the held-out vectors of the best layer so far.

    Parameters
    ----------
    aggregation, aggregation_options
        As :func:`~tune_cache.aggregation.registry.make_aggregation` takes them.
    layer
        An index (negative counts from the store's last), ``last``, ``mean``
        (of the vectors of all layers), ``best`` on validation, or ``all``.

    Returns
    -------
    one result, or under ``all`` one for every layer

    Raises
    ------
    TaskError
        If the vectors, the labels or the layer cannot support it.
    """
    name, _ = make_probe(probe, data.kind)
    asked = str(layer)
    plan = _Plan(
        data=data,
        aggregation=aggregation,
        options=dict(aggregation_options or {}),
        probe=name,
        layer_asked=asked,
        seed=seed,
        n_resamples=n_resamples,
    )
    seconds = _no_seconds()
    curve: list[tuple[str, float]] = []
    results: list[ProbeResult] = []
    best: _Cell | None = None
    for label, tracks, seconds_read in _layers(features, asked):
        if asked == "all":
            seconds = _no_seconds()
        seconds["read"] += seconds_read
        cell = _choose(label, tracks, plan, seconds)
        curve.append((label, cell.val_score))
        if asked == "all":
            results.append(_scored(cell, plan, seconds))
        elif best is None or cell.val_score > best.val_score:
            best = cell
    if best is not None:
        results.append(_scored(best, plan, seconds))
    return tuple(dataclasses.replace(result, layer_curve=tuple(curve)) for result in results)


def _no_seconds() -> dict[str, float]:
    return dict.fromkeys(("read", "fit", "predict"), 0.0)


def _layers(features: Features, asked: str) -> Iterator[tuple[str, Mapping[str, Ragged], float]]:
    """Layers that a policy looks at: name, vectors, and seconds of reading them once."""
    if asked == "mean":
        chosen: Sequence[int | str] = ["mean"]
    elif asked in ("best", "all"):
        chosen = features.layers
    elif asked == "last":
        chosen = features.layers[-1:]
    else:
        chosen = [_layer_index(asked, features.layers)]
    for index in chosen:
        started = time.perf_counter()
        tracks = _mean_of_layers(features) if index == "mean" else features.of_layer(int(index))
        yield str(index), tracks, time.perf_counter() - started


def _layer_index(asked: str, layers: Sequence[int]) -> int:
    """A layer by its index; a negative one counts from the last of those stored."""
    try:
        index = int(asked)
    except ValueError as error:
        raise UsageError(
            f"layer is {asked!r}, expected an index or one of {', '.join(LAYER_POLICIES)}"
        ) from error
    if -len(layers) <= index < 0:
        index = layers[index]
    if index not in layers:
        raise TaskError(
            f"layer {index} is not in the store, which keeps {list(layers)}",
            hint="choose one of these, or extract again with --layers all",
        )
    return index


def _mean_of_layers(features: Features) -> dict[str, Ragged]:
    """Average the vectors of all layers, accumulated in float32."""
    sums: dict[str, Array] = {}
    tracks: Mapping[str, Ragged] = {}
    for index in features.layers:
        tracks = features.of_layer(index)
        for split, part in tracks.items():
            values = part.values.astype(np.result_type(part.values.dtype, np.float32))
            sums[split] = np.add(sums[split], values, out=values) if split in sums else values
    return {
        split: Ragged(
            values=sums[split] / len(features.layers),
            offsets=part.offsets,
            n_samples=part.n_samples,
        )
        for split, part in tracks.items()
    }


def _choose(
    layer: str, tracks: Mapping[str, Ragged], plan: _Plan, seconds: dict[str, float]
) -> _Cell:
    """Fit every strength at one layer on train and take the best on validation."""
    splits = plan.data.splits
    for split, part in splits.items():
        if len(tracks[split]) != len(part):
            raise TaskError(
                f"{split} has vectors of {len(tracks[split])} tracks, expected {len(part)}"
            )
    started = time.perf_counter()
    aggregate = make_aggregation(plan.aggregation, **plan.options)
    vectors = aggregate.fit_transform(tracks["train"])
    _, model = make_probe(plan.probe, plan.data.kind)
    model.fit(vectors, splits["train"].truth, standardise=not aggregate.standardised_output)
    fitted = time.perf_counter()
    held_out = {split: aggregate.transform(tracks[split]) for split in ("val", "test")}
    metric, truth = plan.data.metrics[0], splits["val"].truth
    scores = [metric(truth, predicted) for predicted in model.predict_all(held_out["val"])]
    seconds["fit"] += fitted - started
    seconds["predict"] += time.perf_counter() - fitted
    if np.all(np.isnan(scores)):
        raise TaskError(
            f"{metric.name} is undefined on the {len(truth)} validation tracks, so nothing"
            " can be chosen on them",
            hint="R² needs at least two tracks and a truth that varies in every target",
        )
    choice = int(np.nanargmax(scores))
    lengths = np.concatenate([part.lengths for part in tracks.values()])
    return _Cell(
        layer=layer,
        choice=choice,
        val_score=float(scores[choice]),
        probe=model,
        held_out=held_out,
        share_one_segment=float(np.mean(lengths == 1)),
        flags=tuple(_flags(lengths, aggregate)),
    )


def _flags(lengths: Array, aggregate: TrackAggregation) -> Iterator[str]:
    """What the numbers of segments mean for the reading of a cell."""
    share = float(np.mean(lengths == 1))
    if share == 1:
        yield "one-segment: mean ≡ max ≡ concat, std = 0"
    elif share > 0:
        yield f"one-segment: {share:.0%} of tracks"
    if aggregate.sees_length and np.ptp(lengths) > 0:
        yield "length-visible: the aggregation tells how many segments a track has"
    if padding := aggregate.share_padding(lengths):
        yield f"padded: {padding:.0%} of the vectors, a trace of length for a classifier"
    if n_cut := aggregate.n_truncated(lengths):
        yield f"truncated: {n_cut} tracks lose their last segments"


def _scored(cell: _Cell, plan: _Plan, seconds: dict[str, float]) -> ProbeResult:
    """Predict validation and test once and score them."""
    data, started = plan.data, time.perf_counter()
    predicted = {
        split: cell.probe.predict(vectors, cell.choice) for split, vectors in cell.held_out.items()
    }
    seconds["predict"] += time.perf_counter() - started
    scores = {
        split: {
            metric.name: score(
                metric,
                data.splits[split].truth,
                values,
                data.splits[split].groups,
                seed=plan.seed,
                n_resamples=plan.n_resamples,
            )
            for metric in data.metrics
        }
        for split, values in predicted.items()
    }
    return ProbeResult(
        task=data.name,
        kind=data.kind,
        aggregation=plan.aggregation,
        aggregation_options=plan.options,
        probe=plan.probe,
        layer_asked=plan.layer_asked,
        layer=cell.layer,
        params=dict(cell.probe.grid[cell.choice]),
        grid=tuple(dict(params) for params in cell.probe.grid),
        seed=plan.seed,
        metric=data.metrics[0].name,
        scores=scores,
        n={split: len(part) for split, part in data.splits.items()},
        n_classes=len(data.classes) or None,
        n_features=cell.held_out["test"].shape[1],
        share_one_segment=cell.share_one_segment,
        flags=cell.flags,
        warnings=(*data.warnings(), *cell.probe.warnings, *_doubts(data, scores)),
        seconds=dict(seconds),
        excluded=dict(data.excluded),
        predictions=tuple(_predictions(data, predicted)),
    )


def _doubts(data: TaskData, scores: Mapping[str, Mapping[str, Score]]) -> Iterator[str]:
    """Undefined scores and intervals from few groups, in words."""
    for split, by_metric in scores.items():
        part = data.splits[split]
        undefined = [name for name, found in by_metric.items() if np.isnan(found.value)]
        if undefined:
            yield (
                f"{', '.join(undefined)} on {split} is undefined: R² needs two tracks or more"
                " and a truth that varies"
            )
        n_groups = len(set(part.groups))
        if split == "test" and n_groups < FEW_GROUPS:
            yield (
                f"test has {n_groups} group{'s' * (n_groups != 1)}:"
                + (" intervals are rough" if n_groups > 1 else " there are no intervals")
            )


def _predictions(data: TaskData, predicted: Mapping[str, Array]) -> Iterator[Prediction]:
    for split, values in predicted.items():
        part = data.splits[split]
        rows = zip(part.track_ids, part.groups, part.truth, values, strict=True)
        for track_id, group, truth, value in rows:
            yield Prediction(
                track_id=track_id,
                split=split,
                group=group,
                truth=data.decode(truth),
                prediction=data.decode(value),
            )
