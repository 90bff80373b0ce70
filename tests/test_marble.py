"""Parity with MARBLE v2, against the slow reference of ``marble_reference.py``."""

from __future__ import annotations

import dataclasses
import json

import mir_eval
import numpy as np
import pytest
import torch
from command_line import tune
from marble_reference import Head, file_predictions, slices_of_file
from sklearn.metrics import accuracy_score, average_precision_score, r2_score, roc_auc_score
from stage_two_world import dataset_of, features_of, random_tracks

import tune_cache
from tune_cache.audio import decode, write_wav
from tune_cache.commands.protocol import slices_of, stores_of
from tune_cache.datasets.base import Task
from tune_cache.datasets.protocols import MARBLE_V2, profile_of, profiles_of
from tune_cache.datasets.published import CATALOG
from tune_cache.encoders.base import get_encoder
from tune_cache.errors import AudioError, TaskError, UsageError
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.marble import marble_options, marble_warnings
from tune_cache.probes.mlp import MLP
from tune_cache.probes.tasks import load_task
from tune_cache.probes.training import generator_of
from tune_cache.segments import cut, slice_spec, take
from tune_cache.specs import EncoderSpec, StoreSpec

SPLITS = ("train", "val", "test")
# of FACTS' table, typed a second time: slice, layers, rate, channels, batch, epochs, patience
TABLE = {
    "EMO": (15, "6", 1e-3, "first", 64, 50, 20, "outputs"),
    "GTZANGenre": (30.2, "6", 5e-3, "first", 64, 50, 20, "probabilities"),
    "GS": (30, "mix", 1e-3, "first", 64, 50, 20, "outputs"),
    "MTT": (30, "mix", 1e-3, "mix", 128, 50, 10, "outputs"),
    "MTGGenre": (30, "mix", 1e-3, "mix", 128, 20, 10, "outputs"),
    "MTGInstrument": (30, "mix", 1e-3, "mix", 128, 20, 10, "outputs"),
    "MTGMood": (30, "mix", 1e-3, "mix", 128, 20, 10, "outputs"),
    "MTGTop50": (30, "mix", 1e-3, "mix", 128, 20, 10, "outputs"),
}


def test_profiles_are_those_of_the_facts_and_of_tasks_that_the_catalog_has():
    found = {
        name: (
            one.slice_seconds, one.layer, one.learning_rate, one.channels,
            one.batch_size, one.max_epochs, one.patience, one.average,
        )
        for name, one in MARBLE_V2.items()
    }  # fmt: skip
    assert found == TABLE
    assert {(one.hidden, one.dropout, one.least_share, one.seed) for one in MARBLE_V2.values()} == {
        (512, 0.2, 0.8, 1234)
    }
    for name, profile in MARBLE_V2.items():
        (task,) = CATALOG[name].tasks
        assert (task.name, task.kind) == (name, profile.kind)
    assert list(MARBLE_V2["EMO"].constants.items()) == [
        ("arousal", (4.7560632, 1.3860097)),
        ("valence", (4.9738646, 1.2546189)),
    ]


# --- slices


def spec_of(slice_s):
    return slice_spec(slice_s, least_share=0.8, sample_rate_hz=24_000, min_samples=1)


def our_slices(path, slice_s, channels):
    spec = spec_of(slice_s)
    samples = decode(path, sample_rate_hz=24_000, channels=channels, slices=spec.slices).samples
    return np.array([take(samples, piece, spec) for piece in cut(len(samples), spec)])


def noise(path, n_frames, rate, n_channels=1, seed=0):
    rng = np.random.default_rng(seed)
    samples = 0.3 * rng.standard_normal((n_frames, n_channels)).clip(-3, 3).astype("f4")
    write_wav(path, samples if n_channels > 1 else samples[:, 0], rate)


def around(clip):
    """Lengths in frames: short of a slice, whole slices, tails around 0.8 of one."""
    least = -(-8 * clip // 10)
    tails = (0, 1, least - 1, least, least + 1, clip - 1)
    return [least, clip, *(n * clip + tail for n in (1, 3) for tail in tails)]


@pytest.mark.parametrize("rate", [44_100, 22_050, 24_000, 48_000, 16_000, 11_025])
@pytest.mark.parametrize("channels", ["first", "mix"])
def test_slices_equal_the_reference_sample_for_sample(tmp_path, rate, channels):
    slice_s = 0.3
    for n_frames in around(int(slice_s * rate)):
        path = tmp_path / f"{n_frames}.wav"
        noise(path, n_frames, rate, 2, n_frames)
        expected = slices_of_file(path, slice_s, channels)
        found = our_slices(path, slice_s, channels)
        assert found.shape == expected.shape, n_frames
        # soxr's result may depend on how often it is asked, never beyond rounding
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-7)


