"""Memory above the weights, ours, our model of it, and the package's own forward.

Every figure is of a fresh process: load, give freed memory back, reset the high-water mark, call
five times (once from 5 minutes on, the stock forward once or twice), and take the highest
resident memory above what was resident before. Tracks longer than 5 minutes run through
the front end and one block: blocks are alike and run one after the other, so the rest would take
time and no more memory. ::

    python benchmarks/memory.py WEIGHTS --stock-python .venv-stock/bin/python

WEIGHTS is a folder written by ``benchmarks/stock.py make``. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from page import machine, table, write_section
from stock import peak_bytes, reset_peak, resident_bytes, settle, waveforms

OURS = (
    ("fp32", 10, 1, 5),
    ("fp32", 10, 4, 5),
    ("fp32", 30, 1, 5),
    ("fp32", 30, 4, 5),
    ("fp32", 45, 1, 5),
    ("fp32", 45, 4, 5),
    ("fp32", 60, 1, 5),
    ("fp32", 300, 1, 1),
    ("fp32", 1200, 1, 1),
    ("fp32", 3600, 1, 1),
    ("bf16", 10, 4, 5),
    ("bf16", 45, 1, 5),
    ("bf16", 300, 1, 1),
)
STOCK = ((10, 4, 2), (45, 1, 2), (45, 4, 1))
LONG_SECONDS = 300  # beyond it one block stands for twelve
BOUNDS_GB = {("fp32", 45, 1): 0.3, ("fp32", 45, 4): 0.5, ("fp32", 1200, 1): 1.0}


def point(weights: Path, precision: str, seconds: float, batch: int, calls: int) -> dict[str, Any]:
    """Measure one shape in this process."""
    from tune_cache.encoders.base import get_encoder
    from tune_cache.encoders.sized import SizedEncoder

    encoder = get_encoder("muq").load(
        path=weights,
        precision=precision,
        device="cpu",
        layers=(0, 1) if seconds > LONG_SECONDS else None,
        poolings=("mean",),
        max_memory_bytes=None,
    )
    samples = waveforms(seconds, batch)
    settle()
    before = resident_bytes()
    reset_peak()
    for _ in range(calls):
        encoder.embed(samples)
    assert isinstance(encoder, SizedEncoder)
    predicted = encoder.peak_bytes(batch, samples.shape[1])
    return {"measured": peak_bytes() - before, "predicted": predicted}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--stock-python")
    parser.add_argument("--point", help="precision,seconds,batch,calls: measure in this process")
    parser.add_argument("--longest", type=int, default=3600, help="leave out longer tracks")
    parser.add_argument("--resume", type=Path, help="what an interrupted run said of each point")
    arguments = parser.parse_args()
    if arguments.point:
        precision, *numbers = arguments.point.split(",")
        seconds, batch, calls = map(int, numbers)
        print(json.dumps(point(arguments.weights, precision, seconds, batch, calls)))
        return
    measured = {}
    if arguments.resume:  # every point is a process of its own, so one run may end another
        for line in arguments.resume.read_text("utf-8").splitlines():
            shape, _, found = line.partition(" ")
            measured[shape] = json.loads(found)
    rows = []
    for precision, seconds, batch, calls in OURS:
        if seconds > arguments.longest:
            continue
        shape = f"{precision},{seconds},{batch},{calls}"
        command = [sys.executable, __file__, str(arguments.weights), "--point", shape]
        found = measured.get(shape) or json.loads(
            subprocess.run(command, capture_output=True, check=True).stdout
        )
        print(shape, json.dumps(found), file=sys.stderr, flush=True)
        bound = BOUNDS_GB.get((precision, seconds, batch))
        name = f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds} s"
        rows.append(
            (
                f"tune_cache {precision}, {name} × {batch}",
                f"{found['measured'] / 1e9:.3f}",
                f"{found['predicted'] / 1e9:.3f}",
                f"{found['predicted'] / found['measured'] - 1:+.0%}",
                "" if bound is None else f"≤ {bound}",
            )
        )
    script = str(Path(__file__).parent / "stock.py")
    for seconds, batch, calls in STOCK if arguments.stock_python else ():
        shape = f"stock,{seconds},{batch},{calls}"
        if shape not in measured:
            command = [arguments.stock_python, script, "run", str(arguments.weights)]
            command += ["--seconds", str(seconds), "--batch", str(batch), "--repeats", str(calls)]
            said = subprocess.run(command, capture_output=True, check=True, text=True).stdout
            peak = json.loads(said.splitlines()[-1])["peak_bytes"]  # libraries chat on the way
            measured[shape] = {"peak_bytes": peak}
        found = measured[shape]
        print(shape, json.dumps(found), file=sys.stderr, flush=True)
        rows.append(
            (f"stock fp32, {seconds} s × {batch}", f"{found['peak_bytes'] / 1e9:.3f}", "", "", "")
        )
    header = ("", "GB above the weights", "predicted", "off by", "bound")
    how = " ".join((__doc__ or "").split("\n\n")[1].replace("::", "").split())
    body = "\n\n".join(
        [
            "`benchmarks/memory.py`, `make bench-memory`. Random weights of the true size.",
            machine(),
            how,
            table(header, rows),
        ]
    )
    write_section("Memory", body)


if __name__ == "__main__":
    main()
