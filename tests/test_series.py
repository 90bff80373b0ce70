"""What figures show, by numbers worked out by hand."""

from __future__ import annotations

import pytest
from judged import NAN, judged

from tune_cache.reports.cost import Costs
from tune_cache.reports.series import (
    cost_points,
    difference_bars,
    front_points,
    layer_lines,
    length_lines,
    seg_order,
)


def at(seconds, **changed):
    return judged(costs=Costs(seconds=seconds), **changed)


def test_points_have_the_unit_that_the_axis_says():
    costs = Costs(memory_kind="rss", memory_bytes=2e9, seconds=7.0, disk_bytes=3e6)
    (cell,) = [judged(costs=costs)]
    found = {
        kind: [p.x for p in cost_points([cell], kind)]
        for kind in ("rss", "vram", "seconds", "disk")
    }
    assert found == {"rss": [2.0], "vram": [], "seconds": [7.0], "disk": [3.0]}


def test_cells_without_a_cost_or_a_score_are_no_points():
    assert cost_points([judged(costs=Costs()), at(1.0, test=NAN)], "seconds") == []


def test_the_front_rises_and_no_point_beats_it():
    values = [(1, 0.5), (1, 0.6), (2, 0.6), (3, 0.9), (4, 0.8), (5, 0.95)]
    cells = [at(float(x), test=v, name=f"a{n}") for n, (x, v) in enumerate(values)]
    front = front_points(cost_points(cells, "seconds"))
    assert [(p.x, p.value) for p in front] == [(1, 0.6), (3, 0.9), (5, 0.95)]


def test_of_layers_costs_and_differences_show_the_one_that_validation_prefers():
    cells = [
        judged(layer=layer, val=val, test=test, difference=test - 0.5)
        for layer, val, test in (("0", 0.1, 0.9), ("6", 0.8, 0.3), ("12", 0.7, 0.4))
    ]
    assert [p.value for p in cost_points(cells, "seconds")] == [0.3]
    assert [bar.difference for bar in difference_bars(cells)] == [pytest.approx(-0.2)]
    chosen = judged(layer="3", val=0.0, test=0.2, is_reference=True)
    assert [p.is_chosen for p in cost_points([*cells, chosen], "seconds")] == [True]
    assert difference_bars([*cells, chosen]) == []


def test_layers_of_test_need_several_that_were_named():
    named = [
        judged(layer=str(n), layer_asked="all", test=v) for n, v in ((12, 0.4), (0, 0.2), (6, 0.6))
    ]
    (line,) = layer_lines(named)
    assert (line.split, [(p.x, p.value) for p in line.points]) == (
        "test",
        [(0.0, 0.2), (6.0, 0.6), (12.0, 0.4)],
    )
    best = judged("max", layer="6", curve=(("0", 0.1), ("10", 0.3), ("2", 0.2), ("mean", 0.9)))
    last = judged("max", layer="12", layer_asked="last")
    (line,) = layer_lines([best, last])
    assert (line.split, [(p.x, p.value) for p in line.points]) == (
        "validation",
        [(0.0, 0.1), (2.0, 0.2), (10.0, 0.3)],
    )
    assert layer_lines([last]) == []


def test_labels_say_what_differs_and_no_more():
    cells = [judged(name, seg) for name in ("mean", "max") for seg in ("10", "full")]
    assert {bar.label for bar in difference_bars(cells)} == {
        "10 s, mean", "10 s, max", "full, mean", "full, max",
    }  # fmt: skip
    merged = [judged(seg="10"), judged(seg="full", same_aggregation=["max"])]
    assert {bar.label for bar in difference_bars(merged)} == {"10 s, mean", "full, mean = max"} or {
        bar.label for bar in difference_bars(merged)
    } == {"10 s", "full"}


def test_lengths_are_in_order_and_one_that_stands_for_others_is_at_each():
    cells = [
        judged("mean", "10", 0.5, val=0.1),
        judged("mean", "10", 0.4, val=0.2),
        judged("mean", "60", 0.7, same_seg=["full"], same_aggregation=["max"]),
    ]
    segs, lines = length_lines(cells)
    assert segs == ["10", "60", "full"]
    found = {line.label: [(p.x, p.value) for p in line.points] for line in lines}
    assert found == {
        "mean": [(0.0, 0.4), (1.0, 0.7), (2.0, 0.7)],
        "max": [(1.0, 0.7), (2.0, 0.7)],
    }
    one = judged("mean", "full", 0.8, share_one_segment=1.0)
    _, lines = length_lines([judged("max", "10"), judged("mean+max", "10"), one])
    assert {line.label: len(line.points) for line in lines} == {"mean": 1, "max": 2, "mean+max": 1}
    assert length_lines([]) == ([], [])
    assert sorted(["full", "60", "5", "10+30"], key=seg_order) == ["5", "10+30", "60", "full"]


def test_differences_are_in_order_and_undefined_ones_are_none():
    cells = [
        judged(name, difference=value) for name, value in (("a", -0.2), ("b", 0.1), ("c", NAN))
    ]
    assert [bar.difference for bar in difference_bars(cells)] == [0.1, -0.2]
