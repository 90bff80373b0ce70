"""Worlds for what is trained: small networks, and a signal that is in the order alone."""

from __future__ import annotations

import numpy as np
from stage_two_world import GENRE, dataset_of, features_of

from tune_cache.cache.ragged import Ragged
from tune_cache.probes.tasks import load_task

TINY = {"n_layers": 1, "hidden": 16, "n_heads": 2, "learning_rate": 3e-3}


def order_world(rng, n=(60, 20, 60), dim=4, strength=3.0):
    """Every track has one high segment and one low; the label is which comes first.

    High and low stand at the two ends, noise between: the segments of the two
    classes are the same as a set.
    """
    splits = dict(zip(("train", "val", "test"), n, strict=True))
    labels = {split: ["ab"[place % 2] for place in range(k)] for split, k in splits.items()}
    data = load_task(dataset_of(labels), GENRE)
    layer = {}
    for split, part in data.splits.items():
        tracks = []
        for label in part.truth:
            track = rng.standard_normal((rng.integers(2, 5), dim)) / 2
            track[[0, -1], 0] += strength * np.array([1, -1]) * (1 if label else -1)
            tracks.append(track.astype("f4"))
        layer[split] = Ragged.from_tracks(tracks)
    return data, features_of({0: layer})
