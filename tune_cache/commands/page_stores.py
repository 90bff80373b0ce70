"""What a page shows of stores: facts and ledgers, leaks, and where tracks lie.

Conventions
-----------
Stores are only read. A store that is gone, or whose content is no longer what a result
was made from, is left out and named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tune_cache.cache.layout import Layout
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.usage import size_of
from tune_cache.datasets.base import Dataset
from tune_cache.errors import StoreMismatchError, StoreNotFoundError, TuneCacheError
from tune_cache.reports.page.model import MapTrack, StoreFacts, TaskResults, TrackMap
from tune_cache.reports.results import RunContext, SavedRun

if TYPE_CHECKING:
    import numpy as np

    from tune_cache.probes.result import Label, Prediction, ProbeResult

__all__ = ["Opened", "facts_of", "leaks_of", "map_of"]

MOST_TRACKS = 6000


class Opened:
    """Stores of results, each opened once.

    Parameters
    ----------
    layout
        Of the cache they lie in.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stores: dict[str, Store | TuneCacheError] = {}
        self.lacks: list[str] = []

    def of(self, context: RunContext) -> Store:
        """The store a result was made from; of several lengths, the first.

        Raises
        ------
        StoreNotFoundError, StoreMismatchError
            If it is gone or has changed.
        """
        digest = context.content_digest
        if digest not in self._stores:
            try:
                self._stores[digest] = self._open(context)
            except TuneCacheError as error:
                self._stores[digest] = error
                self.lacks.append(f"facts of store {context.store}: {error}")
        found = self._stores[digest]
        if isinstance(found, TuneCacheError):
            raise found
        return found

    def _open(self, context: RunContext) -> Store:
        name, *others = context.store.split(" + ")
        path = self._layout.v1 / context.encoder / name
        if path not in self._layout.store_paths():
            raise StoreNotFoundError(
                f"store {name!r} of encoder {context.encoder!r} is not in this cache"
            )
        store = open_store(path)
        if not others and store.content_digest != context.content_digest:
            raise StoreMismatchError(f"store {name!r} is not the one that was probed")
        return store


def facts_of(runs: Sequence[SavedRun], opened: Opened) -> list[StoreFacts]:
    """Describe the store of each run once; of a store that is gone, what results remember."""
    found: dict[tuple[str, str], StoreFacts] = {}
    for run in runs:
        context = run.context
        key = context.dataset, context.content_digest
        if key in found:
            continue
        common: dict[str, Any] = {
            "name": context.store,
            "encoder": context.encoder,
            "note": context.note,
            "seg": context.seg,
            "dataset": context.dataset,
            "content_digest": context.content_digest,
            "spec_key": context.spec_key,
            "spec": context.spec,
            "ledger": context.cost,
        }
        try:
            store = opened.of(context)
        except TuneCacheError:
            found[key] = StoreFacts(**common)
            continue
        if " + " in context.store:  # several lengths in one cell: each has facts of its own
            continue
        found[key] = StoreFacts(**common | _facts(store))
    return list(found.values())


def _facts(store: Store) -> dict[str, Any]:
    rate = store.spec.segments.sample_rate_hz
    ok = [store.status[name] == "ok" for name in store.track_ids]
    counts = (store.offset[1:] - store.offset[:-1]).tolist()
    provenance = store.attrs.get("provenance")
    coverage = store.attrs.get("coverage")
    return {
        "spec": store.spec.to_json(),
        "collection_digest": store.collection_digest,
        "n_bytes": size_of(store.path)[0],
        "n_tracks": store.n_tracks,
        "n_segments": store.n_segments,
        "coverage": coverage if isinstance(coverage, float | int) else None,
        "seconds": tuple(
            n / rate for n, is_ok in zip(store.n_samples.tolist(), ok, strict=True) if is_ok
        ),
        "n_segments_by_track": tuple(n for n, is_ok in zip(counts, ok, strict=True) if is_ok),
        "failed": store.failed,
        "ledger": store.ledger,
        "provenance": provenance if isinstance(provenance, Mapping) else {},
    }


def leaks_of(dataset: Dataset, task: str, store: Store) -> tuple[str, ...]:
    """Tell what the splits of a task should have kept together."""
    from tune_cache.probes.features import read_features
    from tune_cache.probes.guard import find_leaks
    from tune_cache.probes.tasks import load_task

    data = load_task(dataset, dataset.task(task), store.status)
    found = find_leaks(data, store.audio_of, read_features(store, data))
    return tuple(found.warnings({split: len(part) for split, part in data.splits.items()}))