def test_a_gtzan_file_is_one_slice_padded_to_its_full_length(tmp_path):
    noise(tmp_path / "a.wav", 661_794, 22_050)  # 30.013 s, as most of them
    found = our_slices(tmp_path / "a.wav", 30.2, "first")
    assert found.shape == (1, 724_800)
    np.testing.assert_array_equal(found, slices_of_file(tmp_path / "a.wav", 30.2, "first"))
    n_silent = 724_800 - round(661_794 * 24_000 / 22_050)
    assert not found[0, -n_silent:].any()
    assert found[0, -n_silent - 100 : -n_silent].any()


def test_slices_are_the_same_however_a_file_is_read(tmp_path):
    from tune_cache.audio import DecodePool

    path = tmp_path / "a.wav"
    noise(path, 44_100 * 4 + 37_000, 44_100, 2)
    slices = spec_of(1.0).slices
    here = decode(path, sample_rate_hz=24_000, slices=slices)
    with DecodePool(1, sample_rate_hz=24_000, slices=slices) as pool:
        there = pool.submit("a", path).result()
    np.testing.assert_array_equal(here.samples, there.samples)
    assert here.facts.n_samples == len(here.samples) > 4 * 24_000


def test_what_is_too_short_for_a_slice_is_said(tmp_path):
    clip = int(0.5 * 8000)
    noise(tmp_path / "a.wav", int(0.8 * clip) - 1, 8000)
    with pytest.raises(AudioError, match=r"has 0.4 s, expected at least 0.8 of a slice of 0.5 s"):
        decode(tmp_path / "a.wav", sample_rate_hz=24_000, slices=(0.5, 0.8))
    noise(tmp_path / "b.wav", 3 * clip + 800, 8000)
    facts = decode(tmp_path / "b.wav", sample_rate_hz=24_000, slices=(0.5, 0.8)).facts
    assert facts.notes == ("its last 0.1 s are too short for a slice",)


def store_spec(segments):
    encoder = EncoderSpec(name="muq", weights_sha256="0" * 64, config_sha256="0" * 64)
    return StoreSpec(encoder=encoder, segments=segments, layers=(0,), resampler="r", decoder="d")


def test_the_grid_is_part_of_a_key_only_where_it_is_used():
    emo = spec_of(15)
    plain = dataclasses.replace(emo, grid="encoder")
    assert "grid" not in store_spec(plain).to_json()["segments"]
    assert store_spec(emo).to_json()["segments"]["grid"] == "file"
    assert len({store_spec(one).key for one in (emo, plain, spec_of(30), spec_of(30.2))}) == 4
    for one in (emo, plain):
        spec = store_spec(one)
        assert StoreSpec.from_json(spec.to_json()) == spec
    with pytest.raises(UsageError, match="grid is 'file', expected 'encoder'"):
        dataclasses.replace(emo, tail="keep")
    with pytest.raises(UsageError, match="no whole numbers of samples"):
        spec_of(0.302)


# --- the head


