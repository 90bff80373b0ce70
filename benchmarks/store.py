"""A store of a large collection beside memory maps, HDF5 and one file a track, in one run.

::

    python benchmarks/store.py FOLDER [--rows 300000 1300000] [--tracks 55000]

FOLDER gets 8 GB for a store of 300,000 rows, 35 GB for one of 1,300,000, one after the other,
and 4 × 0.5 GB for the comparison of formats. Everything is removed again.
Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from page import machine, table, write_section
from stock import peak_bytes

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.cache.assemble import Assembly, assemble
from tune_cache.cache.journal import (
    JournalUnit,
    TrackOutcome,
    make_work_folder,
    read_unit,
    write_unit,
)
from tune_cache.cache.rows import PoolingRows, Rows, rows_from_units_and_stores
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.segments import segment_spec
from tune_cache.specs import EncoderSpec, StoreSpec, collection_digest

RATE, N_LAYERS, DIM = 24_000, 13, 1024
LAYER = 6
N_SMALL = 20_000  # rows of the comparison with other formats
SHARDS_IN_MEMORY = 36  # shards of 27 MB that are read several times over
TRACKS_AT_ONCE = 4096  # of a mean over all
N_UNITS, ROWS_OF_A_UNIT, TRACKS_OF_A_UNIT = 24, 1014, 26


@cache
def base_rows() -> np.ndarray:
    """Random rows, (1024, layers, dim) f2."""
    return np.random.default_rng(0).normal(size=(1024, N_LAYERS, DIM)).astype("f2")


def rows_of(start: int, stop: int) -> np.ndarray:
    """Rows that differ from block to block in every value, at the price of a copy."""
    index = np.arange(start, stop)
    bits = base_rows()[index % 1024].view("<u2")
    bits ^= (index // 1024 % 1024).astype("<u2")[:, None, None]  # of the mantissa: they stay finite
    return bits.view("<f2")


def touch_memory() -> None:
    """Touch most of the free memory once, in a process that then ends.

    A virtual machine gets memory from its host at the first touch, at some 600 MB/s
    here: whoever comes first would pay for it, and the second comparison would not.
    """
    code = (
        "import numpy as np, os; pages = os.sysconf('SC_AVPHYS_PAGES'); "
        "np.zeros(int(pages * 0.9) * os.sysconf('SC_PAGE_SIZE') // 8)[:] = 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def made_up_spec() -> StoreSpec:
    encoder = EncoderSpec(name="muq", weights_sha256="0" * 64, config_sha256="0" * 64)
    return StoreSpec(
        encoder=encoder,
        segments=segment_spec(10, sample_rate_hz=RATE, min_samples=1025),
        layers=tuple(range(N_LAYERS)),
        poolings=("mean",),
        resampler="none",
        decoder="none",
    )


def outcome_of(number: int, track_id: str, n_rows: int) -> TrackOutcome:
    return TrackOutcome(
        track_id=track_id,
        audio_sha256=f"{number + 1:064x}",
        status="ok",
        n_samples=n_rows * 10 * RATE,
        sample_rate_hz=44_100,
        n_rows=n_rows,
        covered_samples=n_rows * 10 * RATE,
    )


def assembly_of(spec: StoreSpec, outcomes: list[TrackOutcome], rows: PoolingRows) -> Assembly:
    return Assembly(
        spec=spec,
        dim=DIM,
        collection=collection_digest((o.track_id, o.audio_sha256) for o in outcomes),
        outcomes=outcomes,
        facts={"frame_rate_hz": 25.0, "datasets": [], "license_note": "", "provenance": {}},
        ledger={},
        rows=rows,
    )


def write_store(path: Path, n_tracks: int, n_rows: int) -> None:
    """A store as ``tune extract`` publishes it, from rows that are made up."""
    counts = np.full(n_tracks, n_rows // n_tracks)
    counts[: n_rows - counts.sum()] += 1
    outcomes = [
        outcome_of(number, f"genre/{number % 97:02}/{number:06}.mp3", int(count))
        for number, count in enumerate(counts)
    ]
    outcomes.sort(key=lambda outcome: outcome.track_id)

    def rows(pooling: str) -> Iterator[Rows]:
        place = np.concatenate([np.arange(outcome.n_rows) for outcome in outcomes])
        for start in range(0, n_rows, 1024):
            stop = min(start + 1024, n_rows)
            yield Rows(
                rows_of(start, stop),
                (place[start:stop] * 10 * RATE).astype(np.int64),
                np.full(stop - start, 10 * RATE, np.int32),
            )

    assemble(path, assembly_of(made_up_spec(), outcomes, rows))


def forget(path: Path) -> None:
    """Drop a file or folder from the page cache (Linux), where the system lets us."""
    os.sync()
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def best_of(run: Callable[[], Any], repeats: int = 5) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def best_of_each(path: Path, *runs: Callable[[], Any]) -> list[float]:
    """Seconds of each run, all of it read from the disk; the better of two, in turn."""
    taken = []
    for run in runs * 2:
        forget(path)
        start = time.perf_counter()
        assert run() is not False
        taken.append(time.perf_counter() - start)
    return [min(taken[place :: len(runs)]) for place in range(len(runs))]


def layer_ranges(store: Path) -> list[tuple[Path, int, int]]:
    """Where the bytes of one layer lie: file, offset, length, in order."""
    ranges = []
    chunk = 256 * DIM * 2 + 4
    for number in range(len(list((store / "embeddings/mean/c").iterdir()))):
        path = store / f"embeddings/mean/c/{number}/0/0"
        n_chunks = (path.stat().st_size - 4) // (chunk * N_LAYERS + 16 * N_LAYERS) or 1
        ranges += [(path, (k * N_LAYERS + LAYER) * chunk, chunk) for k in range(n_chunks)]
    return ranges


def pread_all(ranges: list[tuple[Path, int, int]]) -> np.ndarray:
    """Read byte ranges into one new array with nothing else done: what no reader can beat."""
    length = max(length for _, _, length in ranges)
    out = np.empty((len(ranges), length), np.uint8)
    descriptor, opened = -1, Path()
    for row, (path, offset, n_bytes) in zip(out, ranges, strict=True):
        if path != opened:
            if descriptor >= 0:
                os.close(descriptor)
            descriptor, opened = os.open(path, os.O_RDONLY), path
        os.preadv(descriptor, [row[:n_bytes]], offset)
    os.close(descriptor)
    return out


def read_whole(store: Path) -> None:
    """Read every byte of a folder, file after file."""
    buffer = bytearray(4 << 20)
    for path in sorted(store.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def mean_in_a_process(path: Path) -> dict[str, float]:
    """Mean over all tracks at one layer, in a fresh process that measures itself."""
    command = [sys.executable, __file__, str(path), "--mean"]
    found: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout
    )
    return found


def mean_here(path: Path) -> dict[str, float]:
    start = time.perf_counter()
    store = open_store(path)
    ids = store.track_ids
    means = np.empty((len(ids), DIM), np.float32)
    for begin in range(0, len(ids), TRACKS_AT_ONCE):
        piece = slice(begin, begin + TRACKS_AT_ONCE)
        means[piece] = make_aggregation("mean").fit_transform(store.read_layer(ids[piece], LAYER))
    return {"seconds": time.perf_counter() - start, "bytes": peak_bytes()}


def costs_of_units(folder: Path) -> tuple[float, float]:
    """Seconds that a unit of 27 MB costs: committed; read again and assembled into a store."""
    spec, n_rows, n_here = made_up_spec(), ROWS_OF_A_UNIT, ROWS_OF_A_UNIT // TRACKS_OF_A_UNIT
    outcomes = [
        outcome_of(number, f"{number:06}.mp3", n_here)
        for number in range(N_UNITS * TRACKS_OF_A_UNIT)
    ]
    work = folder / "journal"
    folder.mkdir()
    make_work_folder(work)
    committed = []
    for index in range(N_UNITS):
        unit = JournalUnit(
            outcomes=tuple(outcomes[index * TRACKS_OF_A_UNIT :][:TRACKS_OF_A_UNIT]),
            embeddings={"mean": rows_of(index * n_rows, (index + 1) * n_rows)},
            start_sample=np.tile(np.arange(n_here) * 10 * RATE, TRACKS_OF_A_UNIT),
            n_samples=np.full(n_rows, 10 * RATE, np.int32),
        )
        start = time.perf_counter()
        write_unit(work, index, spec, unit)
        committed.append(time.perf_counter() - start)

    def load_unit(index: int) -> JournalUnit:
        found = read_unit(work, index, spec)
        assert found is not None
        return found

    unit_of = {outcome.track_id: i // TRACKS_OF_A_UNIT for i, outcome in enumerate(outcomes)}
    rows = rows_from_units_and_stores(outcomes, unit_of=unit_of, copy_from={}, load_unit=load_unit)
    start = time.perf_counter()
    assemble(folder / "store.zarr", assembly_of(spec, outcomes, rows))
    assembled = (time.perf_counter() - start) / N_UNITS
    shutil.rmtree(folder)
    return float(np.median(committed)), assembled


def large(path: Path, n_tracks: int, n_rows: int) -> dict[str, str]:
    """Figures of a large store, which is written and removed again."""
    start = time.perf_counter()
    write_store(path, n_tracks, n_rows)
    written = time.perf_counter() - start
    n_stored = n_rows * N_LAYERS * DIM * 2
    tracks = best_of(lambda: open_store(path).track_ids, 3)
    store = open_store(path)
    ids = store.track_ids
    opening = best_of(lambda: open_store(path), 9)
    n_files = sum(1 for file in path.rglob("*") if file.is_file())
    # as many whole shards as make 600 MB, so that all of it stays in memory
    ranges = layer_ranges(path)[: 4 * (SHARDS_IN_MEMORY - 1)]
    some = ids[: int(np.searchsorted(store.offset, 1024 * (SHARDS_IN_MEMORY - 1), "right")) - 1]
    n_bytes = int(store.offset[len(some)]) * DIM * 2
    reading = best_of(lambda: store.read_layer(some, LAYER))
    raw = best_of(lambda: pread_all(ranges))
    per_byte = raw / sum(length for _, _, length in ranges)
    forget(path)
    start = time.perf_counter()
    store.read_layer(ids, LAYER)
    cold = time.perf_counter() - start
    forget(path)
    start = time.perf_counter()
    pread_all(layer_ranges(path))
    cold_raw = time.perf_counter() - start
    mean = mean_in_a_process(path)
    verified, plain = best_of_each(path, lambda: verify_store(path).is_ok, lambda: read_whole(path))
    costs = [costs_of_units(path.with_name("units")) for _ in range(2)]
    committed, assembled = map(min, zip(*costs, strict=True))
    shutil.rmtree(path)
    return {
        "GB": f"{n_stored / 1e9:.1f}",
        "open, ≤ 50 ms": f"{opening * 1e3:.1f} ms",
        f"open and list {n_tracks:,} tracks, ≤ 2 s": f"{tracks:.2f} s",
        "files, < 10,000": f"{n_files}",
        "one layer, in memory: speed over pread, ≥ 0.8": f"{per_byte * n_bytes / reading:.2f}",
        "one layer of all, not in memory: the same, ≥ 0.8": f"{cold_raw / cold:.2f} ({cold:.1f} s)",
        "mean of all tracks at one layer, fresh process, all it has resident, < 2 GB": (
            f"{mean['seconds']:.1f} s, {mean['bytes'] / 1e9:.2f} GB"
        ),
        "verified to the last byte, from disk, ≥ 400 MB/s": (
            f"{n_stored / 1e6 / verified:.0f} MB/s "
            f"(read and nothing else: {n_stored / 1e6 / plain:.0f})"
        ),
        "written, hashed and synchronised to this disk": f"{n_stored / 1e6 / written:.0f} MB/s",
        "a unit of 27 MB: committed + read again and assembled, ≤ 250 ms": (
            f"{committed * 1e3:.0f} + {assembled * 1e3:.0f} ms"
        ),
    }


def formats(folder: Path, n_tracks: int) -> str:
    """The same rows in four forms; reading one layer of all, and one track of all layers."""
    import h5py

    n_rows = N_SMALL
    path = folder / "small.zarr"
    write_store(path, n_tracks, n_rows)
    store = open_store(path)
    ids = store.track_ids
    values = rows_of(0, n_rows)
    np.save(folder / "rows.npy", values)
    with h5py.File(folder / "rows.h5", "w") as file:
        file.create_dataset("rows", data=values, chunks=(256, 1, DIM))
    each = folder / "tracks"
    each.mkdir()
    for number, (start, stop) in enumerate(zip(store.offset[:-1], store.offset[1:], strict=True)):
        np.save(each / f"{number}.npy", values[start:stop])

    def from_npy() -> np.ndarray:
        return np.array(np.load(folder / "rows.npy", mmap_mode="r")[:, LAYER])

    def from_hdf5() -> np.ndarray:
        with h5py.File(folder / "rows.h5") as file:
            return np.array(file["rows"][:, LAYER])

    def from_files() -> np.ndarray:
        return np.concatenate([np.load(each / f"{n}.npy")[:, LAYER] for n in range(n_tracks)])

    def from_store() -> np.ndarray:
        return open_store(path).read_layer(ids, LAYER).values

    places = {
        "tune_cache store": (from_store, path),
        ".npy, memory map": (from_npy, folder / "rows.npy"),
        "HDF5, chunks of 256 × 1 × dim": (from_hdf5, folder / "rows.h5"),
        "one .npy a track": (from_files, each),
    }
    rows = []
    expected = values[:, LAYER].astype(np.float32)
    for name, (read, place) in places.items():
        warm = best_of(read, 3)
        forget(place)
        start = time.perf_counter()
        found = read()
        cold = time.perf_counter() - start
        files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file()]
        difference = float(np.abs(found.astype(np.float32) - expected).max())
        size = sum(file.stat().st_size for file in files) / 1e6
        rows.append(
            (name, f"{warm:.3f}", f"{cold:.3f}", f"{size:.0f}", len(files), f"{difference:g}")
        )
    header = (
        f"one layer of {n_rows} rows, {n_tracks} tracks",
        "s, in memory",
        "s, not",
        "MB",
        "files",
        "difference",
    )
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[300_000, 1_300_000])
    parser.add_argument("--tracks", type=int, default=55_000)
    parser.add_argument("--mean", action="store_true", help="of the store FOLDER, in this process")
    arguments = parser.parse_args()
    if arguments.mean:
        print(json.dumps(mean_here(arguments.folder)))
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    work = arguments.folder / "tune-benchmark-store"
    figures: dict[int, dict[str, str]] = {}
    with contextlib.ExitStack() as stack:
        work.mkdir()
        touch_memory()
        stack.callback(shutil.rmtree, work)
        compared = formats(work, 2000)
        for n_rows in arguments.rows:
            needed = n_rows * N_LAYERS * DIM * 2 * 1.1
            if shutil.disk_usage(work).free < needed:
                print(f"{n_rows} rows need {needed / 1e9:.0f} GB", file=sys.stderr)
                continue
            figures[n_rows] = large(work / "large.zarr", arguments.tracks, n_rows)
            print(n_rows, figures[n_rows], file=sys.stderr, flush=True)
    names = next(iter(figures.values()))
    body = "\n\n".join(
        [
            "`benchmarks/store.py`, `make bench-store`. Made-up rows of MuQ's shape.",
            machine(),
            table(
                (f"× {N_LAYERS} × {DIM} f2", *(f"{n_rows:,} rows" for n_rows in figures)),
                [(name, *(found[name] for found in figures.values())) for name in names],
            ),
            compared,
        ]
    )
    write_section("The store", body)
    print(body)


if __name__ == "__main__":
    main()
