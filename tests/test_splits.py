"""Splits: groups never straddle, strata get their shares, the seed alone decides."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_cache.datasets.base import SPLITS
from tune_cache.datasets.splits import FRACTIONS, draw_splits, strata_of
from tune_cache.errors import ManifestError, UsageError

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def alone(strata: dict[str, tuple[object, ...]]) -> dict[str, str]:
    """Every track a group of its own."""
    return {track_id: track_id for track_id in strata}


@st.composite
def collections(draw):
    """Tracks with up to three tags, in at least three groups."""
    n_tracks = draw(st.integers(3, 60))
    n_groups = draw(st.integers(3, n_tracks))
    ids = [f"t{index}" for index in range(n_tracks)]
    groups = {track_id: f"g{index % n_groups}" for index, track_id in enumerate(ids)}
    tags = st.lists(st.sampled_from("abcde"), max_size=3, unique=True).map(tuple)
    return {track_id: draw(tags) for track_id in ids}, groups


@unhurried
@given(collections(), st.integers(0, 2**32))
def test_groups_never_straddle_and_no_split_is_empty(collection, seed):
    strata, groups = collection
    drawn = draw_splits(strata, groups, seed=seed)
    assert drawn.keys() == strata.keys()
    assert set(drawn.values()) == set(SPLITS)
    by_group = {(groups[track_id], split) for track_id, split in drawn.items()}
    assert len(by_group) == len(set(groups.values()))


@unhurried
@given(collections(), st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(collection, shuffler):
    strata, groups = collection
    ids = list(strata)
    shuffler.shuffle(ids)
    shuffled = {track_id: strata[track_id] for track_id in ids}
    assert draw_splits(shuffled, groups) == draw_splits(strata, groups)


@unhurried
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(5, 40), min_size=1))
def test_every_class_gets_its_share_to_within_a_track_or_two(sizes):
    strata = {f"{name}{index}": (name,) for name, n in sizes.items() for index in range(n)}
    counts = Counter(
        (strata[key][0], split) for key, split in draw_splits(strata, alone(strata)).items()
    )
    for name, n in sizes.items():
        for split, fraction in zip(SPLITS, FRACTIONS, strict=True):
            assert abs(counts[name, split] - fraction * n) < 2


def test_hundred_tracks_are_split_60_20_20_in_every_class():
    strata = {f"{index:03}": ("rock" if index < 50 else "jazz",) for index in range(100)}
    drawn = draw_splits(strata, alone(strata))
    assert Counter((strata[key][0], split) for key, split in drawn.items()) == {
        ("rock", "train"): 30,
        ("rock", "val"): 10,
        ("rock", "test"): 10,
        ("jazz", "train"): 30,
        ("jazz", "val"): 10,
        ("jazz", "test"): 10,
    }


def test_small_classes_share_the_splits_and_keep_the_overall_proportions():
    strata = {f"{name}{index}": (name,) for name in "abcdefghij" for index in range(5)}
    drawn = draw_splits(strata, alone(strata))
    assert len({(strata[key], split) for key, split in drawn.items()}) == 30
    strata = {f"{name}{index}": (name,) for name in "abcdefghij" for index in range(3)}
    drawn = draw_splits(strata, alone(strata))
    assert {strata[key] for key, split in drawn.items() if split == "train"} == set(strata.values())
    counts = Counter(drawn.values())
    assert abs(counts["train"] - 18) <= 1
    assert abs(counts["val"] - counts["test"]) <= 1


def test_only_track_of_a_class_is_trained_on():
    strata = {**{f"c{index}": ("common",) for index in range(30)}, "x": ("rare",)}
    assert {draw_splits(strata, alone(strata), seed=seed)["x"] for seed in range(20)} == {"train"}


def test_grouped_tags_of_any_frequency_are_shared_60_20_20():
    generator = random.Random(2)
    names = [f"tag{index}" for index in range(30)]
    weights = [1 / (1 + index) for index in range(30)]
    strata, groups = {}, {}
    for index in range(1500):
        strata[f"{index}"] = tuple(set(generator.choices(names, weights, k=3)))
        groups[f"{index}"] = f"artist{generator.randrange(300)}"
    drawn = draw_splits(strata, groups)
    totals = Counter(tag for tags in strata.values() for tag in tags)
    counts = Counter((tag, drawn[key]) for key, tags in strata.items() for tag in tags)
    for tag, total in totals.items():
        for split, share in zip(SPLITS, FRACTIONS, strict=True):
            assert abs(counts[tag, split] / total - share) < 0.08, (tag, split)
    assert abs(Counter(drawn.values())["train"] / 1500 - 0.6) < 0.02


def test_seeds_draw_different_tracks_in_equal_numbers():
    strata = {f"{index:03}": ("x",) for index in range(60)}
    first, second = (draw_splits(strata, alone(strata), seed=seed) for seed in (1, 2))
    assert first != second
    assert (
        Counter(first.values()) == Counter(second.values()) == {"train": 36, "val": 12, "test": 12}
    )


def test_ids_in_sequence_do_not_end_up_in_blocks():
    strata = {f"{index:04}": ("x",) for index in range(1000)}
    drawn = draw_splits(strata, alone(strata))
    first_half = sum(drawn[key] == "test" for key in sorted(strata)[:500])
    assert 60 < first_half < 140


def test_large_groups_keep_the_proportions_of_tracks():
    generator = random.Random(0)
    groups = {f"{index:03}": f"g{generator.randrange(40)}" for index in range(400)}
    drawn = draw_splits(dict.fromkeys(groups, ()), groups)
    counts = Counter(drawn.values())
    assert abs(counts["train"] - 240) <= 12
    assert abs(counts["val"] - 80) <= 12


def test_one_huge_group_leaves_something_for_every_split():
    groups = {**{f"big{index}": "big" for index in range(50)}, "a": "a", "b": "b"}
    drawn = draw_splits(dict.fromkeys(groups, ("x",)), groups)
    assert drawn["big0"] == "train"
    assert {drawn["a"], drawn["b"]} == {"val", "test"}


def test_tracks_without_any_stratum_are_split_too():
    strata: dict[str, tuple[object, ...]] = {f"{index}": () for index in range(10)}
    assert Counter(draw_splits(strata, alone(strata)).values()) == {"train": 6, "val": 2, "test": 2}


def test_ids_with_lone_surrogates_are_split():
    strata = {f"{index}\udce9": ("x",) for index in range(5)}
    assert set(draw_splits(strata, alone(strata)).values()) == set(SPLITS)


def test_fewer_than_three_groups_are_refused_with_a_remedy():
    with pytest.raises(ManifestError, match="4 tracks in 2 groups cannot fill") as caught:
        draw_splits(dict.fromkeys("abcd", ("x",)), {"a": "1", "b": "1", "c": "2", "d": "2"})
    assert "at least three" in (caught.value.hint or "")


def test_fractions_must_be_positive():
    with pytest.raises(UsageError, match="expected three positive"):
        draw_splits(dict.fromkeys("abc", ()), {key: key for key in "abc"}, fractions=(1, 0, 0))


def test_splits_do_not_depend_on_pythons_hash_seed():
    program = (
        "from tune_cache.datasets.splits import draw_splits\n"
        "ids = [str(i) for i in range(50)]\n"
        "drawn = draw_splits({i: (i[-1], 'all') for i in ids}, {i: i[:1] + i[-1] for i in ids})\n"
        "print(sorted(drawn.items()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


# --- strata


def test_targets_are_binned_by_quantile_each_on_its_own():
    labels = {f"{index:02}": (float(index), -float(index)) for index in range(50)}
    strata = strata_of(labels, "regression")
    assert Counter(first for first, _ in strata.values()) == {(0, n): 10 for n in range(5)}
    assert strata["00"] == ((0, 0), (1, 4))
    assert strata["49"] == ((0, 4), (1, 0))


def test_equal_targets_share_a_bin():
    labels = {f"{index:02}": (float(index >= 40),) for index in range(50)}
    strata = strata_of(labels, "regression")
    assert len({strata[key] for key in strata if key < "40"}) == 1
    assert len({strata[key] for key in strata if key >= "40"}) == 1


def test_few_targets_share_one_bin():
    assert strata_of({"a": (1.0,), "b": (2.0,)}, "regression") == {"a": ((0, 0),), "b": ((0, 0),)}
    assert strata_of({}, "regression") == {}


def test_every_split_of_a_regression_task_spans_the_targets():
    generator = random.Random(1)
    labels = {f"{index:03}": (generator.gauss(0, 1),) for index in range(200)}
    drawn = draw_splits(strata_of(labels, "regression"), alone(strata_of(labels, "regression")))
    for split in SPLITS:
        values = [labels[key][0] for key in labels if drawn[key] == split]
        assert abs(sum(values) / len(values)) < 0.2


def test_tags_and_classes_are_their_own_strata():
    assert strata_of({"a": ("x", "y"), "b": ()}, "multilabel") == {"a": ("x", "y"), "b": ()}
    assert strata_of({"a": 3, "b": True}, "multiclass") == {"a": (3,), "b": (True,)}
