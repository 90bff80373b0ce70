from __future__ import annotations

import numpy as np
import pytest
import torch

from tune_cache.aggregation.tensors import find_device, torch_settings
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.objective import Objective
from tune_cache.probes.schedule import Plateau, Schedule, Stopping
from tune_cache.probes.training import generator_of, minibatches, train

CPU = torch.device("cpu")


class Planes(torch.nn.Module):
    """One linear model a seed."""

    def __init__(self, seeds, dim=6, n_outputs=2):
        super().__init__()
        starts = [torch.randn(dim, n_outputs, generator=generator_of(one)) for one in seeds]
        self.weight = torch.nn.Parameter(torch.stack(starts))

    def forward(self, x):
        return x @ self.weight


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.standard_normal((50, 6)), dtype=torch.float32)
    return X, X[:, :2] + 0.3 * torch.tensor(rng.standard_normal((50, 2)), dtype=torch.float32)


def trained(rows, seeds, *, watch=True, rates=None, n_val=15, **settings):
    """Planes after training, and its history."""
    X, y = rows
    model, objective = Planes(seeds), Objective("regression", y.numpy())
    targets = torch.tensor(objective.encode(y.numpy()))
    orders = [generator_of(one, 1) for one in seeds]
    with torch_settings(CPU, threads=1):
        history = train(
            model,
            lambda epoch: minibatches(len(X) - n_val, 8, orders),
            lambda rows_: objective.loss(model(X[rows_]), targets[rows_]),
            Schedule(**{"learning_rate": 0.05, "max_epochs": 30, "patience": 3} | settings),
            watch=(lambda: objective.loss(model(X[-n_val:]), targets[-n_val:]).numpy())
            if watch
            else None,
            n_models=len(seeds),
            rates=rates,
        )
    return model.weight.detach().clone(), history


def test_seeds_together_are_what_they_are_alone(rows):
    seeds = (3, 5, 8, 13)
    together, history = trained(rows, seeds)
    assert len(set(history.n_epochs.tolist())) > 1, "no model ended before another"
    for number, seed in enumerate(seeds):
        alone, its = trained(rows, (seed,))
        torch.testing.assert_close(together[number], alone[0], rtol=0, atol=1e-6)
        assert (history.epoch[number], history.n_epochs[number]) == (its.epoch[0], its.n_epochs[0])


def test_two_runs_agree_to_the_last_bit_and_draw_from_nothing_global(rows):
    before = torch.random.get_rng_state()
    one, _ = trained(rows, (1, 2))
    other, _ = trained(rows, (1, 2))
    assert torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_plain_module_is_trained_as_by_torch_itself(rows):
    X, y = rows
    ours, theirs = torch.nn.Linear(6, 2), torch.nn.Linear(6, 2)
    theirs.load_state_dict(ours.state_dict())
    some = [torch.arange(0, 25), torch.arange(25, 50)]
    history = train(
        ours,
        lambda epoch: some,
        lambda batch: (ours(X[batch]) - y[batch]).square().mean(),
        Schedule(learning_rate=0.02, max_epochs=4),
    )
    adam = torch.optim.Adam(theirs.parameters(), lr=0.02)
    for batch in some * 4:
        adam.zero_grad()
        (theirs(X[batch]) - y[batch]).square().mean().backward()
        adam.step()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)
    assert (history.n_steps, history.epoch.tolist(), ours.training) == (8, [4], False)


def test_the_best_epoch_comes_back_or_the_last_is_kept(rows):
    wild = {"learning_rate": 0.5, "patience": None}
    best, history = trained(rows, (7,), **wild)
    last, _ = trained(rows, (7,), checkpoint="last", **wild)
    (epoch,) = history.epoch
    assert epoch == 1 + np.nanargmin(history.watched[:, 0]) < 30
    so_long, _ = trained(rows, (7,), max_epochs=int(epoch), checkpoint="last", **wild)
    assert torch.equal(best, so_long)
    assert not torch.equal(best, last)


def test_earlier_rates_are_followed_again(rows):
    weight, history = trained(rows, (7,), checkpoint="last", plateau_patience=0)
    assert len(np.unique(history.rates)) > 1
    again, its = trained(rows, (7,), watch=False, rates=history.rates)
    assert torch.equal(weight, again)
    assert its.n_epochs.tolist() == [len(history.rates)]


def test_a_training_that_diverges_is_an_error(rows):
    with pytest.raises(TaskError, match="training diverged"):
        trained((rows[0] * float("inf"), rows[1]), (1, 2))


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_the_plateau_is_torch_s(factor):
    rng = np.random.default_rng(1)
    values = np.round(rng.standard_normal((40, 3)), 1)
    ours = Plateau(0.1, 3, factor=factor, patience=2)
    theirs = []
    for _ in range(3):
        adam = torch.optim.Adam([torch.zeros(1)], lr=0.1)
        kind = torch.optim.lr_scheduler.ReduceLROnPlateau
        theirs.append((adam, kind(adam, factor=factor, patience=2, eps=0)))
    for row in values:
        for (_, one), value in zip(theirs, row, strict=True):
            one.step(value)
        expected = [adam.param_groups[0]["lr"] for adam, _ in theirs]
        np.testing.assert_allclose(ours.step(row), expected, rtol=1e-12)