def map_of(
    found: TaskResults,
    store: Store,
    dataset: Dataset | None,
    weights: Mapping[str, Sequence[float]],
) -> TrackMap | None:
    """Lay the tracks of a task out by the vectors that the chosen cell reads.

    Parameters
    ----------
    dataset
        Gives the labels of training tracks; without it there are only predicted tracks.
    weights
        Attention over segments, by track id.
    """
    import numpy as np

    from tune_cache.reports.page import tracks as room

    run = found.runs[found.reference][0]
    result = run.result
    predicted = {item.track_id: item for item in result.predictions}
    labels = _labels(dataset, found.task) | {
        name: (item.split, item.truth) for name, item in predicted.items()
    }
    names = [name for name in store.track_ids if name in labels and store.status[name] == "ok"]
    kept = _some(names, {name: split for name, (split, _) in labels.items()})
    if len(kept) < 2:
        return None
    means, n_segments = _means(store, kept, result.layer)
    is_train = np.array([labels[name][0] == "train" for name in kept])
    rows = room.scaled(means, is_train)
    axes, share = room.principal_axes(rows)
    projections = {"PCA": axes}
    if room.has_umap() and len(kept) > 3:
        projections["UMAP"] = room.umap_axes(rows)
    near = room.nearest(rows)
    seconds = dict(zip(store.track_ids, store.n_samples.tolist(), strict=True))
    rate = store.spec.segments.sample_rate_hz
    errors = _errors(result, predicted)
    drawn = []
    for place, name in enumerate(kept):
        split, truth = labels[name]
        item = predicted.get(name)
        is_class = result.kind == "multiclass"
        drawn.append(
            MapTrack(
                track_id=name,
                split=split,
                truth=_in_words(truth, result),
                prediction=""
                if item is None or _is_tags(result)
                else _in_words(item.prediction, result),
                is_right=item.truth == item.prediction if item and is_class else None,
                error=errors.get(name),
                value=_first(truth) if result.kind == "regression" else None,
                n_segments=n_segments[place],
                seconds=seconds[name] / rate,
                neighbours=near[place],
                weights=room.fitting_weights(weights, name, n_segments[place]),
            )
        )
    some = f"; {len(kept)} of {len(names)} tracks, test first" if len(kept) < len(names) else ""
    note = f" ({run.context.note})" if run.context.note else ""
    return TrackMap(
        dataset=found.dataset,
        task=found.task,
        kind=result.kind,
        caption=(
            f"Mean vectors of {run.context.encoder}{note}, {_segments(store)}, "
            f"layer {result.layer}, each dimension scaled by training tracks; "
            f"predictions are those of the chosen cell{some}."
        ),
        tracks=tuple(drawn),
        projections={
            name: tuple((float(x), float(y)) for x, y in points)
            for name, points in projections.items()
        },
        kept={"PCA": share},
        coloured_by=result.targets[0] if result.kind == "regression" and result.targets else "",
        weights_from="softmax weights of the aggregation" if weights else "",
    )


def _segments(store: Store) -> str:
    segments = store.spec.segments
    return "whole tracks" if segments.is_full else f"segments of {segments.label} s"


def _labels(dataset: Dataset | None, task: str) -> dict[str, tuple[str, Any]]:
    """Split and label of each track that has a label."""
    tracks = dataset.tracks if dataset is not None else ()
    return {
        track.track_id: (track.split, track.labels[task])
        for track in tracks
        if task in track.labels
    }


def _some(names: Sequence[str], split_of: Mapping[str, str]) -> list[str]:
    """All tracks, or as many as a page can carry: test, then val, then train, evenly."""
    if len(names) <= MOST_TRACKS:
        return list(names)
    kept: list[str] = []
    for split in ("test", "val", "train"):
        mine = [name for name in names if split_of[name] == split]
        room = MOST_TRACKS - len(kept)
        step = max(1, math.ceil(len(mine) / room)) if room > 0 else 0
        kept += mine[::step] if step else []
    return sorted(kept)


def _means(store: Store, names: Sequence[str], layer: str) -> tuple[np.ndarray, list[int]]:
    """Mean vector of each track at a layer, or over all layers; and its number of segments."""
    import numpy as np

    from tune_cache.aggregation.pooling import Pooling

    layers = [int(layer)] if layer.lstrip("-").isdigit() else list(store.layers)
    total: np.ndarray | None = None
    counts: list[int] = []
    for one in layers:
        ragged = store.read_layer(names, one)
        counts = ragged.lengths.tolist()
        means = np.asarray(Pooling("mean").fit_transform(ragged), dtype=np.float64)
        total = means if total is None else total + means
    assert total is not None  # a store has a layer
    return total / len(layers), counts


def _is_tags(result: ProbeResult) -> bool:
    return result.kind == "multilabel"


def _in_words(label: Any, result: ProbeResult) -> str:
    """A class; tags by name; numbers by their targets."""
    if not isinstance(label, tuple | list):
        return str(label)
    if label and isinstance(label[0], str):
        return ", ".join(label)
    if _is_tags(result):
        tags = zip(result.classes, label, strict=False)
        return ", ".join(name for name, value in tags if value == 1)
    names = result.targets if len(result.targets) == len(label) else [""] * len(label)
    return ", ".join(
        f"{name} {value:.2f}".strip()
        for name, value in zip(names, label, strict=True)
        if value is not None
    )


def _first(label: Any) -> float | None:
    value = label[0] if isinstance(label, tuple | list) and label else label
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _errors(result: ProbeResult, predicted: Mapping[str, Prediction]) -> dict[str, float]:
    """Of numbers: distance in standard deviations of the truth. Of tags: the share of pairs,
    one that the track has and one that it lacks, in the wrong order."""
    import numpy as np

    if result.kind == "multiclass" or not predicted:
        return {}
    names = list(predicted)

    def numbers(labels: Sequence[Label]) -> np.ndarray:
        return np.array([[np.nan if v is None else v for v in label] for label in labels], float)

    truth = numbers([predicted[name].truth for name in names])
    found = numbers([predicted[name].prediction for name in names])
    if _is_tags(result):
        errors = []
        for has, score in zip(truth == 1, found, strict=True):
            pairs = score[has][:, None] - score[~has][None, :]
            errors.append(float(((pairs < 0) + 0.5 * (pairs == 0)).mean()) if pairs.size else 0.0)
        return dict(zip(names, errors, strict=True))
    spread = np.where((s := np.nanstd(truth, axis=0)) > 0, s, 1.0)
    distance = np.sqrt(np.square((truth - found) / spread).mean(axis=1))
    return {
        name: float(value)
        for name, value in zip(names, distance, strict=True)
        if np.isfinite(value)
    }
