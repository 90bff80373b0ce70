"""Names by strangers, from a folder of music to tables and pages: shown as text, never obeyed."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import tune
from small_dataset import N_TRACKS, RATE, make_small_dataset
from test_tables import saved
from world import make_old

from tune_cache import open_store
from tune_cache.audio import write_wav
from tune_cache.cache import inventory
from tune_cache.commands import caches
from tune_cache.commands.training import read_weights, write_weights
from tune_cache.errors import TuneCacheError, printable

HOSTILE = [
    "$(touch pwned).wav",
    "new\nline.wav",
    "[red]x[bold].wav",
    os.fsdecode(b"caf\xe9.wav"),
]


def sound(path: Path, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    time = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * rng.uniform(200, 800) * time)
    noise = rng.standard_normal(RATE) / 3
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name("being-written.wav")  # libsndfile writes no name that is not UTF-8
    write_wav(plain, (0.3 * (tone if kind == "tone" else noise)).astype(np.float32), RATE)
    plain.rename(path)


def is_safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_hostile_names_go_from_scan_to_report_as_text(tmp_path):
    music = tmp_path / "music"
    for place, kind in enumerate(("tone", "noise")):
        for number in range(8):
            sound(music / kind / f"{number}.wav", 10 * place + number, kind)
        for name in HOSTILE:  # one sound: told as leaks wherever splits part them
            sound(music / kind / name, 99 + place, kind)
            (music / kind / f"broken {name}").write_bytes(b"RIFF")
    dataset = "music/music"
    done = [tune(tmp_path, "dataset", "scan", "music")]
    assert done[-1].returncode == 0, done[-1].stderr
    done.append(tune(tmp_path, "extract", dataset, "--encoder", "mel", "--seg", "1"))
    assert done[-1].returncode == 3, done[-1].stderr
    for name in HOSTILE:
        assert f"broken {printable(name)}: " in done[-1].stderr
    (path,) = tmp_path.glob("xdg/tune/v1/mel/*.zarr")
    store = open_store(path)
    assert {f"{kind}/{name}" for kind in ("tone", "noise") for name in HOSTILE} <= {
        name for name, status in store.status.items() if status == "ok"
    }
    done.append(tune(tmp_path, "probe", dataset, "--encoder", "mel"))
    assert done[-1].returncode == 0, done[-1].stderr
    told = done[-1].stdout
    assert "have the audio file of" in told
    forms = {
        form: tune(tmp_path, "report", dataset, "--format", form)
        for form in ("text", "csv", "markdown", "latex", "json")
    }
    done += [*forms.values(), tune(tmp_path, "report", dataset, "--html", "page.html")]
    for one in done:
        assert one.returncode in (0, 3), one.stderr
        assert is_safe(one.stdout + one.stderr), one.stdout + one.stderr
        assert "Traceback" not in one.stderr
    (row,) = csv.DictReader(io.StringIO(forms["csv"].stdout))
    assert any(printable(name) in row["warnings"] for name in HOSTILE), row["warnings"]
    assert not [cell for cell in row.values() if cell.lstrip()[:1] in set("=+@")]
    assert "| --- |" in forms["markdown"].stdout
    assert json.loads(forms["json"].stdout)["rows"]
    page = (tmp_path / "page.html").read_text("utf-8")
    assert is_safe(page)
    for name in HOSTILE:
        assert printable(name) in page
    assert not list(tmp_path.rglob("pwned*"))


@pytest.mark.parametrize("folder", ["a b$(touch pwned)'c", "x\x1b[31m\n;touch 'pwned"])
def test_commands_to_paste_are_quoted_and_folders_are_shown_as_text(tmp_path, folder):
    prefix = str(make_small_dataset(tmp_path / folder))
    (tmp_path / folder / "tune.toml").unlink()

    def pasted(text: str, command: str) -> list[str]:
        (line,) = (line for line in text.splitlines() if command in line)
        words = line[line.index(command) :].partition("`")[0]
        shell = ["bash", "-c", f"printf '%s\\0' {words}"]
        found = subprocess.run(shell, capture_output=True, check=True, cwd=tmp_path)
        return os.fsdecode(found.stdout).split("\0")[:-1]

    labelled = tmp_path / folder / "labelled"
    for number in range(6):
        sound(labelled / "ab"[number % 2] / f"{number}.wav", number, "tone")
    scanned = tune(tmp_path, "dataset", "scan", str(labelled))
    assert pasted(scanned.stdout, "tune dataset check")[3:] == [str(labelled / "labelled")]
    absent = tune(tmp_path, "probe", prefix, "--encoder", "mel", "--seg", "1")
    assert absent.returncode == 1
    assert pasted(absent.stderr, "tune extract")[2] == prefix
    info = tune(tmp_path, "dataset", "info", prefix)
    assert f"below {printable(tmp_path / folder)}" in info.stdout
    missing = tune(tmp_path, "sweep", prefix, "--encoder", "mel", "--seg", "1")
    assert pasted(missing.stderr, "tune extract")[2] == prefix
    empty = tmp_path / folder / "empty"
    empty.mkdir()
    nothing = tune(tmp_path, "extract", str(empty))
    assert pasted(nothing.stderr, "tune dataset scan")[3] == str(empty)
    for done in (scanned, absent, info, missing, nothing):
        assert is_safe(done.stdout + done.stderr), done
    assert not list(tmp_path.rglob("pwned"))


def test_whatever_a_hint_quotes_drives_no_terminal(tmp_path, monkeypatch):
    def fail(**_):
        raise TuneCacheError("what\x1b[31m", hint="first \x1b]0;pwned\x07\nsecond \udce9")

    monkeypatch.setattr(caches, "cache_ls", fail)
    done = tune(tmp_path, "cache", "ls")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: what\\x1b[31m",
        "hint: first \\x1b]0;pwned\\x07",
        "second \\udce9",
    ]


NAMES = [
    *HOSTILE,
    "=1+1.wav",
    "'=1+1.wav",
    "''@x",
    " =1",
    "-2",
    "+cmd|' /C calc'!A0",
    "＝1",
    "a\x1b[31m\x07.wav",
    "high \ud800 surrogate",
    "back\\slash\\n\\x41.wav",
    'quo"te;,x',
    "a\u202eb\U000e0001",
    "",
    "plain.wav",
]


def test_weights_of_hostile_tracks_are_no_formulas_and_come_back_under_their_names(tmp_path):
    weights = {name: (0.25, 0.75 - number / 100) for number, name in enumerate(NAMES)}
    run = saved(context={"dataset": "=x", "seg": "1"}, task="@\ud801", segment_weights=weights)
    path = tmp_path / "weights.csv"
    assert write_weights(path, [run]) == 2 * len(NAMES)
    text = path.read_text("utf-8")  # strict: no byte that is not UTF-8
    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        for cell in row.values():
            assert cell.isprintable()
            assert cell.lstrip()[:1] not in set("=+-@＝＋－＠")
    assert len({row["track_id"] for row in rows}) == len(NAMES)
    assert rows[-1]["track_id"] == "plain.wav"
    ((place, found),) = read_weights(path).items()
    assert place == ("=x", "@\ud801", "1")
    assert found == {name: pytest.approx(list(two)) for name, two in weights.items()}


def test_audio_outside_the_data_root_is_taken_only_when_it_is_allowed(tmp_path):
    prefix = make_small_dataset(tmp_path / "data")
    (tmp_path / "data/audio/03.wav").rename(tmp_path / "outside.wav")
    for split in ("train", "val", "test"):
        path = Path(f"{prefix}.{split}.jsonl")
        path.write_text(path.read_text().replace("audio/03.wav", "../outside.wav"))
    verbs = [
        ("dataset", "check", str(prefix)),
        ("dataset", "info", str(prefix)),
        ("extract", str(prefix), "--encoder", "mel", "--seg", "1"),
        ("estimate", str(prefix), "--encoder", "mel", "--seg", "1"),
        ("probe", str(prefix), "--encoder", "mel"),
        ("cache", "status", str(prefix), "--encoder", "mel"),
    ]
    for verb in verbs:
        refused = tune(tmp_path, *verb)
        assert refused.returncode == 1, (verb, refused.stderr)
        assert "outside" in refused.stdout + refused.stderr
        allowed = tune(tmp_path, *verb, "--allow-outside-root")
        assert allowed.returncode == 0, (verb, allowed.stderr)
    (path,) = tmp_path.glob("xdg/tune/v1/mel/*.zarr")
    status = open_store(path).status
    assert len(status) == N_TRACKS
    assert status[os.path.normpath("../outside.wav")] == "ok"


def test_rehash_notices_what_no_time_of_a_file_tells(tmp_path, monkeypatch):
    prefix = make_small_dataset(tmp_path / "data")
    for path in (tmp_path / "data/audio").iterdir():
        make_old(path)
    monkeypatch.setattr(inventory, "YOUNGEST_TRUSTED_SECONDS", -1.0)
    monkeypatch.setattr(inventory, "_stamp", lambda status: str(status.st_size))  # times lie
    common = ("extract", str(prefix), "--encoder", "mel", "--seg", "1", "--json")

    def tracks(*more: str) -> str:
        done = tune(tmp_path, *common, *more)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["rows"]
        return row["tracks"]

    assert tracks() == f"{N_TRACKS} encoded"
    changed = tmp_path / "data/audio/05.wav"
    data = changed.read_bytes()
    changed.write_bytes(data[:-400] + bytes(400))
    assert tracks() == "found"  # so nothing but the flag can tell
    assert tracks("--rehash") == f"1 encoded, {N_TRACKS - 1} copied"
    assert tracks() == "found"
