"""What stage one adds to the forward passes, and how fast it feeds an encoder that is fast.

::

    python benchmarks/extract.py WEIGHTS SUBSET

WEIGHTS is a folder written by ``benchmarks/stock.py make``, SUBSET a folder of real clips with
MARBLE manifests. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from page import machine, table, write_section
from real_clips import choose

from tune_cache.audio import DECODER, RESAMPLER, DecodePool, decode
from tune_cache.cache.encode import Batcher
from tune_cache.cache.extract import extract_stores
from tune_cache.cache.inventory import Inventory
from tune_cache.cache.layout import Layout
from tune_cache.commands.context import plan_tracks
from tune_cache.datasets.catalog import load_dataset
from tune_cache.encoders.base import EncoderInfo, get_encoder
from tune_cache.segments import cut, segment_spec, take
from tune_cache.specs import EncoderSpec, StoreSpec

RATE = 24_000
N_COPIES = 6  # of the subset, so that a dataset is long beside the first unit's decoding


@dataclass
class Asleep:
    """An encoder on some other device: takes its time there, and nothing here."""

    x_real_time: float
    name: str = "asleep"
    sample_rate: int = RATE
    n_layers: int = 13
    dim: int = 1024
    frame_rate_hz: float = 25.0
    min_samples: int = 1025
    seconds: float = 0.0

    def spec(self) -> EncoderSpec:
        return EncoderSpec(name=self.name, weights_sha256="0" * 64, config_sha256="0" * 64)

    def info(self) -> EncoderInfo:
        return EncoderInfo(
            name=self.name,
            sample_rate=RATE,
            n_layers=self.n_layers,
            dim=self.dim,
            frame_rate_hz=self.frame_rate_hz,
            min_samples=self.min_samples,
            spec=self.spec(),
            note="sleeps",
        )

    def embed(self, waveforms: np.ndarray) -> dict[str, np.ndarray]:
        begin = time.perf_counter()
        if self.x_real_time:
            time.sleep(waveforms.size / RATE / self.x_real_time)
        self.seconds += time.perf_counter() - begin
        mean = np.ones((len(waveforms), self.n_layers, self.dim), np.float32)
        return {"mean": mean * waveforms.mean(axis=1)[:, None, None]}


def spec_of(info: EncoderInfo, seconds: float) -> StoreSpec:
    """What ``tune extract --seg SECONDS`` asks for."""
    return StoreSpec(
        encoder=info.spec,
        segments=segment_spec(seconds, sample_rate_hz=RATE, min_samples=info.min_samples),
        layers=tuple(range(info.n_layers)),
        poolings=("mean",),
        dtype="f2",
        channels="mix",
        resampler=RESAMPLER,
        decoder=DECODER,
    )


def forwards_alone(weights: Path, prefix: Path, subset: Path, seconds: float) -> dict[str, Any]:
    """Start, load, decode all clips, then the same batches that an extract runs, and no more."""
    start = time.perf_counter()
    factory = get_encoder("muq")
    info = factory.describe(path=weights, precision="fp32")
    described = time.perf_counter()
    tracks = load_dataset(str(prefix), data_root=subset).tracks
    spec = spec_of(info, seconds)
    waves = []
    for track in sorted(tracks, key=lambda track: track.track_id):
        samples = np.asarray(decode(track.path, sample_rate_hz=RATE).samples)
        waves += [take(samples, piece, spec.segments) for piece in cut(len(samples), spec.segments)]
    decoded = time.perf_counter()
    encoder = factory.load(
        path=weights,
        precision="fp32",
        device="auto",
        layers=None,
        poolings=("mean",),
        max_memory_bytes=None,
    )
    loaded = time.perf_counter()
    batcher = Batcher(encoder)
    for length in dict.fromkeys(len(wave) for wave in waves):
        batcher.run([wave for wave in waves if len(wave) == length])
    done = time.perf_counter()
    return {
        "decode": decoded - described,
        "load": described - start + loaded - decoded,
        "forward": done - loaded,
        "segments": len(waves),
    }


def pipeline(weights: Path, subset: Path, rounds: int) -> str:
    """Whole ``tune extract`` processes and forwards alone, in turn."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = choose(subset, folder)
        for seconds in (10, 30):
            taken: dict[str, list[float]] = {"extract": [], "alone": [], "forward": []}
            row: dict[str, Any] = {}
            for number in range(rounds):
                cache = folder / f"cache-{seconds}-{number}"
                command = [sys.executable, "-m", "tune_cache", "extract", str(prefix)]
                command += ["--encoder", "muq", "--encoder-path", str(weights), "--json"]
                command += ["--data-root", str(subset), "--cache-dir", str(cache)]
                start = time.perf_counter()
                done = subprocess.run(
                    [*command, "--seg", str(seconds)], capture_output=True, check=True
                )
                taken["extract"].append(time.perf_counter() - start)
                row = json.loads(done.stdout)["rows"][0]
                command = [sys.executable, __file__, str(weights), str(subset)]
                command += ["--forwards", f"{seconds},{prefix}"]
                start = time.perf_counter()
                alone = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                wall = time.perf_counter() - start - alone["decode"]  # the extract overlaps it
                taken["alone"].append(wall)
                taken["forward"].append(alone["forward"])
                print(seconds, taken, file=sys.stderr, flush=True)
                assert alone["segments"] == row["segments"]
            best = {key: min(values) for key, values in taken.items()}
            rows.append(
                (
                    f"{seconds} s, {row['segments']} segments",
                    f"{best['extract']:.1f}",
                    f"{best['alone']:.1f}",
                    f"{best['forward']:.1f}",
                    f"{best['extract'] / best['alone']:.3f}",
                )
            )
    header = (
        "ten real clips, muq fp32",
        "extract s",
        "start, load, forwards s",
        "of it forwards s",
        "ratio (bound ≤ 1.05)",
    )
    return table(header, rows)


