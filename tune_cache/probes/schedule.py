"""How long a model trains and at what rate, decided from what was watched; no torch.

Conventions
-----------
One value a model and epoch, lower where better; NaN is no value and never a best.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tune_cache.errors import UsageError

__all__ = ["CHECKPOINTS", "Plateau", "Schedule", "Stopping"]

Array = np.ndarray[Any, np.dtype[Any]]

CHECKPOINTS = ("best-val", "last")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long to train and at what rate; what does not change is data.

    Parameters
    ----------
    learning_rate
        Of Adam, at first.
    max_epochs
        Passes over the training rows, at most.
    patience
        Epochs without a new best before a model ends; None trains to the last.
    batch_size
        Rows a step.
    plateau_factor, plateau_patience
        After more than so many epochs without a new best the rate is multiplied
        by the factor; a factor of 1 keeps it.
    checkpoint
        ``best-val`` returns to the best epoch, ``last`` keeps the last.
    """

    learning_rate: float = 1e-3
    max_epochs: int = 50
    patience: int | None = 20
    batch_size: int = 64
    plateau_factor: float = 0.5
    plateau_patience: int = 5
    checkpoint: str = "best-val"

    def __post_init__(self) -> None:
        for value, name in ((self.max_epochs, "epochs"), (self.batch_size, "batch size")):
            if value < 1:
                raise UsageError(f"{name} is {value!r}, expected 1 or more")
        if not 0 < self.learning_rate < np.inf:
            raise UsageError(f"learning rate is {self.learning_rate!r}, expected a positive number")
        if self.checkpoint not in CHECKPOINTS:
            raise UsageError(
                f"checkpoint is {self.checkpoint!r}, expected " + " or ".join(CHECKPOINTS)
            )


class Plateau:
    """Lower a model's rate where what is watched no longer falls: ReduceLROnPlateau.

    A fall counts from a relative ``threshold`` on, as in torch, whose defaults
    (no cooldown, no least rate) are kept.
    """

    def __init__(
        self, rate: float, n_models: int, *, factor: float, patience: int, threshold: float = 1e-4
    ) -> None:
        self.rates = np.full(n_models, rate)
        self._factor, self._patience, self._threshold = factor, patience, threshold
        self._best = np.full(n_models, np.inf)
        self._n_bad = np.zeros(n_models, dtype=np.int64)

    def step(self, watched: Array) -> Array:
        """Take one epoch's values, one a model; return the next epoch's rates."""
        margin = np.where(np.isfinite(self._best), self._threshold * np.abs(self._best), 0.0)
        is_better = watched < self._best - margin
        self._best = np.where(is_better, watched, self._best)
        self._n_bad = np.where(is_better, 0, self._n_bad + 1)
        is_tired = self._n_bad > self._patience
        self.rates = np.where(is_tired, self.rates * self._factor, self.rates)
        self._n_bad = np.where(is_tired, 0, self._n_bad)
        return self.rates


class Stopping:
    """Remember each model's best epoch, the earliest of equal ones, and end it in time.

    Attributes
    ----------
    best, best_epoch : of shape (n_models,)
        Least value so far and its epoch, from 1; infinity and 0 before any.
    running : of shape (n_models,)
        Models that have not ended.

    Examples
    --------
    >>> stopping = Stopping(2, patience=1)
    >>> for value in ([3.0, 3.0], [2.0, 4.0], [1.0, 0.0]):
    ...     is_best = stopping.step(np.array(value))
    >>> stopping.best_epoch.tolist(), stopping.running.tolist()
    ([3, 1], [True, False])
    """

    def __init__(self, n_models: int, *, patience: int | None) -> None:
        self.best = np.full(n_models, np.inf)
        self.best_epoch = np.zeros(n_models, dtype=np.int64)
        self.running = np.ones(n_models, dtype=bool)
        self._patience, self._epoch = patience, 0

    def step(self, watched: Array) -> Array:
        """Take one epoch's values; return which running models are at their best."""
        self._epoch += 1
        is_best = self.running & (watched < self.best)
        self.best = np.where(is_best, watched, self.best)
        self.best_epoch = np.where(is_best, self._epoch, self.best_epoch)
        if self._patience is not None:
            self.running = self.running & (self._epoch - self.best_epoch < self._patience)
        return np.asarray(is_best)
