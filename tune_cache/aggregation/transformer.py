"""A transformer over a track's segments, as in the TUNE study.

Conventions
-----------
Four pre-norm layers of eight heads, feed-forward 1024, GELU, dropout 0.1; segments are
scaled by training statistics; a [CLS] output, or the mean over a track's outputs, is
the track's vector. It is pre-trained by masked modelling on training tracks and frozen;
under ``finetune`` it is trained on together with a probe's head, which is what gives
[CLS] a meaning (:mod:`tune_cache.probes.joint`). A width that eight does not divide has
fewer heads: the most that divide it.

The study ran over frames; here a sequence is the segments of a track.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tune_cache.aggregation.base import Array, TrackAggregation
from tune_cache.aggregation.checkpoints import Trained, code_of
from tune_cache.aggregation.concat import statistics_of
from tune_cache.aggregation.networks import Positions, Shape, encode, heads_for, read_out
from tune_cache.aggregation.pretraining import Schedule, pretrain
from tune_cache.aggregation.tensors import by_track, find_device
from tune_cache.errors import TaskError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cache.cache.ragged import Ragged

__all__ = ["Transformer"]

CODE = ("aggregation.networks", "aggregation.pretraining", "aggregation.tensors")


class Transformer(TrackAggregation):
    """Encode a track's segments together and read one output.

    Frozen, the read-out at [CLS] is a random function of what was encoded: masked
    modelling never asks anything of it.

    Parameters
    ----------
    pretrain_epochs
        Of masked modelling; 0 leaves random weights. More than one end early by
        held-out training tracks.
    finetune
        To be trained with a probe's head; ``fit`` alone then refuses.
    readout
        ``cls`` or ``mean``.
    positions
        ``learned``, ``sinusoidal`` or ``none``.
    n_heads
        At most; a divisor of the width is taken.
    masked
        Share of the segments that is blotted out.
    batch_size
        Tracks a step. The study has 4; 16 is a third of the time.
    max_segments
        Longer tracks are cut to their first ``max_segments``; None takes the
        longest training track.

    Attributes
    ----------
    mean_, scale_ : of shape (dim,)
        Of the training segments.
    shape_
        Sizes in use.
    trained_
        Weights, and the facts of their training.
    """

    standardised_output: ClassVar[bool] = False

    def __init__(
        self,
        pretrain_epochs: int = 1,
        finetune: bool = False,
        readout: str = "cls",
        positions: Positions = "learned",
        n_layers: int = 4,
        n_heads: int = 8,
        hidden: int = 1024,
        dropout: float = 0.1,
        masked: float = 0.15,
        batch_size: int = 16,
        learning_rate: float = 3e-4,
        patience: int = 10,
        max_segments: int | None = None,
        seed: int = 1234,
        device: str = "auto",
    ) -> None:
        self.pretrain_epochs = pretrain_epochs
        self.finetune = finetune
        self.readout = readout
        self.positions = positions
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.hidden = hidden
        self.dropout = dropout
        self.masked = masked
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.max_segments = max_segments
        self.seed = seed
        self.device = device

    @property
    def sees_length(self) -> bool:
        return True

    def n_truncated(self, lengths: Array) -> int:
        return int(np.count_nonzero(np.asarray(lengths) > self.shape_.n_positions))

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        trained: Trained | None = None,
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Learn the scale, and pre-train unless trained weights are given.

        Parameters
        ----------
        trained
            Of :meth:`pretrained`, or trained on.
        groups
            One a track, kept together where tracks are held out.
        """
        if self.finetune and trained is None:
            raise TaskError(
                "a transformer to be fine-tuned is trained with a probe's head",
                hint="use run_probe or `tune probe --finetune`, or finetune=False",
            )
        tracks = self._segments(X, reset=True)
        self.check_options()
        if trained is not None and len(trained.weights["cls"]) != tracks.values.shape[1]:
            raise TaskError(
                f"weights are for {len(trained.weights['cls'])} dimensions, vectors have"
                f" {tracks.values.shape[1]}",
                hint="pre-train on vectors of the same encoder",
            )
        self.mean_, self.scale_ = statistics_of(tracks.values)
        self.trained_ = self.pretrained(tracks, groups) if trained is None else trained
        self.take(self.trained_.weights)
        return self

    def pretrained(
        self,
        tracks: Ragged,
        groups: Sequence[str] | None = None,
        *,
        is_scaled: bool = False,
    ) -> Trained:
        """Pre-train on some tracks, scaled by their own statistics; nothing else changes."""
        self.check_options()
        mean, scale = statistics_of(tracks.values)
        if is_scaled:
            mean, scale = np.zeros_like(mean), np.ones_like(scale)
        return pretrain(
            tracks,
            mean,
            scale,
            shape=self.shape_for(tracks),
            schedule=Schedule(
                epochs=self.pretrain_epochs,
                masked=self.masked,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                patience=self.patience,
            ),
            seed=self.seed,
            device=str(find_device(self.device)),
            groups=groups,
        )

    def shape_for(self, tracks: Ragged) -> Shape:
        """Sizes of a transformer for some tracks."""
        dim, longest = tracks.values.shape[1], int(tracks.lengths.max())
        return Shape(
            dim=dim,
            n_layers=self.n_layers,
            n_heads=heads_for(dim, self.n_heads),
            hidden=self.hidden,
            n_positions=min(longest, self.max_segments or longest),
            positions=self.positions,
            dropout=self.dropout,
        )

    def record(self) -> dict[str, Any]:
        """What of the settings shapes pre-trained weights, and the code that does."""
        settings = self.get_params()
        for name in ("finetune", "readout", "device"):
            del settings[name]
        device = find_device(self.device).type
        return {"settings": settings, "device": device, "code": code_of(*CODE)}

    def check_options(self) -> None:
        """Refuse settings that mean nothing."""
        if self.readout not in ("cls", "mean"):
            raise UsageError(f"readout is {self.readout!r}, expected cls or mean")
        if self.positions not in ("learned", "sinusoidal", "none"):
            raise UsageError(
                f"positions are {self.positions!r}, expected learned, sinusoidal or none"
            )
        least = {"pretrain_epochs": 0, "n_layers": 1, "n_heads": 1, "hidden": 1, "batch_size": 1}
        least |= {"max_segments": 1, "patience": 1}
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < smallest):
                raise UsageError(f"{name} is {value!r}, expected {smallest} or more")
        if not 0 < self.masked < 1 or not 0 <= self.dropout < 1:
            raise UsageError(
                f"masked is {self.masked!r} and dropout {self.dropout!r}, expected shares"
            )

    def take(self, weights: Mapping[str, Array]) -> None:
        """Take the sizes that weights have."""
        n_positions = len(weights["positions"]) if "positions" in weights else None
        dim = weights["cls"].shape[0]
        self.shape_ = Shape(
            dim=dim,
            n_layers=self.n_layers,
            n_heads=heads_for(dim, self.n_heads),
            hidden=self.hidden,
            n_positions=n_positions or self.max_segments or np.iinfo(np.int64).max,
            positions=self.positions,
            dropout=self.dropout,
        )

    def _aggregate(self, tracks: Ragged, dtype: np.dtype[Any]) -> Array:
        import torch

        device = str(find_device(self.device))
        weights = {
            name: torch.from_numpy(value).to(device)
            for name, value in self.trained_.weights.items()
        }

        def compute(values: Tensor, present: Tensor) -> Tensor:
            encoded = encode(weights, self.shape_, values, present)
            return read_out(encoded, present, self.readout)

        rows = by_track(tracks, self.shape_.n_positions, self.mean_, self.scale_, device, compute)
        return np.stack(rows).astype(dtype)

    def _parts(self) -> Sequence[str]:
        return [self.readout]

    def flags(self, lengths: Array) -> Sequence[str]:
        n_one = int(np.count_nonzero(lengths == 1))
        if n_one == len(lengths):
            return ["unmasked: no track has two segments, so the transformer maps one vector"]
        return [f"unmasked: {n_one} tracks have one segment"] if n_one else []
