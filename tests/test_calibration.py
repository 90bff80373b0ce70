"""Do the statistics keep their word? Simulations with a known answer, seeds fixed."""

from __future__ import annotations

import os

import numpy as np
import pytest
from cells import classifiers, regressors
from scipy.stats import kstest

from tune_cache.probes.compare import compare
from tune_cache.probes.metrics import Metric, metrics_of, score
from tune_cache.probes.statistics import bootstrap_scores, percentile_interval

ACCURACY, MACRO_F1 = metrics_of("multiclass", ())
R2 = metrics_of("regression", ("a",))[0]
N_WORLDS = int(os.environ.get("TUNE_WORLDS", "400"))


def songs(rng, n_groups, most):
    """Group of each track; 1 to ``most`` tracks a group."""
    return np.repeat(np.arange(n_groups), rng.integers(1, most + 1, n_groups))


def right_by_song(rng, number, share):
    """Songs differ: the share that is right varies from song to song."""
    chance = rng.beta(share * 3, (1 - share) * 3, number.max() + 1)[number]
    return rng.random(len(number)) < chance


def accuracy_world(rng, number):
    right = right_by_song(rng, number, 0.8).astype(int)
    return ACCURACY, np.ones_like(right), right, 0.8


def high_accuracy_world(rng, number):
    """All right in a quarter of the samples of 20 songs."""
    right = right_by_song(rng, number, 0.93).astype(int)
    return ACCURACY, np.ones_like(right), right, 0.93


def r2_world(rng, number):
    """Truth and errors have a part that a song's tracks share."""

    def drawn(shared, own):
        of_song = rng.standard_normal(number.max() + 1)[number]
        return np.sqrt(shared) * of_song + np.sqrt(own) * rng.standard_normal(len(number))

    truth = drawn(1.0, 0.25)[:, None]
    prediction = truth + drawn(0.4, 0.2)[:, None]
    return R2, truth, prediction, 1 - 0.6 / 1.25


def f1_world(rng, number):
    """Three classes, half, a third and a sixth of the songs."""
    shares = np.array([3, 2, 1]) / 6
    truth = rng.choice(3, p=shares, size=number.max() + 1)[number]
    right = right_by_song(rng, number, 0.8)
    prediction = np.where(right, truth, (truth + rng.integers(1, 3, len(number))) % 3)
    confusion = np.where(np.eye(3), 0.8, 0.1) * shares[:, None]
    marked = confusion.sum(axis=0) + confusion.sum(axis=1)
    return MACRO_F1, truth, prediction, np.mean(2 * np.diag(confusion) / marked)


WORLDS = [accuracy_world, high_accuracy_world, r2_world, f1_world]


def coverage(world, n_groups, most, n_worlds=N_WORLDS):
    """Share of samples whose interval holds the truth."""
    covered = 0
    for seed in range(n_worlds):
        rng = np.random.default_rng(seed)
        number = songs(rng, n_groups, most)
        metric, truth, prediction, known = world(rng, number)
        found = score(metric, truth, prediction, [f"{n:03}" for n in number], seed=seed,
                      n_resamples=400)  # fmt: skip
        covered += found.low <= known <= found.high
    return covered / n_worlds


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("n_groups", "most"), [(20, 1), (20, 4), (40, 4), (100, 4)], ids=str)
def test_the_interval_covers_the_truth_as_often_as_it_says(world, n_groups, most):
    """Tracks by themselves, and songs of one to four clips; see docs/statistics.md for more."""
    assert 0.92 <= coverage(world, n_groups, most) <= 0.98


@pytest.mark.parametrize("world", [high_accuracy_world, r2_world, f1_world])
def test_plain_percentiles_of_few_groups_cover_too_rarely(world, monkeypatch):
    """The reason for every rule of its own: the same worlds without them."""
    monkeypatch.setattr(
        Metric,
        "interval",
        lambda self, value, scorer, number, *, seed, n_resamples: percentile_interval(
            bootstrap_scores(scorer, 20, seed=seed, n_resamples=n_resamples)
        ),
    )
    assert coverage(world, 20, 4) < 0.92


def test_an_interval_that_ignores_songs_covers_too_rarely():
    """The reason for drawing groups: the same data, tracks drawn one by one."""
    covered = 0
    for seed in range(N_WORLDS):
        rng = np.random.default_rng(seed)
        number = songs(rng, 100, 8)
        metric, truth, prediction, known = r2_world(rng, number)
        found = score(
            metric,
            truth,
            prediction,
            list(map(str, range(len(number)))),
            seed=seed,
            n_resamples=200,
        )
        covered += found.low <= known <= found.high
    assert covered / N_WORLDS < 0.9


def compared(make, n_worlds, **asked):
    """Comparisons of independent worlds."""
    found = []
    for seed in range(n_worlds):
        first, second = make(np.random.default_rng(seed))
        settings = {"n_resamples": 300, "n_permutations": 199, "seed": seed, **asked}
        found.append(compare([first], [second], **settings))
    return found


def test_p_values_of_r2_are_uniform_where_nothing_differs():
    found = compared(
        lambda rng: regressors(rng, 60, first=0.4, second=0.4, correlation=0.5),
        300,
        n_resamples=1,
    )
    assert kstest([item.p for item in found], "uniform").pvalue > 0.05


@pytest.mark.parametrize("group_size", [1, 3], ids=["mcnemar", "permutation by group"])
def test_p_values_of_accuracy_are_small_no_oftener_than_they_say(group_size):
    """Counts are discrete, so the share below a level may be smaller, never larger."""
    found = compared(
        lambda rng: classifiers(
            rng, 120, first=0.8, second=0.8, discordant=0.2, group_size=group_size
        ),
        400,
        n_resamples=1,
    )
    p_values = np.array([item.p for item in found])
    for level in (0.05, 0.1, 0.3, 0.5):
        share = (p_values <= level).mean()
        noise = 3 * np.sqrt(level * (1 - level) / len(p_values))
        assert level / 3 - noise <= share <= level + noise


@pytest.mark.parametrize(
    ("make", "truth"),
    [
        (lambda rng: classifiers(rng, 290, first=0.86, second=0.81, discordant=0.09), 0.05),
        (lambda rng: classifiers(rng, 60, first=0.97, second=0.97, discordant=0.03), 0.0),
        (lambda rng: regressors(rng, 125, first=0.31, second=0.38, correlation=0.83), 0.07),
    ],
    ids=["genres", "few disagreements", "emotions"],
)
def test_intervals_and_bounds_of_differences_keep_their_word(make, truth):
    found = compared(make, 300, n_permutations=1)
    covered = np.mean([item.low <= truth <= item.high for item in found])
    bounded = np.mean([-truth <= item.loss_bound for item in found])
    assert 0.92 <= covered <= 1.0
    assert 0.92 <= bounded <= 1.0


def test_the_smallest_difference_is_found_four_times_of_five():
    """290 genres that two cells treat differently on 9 %: 5 points; 125 emotions: about 0.07."""
    genres = compared(
        lambda rng: classifiers(rng, 290, first=0.86, second=0.81, discordant=0.09), 300
    )
    assert np.median([item.smallest for item in genres]) == pytest.approx(0.05, abs=0.005)
    assert np.mean([item.p < 0.05 for item in genres]) == pytest.approx(0.8, abs=0.07)
    emotions = compared(
        lambda rng: regressors(rng, 125, first=0.31, second=0.38, correlation=0.83), 200
    )
    assert np.median([item.smallest for item in emotions]) == pytest.approx(0.07, abs=0.007)
    assert np.mean([item.p < 0.05 for item in emotions]) == pytest.approx(0.8, abs=0.09)
