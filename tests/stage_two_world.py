"""Small worlds for stage two: labels and vectors with a known answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Dataset, Task, Track
from tune_cache.probes.features import Features
from tune_cache.probes.tasks import load_task

GENRE = Task(name="genre", label="label", kind="multiclass")
EMOTION = Task(name="emotion", label="va", kind="regression", targets=("arousal", "valence"))


def dataset_of(labels, *, task=GENRE, groups=None):
    """A dataset with ``labels`` by split, tracks named ``<split>-<number>``."""
    tracks = []
    for split, values in labels.items():
        for number, label in enumerate(values):
            track_id = f"{split}-{number:04d}"
            tracks.append(
                Track(
                    track_id=track_id,
                    path=Path(track_id),
                    audio_path=track_id,
                    split=split,
                    group=groups(split, number) if groups else track_id,
                    labels={} if label is None else {task.name: label},
                    manifest=f"world.{split}.jsonl",
                    line=number + 1,
                )
            )
    tracks.sort(key=lambda track: track.track_id)
    return Dataset(name="world", tracks=tuple(tracks), tasks=(task,), data_root=Path())


def random_tracks(rng, n_tracks, *, dim=8, lengths=(1, 5), dtype="f4"):
    """Independent normal vectors, a random number of segments a track."""
    counts = rng.integers(lengths[0], lengths[1] + 1, n_tracks)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    values = rng.standard_normal((offsets[-1], dim)).astype(dtype)
    return Ragged(values=values, offsets=offsets, n_samples=np.ones(len(values), dtype=int))


def features_of(by_layer):
    """Vectors in memory: layer → split → ragged."""
    return Features(layers=tuple(by_layer), of_layer=by_layer.__getitem__)


def classes_world(rng, *, n=(60, 30, 40), n_classes=3, dim=8, layers=(0,), signal=None, strength=3):
    """Balanced classes in noise; ``signal`` names the layers that carry them."""
    labels = {
        split: [f"c{number % n_classes}" for number in range(count)]
        for split, count in zip(("train", "val", "test"), n, strict=True)
    }
    data = load_task(dataset_of(labels), GENRE)
    centres = strength * np.eye(dim)[:n_classes]
    by_layer = {layer: {} for layer in layers}
    for split, part in data.splits.items():
        grid = random_tracks(rng, len(part), dim=len(layers) * dim)
        for position, layer in enumerate(layers):
            values = grid.values[:, position * dim : (position + 1) * dim].copy()
            if layer in (signal or ()):
                values += np.repeat(centres[part.truth], grid.lengths, axis=0).astype("f4")
            by_layer[layer][split] = Ragged(
                values=values, offsets=grid.offsets, n_samples=grid.n_samples
            )
    return data, features_of(by_layer)
