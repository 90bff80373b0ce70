"""What is trained with a head: finds order, finds nothing in noise, and repeats itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from stage_two_world import classes_world, features_of
from test_stage_two_sanity import shuffled_world
from trained_world import TINY, order_world

from tune_cache.aggregation.attention import Attention
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import StoreMismatchError, TaskError, UsageError
from tune_cache.probes import joint
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.features import joined
from tune_cache.probes.workshop import Unlabelled, Workshop

TUNED = {**TINY, "finetune": True, "learning_rate": 1e-2}
PLACED = {"positions": "learned", "hidden": 16}
PARTS = {
    "transformer": ("transformer", TINY, "0"),
    "finetune": ("transformer", TUNED, "0"),
    "attention": ("attention", {"hidden": 8}, "0"),
    "attention with positions": ("attention", PLACED, "0"),
    "mix of means": ("mean", {}, "mix"),
    "mix of transformers": ("transformer", TINY, "mix"),
    "mix and attention": ("attention", {"hidden": 8}, "mix"),
}


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(joint, "MOST_STEPS", 40)
    monkeypatch.setattr(joint, "PATIENCE_STEPS", 20)


def probed(data, features, part, **asked):
    aggregation, options, layer = PARTS[part] if isinstance(part, str) else part
    (result,) = run_probe(
        features,
        data,
        aggregation=aggregation,
        aggregation_options=options,
        **{"layer": layer, "n_resamples": 1} | asked,
    )
    return result


def score(result):
    return result.scores["test"][result.metric].value


def test_order_is_found_by_what_can_see_it_and_not_by_a_mean(monkeypatch):
    monkeypatch.setattr(joint, "RATE", 2e-2)
    monkeypatch.setattr(joint, "MOST_STEPS", 240)
    monkeypatch.setattr(joint, "PATIENCE_STEPS", 200)
    data, features = order_world(np.random.default_rng(0), n=(60, 20, 120), strength=4)
    scores = {
        part: score(probed(data, features, part))
        for part in ("finetune", "attention with positions")
    }
    scores["mean"] = score(probed(data, features, ("mean", {}, "0")))
    assert scores["finetune"] > 0.75  # chance is 0.5, with a standard error of 0.046
    assert scores["attention with positions"] > 0.9
    assert abs(scores["mean"] - 0.5) < 0.14


@pytest.mark.parametrize("part", PARTS)
def test_shuffled_labels_stay_at_chance(part, monkeypatch):
    monkeypatch.setattr(joint, "MOST_STEPS", 40)
    worlds = [shuffled_world(seed, "multiclass", n=(24, 12, 300)) for seed in range(2)]
    scores = [score(probed(data, features, part)) for data, features in worlds]
    assert abs(np.mean(scores) - 0.5) < 3 * np.sqrt(0.25 / (2 * 300))


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_shuffled_tags_and_targets_are_not_predicted(kind, monkeypatch):
    monkeypatch.setattr(joint, "MOST_STEPS", 40)
    for part in ("finetune", "mix and attention"):
        found = []
        for seed in range(2):
            data, features = shuffled_world(seed, kind, n=(24, 12, 150))
            found.append(score(probed(data, features, part)))
        chance = 0.0 if kind == "regression" else 0.5
        assert np.mean(found) < chance + (0.05 if kind == "regression" else 0.1)


@pytest.mark.parametrize("part", ["finetune", "attention with positions", "mix of transformers"])
def test_two_runs_with_one_seed_agree_and_another_seed_differs(part, monkeypatch):
    monkeypatch.setattr(joint, "MOST_STEPS", 20)
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    one, two = (probed(data, features, part) for _ in range(2))
    assert one.predictions == two.predictions
    assert one.trained == two.trained
    assert one.segment_weights == two.segment_weights
    other = probed(data, features, part, seed=7)
    assert other.trained != one.trained or other.segment_weights != one.segment_weights


def test_a_mix_finds_the_layer_that_carries_the_signal(monkeypatch):
    monkeypatch.setattr(joint, "RATE", 3e-2)
    monkeypatch.setattr(joint, "MOST_STEPS", 200)
    monkeypatch.setattr(joint, "PATIENCE_STEPS", 100)
    data, features = classes_world(
        np.random.default_rng(0), layers=(0, 1, 2), signal=(1,), strength=2
    )
    for part in ("mix of means", "mix and attention"):
        result = probed(data, features, part)
        weights = result.trained["layer_weights"]
        assert sum(weights) == pytest.approx(1, abs=1e-3)
        assert np.argmax(weights) == 1
        assert weights[1] > 0.5
        assert score(result) > 0.8  # the layer alone has 0.95
        assert result.layer == result.layer_asked == "mix"


def test_an_mlp_head_may_be_asked_for_and_other_probes_may_not():
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    assert probed(data, features, "attention", probe="mlp").probe == "mlp"
    assert probed(data, features, "attention").probe == "linear"
    with pytest.raises(TaskError, match="'knn' cannot be trained together"):
        probed(data, features, "attention", probe="knn")
    with pytest.raises(UsageError, match="probe is 'linear'"):
        probed(data, features, ("mean", {}, "0"), probe="linear")


def test_several_lengths_can_be_mixed_over_layers():
    data, features = classes_world(
        np.random.default_rng(0), n=(21, 9, 9), layers=(0, 1), signal=(1,)
    )
    result = probed(data, joined([features, features]), ("multiscale-concat", {}, "mix"))
    assert result.n_features == 16
    assert len(result.trained["layer_weights"]) == 2


def test_best_is_the_last_layer_for_what_is_trained_and_is_told():
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), layers=(0, 3))
    result = probed(data, features, ("transformer", TINY, "best"))
    assert (result.layer_asked, result.layer) == ("last", "3")
    assert any("trained at one layer" in text for text in result.warnings)


def test_weights_of_segments_are_a_share_each_and_padding_has_none():
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    result = probed(data, features, "attention")
    tracks = features.of_layer(0)
    for split, part in data.splits.items():
        for place, track_id in enumerate(part.track_ids):
            weights = result.segment_weights[track_id]
            assert len(weights) == tracks[split].lengths[place]
            assert sum(weights) == pytest.approx(1, abs=1e-5)
            assert min(weights) >= 0
    assert probed(data, features, ("mean", {}, "0")).segment_weights == {}


@pytest.mark.parametrize("part", ["attention", "finetune", "mix and attention"])
def test_a_track_is_predicted_alike_in_any_company(part, monkeypatch):
    """Among longer tracks, which it is padded to in training, and by itself."""
    monkeypatch.setattr(joint, "MOST_STEPS", 20)
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    fitted = {}

    def keep(self, *given, **settings):
        fitted["model"] = made = build(self, *given, **settings)
        return made

    build = Workshop.joint
    monkeypatch.setattr(Workshop, "joint", keep)
    probed(data, features, part)
    model = fitted["model"]
    test = features.of_layer(0)["test"]
    if part.startswith("mix"):
        test = dataclasses.replace(test, values=test.values[:, None])
    network = model._network().outputs
    together = model._computed(test, network)
    for place in range(len(test)):
        np.testing.assert_array_equal(model._computed(test[[place]], network)[0], together[place])


def test_what_is_trained_is_kept_and_read_again(tmp_path, monkeypatch):
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    workshop = Workshop(folder=tmp_path)
    first = {part: probed(data, features, part, workshop=workshop) for part in PARTS}
    n_files = len(list(tmp_path.iterdir()))
    assert n_files > len(PARTS)  # fine-tuning keeps what it started from too

    def never(*given, **settings):
        raise AssertionError("trained again")

    monkeypatch.setattr(joint, "train", never)
    monkeypatch.setattr("tune_cache.aggregation.transformer.pretrain", never)
    for part, result in first.items():
        again = probed(data, features, part, workshop=workshop)
        assert again.predictions == result.predictions
        assert again.trained == result.trained
    assert len(list(tmp_path.iterdir())) == n_files


def test_weights_trained_on_other_data_are_refused(tmp_path):
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    other, others = classes_world(np.random.default_rng(1), n=(21, 9, 9), signal=(0,))
    for part in ("transformer", "attention"):
        folder = tmp_path / part
        probed(other, others, part, workshop=Workshop(folder=folder))
        (path,) = folder.iterdir()
        probed(other, others, part, workshop=Workshop(exactly=path))
        with pytest.raises(StoreMismatchError, match="vectors is"):
            probed(data, features, part, workshop=Workshop(exactly=path))
        with pytest.raises(StoreMismatchError, match="seed"):
            probed(other, others, part, workshop=Workshop(exactly=path), seed=7)


def test_validation_and_test_change_nothing_that_was_learnt(tmp_path):
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    layer = dict(features.of_layer(0))
    for split in ("val", "test"):
        layer[split] = dataclasses.replace(layer[split], values=layer[split].values + 9)
    for part in ("transformer", "finetune", "mix and attention"):
        folder = tmp_path / part
        probed(data, features, part, workshop=Workshop(folder=folder))
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        probed(data, features_of({0: layer}), part, workshop=Workshop(folder=folder))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_collection_can_be_pre_trained_on(tmp_path):
    data, features = classes_world(np.random.default_rng(0), n=(21, 9, 9), signal=(0,))
    rng = np.random.default_rng(3)
    more = Ragged.from_tracks([rng.standard_normal((3, 8)).astype("f4") for _ in range(50)])
    names = tuple(f"m{place}" for place in range(50))
    source = Unlabelled(name="more", tracks_of=lambda _: more, track_ids=names, groups=names)
    workshop = Workshop(folder=tmp_path, source=source)
    for part in ("transformer", "finetune"):
        result = probed(data, features, part, workshop=workshop)
        assert result.trained["pretraining"]["tracks"] == 50
        assert result.aggregation_options["pretrain_on"] == "more"
    assert len(list(tmp_path.iterdir())) == 3


def test_few_groups_are_all_learnt_from_and_that_is_said():
    data, features = classes_world(np.random.default_rng(0), n=(9, 6, 6), signal=(0,))
    result = probed(data, features, "attention")
    assert result.trained["held_out"] == 0
    assert any("too few groups in train" in text for text in result.warnings)


def test_attention_alone_has_nothing_to_learn_from():
    with pytest.raises(TaskError, match="trained with a probe's head"):
        Attention().fit([np.eye(2)])
