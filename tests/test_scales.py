from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aggregation_contract import AggregationContract
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from stage_two_world import random_tracks

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.aggregation.scales import MultiScale, Scales
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError


class TestOneScaleConcat(AggregationContract):
    """What other aggregations take is one scale."""

    def make(self):
        return MultiScale("concat", "mean+max")

    def reference(self, train, tracks):
        return np.array([np.r_[track.mean(axis=0), track.max(axis=0)] for track in tracks])


class TestOneScaleMean(AggregationContract):
    wrong = {"combine": "sum"}  # noqa: RUF012  # never changed

    def make(self):
        return MultiScale("mean")

    def reference(self, train, tracks):
        return np.array([track.mean(axis=0) for track in tracks])


@pytest.fixture
def scales():
    rng = np.random.default_rng(3)
    short, long = (random_tracks(rng, 15, dim=4, lengths=spread) for spread in ((2, 6), (1, 2)))
    weights = np.arange(1, 1 + len(short.values))
    return Scales((dataclasses.replace(short, n_samples=weights), long))


def test_scales_are_pooled_first_so_that_many_segments_weigh_no_more(scales):
    short, long = scales.parts
    means = [np.array([track.mean(axis=0) for track in part]) for part in (short, long)]
    side_by_side = make_aggregation("multiscale-concat").fit_transform(scales)
    np.testing.assert_allclose(side_by_side, np.hstack(means), rtol=1e-5)
    averaged = make_aggregation("multiscale-mean").fit_transform(scales)
    np.testing.assert_allclose(averaged, (means[0] + means[1]) / 2, rtol=1e-4, atol=1e-6)


def test_names_tell_scale_and_statistic(scales):
    fitted = MultiScale("concat", "mean+std").fit(scales)
    names = fitted.get_feature_names_out()
    assert len(names) == len(set(names)) == fitted.transform(scales).shape[1]
    assert list(names[::4]) == [
        "scale0_mean_x0", "scale0_std_x0", "scale1_mean_x0", "scale1_std_x0",
    ]  # fmt: skip
    assert list(MultiScale("mean").fit(scales).get_feature_names_out()) == [
        f"mean_x{column}" for column in range(4)
    ]


def test_a_list_of_tuples_is_the_same_as_scales(scales):
    for combine in ("mean", "concat"):
        np.testing.assert_array_equal(
            MultiScale(combine).fit_transform([scales[place] for place in range(15)]),
            MultiScale(combine).fit_transform(scales),
        )


def test_a_user_s_own_search_over_scales_keeps_the_lengths_of_segments(scales):
    y = np.arange(15.0)
    pipeline = make_pipeline(MultiScale("concat", "mean-duration"), Ridge())
    found = cross_val_predict(pipeline, scales, y, cv=KFold(3))
    for train, test in KFold(3).split(y):
        model = make_pipeline(MultiScale("concat", "mean-duration"), Ridge())
        expected = model.fit(scales.take(train), y[train]).predict(scales.take(test))
        np.testing.assert_array_equal(found[test], expected)
    search = GridSearchCV(
        make_pipeline(MultiScale(), LogisticRegression()),
        {"multiscale__combine": ["mean", "concat"], "multiscale__statistics": ["mean", "max"]},
        cv=3,
    )
    assert search.fit(scales, np.arange(15) % 2).best_params_.keys() == {
        "multiscale__combine",
        "multiscale__statistics",
    }


def test_another_number_of_scales_is_refused(scales):
    fitted = MultiScale().fit(scales)
    with pytest.raises(TaskError, match="tracks have 1 scales, expected 2"):
        fitted.transform(scales.parts[0])
    with pytest.raises(TaskError, match=r"different numbers of scales: \[1, 2\]"):
        fitted.transform([(np.ones((1, 4)), np.ones((1, 4))), (np.ones((1, 4)),)])


def test_scales_of_other_widths_are_refused(scales):
    wide = Ragged.from_tracks([np.ones((1, 5))] * 15)
    with pytest.raises(TaskError, match="features"):
        MultiScale().fit(Scales((scales.parts[0], wide)))


def test_scales_have_the_same_tracks(scales):
    with pytest.raises(ValueError, match=r"scales have \[15, 14\] tracks"):
        Scales((scales.parts[0], scales.parts[1][:14]))
    assert scales.lengths.tolist() == scales.parts[0].lengths.tolist()
    assert len(scales[2:5]) == len(scales[[1, 4, 9]]) == 3


def test_a_wrong_statistic_is_an_error_of_fit(scales):
    with pytest.raises(UsageError, match="statistics are 'average'"):
        MultiScale("mean", "average").fit(scales)
