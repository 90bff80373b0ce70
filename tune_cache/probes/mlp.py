"""A perceptron with one hidden layer, several seeds of it trained at once.

Conventions
-----------
``X`` is (n_tracks, n_features), (n_tracks, n_layers, dim) for a learned combination
of layers, or a :class:`~tune_cache.cache.ragged.Ragged` of either, one row a slice:
training then takes each slice with its track's label, and a track's prediction
is that of its slices' mean. Arithmetic is float32 on one thread, whatever the
machine has, so that scores do not depend on it. Initial values, order and
dropout are drawn on the CPU from each seed by itself.

The model is the head of MARBLE v2 (Yuan et al., "MARBLE", NeurIPS 2023; its code's
``MLPDecoder`` and ``LayerWeightedSum``): linear, ReLU, dropout, linear; layers are
combined by free weights and an offset, without a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from tune_cache.aggregation.tensors import find_device, torch_settings
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import UsageError
from tune_cache.probes.models.base import Array, HeldOut, Params, Scaling
from tune_cache.probes.objective import Objective
from tune_cache.probes.schedule import Schedule
from tune_cache.probes.training import generator_of, minibatches, train

if TYPE_CHECKING:
    import torch

__all__ = ["MLP", "MLPOptions", "mlp_options", "together_at_best"]

AVERAGES = ("probabilities", "outputs")
ROWS_AT_ONCE = 512
START, ORDER, DROPOUT = range(3)  # what a seed is drawn from for


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPOptions:
    """What shapes a perceptron, beside its data and seed.

    Parameters
    ----------
    average
        Over a track's slices: of softmax ``probabilities``, for classes, or of ``outputs``.
    constants
        Mean and standard deviation that targets are z-scored by; those of the
        training rows if None.
    standardise
        Scale inputs by the training rows; as the aggregation needs it if None.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
    """

    hidden: int = 512
    dropout: float = 0.2
    schedule: Schedule = field(default_factory=Schedule)
    average: str = "probabilities"
    constants: tuple[tuple[float, float], ...] | None = None
    standardise: bool | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.average not in AVERAGES:
            raise UsageError(f"average is {self.average!r}, expected {' or '.join(AVERAGES)}")
        if self.hidden < 1 or not 0 <= self.dropout < 1:
            raise UsageError(
                f"hidden width is {self.hidden!r} and dropout {self.dropout!r}, expected 1 or "
                "more, and 0 or more below 1"
            )


def mlp_options(given: Mapping[str, Any]) -> MLPOptions:
    """Options from what a command was given: ``checkpoint``, ``device``; None is not given."""
    told = {name: value for name, value in given.items() if value is not None}
    schedule = Schedule(**{name: told[name] for name in told if name == "checkpoint"})
    return MLPOptions(schedule=schedule, **{name: told[name] for name in told if name == "device"})


def together_at_best(options: MLPOptions | None, n_models: int) -> int:
    """How many seeds to train at once: all on a GPU, one on a CPU.

    Each is the same alone: to the last bit on a CPU, on a GPU to rounding, which training
    amplifies. A thread is full with one seed's products, and seeds that
    have ended are carried along: five at once took 1.7 times what they take in turn
    (``benchmarks/mlp.py``).
    """
    device = find_device((options or MLPOptions()).device)
    return 1 if device.type == "cpu" else n_models


class MLP:
    """One seed's perceptron.

    The best epoch on held-out tracks is kept, if there are any; else the last.

    Attributes
    ----------
    told
        ``epoch``, the passes over the training rows that its weights have seen.
    rates : of shape (epoch,)
        Learning rate of each of them.
    """

    kinds: ClassVar[tuple[str, ...]] = ("multiclass", "multilabel", "regression")
    warnings: tuple[str, ...] = ()

    def __init__(self, kind: str, *, seed: int = 1234, options: MLPOptions | None = None) -> None:
        self.kind, self.seed, self.options = kind, seed, options or MLPOptions()
        schedule = self.options.schedule
        self.grid: tuple[Params, ...] = (
            {"learning_rate": schedule.learning_rate, "checkpoint": schedule.checkpoint},
        )
        self.told: dict[str, Any] = {}
        self._network: Any = None
        self._objective: Objective
        self.rates: Array = np.empty(0)

    def fit(self, X: Array, y: Array, *, standardise: bool) -> Self:
        self.fit_together([self], X, y, standardise=standardise)
        return self

    @staticmethod
    def fit_together(
        models: Sequence[MLP],
        X: Array | Ragged,
        y: Array,
        *,
        standardise: bool,
        held_out: HeldOut | None = None,
        rates: Array | None = None,
    ) -> None:
        """Fit models that differ in their seed only; each is as alone, but for a GPU's rounding.

        Parameters
        ----------
        held_out
            Tracks whose score lowers the rate, ends training and picks the epoch.
        rates
            Learning rates of so many epochs to follow instead.
        """
        import torch

        options, kind = models[0].options, models[0].kind
        device = find_device(options.device)
        rows, offsets = _rows_of(X)
        labels = y if offsets is None else np.repeat(y, np.diff(offsets), axis=0)
        objective = Objective(kind, labels, constants=options.constants)
        if options.standardise is not None:
            standardise = options.standardise
        scaling = Scaling(rows.reshape(len(rows), -1), standardise=standardise)
        with torch_settings(device, threads=1):
            network = _network_class()(
                [model.seed for model in models], rows.shape[1:], objective.n_outputs, options
            )
            network.scale_by(scaling.mean, scaling.scale)
            network.to(device)
            inputs = torch.as_tensor(rows, device=device)
            targets = torch.as_tensor(objective.encode(labels), device=device)
            orders = [generator_of(model.seed, ORDER) for model in models]
            history = train(
                network,
                lambda epoch: minibatches(len(rows), options.schedule.batch_size, orders),
                lambda some: objective.loss(
                    network(inputs[some.to(device)]), targets[some.to(device)]
                ),
                options.schedule,
                watch=None if held_out is None else _watch(network, objective, options, held_out),
                n_models=len(models),
                rates=None if rates is None else rates[:, None],
            )
        for number, model in enumerate(models):
            model._network, model._objective = network.only(number), objective
            epoch = int(history.epoch[number])
            model.told = {"epoch": epoch}
            model.rates = history.rates[:epoch, number]

    def predict_all(self, X: Array | Ragged) -> list[Array]:
        return [self.predict(X, 0)]

    def predict(self, X: Array | Ragged, choice: int) -> Array:
        rows, offsets = _rows_of(X)
        with torch_settings(self._network.device, threads=1):
            (outputs,) = _outputs(self._network, rows)
        return self._objective.decode(_averaged(outputs, offsets, self._objective, self.options))


def _rows_of(X: Array | Ragged) -> tuple[Array, Array | None]:
    """Rows, and where each track's begin; None where a track is one row."""
    return (X.values, X.offsets) if isinstance(X, Ragged) else (np.asarray(X), None)


