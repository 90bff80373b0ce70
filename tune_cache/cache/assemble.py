"""From a full journal to a published store.

Conventions
-----------
Rows are streamed shard by shard: never more than one unit and two shards are
held, one that zarr encodes into memory and one whose bytes are written meanwhile,
with the discipline of :mod:`tune_cache.cache.disk`, into a private folder;
``COMPLETE`` is last, and the folder is renamed. One thread writes, in the order
of the shards.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.disk import (
    make_private_folder,
    publish_folder,
    remove_tree,
    unique_suffix,
    write_durably,
)
from tune_cache.cache.journal import TrackOutcome
from tune_cache.cache.rows import PoolingRows
from tune_cache.cache.shards import CHUNK_ROWS, SHARD_ROWS, listing_entry
from tune_cache.cache.store import FORMAT, STATUS_FAILED, STATUS_OK, open_store
from tune_cache.errors import StoreCorruptError
from tune_cache.specs import StoreSpec, canonical_json, sha256_text

__all__ = ["Assembly", "assemble"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """All that goes into a store.

    Parameters
    ----------
    outcomes
        Every track, in the order of ids.
    rows
        Pooling to all rows in the order of tracks.
    facts
        Further group attributes: provenance, datasets, license_note.
    ledger
        Written beside the arrays, outside every digest; called, if it can be, when they are.
    expected_digest
        Nothing is published whose content digest differs; empty expects none.
    """

    spec: StoreSpec
    dim: int
    collection: str
    outcomes: Sequence[TrackOutcome]
    rows: PoolingRows
    facts: Mapping[str, Any]
    ledger: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    expected_digest: str = ""


def _blocks(pieces: Iterator[npt.NDArray[Any]], n_rows: int) -> Iterator[npt.NDArray[Any]]:
    """Regroup pieces into blocks of ``n_rows`` rows; the last may be shorter."""
    held: list[npt.NDArray[Any]] = []
    count = 0
    for piece in pieces:
        while len(piece):
            part, piece = piece[: n_rows - count], piece[n_rows - count :]
            held.append(part)
            count += len(part)
            if count == n_rows:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)


class _Writer:
    """Encodes arrays with zarr in memory and writes their files durably.

    Parameters
    ----------
    hashing
        Where hashes are taken while the same bytes are encoded or written.
    writing
        One thread, where files are written while the next are encoded.
    """

    def __init__(self, folder: Path, hashing: Executor, writing: Executor) -> None:
        from zarr.storage import MemoryStore

        self.folder = folder
        self.hashing, self.writing = hashing, writing
        self.begun: Future[None] | None = None
        self.files: dict[str, dict[str, Any]] = {}
        self.beside: dict[str, dict[str, Any]] = {}  # outside the digests: the ledger
        self.n_layers: dict[str, int] = {}  # of sharded arrays
        self.buffers: dict[str, Any] = {}
        self.memory = MemoryStore(self.buffers)
        self.made: set[Path] = set()

    def flush(self) -> None:
        """Begin to write all files encoded so far, when those of before are; forget their bytes."""
        self.settle()
        files = []
        for name in list(self.buffers):
            if name == "zarr.json":
                continue  # of the root group: written last, with its attributes
            if name not in self.files:
                files.append((name, self.buffers[name].to_bytes()))
            if not name.endswith("/zarr.json"):
                del self.buffers[name]
        self.begun = self.writing.submit(self._write_all, files)

    def settle(self) -> None:
        """Wait for what was begun, and raise what became of it."""
        begun, self.begun = self.begun, None
        if begun is not None:
            begun.result()

    def write(self, name: str, data: bytes, *, listed: bool = True) -> None:
        """Write one file after all others so far."""
        self.settle()
        self._write(name, data, listed=listed)

    def _write_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        for name, data in files:
            self._write(name, data)

    def _write(self, name: str, data: bytes, *, listed: bool = True) -> None:
        path = self.folder / name
        self._make(path.parent)
        n_layers = self.n_layers.get(name.partition("/c/")[0], 0)
        entry = self.hashing.submit(listing_entry, data, n_layers)
        write_durably(path, data, sync_parent=False)
        (self.files if listed else self.beside)[name] = entry.result()

    def _make(self, folder: Path) -> None:
        """Make a folder inside ours, and never ours: a rival that published has removed it."""
        if folder != self.folder and folder not in self.made:
            self._make(folder.parent)
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
            self.made.add(folder)

    def create(self, name: str, shape: Sequence[int], dtype: str, **layout: Any) -> Any:
        import zarr
        from zarr.codecs import BytesCodec, Crc32cCodec

        if "shards" in layout:
            self.n_layers[name] = shape[1]
        return zarr.create_array(
            self.memory,
            name=name,
            shape=tuple(shape),
            dtype="<" + dtype if dtype != "u1" else dtype,
            serializer=BytesCodec(endian="little" if dtype != "u1" else None),
            compressors=[Crc32cCodec()],
            filters=None,
            fill_value=float("nan") if dtype.startswith("f") else 0,
            config={"write_empty_chunks": True},
            **layout,
        )

    def small(self, name: str, values: npt.NDArray[Any], dtype: str) -> None:
        """Write an array as one chunk."""
        array = self.create(name, values.shape, dtype, chunks=[max(1, n) for n in values.shape])
        if values.size:
            array[...] = values
        self.flush()


def _text_arrays(texts: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in encoded], dtype=np.int64)])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets.astype(np.int64)


def assemble(final: Path, assembly: Assembly) -> bool:
    """Write and publish a store; False where a rival published it first.

    Raises
    ------
    OSError
        If the disk is full or fails; the private folder is gone then, the
        journal is untouched.
    """
    private = final.with_name(f".{final.name}.{unique_suffix()}.building")
    try:
        make_private_folder(private)
        _fill(private, assembly)
        if publish_folder(private, final):
            return True
        remove_tree(private)
    except BaseException:
        remove_tree(private)
        raise
    open_store(final)  # a rival's store counts only if it is whole
    return False


def _fill(folder: Path, assembly: Assembly) -> None:
    with ThreadPoolExecutor(1) as hashing, ThreadPoolExecutor(1) as writing:
        _fill_with(_Writer(folder, hashing, writing), assembly)


def _fill_with(writer: _Writer, assembly: Assembly) -> None:
    spec, outcomes = assembly.spec, assembly.outcomes
    n_layers, n_segments = len(spec.layers), sum(outcome.n_rows for outcome in outcomes)
    digest = hashlib.sha256()  # over decoded values: shard sizes do not enter
    starts: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]
    samples: list[npt.NDArray[Any]] = [np.zeros(0, np.int64)]

    def values(pooling: str) -> Iterator[npt.NDArray[Any]]:
        for piece in assembly.rows(pooling):
            if pooling == spec.poolings[0]:  # the grid is the same for all
                starts.append(piece.start_sample)
                samples.append(piece.n_samples)
            yield piece.values

    for pooling in spec.poolings:
        array = writer.create(
            f"embeddings/{pooling}",
            (n_segments, n_layers, assembly.dim),
            spec.dtype,
            chunks=(CHUNK_ROWS, 1, assembly.dim),
            shards=(SHARD_ROWS, n_layers, assembly.dim),
        )
        digest.update(f"embeddings/{pooling}\0".encode())
        row = 0
        for block in _blocks(values(pooling), SHARD_ROWS):
            hashed = writer.hashing.submit(digest.update, np.ravel(block).view(np.uint8).data)
            array[row : row + len(block)] = block
            row += len(block)
            writer.flush()
            hashed.result()
        if row != n_segments:
            raise StoreCorruptError(
                f"{row} rows were assembled of {n_segments}: the journal changed meanwhile",
                hint="run the same command again",
            )
    lengths = np.array([outcome.n_rows for outcome in outcomes], np.int64)
    ids, id_offset = _text_arrays([outcome.track_id for outcome in outcomes])
    messages, message_offset = _text_arrays(
        [
            outcome.message if outcome.status == "ok" else f"{outcome.status}: {outcome.message}"
            for outcome in outcomes
        ]
    )
    hashes = b"".join(
        bytes.fromhex(o.audio_sha256) if o.audio_sha256 else bytes(32) for o in outcomes
    )
    small: dict[str, tuple[npt.NDArray[Any], str]] = {
        "segments/track": (np.repeat(np.arange(len(outcomes)), lengths), "i4"),
        "segments/start_sample": (np.concatenate(starts), "i8"),
        "segments/n_samples": (np.concatenate(samples), "i4"),
        "tracks/id_utf8": (ids, "u1"),
        "tracks/id_offset": (id_offset, "i8"),
        "tracks/message_utf8": (messages, "u1"),
        "tracks/message_offset": (message_offset, "i8"),
        "tracks/offset": (np.concatenate([[0], np.cumsum(lengths)]), "i8"),
        "tracks/audio_sha256": (np.frombuffer(hashes, np.uint8).reshape(-1, 32), "u1"),
        "tracks/n_samples": (np.array([o.n_samples for o in outcomes]), "i8"),
        "tracks/sample_rate": (np.array([o.sample_rate_hz for o in outcomes]), "i4"),
        "tracks/status": (
            np.array([STATUS_OK if o.status == "ok" else STATUS_FAILED for o in outcomes]),
            "u1",
        ),
    }
    for name, (column, dtype) in small.items():
        typed = column.astype("<" + dtype)
        if not name.startswith("tracks/message"):  # sentences name paths of one machine
            digest.update(f"{name}\0".encode() + typed.tobytes())
        writer.small(name, typed, dtype)
    if assembly.expected_digest not in ("", digest.hexdigest()):
        raise StoreCorruptError(
            f"the values to be stored have content digest {digest.hexdigest()}, "
            f"expected {assembly.expected_digest}",
            hint="nothing is published; their source is damaged or not what it says",
        )
    attributes = _attributes(assembly, n_segments, digest.hexdigest())
    group = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    writer.write("zarr.json", canonical_json(group).encode())
    ledger = assembly.ledger() if callable(assembly.ledger) else assembly.ledger
    writer.write("ledger/extract.json", canonical_json(ledger).encode(), listed=False)
    listing = canonical_json({"files": writer.files, "ledger": writer.beside})
    writer.write("files.json", listing.encode(), listed=False)
    complete = canonical_json({"files_sha256": sha256_text(listing), "format": FORMAT})
    writer.write("COMPLETE", complete.encode(), listed=False)


def _attributes(assembly: Assembly, n_segments: int, digest: str) -> dict[str, Any]:
    spec, outcomes = assembly.spec, assembly.outcomes
    rate = spec.segments.sample_rate_hz
    failed: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.status != "ok":
            failed[outcome.status] = failed.get(outcome.status, 0) + 1
    present = sum(outcome.n_samples for outcome in outcomes)
    covered = sum(outcome.covered_samples for outcome in outcomes)
    return {
        "format": FORMAT,
        "spec": spec.to_json(),
        "spec_key": spec.key,
        "collection_digest": assembly.collection,
        "content_digest": digest,
        "n_tracks": len(outcomes),
        "n_segments": n_segments,
        "n_layers": len(spec.layers),
        "layers": list(spec.layers),
        "dim": assembly.dim,
        "dtype": spec.dtype,
        "coverage": {
            "ok": len(outcomes) - sum(failed.values()),
            "failed": failed,
            "seconds_present": present / rate,
            "seconds_encoded": covered / rate,
        },
        **assembly.facts,
    }