@pytest.mark.parametrize("name", ["EMO", "GTZANGenre", "GS", "MTT"])
def test_the_first_update_is_torch_s_to_1e_6(name):
    """One batch, one step; what differs is the order of float32 sums."""
    profile = MARBLE_V2[name]
    rng = np.random.default_rng(1)
    n, dim, shape = 48, 24, (13,) if profile.layer == "mix" else ()
    X = rng.standard_normal((n, *shape, dim)).astype("f4")
    task = Task(name=name, label="label", kind=profile.kind, targets=tuple(profile.constants))
    y, target, criterion = {
        "regression": lambda: (
            y := 5 + rng.standard_normal((n, 2)),
            torch.tensor((y - [4.7560632, 4.9738646]) / [1.3860097, 1.2546189]),
            torch.nn.MSELoss(),
        ),
        "multiclass": lambda: (y := np.arange(n) % 4, torch.tensor(y), torch.nn.CrossEntropyLoss()),
        "multilabel": lambda: (
            y := (rng.random((n, 5)) < 0.3).astype(float),
            torch.tensor(y),
            torch.nn.BCEWithLogitsLoss(),
        ),
    }[profile.kind]()
    options = marble_options(profile, task)
    once = dataclasses.replace(options.schedule, max_epochs=1)
    never = dataclasses.replace(once, learning_rate=1e-30)

    def weights(schedule):
        options_ = dataclasses.replace(options, schedule=schedule, device="cpu")
        model = MLP(profile.kind, seed=7, options=options_).fit(X, y, standardise=True)
        return dict(model._network.named_parameters())

    before, after = weights(never), weights(once)
    n_outputs = before["weight_out"].shape[-1]
    head = Head(13 if shape else 0, dim, n_outputs, before)
    order = torch.randperm(n, generator=generator_of(7, 1))
    kept = torch.rand((n, 512), generator=generator_of(7, 2)) >= 0.2
    adam = torch.optim.Adam(head.parameters(), lr=profile.learning_rate)
    criterion(head(torch.tensor(X)[order], kept), target[order]).backward()
    adam.step()
    moved = 0
    for key, expected in head.weights().items():
        assert after[key].shape == expected.shape
        # where a gradient is exactly zero both stay; a step is ± the learning rate elsewhere
        np.testing.assert_allclose(after[key].numpy(), expected.detach().numpy(), rtol=0, atol=1e-6)
        moved += int((after[key] != before[key]).sum())
    assert moved > 10_000


WORLDS = {
    "EMO": [(5.0, 4.0), (4.0, 6.0), (6.0, 5.0), (3.0, 3.5)],
    "GTZANGenre": ["blues", "jazz", "rock"],
    "GS": ["C major", "A minor", "G major", "Eb minor"],
    "MTT": [(), ("guitar",), ("guitar", "slow"), ("slow", "vocal")],
}


@pytest.mark.parametrize("name", list(WORLDS))
def test_test_scores_are_the_reference_s(name, monkeypatch):
    """Average the slices of a file by loops, score by the metrics' own packages."""
    profile = MARBLE_V2[name]
    (task,) = CATALOG[name].tasks
    rng = np.random.default_rng(3)
    labels = {
        split: [WORLDS[name][k % len(WORLDS[name])] for k in rng.permutation(n)]
        for split, n in zip(SPLITS, (40, 16, 24), strict=True)
    }
    data = load_task(dataset_of(labels, task=task), task)
    n_layers = 3 if profile.layer == "mix" else 1
    by_layer = {layer: {} for layer in range(n_layers)}
    for split, part in data.splits.items():
        tracks = random_tracks(rng, len(part), dim=n_layers * 10, lengths=(1, 3))
        for layer in by_layer:
            values = tracks.values[:, 10 * layer : 10 * layer + 10]
            by_layer[layer][split] = dataclasses.replace(tracks, values=values)
    models = []
    fit = MLP.fit_together
    monkeypatch.setattr(
        MLP, "fit_together", lambda some, *a, **k: (models.extend(some), fit(some, *a, **k))
    )
    options = marble_options(profile, task)
    quick = dataclasses.replace(options.schedule, max_epochs=5)
    (result,) = run_probe(
        features_of(by_layer),
        data,
        aggregation="slices",
        probe="mlp",
        probe_options=dataclasses.replace(options, schedule=quick),
        layer="mix" if n_layers > 1 else "0",
        n_resamples=1,
    )
    weights = dict(models[0]._network.named_parameters())
    head = Head(n_layers if n_layers > 1 else 0, 10, weights["weight_out"].shape[-1], weights)
    test = [by_layer[layer]["test"] for layer in by_layer]
    stacked = [
        np.stack([part[track] for part in test], axis=1) if n_layers > 1 else test[0][track]
        for track in range(24)
    ]
    found = file_predictions(head, stacked, profile.average)
    truth = data.splits["test"].truth
    scores = {metric: score.value for metric, score in result.scores["test"].items()}
    if name == "EMO":
        found = found * [1.3860097, 1.2546189] + [4.7560632, 4.9738646]
        expected = {
            "r2": r2_score(truth, found),
            "r2_arousal": r2_score(truth[:, 0], found[:, 0]),
            "r2_valence": r2_score(truth[:, 1], found[:, 1]),
        }
    elif name == "MTT":
        expected = {
            "roc_auc": roc_auc_score(truth, found, average="macro"),
            "ap": average_precision_score(truth, found, average="macro"),
        }
    else:
        chosen = found.argmax(axis=1)
        expected = {"accuracy": accuracy_score(truth, chosen)}
        if name == "GS":
            pairs = [(data.classes[a], data.classes[b]) for a, b in zip(truth, chosen, strict=True)]
            expected["weighted_key"] = np.mean(
                [mir_eval.key.weighted_score(*pair) for pair in pairs]
            )
    assert expected.items() <= {k: pytest.approx(v, abs=1e-6) for k, v in scores.items()}.items()


