"""Every way in which a file of a store can come to harm, and worlds whose stores can be mixed up.

The worlds have the same spec and the same sizes of everything, but other audio or other
vectors: files can be swapped between their stores without any length changing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import google_crc32c
import numpy as np
from world import RATE, ToyEncoder, World, toy_spec, write_track

from tune_cache.cache.shards import CHUNK_ROWS, SHARD_ROWS, shard_n_bytes
from tune_cache.cache.store import open_store
from tune_cache.errors import StoreError
from tune_cache.segments import segment_spec
from tune_cache.specs import StoreSpec, canonical_json

# 20 segments a second: rows in five chunks of 256 and two shards of 1024
SECONDS = {"a.wav": 13, "b.wav": 12, "c.wav": 1, "d.wav": 21, "e.wav": 13}
SEGMENT_SECONDS = 0.05
N_ROWS = 20 * sum(SECONDS.values())


def small_spec(encoder: ToyEncoder) -> StoreSpec:
    segments = segment_spec(
        SEGMENT_SECONDS, sample_rate_hz=RATE, min_samples=encoder.min_samples, min_tail_seconds=0.05
    )
    return toy_spec(encoder, segments=segments)


def make_world(
    folder: Path, *, seed: int = 0, scale: float = 1.0, audio: Path | None = None
) -> tuple[World, Path]:
    """A world with one store; ``seed`` changes the audio, ``scale`` the vectors of the same."""
    if audio is None:
        for index, (name, seconds) in enumerate(SECONDS.items()):
            write_track(folder / "audio" / name, RATE * seconds, 100 * seed + index)
    else:
        folder.mkdir()
        (folder / "audio").symlink_to(audio)
    encoder = ToyEncoder(log=folder / "encoded.log", scale=scale)
    world = World(folder, encoder)
    return world, world.extract_specs([small_spec(encoder)])[0].path


@dataclass(frozen=True, slots=True)
class Stores:
    """Paths of three stores alike: ``other`` has other audio, ``stale`` other vectors."""

    good: Path
    other: Path
    stale: Path


def files_of(store: Path) -> list[str]:
    return sorted(p.relative_to(store).as_posix() for p in store.rglob("*") if p.is_file())


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(1, len(data))] if len(data) > 1 else b""


def _flip(place: Callable[[int, random.Random], int]) -> Callable[[bytes, random.Random], bytes]:
    def flip(data: bytes, draw: random.Random) -> bytes:
        damaged = bytearray(data)
        damaged[place(len(data), draw)] ^= 1 << draw.randrange(8)
        return bytes(damaged)

    return flip


def _zeros(data: bytes, draw: random.Random) -> bytes:
    """A page of zeros, as a file system leaves where a write was lost."""
    start = draw.randrange(len(data))
    n_bytes = min(len(data) - start, 512)
    zeros = data[:start] + bytes(n_bytes) + data[start + n_bytes :]
    return zeros if zeros != data else _flip(lambda n, draw: start)(data, draw)


CHANGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "emptied": lambda data, draw: b"",
    "truncated": _cut,
    "short by one": lambda data, draw: data[:-1],
    "grown": lambda data, draw: data + b"\0",
    "first byte": _flip(lambda n, draw: 0),
    "last byte": _flip(lambda n, draw: n - 1),
    "middle byte": _flip(lambda n, draw: n // 2),
    "any byte": _flip(lambda n, draw: draw.randrange(n)),
    "zeros": _zeros,
}
SIZES_SHOW = {
    "missing", "emptied", "truncated", "short by one", "grown", "link", "folder", "pipe",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Damage:
    """One harm done to one file."""

    kind: str
    file: str
    is_done: bool = True  # False where there is nothing to do: both stores have the same file


def harm(stores: Stores, kind: str, file: str, draw: random.Random) -> Damage:
    """Harm a file of the good store for good."""
    path = stores.good / file
    data = path.read_bytes()
    done = Damage(kind, file)
    if kind in CHANGES:
        path.write_bytes(CHANGES[kind](data, draw))
    elif kind in ("other", "stale"):
        swapped = (getattr(stores, kind) / file).read_bytes()
        done = replace(done, is_done=swapped != data)
        path.write_bytes(swapped)
    elif kind == "link":
        path.rename(stores.good.parent / "elsewhere")
        path.symlink_to(stores.good.parent / "elsewhere")
    elif kind == "extra":
        done = replace(done, file=f"{file}.new")
        (stores.good / done.file).write_bytes(b"x")
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind != "missing":
            raise ValueError(kind)
    return done


@contextlib.contextmanager
def damaged(stores: Stores, kind: str, file: str, draw: random.Random) -> Iterator[Damage]:
    """Harm a file of the good store, and mend it at the end."""
    with _kept(stores.good / file):
        done = harm(stores, kind, file, draw)
        try:
            yield done
        finally:
            if kind == "extra":
                (stores.good / done.file).unlink()


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    data = path.read_bytes()
    try:
        yield
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(data)


KINDS = [*CHANGES, "missing", "link", "folder", "pipe", "other", "stale", "extra"]


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    """Every number that a user can get out of a store."""
    store = open_store(path)
    rows = {
        pooling: store.read(store.track_ids, pooling=pooling).values for pooling in store.poolings
    }
    return rows | {
        "offset": store.offset,
        "n_samples": store.n_samples,
        "rate": store.sample_rate_hz,
        "start": store.segment_start,
        "segment": store.segment_n_samples,
        "ids": np.array(store.track_ids),
        "audio": np.array(store.audio_sha256),
        "status": np.array(list(store.status.values())),
        "messages": np.array(store.messages),
    }


def wrong_numbers(path: Path, expected: dict[str, np.ndarray]) -> list[str]:
    """Names of what a store gives otherwise than it should; an error gives nothing."""
    try:
        found = numbers_of(path)
    except StoreError:
        return []
    return [name for name, values in expected.items() if not np.array_equal(found[name], values)]


def relist(store: Path, listing: dict) -> None:
    """Write another files.json, and a COMPLETE that vouches for it."""
    text = canonical_json(listing)
    (store / "files.json").write_text(text)
    complete = json.loads((store / "COMPLETE").read_text())
    complete["files_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    (store / "COMPLETE").write_text(canonical_json(complete))


def forge(store: Path, name: str, data: bytes) -> None:
    """Write a file and make every digest agree again, as a stranger could."""
    (store / name).write_bytes(data)
    listing = json.loads((store / "files.json").read_text())
    entry = listing["files"].setdefault(name, {})
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if name.startswith("embeddings/") and "/c/" in name:
        entry.pop("crc32c", None)
    relist(store, listing)


def chunk_place(path: Path, n_rows: int, block: int, layer: int) -> tuple[int, int]:
    """Offset and length of one inner chunk, from the shard's own index."""
    n_entries = SHARD_ROWS // CHUNK_ROWS * 3
    index = np.frombuffer(path.read_bytes()[-n_entries * 16 - 4 : -4], "<u8").reshape(-1, 3, 2)
    assert path.stat().st_size == shard_n_bytes(n_rows, 3, 8, "f2")
    offset, length = index[block, layer]
    return int(offset), int(length)


FOUR_BYTES = ("segments/track", "segments/n_samples", "tracks/sample_rate")


def forge_array(store: Path, name: str, change) -> None:
    """Change the values of a small array, its checksum and every digest."""
    path = f"{name}/c/0/0" if name == "tracks/audio_sha256" else f"{name}/c/0"
    types = {"tracks/id_utf8": "u1", "tracks/status": "u1", "tracks/audio_sha256": "u1"}
    types |= dict.fromkeys(FOUR_BYTES, "<i4")
    values = np.frombuffer((store / path).read_bytes()[:-4], types.get(name, "<i8")).copy()
    change(values)
    data = values.tobytes()
    forge(store, path, data + struct.pack("<I", google_crc32c.value(data)))


def forge_attributes(store: Path, change) -> None:
    """Change what the store says of itself, and every digest."""
    group = json.loads((store / "zarr.json").read_text())
    change(group["attributes"])
    forge(store, "zarr.json", canonical_json(group).encode())


def assign(place, value):
    """A change for :func:`forge_array`."""

    def change(values):
        values[place] = value

    return change
