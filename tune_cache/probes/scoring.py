"""From what was chosen to a result: test is predicted here, once, and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.probes.fitting import fit_seeds
from tune_cache.probes.measure import measured
from tune_cache.probes.metrics import Score, confusion_matrix, score
from tune_cache.probes.result import Prediction, ProbeResult
from tune_cache.probes.shots import too_few

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.fitting import Chosen, Fitted, Plan
    from tune_cache.probes.joint import Joint
    from tune_cache.probes.tasks import TaskData

__all__ = ["WHY_UNDEFINED", "scored"]

Array = np.ndarray[Any, np.dtype[Any]]

FEW_GROUPS = 20
WHY_UNDEFINED = {
    "regression": "R² needs at least two tracks and a truth that varies in every target",
    "multilabel": "a tag needs a track with it and one without",
    "multiclass": "add validation tracks",
}


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
        yield f"padded: {padding:.0%} of the vectors are filled up, not encoded"
    if n_cut := aggregate.n_truncated(lengths):
        yield f"truncated: {n_cut} tracks lose their last segments"
    yield from aggregate.flags(lengths)


def scored(
    cell: Chosen, plan: Plan, seconds: Mapping[str, float], peak_bytes: float
) -> ProbeResult:
    """Predict test once, and score it and what the choice was made on."""
    data, taken = plan.data, dict(seconds)
    fitted = cell.fitted
    if not fitted:
        with measured(memory=plan.counts_memory) as fit:
            fitted = fit_seeds([plan], cell.layer, cell.tracks["train"], rates=[cell.rates])
        taken["fit"] += fit.seconds
        peak_bytes = max(peak_bytes, fit.peak_bytes)
    with measured(memory=plan.counts_memory) as predict:
        test = [one.predict(cell.tracks["test"], cell.params) for one in fitted]
    taken["predict"] += predict.seconds
    predicted = {"val": cell.val, "test": test}
    judged = {"val": data.splits["train" if data.folds is not None else "val"]}
    judged["test"] = data.splits["test"]
    scores = {
        split: {
            metric.name: score(
                metric,
                judged[split].truth,
                values,
                judged[split].groups,
                seed=plan.seed,
                n_resamples=plan.n_resamples,
            )
            for metric in data.metrics
        }
        for split, values in predicted.items()
    }
    n_test, aggregate = len(data.splits["test"]), fitted[0].aggregate
    lengths = np.concatenate([part.lengths for part in cell.tracks.values()])
    return ProbeResult(
        task=data.name,
        kind=data.kind,
        aggregation=plan.aggregation,
        aggregation_options=plan.options_told,
        probe=plan.probe_label if plan.shots is None else f"{plan.probe_label} {plan.shots}-shot",
        layer_asked=plan.layer_asked,
        layer=cell.layer,
        params=cell.told(fitted),
        grid=tuple(dict(params) for params in cell.grid),
        seed=plan.seed,
        metric=data.metrics[0].name,
        scores=scores,
        n={
            split: len(judged.get(split, data.splits["train"]))
            for split in ("train", "val", "test")
        },
        n_classes=len(data.classes) or None,
        n_features=len(aggregate.get_feature_names_out()),
        share_one_segment=float(np.mean(lengths == 1)),
        flags=tuple(_flags(lengths, aggregate)),
        warnings=(
            *plan.notes,
            *data.warnings(),
            *dict.fromkeys(text for one in fitted for text in one.model.warnings),
            *_doubts(plan, scores),
        ),
        seconds=taken,
        cost={
            "seconds_predict_per_1000": 1000 * predict.seconds / (n_test * len(test)),
            "peak_fit_bytes": peak_bytes,
            "peak_predict_bytes": predict.peak_bytes,
        },
        excluded=dict(data.excluded),
        classes=data.classes + data.unseen,
        targets=data.targets,
        confusion=_confusion(data, test),
        trained=dict(fitted[0].facts),
        segment_weights={} if plan.draws else _segment_weights(cell, data, fitted[0]),
        shots=plan.shots,
        repeat_scores={
            metric.name: tuple(metric(data.splits["test"].truth, one) for one in test)
            for metric in data.metrics
            if plan.draws
        },
        predictions=() if plan.draws else tuple(_predictions(plan, predicted)),
    )


def _segment_weights(
    cell: Chosen, data: TaskData, fitted: Fitted | Joint
) -> dict[str, tuple[float, ...]]:
    """How much each segment counts, of every track."""
    return {
        track_id: tuple(map(float, weights))
        for split, part in data.splits.items()
        for track_id, weights in zip(
            part.track_ids, fitted.segment_weights(cell.tracks[split]), strict=False
        )
    }


def _confusion(data: TaskData, test: list[Array]) -> tuple[tuple[int, ...], ...]:
    """Counts of test tracks, rows the truth; over all repeats, if there are several."""
    if data.kind != "multiclass":
        return ()
    n, truth = len(data.classes + data.unseen), data.splits["test"].truth
    counts = sum(confusion_matrix(truth, one, n) for one in test)
    return tuple(tuple(row) for row in np.asarray(counts).tolist())


def _doubts(plan: Plan, scores: Mapping[str, Mapping[str, Score]]) -> Iterator[str]:
    """Undefined scores and intervals from few groups, in words."""
    data = plan.data
    if plan.shots is not None and (text := too_few(data, plan.shots)):
        yield text
    for split, by_metric in scores.items():
        undefined = [name for name, found in by_metric.items() if np.isnan(found.value)]
        if undefined:
            yield f"{', '.join(undefined)} on {split} is undefined: {WHY_UNDEFINED[data.kind]}"
    n_groups = len(set(data.splits["test"].groups))
    if n_groups < FEW_GROUPS:
        yield (
            f"test has {n_groups} group{'s' * (n_groups != 1)}:"
            + (" intervals are rough" if n_groups > 1 else " there are no intervals")
        )


def _predictions(plan: Plan, predicted: Mapping[str, list[Array]]) -> Iterator[Prediction]:
    """One a track; those of folds count as validation."""
    data = plan.data
    for split, (values,) in predicted.items():
        part = data.splits["train" if split == "val" and data.folds is not None else split]
        rows = zip(part.track_ids, part.groups, part.truth, values, strict=True)
        for track_id, group, truth, value in rows:
            yield Prediction(
                track_id=track_id,
                split=split,
                group=group,
                truth=data.decode(truth),
                prediction=data.decode(value),
            )
