"""Few coordinates for linear models: the span of the training rows.

Conventions
-----------
With more features than tracks, an L2-penalised linear model lives in the span
of the training rows (the representer theorem: Schölkopf, Herbrich and Smola,
COLT 2001), so it is fitted on at most n_tracks coordinates found from the Gram
matrix: exact, and cheap for concat. Inner products are those of scaled rows.
"""

from __future__ import annotations

import numpy as np

from tune_cache.aggregation.concat import scale_of
from tune_cache.probes.models.base import Array

__all__ = ["Coordinates"]

FEATURES_AT_ONCE = 4096


class Coordinates:
    """Scaled, centred, rotated to orthogonal columns; rows of ``train`` are the tracks.

    Attributes
    ----------
    train : of shape (n_tracks, n_coordinates)
        At most as many coordinates as tracks or features.
    power
        Squared lengths of its columns.
    """

    def __init__(self, X: Array, *, standardise: bool) -> None:
        n, p = X.shape
        self.mean = X.mean(axis=0, dtype=np.float64)
        self.scale = scale_of(X, self.mean) if standardise else np.ones(p)
        self.rows: Array | None = None
        if n < p:
            self.rows = X
            power, vectors = np.linalg.eigh(self._products(X, X))
            rounding = n * np.finfo(np.float64).eps * power[-1]
            keep = np.flatnonzero(power > rounding) if power[-1] > 0 else [n - 1]
            self.power, vectors = np.maximum(power[keep], 0.0), vectors[:, keep]
            lengths = np.sqrt(self.power)
            self.rotation = vectors / np.where(lengths > 0, lengths, 1.0)
            self.train = vectors * lengths
        else:
            train = (X - self.mean) / self.scale
            power, self.rotation = np.linalg.eigh(train.T @ train)
            self.power = np.maximum(power, 0.0)
            self.train = train @ self.rotation

    def __call__(self, X: Array) -> Array:
        if self.rows is not None:
            located = self._products(X, self.rows)
        else:
            located = (X - self.mean) / self.scale
        return np.asarray(located @ self.rotation)

    def _products(self, left: Array, right: Array) -> Array:
        """Inner products of scaled rows in float64, in blocks of features."""
        out = np.zeros((len(left), len(right)))
        for start in range(0, left.shape[1], FEATURES_AT_ONCE):
            some = slice(start, start + FEATURES_AT_ONCE)
            a, b = ((side[:, some] - self.mean[some]) / self.scale[some] for side in (left, right))
            out += a @ b.T
        return out
