from __future__ import annotations

import numpy as np
import pytest
from aggregation_contract import AggregationContract

from tune_cache.aggregation.pooling import Pooling
from tune_cache.aggregation.registry import AGGREGATIONS, make_aggregation
from tune_cache.errors import UsageError


class TestMean(AggregationContract):
    def make(self):
        return Pooling("mean")

    def reference(self, train, tracks):
        return np.array([track.mean(axis=0) for track in tracks])


class TestMax(AggregationContract):
    def make(self):
        return Pooling("max")

    def reference(self, train, tracks):
        return np.array([track.max(axis=0) for track in tracks])


class TestMeanStd(AggregationContract):
    def make(self):
        return Pooling("mean+std")

    def reference(self, train, tracks):
        return np.array([np.r_[track.mean(axis=0), track.std(axis=0)] for track in tracks])


def test_one_segment_makes_mean_max_and_unscaled_concat_one_thing():
    tracks = [np.random.default_rng(1).standard_normal((1, 5)) for _ in range(6)]
    mean = Pooling("mean").fit_transform(tracks)
    np.testing.assert_array_equal(Pooling("max").fit_transform(tracks), mean)
    concat = make_aggregation("concat").fit(tracks)
    np.testing.assert_allclose(concat.transform(tracks) * concat.scale_ + concat.mean_, mean)
    np.testing.assert_array_equal(Pooling("std").fit_transform(tracks), np.zeros((6, 5)))


def test_std_keeps_its_digits_beside_a_large_mean():
    values = (1e4 + np.random.default_rng(2).standard_normal((50, 3))).astype("f4")
    found = Pooling("std").fit_transform([values])
    np.testing.assert_allclose(found[0], values.astype(float).std(axis=0), rtol=1e-3)


def test_only_statistics_that_depend_on_length_say_so():
    assert not Pooling("mean").sees_length
    assert Pooling("max").sees_length
    assert Pooling("mean+std").sees_length


def test_every_name_of_the_registry_makes_an_aggregation():
    for name in AGGREGATIONS:
        assert make_aggregation(name).fit_transform([np.ones((2, 3))]).shape[0] == 1


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="'maen'") as caught:
        make_aggregation("maen")
    assert "'mean'" in caught.value.hint


def test_an_option_of_another_aggregation_is_refused():
    with pytest.raises(UsageError, match="no option 'max_segments'"):
        make_aggregation("mean", max_segments=3)
    with pytest.raises(UsageError, match="no option 'statistics'"):
        make_aggregation("mean", statistics="max")
    assert make_aggregation("concat", max_segments=3).max_segments == 3
