from __future__ import annotations

import numpy as np
import pytest
from stage_two_world import dataset_of, features_of, random_tracks

from tune_cache.cache.ragged import Ragged
from tune_cache.datasets.base import Task
from tune_cache.probes import guard
from tune_cache.probes.guard import Leaks, find_leaks
from tune_cache.probes.tasks import load_task

GENRE = Task(name="genre", label="label", kind="multiclass")
LABELS = {split: ["a", "b"] * 5 for split in ("train", "val", "test")}
COUNTS = dict.fromkeys(LABELS, 10)


def own(split, number):
    return f"{split}{number}"


def world(groups=own, *, dim=64, copies=()):
    """Independent tracks; ``copies`` are (split, number, other split, number) nearly alike."""
    data = load_task(dataset_of(LABELS, groups=groups), GENRE)
    rng = np.random.default_rng(4)
    layer = {split: random_tracks(rng, 10, dim=dim, lengths=(2, 2)) for split in LABELS}
    for split, number, other, place in copies:
        rows = layer[split][number] + 0.02 * rng.standard_normal((2, dim))
        layer[other].values[2 * place : 2 * place + 2] = rows
    return data, features_of({0: layer, 1: layer, 2: layer})


def test_good_splits_leak_nothing():
    data, features = world()
    audio = {name: name for split in data.splits.values() for name in split.track_ids}
    assert find_leaks(data, audio, features) == Leaks()
    assert list(Leaks().warnings(COUNTS)) == []


def test_groups_in_two_splits_are_counted_by_held_out_track():
    def groups(split, number):
        together = {("train", 0), ("train", 3), ("val", 1), ("test", 1), ("test", 2)}
        return "song" if (split, number) in together else own(split, number)

    data, _ = world(groups)
    leaks = find_leaks(data, {}, None)
    texts = list(leaks.warnings(COUNTS))
    assert [text.partition(" (")[0] for text in texts] == [
        "1 of 10 val tracks share a group with train tracks",
        "2 of 10 test tracks share a group with train tracks",
        "2 of 10 test tracks share a group with val tracks",
    ]
    assert leaks.to_drop == dict.fromkeys(["train-0000", "train-0003", "val-0001"], "leak: group")


def test_one_audio_file_in_two_splits_is_found_by_its_hash():
    data, _ = world()
    audio = {"train-0002": "x", "test-0005": "x", "val-0001": "", "val-0003": "", "test-0001": ""}
    leaks = find_leaks(data, audio, None)
    assert leaks.pairs == (("audio", "test", "test-0005", "train", "train-0002"),)
    (text,) = leaks.warnings(COUNTS)
    assert text.startswith("1 of 10 test tracks have the audio file of train tracks ('test-0005'")


def test_near_duplicates_are_found_whatever_they_are_called():
    data, features = world(copies=[("train", 7, "test", 0), ("val", 2, "test", 4)])
    leaks = find_leaks(data, {}, features)
    assert set(leaks.pairs) == {
        ("near", "test", "test-0000", "train", "train-0007"),
        ("near", "test", "test-0004", "val", "val-0002"),
    }
    assert leaks.to_drop == {"train-0007": "leak: near", "val-0002": "leak: near"}


def test_a_pair_is_told_once_by_the_plainest_reason():
    data, features = world(
        lambda split, number: "song" if number == 3 else own(split, number),
        copies=[("train", 3, "test", 3)],
    )
    kinds = [pair[0] for pair in find_leaks(data, {"train-0003": "x"}, features).pairs]
    assert kinds == ["group"] * 3


def test_vectors_that_share_a_large_mean_are_not_alike():
    """Raw cosines are near one for all embeddings; centred ones are not."""
    data, features = world()
    shifted = {
        split: Ragged(values=part.values + 50, offsets=part.offsets, n_samples=part.n_samples)
        for split, part in features.of_layer(0).items()
    }
    assert find_leaks(data, {}, features_of({0: shifted})).pairs == ()


def test_very_many_pairs_are_left_to_those_who_ask(monkeypatch):
    monkeypatch.setattr(guard, "MOST_PAIRS", 299)
    data, features = world(copies=[("train", 7, "test", 0)])
    leaks = find_leaks(data, {}, features)
    assert leaks.pairs == ()
    (text,) = leaks.warnings(COUNTS)
    assert text.startswith("near-duplicates were not looked for among 300 pairs")
    assert len(find_leaks(data, {}, features, thorough=True).pairs) == 1


def test_one_name_for_everything_is_told_without_listing_all_pairs():
    """A group of 20,000 tracks would make 10⁸ pairs."""
    labels = {split: ["a", "b"] * n for split, n in (("train", 5000), ("val", 1), ("test", 5000))}
    data = load_task(dataset_of(labels, groups=lambda split, number: "unknown"), GENRE)
    leaks = find_leaks(data, {}, None)
    assert len(leaks.pairs) == 2 + 2 * 10_000
    assert len(leaks.to_drop) == 10_002


def test_blocks_change_nothing(monkeypatch):
    data, features = world(copies=[("train", 7, "test", 9), ("train", 1, "val", 5)])
    whole = find_leaks(data, {}, features)
    monkeypatch.setattr(guard, "ROWS_AT_ONCE", 3)
    assert find_leaks(data, {}, features) == whole


@pytest.mark.parametrize("level", [0.0, 3.3])
def test_tracks_that_are_all_alike_have_no_direction(level):
    data, _ = world()
    layer = {split: Ragged.from_tracks([np.full((1, 4), level)] * 10) for split in LABELS}
    assert find_leaks(data, {}, features_of({0: layer})).pairs == ()
