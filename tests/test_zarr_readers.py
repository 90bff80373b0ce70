"""Stores are plain Zarr v3: zarr and tensorstore read them, wherever they were moved to."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from exchange_world import SAMPLES, files_of, make_store

from tune_cache.cache.exchange.header import ARRAYS
from tune_cache.cache.store import Store, open_store


def by_zarr(store: Path, name: str) -> np.ndarray:
    return zarr.open_array(store / name, mode="r")[...]


def by_tensorstore(store: Path, name: str) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{store / name}/"}}
    return tensorstore.open(spec, read=True, open=True).result().read().result()


def as_it_is(store: Path, folder: Path) -> Path:
    return store


def copied(store: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-r", store, folder / "copy"], check=True)
    return folder / "copy"


def packed(store: Path, folder: Path) -> Path:
    with tarfile.open(folder / "store.tar", "w") as archive:
        archive.add(store, "packed.zarr")
    with tarfile.open(folder / "store.tar") as archive:
        archive.extractall(folder / "un", filter="data")
    return folder / "un" / "packed.zarr"


def renamed(store: Path, folder: Path) -> Path:
    place = folder / "a place" / "\N{SNOWMAN}.zarr"
    place.parent.mkdir()
    return shutil.copytree(store, place).rename(place.with_name("other"))


@pytest.fixture(params=SAMPLES, scope="module")
def store(request, tmp_path_factory) -> Store:
    return make_store(tmp_path_factory.mktemp("cache"), SAMPLES[request.param])


@pytest.mark.parametrize("read", [by_zarr, by_tensorstore])
@pytest.mark.parametrize("move", [as_it_is, copied, packed, renamed])
def test_other_readers_see_the_same_values_wherever_the_store_is(store, tmp_path, move, read):
    place = move(store.path, tmp_path)
    for pooling in store.poolings:
        found = read(place, f"embeddings/{pooling}")
        expected = [
            store.read([track_id], pooling=pooling).values
            for track_id in store.track_ids
            if store.status[track_id] == "ok"
        ]
        shape = (store.n_segments, len(store.layers), store.dim)
        assert found.shape == shape
        assert found.dtype == np.dtype(f"<{store.spec.dtype}")
        joined = np.concatenate([np.zeros((0, *shape[1:]), found.dtype), *expected])
        np.testing.assert_array_equal(found, joined)
    ends = read(place, "tracks/id_offset").tolist()
    text = read(place, "tracks/id_utf8").tobytes()
    ids = [text[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(ends)]
    assert tuple(ids) == store.track_ids
    np.testing.assert_array_equal(read(place, "tracks/offset"), store.offset)
    np.testing.assert_array_equal(read(place, "segments/start_sample"), store.segment_start)
    moved = open_store(place)
    assert moved.content_digest == store.content_digest
    assert files_of(place) == files_of(store.path)


def test_both_readers_agree_on_every_array(store):
    for name in (*ARRAYS, *(f"embeddings/{pooling}" for pooling in store.poolings)):
        ours, theirs = by_zarr(store.path, name), by_tensorstore(store.path, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_a_damaged_chunk_is_an_error_to_both(tmp_path):
    """Their own check of our crc32c: a flipped bit is no number to them either."""
    store = make_store(tmp_path, SAMPLES["shards"])
    shard = store.path / "embeddings/mean/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    for read in (by_zarr, by_tensorstore):
        with pytest.raises(ValueError, match=r"(?i)checksum|crc32|digest"):
            read(store.path, "embeddings/mean")
