"""Cost beside scores: the right memory under its name, unknown is unknown, old results show."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.cells import cell_len
from test_tables import saved

from tune_cache.cache.journal import UnitLedger
from tune_cache.cache.ledger import summarise
from tune_cache.reports.cost import COST_NAMES, cost_of, ledger_rows, left_out
from tune_cache.reports.paper import markdown_tables, paper_table
from tune_cache.reports.tables import csv_table, rows_of, text_table

ON_CPU = summarise(
    [
        UnitLedger(
            load_seconds=1.0,
            wait_seconds=0.25,
            encode_seconds=20.0,
            first_batch_seconds=4.0,
            decode_seconds=9.0,
            audio_seconds=3600.0,
            n_segments=360,
            batch_size=4,
            n_backoffs=2,
            peak_rss_bytes=10**15,  # above whatever this process has
            peak_decoder_rss_bytes=93_000_000,
            device="cpu",
            n_threads=2,
            n_lengths=1,
        )
    ],
    n_copied=0,
    write_seconds=0.75,
)
ON_GPU = {
    **ON_CPU,
    "peak_vram_allocated_bytes": 3_552_000_000,
    "peak_vram_reserved_bytes": 4_124_000_000,
    "devices": ["cuda: RTX 2080 Ti"],
    "machine": {**ON_CPU["machine"], "driver": "550.54.15", "cuda": "12.4"},
}
OLD = {  # as the first version wrote it
    "encode_seconds": 2.5,
    "wait_seconds": 0.5,
    "audio_seconds": 100.0,
    "n_segments": 10,
    "batch_size": 4,
    "n_backoffs": 0,
    "n_fallbacks": 0,
    "x_real_time": 40.0,
    "n_units": 1,
    "n_copied_tracks": 0,
    "peak_rss_bytes": 250_000_000,
}


def table(*costs, width=120):
    runs = [saved(number, context={"cost": cost}) for number, cost in enumerate(costs, start=1)]
    return text_table(rows_of(runs), width=width).splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_stage_one_is_load_wait_encode_and_write():
    assert cost_of(ON_CPU)["stage_one_seconds"] == 1.0 + 0.25 + 20.0 + 0.75


def test_a_gpu_is_told_by_its_own_memory_and_a_cpu_by_the_process():
    assert cost_of(ON_GPU)["peak_vram_bytes"] == 3_552_000_000
    assert cost_of(ON_CPU)["peak_vram_bytes"] is None
    header, first = table(ON_GPU)[2:4]
    assert "VRAM GB" in header
    assert "RSS GB" not in header
    assert "3.55" in first.split()
    header, first = table(ON_CPU)[2:4]
    assert "RSS GB" in header
    assert "VRAM GB" not in header
    assert "1000000.00" in first.split()
    assert "22.0" in first.split()


def test_a_table_of_both_keeps_them_in_two_columns():
    lines = table(ON_GPU, ON_CPU)
    assert cells(lines[2])[-5:] == ["extract s", "VRAM GB", "RSS GB", "probe s", "flags"]
    assert [line.split()[-4:-2] for line in lines[3:5]] == [["3.55", "–"], ["–", "1000000.00"]]


@pytest.mark.parametrize(
    "cost",
    [{}, OLD, {"stage_one_seconds": None}, {"peak_rss_bytes": "much", "stage_one_seconds": True}],
    ids=["none", "first version", "null", "nonsense"],
)
def test_results_of_other_versions_still_show(cost):
    found = cost_of(cost)
    assert tuple(found) == COST_NAMES
    assert found["stage_one_seconds"] is None
    lines = table(cost, ON_CPU)
    assert "extract s" in lines[2]
    assert "–" in lines[3].split()
    assert "extract s" not in "".join(table(cost))
    assert csv_table(rows_of([saved(1, context={"cost": cost})]))
    assert ledger_rows(cost) == [] or cost is OLD


def test_lengths_made_together_say_that_they_share_memory():
    together = {**ON_CPU, "n_lengths": 3}
    assert not any("share" in line for line in table(ON_CPU))
    assert any(line.startswith("RSS GB: lengths extracted together") for line in table(together))
    assert not any("share" in line for line in table({**ON_GPU, "n_lengths": 3}))
    (row,) = [row for row in ledger_rows(together) if row["cost"] == "RSS"]
    assert "3 lengths" in row["note"]


def test_copied_rows_say_that_they_are_not_counted():
    assert any("copied" in line for line in table({**ON_CPU, "n_copied_tracks": 5}))
    assert not any("copied" in line for line in table(ON_CPU))


def test_a_narrow_table_leaves_out_cost_before_it_folds_names_to_nothing():
    cost = {**ON_CPU, "peak_rss_bytes": 170_000_000, "n_lengths": 2}
    wide, narrow = table(cost, width=100), table(cost, width=72)
    assert "RSS GB" in wide[2]
    assert "extract s" not in narrow[2]
    assert narrow[-1] == "too narrow for: extract s, RSS GB, probe s"
    assert not any(line.startswith("RSS GB:") for line in narrow)
    assert max(map(cell_len, narrow)) <= 72
    assert left_out({"seg": 6, "extract s": 11, "RSS GB": 8, "probe s": 9}, 26) == ["RSS GB"]
    assert left_out({"seg": 6, "extract s": 11}, 17) == []


def test_every_format_has_the_figures():
    run = saved(1, context={"cost": ON_GPU})
    rows = rows_of([run])
    (row,) = csv.DictReader(io.StringIO(csv_table(rows)))
    assert (row["stage_one_seconds"], row["peak_vram_bytes"]) == ("22.0", "3552000000")
    assert "| VRAM GB |" in markdown_tables([paper_table([], [run])])
    assert json.loads(json.dumps(rows[0]))["n_copied_tracks"] == 0


def test_a_ledger_is_told_in_lines_with_units():
    rows = {row["cost"]: (row["value"], row["note"]) for row in ledger_rows(ON_GPU)}
    assert rows["stage one"] == ("22.0 s", "load + wait + encode + write")
    assert rows["encode"] == ("20.0 s", "180.0 × real time; first batch 4.0 s")
    assert rows["batch"] == ("4", "items at most; 2 halved for lack of memory")
    assert rows["VRAM"] == ("3.55 GB", "in tensors; 4.12 GB held by torch")
    assert rows["RSS of a decoder"][0] == "0.09 GB"
    assert rows["audio"] == ("3600.0 s", "360 segments")
    assert rows["device"][0] == "cuda: RTX 2080 Ti"
    assert rows["device"][1].startswith("driver 550.54.15; cuda 12.4")
    assert "copied" not in rows
    assert "VRAM" not in {row["cost"] for row in ledger_rows(ON_CPU)}
    assert "\x1b" not in str(ledger_rows({**ON_CPU, "devices": ["\x1b[31m"]}))