def copies(subset: Path, folder: Path) -> Path:
    """The subset several times over under other names, as one dataset."""
    lines = []
    for split in ("train", "val", "test"):
        manifest = subset / f"soundtrack.{split}.jsonl"
        lines += [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    with (folder / "many.train.jsonl").open("w", encoding="utf-8") as out:
        for number in range(N_COPIES):
            for record in lines:
                path = Path(record["audio_path"])
                target = folder / str(number) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(subset / path, target)
                with target.open("r+b") as file:  # read once, so that no read is from the disk
                    file.read()
                copied = {**record, "audio_path": f"{number}/{path}"}
                out.write(json.dumps(copied) + "\n")
    return folder / "many"


def feeding(subset: Path, rounds: int) -> str:
    """How much audio a second reaches encoders that take no time, or little, of this processor."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = copies(subset, folder)
        dataset = load_dataset(str(prefix), data_root=folder)
        with Inventory(folder / "audio.sqlite") as inventory:
            planned = plan_tracks(dataset.tracks, inventory)
        audio_seconds = sum(track.seconds for track in planned)
        taken: dict[str, list[float]] = {}
        ledgers: dict[str, Any] = {}
        for number in range(rounds):
            start = time.perf_counter()
            with DecodePool(os.cpu_count() or 1, sample_rate_hz=RATE) as pool:
                for _, future in pool.imap((t.track_id, t.path) for t in planned):
                    future.result()
            taken.setdefault("decoding alone", []).append(time.perf_counter() - start)
            for speed in (0.0, 120.0):
                encoder = Asleep(speed)
                info = encoder.info()
                layout = Layout(folder / f"cache-{number}-{speed:g}")
                start = time.perf_counter()
                outcome = extract_stores(
                    planned, [spec_of(info, 10)], layout=layout, info=info, load=lambda e=encoder: e
                )[0]
                label = f"encoder at {speed:g} × real time" if speed else "encoder of no time"
                taken.setdefault(label, []).append(time.perf_counter() - start)
                ledgers[label] = outcome.ledger
                print(label, taken[label], outcome.ledger, file=sys.stderr, flush=True)
        decoding = min(taken["decoding alone"])
        for label, values in taken.items():
            ideal = decoding
            if "at " in label:
                ideal = max(decoding, audio_seconds / 120)
            rows.append(
                (
                    label,
                    f"{min(values):.1f}",
                    f"{statistics.median(values):.1f}",
                    f"{audio_seconds / min(values):.0f}",
                    f"{ideal / min(values):.2f}",
                    *(f"{ledgers.get(label, {}).get(f'{k}_seconds', 0):.2f}" for k in PARTS),
                )
            )
    header = (
        f"{len(planned)} files, {audio_seconds / 60:.0f} min",
        "wall s",
        "median",
        "× real time",
        "of the possible (bound ≥ 0.8)",
        *(f"{part} s" for part in PARTS),
    )
    return table(header, rows)


PARTS = ("decode", "wait", "encode", "write")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("subset", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--forwards", help="SECONDS,PREFIX: the forwards alone, in this process")
    arguments = parser.parse_args()
    if arguments.forwards:
        seconds, prefix = arguments.forwards.split(",", 1)
        found = forwards_alone(arguments.weights, Path(prefix), arguments.subset, float(seconds))
        print(json.dumps(found))
        return
    fed = feeding(arguments.subset, arguments.rounds + 1)
    whole = pipeline(arguments.weights, arguments.subset, arguments.rounds)
    body = "\n\n".join(
        [
            "`benchmarks/extract.py`, `make bench-extract`. Real clips of mixed codecs "
            "from a warm page cache.",
            machine(f"{arguments.rounds} interleaved rounds, {arguments.rounds + 1} of feeding"),
            "The whole command beside a process that starts, hashes and loads the encoder and runs "
            "the very same batches on audio decoded before (its decoding is not counted):",
            whole,
            "Audio through the whole pipeline, up to the published store, into a simulated encoder "
            "that uses none of this processor (120 × is 20 times MuQ here); possible is the longer "
            "of decoding alone on all cores and the encoder alone:",
            fed,
        ]
    )
    write_section("Stage one", body)


if __name__ == "__main__":
    main()
