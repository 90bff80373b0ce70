from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from stage_two_world import EMOTION, GENRE, classes_world, dataset_of, features_of, random_tracks

from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Task
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.mlp import MLP, MLPOptions, mlp_options
from tune_cache.probes.models import HeldOut, make_probe
from tune_cache.probes.schedule import Schedule
from tune_cache.probes.tasks import load_task

TAGS = Task(name="tags", label="tags", kind="multilabel")
SPLITS = ("train", "val", "test")
SMALL = MLPOptions(hidden=32, schedule=Schedule(learning_rate=0.01, max_epochs=40, patience=10))


def rows_of(kind, rng, n=90, dim=6):
    """Vectors and labels that they determine, with a third to judge by."""
    X = rng.standard_normal((n, dim)).astype("f4")
    y = X[:, :2] - X[:, 2:4] + 0.5 * rng.standard_normal((n, 2))
    if kind == "multiclass":
        y = 2 * (y[:, 0] > 0) + 3
    elif kind == "multilabel":
        y = (y > 0.5).astype(float)  # some rows have no tag
    return X, y


def scorer(kind, y):
    if kind == "multiclass":
        return lambda predicted: float((predicted == y).mean())
    return lambda predicted: -float(np.square(predicted - y).mean())


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_seeds_together_are_what_they_are_alone_and_again(kind):
    X, y = rows_of(kind, np.random.default_rng(0))
    seen = HeldOut(X=X[60:], y=y[60:], score=scorer(kind, y[60:]))

    def fitted(*seeds):
        models = [MLP(kind, seed=seed, options=SMALL) for seed in seeds]
        MLP.fit_together(models, X[:60], y[:60], standardise=True, held_out=seen)
        return models

    seeds = (1, 5, 9)
    together, again = fitted(*seeds), fitted(*seeds)
    assert len({len(model.rates) for model in together}) > 1
    for seed, one, same in zip(seeds, together, again, strict=True):
        (alone,) = fitted(seed)
        assert one.told == alone.told
        for name, item in one._network.state_dict().items():
            torch.testing.assert_close(
                item, alone._network.state_dict()[name], rtol=0, atol=1e-6, msg=name
            )
            assert torch.equal(item, same._network.state_dict()[name])
        np.testing.assert_allclose(one.predict(X, 0), alone.predict(X, 0), atol=1e-5)


def xor_world(rng, n=(160, 80, 200)):
    """The class is the sign of a product; each factor alone says nothing."""
    labels, layer = {}, {}
    for split, count in zip(SPLITS, n, strict=True):
        vectors = rng.standard_normal((count, 4)).astype("f4")
        labels[split] = ["ab"[int(x * y > 0)] for x, y in vectors[:, :2]]
        layer[split] = Ragged.from_tracks(list(vectors[:, None]))
    data = load_task(dataset_of(labels), GENRE)
    return data, features_of({0: layer})


def test_a_signal_that_no_plane_separates_is_found_by_mlp_only():
    data, features = xor_world(np.random.default_rng(2))
    (mlp,) = run_probe(features, data, probe="mlp", n_resamples=1)
    (plane,) = run_probe(features, data, probe="logistic", n_resamples=1)
    assert mlp.scores["test"]["accuracy"].value > 0.85
    assert abs(plane.scores["test"]["accuracy"].value - 0.5) < 3 * np.sqrt(0.25 / 200)


def test_all_seeds_of_a_cell_are_those_of_one_at_a_time():
    data, features = classes_world(
        np.random.default_rng(3), layers=(0, 1), signal=(1,), strength=1.5
    )
    asked = {"probe": "mlp", "probe_options": SMALL, "n_resamples": 20}
    together = run_probe(features, data, seed=[1, 2, 3], **asked)
    alone = [run_probe(features, data, seed=seed, **asked)[0] for seed in (1, 2, 3)]
    for one, other in zip(together, alone, strict=True):
        assert (one.seed, one.layer, one.params) == (other.seed, other.layer, other.params)
        assert one.scores == other.scores
        assert one.layer_curve == other.layer_curve
        assert one.predictions == other.predictions
    assert len({one.predictions for one in together}) > 1


def test_the_epoch_is_chosen_on_validation_and_test_never_matters():
    data, features = classes_world(np.random.default_rng(3), signal=(0,), strength=1.0)
    asked = {"probe": "mlp", "probe_options": SMALL, "n_resamples": 1}
    (result,) = run_probe(features, data, **asked)
    truth = data.splits["test"].truth
    other = dataclasses.replace(data.splits["test"], truth=(truth + 1) % 3)
    swapped = dataclasses.replace(data, splits={**data.splits, "test": other})
    (again,) = run_probe(features, swapped, **asked)
    assert again.params == result.params
    assert [p.prediction for p in again.predictions] == [p.prediction for p in result.predictions]
    assert 1 <= result.params["epoch"] < 40
    last = dataclasses.replace(
        SMALL, schedule=dataclasses.replace(SMALL.schedule, checkpoint="last", patience=None)
    )
    (so_long,) = run_probe(features, data, **asked | {"probe_options": last})
    assert so_long.params["epoch"] == 40
    assert so_long.scores["val"]["accuracy"].value <= result.scores["val"]["accuracy"].value


