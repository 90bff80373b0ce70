"""The parts that are trained together: what goes in, how it is pooled, what the head says.

Conventions
-----------
Layers are mixed by learnt weights (softmax, even at the start), segments are pooled by
gated attention or a transformer, and a head reads the track's vector; any of the first
two may be absent. Other aggregations are computed layer by layer, and what is mixed are
their vectors: for a mean or concat the same thing, for a maximum not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.attention import Attention
from tune_cache.aggregation.concat import statistics_of
from tune_cache.aggregation.networks import (
    Draw,
    attend,
    attention_weights,
    encode,
    gate_weights,
    mix,
    read_out,
)
from tune_cache.aggregation.transformer import Transformer
from tune_cache.cache.ragged import Ragged
from tune_cache.probes.training import generator_of

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Tracks

__all__ = ["Inputs", "Network"]

Array = np.ndarray[Any, np.dtype[Any]]

HIDDEN, HEAD_DROPOUT = 512, 0.2  # MARBLE's


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """How tracks become what the network is given.

    Parameters
    ----------
    by_layer
        Fitted aggregations, one a layer; none where the network pools segments.
    longest
        Segments that it looks at.
    mean, scale : of shape (dim,) or (layers, dim)
        Of training.
    """

    by_layer: tuple[TrackAggregation, ...]
    longest: int
    mean: Array
    scale: Array

    @classmethod
    def of(cls, tracks: Tracks, make: Callable[[], TrackAggregation], *, is_mixed: bool) -> Inputs:
        """Learn from training tracks; ``is_mixed`` where their segments have several layers."""
        aggregate = make()
        if not isinstance(aggregate, Attention | Transformer):
            assert is_mixed  # nothing else of theirs is trained with a head
            by_layer = tuple(make().fit(one) for one in _layers(tracks))
            start = cls(by_layer=by_layer, longest=1, mean=np.zeros(1), scale=np.ones(1))
            vectors = start.given(tracks)
            if aggregate.standardised_output:
                return start
            mean, scale = statistics_of(vectors.values)
            return cls(by_layer=by_layer, longest=1, mean=mean, scale=scale)
        assert isinstance(tracks, Ragged)  # several scales are pooled by an aggregation
        longest = int(tracks.lengths.max())
        if aggregate.positions != "learned" and aggregate.max_segments is None:
            longest = int(np.iinfo(np.int64).max)
        elif aggregate.max_segments is not None:
            longest = min(longest, aggregate.max_segments)
        mean, scale = statistics_of(tracks.values)
        return cls(by_layer=(), longest=longest, mean=mean, scale=scale)

    def given(self, tracks: Tracks) -> Ragged:
        """Tracks as the network takes them, not yet scaled."""
        if not self.by_layer:
            assert isinstance(tracks, Ragged)
            return tracks
        pairs = zip(self.by_layer, _layers(tracks), strict=True)
        vectors = np.stack([one.transform(layer) for one, layer in pairs], axis=1)
        return Ragged(
            values=vectors, offsets=np.arange(len(vectors) + 1), n_samples=np.ones(len(vectors))
        )

    def first_layer(self, tracks: Tracks) -> Tracks:
        """Tracks at their first layer, whether there are several or not."""
        is_one = isinstance(tracks, Ragged) and tracks.values.ndim == 2
        return tracks if is_one else next(_layers(tracks))


def _layers(tracks: Tracks) -> Iterator[Tracks]:
    """Tracks at each layer of those that have several."""
    from tune_cache.aggregation.scales import Scales

    if isinstance(tracks, Scales):
        n_layers = tracks.parts[0].values.shape[1]
        for place in range(n_layers):
            yield Scales(tuple(part.layer(place) for part in tracks.parts))
    else:
        for place in range(tracks.values.shape[1]):
            yield tracks.layer(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The three parts, as one function of weights."""

    aggregate: TrackAggregation  # whose settings say how
    n_layers: int
    head: str

    def start(
        self, dim: int, n_outputs: int, longest: int, pool: Mapping[str, Array], seed: int
    ) -> dict[str, Tensor]:
        """Weights to begin with; ``pool`` are those of a transformer."""
        import torch

        chance = generator_of(seed, 7)
        weights: dict[str, Tensor] = {}
        if self.n_layers:
            weights["mix.logits"] = torch.zeros(self.n_layers)
        if isinstance(self.aggregate, Attention):
            positions, hidden = self.aggregate.positions, self.aggregate.hidden
            gate = gate_weights(dim, hidden, positions, longest, chance)
            weights |= {f"pool.{name}": value for name, value in gate.items()}
        weights |= {f"pool.{name}": torch.from_numpy(value) for name, value in pool.items()}
        sizes = [dim, n_outputs] if self.head == "linear" else [dim, HIDDEN, n_outputs]
        for place, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            drawn = torch.rand(n_out, n_in + 1, generator=chance) * 2 - 1
            drawn = drawn / np.sqrt(n_in)
            if self.head == "linear":
                drawn = drawn * 0  # the problem is convex but for what stands before
            weights[f"head.{place}.weight"] = drawn[:, :-1].contiguous()
            weights[f"head.{place}.bias"] = drawn[:, -1].contiguous()
        return weights

    def vectors(
        self, weights: Mapping[str, Tensor], values: Tensor, present: Tensor, draw: Draw | None
    ) -> Tensor:
        """One vector a track, (tracks, dim)."""
        if self.n_layers:
            values = mix(weights["mix.logits"], values)
        if isinstance(self.aggregate, Attention):
            return attend(self.shares(weights, values, present), values)
        if isinstance(self.aggregate, Transformer):
            pool = part_of(weights, "pool.")
            dropped = draw if self.aggregate.finetune else None
            encoded = encode(pool, self.aggregate.shape_, values, present, dropped)
            return read_out(encoded, present, self.aggregate.readout)
        return values[:, 0]

    def shares(self, weights: Mapping[str, Tensor], values: Tensor, present: Tensor) -> Tensor:
        """Attention of mixed segments."""
        assert isinstance(self.aggregate, Attention)
        return attention_weights(
            part_of(weights, "pool."), self.aggregate.positions, values, present
        )

    def outputs(
        self, weights: Mapping[str, Tensor], values: Tensor, present: Tensor, draw: Draw | None
    ) -> Tensor:
        """What the head says, (tracks, outputs)."""
        from torch.nn.functional import linear

        found = self.vectors(weights, values, present, draw)
        found = linear(found, weights["head.0.weight"], weights["head.0.bias"])
        if self.head == "mlp":
            inner = found.relu()
            inner = inner if draw is None else draw.dropout(inner, HEAD_DROPOUT)
            found = linear(inner, weights["head.1.weight"], weights["head.1.bias"])
        return found

    def is_learnt(self, name: str) -> bool:
        frozen = isinstance(self.aggregate, Transformer) and (
            not self.aggregate.finetune or name.startswith("pool.restore")
        )
        return not (frozen and name.startswith("pool."))


def part_of(weights: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
