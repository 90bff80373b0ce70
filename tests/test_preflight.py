"""Before anything is decoded it is known how much will be written."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import pytest
from world import RATE, World

from tune_cache.cache import preflight
from tune_cache.errors import StoreError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def world(tmp_path):
    return World.make(tmp_path, {f"{n}.wav": RATE * 10 for n in range(3)})


def test_a_disk_without_room_is_refused_before_anything_is_encoded(world, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(10, 10, 1000))
    with pytest.raises(StoreError, match=r"will be written to .* where 0 MB are free") as error:
        world.extract(1.0)
    assert "--cache-dir" in str(error.value.hint)
    assert world.encoder.n_encoded() == 0


def test_a_store_that_is_there_needs_no_room(world, monkeypatch):
    world.extract(1.0)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(10, 10, 0))
    (outcome,) = world.extract(1.0)
    assert outcome.hit


def test_the_forecast_is_what_is_written(world, monkeypatch):
    seen = []
    real = preflight.bytes_to_come

    def spy(job, plan, *, dim):
        seen.append(real(job, plan, dim=dim))
        return seen[-1]

    monkeypatch.setattr(preflight, "bytes_to_come", spy)
    tracks = world.tracks()
    # the world stretches lengths to make several units; here they are true
    planned = [dataclasses.replace(track, seconds=track.seconds / 60) for track in tracks]
    (outcome,) = world.extract(1.0, planned=planned)
    arrays = sum(
        file.stat().st_size
        for name in ("embeddings", "segments", "tracks")
        for file in (outcome.path / name).rglob("*")
        if file.is_file() and file.name != "zarr.json" and "message_utf8" not in str(file)
    )
    journal = 30 * 3 * 8 * 2  # segments, layers, dim, bytes
    assert seen == [arrays + journal]
