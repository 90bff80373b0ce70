from __future__ import annotations

import numpy as np
import pytest
from stage_two_world import EMOTION, GENRE, classes_world, dataset_of

from tune_cache.datasets.base import Task
from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.shots import draw_shots, too_few
from tune_cache.probes.tasks import load_task

TAGS = Task(name="tags", label="tags", kind="multilabel")


def genres(n=40, n_classes=4, **settings):
    labels = {
        split: [f"g{number % n_classes}" for number in range(n)]
        for split in ("train", "val", "test")
    }
    return load_task(dataset_of(labels, **settings), GENRE)


def test_every_class_gets_its_shots_and_repeats_differ():
    data = genres()
    draws = list(draw_shots(data, 3, 6, seed=1))
    for rows in draws:
        assert np.bincount(data.splits["train"].truth[rows]).tolist() == [3] * 4
        assert (np.diff(rows) > 0).all()
    assert len({tuple(rows) for rows in draws}) == 6


def test_a_repeat_depends_on_seed_and_its_number_only():
    data = genres()
    many, few = list(draw_shots(data, 2, 5, seed=1)), list(draw_shots(data, 2, 2, seed=1))
    for one, other in zip(many, few, strict=False):
        np.testing.assert_array_equal(one, other)
    (other,) = draw_shots(data, 2, 1, seed=2)
    assert other.tolist() != many[0].tolist()


def test_clips_of_one_song_are_one_example_while_there_are_others():
    data = genres(n_classes=2, groups=lambda split, number: f"{split}{number // 10}")
    for rows in draw_shots(data, 4, 8, seed=0):
        for number in range(2):
            own = rows[data.splits["train"].truth[rows] == number]
            assert len({data.splits["train"].groups[row] for row in own}) == 4


def test_a_class_with_fewer_tracks_gives_all_and_is_told():
    labels = {split: ["a"] * 9 + ["b"] * 2 for split in ("train", "val", "test")}
    data = load_task(dataset_of(labels), GENRE)
    (rows,) = draw_shots(data, 5, 1, seed=0)
    assert np.bincount(data.splits["train"].truth[rows]).tolist() == [5, 2]
    assert too_few(data, 5) == "1 classes have fewer than 5 training tracks ('b')"
    assert too_few(data, 2) == ""


def test_every_tag_gets_its_shots():
    labels = {split: [("a",), ("b",), ("a", "b"), ()] * 5 for split in ("train", "val", "test")}
    data = load_task(dataset_of(labels, task=TAGS), TAGS)
    for rows in draw_shots(data, 3, 5, seed=0):
        counts = data.splits["train"].truth[rows].sum(axis=0)
        assert (counts >= 3).all()
        assert len(rows) <= 6


@pytest.mark.parametrize(("shots", "repeats"), [(0, 1), (1, 0), (-1, 3)])
def test_no_shots_are_refused(shots, repeats):
    with pytest.raises(UsageError, match="expected 1 or more of each"):
        list(draw_shots(genres(), shots, repeats, seed=0))


def test_tasks_without_classes_or_validation_are_refused():
    labels = {split: [(0.0, 1.0), (1.0, 0.0)] for split in ("train", "val", "test")}
    with pytest.raises(TaskError, match="regression: shots are tracks a class"):
        list(draw_shots(load_task(dataset_of(labels, task=EMOTION), EMOTION), 1, 1, seed=0))
    folded = load_task(dataset_of({"train": ["a", "b"] * 3, "test": ["a", "b"]}), GENRE)
    with pytest.raises(TaskError, match="no validation split, which a choice with few shots"):
        list(draw_shots(folded, 1, 1, seed=0))


@pytest.mark.parametrize("probe", ["centroid", "logistic"])
def test_more_shots_score_better_and_scores_are_means_over_repeats(probe):
    data, features = classes_world(np.random.default_rng(1), signal=(0,), strength=2.0)
    found, spread = {}, {}
    for shots in (1, 15):
        (result,) = run_probe(features, data, probe=probe, shots=shots, repeats=8, n_resamples=200)
        found[shots] = result.scores["test"]["accuracy"]
        spread[shots] = np.std(result.repeat_scores["accuracy"])
        assert result.probe == f"{probe} {shots}-shot"
        assert result.shots == shots
        assert len(result.repeat_scores["accuracy"]) == 8
        assert found[shots].value == pytest.approx(np.mean(result.repeat_scores["accuracy"]))
        assert found[shots].low <= found[shots].value <= found[shots].high
        assert result.predictions == ()
        assert np.sum(result.confusion) == 8 * 40
    assert found[15].value > found[1].value + 0.05
    assert spread[1] > spread[15]  # the fewer are drawn, the more draws differ


def test_all_tracks_as_shots_are_the_whole_training():
    data, features = classes_world(np.random.default_rng(1), signal=(0,), strength=2.0)
    (few,) = run_probe(features, data, shots=20, repeats=2, n_resamples=20)
    (whole,) = run_probe(features, data, n_resamples=20)
    assert few.repeat_scores["accuracy"] == (whole.scores["test"]["accuracy"].value,) * 2
    assert few.params == whole.params
