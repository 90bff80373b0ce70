"""Saved runs as cells: seeds together, each thing once, costs as far as known."""

from __future__ import annotations

import itertools
import random

import pytest
from test_results import context_of, result_of

from tune_cache.probes.metrics import Score
from tune_cache.reports.candidates import candidates_of
from tune_cache.reports.results import SavedRun

LEDGER = {"wait_seconds": 0, "encode_seconds": 10, "write_seconds": 0, "audio_seconds": 3600}


def run(number, *, val=0.5, seg="10", key=None, store=None, **changed):
    scores = {split: {"r2": Score(value=val, low=0.0, high=1.0)} for split in ("val", "test")}
    return SavedRun(
        run_id=number,
        created="",
        context=context_of(
            seg=seg,
            spec_key=key or f"key of {seg}",
            store=store or f"seg{seg}.zarr",
            cost={**LEDGER, "peak_rss_bytes": 1e9},
        ),
        result=result_of(
            **{"scores": scores, "share_one_segment": 0.0, "flags": (), "layer_curve": ()} | changed
        ),
    )


def names(cells):
    return {cell.name: set(cell.same) for cell in cells}


def test_seeds_of_a_configuration_are_one_cell_and_their_mean_decides():
    (cell,) = candidates_of([run(1, val=0.2, seed=7), run(2, val=0.6, seed=1)])
    assert cell.value == pytest.approx(0.4)
    assert cell.about["seeds"] == [1, 7]
    assert cell.about["run_ids"] == [2, 1]
    assert cell.name == "mel, seg 10, mean, ridge, layer 6 (best)"


def test_a_layer_that_was_chosen_and_one_that_was_named_are_one():
    cells = candidates_of(
        [
            run(1),
            run(2, layer_asked="6"),
            run(3, layer_asked="all"),
            run(4, layer_asked="3", layer="3"),
        ]
    )
    assert len(cells) == 2
    assert sum(len(cell.same) for cell in cells) == 2


def test_aggregations_of_one_segment_are_one_and_of_several_are_not():
    def three(share):
        return [
            run(n, aggregation=agg, share_one_segment=share, n_features=features)
            for n, (agg, features) in enumerate([("concat", 8), ("mean", 8), ("mean+std", 16)])
        ]

    (cell,) = candidates_of(three(1.0))
    assert cell.n_features == 8
    assert len(cell.same) == 2
    assert len(candidates_of(three(0.9))) == 3


def test_lengths_that_cut_alike_are_one_if_all_that_was_saved_is():
    alike = [run(1, seg="60", share_one_segment=1.0), run(2, seg="full", share_one_segment=1.0)]
    (cell,) = candidates_of(alike)
    assert cell.same == ("mel, seg full, mean, ridge, layer 6 (best)",)
    other = run(3, seg="30", share_one_segment=1.0, layer_curve=(("6", 0.51),))
    assert len(candidates_of([*alike, other])) == 2
    assert len(candidates_of([run(1, seg="60"), run(2, seg="full")])) == 2


def test_the_order_of_runs_does_not_matter():
    grid = itertools.product(("10", "full"), ("mean", "max"))
    runs = [
        run(number, seg=seg, aggregation=agg, share_one_segment=float(seg == "full"))
        for number, (seg, agg) in enumerate(grid)
    ]
    expected = names(candidates_of(runs))
    for seed in range(5):
        random.Random(seed).shuffle(runs)
        assert names(candidates_of(runs)) == expected


def test_few_shot_runs_are_another_question():
    assert candidates_of([run(1, shots=5)]) == []


def test_bytes_are_those_of_stores_that_are_there():
    (cell,) = candidates_of([run(1)], {"mel/seg10.zarr": 7.0})
    assert (cell.costs.disk_bytes, cell.costs.seconds, cell.costs.memory_kind) == (7.0, 10.0, "rss")
    (gone,) = candidates_of([run(1)], {"muq/seg10.zarr": 7.0})
    assert gone.costs.disk_bytes is None
    (several,) = candidates_of(
        [run(1, store="a.zarr + b.zarr")], {"mel/a.zarr": 1.0, "mel/b.zarr": 2.0}
    )
    assert several.costs.disk_bytes == 3.0
