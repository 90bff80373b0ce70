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
from dataclasses import dataclass
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
        (kind, split, its track, earlier split, counterpart); kind is ``group``,
        ``audio`` or ``near``, and a pair is told under the first that it is of.
    notes
        What was not looked for, and why.
    """

    pairs: tuple[tuple[str, str, str, str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def to_drop(self) -> dict[str, str]:
        """Counterpart → why it is left out."""
        return {pair[4]: f"leak: {pair[0]}" for pair in reversed(self.pairs)}

    def warnings(self, n: Mapping[str, int]) -> Iterator[str]:
        """Count them in words, a kind and pair of splits a line; ``n`` counts tracks by split."""
        found: dict[tuple[str, str, str], dict[str, str]] = defaultdict(dict)
        for kind, split, track, earlier, counterpart in self.pairs:
            found[kind, split, earlier].setdefault(track, counterpart)
        for (kind, split, earlier), tracks in found.items():
            first, counterpart = next(iter(tracks.items()))
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
    notes = []
    splits = [name for name in ORDER if name in data.splits]
    for earlier, split in combinations(splits, 2):
        before, after = data.splits[earlier], data.splits[split]
        for kind, of_before, of_after in (
            ("group", before.groups, after.groups),
            ("audio", _of(audio, before.track_ids), _of(audio, after.track_ids)),
        ):
            for left, right in _shared(of_before, of_after):
                found = (after.track_ids[right], before.track_ids[left])
                pairs.setdefault(found, (kind, split, found[0], earlier, found[1]))
    if features is not None:
        sizes = [len(data.splits[name]) for name in splits]
        n_pairs = sum(a * b for a, b in combinations(sizes, 2))
        if n_pairs > MOST_PAIRS and not thorough:
            notes.append(
                f"near-duplicates were not looked for among {n_pairs:,} pairs of tracks;"
                " --strict and --drop-leaks do"
            )
        else:
            for earlier, split, left, right in _near(features, splits):
                found = (data.splits[split].track_ids[right], data.splits[earlier].track_ids[left])
                pairs.setdefault(found, ("near", split, found[0], earlier, found[1]))
    return Leaks(pairs=tuple(pairs.values()), notes=tuple(notes))


def _of(audio: Mapping[str, str], track_ids: Sequence[str]) -> list[str]:
    return [audio.get(name, "") for name in track_ids]


def _shared(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of equal names that are not empty."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(before):
        if name:
            places[name].append(place)
    for right, name in enumerate(after):
        for left in places.get(name, ()):
            yield left, right


def _near(features: Features, splits: Sequence[str]) -> Iterator[tuple[str, str, int, int]]:
    """Pairs of splits and places whose mean vectors point the same way."""
    tracks = features.of_layer(features.layers[len(features.layers) // 2])
    means: dict[str, Array] = {}
    for name in splits:
        part = tracks[name]
        if isinstance(part, Ragged):
            means[name] = Pooling("mean").fit_transform(part)
    centre = means["train"].mean(axis=0, dtype=np.float64)
    scale = scale_of(means["train"], centre)
    for name, rows in means.items():
        scaled = ((rows - centre) / scale).astype(np.float32)
        lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
        means[name] = np.divide(scaled, lengths, out=np.zeros_like(scaled), where=lengths > 0)
    for earlier, split in combinations(splits, 2):
        for start in range(0, len(means[split]), ROWS_AT_ONCE):
            some = means[split][start : start + ROWS_AT_ONCE]
            rows, columns = np.nonzero(some @ means[earlier].T >= NEAR)
            for right, left in zip((rows + start).tolist(), columns.tolist(), strict=True):
                yield earlier, split, left, right
