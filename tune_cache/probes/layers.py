"""Which layers a policy looks at, each read once.

Conventions
-----------
A layer goes by its index in the encoder, as the store keeps it; negative ones
count from the last of those stored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.scales import Scales
from tune_cache.cache.pieces import Pieced, in_memory
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from tune_cache.probes.features import Features, Tracks

__all__ = ["LAYER_POLICIES", "layers_asked"]

Array = np.ndarray[Any, np.dtype[Any]]

LAYER_POLICIES = ("best", "last", "mean", "mix", "all")


def layers_asked(
    features: Features, asked: str
) -> Iterator[tuple[str, Mapping[str, Tracks], float]]:
    """Give the layers of a policy: name, vectors by split, seconds of reading them.

    Under ``mix`` segments keep all layers, (n_segments, n_layers, dim): memory holds
    them all.

    Raises
    ------
    UsageError
        If it is neither a policy nor a number.
    TaskError
        If the store does not keep the layer.
    """
    if asked in ("mean", "mix"):
        chosen: Sequence[int | str] = [asked]
    elif asked in ("best", "all"):
        chosen = features.layers
    elif asked == "last":
        chosen = features.layers[-1:]
    else:
        chosen = [_layer_index(asked, features.layers)]
    for index in chosen:
        started = time.perf_counter()
        if index == "mean":
            tracks: Mapping[str, Tracks] = _mean_of_layers(features)
        else:
            tracks = _all_layers(features) if index == "mix" else features.of_layer(int(index))
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


def _mean_of_layers(features: Features) -> dict[str, Tracks]:
    """Average the vectors of all layers, accumulated in float32."""
    sums: dict[str, list[Array]] = {}
    tracks: Mapping[str, Tracks] = {}
    for index in features.layers:
        tracks = features.of_layer(index)
        if any(isinstance(one, Pieced) for part in tracks.values() for one in _parts(part)):
            return _mean_by_pieces(features)
        for split, part in tracks.items():
            before: Sequence[Array | None] = sums.get(split) or [None] * len(_parts(part))
            sums[split] = [_added(old, new) for old, new in zip(before, _parts(part), strict=True)]
    averaged: dict[str, Tracks] = {}
    for split, part in tracks.items():
        means = tuple(
            Ragged(
                values=total / len(features.layers), offsets=one.offsets, n_samples=one.n_samples
            )
            for total, one in zip(sums[split], _parts(part), strict=True)
        )
        averaged[split] = Scales(means) if isinstance(part, Scales) else means[0]
    return averaged


def _added(total: Array | None, layer: Ragged) -> Array:
    values = layer.values.astype(np.result_type(layer.values, "f4"))
    return values if total is None else np.add(total, values, out=values)


def _mean_by_pieces(features: Features) -> dict[str, Tracks]:
    """Average the vectors of all layers when they are asked for."""

    def averaged(layers: Sequence[Ragged]) -> Pieced:
        first = layers[0]
        n_read = next((one.n_read for one in layers if isinstance(one, Pieced)), None)

        def read(positions: Array) -> Ragged:
            total = None
            for layer in layers:
                some = in_memory(layer[positions])
                total = _added(total, some)
            assert total is not None
            return Ragged(
                values=total / len(layers), offsets=some.offsets, n_samples=some.n_samples
            )

        return Pieced(read, offsets=first.offsets, n_samples=first.n_samples, n_read=n_read)

    layers = [features.of_layer(index) for index in features.layers]
    found: dict[str, Tracks] = {}
    for split, part in layers[0].items():
        by_part = zip(*(_parts(layer[split]) for layer in layers), strict=True)
        means = tuple(averaged(same) for same in by_part)
        found[split] = Scales(means) if isinstance(part, Scales) else means[0]
    return found


def _all_layers(features: Features) -> dict[str, Tracks]:
    """Put the vectors of all layers side by side, as they are stored."""
    layers = [features.of_layer(index) for index in features.layers]
    stacked: dict[str, Tracks] = {}
    for split, first in layers[0].items():
        by_part = zip(*(_parts(layer[split]) for layer in layers), strict=True)
        together = tuple(
            Ragged(
                values=np.stack([one.values for one in same], axis=1),
                offsets=same[0].offsets,
                n_samples=same[0].n_samples,
            )
            for same in by_part
        )
        stacked[split] = Scales(together) if isinstance(first, Scales) else together[0]
    return stacked


def _parts(tracks: Tracks) -> tuple[Ragged, ...]:
    return tracks.parts if isinstance(tracks, Scales) else (tracks,)