# --- the verbs


@pytest.fixture(scope="module")
def emo(tmp_path_factory):
    """EMO as MARBLE publishes it, by its names; one file in two slices, one too short."""
    folder = tmp_path_factory.mktemp("marble")
    (folder / "data/EMO/wav").mkdir(parents=True)
    rng = np.random.default_rng(4)
    seconds = {
        "train": [16, 15, 27.2, 15, 12, 16],
        "val": [15, 15, 15],
        "test": [15, 29.9, 15, 11.9],
    }
    for split, some in seconds.items():
        lines = []
        for number, length in enumerate(some):
            path = f"data/EMO/wav/{split}{number}.wav"
            noise(folder / path, int(length * 8000), 8000, seed=number)
            lines.append({"audio_path": path, "label": rng.uniform(2, 8, 2).tolist()})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"data/EMO/EMO.{split}.jsonl").write_text(text)
    (folder / "tune.toml").write_text(
        '[defaults]\ncache_dir = "cache"\nencoder = "mel"\nseg = 10\n'
    )
    done = tune(folder, "extract", "EMO", "--protocol", "marble-v2")
    return folder, done


def test_a_store_of_slices_has_the_reference_s_vectors(emo):
    folder, done = emo
    assert done.returncode == 3, done.stderr  # the track that is too short
    assert "expected at least 0.8 of a slice of 15 s" in done.stderr + done.stdout
    (path,) = (folder / "cache/v1/mel").glob("*.zarr")
    store = tune_cache.open_store(path)
    encoder = get_encoder("mel").load(
        path=None, precision="fp32", device="cpu", layers=store.layers, poolings=("mean",),
        max_memory_bytes=None,
    )  # fmt: skip
    assert [name[-9:] for name in store.failed] == ["test3.wav"]
    for name in [name for name in store.track_ids if name not in store.failed]:
        slices = slices_of_file(folder / name, 15, "first")
        expected = encoder.embed(slices)["mean"]
        found = store.read([name]).values
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected.astype("f2"), rtol=2e-3, atol=2e-3)
    assert store.read(["data/EMO/wav/test1.wav"]).lengths.tolist() == [2]
    assert tune(folder, "cache", "verify", str(path)).returncode == 0


def test_a_profile_is_probed_from_the_command_line(emo):
    folder, _ = emo
    asked = ("probe", "EMO", "--protocol", "marble-v2", "--layer", "3", "--json")
    done = tune(folder, *asked, "--seed", "1", "--seed", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [row["seed"] for row in found["rows"]] == [1, 2]
    row = found["rows"][0]
    assert (row["aggregation"], row["probe"], row["seg"]) == ("slices", "mlp marble-v2 EMO", "15")
    assert row["params"]["learning_rate"] == 1e-3
    assert any("takes layer 6, this run 3" in text for text in row["warnings"])
    last = json.loads(tune(folder, *asked, "--checkpoint", "last").stdout)["rows"][0]
    assert last["probe"] == "mlp marble-v2 EMO last"
    assert (last["seed"], last["params"]["checkpoint"]) == (1234, "last")
    done = tune(folder, *asked[:4])
    assert done.returncode == 1
    assert "profile EMO takes layer 6, and store 'seg15-" in done.stderr
    assert "with --layer" in done.stderr


def test_slices_are_found_by_their_protocol_only(emo):
    folder, _ = emo
    done = tune(folder, "probe", "EMO", "--seg", "15")
    assert done.returncode == 1
    assert "no store" in done.stderr
    (path,) = (folder / "cache/v1/mel").glob("*.zarr")
    spec = tune_cache.open_store(path).spec
    for name, profile in MARBLE_V2.items():
        assert stores_of([profile])(spec) == (name == "EMO")
    again = tune(folder, "extract", "EMO", "--protocol", "marble-v2")
    assert "found" in again.stdout


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        (("extract", "EMO", "--seg", "15"), "--seg is (15.0,), but --protocol marble-v2 decides"),
        (("extract", "EMO", "--tail", "keep"), "--tail is 'keep', but --protocol"),
        (("extract", "EMO", "--channels", "mix"), "--channels is 'mix', but --protocol"),
        (("probe", "EMO", "--agg", "max"), "--agg is ('max',), but --protocol"),
        (("probe", "EMO", "--probe", "ridge"), "--probe is ('ridge',), but --protocol"),
        (("probe", "EMO", "--shots", "1"), "--shots is (1,), but --protocol"),
    ],
)
def test_what_a_protocol_decides_is_not_to_be_given(emo, asked, match):
    done = tune(emo[0], *asked, "--protocol", "marble-v2")
    assert done.returncode == 2
    assert match in done.stderr


