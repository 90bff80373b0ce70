"""The command line as a user meets it: exit codes, streams, sentences, resuming."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import tune
from small_dataset import N_TRACKS, make_home, make_small_dataset

import tune_cache


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a dataset, a tune.toml and a cache that has a 1-s store."""
    folder = make_home(tmp_path_factory.mktemp("home"))
    done = tune(folder, "extract", "--seg", "1")
    assert done.returncode == 0, done.stderr
    return folder


def test_the_two_commands_work_with_nothing_else_given(home):
    extracted = tune(home, "extract")
    assert extracted.returncode == 0, extracted.stderr
    assert "dataset small: 24 tracks; encoder mel" in extracted.stderr
    probed = tune(home, "probe", "--agg", "mean")
    assert probed.returncode == 0, probed.stderr
    assert "small · kind: accuracy on test" in probed.stdout
    assert "small · level: r2 on test" in probed.stdout


def test_json_is_one_object_on_stdout_and_nothing_else(home):
    for arguments, command in (
        (["extract", "--seg", "1"], "extract"),
        (["probe", "--seg", "1"], "probe"),
        (["report"], "report"),
        (["dataset", "check"], "dataset check"),
        (["dataset", "ls"], "dataset ls"),
        (["dataset", "info"], "dataset info"),
        (["cache", "ls"], "cache ls"),
        (["cache", "info", "seg1-"], "cache info"),
    ):
        done = tune(home, *arguments, "--json")
        assert done.returncode == 0, (arguments, done.stderr)
        found = json.loads(done.stdout)
        assert set(found) == {"schema", "command", "dataset", "rows", "warnings"}
        assert found["command"] == command


def test_report_has_four_forms(home):
    tune(home, "probe", "--seg", "1")
    assert tune(home, "report", "--format", "csv").stdout.startswith('"run_id"')
    assert "| --- |" in tune(home, "report", "--format", "markdown").stdout
    assert json.loads(tune(home, "report", "--format", "json").stdout)["rows"]
    assert "small · kind" in tune(home, "report").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["extract", "--seg", "10000"], 2, "longer than an hour", "milliseconds"),
        (["extract", "--seg", "thirty"], 2, "'thirty'", "--seg 30"),
        (["extract", "--encoder", "mell"], 1, "'mell'", "mel"),
        (["extract", "--precision", "fp64", "--encoder", "mel"], 2, "'fp64'", ""),
        (["extract", "--pool", "median"], 2, "'median'", ""),
        (["extract", "--batch-size", "many"], 2, "'many'", ""),
        (["extract", "--max-memory", "lots"], 2, "'lots'", "4GB"),
        (["extract", "--part", "3/2"], 2, "'3/2'", "1/4"),
        (["extract", "--seg", "full", "--hop", "5"], 2, "--hop", "leave out"),
        (["extract", "nowhere/at-all"], 2, "nowhere/at-all", ""),
        (["probe", "--seg", "7"], 1, "no store", "tune extract"),
        (["probe", "--task", "kinds"], 2, "'kinds'", "hint: did you mean 'kind'? --task takes"),
        (["probe", "--task", "tempo"], 2, "'tempo'", "hint: --task takes 'kind', 'level'"),
        (["sweep", "--task", "tempo"], 2, "'tempo'", "hint: --task takes 'kind', 'level'"),
        (["probe", "--agg", "meen"], 2, "'meen'", "mean"),
        (["probe", "--layer", "9"], 1, "layer 9", ""),
        (["cache", "info", "nothing"], 1, "'nothing'", "tune cache ls"),
        (["report", "--task", "other"], 1, "no results", "tune probe"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_a_sentence_and_a_remedy(home, arguments, code, error, hint):
    done = tune(home, *arguments)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("dataset small")]
    text = "\n".join(lines)
    assert "error: " in text
    assert "Traceback" not in text
    assert error in text
    assert hint in text


def test_unknown_options_and_settings_are_refused(home, tmp_path):
    assert tune(home, "extract", "--segment", "60").returncode == 2
    (tmp_path / "tune.toml").write_text("[defaults]\nsegment = 60\n")
    done = tune(tmp_path, "extract")
    assert done.returncode == 2
    assert "unknown key 'segment'" in done.stderr
    assert "'seg'" in done.stderr


