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


@pytest.mark.parametrize("split", ["train", "test"])
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


TAGS = Task(name="tags", label="tags", kind="multilabel")
TAGGED = {
    "train": [("b", "a"), ("b",), ()],
    "val": [("a",), ()],
    "test": [["b", "c"], ("a",), ("d",)],
}


def test_tags_are_those_of_train_and_a_track_without_any_is_a_track():
    data = load_task(dataset_of(TAGGED, task=TAGS), TAGS)
    assert (data.classes, data.unseen) == (("a", "b"), ("c", "d"))
    assert data.splits["train"].truth.tolist() == [[1, 1], [0, 1], [0, 0]]
    assert data.splits["test"].truth.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert data.excluded == {}
    assert data.decode(data.splits["train"].truth[1]) == (0.0, 1.0)
    assert [metric.name for metric in data.metrics] == ["roc_auc", "ap"]


def test_tags_that_cannot_be_scored_are_told():
    data = load_task(dataset_of(TAGGED, task=TAGS), TAGS)
    assert data.warnings() == (
        "1 of 2 tags are on none or on all of the 2 val tracks ('b'); they are in no mean over"
        " tags",
        "2 tags occur in no training track ('c', 'd'); they are not scored",
    )


@pytest.mark.parametrize("label", ["rock", ("rock", 1), 2.0])
def test_a_label_that_is_no_list_of_tags_names_the_line(label):
    with pytest.raises(TaskError, match=r"expected a list of texts .*world.val.jsonl:1"):
        load_task(dataset_of({**TAGGED, "val": [label]}, task=TAGS), TAGS)


def test_no_tag_at_all_is_nothing_to_learn():
    with pytest.raises(TaskError, match="has no tag on any training track"):
        load_task(dataset_of({**TAGGED, "train": [(), ()]}, task=TAGS), TAGS)


def folded(labels, task=GENRE, groups=None):
    some = {split: values for split, values in labels.items() if split != "val"}
    return load_task(dataset_of(some, task=task, groups=groups), task)


def test_without_validation_groups_are_dealt_to_folds():
    labels = {"train": ["a"] * 30 + ["b"] * 15, "test": ["a", "b"]}
    data = folded(labels, groups=lambda split, number: f"{split}{number // 3}")
    assert data.splits.keys() == {"train", "test"}
    assert data.folds.shape == (45,)
    for group in range(15):
        assert len(set(data.folds[3 * group : 3 * group + 3])) == 1
    counts = [np.bincount(data.folds[part], minlength=5) for part in (slice(30), slice(30, 45))]
    assert [count.tolist() for count in counts] == [[6] * 5, [3] * 5]
    (text,) = data.warnings()
    assert text.startswith("no validation split: choices are made on 5 folds")


def test_folds_do_not_depend_on_anything_but_groups_and_classes():
    labels = {"train": list("aabbccabcabc"), "test": ["a"]}
    one, two = folded(labels), folded(labels)
    np.testing.assert_array_equal(one.folds, two.folds)
    assert np.bincount(one.folds).max() - np.bincount(one.folds).min() <= 1


def test_few_groups_make_few_folds_and_one_group_none():
    labels = {"train": ["a", "b"] * 6, "test": ["a", "b"]}
    data = folded(labels, groups=lambda split, number: f"{split}{number % 2}")
    assert sorted(set(data.folds.tolist())) == [0, 1]
    with pytest.raises(TaskError, match="no validation split and one group in train, 'train'"):
        folded(labels, groups=lambda split, number: split)


def test_targets_and_tags_have_folds_of_equal_size():
    targets = folded(
        {"train": [(1.0, 2.0)] * 23, "test": [(0.0, 1.0)]},
        Task(name="e", label="va", kind="regression", targets=("v", "a")),
    )
    tags = folded({"train": [("a",), ()] * 10, "test": [()]}, TAGS)
    assert sorted(np.bincount(targets.folds).tolist()) == [4, 4, 5, 5, 5]
    assert np.bincount(tags.folds).tolist() == [4] * 5


def test_a_validation_split_emptied_by_failures_makes_no_folds():
    dataset = dataset_of(LABELS)
    status = {track.track_id: "ok" for track in dataset.tracks if track.split != "val"}
    with pytest.raises(TaskError, match="no val track to use"):
        load_task(dataset, GENRE, status)


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
