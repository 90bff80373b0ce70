"""Finished stores: readable by plain zarr, and every damage is an error, never numbers."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from world import LENGTHS, World

from tune_cache.cache import gather
from tune_cache.cache.find import find_stores
from tune_cache.cache.gather import read_rows
from tune_cache.cache.holds import is_held
from tune_cache.cache.layout import Layout
from tune_cache.cache.shards import SHARD_ROWS, array_metadata, shard_n_bytes
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.errors import (
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
)
from tune_cache.specs import canonical_json, sha256_text


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return World.make(tmp_path_factory.mktemp("made")).extract()[0].path


@pytest.fixture
def store(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / made.name))


def test_plain_zarr_reads_the_same_numbers(made):
    import zarr

    ours = open_store(made)
    group = zarr.open_group(made, mode="r")
    values = group["embeddings/mean"][:]
    np.testing.assert_array_equal(values, ours.read(ours.track_ids).values)
    np.testing.assert_array_equal(group["tracks/offset"][:], ours.offset)
    ids = bytes(group["tracks/id_utf8"][:]).decode()
    assert ids == "".join(ours.track_ids)
    assert dict(group.attrs)["spec_key"] == ours.spec.key
    np.testing.assert_array_equal(
        group["segments/track"][:], np.repeat(np.arange(len(LENGTHS)), np.diff(ours.offset))
    )


def test_a_moved_store_is_the_same_store(made, tmp_path):
    moved = open_store(shutil.copytree(made, tmp_path / "anything"))
    here = open_store(made)
    np.testing.assert_array_equal(
        moved.read(moved.track_ids).values, here.read(here.track_ids).values
    )


def test_tracks_come_in_the_order_asked_for(made):
    store = open_store(made)
    names = ["c/long.wav", "a/short.wav", "b/many.wav"]
    together = store.read(names)
    for index, name in enumerate(names):
        np.testing.assert_array_equal(together[index], store.read([name]).values)
        np.testing.assert_array_equal(
            store.read_layer([name], 2).values, store.read([name]).values[:, 2]
        )
    np.testing.assert_array_equal(
        store.read(names, layers=[2, 0]).values[:, 1], together.values[:, 0]
    )


def test_unknown_tracks_layers_and_poolings_are_sentences(made):
    store = open_store(made)
    with pytest.raises(StoreError, match="has no track 'nobody'"):
        store.read(["nobody"])
    with pytest.raises(StoreError, match=r"keeps layers \[0, 1, 2\], not 9"):
        store.read(store.track_ids, layers=[9])
    with pytest.raises(StoreError, match="has poolings mean, not 'max'"):
        store.read(store.track_ids, pooling="max")


def data_files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] != "ledger"
    )


def read_all(path: Path) -> None:
    """Everything a user can get out of a store."""
    store = open_store(path)
    store.read(store.track_ids)
    _ = store.status, store.audio_sha256, store.n_samples, store.sample_rate_hz
    _ = store.segment_start, store.failed


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"x"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_file_whose_size_changed_is_noticed_on_open(store, kind):
    for name in data_files(store):
        kept = (store / name).read_bytes()
        DAMAGE[kind](store / name)
        with pytest.raises((StoreCorruptError, StoreNotFoundError)):
            open_store(store)
        (store / name).write_bytes(kept)
    open_store(store)


@pytest.mark.parametrize(
    "file", ["embeddings/mean/c/0/0/0", "tracks/offset/c/0", "files.json", "zarr.json"]
)
def test_an_error_that_is_dropped_holds_no_store(made, tmp_path, file):
    store = Path(shutil.copytree(made, tmp_path / "v1/toy" / made.name))
    (store / file).unlink()
    asked = {"encoder": "toy", "lengths": [1], "audio": dict, "track_ids": sorted(LENGTHS)}
    gc.collect()
    gc.disable()  # what nobody refers to must be gone without it
    try:
        with contextlib.suppress(StoreError):
            open_store(store)
        assert not is_held(store)
        with contextlib.suppress(StoreError):
            find_stores(Layout(tmp_path), **asked)
        assert not is_held(store)
    finally:
        gc.enable()


def test_whatever_verify_finds_it_holds_no_store(store):
    gc.collect()
    gc.disable()
    try:
        for name in [*data_files(store), "COMPLETE"]:
            data = (store / name).read_bytes()
            places = range(0, len(data), 1 + len(data) // 24)
            flipped = [data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :] for n in places]
            for harmed in [b"", data + b"x", *flipped]:
                (store / name).write_bytes(harmed)
                with contextlib.suppress(StoreError):
                    verify_store(store)
                assert not is_held(store), name
            (store / name).write_bytes(data)
    finally:
        gc.enable()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_read_that_fails_holds_no_store(store, monkeypatch, n_threads):
    monkeypatch.setattr(gather, "MANY_SHARDS", 1 if n_threads > 1 else 10)
    path = store / "embeddings/mean/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    gc.collect()
    gc.disable()
    try:
        opened = open_store(store)
        with contextlib.suppress(StoreCorruptError):
            opened.read(opened.track_ids)
            pytest.fail("it was read")
        del opened
        assert not is_held(store)
    finally:
        gc.enable()


def test_a_linked_file_is_refused(store, tmp_path):
    for name in data_files(store):
        target = tmp_path / "elsewhere"
        (store / name).rename(target)
        (store / name).symlink_to(target)
        with pytest.raises((StoreCorruptError, StoreNotFoundError)):
            open_store(store)
        (store / name).unlink()
        target.rename(store / name)


def test_a_flipped_bit_never_becomes_numbers(store):
    clean = open_store(store)
    expected = clean.read(clean.track_ids).values
    rng = np.random.default_rng(0)
    for name in data_files(store):
        data = (store / name).read_bytes()
        places = rng.choice(len(data), size=min(len(data), 6), replace=False)
        for place in (0, len(data) - 1, *places.tolist()):
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(rng.integers(8))
            (store / name).write_bytes(bytes(damaged))
            try:
                read_all(store)
                found = open_store(store)
                # a flip in padding behind the last row, or in bytes nobody reads, is left to verify
                np.testing.assert_array_equal(found.read(found.track_ids).values, expected)
            except StoreError:
                pass
        (store / name).write_bytes(data)


def test_a_linked_folder_is_refused(store, tmp_path):
    for name in ("embeddings", "embeddings/mean", "embeddings/mean/c", "tracks"):
        target = tmp_path / "elsewhere"
        (store / name).rename(target)
        (store / name).symlink_to(target)
        with pytest.raises(StoreCorruptError, match="is a link"):
            open_store(store)
        (store / name).unlink()
        target.rename(store / name)


def test_a_flipped_bit_in_the_attributes_is_a_store_error(store):
    data = (store / "zarr.json").read_bytes()
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1
        (store / "zarr.json").write_bytes(bytes(damaged))
        with pytest.raises(StoreError):
            open_store(store)
    (store / "zarr.json").write_bytes(data)


def test_a_damaged_ledger_costs_the_ledger(store):
    (store / "ledger/extract.json").write_bytes(b"{")
    found = open_store(store)
    assert found.ledger == {}
    assert len(found.read(found.track_ids)) == len(LENGTHS)


def rewrite(store: Path, change) -> None:
    """Change the group attributes and make every digest agree again, as a stranger could."""
    path = store / "zarr.json"
    group = json.loads(path.read_text())
    change(group["attributes"])
    text = canonical_json(group)
    path.write_text(text)
    listing = json.loads((store / "files.json").read_text())
    listing["files"]["zarr.json"] = {"sha256": sha256_text(text), "bytes": len(text)}
    (store / "files.json").write_text(canonical_json(listing))
    complete = json.loads((store / "COMPLETE").read_text())
    complete["files_sha256"] = sha256_text(canonical_json(listing))
    (store / "COMPLETE").write_text(canonical_json(complete))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a["format"].update(min_reader=99), "upgrade|format"),
        (lambda a: a["format"].update(name="other"), "format"),
        (lambda a: a.pop("format"), "no tune_cache store"),
        (lambda a: a["spec"].update(dtype="f4"), "spec key"),
        (lambda a: a["spec"].pop("resampler"), "spec cannot be read"),
        (lambda a: a["spec"].update(extra=1), "spec cannot be read"),
    ],
)
def test_a_store_of_another_kind_is_refused_by_name(store, change, match):
    rewrite(store, change)
    with pytest.raises(StoreMismatchError, match=match):
        open_store(store)


def test_a_store_that_lies_about_its_shape_gives_no_numbers(store):
    rewrite(store, lambda a: a.update(n_segments=10**9))
    with pytest.raises(StoreError):
        read_all(store)


def test_names_outside_the_store_are_refused(store):
    listing = json.loads((store / "files.json").read_text())
    for name in ("../outside", "/etc/hostname", "a/../../b"):
        changed = {"files": {**listing["files"], name: {"sha256": "", "bytes": 0}}}
        (store / "files.json").write_text(canonical_json(changed))
        complete = {"files_sha256": sha256_text(canonical_json(changed))}
        (store / "COMPLETE").write_text(canonical_json(complete))
        with pytest.raises(StoreCorruptError, match="outside its store"):
            open_store(store)


def write_array(folder: Path, values: np.ndarray) -> None:
    """An array ``e`` as stores have it."""
    from tune_cache.cache.assemble import _Writer

    _, n_layers, dim = values.shape
    with ThreadPoolExecutor(1) as hashing, ThreadPoolExecutor(1) as writing:
        writer = _Writer(folder, hashing, writing)
        layout = {"chunks": (256, 1, dim), "shards": (1024, n_layers, dim)}
        array = writer.create("e", values.shape, values.dtype.str[1:], **layout)
        array[...] = values
        writer.flush()
        writer.settle()


@pytest.mark.parametrize("n_rows", [1, 255, 256, 257, 1023, 1024, 1025, 2500])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_shards_hold_exactly_what_the_arithmetic_says(tmp_path, n_rows, dtype):
    values = np.random.default_rng(n_rows).standard_normal((n_rows, 2, 3)).astype("<" + dtype)
    n_layers, dim = values.shape[1:]
    write_array(tmp_path, values)
    metadata = json.loads((tmp_path / "e/zarr.json").read_text())
    assert metadata == array_metadata(values.shape, dtype, (256, 1, dim), (1024, n_layers, dim))
    for index in range(-(-n_rows // SHARD_ROWS)):
        here = min(SHARD_ROWS, n_rows - index * SHARD_ROWS)
        size = (tmp_path / f"e/c/{index}/0/0").stat().st_size
        assert size == shard_n_bytes(here, n_layers, dim, dtype)
    rows = np.random.default_rng(1).permutation(n_rows)
    found = read_rows(tmp_path / "e", rows, [1, 0], shape=values.shape, dtype=dtype)
    np.testing.assert_array_equal(found, values[rows][:, [1, 0]])


BLOCK = np.arange(512, 768)
ORDERS = {
    "none": BLOCK[:0],
    "all": np.arange(6000),
    "backwards": np.arange(6000)[::-1],
    "one whole block": BLOCK,
    "a block and a row twice": np.append(BLOCK, 600),
    "256 rows of a block, one twice": np.sort(np.append(np.delete(BLOCK, 9), 600)),
    "256 rows of two blocks": BLOCK + 7,
    "a block turned around": np.roll(BLOCK, 1),
    "two blocks, the later first": np.append(BLOCK + 256, BLOCK),
    "two blocks, row by row": np.stack([BLOCK, BLOCK + 256], axis=1).ravel(),
    "a block twice": np.append(BLOCK, BLOCK),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("many", [1, 100], ids=["threads", "one thread"])
def test_rows_come_in_the_order_wanted_whatever_it_is(tmp_path, monkeypatch, order, many):
    monkeypatch.setattr(gather, "MANY_SHARDS", many)
    values = np.random.default_rng(0).standard_normal((6000, 2, 3)).astype("<f2")
    write_array(tmp_path, values)
    for layers in ([1], [1, 0]):
        found = read_rows(tmp_path / "e", ORDERS[order], layers, shape=values.shape, dtype="f2")
        np.testing.assert_array_equal(found, values[ORDERS[order]][:, layers])