def test_folds_choose_the_epochs_that_all_training_tracks_are_learnt_for():
    rng = np.random.default_rng(4)
    labels = {split: [f"c{k % 2}" for k in range(n)] for split, n in (("train", 50), ("test", 60))}
    data = load_task(dataset_of(labels), GENRE)
    layer = {}
    for split, part in data.splits.items():
        tracks = random_tracks(rng, len(part))
        tracks.values[:, 0] += np.repeat(3 * part.truth, tracks.lengths)
        layer[split] = tracks
    (result,) = run_probe(
        features_of({0: layer}), data, probe="mlp", probe_options=SMALL, n_resamples=1
    )
    assert result.scores["test"]["accuracy"].value > 0.8
    assert 1 <= result.params["epoch"] <= 40


def test_layers_are_combined_by_weights_that_are_learnt():
    data, features = classes_world(
        np.random.default_rng(5), n=(90, 60, 120), layers=(0, 1, 2), signal=(1,), strength=4
    )
    asked = {"probe": "mlp", "layer": "mix", "n_resamples": 1, "seed": [1, 2, 3]}
    asked["probe_options"] = SMALL
    results = run_probe(features, data, aggregation="slices", **asked)
    assert np.mean([one.scores["test"]["accuracy"].value for one in results]) > 0.85
    assert {one.layer for one in results} == {"mix"}


def test_slices_are_learnt_one_by_one_and_averaged_by_track():
    rng = np.random.default_rng(6)
    rows, _ = rows_of("multiclass", rng)
    lengths = np.array([1, 3, 2] * 10 + [1] * 30)
    tracks = Ragged(
        values=rows, offsets=np.concatenate([[0], np.cumsum(lengths)]), n_samples=np.ones(90)
    )
    labels = np.repeat([3, 5], 30)
    model = MLP("multiclass", options=SMALL).fit(tracks, labels, standardise=False)
    flat = MLP("multiclass", options=SMALL).fit(rows, np.repeat(labels, lengths), standardise=False)
    with torch.no_grad():
        (logits,) = flat._network(torch.tensor(rows)).double()
    odds = torch.softmax(logits, dim=1).numpy()
    expected = [
        [3, 5][odds[start:stop].mean(axis=0).argmax()]
        for start, stop in zip(tracks.offsets[:-1], tracks.offsets[1:], strict=True)
    ]
    np.testing.assert_array_equal(model.predict(tracks, 0), expected)
    by_outputs = dataclasses.replace(SMALL, average="outputs")
    model = MLP("regression", options=by_outputs).fit(tracks, labels[:, None] * 1.0, standardise=0)
    with torch.no_grad():
        (outputs,) = model._network(torch.tensor(rows)).double().numpy()
    means = [outputs[a:b].mean() for a, b in zip(tracks.offsets, tracks.offsets[1:], strict=False)]
    every = np.repeat(labels, lengths)
    expected = every.mean() + every.std() * np.array(means)
    np.testing.assert_allclose(model.predict(tracks, 0)[:, 0], expected, rtol=1e-6)


def test_one_class_one_row_and_a_last_batch_of_one_are_no_trouble():
    X, _ = rows_of("multiclass", np.random.default_rng(7))
    one = MLP("multiclass", options=SMALL).fit(X[:5], np.full(5, 2), standardise=True)
    assert set(one.predict(X, 0)) == {2}
    alone = MLP("regression", options=SMALL).fit(X[:1], np.array([[4.0]]), standardise=True)
    np.testing.assert_allclose(alone.predict(X[:1], 0), 4.0, atol=0.5)
    odd = dataclasses.replace(SMALL, schedule=dataclasses.replace(SMALL.schedule, batch_size=8))
    tags = np.zeros((9, 2))
    tags[0] = 1
    scores = MLP("multilabel", options=odd).fit(X[:9], tags, standardise=True).predict(X, 0)
    assert scores.shape == (90, 2)
    assert np.isfinite(scores).all()


def test_what_cannot_be_learnt_or_asked_for_is_an_error():
    data, features = classes_world(np.random.default_rng(8))
    with pytest.raises(UsageError, match="--agg slices is learned by training"):
        run_probe(features, data, probe="logistic", aggregation="slices")
    with pytest.raises(UsageError, match="checkpoint is 'first'"):
        mlp_options({"checkpoint": "first"})
    for wrong in ({"hidden": 0}, {"dropout": 1.0}, {"average": "votes"}):
        with pytest.raises(UsageError):
            MLPOptions(**wrong)
    labels = {split: [(1.0, 2.0)] * n for split, n in zip(SPLITS, (9, 5, 5), strict=True)}
    flat = load_task(dataset_of(labels, task=EMOTION), EMOTION)
    layer = {s: random_tracks(np.random.default_rng(0), len(p)) for s, p in flat.splits.items()}
    with pytest.raises(TaskError, match="undefined on the 5 validation tracks"):
        run_probe(features_of({0: layer}), flat, probe="mlp", probe_options=SMALL)


def test_mlp_is_made_by_its_name():
    name, model = make_probe("mlp", "regression", seed=3)
    assert (name, model.seed) == ("mlp", 3)
    assert model.grid == ({"learning_rate": 1e-3, "checkpoint": "best-val"},)
