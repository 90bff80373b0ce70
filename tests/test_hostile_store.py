"""Stores made by a stranger: every hash agrees, and what they say is a lie (promise 15).

Whoever can write a store can write its digests, so these pass every integrity check on the way to
the lie. Opening one and reading all that a user can read must end in an error of ours, in bounded
memory, and must neither read nor write anything outside the store.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest
from damage import (
    assign,
    chunk_place,
    forge,
    forge_array,
    forge_attributes,
    make_world,
    numbers_of,
    relist,
)

from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.cache.verify import verify_store
from tune_cache.errors import StoreError
from tune_cache.specs import canonical_json, sha256_text

MOST_BYTES = 64 << 20  # of Python's and NumPy's memory, whatever a store claims
SHARD = "embeddings/mean/c/0/0/0"
SECRET = "what a user would not publish"
Case = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    return make_world(tmp_path_factory.mktemp("good"))[1]


@pytest.fixture
def store(good, tmp_path) -> Path:
    (tmp_path / "secret").write_text(SECRET)
    return Path(shutil.copytree(good, tmp_path / "v1/toy" / good.name))


def says(**attributes: object) -> Case:
    return lambda store: forge_attributes(store, lambda found: found.update(attributes))


def spec_says(**fields: object) -> Case:
    """With the spec's own key made to agree."""

    def lie(store: Path) -> None:
        def change(attributes: dict) -> None:
            attributes["spec"].update(fields)
            attributes["spec_key"] = sha256_text(canonical_json(attributes["spec"]))

        forge_attributes(store, change)

    return lie


def segments_say(**fields: object) -> Case:
    def lie(store: Path) -> None:
        def change(attributes: dict) -> None:
            attributes["spec"]["segments"].update(fields)
            attributes["spec_key"] = sha256_text(canonical_json(attributes["spec"]))

        forge_attributes(store, change)

    return lie


def holds(name: str, place: object, value: object) -> Case:
    return lambda store: forge_array(store, name, assign(place, value))


def file(name: str, data: bytes) -> Case:
    return lambda store: forge(store, name, data)


def described(**fields: object) -> Case:
    """The embeddings' own metadata, as another program could write it."""

    def lie(store: Path) -> None:
        metadata = json.loads((store / "embeddings/mean/zarr.json").read_text())
        forge(store, "embeddings/mean/zarr.json", json.dumps({**metadata, **fields}).encode())

    return lie


def lists(name: str, n_bytes: object = 0, sha256: object = "") -> Case:
    def lie(store: Path) -> None:
        listing = json.loads((store / "files.json").read_text())
        listing["files"][name] = {"bytes": n_bytes, "sha256": sha256}
        relist(store, listing)

    return lie


def listing_is(text: str) -> Case:
    def lie(store: Path) -> None:
        (store / "files.json").write_text(text)
        (store / "COMPLETE").write_text(canonical_json({"files_sha256": sha256_text(text)}))

    return lie


def index_says(offset: int, length: int) -> Case:
    """A place in a shard's index that leads elsewhere; the index's checksum agrees."""

    def lie(store: Path) -> None:
        data = bytearray((store / SHARD).read_bytes())
        _, n_bytes = chunk_place(store / SHARD, SHARD_ROWS, 0, 0)
        n_index = SHARD_ROWS // 256 * 3 * 16 + 4
        index = bytearray(data[-n_index:-4])
        index[:16] = struct.pack("<QQ", offset, length or n_bytes)
        data[-n_index:] = bytes(index) + struct.pack("<I", google_crc32c.value(bytes(index)))
        forge(store, SHARD, bytes(data))

    return lie


def becomes(name: str, make: Callable[[Path], None]) -> Case:
    def lie(store: Path) -> None:
        path = store / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path)

    return lie


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def other_codec(name: str) -> Case:
    return described(codecs=[{"name": name, "configuration": {}}])


N_TRACKS = 5
DEEP = "[" * 100_000 + "]" * 100_000
NUMBERS = (-1, 0, 10**9, 10**18, 2**70, None, [1], {}, "many")

