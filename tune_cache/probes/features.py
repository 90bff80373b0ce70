"""From a store to the vectors of a task, one layer at a time.

Conventions
-----------
A layer is read for all splits in one call and kept while there is room, so
probing again with another aggregation costs no reading, and memory is bounded
by one layer plus ``keep_bytes``. Vectors stay in the stored dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tune_cache.cache.ragged import Ragged
    from tune_cache.probes.tasks import TaskData

__all__ = ["Features", "StoreLike", "read_features"]

KEEP_BYTES = 2**30


class StoreLike(Protocol):
    """What is asked of a store here."""

    @property
    def layers(self) -> tuple[int, ...]: ...

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
    """

    layers: tuple[int, ...]
    of_layer: Callable[[int], Mapping[str, Ragged]]


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

    def of_layer(layer: int) -> Mapping[str, Ragged]:
        everything = kept.get(layer)
        if everything is None:
            everything = store.read(track_ids, layers=[layer], pooling=pooling).layer(0)
            n_bytes = everything.values.nbytes
            if sum(item.values.nbytes for item in kept.values()) + n_bytes <= keep_bytes:
                kept[layer] = everything
        parts, start = {}, 0
        for name, split in data.splits.items():
            parts[name] = everything[start : start + len(split)]
            start += len(split)
        return parts

    return Features(layers=tuple(store.layers), of_layer=of_layer)
