"""Every formula beside its slow and obvious form."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm, t
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score

from tune_cache.probes.metrics import metrics_of
from tune_cache.probes.statistics import (
    bias_corrected_interval,
    bootstrap_scores,
    effective_groups,
    expanded_percentiles,
    holm,
    log_interval,
    mcnemar,
    number_groups,
    percentile_interval,
    permutation_test,
    score_ranks,
    score_sums,
    smallest_detectable,
)

ACCURACY, MACRO_F1 = metrics_of("multiclass", ())
R2 = metrics_of("regression", ("a", "v"))[0]
GROUPS = ["d", "a", "a", "b", "c", "c", "c", "e"]


def slow_resamples(groups, score_tracks, *, seed, n_resamples):
    """Draw groups by name, gather all their tracks, score them: one resample at a time."""
    names = sorted(set(groups))
    rng = np.random.default_rng(seed)
    scores = []
    for drawn in rng.integers(len(names), size=(n_resamples, len(names))):
        rows = [row for pick in drawn for row, name in enumerate(groups) if name == names[pick]]
        scores.append(score_tracks(np.array(rows)))
    return np.array(scores)


def test_resamples_of_r2_equal_scoring_the_drawn_tracks_one_by_one():
    rng = np.random.default_rng(3)
    truth = 50 + rng.standard_normal((8, 2))
    prediction = truth + rng.standard_normal((8, 2))
    expected = slow_resamples(
        GROUPS, lambda rows: r2_score(truth[rows], prediction[rows]), seed=7, n_resamples=40
    )
    scorer = score_sums(R2.terms(truth, prediction), *number_groups(GROUPS), R2.reduce)
    found = bootstrap_scores(scorer, 5, seed=7, n_resamples=40)
    assert found == pytest.approx(expected, rel=1e-9)


GAUSS = np.random.default_rng(0).standard_normal(4000)


def test_an_interval_needs_two_groups_and_a_defined_resample():
    ones = np.ones(3, dtype=int)
    for metric in (ACCURACY, MACRO_F1):
        alone = metric.interval(1.0, lambda copies: copies.sum(axis=1), 0 * ones, seed=0)
        assert np.isnan(alone).all()
    undefined = np.full(5, math.nan)
    assert np.isnan(percentile_interval(undefined)).all()
    assert np.isnan(bias_corrected_interval(undefined, 0.5, 20)).all()
    assert np.isnan(bias_corrected_interval(GAUSS, math.nan, 20)).all()
    nothing = log_interval(lambda copies: undefined, 0.5, np.arange(5), np.asarray, seed=0)
    assert np.isnan(nothing).all()
    assert percentile_interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)


@pytest.mark.parametrize("n", [2, 5, 20, 100, 10_000])
def test_expanded_percentiles_reach_as_far_as_student_s_t(n):
    low, high = expanded_percentiles(GAUSS, n)
    widened = t.ppf(0.975, n - 1) * math.sqrt(n / (n - 1))
    assert (low, high) == pytest.approx(np.quantile(GAUSS, norm.cdf([-widened, widened])))
    one_sided = t.ppf(0.95, n - 1) * math.sqrt(n / (n - 1))
    assert expanded_percentiles(GAUSS, n, tail=0.05)[1] == pytest.approx(
        np.quantile(GAUSS, norm.cdf(one_sided))
    )


def test_many_groups_need_no_expansion():
    assert expanded_percentiles(GAUSS, 1e6) == pytest.approx(percentile_interval(GAUSS), abs=0.01)


def test_bias_of_resamples_shifts_an_interval_the_other_way():
    """Resamples that are a half below the score say that the score is a half below."""
    middle = bias_corrected_interval(GAUSS, 0.0, 1e6)
    assert middle == pytest.approx((-1.96, 1.96), abs=0.15)
    assert bias_corrected_interval(GAUSS, 0.5, 1e6) == pytest.approx((-0.96, 2.96), abs=0.2)


@given(st.floats(-3, 3), st.integers(2, 200))
def test_an_interval_holds_its_score_however_biased_resamples_are(value, n):
    low, high = bias_corrected_interval(GAUSS, value, n)
    assert low <= value <= high


def test_a_perfect_score_has_no_logarithm_and_no_width():
    five = np.arange(5)
    perfect = log_interval(lambda copies: np.ones(5), 1.0, five, lambda r2: 1 - r2, seed=0)
    assert perfect == (1.0, 1.0)


def test_an_interval_on_the_logarithm_has_equal_ratios_and_stays_below_one():
    five = np.arange(5)
    weights = np.array([1.0, 2, 4, 8, 16])

    def mean(copies):
        return copies @ weights / copies.sum(axis=1)

    low, high = log_interval(mean, weights.mean(), five, np.asarray, seed=0)
    assert low * high == pytest.approx(weights.mean() ** 2)
    low, high = log_interval(lambda c: 1 - mean(c), -5.2, five, lambda r2: 1 - r2, seed=0)
    assert low < -5.2 < high < 1


def test_groups_of_unlike_sizes_are_worth_fewer():
    assert effective_groups(np.repeat(np.arange(10), 3)) == pytest.approx(10)
    assert effective_groups(np.repeat([0, 1, 2, 3], [1, 1, 1, 97])) == 2  # one rules: the least
    sizes = np.array([1, 2, 3, 4])
    worth = effective_groups(np.repeat(np.arange(4), sizes))
    assert worth == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())


SKLEARN = {"roc_auc": roc_auc_score, "ap": average_precision_score}


def slow_macro(kind, truth, prediction):
    """Mean over the tags with a positive and a negative, each by scikit-learn."""
    scores = [
        SKLEARN[kind](truth[:, tag], prediction[:, tag])
        for tag in range(truth.shape[1])
        if 0 < truth[:, tag].sum() < len(truth)
    ]
    return np.mean(scores) if scores else math.nan


@pytest.mark.parametrize("kind", SKLEARN)
@pytest.mark.parametrize("n_values", [3, 1000], ids=["tied", "untied"])
def test_resamples_of_ranks_equal_scoring_the_drawn_tracks_one_by_one(kind, n_values):
    rng = np.random.default_rng(11)
    groups = [f"g{number // 2}" for number in range(30)]
    truth = rng.random((30, 4)) < [0.5, 0.1, 0.03, 0.97]
    prediction = rng.integers(0, n_values, (30, 4)) + truth
    expected = slow_resamples(
        groups,
        lambda rows: slow_macro(kind, truth[rows], prediction[rows]),
        seed=5,
        n_resamples=70,
    )
    number, n_groups = number_groups(groups)
    scorer = score_ranks(truth, prediction, number, kind)
    found = bootstrap_scores(scorer, n_groups, seed=5, n_resamples=70)
    assert found == pytest.approx(expected, rel=1e-12, nan_ok=True)
    whole = scorer(np.ones((1, n_groups), dtype=np.int64))
    assert whole == pytest.approx(slow_macro(kind, truth, prediction))


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=20
    ),
    st.sampled_from(sorted(SKLEARN)),
)
def test_copies_of_a_track_count_as_so_many_tracks(tracks, kind):
    truth, prediction, copies = (np.array(column) for column in zip(*tracks, strict=True))
    scorer = score_ranks(truth[:, None], prediction[:, None], np.arange(len(tracks)), kind)
    repeated = np.repeat(truth, copies)[:, None], np.repeat(prediction, copies)[:, None]
    assert scorer(copies[None])[0] == pytest.approx(slow_macro(kind, *repeated), nan_ok=True)


def both_of(metric, truth, first, second, number, n_groups):
    """The scorer of a paired test, as `compare` makes it."""
    terms = metric.terms(np.concatenate([truth, truth]), np.concatenate([first, second]))
    twice = np.concatenate([number, number + n_groups])
    return score_sums(terms, twice, 2 * n_groups, metric.reduce)


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1], ids=lambda metric: metric.name)
def test_the_permutation_test_approaches_the_full_enumeration_of_swaps(metric):
    rng = np.random.default_rng(2)
    number = np.repeat(np.arange(8), 3)
    truth = rng.integers(0, 3, 24)
    first, second = (
        np.where(rng.random(24) < share, truth, rng.integers(0, 3, 24)) for share in (0.8, 0.2)
    )
    found = abs(metric(truth, first) - metric(truth, second))
    extreme = 0
    for swaps in itertools.product([False, True], repeat=8):
        swap = np.array(swaps)[number]
        one, other = np.where(swap, second, first), np.where(swap, first, second)
        extreme += abs(metric(truth, one) - metric(truth, other)) >= found - 1e-12
    exact = extreme / 2**8
    both = both_of(metric, truth, first, second, number, 8)
    p = permutation_test(both, 8, seed=1)
    assert 0.01 < exact < 0.5
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000))


def test_a_permutation_p_is_never_zero_and_one_for_equal_predictions():
    truth = np.arange(40) % 2
    number = np.arange(40)
    right, wrong = truth, 1 - truth
    far = both_of(ACCURACY, truth, right, wrong, number, 40)
    assert permutation_test(far, 40, seed=0, n_permutations=99) == 0.01
    same = both_of(ACCURACY, truth, right, right, number, 40)
    assert permutation_test(same, 40, seed=0, n_permutations=99) == 1.0
    undefined = score_sums(np.ones((80, 1)), np.arange(80), 80, lambda s: np.full(len(s), np.nan))
    assert math.isnan(permutation_test(undefined, 40, seed=0, n_permutations=9))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_sign_test(only_first, only_second):
    n = only_first + only_second
    expected = binomtest(only_first, n).pvalue if n else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected)


def test_mcnemar_survives_thousands_of_tracks():
    assert mcnemar(3000, 3000) == pytest.approx(1.0)
    assert mcnemar(2000, 3000) == pytest.approx(binomtest(2000, 5000).pvalue)


def test_holm_gives_the_textbook_example():
    """Four hypotheses at 0.05: the fourth and the first fall, the third stops the procedure."""
    corrected = holm([0.01, 0.04, 0.03, 0.005])
    assert corrected == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [p <= 0.05 for p in corrected] == [True, False, False, True]


def slow_holm(p_values, alpha):
    """Reject the smallest while it is at most alpha over the number left; stop at the first."""
    rejected = set()
    while left := [index for index in range(len(p_values)) if index not in rejected]:
        smallest = min(left, key=lambda index: p_values[index])
        if p_values[smallest] > alpha / len(left):
            break
        rejected.add(smallest)
    return rejected


@given(st.lists(st.integers(1, 60), max_size=8), st.integers(1, 40))
def test_holm_rejects_what_the_step_by_step_procedure_rejects(thousandths, alpha):
    p_values, level = [number / 1000 for number in thousandths], (alpha + 0.5) / 1000
    corrected = holm(p_values)
    expected = slow_holm(p_values, level)
    assert {index for index, p in enumerate(corrected) if p <= level} == expected


def test_holm_does_not_count_what_is_undefined():
    assert holm([math.nan, 0.02, 0.5]) == pytest.approx([math.nan, 0.04, 0.5], nan_ok=True)
    assert holm([]) == []


def test_the_smallest_detectable_difference_is_2_80_standard_errors():
    assert smallest_detectable(0.01) == pytest.approx(0.0280, abs=5e-5)
    assert smallest_detectable(0.01, power=0.9) == pytest.approx(0.0324, abs=5e-5)
