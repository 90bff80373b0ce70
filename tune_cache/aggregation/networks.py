"""The networks that aggregate by learnt weights, as functions of a dictionary of tensors.

Conventions
-----------
Segments are (tracks, segments, dim) with ``present`` (tracks, segments) false where a
shorter track is padded; weights are float32. Nothing is drawn but from the ``Draw``
given, which is also what tells training from use: without one there is no dropout.

The encoder is pre-norm, with GELU: Xiong et al., "On layer normalization in the
transformer architecture", ICML 2020. Attention pooling is Ilse, Tomczak and Welling,
"Attention-based deep multiple instance learning", ICML 2018, equation 9.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Generator, Tensor

__all__ = [
    "Draw",
    "Positions",
    "Shape",
    "attend",
    "attention_weights",
    "encode",
    "encoder_weights",
    "gate_weights",
    "heads_for",
    "mix",
    "read_out",
    "reconstruct",
]

Positions = Literal["learned", "sinusoidal", "none"]
Weights = Mapping[str, "Tensor"]

POSITION_SPREAD = 0.5  # of learnt positions at the start; segments have spread 1


def heads_for(dim: int, asked: int) -> int:
    """Attention heads for a width: the most, up to those asked for, that divide it.

    Examples
    --------
    >>> heads_for(1024, 8), heads_for(96, 8), heads_for(90, 8), heads_for(7, 4)
    (8, 8, 6, 1)
    """
    return max(n for n in range(1, max(1, min(asked, dim)) + 1) if dim % n == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a transformer.

    Parameters
    ----------
    n_heads
        As used, a divisor of ``dim``.
    hidden
        Width of the feed-forward parts.
    n_positions
        Segments that learnt positions know.
    """

    dim: int
    n_layers: int
    n_heads: int
    hidden: int
    n_positions: int
    positions: Positions
    dropout: float


@dataclass(frozen=True, slots=True)
class Draw:
    """Where chance comes from while training."""

    generator: Generator

    def dropout(self, values: Tensor, share: float) -> Tensor:
        """Set a share of values to zero and raise the others to keep the mean."""
        import torch

        if share == 0:
            return values
        drawn = torch.rand(values.shape, generator=self.generator, device=values.device)
        return values * (drawn >= share) / (1 - share)


def _matrix(n_out: int, n_in: int, generator: Generator) -> Tensor:
    """Normal weights that keep the spread of what comes in."""
    import torch

    return torch.randn(n_out, n_in, generator=generator) / math.sqrt(n_in)


def encoder_weights(shape: Shape, generator: Generator) -> dict[str, Tensor]:
    """Weights to start from, with those of the reconstruction."""
    import torch

    dim, hidden = shape.dim, shape.hidden
    weights = {"cls": torch.randn(dim, generator=generator) * POSITION_SPREAD}
    if shape.positions == "learned":
        drawn = torch.randn(shape.n_positions, dim, generator=generator)
        weights["positions"] = drawn * POSITION_SPREAD
    sizes = {"qkv": (3 * dim, dim), "out": (dim, dim), "up": (hidden, dim), "down": (dim, hidden)}
    for layer in range(shape.n_layers):
        for name, (n_out, n_in) in sizes.items():
            weights[f"{layer}.{name}.weight"] = _matrix(n_out, n_in, generator)
            weights[f"{layer}.{name}.bias"] = torch.zeros(n_out)
        for name in ("norm1", "norm2"):
            weights |= _norm(f"{layer}.{name}", dim)
    weights |= _norm("norm", dim)
    weights["restore.weight"] = _matrix(dim, dim, generator)
    weights["restore.bias"] = torch.zeros(dim)
    return weights


def _norm(name: str, dim: int) -> dict[str, Tensor]:
    import torch

    return {f"{name}.weight": torch.ones(dim), f"{name}.bias": torch.zeros(dim)}