def test_an_unknown_protocol_is_refused(emo):
    done = tune(emo[0], "extract", "EMO", "--protocol", "marble")
    assert done.returncode == 2
    assert "--protocol is 'marble', expected tune or marble-v2" in done.stderr


def test_a_sweep_says_that_it_follows_no_protocol(emo, tmp_path):
    (tmp_path / "tune.toml").write_text('[defaults]\nprotocol = "marble-v2"\n')
    done = tune(tmp_path, "sweep", str(emo[0] / "data/EMO/EMO"))
    assert done.returncode == 2
    assert "a sweep follows no protocol" in done.stderr


def test_a_dataset_without_a_profile_says_which_there_are_and_tune_toml_maps_one(emo, tmp_path):
    folder = emo[0]
    manifest = folder / "data/EMO/EMO"
    toml = f'[datasets.mine]\nmanifests = "{manifest}"\ndata_root = "{folder}"\n'
    (tmp_path / "tune.toml").write_text(toml)
    done = tune(tmp_path, "extract", "mine", "--protocol", "marble-v2", "--encoder", "mel")
    assert done.returncode == 2
    assert "no profile for task 'mine' of dataset 'mine'; it has EMO, GTZANGenre, GS" in done.stderr
    assert 'protocol_task = "' in done.stderr
    (tmp_path / "tune.toml").write_text(toml + 'protocol_task = "MTG"\n')
    assert "protocol_task is 'MTG'" in tune(tmp_path, "probe", "mine").stderr
    (tmp_path / "tune.toml").write_text(toml + 'protocol_task = "GS"\n')
    done = tune(tmp_path, "probe", "mine", "--protocol", "marble-v2")
    assert "task 'mine' is regression, and profile GS of marble-v2 is for multiclass" in done.stderr
    (tmp_path / "tune.toml").write_text(toml + 'protocol_task = "EMO"\n')
    cache = ("--cache-dir", str(folder / "cache"))
    done = tune(tmp_path, "probe", "mine", "--protocol", "marble-v2", "--layer", "3", *cache)
    assert done.returncode == 0, done.stderr
    assert "mlp marble-v2 EMO" in done.stdout


def test_profiles_are_of_tasks_and_one_store_serves_those_that_cut_alike():
    labels = {split: ["a", "b"] for split in SPLITS}
    keys = Task(name="key", label="label", kind="multiclass", protocol_task="GS")
    genre = Task(name="GTZANGenre", label="label", kind="multiclass")
    dataset = dataclasses.replace(dataset_of(labels), tasks=(keys, genre, keys))
    assert [one.name for one in profiles_of(dataset)] == ["GS", "GTZANGenre"]
    assert profile_of(dataset, keys).name == "GS"
    with pytest.raises(TaskError, match="has no task"):
        profiles_of(dataclasses.replace(dataset, tasks=()))
    assert slices_of(MARBLE_V2["GS"], sample_rate_hz=24_000, min_samples=1) == spec_of(30)


def test_constants_belong_to_targets_by_name_and_others_are_said():
    emo = MARBLE_V2["EMO"]
    swapped = Task(name="t", label="l", kind="regression", targets=("valence", "arousal"))
    assert marble_options(emo, swapped).constants == (
        (4.9738646, 1.2546189),
        (4.7560632, 1.3860097),
    )
    other = Task(name="t", label="l", kind="regression", targets=("tension",))
    assert marble_options(emo, other).constants is None
    assert "z-scored by the training tracks" in marble_warnings(emo, other, "6")[0]
    assert marble_warnings(emo, swapped, "6") == ()
