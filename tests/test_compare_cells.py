"""Two cells on common tracks: by hand, by slow references, and with the margin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cells import cell, classifiers, regressors
from scipy.stats import binomtest, norm, t
from sklearn.metrics import f1_score, label_ranking_loss, r2_score, roc_auc_score

from tune_cache.errors import StoreMismatchError, TaskError
from tune_cache.probes.common import common_tracks
from tune_cache.probes.compare import Comparison, compare, score_of, track_differences


def quick(first, second, **asked):
    return compare([first], [second], **{"n_resamples": 200, "n_permutations": 99, **asked})


def test_accuracy_is_compared_by_counting_tracks():
    truth = ["a"] * 10
    first = cell("multiclass", truth, ["a"] * 8 + ["b"] * 2)
    second = cell("multiclass", truth, ["b"] * 5 + ["a"] * 4 + ["b"])
    found = quick(first, second)
    assert (found.first, found.second) == (0.8, 0.4)
    assert found.difference == pytest.approx(0.4)
    assert (found.n, found.n_groups, found.n_seeds, found.n_differ) == (10, 10, 1, 6)
    assert found.test == "mcnemar"
    assert found.p == pytest.approx(binomtest(1, 6).pvalue)


def test_clips_of_one_song_are_permuted_together():
    truth, groups = ["a"] * 12, [f"song{number // 3}" for number in range(12)]
    first = cell("multiclass", truth, ["a"] * 12, groups)
    second = cell("multiclass", truth, ["b"] * 12, groups)
    found = quick(first, second, n_permutations=10_000)
    assert (found.test, found.n_groups) == ("permutation", 4)
    assert found.p == pytest.approx(2 / 2**4, abs=0.01)  # not 2 / 2**12


def test_only_tracks_that_both_have_are_compared():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((30, 2))
    left, right = (truth + 0.5 * rng.standard_normal((30, 2)) for _ in range(2))
    names = [f"t{number}" for number in range(30)]
    first = cell("regression", truth[:25], left[:25], names=names[:25])
    second = cell("regression", truth[5:], right[5:], names=names[5:])
    found = quick(first, second)
    assert found.n == 20
    assert found.first == pytest.approx(r2_score(truth[5:25], left[5:25]))
    assert found.second == pytest.approx(r2_score(truth[5:25], right[5:25]))
    one = quick(first, second, metric="r2_v")
    assert one.first == pytest.approx(r2_score(truth[5:25, 1], left[5:25, 1]))
    assert found.n_differ == 20


def test_the_interval_equals_resampling_the_tracks_one_resample_at_a_time():
    rng = np.random.default_rng(1)
    first, second = regressors(rng, 40, first=0.3, second=0.5, correlation=0.5)
    found = quick(first, second, seed=9)
    common = common_tracks([first], [second])
    ((left, right),), truth = common.pairs, common.truth
    drawn = np.random.default_rng(9).integers(40, size=(200, 40))
    slow = [r2_score(truth[d], left[d]) - r2_score(truth[d], right[d]) for d in drawn]
    for tail, bounds in (
        (0.025, (found.low, found.high)),
        (0.05, (-found.loss_bound, found.gain_bound)),
    ):
        share = norm.cdf(t.ppf(tail, 39) * np.sqrt(40 / 39))
        assert bounds == pytest.approx(tuple(np.quantile(slow, [share, 1 - share])))
    assert found.smallest == pytest.approx(2.8016 * np.std(slow) * np.sqrt(40 / 39), rel=1e-4)


def test_accuracy_is_resampled_as_the_adjusted_wald_interval_assumes():
    """Bonett and Price: one more track on either side, n + 2 in all."""
    rng = np.random.default_rng(4)
    first, second = classifiers(rng, 290, first=0.85, second=0.82, discordant=0.09)
    found = quick(first, second, n_resamples=20_000)
    gains = common_tracks([first], [second]).gains()
    only_first, only_second = (gains > 0).sum() + 1, (gains < 0).sum() + 1
    difference = (only_first - only_second) / 292
    error = math.sqrt(((only_first + only_second) / 292 - difference**2) / 292)
    assert (found.low + found.high) / 2 == pytest.approx(difference, abs=0.002)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)
    assert found.loss_bound == pytest.approx(1.645 * error - difference, abs=0.002)


def test_every_metric_of_a_kind_can_be_compared():
    rng = np.random.default_rng(2)
    truth = list(rng.choice(list("abc"), 40))
    first = [t if rng.random() < 0.8 else "a" for t in truth]
    second = [t if rng.random() < 0.5 else "b" for t in truth]
    found = quick(
        cell("multiclass", truth, first), cell("multiclass", truth, second), metric="macro_f1"
    )
    assert found.difference == pytest.approx(
        f1_score(truth, first, average="macro") - f1_score(truth, second, average="macro")
    )
    tags = rng.random((40, 5)) < 0.3
    left, right = (tags + noise * rng.standard_normal((40, 5)) for noise in (0.5, 1.0))
    found = quick(cell("multilabel", tags, left), cell("multilabel", tags, right))
    assert found.metric == "roc_auc"
    assert found.difference == pytest.approx(
        roc_auc_score(tags, left, average="macro") - roc_auc_score(tags, right, average="macro")
    )
    assert found.low < found.difference < found.high
    with pytest.raises(TaskError, match="metric is 'r2', expected one of roc_auc, ap"):
        quick(cell("multilabel", tags, left), cell("multilabel", tags, right), metric="r2")


def test_seeds_are_averaged_and_paired():
    truth = ["a"] * 20
    right = {1: 20, 2: 10, 3: 15}
    first = [
        cell("multiclass", truth, ["a"] * n + ["b"] * (20 - n), seed=s) for s, n in right.items()
    ]
    second = [cell("multiclass", truth, ["a"] * 5 + ["b"] * 15, seed=s) for s in right]
    found = compare(first, second, n_permutations=99)
    assert (found.first, found.second, found.n_seeds) == (0.75, 0.25, 3)
    assert found.test == "permutation"
    alone = compare(first, second[:1], n_permutations=99)  # no chance in it: meets every seed
    assert (alone.first, alone.second, alone.n_seeds) == (0.75, 0.25, 3)
    score = score_of(first)
    assert score.value == pytest.approx(0.75)
    assert score.low < 0.75 < score.high
    assert score_of(second) == second[0].scores["test"]["accuracy"]
    same = compare(second, second, n_permutations=99)
    assert (same.n_seeds, same.test, same.p, same.n_differ) == (1, "mcnemar", 1.0, 0)


def test_a_changed_label_or_group_is_not_compared():
    first = cell("multiclass", ["a", "a"], ["a", "b"])
    relabelled = cell("multiclass", ["a", "b"], ["a", "b"])
    regrouped = cell("multiclass", ["a", "a"], ["a", "b"], ["g", "h"])
    for other in (relabelled, regrouped):
        with pytest.raises(
            StoreMismatchError, match="tracks have other labels or groups"
        ) as caught:
            quick(first, other)
        assert "probe again" in caught.value.hint


def test_what_has_nothing_in_common_is_not_compared():
    first = cell("multiclass", ["a", "b"], ["a", "b"])
    elsewhere = cell("multiclass", ["a", "b"], ["a", "b"], names=["u", "v"])
    with pytest.raises(TaskError, match="no test track in common"):
        quick(first, elsewhere)
    with pytest.raises(TaskError, match="tasks 'task' \\(multiclass\\) and 'other'"):
        quick(first, cell("multiclass", ["a", "b"], ["a", "b"], task="other"))


def test_one_group_has_a_difference_and_nothing_else():
    found = quick(
        cell("multiclass", ["a", "a"], ["a", "a"], ["g", "g"]),
        cell("multiclass", ["a", "a"], ["b", "a"], ["g", "g"]),
    )
    assert found.difference == 0.5
    assert np.isnan([found.low, found.high, found.loss_bound, found.smallest]).all()
    assert found.p == 1.0
    assert found.as_good() is None


def test_tracks_that_differ_are_listed_the_largest_difference_first():
    truth = np.zeros((4, 2))
    truth[:, 0] = [0, 1, 2, 3]
    truth[:, 1] = [1, 0, 1, 0]
    left, right = truth.copy(), truth.copy()
    right[1] += 0.1
    left[2] += 2.0
    found = track_differences([cell("regression", truth, left)], [cell("regression", truth, right)])
    assert [(item.track_id, item.gain > 0) for item in found] == [
        ("t00002", False),
        ("t00001", True),
    ]
    assert found[0].first == (4.0, 3.0)
    assert found[0].second == (2.0, 1.0)
    classes = track_differences(
        [cell("multiclass", list("abc"), list("abb"))],
        [cell("multiclass", list("abc"), list("aca"))],
    )
    assert [(item.track_id, item.first, item.second, item.gain) for item in classes] == [
        ("t00001", "b", "c", 1.0)
    ]


def test_a_track_of_tags_is_judged_by_its_pairs_in_the_wrong_order():
    rng = np.random.default_rng(8)
    tags = rng.random((12, 6)) < 0.4
    tags[0], tags[1] = False, True
    left, right = rng.integers(0, 4, (2, 12, 6)).astype(float)  # ties count half
    common = common_tracks([cell("multilabel", tags, left)], [cell("multilabel", tags, right)])

    def loss(track, scores):  # scikit-learn counts a tie as a whole error: break it both ways
        pair = [label_ranking_loss(tags[[track]], scores[[track]] + s * 1e-6 * tags[[track]])
                for s in (1, -1)]  # fmt: skip
        return np.mean(pair)

    expected = [loss(track, right) - loss(track, left) for track in range(12)]
    assert common.gains() == pytest.approx(expected)


def test_a_comparison_is_read_back_as_it_was_written():
    found = quick(*classifiers(np.random.default_rng(0), 30, first=0.8, second=0.7, discordant=0.3))
    assert Comparison.from_json(found.to_json()) == found
    alone = quick(cell("multiclass", ["a"], ["a"]), cell("multiclass", ["a"], ["b"]))
    read = Comparison.from_json(alone.to_json())
    assert alone.to_json()["low"] is None
    assert math.isnan(read.low)


def test_the_margin_tells_equal_cells_from_worse_ones_and_from_too_few_tracks():
    rng = np.random.default_rng(6)
    equal, reference = classifiers(rng, 3000, first=0.85, second=0.85, discordant=0.06)
    assert quick(equal, reference).as_good(0.02) is True
    assert quick(equal, reference).is_equivalent(0.02) is True
    worse, reference = classifiers(rng, 3000, first=0.80, second=0.85, discordant=0.1)
    assert quick(worse, reference).as_good(0.02) is False
    assert quick(worse, reference).as_good(0.10) is True
    better, reference = classifiers(rng, 3000, first=0.85, second=0.80, discordant=0.1)
    assert quick(better, reference).as_good(0.02) is True
    assert quick(better, reference).is_equivalent(0.02) is False
    # the same true difference of nothing, but not enough tracks to say so
    equal, reference = classifiers(rng, 100, first=0.85, second=0.85, discordant=0.06)
    assert quick(equal, reference).as_good(0.02) is False
    # R² is continuous: close cells are seen to be close with few tracks
    near, reference = regressors(rng, 300, first=0.300, second=0.301, correlation=0.999)
    assert quick(near, reference).as_good(0.02) is True


def test_agreement_on_few_tracks_is_no_proof():
    for n, expected in ((8, None), (50, False), (290, True)):
        same = cell("multiclass", ["a"] * n, ["a"] * n)
        found = quick(same, same)
        assert (found.difference, found.p, found.n_differ) == (0.0, 1.0, 0)
        assert found.as_good(0.02) is expected, n
