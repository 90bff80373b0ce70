"""What a network's outputs mean: targets, loss and predictions by the kind of task.

Conventions
-----------
Outputs end in (n_rows, n_outputs), leading axes are models; a loss is a mean over
rows (and outputs) and keeps the leading axes. Statistics are of the training
labels given. Predictions have the form that probes give theirs in: numbers of
classes, scores of tags, targets in their own units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.concat import scale_of

if TYPE_CHECKING:
    import torch

__all__ = ["Objective"]

Array = np.ndarray[Any, np.dtype[Any]]

UNKNOWN = -1  # a class that training has no row of


class Objective:
    """Cross-entropy of classes, binary cross-entropy of tags, squared error of z-scored targets.

    Parameters
    ----------
    y
        Labels of the training rows.
    constants
        Mean and standard deviation of each target, in place of the training rows'.

    Attributes
    ----------
    n_outputs
        Of the network.

    Examples
    --------
    >>> objective = Objective("multiclass", np.array([4, 1, 4]))
    >>> objective.encode(np.array([1, 4, 2])).tolist()
    [0, 1, -1]
    >>> objective.decode(np.array([[0.1, 0.9]])).tolist()
    [4]
    """

    def __init__(
        self, kind: str, y: Array, *, constants: tuple[tuple[float, float], ...] | None = None
    ) -> None:
        self.kind = kind
        self._classes = np.unique(y) if kind == "multiclass" else np.empty(0)
        self.n_outputs = len(self._classes) if kind == "multiclass" else y.shape[1]
        self._mean, self._scale = np.zeros(self.n_outputs), np.ones(self.n_outputs)
        if kind == "regression":
            self._mean = y.mean(axis=0)
            self._scale = scale_of(y, self._mean)
            if constants is not None:
                self._mean, self._scale = np.array(constants).T

    def encode(self, y: Array) -> Array:
        """Targets of the network: int64 (n_rows,), -1 for unknown classes, or float32."""
        if self.kind == "multiclass":
            place = np.searchsorted(self._classes, y).clip(max=self.n_outputs - 1)
            return np.where(self._classes[place] == y, place, UNKNOWN).astype(np.int64)
        return ((y - self._mean) / self._scale).astype(np.float32)

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss, one a model; targets may have the models' axes or none."""
        import torch

        F = torch.nn.functional
        if self.kind == "multiclass":
            targets = targets.expand(outputs.shape[:-1])
            logs = F.log_softmax(outputs, dim=-1)
            picked = -logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
            known = targets != UNKNOWN
            return (picked * known).sum(dim=-1) / known.sum(dim=-1)
        targets = targets.expand(outputs.shape)
        if self.kind == "multilabel":
            each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        else:
            each = (outputs - targets).square()
        return each.mean(dim=(-2, -1))

    def decode(self, outputs: Array) -> Array:
        """Predictions from outputs, or from outputs averaged over a track's slices."""
        outputs = np.asarray(outputs, dtype=np.float64)
        if self.kind == "multiclass":
            return np.asarray(self._classes[outputs.argmax(axis=-1)])
        return np.asarray(outputs * self._scale + self._mean)
