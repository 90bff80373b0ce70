"""Hostile files through the whole command: each costs itself, good rows keep every bit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from command_line import tune
from hostile_audio import DECODED, REFUSED, encoded

from tune_cache import open_store
from tune_cache.encoders.base import get_encoder


def manifest(folder: Path, paths: list[Path]) -> str:
    text = "".join(
        json.dumps({"audio_path": os.fspath(path.relative_to(folder)), "label": "x"}) + "\n"
        for path in paths
    )
    (folder / "hostile.train.jsonl").write_text(text, "utf-8")
    return str(folder / "hostile")


def extract(folder: Path, prefix: str) -> tuple[int, Path, str]:
    done = tune(folder, "extract", prefix, "--encoder", "mel", "--seg", "1", "--json")
    assert "Traceback" not in done.stderr
    return done.returncode, Path(json.loads(done.stdout)["rows"][0]["store"]), done.stderr


def test_every_hostile_file_costs_itself_only(tmp_path):
    good = tmp_path / "a-good.flac"
    good.write_bytes(encoded("FLAC"))
    paths, reasons, outside = [good], {}, 0
    info = get_encoder("mel").describe()
    for index, case in enumerate((*REFUSED, *DECODED)):
        folder = tmp_path / f"{index:03}"
        folder.mkdir()
        path = case.make(folder)
        if "\0" in os.fspath(path):
            continue  # a line error of the manifest, see test_manifest.py
        if not os.path.realpath(path).startswith(os.path.realpath(tmp_path)):
            outside += 1  # a link out of the data root is refused by the manifest, elsewhere
            continue
        paths.append(path)
        # a link is listed as the file it leads to, so the reason is looked up by that
        is_short = case.seconds * info.sample_rate < info.min_samples
        reason = case.reason or ("too-short" if is_short else "")
        reasons[os.fspath(path.relative_to(tmp_path))] = reason
    assert len(reasons) >= 40
    last = tmp_path / "z-good.flac"
    last.write_bytes(encoded("FLAC"))
    code, store_path, _ = extract(tmp_path, manifest(tmp_path, [*paths, last]))
    assert code == 3
    store = open_store(store_path)
    found = {name: "" if status == "ok" else status for name, status in store.status.items()}
    wrong = {
        name: (found.get(name), reason)
        for name, reason in reasons.items()
        if found.get(name) != reason
    }
    assert wrong == {}
    alone_folder = tmp_path / "alone"
    alone_folder.mkdir()
    (alone_folder / "a-good.flac").write_bytes(encoded("FLAC"))
    code, alone, _ = extract(alone_folder, manifest(alone_folder, [alone_folder / "a-good.flac"]))
    assert code == 0
    reference = open_store(alone).read(["a-good.flac"]).values
    for name in ("a-good.flac", "z-good.flac"):
        np.testing.assert_array_equal(store.read([name]).values, reference)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"audio_path": "a.wav", "label": NaN}',
        '{"audio_path": "a.wav", "audio_path": "b.wav", "label": "x"}',
        '{"audio_path": "../../etc/passwd", "label": "x"}',
        '{"audio_path": "/etc/passwd", "label": "x"}',
        '{"audio_path": 7, "label": "x"}',
        '{"audio_path": "a.wav", "label": {"x": 1}}',
        "[1, 2]",
        '{"audio_path": "a.wav", "label": "' + "x" * 70_000 + '"}',
    ],
    ids=lambda line: line[:40],
)
def test_a_hostile_manifest_line_is_a_sentence_with_its_number(tmp_path, line):
    (tmp_path / "b.wav").write_bytes(encoded("WAV"))
    good = '{"audio_path": "b.wav", "label": "x"}\n'
    (tmp_path / "bad.train.jsonl").write_text(good + line + "\n", "utf-8")
    done = tune(tmp_path, "extract", str(tmp_path / "bad"), "--encoder", "mel")
    assert done.returncode == 1, done.stderr
    assert "bad.train.jsonl:2" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_names_that_attack_a_terminal_are_shown_as_text(tmp_path):
    names = ["$(touch pwned).wav", "new\nline.wav", "[red]x[bold].wav", "\x1b[31m.wav", "-rf.wav"]
    names.append(os.fsdecode(b"caf\xe9.wav"))
    for name in names:
        (tmp_path / name).write_bytes(b"broken")
    (tmp_path / "good.wav").write_bytes(encoded("WAV"))
    paths = [tmp_path / name for name in [*names, "good.wav"]]
    prefix = manifest(tmp_path, paths)
    done = tune(tmp_path, "extract", prefix, "--encoder", "mel", "--seg", "1")
    assert done.returncode == 3
    text = done.stdout + done.stderr
    assert "\x1b" not in text
    assert "new\\nline.wav" in text
    assert "[red]x[bold].wav" in text
    assert "caf\\udce9.wav" in text
    assert "\udce9" not in text
    assert not (tmp_path / "pwned").exists()
