"""Loading a dataset: every form of the DATASET argument, defaults, tune.toml, the catalog."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tune_cache.datasets.base import SPLITS, Dataset, Task
from tune_cache.datasets.catalog import default_dataset, load_dataset
from tune_cache.datasets.config import Config, read_config
from tune_cache.datasets.published import CATALOG
from tune_cache.errors import ManifestError, UsageError
from tune_cache.probes.metrics import metrics_of


def write(path: Path, *records: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_set(
    prefix: Path, label: Any = "x", splits: tuple[str, ...] = SPLITS, **more: Any
) -> None:
    for split in splits:
        write(
            prefix.with_name(f"{prefix.name}.{split}.jsonl"),
            {"audio_path": f"{split}.wav", "label": label, **more},
        )


def load(name: object, text: str = "", **arguments: Any) -> Dataset:
    """Load with a tune.toml of this text in the working directory, or none."""
    config = Config()
    if text:
        Path("tune.toml").write_text(text)
        config = read_config(Path("tune.toml"))
    return load_dataset(None if name is None else str(name), config=config, **arguments)


def splits_of(dataset: Dataset) -> list[str]:
    return [track.split for track in dataset.tracks]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNE_DATASET", raising=False)
    return tmp_path


# --- forms


@pytest.mark.parametrize(
    "form", ["lists/birds", "./lists/birds", "lists", "lists/", "{}/lists/birds"]
)
def test_prefix_and_folder_stand_for_three_manifests(form, here):
    write_set(here / "lists" / "birds")
    dataset = load(form.format(here))
    assert dataset.name == "birds"
    assert splits_of(dataset) == ["test", "train", "val"]
    assert dataset.tasks == (Task(name="birds", label="label", kind="multiclass"),)
    assert dataset.encoder == "muq"


def test_folder_with_several_sets_lists_what_to_type(here):
    write_set(here / "lists" / "birds")
    write_set(here / "lists" / "bees", splits=("train",))
    with pytest.raises(UsageError, match="holds 2 datasets: 'bees', 'birds'") as caught:
        load("lists")
    assert caught.value.hint == "type one of: lists/bees, lists/birds"


def test_folder_above_a_set_says_where_it_is(here):
    write_set(here / "data" / "lists" / "birds")
    with pytest.raises(UsageError, match="folder 'data' holds no manifests") as caught:
        load("data")
    assert caught.value.hint == "type one of: data/lists/birds"


def test_folder_without_manifests_points_to_scan(here):
    (here / "audio").mkdir()
    with pytest.raises(UsageError, match="holds no manifests") as caught:
        load("audio")
    assert "tune dataset scan audio" in (caught.value.hint or "")


def test_notes_beside_a_set_do_not_make_the_folder_ambiguous(here):
    write_set(here / "lists" / "birds")
    write(here / "lists" / "notes.jsonl", {"anything": 1})
    assert load("lists").name == "birds"


def test_prefix_wins_over_a_folder_of_its_name(here):
    write_set(here / "birds")
    write_set(here / "birds" / "inner")
    assert load("birds").name == "birds"
    assert load("birds/inner").name == "inner"


def test_one_split_is_that_split_only_and_absent_splits_are_noted(here):
    write_set(here / "birds")
    dataset = load("birds.val.jsonl")
    assert (dataset.name, splits_of(dataset)) == ("birds", ["val"])
    assert dataset.note.endswith("; no track in train, test")
    (here / "birds.val.jsonl").unlink()
    assert load("birds").note.endswith("; no track in val")


def test_one_file_with_a_split_key_has_these_splits(here):
    words = ["train", "validation", "val", "dev", "valid", "test", "training", "testing"]
    records = [{"audio_path": f"{word}.wav", "split": word} for word in words]
    write(here / "all.jsonl", *records)
    expected = dict(zip(words, ["train", *["val"] * 4, "test", "train", "test"], strict=True))
    for form in ("all.jsonl", "all"):
        tracks = load(form).tracks
        assert {track.audio_path.removesuffix(".wav"): track.split for track in tracks} == expected


def test_one_file_without_splits_is_all_train_and_says_so(here):
    write(here / "all.jsonl", {"audio_path": "a.wav", "label": "x"})
    dataset = load("all.jsonl")
    assert splits_of(dataset) == ["train"]
    assert "names no splits" in dataset.note


@pytest.mark.parametrize("word", [None, "holdout", 3, ["train"]], ids=repr)
def test_unknown_split_is_an_error_with_its_line(word, here):
    record = {"audio_path": "b.wav"} | ({} if word is None else {"split": word})
    write(here / "all.jsonl", {"audio_path": "a.wav", "split": "train"}, record)
    with pytest.raises(ManifestError, match=r"all.jsonl:2: split is .* one of train, val, test"):
        load("all.jsonl")


def test_split_in_the_file_name_wins_over_a_key(here):
    write(here / "birds.test.jsonl", {"audio_path": "a.wav", "split": "train"})
    [track] = load("birds").tracks
    assert (track.split, track.extra) == ("test", {"split": "train"})


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nothing", "no dataset 'nothing'"),
        ("a/b/c", "no dataset 'a/b/c'"),
        ("", "expected a name or a path"),
        ("a\0b", "expected a name or a path"),
        ("x" * 5000, "cannot be read|no dataset"),
        ("/", "holds no manifests|cannot be read"),
    ],
    ids=["nothing", "deep", "empty", "NUL", "long", "root"],
)
def test_name_that_stands_for_nothing_is_a_usage_error(name, match, here):
    with pytest.raises(UsageError, match=match):
        load(name)


def test_near_miss_of_a_name_is_suggested(here):
    with pytest.raises(UsageError) as caught:
        load("GTZANgenre")
    assert caught.value.hint == "did you mean 'GTZANGenre'?"


def test_audio_file_in_place_of_a_manifest_points_to_scan(here):
    (here / "a.wav").write_bytes(b"audio")
    with pytest.raises(UsageError, match=r"'a\.wav' is a file, expected a manifest"):
        load("a.wav")


def test_empty_manifests_are_an_error(here):
    write(here / "birds.train.jsonl")
    with pytest.raises(ManifestError, match="'birds' has no tracks"):
        load("birds")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_an_error_in_one_sentence(here):
    (here / "locked").mkdir(mode=0)
    with pytest.raises(UsageError, match="cannot be read: Permission denied"):
        load("locked")


# --- tune.toml


TOML = """
[datasets.mine]
manifests = ["lists/style", "lists/mood"]
data_root = "audio"
encoder = "mel"
"""


def test_named_dataset_merges_its_sets_relative_to_the_file(here, monkeypatch):
    write_set(here / "lists" / "style", label="rock")
    write_set(here / "lists" / "mood", label=[0.5, 1.0])
    config_text = TOML
    (here / "deep").mkdir()
    Path("tune.toml").write_text(config_text)
    monkeypatch.chdir(here / "deep")
    dataset = load_dataset("mine")
    assert (dataset.name, dataset.encoder) == ("mine", "mel")
    assert dataset.data_root == here / "audio"
    assert len(dataset.tracks) == 3
    assert dataset.tracks[0].labels == {"style": "rock", "mood": (0.5, 1.0)}
    assert [(task.name, task.kind) for task in dataset.tasks] == [
        ("style", "multiclass"),
        ("mood", "regression"),
    ]


def test_given_data_root_wins_over_the_configured_one(here):
    write_set(here / "lists" / "style")
    write_set(here / "lists" / "mood")
    assert load("mine", TOML, data_root=here / "other").data_root == here / "other"


def test_tasks_of_the_config_replace_those_found(here):
    write(
        here / "birds.train.jsonl",
        {"audio_path": "a.wav", "genre": "rock", "arousal": 1, "valence": 2, "year": 1999},
        {"audio_path": "b.wav", "genre": "jazz", "arousal": 3, "valence": 4, "year": 2001},
    )
    dataset = load(
        "mine",
        """
        [datasets.mine]
        manifests = "birds"
        [datasets.mine.tasks.style]
        label = "genre"
        metrics = ["macro_f1"]
        [datasets.mine.tasks.mood]
        label = ["arousal", "valence"]
        [datasets.mine.tasks.year]
        label = "year"
        kind = "regression"
        targets = "year"
        [datasets.mine.tasks.decade]
        label = "year"
        """,
    )
    assert dataset.tasks == (
        Task(name="style", label="genre", kind="multiclass", metrics=("macro_f1",)),
        Task(
            name="mood", label="arousal,valence", kind="regression", targets=("arousal", "valence")
        ),
        Task(name="year", label="year", kind="regression", targets=("year",)),
        Task(name="decade", label="year", kind="multiclass"),
    )
    assert dataset.tracks[0].labels == {
        "style": "rock",
        "mood": (1.0, 2.0),
        "year": (1999.0,),
        "decade": 1999,
    }


def test_sets_of_one_name_in_two_folders_are_one_task(here):
    write(here / "a" / "birds.train.jsonl", {"audio_path": "1.wav", "label": "x"})
    write(here / "b" / "birds.train.jsonl", {"audio_path": "2.wav", "label": "y"})
    dataset = load("all", "[datasets.all]\nmanifests = ['a/birds', 'b/birds']\n")
    assert [track.labels for track in dataset.tracks] == [{"all": "x"}, {"all": "y"}]
    assert [task.name for task in dataset.tasks] == ["all"]


def test_task_named_like_a_set_reads_that_set_only(here):
    write_set(here / "lists" / "style", label="rock")
    write_set(here / "lists" / "mood", label=[0.5, 1.0])
    tasks = "[datasets.mine.tasks.mood]\ntargets = ['a', 'v']\n"
    dataset = load("mine", TOML + tasks)
    assert dataset.tasks == (
        Task(name="mood", label="label", kind="regression", targets=("a", "v")),
    )


def test_task_that_reads_two_different_labels_is_an_error_naming_both_lines(here):
    write_set(here / "lists" / "style", label="rock")
    write_set(here / "lists" / "mood", label="sad")
    with pytest.raises(
        ManifestError, match=r"mood.test.jsonl:1: label 'sad'.*style.test"
    ) as caught:
        load("mine", TOML + "[datasets.mine.tasks.both]\n")
    assert "named like its manifest set" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ("label = 'genre'", "no record has the label 'genre' of task 't'"),
        ("kind = 'regression'", "label 'x' of task 't' is a string, expected regression"),
        ("kind = 'multilabel'", "is a string, expected multilabel"),
        ("label = ['label', 'other']", "is a mixed list, expected regression"),
    ],
)
def test_task_that_the_labels_cannot_support_is_an_error(task, match, here):
    write_set(here / "birds")
    text = f"[datasets.mine]\nmanifests = 'birds'\n[datasets.mine.tasks.t]\n{task}\n"
    with pytest.raises(ManifestError, match=match):
        load("mine", text)


def test_wrong_number_of_target_names_is_an_error(here):
    write_set(here / "birds", label=[1.0, 2.0])
    text = "[datasets.m]\nmanifests = 'birds'\n[datasets.m.tasks.t]\ntargets = ['a', 'b', 'c']\n"
    with pytest.raises(ManifestError, match="names 3 targets, its labels have 2"):
        load("m", text)


def test_partly_missing_targets_are_an_error_with_the_line(here):
    write(
        here / "birds.train.jsonl",
        {"audio_path": "a.wav", "arousal": 1.0, "valence": 2.0},
        {"audio_path": "b.wav", "arousal": 1.0},
        {"audio_path": "c.wav"},
    )
    text = "[datasets.m]\nmanifests = 'birds'\n[datasets.m.tasks.t]\nlabel = ['arousal', 'valence']"
    with pytest.raises(ManifestError, match=r"birds.train.jsonl:2: label \[1.0, None\]"):
        load("m", text)


def test_configured_manifests_that_are_not_there_are_named(here):
    with pytest.raises(UsageError, match=r"\[datasets.mine\] manifests: nothing at .*lists/style"):
        load("mine", TOML)


def test_configured_name_wins_over_a_path_and_the_catalog(here):
    write_set(here / "EMO")
    write_set(here / "lists" / "other")
    dataset = load("EMO", "[datasets.EMO]\nmanifests = 'lists/other'\n")
    assert dataset.tracks[0].manifest.endswith("other.test.jsonl")


# --- defaults


def test_nothing_given_means_variable_then_config_then_demo(here, monkeypatch):
    write_set(here / "birds")
    write_set(here / "bees")
    text = "[defaults]\ndataset = 'bees'\n"
    assert load(None, text).name == "bees"
    monkeypatch.setenv("TUNE_DATASET", "birds")
    assert load(None, text).name == "birds"
    assert default_dataset(Config(), {})[0] == "demo"
    assert default_dataset(Config(), {"TUNE_DATASET": "x"}) == ("x", here, "TUNE_DATASET")


def test_default_of_the_config_is_relative_to_its_folder(here, monkeypatch):
    write_set(here / "lists" / "bees")
    Path("tune.toml").write_text("[defaults]\ndataset = 'lists/bees'\n")
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")
    assert load_dataset().name == "bees"


# --- catalog


def test_catalog_name_is_found_in_marbles_layout(here):
    write_set(here / "data" / "EMO" / "EMO", label=[5.0, 4.0])
    emo = CATALOG["EMO"]
    for arguments in ({}, {"data_root": here}):
        dataset = load("EMO", **arguments)
        assert dataset.tasks == emo.tasks
        assert dataset.tasks[0].targets == ("arousal", "valence")
        assert (dataset.licence, dataset.citation) == (emo.licence, emo.citation)


def test_catalog_name_without_files_says_how_to_get_them(here):
    with pytest.raises(UsageError, match="'GTZANGenre' is in the catalog, but") as caught:
        load("GTZANGenre")
    assert "hf download m-a-p/GTZAN --repo-type dataset --local-dir data/GTZAN" in (
        caught.value.hint or ""
    )


def test_set_that_only_shares_a_catalog_name_keeps_its_own_kind(here):
    write_set(here / "EMO", label="sad")
    assert load("EMO").tasks == (Task(name="EMO", label="label", kind="multiclass"),)


def test_catalog_knows_a_set_under_another_dataset_name(here):
    write_set(here / "GTZANGenre")
    dataset = load("genres", "[datasets.genres]\nmanifests = 'GTZANGenre'\n")
    assert dataset.tasks == (
        Task(name="genres", label="label", kind="multiclass", metrics=("accuracy", "macro_f1")),
    )
    assert dataset.citation == CATALOG["GTZANGenre"].citation


def test_every_catalog_entry_says_what_a_user_must_know():
    assert list(CATALOG) == [
        "demo", "EMO", "GTZANGenre", "GS", "MTT",
        "MTGGenre", "MTGInstrument", "MTGMood", "MTGTop50", "NSynth", "VocalSet",
    ]  # fmt: skip
    for name, entry in CATALOG.items():
        assert entry.name == name
        assert entry.licence
        assert entry.citation
        assert entry.tasks
        assert entry.prefix.startswith("data/") or name == "demo"
        assert entry.hub or name in ("demo", "NSynth", "VocalSet")


def test_every_metric_of_the_catalog_is_one_that_probes_have():
    tasks = [task for entry in CATALOG.values() if entry.name != "demo" for task in entry.tasks]
    assert len(tasks) == 12
    for task in tasks:
        made = metrics_of(task.kind, task.targets, task.metrics, classes=("C major", "A minor"))
        assert made[0].name == task.metrics[0]


def test_catalog_tasks_are_judged_as_marble_judges_them():
    first = {task.name: task.metrics[0] for entry in CATALOG.values() for task in entry.tasks
             if task.metrics}  # fmt: skip
    tagging = dict.fromkeys(("MTT", "MTGGenre", "MTGInstrument", "MTGMood", "MTGTop50"), "roc_auc")
    classes = dict.fromkeys(
        ("GTZANGenre", "pitch", "instrument", "singer", "technique"), "accuracy"
    )
    assert first == {"EMO": "r2", "GS": "weighted_key", **tagging, **classes}


def test_catalog_name_without_published_manifests_says_what_they_need(here):
    with pytest.raises(UsageError, match="'NSynth' is in the catalog, but") as caught:
        load("NSynth")
    assert "'pitch', 'instrument_family_str'" in (caught.value.hint or "")


def test_nsynth_s_own_metadata_make_two_tasks(here):
    write_set(here / "data" / "NSynth" / "NSynth", pitch=60, instrument_family_str="bass")
    dataset = load("NSynth")
    assert [(task.name, task.kind) for task in dataset.tasks] == [
        ("pitch", "multiclass"),
        ("instrument", "multiclass"),
    ]


# --- the demo, rendered by a stand-in


@pytest.fixture
def demo(here, monkeypatch):
    """Stand in for the room that renders the demo."""
    asked: list[Path] = []

    def ensure_demo(root: Path) -> Path:
        asked.append(root)
        for index, split in enumerate(SPLITS):
            write(
                root / "demo-1" / f"demo.{split}.jsonl",
                {
                    "audio_path": f"{split}.flac",
                    "label": "waltz",
                    "emotion": [0.1 * index, 0.2],
                    "ori_uid": f"song{index}",
                },
            )
        return root / "demo-1"

    module = types.ModuleType("tune_cache.datasets.demo")
    module.ensure_demo = ensure_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tune_cache.datasets.demo", module)
    return asked


@pytest.mark.parametrize("name", [None, "demo"])
def test_demo_is_rendered_into_the_cache_and_has_two_tasks(name, here, demo):
    dataset = load(name, cache_dir=here / "cache")
    assert demo == [here / "cache" / "v1" / "datasets"]
    assert (dataset.name, dataset.encoder) == ("demo", "muq-nano")
    assert [(task.name, task.kind, task.targets) for task in dataset.tasks] == [
        ("style", "multiclass", ()),
        ("emotion", "regression", ("arousal", "valence")),
    ]
    assert dataset.tracks[0].labels == {"style": "waltz", "emotion": (0.2, 0.2)}
    assert dataset.tracks[0].group == "song2"


def test_demo_without_a_cache_folder_is_refused(here, demo):
    with pytest.raises(UsageError, match="rendered into the cache"):
        load("demo")
    assert not demo


def test_dataset_survives_pickling(here):
    write_set(here / "birds")
    dataset = load("birds")
    assert pickle.loads(pickle.dumps(dataset)) == dataset
