"""Aggregations and layer mixes that are trained together with a head.

Conventions
-----------
The parts are those of :mod:`tune_cache.probes.parts`, scaled by training statistics.
The number of epochs is the best one on training tracks held out by group; then all
training tracks are learnt from for as many, at the same rates. Of few groups none is
held out. Validation and test are never seen here.

The weighing of layers is MARBLE's: Yuan et al., "MARBLE: Music audio representation
benchmark for universal evaluation", NeurIPS 2023, after S3PRL's featurizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.attention import Attention
from tune_cache.aggregation.checkpoints import Trained
from tune_cache.aggregation.networks import Draw, mix
from tune_cache.aggregation.pretraining import held_out_groups
from tune_cache.aggregation.tensors import by_track, find_device, padded, torch_settings
from tune_cache.aggregation.transformer import Transformer
from tune_cache.cache.ragged import Ragged
from tune_cache.probes.objective import Objective
from tune_cache.probes.parts import Inputs, Network
from tune_cache.probes.schedule import Schedule
from tune_cache.probes.training import generator_of, minibatches, train

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Tracks

__all__ = ["CODE", "Joint", "fit_joint"]

Array = np.ndarray[Any, np.dtype[Any]]

HELD_OUT = 0.15
BATCH = 16
WATCHED = 64  # held-out tracks at once, on a GPU
RATE = 1e-3
MOST_STEPS, PATIENCE_STEPS = 1000, 100  # of small collections, whose epochs are few steps
BLIND_STEPS = 200  # where too few groups are there to hold any out
CODE = (
    "aggregation.networks",
    "aggregation.tensors",
    "aggregation.attention",
    "probes.joint",
    "probes.objective",
    "probes.parts",
    "probes.schedule",
    "probes.training",
)


def schedule_of(aggregate: TrackAggregation, n_tracks: int) -> Schedule:
    """How long and how fast, in epochs of so many tracks; at least so many steps of patience."""
    rate = RATE
    if isinstance(aggregate, Transformer) and aggregate.finetune:
        rate = aggregate.learning_rate
    n_steps = math.ceil(n_tracks / BATCH)
    return Schedule(
        learning_rate=rate,
        max_epochs=max(10, math.ceil(MOST_STEPS / n_steps)),
        patience=max(3, math.ceil(PATIENCE_STEPS / n_steps)),
        batch_size=BATCH,
        plateau_patience=max(1, math.ceil(PATIENCE_STEPS / n_steps / 3)),
    )


def pieces_of(rows: Array, device: torch.device) -> list[Array]:
    """Held-out tracks to look at together: all on a CPU, where pieces would change a bit."""
    size = WATCHED if device.type == "cuda" else max(1, len(rows))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def fit_joint(
    inputs: Inputs,
    tracks: Ragged,
    truth: Array,
    *,
    kind: str,
    aggregate: TrackAggregation,
    n_layers: int,
    head: str,
    pool: Mapping[str, Array],
    groups: Sequence[str],
    seed: int,
    device: str,
) -> Trained:
    """Train the parts together.

    Parameters
    ----------
    tracks
        Of training, as ``inputs`` gives them.
    aggregate
        Its settings; of a transformer with ``shape_``.
    n_layers
        To be mixed; 0 where there is one.
    pool
        Weights of the transformer to start from.
    """
    network = Network(aggregate=aggregate, n_layers=n_layers, head=head)
    schedule = schedule_of(aggregate, len(tracks))
    away = held_out_groups(groups, HELD_OUT, seed)
    if kind == "multiclass" and len(np.unique(truth[~away])) < len(np.unique(truth)):
        away[:] = False  # a class would have nobody to be learnt from
    every, held = np.arange(len(tracks)), np.flatnonzero(away)

    def run(rows: Array, watched: Array, rates: Array | None) -> tuple[dict[str, Array], Any]:
        import torch

        where = find_device(device)
        objective = Objective(kind, truth)
        start = network.start(
            tracks.values.shape[-1],
            objective.n_outputs,
            min(inputs.longest, tracks.lengths.max()),
            pool,
            seed,
        )
        names = list(start)
        held_by = torch.nn.ParameterList(
            [
                torch.nn.Parameter(start[name].to(where), requires_grad=network.is_learnt(name))
                for name in names
            ]
        )
        weights = dict(zip(names, held_by, strict=True))
        targets = torch.from_numpy(objective.encode(truth)).to(where)
        draw = Draw(generator_of(seed, 8, device=str(where)))
        orders = [generator_of(seed, 9)]

        def batches(epoch: int) -> Iterator[Array]:
            for places in minibatches(len(rows), schedule.batch_size, orders):
                yield rows[places[0].numpy()]

        def outputs(some: Array, drawn: Draw | None) -> Tensor:
            values, present = padded(
                tracks, some, inputs.longest, inputs.mean, inputs.scale, str(where)
            )
            return network.outputs(weights, values, present, drawn)

        def loss(some: Array) -> Tensor:
            return objective.loss(outputs(some, draw), targets[torch.from_numpy(some).to(where)])

        goal = targets[torch.from_numpy(watched).to(where)]

        def watch() -> Array:
            found = torch.cat([outputs(some, None) for some in pieces_of(watched, where)])
            return np.array([float(objective.loss(found, goal))])

        with torch_settings(where, threads=1):
            history = train(
                held_by,
                batches,
                loss,
                schedule,
                watch=watch if len(watched) else None,
                rates=rates,
            )
        arrays = {name: value.detach().cpu().numpy() for name, value in weights.items()}
        return arrays, history

    n_steps, loss_held = 0, None
    n_blind = math.ceil(BLIND_STEPS / math.ceil(len(tracks) / BATCH))
    rates = np.full((n_blind, 1), schedule.learning_rate)
    if len(held):
        _, found = run(every[~away], held, None)
        rates, n_steps = found.rates[: int(found.epoch[0])], found.n_steps
        loss_held = float(np.nanmin(found.watched))
    arrays, history = run(every, np.zeros(0, dtype=np.int64), rates)
    facts = {
        "steps": n_steps + history.n_steps,
        "epochs": len(rates),
        "epochs_asked": schedule.max_epochs if len(held) else n_blind,
        "tracks": len(tracks),
        "held_out": len(held),
        "loss_held_out": loss_held,
        "learning_rate": schedule.learning_rate,
    }
    if n_layers:
        odds = np.exp(arrays["mix.logits"] - arrays["mix.logits"].max())
        facts["layer_weights"] = [round(float(share), 4) for share in odds / odds.sum()]
    return Trained(weights=arrays, facts=facts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joint:
    """Parts trained together, with the interface of :class:`~tune_cache.probes.fitting.Fitted`."""

    inputs: Inputs
    aggregate: TrackAggregation
    objective: Objective
    trained: Trained
    n_layers: int
    head: str
    device: str

    @property
    def facts(self) -> Mapping[str, Any]:
        """What training did."""
        return self.trained.facts

    @property
    def grid(self) -> tuple[Mapping[str, Any], ...]:
        return ({"learning_rate": self.trained.facts["learning_rate"]},)

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.trained.facts["held_out"]:
            return ()
        return (
            f"too few groups in train to hold any out: {self.trained.facts['epochs']} epochs,"
            " not chosen by anything",
        )

    @property
    def model(self) -> Joint:
        return self

    def predict_all(self, tracks: Tracks, grid: Sequence[Mapping[str, Any]]) -> list[Array]:
        return [self.predict(tracks, params) for params in grid]

    def predict(self, tracks: Tracks, params: Mapping[str, Any]) -> Array:
        return self.objective.decode(np.stack(self._computed(tracks, self._network().outputs)))

    def segment_weights(self, tracks: Tracks) -> list[Array]:
        """How much each segment of each track counts; empty but for attention."""
        if not isinstance(self.aggregate, Attention):
            return []
        network = self._network()

        def shares(weights: Any, values: Tensor, present: Tensor, _: None) -> Tensor:
            if self.n_layers:
                values = mix(weights["mix.logits"], values)
            return network.shares(weights, values, present)

        return self._computed(tracks, shares)

    def _network(self) -> Network:
        return Network(aggregate=self.aggregate, n_layers=self.n_layers, head=self.head)

    def _computed(self, tracks: Tracks, of: Callable[..., Tensor]) -> list[Array]:
        import torch

        where = str(find_device(self.device))
        weights = {
            name: torch.from_numpy(value).to(where) for name, value in self.trained.weights.items()
        }
        return by_track(
            self.inputs.given(tracks),
            self.inputs.longest,
            self.inputs.mean,
            self.inputs.scale,
            where,
            lambda values, present: of(weights, values, present, None),
        )
