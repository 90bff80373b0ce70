"""What vectors and labels are made of: stores, a task, and the tracks that are left out.

Conventions
-----------
A *source* is a recipe: small, hashable, and the same thing in every process. One
store is one segment length; of several, a ``multiscale-…`` takes all at once.
Splits that leak are looked at before anything is fitted, store by store, so that
a row is the same whatever stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tune_cache.aggregation.registry import MULTISCALE
from tune_cache.cache.ragged import Ragged
from tune_cache.cache.store import Store, open_store
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.features import (
    KEEP_BYTES,
    Features,
    derived,
    derived_tracks,
    joined,
    n_derived,
    read_features,
)
from tune_cache.probes.guard import find_leaks
from tune_cache.probes.tasks import TaskData, load_task

if TYPE_CHECKING:
    from tune_cache.datasets.base import Dataset, Task

__all__ = ["Found", "Loader", "OnLeaks", "Source", "look", "refuse_derived", "sources"]

Array = np.ndarray[Any, np.dtype[Any]]
OnLeaks = Literal["tell", "refuse", "drop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a probe's vectors and labels come from.

    Parameters
    ----------
    stores
        Folders; more than one are the scales of a multiscale aggregation.
    derive
        Length in seconds of segments averaged from shorter ones; None takes
        those of the store.
    left_out
        Tracks that leak into a split that is held out, and why.
    leaks
        What else was found of that kind, in words, for every result.
    """

    stores: tuple[Path, ...]
    task: str
    derive: float | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    leaks: tuple[str, ...] = ()


class Loader:
    """Reads sources; keeps what the next one may share.

    Parameters
    ----------
    opened
        Stores that need not be opened again.
    keep_bytes
        Of vectors, for all stores of a source together.
    """

    def __init__(
        self, dataset: Dataset, opened: Sequence[Store] = (), *, keep_bytes: int = KEEP_BYTES
    ) -> None:
        self._dataset = dataset
        self._keep_bytes = keep_bytes
        self._stores = {store.path: store for store in opened}
        self._labels: tuple[Source, TaskData] | None = None
        self._vectors: dict[tuple[Path, Source], Features] = {}

    def stores(self, source: Source) -> list[Store]:
        """Stores of a source, each opened once."""
        for path in source.stores:
            if path not in self._stores:
                self._stores[path] = open_store(path)
        return [self._stores[path] for path in source.stores]

    def labels(self, source: Source) -> TaskData:
        """Labels of the tracks that all stores of a source have, and that do not leak."""
        of = _of_labels(source)
        if self._labels is None or self._labels[0] != of:
            status: dict[str, str] = {}
            for store in self.stores(source):
                for name, why in store.status.items():
                    if status.get(name, "ok") == "ok":
                        status[name] = why
            status |= dict(source.left_out)
            task = self._dataset.task(source.task)
            self._labels = of, load_task(self._dataset, task, status)
        return self._labels[1]

    def load(self, source: Source) -> tuple[TaskData, Features]:
        """Labels and vectors; a layer is read when it is asked for, and kept."""
        data = self.labels(source)
        keys = [(path, _of_labels(source)) for path in source.stores]
        self._vectors = {key: self._vectors[key] for key in keys if key in self._vectors}
        parts = []
        for key, store in zip(keys, self.stores(source), strict=True):
            if key not in self._vectors:
                self._vectors[key] = read_features(
                    store, data, keep_bytes=self._keep_bytes // len(source.stores)
                )
            parts.append(self._vectors[key])
        if len(parts) > 1:
            return data, joined(parts)
        if source.derive is None:
            return data, parts[0]
        (store,) = self.stores(source)
        return data, derived(parts[0], store.spec.segments, source.derive)

    def n_segments(self, source: Source) -> Array:
        """Segments of each track, of shape (n_tracks,), without reading vectors."""
        names = [track for part in self.labels(source).splits.values() for track in part.track_ids]
        counts = []
        for store in self.stores(source):
            rows, offsets = store.rows_of(names)
            tracks = Ragged(
                values=np.empty((len(rows), 0), np.float32),
                offsets=offsets,
                n_samples=store.segment_n_samples[rows],
            )
            if source.derive is not None:
                tracks = derived_tracks(tracks, store.spec.segments, source.derive)
            counts.append(tracks.lengths)
        return np.asarray(np.max(counts, axis=0))


