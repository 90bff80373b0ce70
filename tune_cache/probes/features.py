"""From stores to the vectors of a task, one layer at a time.

Conventions
-----------
A layer is read for all splits in one call and kept while there is room, so
probing again with another aggregation costs no reading. A large one that finds no
room is read in pieces by what goes track by track: memory is bounded by
``keep_bytes`` and one piece there, else by ``keep_bytes`` and one layer. Vectors
stay in the stored dtype; those of derived segments are float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tune_cache.aggregation.derive import derive
from tune_cache.aggregation.scales import Scales
from tune_cache.cache import pieces
from tune_cache.cache.pieces import Pieced
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError
from tune_cache.segments import segment_spec

if TYPE_CHECKING:
    from tune_cache.probes.tasks import TaskData
    from tune_cache.specs import SegmentSpec, StoreSpec

__all__ = [
    "KEEP_BYTES",
    "Features",
    "StoreLike",
    "Tracks",
    "derived",
    "derived_tracks",
    "joined",
    "n_derived",
    "read_features",
]

Tracks = Ragged | Scales
Array = np.ndarray[Any, np.dtype[Any]]

KEEP_BYTES = 2**30


class StoreLike(Protocol):
    """What is asked of a store here."""

    @property
    def layers(self) -> tuple[int, ...]: ...

    @property
    def n_segments(self) -> int: ...

    @property
    def dim(self) -> int: ...

    @property
    def spec(self) -> StoreSpec: ...

    @property
    def segment_n_samples(self) -> Array: ...

    def rows_of(self, track_ids: Sequence[str]) -> tuple[Array, Array]: ...

    def read(
        self, track_ids: Sequence[str], *, layers: Sequence[int] | None, pooling: str
    ) -> Ragged: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Vectors of every split, by layer.

    Parameters
    ----------
    layers
        Indices of the layers there are, ascending.
    of_layer
        From a layer to ``train``, ``val`` and ``test``, tracks in the order of
        the task's, values of shape (n_segments, dim).
    options
        What was done to the stored vectors, as ``derive``: told with every result.
    """

    layers: tuple[int, ...]
    of_layer: Callable[[int], Mapping[str, Tracks]]
    options: Mapping[str, Any] = field(default_factory=dict)


def read_features(
    store: StoreLike, data: TaskData, *, pooling: str = "mean", keep_bytes: int = KEEP_BYTES
) -> Features:
    """Tie a store to the tracks of a task; reading happens when a layer is asked for.

    Parameters
    ----------
    pooling
        Frames to segment, one of those the store keeps.
    keep_bytes
        Layers are kept for the next caller up to this much.
    """
    kept: dict[int, Ragged] = {}
    track_ids = [name for split in data.splits.values() for name in split.track_ids]

    @cache
    def rows_and_offsets() -> tuple[Array, Array]:
        return store.rows_of(track_ids)

    def is_too_large(room: int) -> bool:
        if store.n_segments <= pieces.PIECE_ROWS:
            return False
        n_rows = len(rows_and_offsets()[0])
        n_bytes = n_rows * store.dim * np.dtype(store.spec.dtype).itemsize
        return n_rows > pieces.PIECE_ROWS and n_bytes > room

    def pieced(layer: int) -> Pieced:
        def read(positions: Array) -> Ragged:
            names = [track_ids[position] for position in positions.tolist()]
            return store.read(names, layers=[layer], pooling=pooling).layer(0)

        rows, offsets = rows_and_offsets()
        return Pieced(read, offsets=offsets, n_samples=store.segment_n_samples[rows])

    def of_layer(layer: int) -> Mapping[str, Tracks]:
        everything = kept.get(layer)
        if everything is None:
            room = keep_bytes - sum(item.values.nbytes for item in kept.values())
            if is_too_large(room):
                everything = pieced(layer)
            else:
                everything = store.read(track_ids, layers=[layer], pooling=pooling).layer(0)
                if everything.values.nbytes <= room:
                    kept[layer] = everything
        parts: dict[str, Tracks] = {}
        start = 0
        for name, split in data.splits.items():
            parts[name] = everything[start : start + len(split)]
            start += len(split)
        return parts

    return Features(layers=tuple(store.layers), of_layer=of_layer)


def joined(several: Sequence[Features]) -> Features:
    """Put the features of several segment lengths side by side, for ``multiscale-…``.

    Raises
    ------
    UsageError
        If there is one length only.
    TaskError
        If the stores have no layer in common.
    """
    if len(several) < 2:
        raise UsageError(
            "a multiscale aggregation needs two segment lengths or more, found one",
            hint="extract another, as with --seg 10 --seg 30, or use --agg mean",
        )
    common = set.intersection(*(set(features.layers) for features in several))
    if not common:
        raise TaskError("the stores of these segment lengths have no layer in common")

    def of_layer(layer: int) -> Mapping[str, Tracks]:
        parts = [features.of_layer(layer) for features in several]
        scales: dict[str, Tracks] = {}
        for split in parts[0]:
            found = [part[split] for part in parts]
            scales[split] = Scales(tuple(one for one in found if isinstance(one, Ragged)))
        return scales

    options: dict[str, Any] = {}
    for features in several:
        options |= features.options
    return Features(layers=tuple(sorted(common)), of_layer=of_layer, options=options)


def n_derived(spec: SegmentSpec, seconds: float) -> int:
    """Count a store's segments in one of another length.

    Returns
    -------
    0 where the store cannot serve: its segments overlap, or the length is not two
    times, three times, … its own
    """
    if spec.is_full or spec.grid != "encoder" or spec.hop_samples != spec.length_samples:
        return 0
    n, rest = divmod(round(seconds * spec.sample_rate_hz), spec.length_samples)
    return 0 if n < 2 or rest else n


def derived_tracks(tracks: Ragged, spec: SegmentSpec, seconds: float) -> Ragged:
    """Average runs of a store's segments to segments of another length.

    The shortest tail is the one that such a length has by default.

    Parameters
    ----------
    spec
        Of the store, which must serve (see :func:`n_derived`).
    seconds
        Length wanted.
    """
    true = segment_spec(
        seconds,
        sample_rate_hz=spec.sample_rate_hz,
        min_samples=spec.min_samples,
        tail=spec.tail,
    )
    shortest = true.length_samples if spec.tail == "drop" else true.min_tail_samples
    n = n_derived(spec, seconds)

    def change(some: Ragged) -> Ragged:
        return derive(some, n, min_tail_samples=shortest)

    return tracks.then(change) if isinstance(tracks, Pieced) else change(tracks)


def derived(features: Features, spec: SegmentSpec, seconds: float) -> Features:
    """Features of longer segments without their context, see :func:`derived_tracks`."""
    told = int(seconds) if seconds == int(seconds) else seconds

    def of_layer(layer: int) -> Mapping[str, Tracks]:
        return {
            split: derived_tracks(part, spec, seconds)
            for split, part in features.of_layer(layer).items()
            if isinstance(part, Ragged)
        }

    return Features(
        layers=features.layers, of_layer=of_layer, options={**features.options, "derive": told}
    )
