"""``tune recommend`` on saved results, as a user meets it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from command_line import tune
from planted_home import planted_home
from test_advice import N, planted
from test_results import context_of

import tune_cache
from tune_cache.reports.results import save_result


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return planted_home(tmp_path_factory.mktemp("home"))


def rows(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["rows"]


def test_the_command_tells_what_was_planted(home):
    done = tune(home, "recommend", "--max-memory", "4GB", "--max-seconds-per-hour", "60")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("\n\n")[1:3]
    assert first.startswith("best; ")
    assert "mel, seg full, mean, ridge, layer 12 (last)" in first
    assert "over the budget" in first
    assert second.startswith("least VRAM as good as the best; best within 4 GB VRAM, 60 s an hour")
    assert "seg 10" in second


def test_json_has_the_same_and_what_cannot_be_told(home):
    told = json.loads(tune(home, "recommend", "--max-bytes", "1GB", "--json").stdout)
    assert (told["command"], told["dataset"]) == ("recommend", "small")
    assert {role for row in told["rows"] for role in row["roles"]} == {
        "best",
        "cheapest",
        "fastest",
    }
    assert any("no cell is known to fit" in text for text in told["warnings"])
    assert told["rows"][0]["n_test"] == N


def test_a_budget_of_memory_that_the_results_do_not_have_admits_nothing(home):
    found = rows(tune(home, "recommend", "--max-memory", "4GB", "--memory-kind", "rss", "--json"))
    assert all("within" not in row["roles"] and row["fits"] is None for row in found)


def test_the_function_is_the_command(home, monkeypatch):
    monkeypatch.chdir(home)
    found = tune_cache.recommend(
        "small", task="kind", max_memory="2.5GB", rule="share", cache_dir=home / "cache"
    )
    assert found.advice["kind"].of("within") is None
    assert found.advice["kind"].of("cheapest").candidate.about["seg"] == "10"


def test_few_shot_results_and_notes_are_told(home, tmp_path, monkeypatch):
    monkeypatch.chdir(home)
    path = tmp_path / "v1/results.sqlite"
    save_result(path, planted(40, task="kind"), context_of(dataset="small", note="random weights"))
    few = dataclasses.replace(planted(9, task="kind"), shots=5, probe="knn 5-shot", predictions=())
    save_result(path, few, context_of(dataset="small"))
    found = tune_cache.recommend("small", cache_dir=tmp_path)
    assert found.advice["kind"].n_cells == 1
    assert found.warnings == (
        "1 few-shot results are left out: they are another question",
        "encoder mel: random weights",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message", "remedy"),
    [
        (["--task", "no"], 1, "for task 'no'; there are those of task 'kind'", "tune sweep"),
        (["--encoder", "no"], 1, "encoder 'no'; there are those of encoder 'mel'", "tune sweep"),
        (["--max-bytes", "lots"], 2, "room on disk is 'lots'", "500MiB"),
        (["--max-bytes", "0"], 2, "budget of room on disk is 0", "leave it out"),
        (["--max-memory", "4 loaves"], 2, "memory is '4 loaves'", "4GB"),
        (["--max-seconds-per-hour", "-1"], 2, "expected a positive number", "leave it out"),
        (["--margin", "0"], 2, "margin is 0.0", "0.02"),
        (["--share", "98"], 2, "share is 98.0", "0.98"),
        (["--published"], 2, "no published table of dataset ''", "EMO"),
        (["EMO", "--published", "--max-seconds-per-hour", "9"], 2, "a whole dataset", "leave out"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_with_its_remedy(home, arguments, code, message, remedy):
    done = tune(home, "recommend", *arguments)
    assert done.returncode == code
    error, hint = done.stderr.strip().splitlines()[-2:]
    assert message in error
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert remedy in hint


def test_the_published_table_needs_no_data(tmp_path):
    found = rows(tune(tmp_path, "recommend", "EMO", "--published", "--rule", "share", "--json"))
    assert [row["name"] for row in found] == ["full track", "seg 10, mean"]
    assert all("published; segmentation not effective" in row["flags"][0] for row in found)