def _of_labels(source: Source) -> Source:
    """What of a source decides its labels."""
    return Source(stores=source.stores, task=source.task, left_out=source.left_out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found of leaks in one store, for one task.

    Parameters
    ----------
    told
        In words; what was not looked for, too.
    to_drop
        Tracks that would have to go, and why.
    """

    told: tuple[str, ...] = ()
    to_drop: Mapping[str, str] = field(default_factory=dict)


Look = Callable[[Store, TaskData, Callable[[], Features], bool], Found]


def look(store: Store, data: TaskData, features: Callable[[], Features], thorough: bool) -> Found:
    """Look for leaks, see :func:`~tune_cache.probes.guard.find_leaks`."""
    leaks = find_leaks(data, store.audio_of, features(), thorough=thorough)
    counts = {split: len(part) for split, part in data.splits.items()}
    return Found(told=tuple(leaks.warnings(counts)), to_drop=dict(leaks.to_drop))


def sources(
    loader: Loader,
    task: Task,
    stores: Sequence[Store],
    aggregations: Sequence[str],
    *,
    derive: Sequence[float] = (),
    on_leaks: OnLeaks = "tell",
    looking: Look = look,
) -> Iterator[tuple[Source, tuple[str, ...]]]:
    """List the sources of a task: each store, its derived lengths, all stores together.

    Yields
    ------
    a source, and those of the aggregations that take it

    Raises
    ------
    UsageError
        If an aggregation takes several stores and there is one.
    TaskError
        If labels or splits support no probe, or leak and must not.
    """
    alone = tuple(name for name in aggregations if name not in MULTISCALE)
    together = tuple(name for name in aggregations if name in MULTISCALE)
    if together and len(stores) < 2:
        raise UsageError(
            f"aggregation {together[0]!r} needs two segment lengths or more, found one",
            hint="extract another, as with --seg 10 --seg 30 (lengths that cut every track alike "
            "are one), or use --agg mean",
        )
    said: dict[str, None] = {}
    dropped: dict[str, str] = {}
    for store in stores:
        plain = Source(stores=(store.path,), task=task.name)
        found = looking(
            store,
            loader.labels(plain),
            lambda plain=plain: loader.load(plain)[1],  # type: ignore[misc]  # bound now
            on_leaks != "tell",
        )
        if found.to_drop and on_leaks == "refuse":
            texts = [text.partition(":")[0] for text in found.told]
            raise TaskError(
                f"splits of task {task.name!r} leak: {'; '.join(texts)}",
                hint="--drop-leaks leaves out the tracks of the split that is learnt from",
            )
        drop = found.to_drop if on_leaks == "drop" else {}
        told = () if drop else found.told
        dropped |= drop
        said |= dict.fromkeys(told)
        spec = store.spec.segments
        lengths = [None, *(seconds for seconds in derive if n_derived(spec, seconds))]
        for length in lengths if alone else ():
            yield (
                Source(
                    stores=plain.stores,
                    task=task.name,
                    derive=length,
                    left_out=tuple(sorted(drop.items())),
                    leaks=told,
                ),
                alone,
            )
    if together:
        yield (
            Source(
                stores=tuple(store.path for store in stores),
                task=task.name,
                left_out=tuple(sorted(dropped.items())),
                leaks=tuple(said),
            ),
            together,
        )


def refuse_derived(stores: Sequence[Store], derive: Sequence[float]) -> None:
    """Refuse a derived length that no store serves.

    Raises
    ------
    UsageError
        With the first such length.
    """
    for seconds in derive:
        if not any(n_derived(store.spec.segments, seconds) for store in stores):
            raise UsageError(
                f"no store serves to derive segments of {seconds:g} s",
                hint="extract without overlap at a half, a third, … of that length",
            )
