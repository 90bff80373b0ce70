"""Stores that earlier versions wrote are read, or the refusal says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from make_old_store import FOLDER, POOLINGS, make
from world import ToyEncoder, World, arrays_of, toy_spec

from tune_cache.audio import decode
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.errors import StoreError
from tune_cache.segments import cut, take
from tune_cache.specs import sha256_text

STORES = sorted(FOLDER.glob("*/*/*.zarr"))


def test_there_is_a_store_of_the_first_version():
    assert STORES[0].relative_to(FOLDER).parts[0] == "0.1.0"


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.parts[-3])
def test_an_old_store_is_small_whole_and_read_as_it_was(path, tmp_path):
    assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 50_000
    store = open_store(path)
    world = World.make(tmp_path)
    encoder = ToyEncoder(poolings=POOLINGS)
    spec = toy_spec(encoder)
    assert store.spec == spec
    assert set(store.failed) == {"c/torn.wav"}
    for track in store.track_ids:
        if track in store.failed:
            continue
        samples = decode(world.audio / track, sample_rate_hz=encoder.sample_rate).samples
        waves = [take(samples, piece, spec.segments) for piece in cut(len(samples), spec.segments)]
        for pooling in POOLINGS:
            rows = [encoder.embed(wave[None])[pooling][0] for wave in waves]
            expected = np.stack(rows).astype("f2")
            assert (store.read([track], pooling=pooling).values == expected).all()


@pytest.mark.parametrize("path", STORES, ids=lambda path: path.parts[-3])
def test_an_old_store_verifies(path):
    report = verify_store(path)
    assert report.is_ok, report


def test_the_script_makes_a_store_of_the_same_content(tmp_path):
    path = make("again", tmp_path)
    same = ("spec_key", "n_segments", "dim", "dtype", "layers", "coverage")
    newest, made = open_store(STORES[-1]).attrs, open_store(path).attrs
    assert {name: made[name] for name in same} == {name: newest[name] for name in same}
    # libsndfile writes the time into a WAV of floats, and a message may name a folder: all
    # else that the content digest is of must be the same bytes
    messages = {f"tracks/message_{part}" for part in ("utf8/c/0", "utf8/zarr.json", "offset/c/0")}
    own = {"tracks/audio_sha256/c/0/0", *messages}
    left, right = arrays_of(path), arrays_of(STORES[-1])
    assert left.keys() == right.keys() > own
    assert {name for name in left if left[name] != right[name]} <= own


def test_a_store_of_a_later_format_is_refused_by_its_version(tmp_path):
    path = tmp_path / "later.zarr"
    shutil.copytree(STORES[-1], path)
    group = json.loads((path / "zarr.json").read_text("utf-8"))
    group["attributes"]["format"] = {"name": "tune_cache", "version": 9, "min_reader": 9}
    rewrite(path, "zarr.json", json.dumps(group))
    with pytest.raises(StoreError, match="9"):
        open_store(path)


def rewrite(path: Path, name: str, text: str) -> None:
    """Change a file and what vouches for it."""
    (path / name).write_text(text, "utf-8")
    listing = json.loads((path / "files.json").read_text("utf-8"))
    listing["files"][name] = {
        **listing["files"][name],
        "bytes": len(text.encode()),
        "sha256": sha256_text(text),
    }
    whole = json.dumps(listing)
    (path / "files.json").write_text(whole, "utf-8")
    complete = json.loads((path / "COMPLETE").read_text("utf-8"))
    complete["files_sha256"] = sha256_text(whole)
    (path / "COMPLETE").write_text(json.dumps(complete), "utf-8")
