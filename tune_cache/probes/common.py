"""The tracks, labels and seeds that two cells have in common, as numbers.

Conventions
-----------
A cell is the results of one configuration, one a seed. Predictions are read
back from results, so cells may come from anywhere; classes get one numbering
for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_cache.errors import StoreMismatchError, TaskError, first_few
from tune_cache.probes.metrics import Metric, metrics_of
from tune_cache.probes.result import Label, Prediction, ProbeResult
from tune_cache.probes.statistics import Scorer, number_groups

__all__ = ["Cell", "CommonTracks", "common_tracks", "distinct_seeds", "tracks_of"]

Array = np.ndarray[Any, np.dtype[Any]]
Cell = Sequence[ProbeResult]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CommonTracks:
    """Two cells over the same tracks, as numbers."""

    track_ids: tuple[str, ...]
    kind: str
    metrics: Mapping[str, Metric]
    truth: Array
    pairs: tuple[tuple[Array, Array], ...]  # one a seed
    number: Array
    n_groups: int

    def both(self, metric: Metric) -> Scorer:
        """Scorer over 2 n_groups: the groups as the first sees them, then as the second."""
        truth = np.concatenate([self.truth, self.truth])
        number = np.concatenate([self.number, self.number + self.n_groups])
        scorers = [
            metric.scorer(truth, np.concatenate(pair), number, 2 * self.n_groups)
            for pair in self.pairs
        ]
        return lambda copies: np.mean([scorer(copies) for scorer in scorers], axis=0)

    def gains(self) -> Array:
        """Error of the second minus that of the first, by track, mean over seeds."""
        return np.asarray(
            np.mean(
                [
                    _errors(self.kind, self.truth, second) - _errors(self.kind, self.truth, first)
                    for first, second in self.pairs
                ],
                axis=0,
            )
        )


def _errors(kind: str, truth: Array, prediction: Array) -> Array:
    """One number a track: wrong or right; squared error in units of the truth's variance.

    Of tags: the share of pairs, one that the track has and one that it lacks, in
    the wrong order.
    """
    if kind == "multiclass":
        return np.asarray(truth != prediction, dtype=np.float64)
    if kind == "multilabel":
        from scipy.stats import rankdata

        n_tags, n_true = truth.shape[1], truth.sum(axis=1)
        above = (truth * rankdata(prediction, axis=1)).sum(axis=1) - n_true * (n_true + 1) / 2
        n_pairs = n_true * (n_tags - n_true)
        share = np.divide(above, n_pairs, out=np.ones(len(truth)), where=n_pairs > 0)
        return np.asarray(1 - share)
    spread = np.maximum(truth.var(axis=0), np.finfo(np.float64).tiny)
    return np.asarray((np.square(truth - prediction) / spread).mean(axis=1))


def tracks_of(result: ProbeResult, split: str = "test") -> dict[str, Prediction]:
    return {item.track_id: item for item in result.predictions if item.split == split}


def distinct_seeds(cell: Cell, split: str = "test") -> list[dict[str, Prediction]]:
    """Predictions of each seed; of one if the seed makes no difference."""
    ordered = sorted(cell, key=lambda result: result.seed)
    by_seed = [tracks_of(result, split) for result in ordered]
    return by_seed[:1] if all(other == by_seed[0] for other in by_seed[1:]) else by_seed


def common_tracks(first: Cell, second: Cell, *, split: str = "test") -> CommonTracks:
    """Bring two cells to the tracks of a split, the labels and the seeds that both have."""
    one, other = first[0], second[0]
    if (one.task, one.kind) != (other.task, other.kind):
        raise TaskError(
            f"tasks {one.task!r} ({one.kind}) and {other.task!r} ({other.kind}) cannot be compared"
        )
    left, right = distinct_seeds(first, split), distinct_seeds(second, split)
    track_ids = sorted(set.intersection(*(set(tracks) for tracks in left + right)))
    if not track_ids:
        raise TaskError(
            f"the two results of task {one.task!r} have no {split} track in common",
            hint="were they made with the same splits? Few-shot results keep no predictions",
        )
    changed = [
        name
        for name in track_ids
        if len({(tracks[name].truth, tracks[name].group) for tracks in left + right}) > 1
    ]
    if changed:
        raise StoreMismatchError(
            f"{len(changed)} of {len(track_ids)} common tracks have other labels or groups in one "
            f"of the two results: {first_few(changed)}",
            hint="the dataset was changed between them: probe again",
        )
    # seeds are paired; a cell without chance meets every seed of the other
    n_seeds = min(len(left), len(right)) if min(len(left), len(right)) > 1 else 0
    n_seeds = n_seeds or max(len(left), len(right))
    sides = [(side * n_seeds)[:n_seeds] for side in (left, right)]
    number, n_groups = number_groups([left[0][name].group for name in track_ids])
    labels = [[left[0][name].truth for name in track_ids]]
    labels += [[tracks[name].prediction for name in track_ids] for side in sides for tracks in side]
    classes = sorted({str(label) for some in labels for label in some})
    classes = classes if one.kind == "multiclass" else []
    truth, *numbers = _as_numbers(labels, classes)
    return CommonTracks(
        track_ids=tuple(track_ids),
        kind=one.kind,
        metrics={metric.name: metric for metric in _metrics_of(one, classes)},
        truth=truth,
        pairs=tuple(zip(numbers[:n_seeds], numbers[n_seeds:], strict=True)),
        number=number,
        n_groups=n_groups,
    )


def _as_numbers(labels: Sequence[Sequence[Label]], classes: Sequence[str]) -> list[Array]:
    """Classes by their numbers; targets and tags as they are."""
    if not classes:
        return [np.array(some, dtype=np.float64) for some in labels]
    number = {name: index for index, name in enumerate(classes)}
    return [np.array([number[str(label)] for label in some], dtype=np.int64) for some in labels]


def _metrics_of(result: ProbeResult, classes: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics that a result has scores of."""
    return metrics_of(result.kind, result.targets, tuple(result.scores["test"]), classes=classes)
