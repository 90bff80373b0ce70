"""Ten real clips through a MuQ of the true size, and what differs from the package's own forward.

Runs ``tune extract`` at 10 s and for whole tracks as a user would, then the stock forward on the
very same samples, and compares what was stored::

    python benchmarks/real_clips.py WEIGHTS SUBSET --stock-python .venv-stock/bin/python

WEIGHTS is a folder written by ``benchmarks/stock.py make``: random, of the true size. Prints one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache import open_store
from tune_cache.audio import decode
from tune_cache.segments import cut

N_CLIPS = 10
RATE = 24_000


def choose(subset: Path, folder: Path) -> Path:
    """A manifest of the first clip of every codec in turn, ten in all."""
    lines = [
        json.loads(line)
        for split in ("train", "val", "test")
        for line in (subset / f"soundtrack.{split}.jsonl").read_text("utf-8").splitlines()
    ]
    by_codec: dict[str, list[dict[str, Any]]] = {}
    for record in lines:
        by_codec.setdefault(Path(record["audio_path"]).suffix, []).append(record)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < N_CLIPS:
        chosen += [records.pop(0) for records in by_codec.values() if records]
    prefix = folder / "ten"
    text = "".join(json.dumps(record) + "\n" for record in chosen[:N_CLIPS])
    Path(f"{prefix}.train.jsonl").write_text(text, "utf-8")
    return prefix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("subset", type=Path)
    parser.add_argument("--stock-python", required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prefix = choose(arguments.subset, folder)
        command = [sys.executable, "-m", "tune_cache", "extract", str(prefix), "--encoder", "muq"]
        command += ["--encoder-path", str(arguments.weights), "--data-root", str(arguments.subset)]
        command += ["--cache-dir", str(folder / "cache"), "--json"]
        found: dict[str, Any] = {}
        for seg in ("10", "full"):
            start = time.perf_counter()
            done = subprocess.run([*command, "--seg", seg], capture_output=True, check=True)
            wall = time.perf_counter() - start
            row = json.loads(done.stdout)["rows"][0]
            usage = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            store = open_store(row["store"])
            found[seg] = {
                "wall_seconds": wall,
                "encode_seconds": row["encode_seconds"],
                "x_real_time": row["x_real_time"],
                "peak_rss_bytes": usage,
                "segments": row["segments"],
                **compare(
                    store, arguments.subset, arguments.weights, arguments.stock_python, folder
                ),
            }
    print(json.dumps(found, indent=2))


def compare(
    store: Any, subset: Path, weights: Path, stock_python: str, folder: Path
) -> dict[str, float]:
    """Stored rows against the stock forward, one segment at a time."""
    waves: dict[str, np.ndarray] = {}
    for track_id in store.track_ids:
        samples = decode(subset / track_id, sample_rate_hz=RATE).samples
        for segment in cut(len(samples), store.spec.segments):
            waves[f"{len(waves):04}"] = samples[segment.start_sample : segment.stop_sample]
    np.savez(folder / "waves.npz", **waves)
    script = Path(__file__).parent / "stock.py"
    files = ["--waves", str(folder / "waves.npz"), "--pooled", str(folder / "pooled.npz")]
    start = time.perf_counter()
    subprocess.run([stock_python, str(script), "pool", str(weights), *files], check=True)
    seconds = time.perf_counter() - start
    with np.load(folder / "pooled.npz") as pooled:
        stock = np.stack([pooled[name] for name in sorted(pooled.files)])
    stored = store.read(store.track_ids).values.astype(np.float32)
    rounded = stock.astype(np.float16).astype(np.float32)
    scale = np.maximum(np.abs(stock), 1e-3)
    return {
        "stock_seconds_with_start": seconds,
        "stored_f2_max_abs_difference": float(np.abs(stored - stock).max()),
        "stored_f2_max_relative_difference": float((np.abs(stored - stock) / scale).max()),
        "rows_equal_to_rounded_stock": float((stored == rounded).mean()),
    }


if __name__ == "__main__":
    main()
