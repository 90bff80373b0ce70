"""What must not straddle splits, and does: groups, audio files, near-duplicates.

Conventions
-----------
A *leak* is a held-out track with a counterpart in a split that is learnt from,
or chosen on: test in train or val, val in train. What is left out to stop one is
the counterpart, so that test stays the published one. Near-duplicates are told by
the cosine of their mean vectors, each dimension centred and scaled by training
tracks, at one layer: clips of one recording reach it, songs of one style do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.concat import scale_of
from tune_cache.aggregation.pooling import Pooling
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import printable

if TYPE_CHECKING:
    from tune_cache.probes.features import Features
    from tune_cache.probes.tasks import TaskData

__all__ = ["NEAR", "Leaks", "find_leaks"]

Array = np.ndarray[Any, np.dtype[Any]]

NEAR = 0.99
MOST_PAIRS = 200_000_000  # about 10 s; beyond it near-duplicates are not looked for unless asked
ROWS_AT_ONCE = 2048
ORDER = ("train", "val", "test")
WORDS = {
    "group": "share a group with",
    "audio": "have the audio file of",
    "near": "are near-duplicates of",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """What was found.

    Parameters
    ----------
    pairs
        (kind, split, its track, earlier split, a counterpart), one a held-out track
        and earlier split; kind is the plainest of ``group``, ``audio``, ``near``.
    to_drop
        Every counterpart → why it would be left out.
    notes
        What was not looked for, and why.
    """

    pairs: tuple[tuple[str, str, str, str, str], ...] = ()
    to_drop: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def warnings(self, n: Mapping[str, int]) -> Iterator[str]:
        """Count them in words, a kind and pair of splits a line; ``n`` counts tracks by split."""
        found: dict[tuple[str, str, str], list[tuple[str, str]]] = defaultdict(list)
        for kind, split, track, earlier, counterpart in self.pairs:
            found[kind, split, earlier].append((track, counterpart))
        for (kind, split, earlier), tracks in found.items():
            first, counterpart = tracks[0]
            yield (
                f"{len(tracks)} of {n[split]} {split} tracks {WORDS[kind]} {earlier} tracks"
                f" ({printable(repr(first))} and {printable(repr(counterpart))}): scores may be too"
                " good; --drop-leaks leaves the counterparts out"
            )
        yield from self.notes


def find_leaks(
    data: TaskData, audio: Mapping[str, str], features: Features | None, *, thorough: bool = False
) -> Leaks:
    """Look for tracks that the splits should have kept together.

    Parameters
    ----------
    audio
        Track id → sha256 of its file, empty where unknown.
    features
        Where near-duplicates are looked for, at the middle one of the layers; None
        leaves them out.
    thorough
        However many pairs there are.
    """
    pairs: dict[tuple[str, str], tuple[str, str, str, str, str]] = {}
    to_drop: dict[str, str] = {}
    notes = []
    splits = [name for name in ORDER if name in data.splits]
    sizes = [len(data.splits[name]) for name in splits]
    n_pairs = sum(left * right for left, right in combinations(sizes, 2))
    directions: dict[str, Array] = {}
    if features is not None and (thorough or n_pairs <= MOST_PAIRS):
        directions = _directions(features, splits)
    elif features is not None:
        notes.append(
            f"near-duplicates were not looked for among {n_pairs:,} pairs of tracks;"
            " --strict and --drop-leaks do"
        )
    for earlier, split in combinations(splits, 2):
        before, after = data.splits[earlier], data.splits[split]
        found = {
            "group": _shared(before.groups, after.groups),
            "audio": _shared(_of(audio, before.track_ids), _of(audio, after.track_ids)),
        }
        if directions:
            found["near"] = _near(directions[earlier], directions[split])
        for kind, (counterpart_of, counterparts) in found.items():
            for right, left in counterpart_of.items():
                track, other = after.track_ids[right], before.track_ids[left]
                pairs.setdefault((track, earlier), (kind, split, track, earlier, other))
            for left in counterparts:
                to_drop.setdefault(before.track_ids[left], f"leak: {kind}")
    return Leaks(pairs=tuple(pairs.values()), to_drop=to_drop, notes=tuple(notes))


def _of(audio: Mapping[str, str], track_ids: Sequence[str]) -> list[str]:
    return [audio.get(name, "") for name in track_ids]


Found = tuple[dict[int, int], list[int]]  # place → its first counterpart; all counterparts


def _shared(before: Sequence[str], after: Sequence[str]) -> Found:
    """Places of equal names that are not empty."""
    first: dict[str, int] = {}
    for place, name in enumerate(before):
        first.setdefault(name, place)
    first.pop("", None)
    here = set(after)
    counterpart_of = {place: first[name] for place, name in enumerate(after) if name in first}
    return counterpart_of, [place for place, name in enumerate(before) if name and name in here]


def _directions(features: Features, splits: Sequence[str]) -> dict[str, Array]:
    """Mean vectors of every track, centred and scaled by train, of length one or zero."""
    tracks = features.of_layer(features.layers[len(features.layers) // 2])
    parts = {name: part for name in splits if isinstance(part := tracks[name], Ragged)}
    means = {name: Pooling("mean").fit_transform(part) for name, part in parts.items()}
    centre = means["train"].mean(axis=0, dtype=np.float64)
    scale = scale_of(means["train"], centre)
    for name, rows in means.items():
        scaled = ((rows - centre) / scale).astype(np.float32)
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        means[name] = np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0)
    return means


def _near(before: Array, after: Array) -> Found:
    """Places whose directions are alike, in blocks of rows."""
    counterpart_of: dict[int, int] = {}
    is_counterpart = np.zeros(len(before), dtype=bool)
    for start in range(0, len(after), ROWS_AT_ONCE):
        alike = after[start : start + ROWS_AT_ONCE] @ before.T >= NEAR
        is_counterpart |= alike.any(axis=0)
        for row in np.flatnonzero(alike.any(axis=1)).tolist():
            counterpart_of[start + row] = int(alike[row].argmax())
    return counterpart_of, np.flatnonzero(is_counterpart).tolist()
