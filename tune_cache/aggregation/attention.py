"""Gated attention: a weighted mean of a track's segments, the weights learnt.

Conventions
-----------
z = Σ aₖ hₖ with a = softmax(wᵀ (tanh(V h) ⊙ sigmoid(U h))) over a track's segments:
Ilse, Tomczak and Welling, "Attention-based deep multiple instance learning", ICML 2018,
equation 9. Segments are scaled by training statistics. Weights are trained together
with a probe's head (:mod:`tune_cache.probes.joint`); nothing here trains. Positions are
seen by the weights only, so that z stays a mean of segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.aggregation.checkpoints import Trained
from tune_cache.aggregation.concat import statistics_of
from tune_cache.aggregation.networks import Positions, attend, attention_weights
from tune_cache.aggregation.tensors import by_track, find_device
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cache.cache.ragged import Ragged

__all__ = ["Attention"]


class Attention(TrackAggregation):
    """Weigh a track's segments by what they are and, if asked for, where they stand.

    Parameters
    ----------
    positions
        ``none``, ``learned`` or ``sinusoidal``; without any, order makes no difference.
    hidden
        Width of the two layers under a weight.
    max_segments
        Longer tracks are cut to their first ``max_segments``; None takes the longest
        training track where positions are learned, else all.
    seed, device
        Of the training.

    Attributes
    ----------
    mean_, scale_ : of shape (dim,)
        Of the training segments.
    trained_
        Weights, and the facts of their training.
    """

    standardised_output: ClassVar[bool] = False

    def __init__(
        self,
        positions: Positions = "none",
        hidden: int = 128,
        max_segments: int | None = None,
        seed: int = 1234,
        device: str = "auto",
    ) -> None:
        self.positions = positions
        self.hidden = hidden
        self.max_segments = max_segments
        self.seed = seed
        self.device = device

    @property
    def sees_length(self) -> bool:
        return self.positions != "none"

    def n_truncated(self, lengths: Array) -> int:
        return int(np.count_nonzero(np.asarray(lengths) > self._longest))

    def fit(self, X: Any, y: Any = None, *, trained: Trained | None = None) -> Self:
        """Learn the scale and take trained weights.

        Raises
        ------
        TaskError
            If there are none: attention is trained with a head.
        """
        tracks = self._segments(X, reset=True)
        self.check_options()
        if trained is None:
            raise TaskError(
                "attention is trained with a probe's head",
                hint="use run_probe, or `tune probe --agg attention`",
            )
        self.mean_, self.scale_ = statistics_of(tracks.values)
        self.trained_ = trained
        return self

    def check_options(self) -> None:
        """Refuse settings that mean nothing."""
        if self.positions not in ("learned", "sinusoidal", "none"):
            raise UsageError(
                f"positions are {self.positions!r}, expected learned, sinusoidal or none"
            )
        for name in ("hidden", "max_segments"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise UsageError(f"{name} is {value!r}, expected 1 or more")

    def weights(self, X: Any) -> list[Array]:
        """How much each segment of each track counts; 1 over a track."""
        return self._computed(self._segments(X, reset=False), lambda shares, _: shares)

    @property
    def _longest(self) -> int:
        known = self.trained_.weights.get("positions")
        limit = self.max_segments or np.iinfo(np.int64).max
        return int(limit if known is None else min(limit, len(known)))

    def _computed(self, tracks: Ragged, of: Any) -> list[Array]:
        import torch

        device = str(find_device(self.device))
        weights = {
            name: torch.from_numpy(value).to(device)
            for name, value in self.trained_.weights.items()
        }

        def compute(values: Tensor, present: Tensor) -> Tensor:
            found: Tensor = of(attention_weights(weights, self.positions, values, present), values)
            return found

        return by_track(tracks, self._longest, self.mean_, self.scale_, device, compute)

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        return np.stack(self._computed(tracks, attend)).astype(dtype)

    def _parts(self) -> Sequence[str]:
        return ["attention"]
