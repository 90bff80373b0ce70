from __future__ import annotations

import numpy as np
import pytest
from aggregation_contract import AggregationContract
from stage_two_world import random_tracks

from tune_cache.aggregation.concat import Concat, scale_of
from tune_cache.errors import TaskError


class TestConcat(AggregationContract):
    keeps_order = True
    wrong = {"max_segments": 0}  # noqa: RUF012  # never changed

    def make(self):
        return Concat()

    def reference(self, train, tracks):
        seen = np.concatenate(train)
        mean, scale = seen.mean(axis=0), seen.std(axis=0)
        scale[scale == 0] = 1
        longest = max(map(len, train))
        rows = []
        for track in tracks:
            z = ((track - mean) / scale)[:longest]
            rows.append(np.concatenate([z.ravel(), np.zeros((longest - len(z)) * z.shape[1])]))
        return np.array(rows)


def test_statistics_come_from_observed_training_rows_only():
    rng = np.random.default_rng(3)
    train = random_tracks(rng, 10)
    other = [np.full((9, 8), 1e6)]
    fitted = Concat().fit(train)
    before = fitted.mean_.copy(), fitted.scale_.copy()
    fitted.transform(other)
    np.testing.assert_array_equal(fitted.mean_, before[0])
    np.testing.assert_array_equal(fitted.scale_, before[1])
    np.testing.assert_allclose(fitted.mean_, train.values.mean(axis=0), atol=1e-6)


def test_observed_rows_have_one_scale_at_every_position():
    """Rescaling padded columns would blow late positions up; nothing here does."""
    tracks = random_tracks(np.random.default_rng(4), 2000, dim=3, lengths=(1, 6))
    out = Concat().fit_transform(tracks).reshape(2000, 6, 3)
    for position in range(6):
        there = tracks.lengths > position
        assert np.all(out[~there, position] == 0)
        np.testing.assert_allclose(out[there, position].std(), 1, atol=0.06)


def test_longer_tracks_are_cut_and_counted():
    train = [np.ones((n, 2)) for n in (1, 2, 5)]
    fitted = Concat(max_segments=2).fit(train)
    assert fitted.max_segments_ == 2
    assert fitted.transform(train).shape == (3, 4)
    assert fitted.n_truncated(np.array([1, 2, 5])) == 1
    assert Concat(max_segments=50).fit(train).max_segments_ == 5


def test_what_would_swap_is_refused_with_its_cost():
    train = [np.ones((7, 4), dtype="f4")] * 3
    with pytest.raises(TaskError, match=r"needs 336 bytes \(3 tracks × 7 segments × 4") as caught:
        Concat(max_bytes=335).fit(train)
    assert "max_segments=6" in caught.value.hint
    fitted = Concat(max_bytes=336).fit(train)
    with pytest.raises(TaskError, match="needs 448 bytes"):
        fitted.transform([*train, train[0]])


def test_the_suggested_cap_fits():
    train = [np.ones((7, 4), dtype="f4")] * 3
    assert Concat(max_bytes=335, max_segments=6).fit(train).max_segments_ == 6


def test_rounding_is_not_blown_up_to_a_feature():
    values = np.full((100, 2), 1000.1, dtype="f4")
    values[::3, 0] = np.nextafter(values[0, 0], np.float32(2000))
    values[:, 1] += np.arange(100)
    scale = scale_of(values, values.mean(axis=0, dtype=float))
    assert scale[0] == 1
    np.testing.assert_allclose(scale[1], np.arange(100).std(), rtol=1e-4)
