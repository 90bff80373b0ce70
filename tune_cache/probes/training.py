"""Train small torch models by steps: seeds, batches, Adam, the best epoch.

Conventions
-----------
A *batched* model is several models of one shape: every parameter has a leading
axis of models, a loss has shape (n_models,), and each model has its own learning
rate, best epoch and end. A plain module is one model whose loss has no axes.
What is watched is lower where better. Seeds are of generators of their own, so
nothing global is drawn from; order and initial values are drawn on the CPU and
are the same on every device. Torch is imported inside functions.

Kingma and Ba, "Adam", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.errors import TaskError
from tune_cache.probes.schedule import Plateau, Schedule, Stopping

if TYPE_CHECKING:
    import torch

__all__ = [
    "History",
    "generator_of",
    "minibatches",
    "train",
]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """What training did.

    Parameters
    ----------
    epoch : of shape (n_models,)
        Whose parameters a model was left with, from 1.
    n_epochs : of shape (n_models,)
        That a model trained for.
    watched, rates : of shape (epochs of the longest, n_models)
        NaN where a model had ended, or nothing was watched.
    n_steps
        Of the longest.
    """

    epoch: Array
    n_epochs: Array
    watched: Array
    rates: Array
    n_steps: int


def train(
    model: torch.nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], torch.Tensor],
    schedule: Schedule,
    *,
    watch: Callable[[], Array] | None = None,
    n_models: int | None = None,
    rates: Array | None = None,
    on_epoch: Callable[[int, Array], None] | None = None,
) -> History:
    """Train in place by Adam, and leave each model at its best or last epoch.

    A model that has ended is stepped no further, so that it is what it would be
    alone. Call it inside :func:`~tune_cache.aggregation.tensors.torch_settings`.

    Parameters
    ----------
    batches
        From an epoch's number, from 0, to its batches.
    loss
        Of a batch: one value, or one a model; models learn independently of each
        other, since only their sum is differentiated.
    watch
        Called after each epoch in evaluation mode without gradients; values to
        stop and to lower rates by, one a model. Without it there is no best epoch.
    n_models
        Of a batched model; None for a plain one.
    rates : of shape (n_epochs, n_models or 1)
        Follow these instead of a schedule's, for so many epochs: an earlier
        :class:`History`'s, to train again on more rows.

    Raises
    ------
    TaskError
        If a model's loss is not finite from the first epoch on.
    """
    import torch

    n = n_models or 1
    parameters = [item for item in model.parameters() if item.requires_grad]
    each = _of_each(parameters, n_models)
    groups = [{"params": some, "lr": schedule.learning_rate} for some in each]
    adam = torch.optim.Adam(groups, fused=True)
    plateau = Plateau(
        schedule.learning_rate,
        n,
        factor=schedule.plateau_factor,
        patience=schedule.plateau_patience,
    )
    stopping = Stopping(n, patience=schedule.patience if watch else None)
    returns = watch is not None and schedule.checkpoint == "best-val"
    best = [[item.detach().clone() for item in some] for some in each] if returns else []
    n_epochs = schedule.max_epochs if rates is None else len(rates)
    seen, used, trained, n_steps = [], [], np.zeros(n, dtype=np.int64), 0
    for epoch in range(n_epochs):
        running = stopping.running.copy()
        now = plateau.rates if rates is None else np.broadcast_to(rates[epoch], (n,))
        for group, rate in zip(adam.param_groups, now, strict=True):
            group["lr"] = float(rate)
        model.train()
        for batch in batches(epoch):
            total = loss(batch).sum()
            found = torch.autograd.grad(total, parameters, materialize_grads=True)
            gradients = [item.contiguous() for item in found]  # fused Adam reads plain memory
            for some, its in zip(each, _of_each(gradients, n_models), strict=True):
                for item, gradient in zip(some, its, strict=True):
                    item.grad = gradient
            for some in (each[number] for number in np.flatnonzero(~running)):
                for item in some:
                    item.grad = None  # Adam leaves it alone
            adam.step()
            n_steps += 1
        trained += running
        used.append(np.where(running, now, np.nan))
        values = np.full(n, np.nan)
        if watch is not None:
            model.eval()
            with torch.no_grad():
                values = np.where(running, np.asarray(watch(), dtype=np.float64), np.nan)
            for number in np.flatnonzero(stopping.step(values)) if returns else ():
                for kept, item in zip(best[number], each[number], strict=True):
                    kept.copy_(item.detach())
            if not returns:
                stopping.step(values)
            plateau.step(values)
        seen.append(values)
        if on_epoch is not None:
            on_epoch(epoch + 1, values)
        if not stopping.running.any():
            break
    for item in (item for some in each for item in some):
        item.grad = None
    if watch is not None and (stopping.best_epoch == 0).any():
        raise TaskError(
            f"training diverged: what is watched was never finite at a learning rate of "
            f"{schedule.learning_rate:g}",
            hint="vectors of very different scales need standardising, or a lower rate",
        )
    if returns:
        with torch.no_grad():
            for kept_all, some in zip(best, each, strict=True):
                for kept, item in zip(kept_all, some, strict=True):
                    item.copy_(kept)
    model.eval()
    return History(
        epoch=stopping.best_epoch if returns else trained,
        n_epochs=trained,
        watched=np.array(seen),
        rates=np.array(used),
        n_steps=n_steps,
    )


def _of_each(tensors: Sequence[torch.Tensor], n_models: int | None) -> list[list[torch.Tensor]]:
    """The tensors of each model, as views without a gradient; of a plain one all."""
    flat = [item.detach() for item in tensors]
    if n_models is None:
        return [flat]
    return [[item[number] for item in flat] for number in range(n_models)]


def generator_of(*numbers: int, device: str = "cpu") -> torch.Generator:
    """Make a generator from a seed and what tells this use of it from others."""
    import torch

    (state,) = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state) >> 1)


def minibatches(
    n_rows: int, size: int, generators: Sequence[torch.Generator], *, shuffle: bool = True
) -> Iterator[torch.Tensor]:
    """Give row numbers of an epoch's batches, of shape (n_models, at most ``size``).

    Each generator orders the rows by itself, so a model meets the same batches
    alone and beside others; the last batch may be smaller, and none is empty.
    """
    import torch

    orders = [
        torch.randperm(n_rows, generator=one) if shuffle else torch.arange(n_rows)
        for one in generators
    ]
    together = torch.stack(orders)
    for start in range(0, n_rows, size):
        yield together[:, start : start + size]
