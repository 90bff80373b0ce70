from __future__ import annotations

import numpy as np
import pytest
from stage_two_world import EMOTION, GENRE, dataset_of

from tune_cache.datasets.base import Task
from tune_cache.errors import TaskError
from tune_cache.probes.tasks import load_task

LABELS = {"train": ["b", "a", "b"], "val": ["a", "b"], "test": ["a", "b"]}


def test_classes_are_those_of_train_sorted_by_text():
    data = load_task(dataset_of({**LABELS, "train": [10, 9, "a", True]}), GENRE)
    assert data.classes == ("10", "9", "True", "a")
    assert data.splits["train"].truth.tolist() == [0, 1, 3, 2]
    assert [data.decode(value) for value in data.splits["train"].truth] == ["10", "9", "a", "True"]


def test_classes_first_met_in_test_stay_in_the_denominator_and_are_told():
    data = load_task(dataset_of({**LABELS, "test": ["a", "new", "newer", "b"]}), GENRE)
    assert data.classes == ("a", "b")
    assert data.unseen == ("new", "newer")
    assert data.splits["test"].truth.tolist() == [0, 2, 3, 1]
    (text,) = data.warnings()
    assert "2 of 4 test tracks" in text
    assert "'new', 'newer'" in text


def test_tracks_without_label_or_vectors_are_left_out_and_named():
    dataset = dataset_of({**LABELS, "train": ["b", None, "a", "b", "a"]})
    status = {track.track_id: "ok" for track in dataset.tracks}
    status["train-0003"] = "timeout"
    del status["train-0004"]
    data = load_task(dataset, GENRE, status)
    assert data.splits["train"].track_ids == ("train-0000", "train-0002")
    assert data.excluded == {
        "train-0001": "no label",
        "train-0003": "timeout",
        "train-0004": "not in the store",
    }
    (text,) = data.warnings()
    assert text == "3 tracks are left out (no label: 1, not in the store: 1, timeout: 1)"


def test_targets_are_numbers_in_their_order():
    labels = {split: [(0.5, 1), (2.0, -3.5)] for split in LABELS}
    data = load_task(dataset_of(labels, task=EMOTION), EMOTION)
    np.testing.assert_array_equal(data.splits["val"].truth, [[0.5, 1.0], [2.0, -3.5]])
    assert data.decode(np.array([0.5, 1.0])) == (0.5, 1.0)
    assert [metric.name for metric in data.metrics] == ["r2", "r2_arousal", "r2_valence"]


def test_one_target_may_be_a_bare_number():
    task = Task(name="bpm", label="bpm", kind="regression", targets=("bpm",))
    data = load_task(dataset_of({split: [90, 120.5] for split in LABELS}, task=task), task)
    assert data.splits["test"].truth.tolist() == [[90.0], [120.5]]
    assert [metric.name for metric in data.metrics] == ["r2"]


@pytest.mark.parametrize(
    "label", [(1.0,), (1.0, 2.0, 3.0), (1.0, float("nan")), (True, 1.0), "loud", (1.0, "2")]
)
def test_a_label_that_is_no_target_names_the_line(label):
    labels = {split: [(0.0, 1.0), (1.0, 0.0)] for split in LABELS} | {"val": [label]}
    with pytest.raises(TaskError, match=r"'val-0000'.*2 finite numbers.*world.val.jsonl:1"):
        load_task(dataset_of(labels, task=EMOTION), EMOTION)


@pytest.mark.parametrize("label", [("rock", "pop"), 1.5, {"a": 1}])
def test_a_label_that_is_no_class_names_the_line(label):
    with pytest.raises(TaskError, match=r"expected a text or an integer .*world.train.jsonl:2"):
        load_task(dataset_of({**LABELS, "train": ["a", label]}), GENRE)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_tracks_is_refused_with_a_remedy(split):
    with pytest.raises(TaskError, match=f"no {split} tracks") as caught:
        load_task(dataset_of({**LABELS, split: []}), GENRE)
    assert f"world.{split}.jsonl" in caught.value.hint


def test_a_split_emptied_by_failures_says_by_which():
    dataset = dataset_of(LABELS)
    status = {
        track.track_id: "corrupt" if track.split == "val" else "ok" for track in dataset.tracks
    }
    with pytest.raises(TaskError, match=r"no val track to use: all 2 are left out \(corrupt\)"):
        load_task(dataset, GENRE, status)


def test_one_class_is_nothing_to_learn():
    with pytest.raises(TaskError, match="one class in train, 'a'"):
        load_task(dataset_of({**LABELS, "train": ["a", "a"]}), GENRE)


def test_multilabel_is_refused_for_now():
    task = Task(name="tags", label="tags", kind="multilabel")
    with pytest.raises(TaskError, match="multilabel"):
        load_task(dataset_of(LABELS, task=task), task)


def test_metrics_of_a_task_are_its_own_and_the_unknown_are_refused():
    task = Task(name="genre", label="label", kind="multiclass", metrics=("macro_f1",))
    assert [m.name for m in load_task(dataset_of(LABELS, task=task), task).metrics] == ["macro_f1"]
    task = Task(name="genre", label="label", kind="multiclass", metrics=("r2",))
    with pytest.raises(TaskError, match="metric is 'r2', expected one of accuracy, macro_f1"):
        load_task(dataset_of(LABELS, task=task), task)


def test_groups_follow_their_tracks():
    data = load_task(
        dataset_of(LABELS, groups=lambda split, number: f"{split}{number // 2}"), GENRE
    )
    assert data.splits["train"].groups == ("train0", "train0", "train1")
