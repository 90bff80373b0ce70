"""Which cell is the reference, and what a table says of the others."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from cells import cell, classifiers

from tune_cache.errors import UsageError
from tune_cache.probes.compare import compare
from tune_cache.probes.metrics import Score
from tune_cache.probes.verdicts import (
    Entry,
    check_margin,
    choose_reference,
    judge,
    smallest_difference,
)


def entry(val, *, test=0.5, n_features=8, seeds=1):
    """An entry with validation scores as given, one a seed."""
    values = val if isinstance(val, list) else [val] * seeds
    results = tuple(
        cell(
            "multiclass",
            ["a"],
            ["a"],
            seed=seed,
            n_features=n_features,
            scores={
                "val": {"accuracy": Score(value=value, low=0.0, high=1.0)},
                "test": {"accuracy": Score(value=test, low=0.0, high=1.0)},
            },
        )
        for seed, value in enumerate(values)
    )
    return Entry(results=results, segs=("10",), aggregations=("mean",))


NAN = math.nan


@pytest.mark.parametrize(
    ("entries", "chosen"),
    [
        ([entry(0.7, test=0.9), entry(0.8, test=0.1)], 1),
        ([entry(0.8, n_features=64), entry(0.8, n_features=8)], 1),
        ([entry(0.8), entry(0.8)], 0),
        ([entry(NAN), entry(-3.0)], 1),
        ([entry(NAN), entry(NAN)], 0),
        ([entry([0.9, 0.5]), entry([0.8, 0.8])], 1),
    ],
    ids=["validation decides", "fewer features", "first named", "defined", "none", "mean of seeds"],
)
def test_validation_chooses_the_reference_and_test_does_not(entries, chosen):
    assert choose_reference(entries) == chosen


def test_a_table_is_corrected_over_its_comparisons_and_not_over_its_rows():
    rng = np.random.default_rng(3)
    cells = [classifiers(rng, 400, first=0.9, second=p, discordant=0.12) for p in (0.8, 0.85, 0.9)]
    found = [compare([second], [first], n_resamples=200) for first, second in cells]
    scores = [Score(value=0.5, low=0.0, high=1.0)] * 4
    verdicts = judge([entry(0.8)] * 4, scores, [None, *found], 0, margin=0.1)
    assert [verdict.is_reference for verdict in verdicts] == [True, False, False, False]
    assert verdicts[0].as_good is True
    assert math.isnan(verdicts[0].p_holm)
    smallest = min(range(3), key=lambda place: found[place].p)
    assert verdicts[smallest + 1].p_holm == pytest.approx(min(1, 3 * found[smallest].p))
    assert [v.as_good for v in verdicts[1:]] == [item.as_good(0.1) for item in found]
    assert smallest_difference(verdicts) == pytest.approx(np.median([f.smallest for f in found]))


def test_the_smallest_difference_is_of_pairs_that_tell_one():
    found = compare([cell("multiclass", ["a"], ["a"])], [cell("multiclass", ["a"], ["b"])])
    assert math.isnan(found.smallest)  # one track: no interval
    known = dataclasses.replace(found, smallest=0.25)
    scores = [Score(value=0.5, low=0.0, high=1.0)] * 3
    assert smallest_difference(judge([entry(0.5)] * 3, scores, [None, found, known], 0)) == 0.25
    assert math.isnan(smallest_difference(judge([entry(0.5)], scores[:1], [None], 0)))


def test_seeds_have_a_deviation_if_there_are_several():
    assert math.isnan(entry(0.5).seed_deviation())
    several = entry(0.5, seeds=3)
    changed = dataclasses.replace(
        several.results[0],
        scores={**several.results[0].scores, "test": {"accuracy": Score(value=0.8, low=0, high=1)}},
    )
    several = dataclasses.replace(several, results=(changed, *several.results[1:]))
    assert several.seed_deviation() == pytest.approx(np.std([0.8, 0.5, 0.5], ddof=1))


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_that_decides_nothing_is_refused(margin):
    with pytest.raises(UsageError, match="expected a positive number"):
        check_margin(margin)