@pytest.mark.parametrize("patience", [1, 3, None])
def test_stopping_equals_a_loop(patience):
    values = np.round(np.random.default_rng(2).standard_normal((30, 5)), 1)
    values[3:6, 2] = np.nan
    ours = Stopping(5, patience=patience)
    for row in values:
        ours.step(row)
    for number, column in enumerate(values.T):
        best, best_epoch, ended = np.inf, 0, None
        for epoch, value in enumerate(column, start=1):
            if ended is None and value < best:
                best, best_epoch = value, epoch
            if ended is None and patience is not None and epoch - best_epoch >= patience:
                ended = epoch
        assert (ours.best[number], ours.best_epoch[number]) == (best, best_epoch)
        assert ours.running[number] == (ended is None)


def test_minibatches_give_each_row_once_in_an_order_of_each_generator():
    together = list(minibatches(10, 4, [generator_of(1), generator_of(2)]))
    assert [tuple(batch.shape) for batch in together] == [(2, 4), (2, 4), (2, 2)]
    orders = torch.cat(together, dim=1)
    assert (orders.sort(dim=1).values == torch.arange(10)).all()
    alone = torch.cat(list(minibatches(10, 4, [generator_of(2)])), dim=1)
    assert torch.equal(orders[1:], alone)
    assert not torch.equal(orders[0], orders[1])


def test_what_was_set_is_put_back():
    n_threads = torch.get_num_threads()

    def fail():
        with torch.no_grad(), torch_settings(CPU, threads=n_threads + 1):
            assert torch.get_num_threads() == n_threads + 1
            assert torch.is_grad_enabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == n_threads


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: find_device("gpu"), "expected one of auto, cpu, cuda"),
        (lambda: find_device("cuda:999"), "device 'cuda:999' is not here"),
        (lambda: Schedule(max_epochs=0), "epochs is 0"),
        (lambda: Schedule(learning_rate=0.0), "learning rate is 0.0"),
        (lambda: Schedule(checkpoint="first"), "expected best-val or last"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, match):
    with pytest.raises(UsageError, match=match):
        make()


def test_a_loss_is_torch_s_for_each_model_and_the_prediction_has_the_labels_form():
    rng = np.random.default_rng(3)
    outputs = torch.tensor(rng.standard_normal((2, 6, 3)))
    F = torch.nn.functional
    classes = np.array([7, 2, 9, 2, 7, 9])
    one = Objective("multiclass", classes)
    targets = torch.tensor(one.encode(classes))
    expected = torch.stack([F.cross_entropy(model, targets) for model in outputs])
    torch.testing.assert_close(one.loss(outputs, targets), expected)
    np.testing.assert_array_equal(
        one.decode(outputs.numpy()), np.array([2, 7, 9])[outputs.numpy().argmax(axis=-1)]
    )
    tags = (rng.random((6, 3)) < 0.5).astype(float)
    tags[2] = 0  # a track without tags is a track
    one = Objective("multilabel", tags)
    found = one.loss(outputs.float(), torch.tensor(one.encode(tags)))
    expected = [F.binary_cross_entropy_with_logits(model, torch.tensor(tags)) for model in outputs]
    torch.testing.assert_close(found.double(), torch.stack(expected), rtol=1e-6, atol=0)
    numbers = 5 + 3 * rng.standard_normal((6, 3))
    one = Objective("regression", numbers)
    scaled = one.encode(numbers)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(one.decode(scaled), numbers, atol=1e-5)
    expected = [F.mse_loss(model, torch.tensor(scaled).double()) for model in outputs]
    torch.testing.assert_close(one.loss(outputs, torch.tensor(scaled)), torch.stack(expected))


def test_constants_scale_targets_in_place_of_the_training_rows():
    one = Objective("regression", np.array([[4.0], [6.0]]), constants=((4.0, 2.0),))
    assert one.encode(np.array([[8.0]])).tolist() == [[2.0]]
    assert one.decode(np.array([[2.0]])).tolist() == [[8.0]]


def test_a_class_that_training_lacks_is_in_no_loss():
    one = Objective("multiclass", np.array([0, 1]))
    outputs = torch.tensor([[2.0, 0.0], [5.0, 1.0]])
    known = torch.tensor(one.encode(np.array([1, 3])))
    alone = torch.nn.functional.cross_entropy(outputs[:1], torch.tensor([1]))
    torch.testing.assert_close(one.loss(outputs, known), alone)