def _linear(weights: Weights, name: str, values: Tensor) -> Tensor:
    from torch.nn.functional import linear

    return linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _normed(weights: Weights, name: str, values: Tensor) -> Tensor:
    from torch.nn.functional import layer_norm

    return layer_norm(values, values.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def sinusoids(n: int, dim: int) -> Tensor:
    """Positions as sines and cosines, (n, dim): Vaswani et al., NeurIPS 2017, section 3.5."""
    import torch

    place = torch.arange(n, dtype=torch.float32)[:, None]
    rate = torch.exp(-math.log(10_000) * torch.arange(0, dim, 2) / dim)
    both = torch.stack([torch.sin(place * rate), torch.cos(place * rate)], dim=-1)
    return both.reshape(n, -1)[:, :dim]


def _placed(weights: Weights, positions: Positions, segments: Tensor) -> Tensor:
    """Add positions to segments."""
    n, dim = segments.shape[1:]
    if positions == "learned":
        return segments + weights["positions"][:n]
    if positions == "sinusoidal":
        return segments + sinusoids(n, dim).to(segments.device)
    return segments


def encode(
    weights: Weights, shape: Shape, segments: Tensor, present: Tensor, draw: Draw | None = None
) -> Tensor:
    """Encode tracks.

    Returns
    -------
    of shape (tracks, 1 + segments, dim)
        [CLS], then the segments; what stands at padded places means nothing.
    """
    import torch
    from torch.nn.functional import gelu

    n_tracks, n_segments, dim = segments.shape
    heads, width = shape.n_heads, shape.dim // shape.n_heads

    def dropped(values: Tensor) -> Tensor:
        return values if draw is None else draw.dropout(values, shape.dropout)

    first = weights["cls"].expand(n_tracks, 1, dim)
    values = torch.cat([first, _placed(weights, shape.positions, segments)], dim=1)
    here = torch.cat([present.new_ones(n_tracks, 1), present], dim=1)
    away = torch.zeros(here.shape, device=segments.device).masked_fill(~here, -math.inf)
    for layer in range(shape.n_layers):
        normed = _normed(weights, f"{layer}.norm1", values)
        split = _linear(weights, f"{layer}.qkv", normed)
        query, key, value = split.view(n_tracks, 1 + n_segments, 3, heads, width).permute(
            2, 0, 3, 1, 4
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(width) + away[:, None, None]
        seen = (dropped(scores.softmax(dim=-1)) @ value).transpose(1, 2).reshape(values.shape)
        values = values + dropped(_linear(weights, f"{layer}.out", seen))
        normed = _normed(weights, f"{layer}.norm2", values)
        inner = dropped(gelu(_linear(weights, f"{layer}.up", normed)))
        values = values + dropped(_linear(weights, f"{layer}.down", inner))
    return _normed(weights, "norm", values)


def reconstruct(weights: Weights, encoded: Tensor) -> Tensor:
    """Guess the segments that stood where these outputs stand."""
    return _linear(weights, "restore", encoded)


def read_out(encoded: Tensor, present: Tensor, how: str) -> Tensor:
    """One vector a track: what stands at [CLS], or the mean over its segments."""
    if how == "cls":
        return encoded[:, 0]
    weight = present.to(encoded.dtype)[..., None]
    return (encoded[:, 1:] * weight).sum(dim=1) / weight.sum(dim=1)


def gate_weights(
    dim: int, hidden: int, positions: Positions, n_positions: int, generator: Generator
) -> dict[str, Tensor]:
    """Weights of gated attention to start from: every segment counts alike."""
    import torch

    weights = {
        "look.weight": _matrix(hidden, dim, generator),
        "look.bias": torch.zeros(hidden),
        "gate.weight": _matrix(hidden, dim, generator),
        "gate.bias": torch.zeros(hidden),
        "score.weight": torch.zeros(1, hidden),
    }
    if positions == "learned":
        weights["positions"] = torch.randn(n_positions, dim, generator=generator)
    return weights


def attention_weights(
    weights: Weights, positions: Positions, segments: Tensor, present: Tensor
) -> Tensor:
    """How much each segment counts, (tracks, segments); 0 where padded, 1 over a track.

    Positions are seen by the weights only: what is weighed are the segments.
    """
    from torch.nn.functional import linear

    placed = _placed(weights, positions, segments)
    seen = _linear(weights, "look", placed).tanh() * _linear(weights, "gate", placed).sigmoid()
    scores = linear(seen, weights["score.weight"])[..., 0]
    return scores.masked_fill(~present, -math.inf).softmax(dim=1)


def attend(shares: Tensor, segments: Tensor) -> Tensor:
    """Weigh segments, (tracks, dim)."""
    return (shares[..., None] * segments).sum(dim=1)


def mix(logits: Tensor, layers: Sequence[Tensor] | Tensor) -> Tensor:
    """Weigh layers, which are next to last, by the softmax of ``logits``."""
    import torch

    stacked = layers if isinstance(layers, torch.Tensor) else torch.stack(list(layers), dim=-2)
    return (logits.softmax(dim=0)[:, None] * stacked).sum(dim=-2)
