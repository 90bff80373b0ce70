"""Masked modelling: a transformer learns to guess segments that were blotted out.

Conventions
-----------
Of every track a share of the segments, at least one and never all, is set to zero,
which is the mean of scaled segments; the loss is the squared error at those. [CLS] is
never supervised. A track of one segment has nothing to be guessed from: it is left
out and counted. Several epochs stop early by the loss on training tracks that are
held out, by group; validation and test are never seen.

Devlin et al., "BERT", NAACL 2019, for the idea; without its random replacements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.checkpoints import Trained
from tune_cache.aggregation.networks import Draw, Shape, encode, encoder_weights, reconstruct
from tune_cache.aggregation.tensors import drawn_from, padded, torch_settings

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tune_cache.cache.ragged import Ragged

__all__ = ["Schedule", "held_out_groups", "pretrain"]

Array = np.ndarray[Any, np.dtype[Any]]

FEWEST_GROUPS = 10  # fewer are not divided: one track says nothing
LARGEST_STEP = 1.0  # norm of a gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long and how fast to train.

    Parameters
    ----------
    masked
        Share of a track's segments.
    patience
        Epochs without a better loss on held-out tracks before the end.
    """

    epochs: int
    masked: float
    batch_size: int
    learning_rate: float
    patience: int
    held_out: float = 0.1


def held_out_groups(groups: Sequence[str], share: float, seed: int) -> Array:
    """Which tracks to hold out: whole groups, about a share of them; none of few groups.

    Examples
    --------
    >>> held_out_groups([f"g{n // 2}" for n in range(40)], 0.1, seed=1).sum()
    np.int64(4)
    >>> held_out_groups(["a", "b"], 0.1, seed=1).tolist()
    [False, False]
    """
    names = sorted(set(groups))
    if len(names) < FEWEST_GROUPS:
        return np.zeros(len(groups), dtype=bool)
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    chosen = {names[place] for place in order[: max(1, round(share * len(names)))].tolist()}
    return np.array([group in chosen for group in groups])


def pretrain(
    tracks: Ragged,
    mean: Array,
    scale: Array,
    *,
    shape: Shape,
    schedule: Schedule,
    seed: int,
    device: str,
    groups: Sequence[str] | None = None,
) -> Trained:
    """Train an encoder from its start.

    Parameters
    ----------
    tracks
        Of training, segments as stored.
    mean, scale : of shape (dim,)
        To scale segments by.
    groups
        One a track; each track is its own if None.
    """
    import torch

    usable = np.flatnonzero(tracks.lengths > 1)
    names = [str(track) for track in range(len(tracks))] if groups is None else list(groups)
    away = np.zeros(len(usable), dtype=bool)
    if schedule.epochs > 1:
        away = held_out_groups([names[track] for track in usable], schedule.held_out, seed)
    train, held = usable[~away], usable[away]
    chance = drawn_from(seed)
    weights = {
        name: value.to(device).requires_grad_()
        for name, value in encoder_weights(shape, chance).items()
    }
    with torch_settings(torch.device(device), threads=1):
        run = _Run(tracks, mean, scale, shape, schedule, device, drawn_from(seed, device), weights)
        losses: list[float] = []
        checks: list[float] = []
        best = _copies(weights)
        n_epochs = schedule.epochs if len(train) else 0
        optimizer = torch.optim.AdamW(weights.values(), lr=schedule.learning_rate, fused=True)
        for _ in range(n_epochs):
            order = train[torch.randperm(len(train), generator=chance).numpy()]
            losses.append(run.epoch(order, optimizer, chance))
            if len(held):
                checks.append(run.check(held, seed))
            if not checks or checks[-1] == min(checks):
                best = _copies(weights)
            if checks and len(checks) - 1 - int(np.argmin(checks)) >= schedule.patience:
                break
    n_steps = len(losses) * math.ceil(len(train) / schedule.batch_size)
    return Trained(
        weights={name: value.cpu().numpy() for name, value in best.items()},
        facts={
            "steps": n_steps,
            "epochs": len(losses),
            "epochs_asked": schedule.epochs,
            "best_epoch": (int(np.argmin(checks)) + 1) if checks else len(losses),
            "tracks": len(train),
            "held_out": len(held),
            "one_segment": len(tracks) - len(usable),
            "heads": shape.n_heads,
            "loss": losses[-1] if losses else None,
            "loss_held_out": min(checks) if checks else None,
        },
    )


def _copies(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def masks(present: Tensor, share: float, chance: Generator) -> Tensor:
    """Draw the segments of each track to blot out; a track of one segment keeps it."""
    import torch

    n = present.sum(dim=1)
    wanted = (share * n).round().clamp(min=1).minimum(n - 1)
    drawn = torch.rand(present.shape, generator=chance).to(present.device)
    rank = drawn.masked_fill(~present, 2.0).argsort(dim=1).argsort(dim=1)
    return rank < wanted[:, None]


@dataclass(slots=True)
class _Run:
    """One training with all that it needs at every step."""

    tracks: Ragged
    mean: Array
    scale: Array
    shape: Shape
    schedule: Schedule
    device: str
    noise: Generator
    weights: dict[str, Tensor]

    def epoch(self, order: Array, optimizer: Any, chance: Generator) -> float:
        """Pass over tracks once; the mean loss of its steps."""
        from torch.nn.utils import clip_grad_norm_

        losses = []
        for start in range(0, len(order), self.schedule.batch_size):
            some = order[start : start + self.schedule.batch_size]
            loss = self._loss(some, chance, Draw(self.noise))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            clip_grad_norm_(list(self.weights.values()), LARGEST_STEP)
            optimizer.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def check(self, held: Array, seed: int) -> float:
        """Loss on held-out tracks, blotted out alike at every call and without dropout."""
        import torch

        chance = drawn_from(seed)
        with torch.no_grad():
            parts = [
                (float(self._loss(some, chance, None)), len(some))
                for some in np.array_split(held, math.ceil(len(held) / 64))
            ]
        return sum(loss * n for loss, n in parts) / len(held)

    def _loss(self, some: Array, chance: Generator, draw: Draw | None) -> Tensor:
        values, present = padded(
            self.tracks, some, self.shape.n_positions, self.mean, self.scale, self.device
        )
        blotted = masks(present, self.schedule.masked, chance)
        shown = values.masked_fill(blotted[..., None], 0.0)
        encoded = encode(self.weights, self.shape, shown, present, draw)
        guessed = reconstruct(self.weights, encoded[:, 1:][blotted])
        return (guessed - values[blotted]).square().mean()
