"""How two stores differ: in what was asked, of which audio, and in the numbers.

Conventions
-----------
Vectors are compared where both stores have the same track with the same audio,
cut the same way, at the layers and poolings that both keep; in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tune_cache.cache.store import Store
from tune_cache.specs import differing_fields

__all__ = ["StoreDiff", "compare_stores"]

ROWS_AT_A_TIME = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreDiff:
    """How two stores differ.

    Parameters
    ----------
    fields
        Of the spec, as (dotted name, left, right).
    only_left, only_right
        Ids of tracks.
    other_audio
        Ids that both have, with different audio.
    other_status
        Ids that both have with the same audio, of which one failed.
    n_common
        Tracks with rows of the same audio in both.
    is_same_content
        Whether the content digests agree: every value and every id.
    largest_difference
        Pooling to the largest absolute difference of common tracks' vectors; empty
        where they cannot be compared.
    """

    left: Store
    right: Store
    fields: tuple[tuple[str, Any, Any], ...]
    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    other_audio: tuple[str, ...]
    other_status: tuple[str, ...]
    n_common: int
    is_same_content: bool
    largest_difference: dict[str, float] = field(default_factory=dict)

    @property
    def is_same(self) -> bool:
        """Whether nothing differs but when, where and how they were made."""
        return not self.fields and self.is_same_content


def compare_stores(left: Store, right: Store) -> StoreDiff:
    """Compare two stores, vectors too where that means anything.

    Raises
    ------
    StoreCorruptError
        If rows of one are damaged.
    """
    audio = [dict(zip(s.track_ids, s.audio_sha256, strict=True)) for s in (left, right)]
    both = [name for name in left.track_ids if name in audio[1]]
    same = [name for name in both if audio[0][name] == audio[1][name]]
    common = [name for name in same if left.status[name] == right.status[name] == "ok"]
    return StoreDiff(
        left=left,
        right=right,
        fields=tuple(differing_fields(left.spec.to_json(), right.spec.to_json())),
        only_left=tuple(name for name in left.track_ids if name not in audio[1]),
        only_right=tuple(name for name in right.track_ids if name not in audio[0]),
        other_audio=tuple(name for name in both if audio[0][name] != audio[1][name]),
        other_status=tuple(
            n for n in same if (left.status[n] == "ok") != (right.status[n] == "ok")
        ),
        n_common=len(common),
        is_same_content=left.content_digest == right.content_digest,
        largest_difference=_largest_difference(left, right, common),
    )


def _largest_difference(left: Store, right: Store, names: Sequence[str]) -> dict[str, float]:
    layers = [layer for layer in left.layers if layer in right.layers]
    poolings = [pooling for pooling in left.poolings if pooling in right.poolings]
    if left.spec.segments != right.spec.segments or left.dim != right.dim or not layers:
        return {}
    found: dict[str, float] = {}
    for start, stop in _pieces(left, names):
        part = names[start:stop]
        for pooling in poolings:
            one, other = (
                store.read(part, layers=layers, pooling=pooling).values.astype(np.float64)
                for store in (left, right)
            )
            largest = float(np.abs(one - other).max())
            found[pooling] = max(found.get(pooling, 0.0), largest)
    return found


def _pieces(store: Store, names: Sequence[str]) -> list[tuple[int, int]]:
    """Cut a list of tracks so that each piece has about :data:`ROWS_AT_A_TIME` rows."""
    lengths = dict(zip(store.track_ids, np.diff(store.offset).tolist(), strict=True))
    pieces: list[tuple[int, int]] = []
    start = rows = 0
    for index, name in enumerate(names):
        rows += lengths[name]
        if rows >= ROWS_AT_A_TIME or index == len(names) - 1:
            pieces.append((start, index + 1))
            start, rows = index + 1, 0
    return pieces
