"""Text for a terminal: widths are kept, names are data, curves are drawn where they can be."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from test_compare_cells import compare
from test_tables import HOSTILE, NAN, saved

from tune_cache.commands import show
from tune_cache.probes.metrics import Score
from tune_cache.reports.comparisons import compare_row, compare_text
from tune_cache.reports.sweeps import sweep_text
from tune_cache.reports.tables import rows_of, text_table
from tune_cache.reports.text import folded, layer_curves, sparkline

CURVE = tuple((str(layer), layer / 12) for layer in range(13))
LONG = "a_name_without_spaces_that_is_much_longer_than_any_terminal_is_wide_" * 2


def widest(text):
    return max(map(cell_len, text.splitlines()))


@given(st.text(max_size=60), st.integers(10, 60))
def test_folding_loses_no_letter_and_keeps_the_width(text, width):
    lines = folded(text, width=width).split("\n")
    assert all(cell_len(line) <= width for line in lines)
    unfolded = "".join(folded(text, width=10_000).split())
    assert "".join("".join(lines).split()) == unfolded


def test_what_is_indented_stays_so():
    assert folded("  a bb cc", width=6) == "  a bb\n    cc"
    assert folded("short", width=80) == "short"
    assert folded("", width=80) == ""


def test_a_sparkline_has_a_mark_a_value():
    assert sparkline([0.0, 1.0, 0.5]) == "▁█▅"
    assert sparkline([]) == ""
    assert sparkline([3.0, 3.0]) == "▅▅"
    assert sparkline([NAN, math.inf, 1.0, 2.0]) == "··▁█"
    for encoding in ("ascii", "latin-1", "cp1252", "no such encoding"):
        assert sparkline([0.0, NAN, 1.0], encoding=encoding) == "0.9"


def test_curves_are_drawn_once_each_and_not_of_few_layers():
    curves = [("mean", CURVE), ("mean", CURVE), ("max", CURVE[::-1]), ("few", CURVE[:2])]
    head, *lines = layer_curves(curves)
    assert head.startswith("validation by layer")
    assert lines == [f"  ▁▁▂▃▃▄▅▅▆▇▇██ 0.000 to 1.000 {name}" for name in ("mean", "max")]
    assert layer_curves([("few", CURVE[:2]), ("none", ())]) == []
    many = layer_curves([(f"a{n}", CURVE) for n in range(20)])
    assert len(many) == 14
    assert many[-1] == "  and 8 more (--json has all)"


def wide_rows():
    """Names longer than the terminal, seven metrics, and every column of cost."""
    metrics = ["r2", *(f"r2_target_number_{n}" for n in range(6))]
    scores = {
        split: {name: Score(value=-0.125, low=-1.5, high=0.5) for name in metrics}
        for split in ("val", "test")
    }
    cost = {"stage_one_seconds": 12345.6, "peak_vram_allocated_bytes": 7e9, "peak_rss_bytes": 2e9}
    return rows_of(
        saved(
            number,
            context={"dataset": LONG, "encoder": name, "seg": name, "note": LONG, "cost": cost},
            task=LONG,
            aggregation=name,
            probe=name,
            seed=number,
            layer=name,
            flags=(LONG,),
            warnings=(LONG,),
            scores=scores,
            layer_curve=CURVE,
        )
        for number, name in enumerate([LONG, *HOSTILE[-3:]])
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_table_of_80_columns_names_what_it_leaves_out(encoding):
    text = text_table(wide_rows(), width=80, encoding=encoding)
    assert widest(text) <= 80
    plain = " ".join(text.split())
    assert "too narrow for: r2_target_number_0," in plain
    assert "VRAM GB" in plain
    assert "-0.125 [-1.50, 0.50]" in text
    assert ("0012" if encoding == "ascii" else "▁▁▂▃") in text


def sweep_rows():
    row = {
        "dataset": LONG, "task": LONG, "encoder": LONG, "note": LONG, "seg": "10",
        "same_seg": ["full"] * 9, "aggregation": LONG, "same_aggregation": ["max"] * 9,
        "aggregation_options": {}, "probe": LONG, "layer": "6", "layer_asked": "best",
        "seeds": [1, 2], "metric": "accuracy", "test": 0.5, "test_low": 0.25, "test_high": 0.75,
        "seed_deviation": 0.01, "val": 0.5, "n_test": 8, "is_reference": False, "as_good": None,
        "margin": 0.02, "difference": 0.1, "difference_low": -0.1, "difference_high": 0.3,
        "p_holm": 0.5, "p_test": "mcnemar", "n_common": 8, "smallest_in_table": 0.3,
        "flags": [LONG], "warnings": [LONG], "stage_one_seconds": 12345.6, "peak_vram_bytes": 7e9,
        "peak_rss_bytes": 2e9, "n_lengths_together": 1, "n_copied_tracks": 0,
    }  # fmt: skip
    return [row, {**row, "probe": "b", "layer": "7", "n_test": 9}]


def test_a_sweeps_table_of_80_columns_names_what_it_leaves_out():
    text = sweep_text(sweep_rows(), width=80, curves=[(LONG, CURVE)])
    assert widest(text) <= 80
    assert "too narrow for: ± seeds, val, difference, p, n, extract s, VRAM GB" in text
    assert "0.500 [0.25, 0.75]" in text
    assert "p: McNemar" not in text
    assert "▁▁▂▃" in text
    wide = sweep_text(sweep_rows(), width=400)
    assert "too narrow" not in wide
    assert "p: McNemar" in wide


def test_a_comparison_of_80_columns_names_what_it_leaves_out():
    from test_advice import planted

    first, second = (
        saved(number, context={"dataset": LONG}, task=LONG, aggregation=LONG) for number in (1, 2)
    )
    found = compare([planted(40)], [planted(50)], n_resamples=50, n_permutations=10)
    row = compare_row([first], [second], found, 0.5, [], sides=(LONG, "b"), margin=0.02)
    text = compare_text([row], width=80)
    assert widest(text) <= 80
    assert "too narrow for: differ" in text.replace("n, ", "")


class Terminal:
    encoding = "utf-8"

    def __init__(self, is_one):
        self.isatty = lambda: is_one


@pytest.mark.parametrize(
    ("is_terminal", "environment", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # https://no-color.org: present and not empty
        (True, {"TERM": "dumb"}, False),
    ],
    ids=["terminal", "file", "NO_COLOR", "empty NO_COLOR", "dumb"],
)
def test_colour_is_for_terminals_that_want_it(monkeypatch, is_terminal, environment, expected):
    monkeypatch.setattr(sys, "stdout", Terminal(is_terminal))
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert show.colour() is expected


def test_the_width_is_the_terminals_or_what_is_told(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal(False))
    monkeypatch.delenv("COLUMNS", raising=False)
    assert show.width() == 100
    monkeypatch.setenv("COLUMNS", "80")
    assert show.width() == 80
    monkeypatch.setenv("COLUMNS", "3")
    assert show.width() == 40
    monkeypatch.setenv("COLUMNS", "many")
    assert show.width() == 100
    monkeypatch.setattr(sys, "stdout", Terminal(True))
    monkeypatch.setenv("COLUMNS", "132")
    assert show.width() == 132
