"""The MLP probe at EMO's size: five seeds at once, one after the other, and a plain torch loop.

::

    python benchmarks/mlp.py [--rounds 3]

Vectors are made up (744 tracks × 1024), with a signal that gives R² of about 0.5. Writes its
section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from page import machine, table, write_section

from tune_cache.probes.metrics import metrics_of
from tune_cache.probes.mlp import MLP, MLPOptions
from tune_cache.probes.models import HeldOut
from tune_cache.probes.schedule import Schedule

N, DIM, N_TRAIN, N_VAL = 744, 1024, 504, 115
SEEDS = (1, 2, 3, 4, 5)
BOUND_SECONDS = 20
METRIC = metrics_of("regression", ("arousal", "valence"))[0]


def world() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, DIM)) * (1 + np.arange(DIM)) ** -0.5
    y = X @ rng.standard_normal((DIM, 2)) + 1.5 * rng.standard_normal((N, 2))
    return X.astype(np.float32), y


def fitted(X: np.ndarray, y: np.ndarray, options: MLPOptions, seeds: tuple[int, ...]) -> list[MLP]:
    val = slice(N_TRAIN, N_TRAIN + N_VAL)
    models = [MLP("regression", seed=seed, options=options) for seed in seeds]
    MLP.fit_together(
        models,
        X[:N_TRAIN],
        y[:N_TRAIN],
        standardise=True,
        held_out=HeldOut(X=X[val], y=y[val], score=lambda found: METRIC(y[val], found)),
    )
    return models


def plain(X: np.ndarray, y: np.ndarray, n_epochs: int) -> None:
    """One seed as one would write it: nn.Sequential and Adam, for so many epochs."""
    torch.set_num_threads(1)
    train, rest = X[:N_TRAIN], X[N_TRAIN : N_TRAIN + N_VAL]
    scaled = torch.tensor((train - train.mean(0)) / train.std(0))
    held_out = torch.tensor((rest - train.mean(0)) / train.std(0))
    targets = torch.tensor((y[:N_TRAIN] - y[:N_TRAIN].mean(0)) / y[:N_TRAIN].std(0)).float()
    net = torch.nn.Sequential(
        torch.nn.Linear(DIM, 512), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(512, 2)
    )
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(n_epochs):
        net.train()
        for rows in torch.randperm(N_TRAIN).split(64):
            adam.zero_grad()
            (net(scaled[rows]) - targets[rows]).square().mean().backward()
            adam.step()
        net.eval()
        with torch.no_grad():
            METRIC(y[N_TRAIN : N_TRAIN + N_VAL], net(held_out).numpy())


def timed(run: Callable[[], Any]) -> tuple[tuple[float, float], Any]:
    """Seconds on the clock and of the processor, and what was found."""
    start, used = time.perf_counter(), time.process_time()
    found = run()
    return (time.perf_counter() - start, time.process_time() - used), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=Path, help="write the section here instead")
    arguments = parser.parse_args()
    X, y = world()
    early = MLPOptions(device="cpu")
    fixed = dataclasses.replace(early, schedule=Schedule(max_epochs=20, patience=None))
    seconds: dict[str, list[tuple[float, float]]] = {}
    found: dict[str, Any] = {}
    for number in range(arguments.rounds + 1):
        runs: dict[str, Callable[[], Any]] = {
            "together": lambda: fitted(X, y, early, SEEDS),
            "alone": lambda: [fitted(X, y, early, (seed,))[0] for seed in SEEDS],
            "together, 20 epochs": lambda: fitted(X, y, fixed, SEEDS),
            "alone, 20 epochs": lambda: [fitted(X, y, fixed, (seed,))[0] for seed in SEEDS],
            "plain torch, 20 epochs": lambda: [plain(X, y, 20) for _ in SEEDS],
        }
        for name, run in runs.items():
            took, found[name] = timed(run)
            if number:  # the first round warms up
                seconds.setdefault(name, []).append(took)
        print(number, {name: some[-1] for name, some in seconds.items()}, file=sys.stderr)
    clock = {name: min(one for one, _ in some) for name, some in seconds.items()}
    least = {name: min(one for _, one in some) for name, some in seconds.items()}
    test = X[N_TRAIN + N_VAL :]
    pairs = list(zip(found["together"], found["alone"], strict=True))
    difference = max(
        float(np.abs(one.predict(test, 0) - other.predict(test, 0)).max()) for one, other in pairs
    )
    scores = [METRIC(y[N_TRAIN + N_VAL :], one.predict(test, 0)) for one, _ in pairs]
    figures = {
        "together over one after the other, early stopping": least["together"] / least["alone"],
        "the same, 20 epochs each": least["together, 20 epochs"] / least["alone, 20 epochs"],
        "plain torch over together, 20 epochs each": least["plain torch, 20 epochs"]
        / least["together, 20 epochs"],
        "largest difference of a test prediction, together beside alone": difference,
        "R² on test, least of five seeds": min(scores),
        "R² on test, most": max(scores),
    }
    epochs = ", ".join(f"{one.told['epoch']}" for one, _ in pairs)
    body = "\n\n".join(
        [
            "`benchmarks/mlp.py`, `make bench-mlp`. Made-up vectors of EMO's size (744 tracks × "
            "1024, 504 to learn from, 115 to watch), one hidden layer of 512, two targets, five "
            f"seeds, at most 50 epochs, patience 20. Best epochs: {epochs}. All on one thread.",
            machine(f"{arguments.rounds} interleaved rounds"),
            table(
                ("five seeds", "seconds on the clock, least", "of the processor", "bound"),
                [
                    (
                        name,
                        f"{clock[name]:.2f}",
                        f"{least[name]:.2f}",
                        f"{BOUND_SECONDS}" if name == "together" else "–",
                    )
                    for name in least
                ],
            ),
            table(("", ""), [(name, f"{value:.3g}") for name, value in figures.items()]),
            "Ratios are of the processor's seconds: other processes were busy meanwhile. "
            "One seed's products fill a thread already, so that seeds at once take what they take "
            "in turn, and models that have ended are carried along until the last one ends. An "
            "axis of seeds is for a GPU, where one seed's products are too small; nobody has "
            "looked there yet.",
        ]
    )
    if arguments.page is not None:
        write_section("MLP", body, page=arguments.page)
    else:
        write_section("MLP", body)
    print(json.dumps(least | figures, indent=2))


if __name__ == "__main__":
    main()
