"""``tune report``: tables for papers, verdicts in rows, figures in a folder."""

from __future__ import annotations

import csv
import io
import json

import pytest
from command_line import tune
from planted_home import planted_home
from test_cold_start import modules_after

import tune_cache


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return planted_home(tmp_path_factory.mktemp("home"))


def test_tables_for_papers_have_in_bold_what_is_as_good(home):
    text = tune(home, "report", "--format", "latex").stdout
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "pm" in line]
    assert [(row.split(" &")[0], "textbf" in row) for row in rows] == [
        ("full", True), ("10", True), ("30", False),
    ]  # fmt: skip
    text = tune(home, "report", "--format", "markdown").stdout
    rows = [line for line in text.splitlines() if line.startswith("| ") and "±" in line]
    assert ["**" in row for row in rows] == [True, True, False]


def test_rows_for_programs_have_the_verdicts(home):
    found = json.loads(tune(home, "report", "--json").stdout)["rows"]
    assert {row["seg"]: row["as_good"] for row in found} == {"full": True, "10": True, "30": False}
    assert {row["seg"]: row["is_reference"] for row in found}["full"] is True
    by_seg = {row["seg"]: row for row in found}
    assert by_seg["30"]["difference"] == pytest.approx(-50 / 400)
    assert by_seg["full"]["difference"] is None
    half = (by_seg["10"]["test_accuracy_high"] - by_seg["10"]["test_accuracy_low"]) / 2
    assert by_seg["10"]["test_half_interval"] == half
    rows = list(csv.DictReader(io.StringIO(tune(home, "report", "--format", "csv").stdout)))
    assert {row["seg"]: row["as_good"] for row in rows} == {
        "full": "True",
        "10": "True",
        "30": "False",
    }


def test_figures_are_written_and_named(home, tmp_path):
    done = tune(
        home, "report", "--figures", str(tmp_path / "f"), "--figure-format", "svg",
        "--figure-format", "png", "--figure-width", "3",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert "small-kind-cost-vram.svg" in written
    assert {name.split(".")[0] for name in written} == {
        "small-kind-cost-vram", "small-kind-cost-seconds", "small-kind-lengths",
        "small-kind-differences",
    }  # fmt: skip
    assert done.stderr.count("figure: ") == len(written)


def test_a_cell_that_cannot_be_compared_is_said_and_the_others_are(home, tmp_path):
    from test_advice import planted
    from test_results import context_of

    from tune_cache.reports.results import save_result

    path = tmp_path / "v1/results.sqlite"
    for seg, settings in (("full", {}), ("10", {}), ("30", {"labels": "z"})):
        save_result(
            path,
            planted(50 if seg == "30" else 40, task="kind", **settings),
            context_of(dataset="small", seg=seg, spec_key=seg),
        )
    told = json.loads(tune(home, "report", "--json", "--cache-dir", str(tmp_path)).stdout)
    assert sorted((row["seg"], row["as_good"]) for row in told["rows"] if row["seg"] != "30") == [
        ("10", True), ("full", True),
    ]  # fmt: skip
    (note,) = told["warnings"]
    assert note.startswith("not compared: mel, seg 30, mean, ridge, layer 12 (last):")
    assert [row["as_good"] for row in told["rows"] if row["seg"] == "30"] == [None]


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (["--figures", "f", "--figure-format", "gif"], "figure format is 'gif'", "pdf for LaTeX"),
        (["--figures", "f", "--figure-width", "340"], "figures 340 in wide", "3.4"),
        (["--figures", "tune.toml"], "figure 'tune.toml/", "--figures"),
        (["--figure-format", "pdf"], "--figure-format", "--figures"),
    ],
    ids=["format", "width", "file", "no folder"],
)
def test_a_mistake_is_told_with_its_remedy(home, arguments, message, remedy):
    done = tune(home, "report", *arguments)
    assert done.returncode == 2
    error, hint = done.stderr.strip().splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert remedy in hint


def test_a_report_without_figures_never_loads_matplotlib(home):
    script = (
        "import tune_cache\n"
        "r = tune_cache.report('small', judge=True, cache_dir=sys.argv[1] + '/cache')\n"
        "assert len(r.tasks[0].cells) == 3"
    )
    code = f"import os; os.chdir({str(home)!r})\n{script}"
    assert "matplotlib" not in modules_after(code, str(home))


def test_characters_that_a_terminal_lacks_are_escaped_and_stop_nothing(home, monkeypatch):
    import contextlib

    from tune_cache.cli import main

    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.chdir(home)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["tune", "report", "--format", "latex", "--cache-dir", "cache"])
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main()
    out.flush()
    assert b"toprule" in out.buffer.getvalue()


def test_the_function_returns_files_and_cells(home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    found = tune_cache.report(
        "small", figures=tmp_path, figure_format="pdf", cache_dir=home / "cache"
    )
    assert {path.suffix for path in found.figures} == {".pdf"}
    assert [item.row["is_reference"] for item in found.tasks[0].cells] == [True, False, False]
