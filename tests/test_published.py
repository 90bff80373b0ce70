"""The published table is complete, as published, and never without its labels."""

from __future__ import annotations

import dataclasses

import pytest

from tune_cache.datasets.published import CATALOG
from tune_cache.reports.published import LABELS, PUBLISHED, published_rows

# as printed in the study: segment, VRAM, time, scores
TABLE = """
EMO   full track  full 6.816  45.845 0.574 0.737
EMO   concat      10   9.730 136.986 0.547 0.760
EMO   mean        10   3.552  46.210 0.547 0.760
EMO   transformer 10   4.095  60.886 0.492 0.707
EMO   mean        30   4.124  62.352 0.542 0.756
EMO   transformer 60   4.132  45.707 0.506 0.726
GTZAN full track  full 6.546  60.678 0.845
GTZAN concat      10   9.361 181.427 0.828
GTZAN mean        10   3.404  61.285 0.830
GTZAN transformer 10   3.932  80.702 0.795
GTZAN mean        30   3.928  82.522 0.835
GTZAN transformer 60   3.968  55.980 0.805
"""


def test_every_row_and_column_is_there():
    printed = [line.replace("full track", "full_track").split() for line in TABLE.split("\n")[1:-1]]
    for row, (dataset, aggregation, seg, *figures) in zip(PUBLISHED, printed, strict=True):
        assert (row.dataset, row.aggregation, row.seg) == (
            dataset,
            aggregation.replace("_", " "),
            seg,
        )
        assert [row.vram_gb, row.seconds, *row.scores.values()] == [float(f) for f in figures]


def test_the_datasets_of_the_catalog_find_their_rows():
    assert [row.dataset for row in published_rows("EMO")] == ["EMO"] * 6
    assert published_rows("GTZANGenre") == published_rows("GTZAN") != ()
    assert {name for name in CATALOG if published_rows(name)} == {"EMO", "GTZANGenre"}
    assert published_rows("soundtrack") == ()


def test_metrics_have_the_names_that_our_results_have():
    for name in ("EMO", "GTZANGenre"):
        targets = {f"r2_{target}" for target in CATALOG[name].tasks[0].targets} or {"accuracy"}
        assert all(row.scores.keys() == targets for row in published_rows(name))
    assert published_rows("EMO")[0].mean_score() == pytest.approx((0.574 + 0.737) / 2)


def test_what_weakens_a_row_is_said():
    assert "segmentation not effective in the released code" in LABELS[0]
    assert "another machine" in LABELS[1]
    weak = {(row.dataset, row.aggregation, row.seg) for row in PUBLISHED if row.flags}
    assert weak == {("EMO", "concat", "10"), *((d, "transformer", "60") for d in ("EMO", "GTZAN"))}


def test_nobody_can_change_it():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PUBLISHED[0].seconds = 1.0
