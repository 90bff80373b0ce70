from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aggregation_contract import AggregationContract
from stage_two_world import random_tracks

from tune_cache.aggregation.pooling import LENGTH_BLIND, STATISTICS, Pooling
from tune_cache.aggregation.registry import AGGREGATIONS, MULTISCALE, make_aggregation
from tune_cache.aggregation.registry import STATISTICS as NAMES
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError

ONE_TRACK = {
    "mean": lambda track: track.mean(axis=0),
    "mean-duration": lambda track: np.average(track, axis=0, weights=1 + np.arange(len(track))),
    "median": lambda track: np.median(track, axis=0),
    "max": lambda track: track.max(axis=0),
    "min": lambda track: track.min(axis=0),
    "std": lambda track: track.std(axis=0),
    "first": lambda track: track[0],
    "middle": lambda track: track[(len(track) - 1) // 2],
}


class PoolingContract(AggregationContract):
    name = ""

    def make(self):
        return Pooling(self.name)

    def reference(self, train, tracks):
        parts = [ONE_TRACK[name] for name in self.name.split("+")]
        return np.array([np.concatenate([part(track) for part in parts]) for track in tracks])


class TestMean(PoolingContract):
    name = "mean"


class TestMeanDuration(PoolingContract):
    name = "mean-duration"

    def test_float16_is_accumulated_in_float32(self):
        values = np.full((4000, 2), 40.0, dtype="f2")  # the sum is beyond float16's range
        n_samples = np.tile([1, 3], 2000)
        values[::2, 1] = -40.0
        found = Pooling(self.name).fit_transform(Ragged.from_tracks([values], n_samples))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, [[40.0, 20.0]], rtol=1e-5)


class TestMedian(PoolingContract):
    name = "median"


class TestMax(PoolingContract):
    name = "max"


class TestMin(PoolingContract):
    name = "min"


class TestStd(PoolingContract):
    name = "std"


class TestFirst(PoolingContract):
    name = "first"
    keeps_order = True


class TestMiddle(PoolingContract):
    name = "middle"
    keeps_order = True  # of an even number the earlier one


class TestMeanStd(PoolingContract):
    name = "mean+std"


def test_every_statistic_has_a_contract_and_a_name_on_the_command_line():
    tested = {each.name for each in PoolingContract.__subclasses__()}
    assert set(STATISTICS) == set(NAMES) == set(ONE_TRACK) == tested - {"mean+std"}


def test_one_segment_makes_most_aggregations_one_thing():
    tracks = [np.random.default_rng(1).standard_normal((1, 5)) for _ in range(6)]
    mean = Pooling("mean").fit_transform(tracks)
    for name in set(NAMES) - {"std"}:
        np.testing.assert_array_equal(Pooling(name).fit_transform(tracks), mean)
    concat = make_aggregation("concat").fit(tracks)
    np.testing.assert_allclose(concat.transform(tracks) * concat.scale_ + concat.mean_, mean)
    np.testing.assert_array_equal(Pooling("std").fit_transform(tracks), np.zeros((6, 5)))


def test_a_mean_by_duration_is_the_mean_of_the_audio():
    """Three segments of one, two and three samples: as if six samples were averaged."""
    samples = np.arange(12.0).reshape(6, 2)
    pieces = [samples[:1], samples[1:3], samples[3:]]
    track = Ragged.from_tracks([np.array([piece.mean(axis=0) for piece in pieces])], [1, 2, 3])
    found = Pooling("mean-duration").fit_transform(track)
    np.testing.assert_allclose(found[0], samples.mean(axis=0))


def test_a_segment_of_no_length_is_refused_by_duration_only():
    tracks = Ragged.from_tracks([np.ones((1, 2)), np.ones((2, 2))], [1, 0, 0])
    with pytest.raises(TaskError, match=r"1 of 2 tracks have segments without a length: .* 1"):
        Pooling("mean-duration").fit_transform(tracks)
    assert Pooling("mean").fit_transform(tracks).shape == (2, 2)


def test_std_keeps_its_digits_beside_a_large_mean():
    values = (1e4 + np.random.default_rng(2).standard_normal((50, 3))).astype("f4")
    found = Pooling("std").fit_transform([values])
    np.testing.assert_allclose(found[0], values.astype(float).std(axis=0), rtol=1e-3)


@pytest.mark.parametrize("name", [*NAMES, "mean+std", "mean+first", *MULTISCALE])
def test_only_statistics_that_depend_on_length_say_so(name):
    """Means over 4,000 tracks of skewed values, of one segment and of six."""
    rng = np.random.default_rng(7)
    aggregation = make_aggregation(name)
    one, six = (
        aggregation.fit_transform(
            dataclasses.replace(tracks, values=rng.exponential(size=tracks.values.shape))
        ).mean(axis=0)
        for tracks in (random_tracks(rng, 4000, dim=3, lengths=(n, n)) for n in (1, 6))
    )
    moves = bool(np.abs(one - six).max() > 0.1)
    assert moves == aggregation.sees_length
    if name in STATISTICS:
        assert moves == (name not in LENGTH_BLIND)


def test_statistics_are_joined_by_plus_in_any_order():
    tracks = random_tracks(np.random.default_rng(0), 5)
    found = make_aggregation("max+first+mean").fit(tracks)
    assert list(found.get_feature_names_out()[::8]) == ["max_x0", "first_x0", "mean_x0"]
    for name in ("mean+mean", "mean+", "mean+concat"):
        with pytest.raises(UsageError):
            make_aggregation(name)


def test_aggregations_go_by_their_names_and_options():
    for name in (*AGGREGATIONS, *MULTISCALE):
        assert make_aggregation(name).fit_transform([np.ones((2, 3))]).shape[0] == 1
    with pytest.raises(UsageError, match="aggregation is 'maen'") as caught:
        make_aggregation("maen")
    assert "did you mean" in caught.value.hint
    with pytest.raises(UsageError, match="has no option 'max_segments'"):
        make_aggregation("mean", max_segments=3)
    assert make_aggregation("concat", max_segments=3).max_segments == 3