CASES: dict[str, Case] = {
    **{f"n_tracks is {n!r}": says(n_tracks=n) for n in NUMBERS},
    **{f"n_segments is {n!r}": says(n_segments=n) for n in NUMBERS},
    **{f"dim is {n!r}": says(dim=n) for n in NUMBERS},
    "attributes are deep": file("zarr.json", b'{"attributes":' + DEEP.encode() + b"}"),
    "attributes are a list": file("zarr.json", b'{"attributes":[]}'),
    "attributes are not UTF-8": file("zarr.json", b'{"attributes":"\xff"}'),
    "attributes are no JSON": file("zarr.json", b"import os"),
    "attributes are empty": file("zarr.json", b""),
    "a pooling leads outside": spec_says(poolings=["../../../../secret"]),
    "a pooling is absolute": spec_says(poolings=["/etc"]),
    "a pooling is unknown": spec_says(poolings=["none"]),
    "poolings are no list": spec_says(poolings=7),
    "no pooling": spec_says(poolings=[]),
    "a billion layers": spec_says(layers=[10**9]),
    "many layers": spec_says(layers=list(range(100_000))),
    "negative layers": spec_says(layers=[-3, -2, -1]),
    "layers are text": spec_says(layers="012"),
    "dtype is an object": spec_says(dtype="O"),
    "dtype is double": spec_says(dtype="f8"),
    "dtype is single": spec_says(dtype="f4"),
    "no layer": spec_says(layers=[]),
    "an encoder leads outside": spec_says(encoder={"name": "../../x"}),
    "segments are negative": segments_say(length_samples=-1),
    "a hop of nothing": segments_say(hop_samples=0),
    "a rate of nothing": segments_say(sample_rate_hz=0),
    "rows before the first": holds("tracks/offset", 1, -5),
    "rows beyond the last": holds("tracks/offset", N_TRACKS, 10**9),
    "rows that overflow": holds("tracks/offset", N_TRACKS, 2**62),
    "rows that run backwards": holds("tracks/offset", 2, 1),
    "ids that end nowhere": holds("tracks/id_offset", N_TRACKS, 2**62),
    "ids that run backwards": holds("tracks/id_offset", 1, 20),
    "ids that begin before": holds("tracks/id_offset", 0, -1),
    "ids that are not UTF-8": holds("tracks/id_utf8", 0, 0xFF),
    "messages that end nowhere": holds("tracks/message_offset", N_TRACKS, 2**40),
    "a chunk beyond its shard": index_says(2**40, 0),
    "a chunk that overflows": index_says(2**64 - 4, 0),
    "a chunk of terabytes": index_says(0, 2**42),
    "a chunk inside the index": index_says(10**5, 0),
    "a chunk that is absent": index_says(2**64 - 1, 2**64 - 1),
    "embeddings are pickled": other_codec("numcodecs.pickle"),
    "embeddings are compressed": other_codec("zstd"),
    "embeddings run code": other_codec("os.system"),
    "embeddings are huge": described(shape=[10**12, 3, 8]),
    "embeddings are objects": described(data_type="object"),
    "embeddings are elsewhere": described(
        chunk_key_encoding={"name": "default", "configuration": {"separator": "/../"}}
    ),
    "embeddings link to another array": described(storage_transformers=[{"name": "link"}]),
    "a file of the parent": lists("../secret", len(SECRET), sha256_text(SECRET)),
    "a file of the system": lists("/etc/hostname"),
    "a file around the corner": lists("segments/../../secret", len(SECRET)),
    "a file with a NUL": lists("a\0b"),
    "a file without a name": lists(""),
    "a file that is not there": lists("embeddings/max/zarr.json"),
    "a file of negative length": lists("zarr.json", -1),
    "a file of endless length": lists("zarr.json", 2**70),
    "a length that is text": lists("zarr.json", "all"),
    "a length that is a list": lists("zarr.json", [1]),
    "the list is deep": listing_is(DEEP),
    "the list is a number": listing_is("7"),
    "the list has no files": listing_is("{}"),
    "the files are a list": listing_is('{"files": []}'),
    "the files are text": listing_is('{"files": "all"}'),
    "an entry is nothing": listing_is('{"files": {"zarr.json": null}}'),
    "the list is not UTF-8": lambda store: (
        (store / "files.json").write_bytes(b'{"files": "\xff"}'),
        (store / "COMPLETE").write_bytes(b'{"files_sha256": "\xff"}'),
    ),
    "the list names nothing": listing_is('{"files": {}}'),
    "a shard is a pipe": becomes(SHARD, os.mkfifo),
    "a shard is a link": becomes(SHARD, link),
    "the rows' folder is a link": becomes("embeddings", link),
    "the list is a pipe": becomes("files.json", os.mkfifo),
    "COMPLETE is a pipe": becomes("COMPLETE", os.mkfifo),
    "COMPLETE is a link": becomes("COMPLETE", link),
    "ids are a folder": becomes("tracks/id_utf8/c/0", Path.mkdir),
    "attributes are a link": becomes("zarr.json", link),
}


# what no single read can know: the vectors are there and whole, but not where, or of what, it is
# said; a deep look finds it
LIES = {
    "segments are endless": segments_say(length_samples=2**70),
    "a chunk of another place": index_says(4100, 0),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_about_what_vectors_are_of_is_found_by_a_deep_look(store, name):
    LIES[name](store)
    assert verify_or_refuse(store)


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_store_is_refused(store, name):
    outside = sorted(path for path in store.parents[2].rglob("*") if store not in path.parents)
    CASES[name](store)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError) as caught:
            numbers_of(store)
        verified = verify_or_refuse(store)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert SECRET not in str(caught.value)
    assert verified
    after = sorted(path for path in store.parents[2].rglob("*") if store not in path.parents)
    assert after == outside
    assert (store.parents[2] / "secret").read_text() == SECRET


def verify_or_refuse(store: Path) -> bool:
    """Whether a deep look finds the lie, or ends in an error of ours."""
    try:
        return bool(verify_store(store).findings)
    except StoreError:
        return True


def test_the_honest_store_is_read(store):
    assert len(numbers_of(store)["ids"]) == N_TRACKS
    assert verify_store(store).findings == ()


def test_the_hostile_stores_are_as_many_as_promised():
    assert len(CASES) >= 60
