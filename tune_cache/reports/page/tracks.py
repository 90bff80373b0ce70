"""Where tracks lie among each other: two axes to look at, neighbours in all dimensions.

Conventions
-----------
A track is the mean of its segments at one layer; dimensions are centred and scaled
by training tracks. Neighbours are told by the cosine of these vectors, not by
distance on the map, which keeps only part of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["has_umap", "nearest", "principal_axes", "scaled", "umap_axes"]

Array = np.ndarray[Any, np.dtype[Any]]

N_NEIGHBOURS = 5
ROWS_AT_ONCE = 1024
SEED = 1234


def scaled(means: Array, is_train: Array) -> Array:
    """Centre and scale each dimension by the training tracks, or by all if there are none."""
    rows = np.asarray(means, dtype=np.float64)
    some = rows[is_train] if is_train.any() else rows
    centre, spread = some.mean(axis=0), some.std(axis=0)
    moved = rows - centre
    is_constant = spread <= 1e-9 * np.abs(centre)
    return np.asarray(moved / np.where(is_constant, np.inf, spread))


def principal_axes(rows: Array) -> tuple[Array, float]:
    """Project on the two directions of largest variance.

    The sign of an axis is such that its largest weight is positive: the same vectors
    give the same map everywhere.

    Returns
    -------
    of shape (n_tracks, 2), and the share of variance that the two keep
    """
    moved = rows - rows.mean(axis=0)
    n_tracks, dim = moved.shape
    total = float(np.square(moved).sum())
    if n_tracks < 2 or total == 0:
        return np.zeros((n_tracks, 2)), 0.0
    wide = dim > n_tracks  # the smaller of the two matrices of products has the same values
    values, vectors = np.linalg.eigh(moved @ moved.T if wide else moved.T @ moved)
    top = vectors[:, ::-1][:, :2]
    if wide:
        top = moved.T @ top
        lengths = np.linalg.norm(top, axis=0)
        is_noise = values[::-1][:2] <= 1e-12 * total  # fewer directions than two
        top = np.where(is_noise, 0.0, top / np.where(is_noise, 1.0, lengths))
    if top.shape[1] < 2:
        top = np.column_stack([top, np.zeros(len(top))])
    signs = np.sign(top[np.abs(top).argmax(axis=0), [0, 1]])
    kept = float(np.maximum(values[::-1][:2], 0).sum()) / total
    return moved @ (top * np.where(signs == 0, 1, signs)), min(kept, 1.0)


def has_umap() -> bool:
    """Whether umap-learn is installed."""
    return importlib.util.find_spec("umap") is not None


def umap_axes(rows: Array) -> Array:
    """Project by UMAP, with its defaults, cosine and a fixed seed; of shape (n_tracks, 2)."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed seed means one thread, and it says so
        import umap

        model = umap.UMAP(
            n_neighbors=min(15, len(rows) - 1), metric="cosine", random_state=SEED, n_jobs=1
        )
        return np.asarray(model.fit_transform(rows.astype(np.float32)), dtype=np.float64)


def nearest(rows: Array, n: int = N_NEIGHBOURS) -> list[tuple[tuple[int, float], ...]]:
    """Find the tracks of largest cosine, itself left out, the nearest first."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float32)
    n = max(min(n, len(rows) - 1), 0)
    found: list[tuple[tuple[int, float], ...]] = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        alike = unit[start : start + ROWS_AT_ONCE] @ unit.T
        here = np.arange(len(alike))
        alike[here, here + start] = -np.inf
        some = (
            np.argpartition(-alike, n - 1, axis=1)[:, :n] if n else np.empty((len(alike), 0), int)
        )
        for row, places in zip(alike, some.tolist(), strict=True):
            ranked = sorted(places, key=lambda place: (-row[place], place))
            found.append(tuple((place, float(row[place])) for place in ranked))
    return found


def fitting_weights(
    weights: Mapping[str, Sequence[float]], track_id: str, n_segments: int
) -> tuple[float, ...]:
    """Attention of a track, one weight a segment; none where their number is another."""
    found = tuple(map(float, weights.get(track_id, ())))
    return found if len(found) == n_segments and all(np.isfinite(found)) else ()
