"""Trained aggregations at the size of EMO: masked pre-training, and training with a head.

::

    python benchmarks/trained.py [--rounds 3]

504 tracks of 5 segments of 1024 dimensions, made up; nothing is written but its section of
RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
from page import machine, table, write_section

from tune_cache.aggregation.transformer import Transformer
from tune_cache.cache.ragged import Ragged
from tune_cache.probes.workshop import Lesson, Workshop

N_TRACKS, N_SEGMENTS, DIM = 504, 5, 1024
BOUND_SECONDS = 30


def made_up() -> Lesson:
    """Tracks whose segments share a direction, and two targets that follow it."""
    rng = np.random.default_rng(1)
    spectrum = (1 + np.arange(DIM)) ** -0.5
    track = rng.standard_normal((N_TRACKS, 1, DIM))
    own = rng.standard_normal((N_TRACKS, N_SEGMENTS, DIM))
    values = ((0.7 * track + 0.6 * own) * spectrum).astype(np.float16)
    names = [f"t{number:04}" for number in range(N_TRACKS)]
    return Lesson(
        layer="12",
        tracks=Ragged.from_tracks(list(values)),
        track_ids=names,
        groups=names,
        truth=track[:, 0, :2] + 0.5 * rng.standard_normal((N_TRACKS, 2)),
        kind="regression",
    )


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Seconds on the clock and of the processor."""
    return time.perf_counter() - start[0], time.process_time() - start[1]


def measured(lesson: Lesson, rounds: int) -> tuple[list[tuple[str, ...]], dict[str, Any]]:
    """Rows of the table, and facts of what was trained."""
    pretraining, attention = [], []  # seconds on the clock, and of the processor
    facts: dict[str, Any] = {}
    import torch

    torch.ones(1)  # importing is no part of it
    for number in range(rounds):
        start = time.perf_counter(), time.process_time()
        trained = Workshop(device="cpu").pretrained(Transformer(device="cpu"), lesson)
        pretraining.append(since(start))
        start = time.perf_counter(), time.process_time()
        joint = Workshop(device="cpu").joint("attention", {}, "linear", lesson, 1)
        attention.append(since(start))
        facts = {"pretraining": dict(trained.facts), "attention": dict(joint.facts)}
        print(number, pretraining[-1], attention[-1], file=sys.stderr)
    rows = [
        (
            f"transformer: masked modelling, one epoch, {facts['pretraining']['steps']} steps",
            *(f"{min(some):.1f}" for some in zip(*pretraining, strict=True)),
            str(BOUND_SECONDS),
        ),
        (
            f"attention with a linear head, {facts['attention']['steps']} steps,"
            " stopped early and learnt again from all",
            *(f"{min(some):.1f}" for some in zip(*attention, strict=True)),
            "–",
        ),
    ]
    return rows, facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    rows, facts = measured(made_up(), arguments.rounds)
    body = "\n\n".join(
        [
            "`benchmarks/trained.py`, `make bench-trained`. Made-up vectors of the size of EMO's "
            f"training split ({N_TRACKS} tracks × {N_SEGMENTS} segments × {DIM}), one layer. "
            "Training uses one thread, so that it gives the same bits beside anything else; where "
            "the machine had other work, the processor's seconds are the ones to compare.",
            machine(f"{arguments.rounds} rounds"),
            table(("", "seconds, least", "of the processor", "bound"), rows),
        ]
    )
    write_section("Trained aggregations", body)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
