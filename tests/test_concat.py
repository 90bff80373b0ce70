from __future__ import annotations

import zlib

import numpy as np
import pytest
from aggregation_contract import AggregationContract
from stage_two_world import random_tracks

from tune_cache.aggregation.concat import Concat, scale_of
from tune_cache.errors import TaskError, UsageError


class ConcatContract(AggregationContract):
    keeps_order = True
    wrong = {"max_segments": 0}  # noqa: RUF012  # never changed
    fill = ""

    def make(self):
        return Concat(fill=self.fill)

    def reference(self, train, tracks):
        seen = np.concatenate(train)
        mean, scale = seen.mean(axis=0), seen.std(axis=0)
        scale[scale == 0] = 1
        longest = max(map(len, train))
        rows = []
        for track in tracks:
            z = ((track - mean) / scale)[:longest]
            missing = longest - len(z)
            more = self.continued([(t - mean) / scale for t in train], track, z, missing)
            rows.append(np.concatenate([z.ravel(), np.ravel(more)]))
        return np.array(rows)

    def continued(self, train, track, z, missing):
        raise NotImplementedError


class TestZeros(ConcatContract):
    fill = "zero"

    def continued(self, train, track, z, missing):
        return np.zeros((missing, z.shape[1]))


class TestOwnMean(ConcatContract):
    fill = "mean"

    def continued(self, train, track, z, missing):
        return np.tile(z.mean(axis=0), (missing, 1))


class TestDraws(ConcatContract):
    fill = "draw"

    def continued(self, train, track, z, missing):
        """A one-way analysis of variance, a dimension at a time, by the textbook."""
        if not missing:
            return np.zeros((0, z.shape[1]))
        n, sizes = len(train), np.array([len(t) for t in train])
        levels = np.array([t.mean(axis=0) for t in train])
        away = [t - t.mean(axis=0) for t in train]
        within = sum((a**2).sum(axis=0) for a in away) / (sizes.sum() - n)
        mean_square = (sizes[:, None] * levels**2).sum(axis=0) / (n - 1)
        n0 = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (n - 1)
        between = np.maximum((mean_square - within) / n0, 0)
        deviations = np.concatenate(
            [a * np.sqrt(len(a) / (len(a) - 1)) for a in away if len(a) > 1]
        )
        pool = levels / np.sqrt((levels**2).mean(axis=0)) * np.sqrt(between)
        rng = np.random.default_rng(zlib.crc32(track.astype("f4").tobytes()))
        known = between / (between + within / len(z))
        level = known * z.mean(axis=0) + np.sqrt(1 - known) * pool[rng.integers(n)]
        return level + deviations[rng.integers(len(deviations), size=missing)]


def test_a_wrong_filling_is_refused():
    with pytest.raises(UsageError, match="fill is 'ones', expected one of draw, mean, zero"):
        Concat(fill="ones").fit([np.ones((2, 3))])


def test_nothing_is_filled_where_tracks_have_the_same_number_of_segments():
    tracks = random_tracks(np.random.default_rng(2), 9, lengths=(3, 3))
    draws, means, zeros = (
        Concat(fill=fill).fit_transform(tracks) for fill in ("draw", "mean", "zero")
    )
    np.testing.assert_array_equal(draws, means)
    np.testing.assert_array_equal(draws, zeros)


def continuation(level, deviation, n_segments=1, seed=0):
    """Fit to long tracks of given spreads, and continue short ones of the same kind."""
    rng = np.random.default_rng(seed)

    def some(n_tracks, n_rows):
        levels = level * rng.standard_normal((n_tracks, 1, 3))
        return list(levels + deviation * rng.standard_normal((n_tracks, n_rows, 3)))

    train, short = some(1500, 5), some(1500, n_segments)
    fitted = Concat().fit(train)
    return (fitted.transform(some(1500, 5)), fitted.transform(short))


@pytest.mark.parametrize(("level", "deviation"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
@pytest.mark.parametrize("n_segments", [1, 3])
def test_a_filled_track_has_the_moments_of_a_long_one(level, deviation, n_segments):
    """Means, spreads, and correlations between all positions."""
    long, short = continuation(level, deviation, n_segments)
    assert np.abs(long.mean(axis=0) - short.mean(axis=0)).max() < 0.15
    assert np.abs(np.cov(long.T) - np.cov(short.T)).max() < 0.2


def test_a_track_of_equal_segments_is_continued_by_itself():
    _, short = continuation(1.0, 0.0)
    short = short.reshape(len(short), 5, 3)
    np.testing.assert_allclose(short, np.repeat(short[:, :1], 5, axis=1), atol=1e-5)


def test_draws_come_from_a_bounded_number_of_training_vectors(monkeypatch):
    monkeypatch.setattr("tune_cache.aggregation.filling.MOST_KEPT", 10)
    tracks = random_tracks(np.random.default_rng(3), 40, lengths=(1, 5))
    kept = Concat().fit(tracks)._continuation
    assert max(len(kept.levels), len(kept.deviations)) <= 10


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
    out = Concat(fill="zero").fit_transform(tracks).reshape(2000, 6, 3)
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
