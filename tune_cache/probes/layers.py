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
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from tune_cache.probes.features import Features, Tracks

__all__ = ["LAYER_POLICIES", "layers_asked"]

Array = np.ndarray[Any, np.dtype[Any]]

LAYER_POLICIES = ("best", "last", "mean", "all", "mix")


def layers_asked(
    features: Features, asked: str
) -> Iterator[tuple[str, Mapping[str, Tracks], float]]:
    """Give the layers of a policy: name, vectors by split, seconds of reading them.

    ``mix`` gives all layers at once, on an axis of their own: a probe combines them.

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
        if index == "mix":
            tracks: Mapping[str, Tracks] = _stacked_layers(features)
        else:
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


def _mean_of_layers(features: Features) -> dict[str, Tracks]:
    """Average the vectors of all layers, accumulated in float32."""
    sums: dict[str, list[Array]] = {}
    tracks: Mapping[str, Tracks] = {}
    for index in features.layers:
        tracks = features.of_layer(index)
        for split, part in tracks.items():
            values = [one.values.astype(np.result_type(one.values, "f4")) for one in _parts(part)]
            before = sums.get(split)
            if before is not None:
                values = [
                    np.add(old, new, out=new) for old, new in zip(before, values, strict=True)
                ]
            sums[split] = values
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


def _stacked_layers(features: Features) -> dict[str, Tracks]:
    """All layers side by side, of shape (n_segments, n_layers, dim), in the stored dtype."""
    by_layer = [features.of_layer(index) for index in features.layers]
    stacked: dict[str, Tracks] = {}
    for split, part in by_layer[0].items():
        same = zip(*(_parts(layer[split]) for layer in by_layer), strict=True)
        parts = tuple(
            Ragged(
                values=np.stack([one.values for one in some], axis=1),
                offsets=some[0].offsets,
                n_samples=some[0].n_samples,
            )
            for some in same
        )
        stacked[split] = Scales(parts) if isinstance(part, Scales) else parts[0]
    return stacked


def _parts(tracks: Tracks) -> tuple[Ragged, ...]:
    return tracks.parts if isinstance(tracks, Scales) else (tracks,)