def test_failed_tracks_are_listed_and_exit_3(home, tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    (tmp_path / "data/audio/03.wav").write_bytes(b"broken")
    for _ in range(2):  # a cached store with failed tracks says so as well
        done = tune(tmp_path, "extract", str(prefix), "--encoder", "mel", "--seg", "1")
        assert done.returncode == 3, done.stderr
        assert "1 tracks failed" in done.stderr
        assert "audio/03.wav" in done.stderr
        assert "Traceback" not in done.stderr
    probed = tune(tmp_path, "probe", str(prefix), "--encoder", "mel", "--json")
    assert probed.returncode == 0, probed.stderr
    rows = json.loads(probed.stdout)["rows"]
    assert sum(rows[0][f"n_{split}"] for split in ("train", "val", "test")) == N_TRACKS - 1
    assert rows[0]["n_excluded"] == 1
    assert any("1" in warning for warning in rows[0]["warnings"])


def test_a_changed_file_never_gets_its_old_vectors(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    common = (str(prefix), "--encoder", "mel", "--seg", "1")
    assert tune(tmp_path, "extract", *common).returncode == 0
    data = (tmp_path / "data/audio/05.wav").read_bytes()
    (tmp_path / "data/audio/05.wav").write_bytes((tmp_path / "data/audio/06.wav").read_bytes())
    stale = tune(tmp_path, "probe", *common)
    assert stale.returncode == 1
    assert "has other audio for 1 of 24 tracks ('audio/05.wav')" in stale.stderr
    assert tune(tmp_path, "extract", *common).returncode == 0
    assert tune(tmp_path, "probe", *common).returncode == 0
    (tmp_path / "data/audio/05.wav").write_bytes(data)
    assert tune(tmp_path, "probe", *common).returncode == 0  # the first store serves again


def test_stage_two_needs_no_audio(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    common = (str(prefix), "--encoder", "mel", "--seg", "1")
    assert tune(tmp_path, "extract", *common).returncode == 0
    for path in (tmp_path / "data/audio").iterdir():
        path.unlink()
    done = tune(tmp_path, "probe", *common)
    assert done.returncode == 0, done.stderr


def test_two_encodings_at_one_length_are_not_guessed_between(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    common = (str(prefix), "--encoder", "mel", "--seg", "1")
    assert tune(tmp_path, "extract", *common).returncode == 0
    assert tune(tmp_path, "extract", *common, "--hop", "0.5").returncode == 0
    done = tune(tmp_path, "probe", *common)
    assert done.returncode == 2
    assert "segments.hop_samples" in done.stderr
    assert "--store" in done.stderr
    store = next((tmp_path / "xdg/tune/v1/mel").glob("seg1-*.zarr"))
    chosen = tune(tmp_path, "probe", *common, "--store", str(store))
    assert chosen.returncode == 0, chosen.stderr


def test_what_encoders_and_lengths_there_are_is_said(tmp_path):
    prefix = str(make_small_dataset(tmp_path / "data"))
    for encoder in ("mel", "muq-nano"):
        assert tune(tmp_path, "extract", prefix, "--encoder", encoder, "--seg", "1").returncode == 0
    several = tune(tmp_path, "probe", prefix)  # the dataset's own encoder, muq, has none
    assert several.returncode == 2
    assert "mel (1), muq-nano (1)" in several.stderr
    assert "--encoder mel" in several.stderr
    absent = tune(tmp_path, "probe", prefix, "--seg", "7")
    assert absent.returncode == 1
    assert "no store at segment length 7" in absent.stderr
    assert f"tune extract {prefix} --encoder mel --seg 7" in absent.stderr
    there = str(tmp_path / "another cache")
    for verb in ("probe", "sweep"):
        other = tune(tmp_path, verb, prefix, "--encoder", "mel", "--seg", "7", "--cache-dir", there)
        assert f"--cache-dir '{there}'" in other.stderr


def test_a_dataset_without_a_task_cannot_be_probed(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    for split in ("train", "val", "test"):
        path = Path(f"{prefix}.{split}.jsonl")
        path.write_text(path.read_text().replace('"label"', '"mood"'))
    assert tune(tmp_path, "extract", str(prefix), "--encoder", "mel").returncode == 0
    done = tune(tmp_path, "probe", str(prefix))
    assert done.returncode == 1
    assert "no task" in done.stderr
    assert "tune.toml" in done.stderr


def test_a_notebook_may_give_one_value_or_several(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prefix = make_small_dataset(tmp_path / "data")
    cache = tmp_path / "cache"
    one = tune_cache.extract(prefix, encoder="mel", seg=1, cache_dir=cache)
    two = tune_cache.extract(prefix, encoder="mel", seg=["1", "full"], cache_dir=cache)
    assert [outcome.hit for outcome in two.outcomes] == [True, False]
    assert two.outcomes[0].path == one.outcomes[0].path
    found = tune_cache.probe(prefix, agg="max", layer=2, seg="full", seed=7, cache_dir=cache)
    (run,) = found.runs
    assert (run.context.seg, run.result.aggregation, run.result.layer) == ("full", "max", "2")


def test_all_three_names_start_the_same_program():
    for command in (["tune"], ["tune-cache"], [sys.executable, "-m", "tune_cache"]):
        if len(command) == 1:
            command = [str(Path(sys.executable).parent / command[0])]
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("tune_cache ")


def test_the_real_music_runs_from_check_to_report(subset, tmp_path):
    for name in ("soundtrack", "soundtrack_reg"):
        prefix = str(subset / name)
        assert tune(tmp_path, "dataset", "check", prefix).returncode == 0
        lengths = ("--seg", "10", "--seg", "30", "--seg", "full")
        done = tune(tmp_path, "extract", prefix, "--encoder", "mel", *lengths, "--json")
        assert done.returncode == 0, done.stderr
        tracks = [row["tracks"] for row in json.loads(done.stdout)["rows"]]
        # both tasks share one store: the second dataset finds what the first made
        assert tracks == ["37 encoded" if name == "soundtrack" else "found"] * 3
        aggs = ("--agg", "mean", "--agg", "max", "--agg", "concat")
        assert tune(tmp_path, "probe", prefix, "--encoder", "mel", *aggs).returncode == 0
        rows = json.loads(tune(tmp_path, "report", prefix, "--json").stdout)["rows"]
        assert len(rows) == 9


def test_a_result_that_cannot_be_saved_is_still_shown(tmp_path):
    prefix = str(make_small_dataset(tmp_path / "data"))
    assert tune(tmp_path, "extract", prefix, "--encoder", "mel", "--seg", "1").returncode == 0
    (tmp_path / "xdg/tune/v1/results.sqlite").mkdir()  # nobody can write that, root neither
    done = tune(tmp_path, "probe", prefix, "--encoder", "mel")
    assert done.returncode == 0, done.stderr
    assert "small · small: accuracy" in done.stdout
    assert "result is not saved" in done.stderr


def test_a_share_lists_what_failed_in_it(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    (tmp_path / "data/audio/03.wav").write_bytes(b"broken")
    common = ("extract", str(prefix), "--encoder", "mel", "--seg", "1")
    # the world is one unit: the second share has nothing to do, the first has all
    assert tune(tmp_path, *common, "--part", "2/2").returncode == 0
    done = tune(tmp_path, *common, "--part", "1/2")
    assert done.returncode == 3
    assert "audio/03.wav" in done.stderr


def test_an_exact_store_that_contradicts_other_flags_is_refused(home):
    store = next((home / "cache/v1/mel").glob("seg1-*.zarr"))
    for flag, value in (("--seg", "9"), ("--encoder", "muq")):
        done = tune(home, "probe", "--store", str(store), flag, value)
        assert done.returncode == 1
        assert flag in done.stderr


def test_what_a_store_cost_is_told_and_stands_beside_its_scores(home):
    done = tune(home, "cache", "info", "seg1-")
    assert done.returncode == 0, done.stderr
    told = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    for name in ("stage one", "load", "wait", "encode", "write", "decode", "RSS"):
        assert name in told, done.stdout
    assert "× real time" in told["encode"]
    info = json.loads(tune(home, "cache", "info", "seg1-", "--json").stdout)["rows"][0]
    ledger = info["ledger"]
    parts = [ledger[f"{name}_seconds"] for name in ("load", "wait", "encode", "write")]
    assert ledger["stage_one_seconds"] == pytest.approx(sum(parts))
    assert min(ledger["decode_seconds"], ledger["encode_seconds"], ledger["write_seconds"]) > 0
    assert ledger["devices"] == ["cpu"]
    rows = json.loads(tune(home, "probe", "--seg", "1", "--json").stdout)["rows"]
    assert {row["stage_one_seconds"] for row in rows} == {ledger["stage_one_seconds"]}
    assert {row["peak_rss_bytes"] for row in rows} == {ledger["peak_rss_bytes"]}
    assert {row["peak_vram_bytes"] for row in rows} == {None}
    header = tune(home, "report").stdout.splitlines()[2]
    assert "extract s" in header
    assert "RSS GB" in header
    assert "probe s" in header
