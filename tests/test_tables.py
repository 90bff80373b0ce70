from __future__ import annotations

import csv
import io
import json
import re

import pytest
from rich.cells import cell_len
from test_results import NAN, context_of, result_of

from tune_cache.probes.metrics import Score
from tune_cache.reports.results import SavedRun
from tune_cache.reports.tables import csv_table, json_table, rows_of, text_table

HOSTILE = [
    '=HYPERLINK("http://x")',
    "@SUM(1)",
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "\t=1",
    " =1",
    "＝1",
    "[red]bold[/red]",
    "\x1b[31mred\x07",
    "a|b\nc",
    "<script>alert(1)</script>",
    "[x](javascript:1) `y` **z**",
    "a\u202eb",
    "surrogate\udcff",
    'quo"te;,=1',
    "東京" * 20,
]


def saved(number=1, value=0.5, context=None, **changed):
    scores = {
        split: {
            "r2": Score(value=value, low=value - 0.1, high=value + 0.1),
            "r2_arousal": Score(value=value, low=NAN, high=NAN),
        }
        for split in ("val", "test")
    }
    return SavedRun(
        run_id=number,
        created="2025-01-01T00:00:00+00:00",
        context=context_of(**context or {}),
        result=result_of(**{"scores": scores} | changed),
    )


def hostile_rows():
    return rows_of(
        saved(
            number,
            context={"dataset": text, "encoder": text, "seg": text, "note": text},
            task=text,
            aggregation=text,
            aggregation_options={"o": text},
            flags=(text,),
            warnings=(text,),
            metric="r2",
        )
        for number, text in enumerate(HOSTILE)
    )


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_best_scores_come_first_and_the_undefined_last():
    rows = rows_of([saved(1, 0.2), saved(2, NAN), saved(3, 0.9), saved(4, 0.3, task="another")])
    assert [row["run_id"] for row in rows] == [4, 3, 1, 2]


def test_text_says_once_what_all_rows_share():
    runs = [saved(1, 0.2), saved(2, 0.4, aggregation="max"), saved(3, NAN, layer_asked="last")]
    lines = text_table(rows_of(runs)).splitlines()
    assert lines[0] == "emo · emotion: r2 on test [95 % interval]"
    assert lines[1] == "encoder mel; probe ridge; n 2; seed 1234"
    assert lines[2].split() == [
        "seg", "agg", "layer", "r2", "r2_arousal", "val", "probe", "s", "flags",
    ]  # fmt: skip
    assert lines[3].split() == [
        "10", "max", "6", "(best)", "0.400", "[0.30,", "0.50]", "0.400", "0.400", "0.6", "1",
    ]  # fmt: skip
    assert lines[5].split()[4:6] == ["–", "–"]
    assert lines[6:] == ["flag 1: one-segment: 50% of tracks", "warning: odd"]


def test_rows_that_differ_keep_their_columns():
    runs = [saved(1), saved(2, context={"encoder": "muq-nano", "note": "random weights"})]
    text = text_table(rows_of([*runs, saved(3, probe="knn", seed=7)]), width=120)
    assert "encoder muq-nano: random weights" in text.splitlines()
    assert {"encoder", "probe", "seed"} <= set(text.splitlines()[2].split())


def test_each_task_has_its_own_table():
    text = text_table(rows_of([saved(1), saved(2, task="other")]))
    assert text.count("on test") == 2
    assert "\n\n" in text
    assert text_table([]) == ""


def test_options_are_shown_with_their_aggregation():
    row = saved(1, aggregation="concat", aggregation_options={"max_segments": 4})
    assert "concat(max_segments=4)" in text_table(rows_of([row]), width=100)
    assert "0.500 [0.40, 0.60]" in text_table(rows_of([row]))  # names fold, numbers do not


def test_text_fits_its_width_and_drives_no_terminal():
    text = text_table(hostile_rows(), width=80)
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert "[red]" in text


def test_colour_is_only_on_request():
    rows = rows_of([saved()])
    assert "\x1b" not in text_table(rows)
    assert "\x1b[1m" in text_table(rows, colour=True)


def test_no_csv_cell_runs_in_a_spreadsheet():
    text = csv_table(hostile_rows())
    for row in read_csv(text):
        for name, cell in row.items():
            first = cell.lstrip()[:1]
            assert first not in set("=+-@＝＋－＠") or re.fullmatch(r"-?[\d.e-]+", cell), (
                name,
                cell,
            )
    assert {row["task"] for row in read_csv(text)} >= {'\'=HYPERLINK("http://x")', "'-2+3"}
    assert all(character.isprintable() for line in text.splitlines() for character in line)


def test_csv_keeps_numbers_and_plain_negatives():
    (row,) = read_csv(csv_table(rows_of([saved(1, -0.25, context={"seg": "-1.5"})])))
    assert row["test_r2"] == "-0.25"
    assert row["seg"] == "-1.5"
    assert row["test_r2_arousal_low"] == ""
    assert json.loads(row["params"]) == {"alpha": 10.0}
    assert row["flags"] == "one-segment: 50% of tracks"


def test_csv_has_the_columns_of_all_rows():
    other = saved(2, metric="accuracy", task="genre", scores={
        split: {"accuracy": Score(value=1.0, low=1.0, high=1.0)} for split in ("val", "test")
    })  # fmt: skip
    rows = read_csv(csv_table(rows_of([saved(), other])))
    assert rows[0]["test_accuracy"] == ""
    assert rows[1]["test_accuracy"] == "1.0"


def test_json_is_one_object_without_nan():
    text = json_table(rows_of([saved(1, NAN)]), command="report", dataset="emo", warnings=["w"])
    value = json.loads(text, parse_constant=pytest.fail)
    assert list(value) == ["schema", "command", "dataset", "rows", "warnings"]
    assert value["schema"] == 1
    assert value["rows"][0]["test_r2"] is None
    assert value["rows"][0]["params"] == {"alpha": 10.0}
    assert json.loads(json_table(hostile_rows(), command="report", dataset=None))["dataset"] is None


def test_json_names_are_the_documented_ones():
    """Scripts read these; a change is a change of the schema."""
    assert list(rows_of([saved()])[0]) == [
        "run_id", "created", "dataset", "task", "encoder", "note", "seg", "pooling",
        "aggregation", "aggregation_options", "probe", "params", "layer", "layer_asked", "seed",
        "metric", "test_r2", "test_r2_low", "test_r2_high", "test_r2_arousal",
        "test_r2_arousal_low", "test_r2_arousal_high", "val_r2", "val_r2_low", "val_r2_high",
        "val_r2_arousal", "val_r2_arousal_low", "val_r2_arousal_high", "n_train", "n_val",
        "n_test", "n_classes", "n_features", "share_one_segment", "layer_curve",
        "seconds_read", "seconds_fit",
        "seconds_predict", "seconds_predict_per_1000", "peak_fit_bytes", "peak_predict_bytes",
        "n_excluded", "flags", "warnings", "store", "spec_key",
        "content_digest", "stage_one_seconds", "peak_vram_bytes", "peak_rss_bytes",
        "n_lengths_together", "n_copied_tracks",
    ]  # fmt: skip