def _outputs(network: Any, rows: Array) -> Array:
    """Outputs in evaluation mode, of shape (n_models, n_rows, n_outputs), a block at a time."""
    import torch

    network.eval()
    with torch.no_grad():
        parts = [
            network(torch.as_tensor(rows[start : start + ROWS_AT_ONCE], device=network.device))
            for start in range(0, len(rows), ROWS_AT_ONCE)
        ]
        return np.asarray(torch.cat(parts, dim=1).cpu().numpy(), dtype=np.float64)


def _averaged(
    outputs: Array, offsets: Array | None, objective: Objective, options: MLPOptions
) -> Array:
    """One row a track: the mean over its slices."""
    if offsets is None:
        return outputs
    if objective.kind == "multiclass" and options.average == "probabilities":
        odds = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        outputs = odds / odds.sum(axis=-1, keepdims=True)
    counts = np.diff(offsets)[:, None]
    return np.asarray(np.add.reduceat(outputs, offsets[:-1], axis=0) / counts)


def _watch(
    network: Any, objective: Objective, options: MLPOptions, held_out: HeldOut
) -> Callable[[], Array]:
    """What training watches: minus the score, or the loss where no score is defined."""
    import torch

    rows, offsets = _rows_of(held_out.X)
    labels = held_out.y if offsets is None else np.repeat(held_out.y, np.diff(offsets), axis=0)
    targets = torch.as_tensor(objective.encode(labels))

    def scores(outputs: Array) -> Array:
        found = np.full(len(outputs), np.nan)
        for number in np.flatnonzero(np.isfinite(outputs).all(axis=(1, 2))):
            averaged = _averaged(outputs[number], offsets, objective, options)
            found[number] = held_out.score(objective.decode(averaged))
        return found

    def losses(outputs: Array) -> Array:
        return np.asarray(objective.loss(torch.as_tensor(outputs).float(), targets))

    is_defined = np.isfinite(scores(_outputs(network, rows))).all()
    watched = (lambda outputs: -scores(outputs)) if is_defined else losses
    return lambda: watched(_outputs(network, rows))


@cache
def _network_class() -> Any:
    """The module's class, made when torch is there."""
    import torch

    class Perceptrons(torch.nn.Module):
        """Perceptrons of one shape, a seed each; inputs are scaled on the way in."""

        mean: torch.Tensor
        scale: torch.Tensor

        def __init__(
            self, seeds: Sequence[int], shape: tuple[int, ...], n_outputs: int, options: MLPOptions
        ) -> None:
            super().__init__()
            self._shape, self._p = shape, options.dropout
            self._chance = [generator_of(seed, DROPOUT) for seed in seeds]
            starts = [generator_of(seed, START) for seed in seeds]

            def uniform(fan_in: int, *size: int) -> torch.nn.Parameter:
                """Linear layers as torch starts them: up to 1 / sqrt(inputs) either way."""
                drawn = [torch.rand(size, generator=one) * 2 - 1 for one in starts]
                return torch.nn.Parameter(torch.stack(drawn) * fan_in**-0.5)

            dim, hidden = shape[-1], options.hidden
            if len(shape) == 2:
                self.mix = uniform(shape[0], shape[0])
                self.mix_offset = uniform(shape[0], 1, 1)
            self.weight_in = uniform(dim, dim, hidden)
            self.bias_in = uniform(dim, 1, hidden)
            self.weight_out = uniform(hidden, hidden, n_outputs)
            self.bias_out = uniform(hidden, 1, n_outputs)
            self.scale_by(np.zeros(1), np.ones(1))

        @property
        def device(self) -> torch.device:
            return self.weight_in.device

        def scale_by(self, mean: Array, scale: Array) -> None:
            shape = self._shape if mean.size > 1 else (1,)
            for name, values in (("mean", mean), ("scale", scale)):
                self.register_buffer(name, torch.as_tensor(values.reshape(shape)).float())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """From (n_models or none, n_rows, …) to (n_models, n_rows, n_outputs)."""
            x = (x.float() - self.mean) / self.scale
            if len(self._shape) == 2:
                models = "m" if x.ndim == 4 else ""
                x = torch.einsum(f"{models}nld,ml->mnd", x, self.mix) + self.mix_offset
            h = torch.relu(x @ self.weight_in + self.bias_in)
            if self.training and self._p:
                kept = [torch.rand(h.shape[1:], generator=one) >= self._p for one in self._chance]
                h = h * torch.stack(kept).to(h.device) / (1 - self._p)
            return h @ self.weight_out + self.bias_out

        def only(self, number: int) -> Any:
            """One of the models, by itself."""
            alone = object.__new__(Perceptrons)
            torch.nn.Module.__init__(alone)
            alone._shape, alone._p, alone._chance = self._shape, self._p, []
            for name, item in self.named_parameters():
                one = item.detach()[number : number + 1].clone()
                alone.register_parameter(name, torch.nn.Parameter(one, requires_grad=False))
            for name, values in self.named_buffers():
                alone.register_buffer(name, values)
            return alone.eval()

    return Perceptrons
