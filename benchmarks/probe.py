"""Stage two at the size of EMO and GTZAN: whole processes, and plain scikit-learn beside them.

::

    python benchmarks/probe.py FOLDER [--rounds 5]

FOLDER gets stores of made-up vectors (160 MB), which are removed again. Writes its section of
RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from page import machine, table, write_section

from tune_cache.cache.assemble import Assembly, assemble
from tune_cache.cache.journal import TrackOutcome
from tune_cache.cache.layout import Layout
from tune_cache.cache.rows import Rows
from tune_cache.cache.store import open_store
from tune_cache.datasets.catalog import load_dataset
from tune_cache.probes.features import read_features
from tune_cache.probes.metrics import metrics_of, score
from tune_cache.probes.models import make_probe
from tune_cache.probes.tasks import TaskData, load_task
from tune_cache.segments import segment_spec
from tune_cache.specs import EncoderSpec, StoreSpec, collection_digest

RATE, N_LAYERS, DIM = 24_000, 13, 1024
SHARED, OWN = 0.7, 0.6  # spread of what a track's segments have in common, and of the rest


@dataclass(frozen=True, kw_only=True)
class Size:
    """A dataset by its numbers.

    Parameters
    ----------
    forwards
        Of the frozen encoder in one probe run of MARBLE v2, from and to.
    """

    name: str
    splits: tuple[int, int, int]
    n_segments: int
    probe: str
    bound_seconds: float
    forwards: tuple[int, int]
    forwards_once: int
    n_strengths: int

    @property
    def n_tracks(self) -> int:
        return sum(self.splits)

    def label(self, number: int, rng: np.random.Generator) -> Any:
        if self.probe == "ridge":
            return [float(value) for value in rng.standard_normal(2)]
        return f"genre{number % 10}"


EMO = Size(
    name="EMO",
    splits=(504, 115, 125),
    n_segments=5,
    probe="ridge",
    bound_seconds=4,
    forwards=(39_532, 93_385),
    forwards_once=2_232,
    n_strengths=10,
)
GTZAN = Size(
    name="GTZANGenre",
    splits=(443, 197, 290),
    n_segments=3,
    probe="logistic",
    bound_seconds=25,
    forwards=(13_810, 32_370),
    forwards_once=930,
    n_strengths=6,
)


def write_manifests(folder: Path, size: Size) -> list[Any]:
    """Manifests in MARBLE's layout, without audio; the label of each track in order."""
    rng = np.random.default_rng(1)
    place = folder / "data" / size.name
    place.mkdir(parents=True)
    labels, number = [], 0
    for split, n in zip(("train", "val", "test"), size.splits, strict=True):
        lines = []
        for _ in range(n):
            labels.append(size.label(number, rng))
            lines.append({"audio_path": f"{number:04}.wav", "label": labels[-1]})
            number += 1
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"{size.name}.{split}.jsonl").write_text(text)
    return labels


def vectors(size: Size, labels: list[Any]) -> np.ndarray:
    """(tracks, segments, layers, dim) f2: a signal of the labels in a falling spectrum.

    Layer 8 carries most of it; dimensions are as correlated as a spectrum of 1 / rank makes them.
    """
    rng = np.random.default_rng(2)
    spectrum = (1 + np.arange(DIM)) ** -0.5
    if size.probe == "ridge":
        signal = np.array(labels) @ rng.standard_normal((2, DIM))
    else:
        classes = np.array([int(label[5:]) for label in labels])
        signal = rng.standard_normal((10, DIM))[classes]
    out = np.empty((size.n_tracks, size.n_segments, N_LAYERS, DIM), np.float16)
    for layer in range(N_LAYERS):
        rotation = np.linalg.qr(rng.standard_normal((DIM, DIM)))[0].astype(np.float32)
        strength = 0.12 - 0.01 * abs(layer - 8)
        track = strength * signal + SHARED * rng.standard_normal(signal.shape)
        noise = OWN * rng.standard_normal((size.n_tracks, size.n_segments, DIM))
        rows = ((track[:, None] + noise) * spectrum).astype(np.float32)
        out[:, :, layer] = rows @ rotation
    return out


def write_store(layout: Layout, size: Size, values: np.ndarray) -> Path:
    """A store of 10-s segments as ``tune extract`` publishes it."""
    spec = StoreSpec(
        encoder=EncoderSpec(name="muq", weights_sha256="0" * 64, config_sha256="0" * 64),
        segments=segment_spec(10, sample_rate_hz=RATE, min_samples=1025),
        layers=tuple(range(N_LAYERS)),
        resampler="none",
        decoder="none",
    )
    n, n_samples = size.n_segments, size.n_segments * 10 * RATE
    outcomes = [
        TrackOutcome(
            track_id=f"{number:04}.wav",
            audio_sha256=f"{size.n_segments}{number:063x}",
            status="ok",
            n_samples=n_samples,
            sample_rate_hz=44_100,
            n_rows=n,
            covered_samples=n_samples,
        )
        for number in range(size.n_tracks)
    ]
    collection = collection_digest((one.track_id, one.audio_sha256) for one in outcomes)
    rows = values.reshape(-1, N_LAYERS, DIM)

    def in_blocks(pooling: str) -> Iterator[Rows]:
        for start in range(0, len(rows), 1024):
            some = rows[start : start + 1024]
            places = np.arange(start, start + len(some)) % n
            yield Rows(some, places * 10 * RATE, np.full(len(some), 10 * RATE, np.int32))

    path = layout.store_path(spec, collection)
    path.parent.mkdir(parents=True, exist_ok=True)
    assemble(
        path,
        Assembly(
            spec=spec,
            dim=DIM,
            collection=collection,
            outcomes=outcomes,
            facts={"frame_rate_hz": 25.0, "datasets": [], "license_note": "", "provenance": {}},
            ledger={},
            rows=in_blocks,
        ),
    )
    return path


def process_seconds(folder: Path, size: Size, *more: str) -> tuple[float, dict[str, Any]]:
    """Seconds of ``tune probe`` from start to exit, and the row it prints."""
    command = [sys.executable, "-m", "tune_cache", "probe", f"data/{size.name}/{size.name}"]
    command += ["--encoder", "muq", "--cache-dir", "cache", "--json", *more]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, json.loads(done.stdout)["rows"][0]


def track_means(folder: Path, size: Size, store: Path) -> tuple[TaskData, list[dict[str, Any]]]:
    """Labels and, of each layer, the mean vectors of every split: what both sides start from."""
    dataset = load_dataset(str(folder / "data" / size.name / size.name))
    data = load_task(dataset, dataset.tasks[0])
    features = read_features(open_store(store), data)
    means = [
        {
            split: np.array([track.mean(axis=0, dtype=np.float32) for track in part])
            for split, part in features.of_layer(layer).items()
        }
        for layer in features.layers
    ]
    return data, means


def plain_models(size: Size, strength: dict[str, float]) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = (
        Ridge(**strength)
        if size.probe == "ridge"
        else LogisticRegression(**strength, max_iter=2000)
    )
    return make_pipeline(StandardScaler(), model)


def plain_loop(size: Size, data: TaskData, means: list[dict[str, Any]]) -> tuple[float, str]:
    """Every layer and strength by scikit-learn as one would write it: best score, and where."""
    metric, (train, val) = data.metrics[0], (data.splits[name] for name in ("train", "val"))
    _, probe = make_probe(size.probe, data.kind)
    best = (-np.inf, "")
    for layer, vectors_of in enumerate(means):
        for strength in probe.grid:
            model = plain_models(size, dict(strength)).fit(vectors_of["train"], train.truth)
            found = metric(val.truth, np.asarray(model.predict(vectors_of["val"])))
            if found > best[0] + 1e-9:
                best = (found, f"layer {layer}, {dict(strength)}")
    return best


def own_loop(size: Size, data: TaskData, means: list[dict[str, Any]]) -> tuple[float, str]:
    """The same with the probes here: each layer's strengths are fitted at once."""
    metric, (train, val) = data.metrics[0], (data.splits[name] for name in ("train", "val"))
    best = (-np.inf, "")
    for layer, vectors_of in enumerate(means):
        _, probe = make_probe(size.probe, data.kind)
        probe.fit(vectors_of["train"], train.truth, standardise=True)
        for strength, predicted in zip(
            probe.grid, probe.predict_all(vectors_of["val"]), strict=True
        ):
            found = metric(val.truth, predicted)
            if found > best[0] + 1e-9:
                best = (found, f"layer {layer}, {dict(strength)}")
    return best


def worst_loss(data: TaskData, means: list[dict[str, Any]]) -> float:
    """How much higher the objective is than scikit-learn's, solved to 1e-8, at worst; layer 8."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rows, truth = means[8]["train"], data.splits["train"].truth
    scaled = StandardScaler().fit_transform(rows)
    _, probe = make_probe("logistic", data.kind)
    probe.fit(rows, truth, standardise=True)

    def objective(margins: np.ndarray, planes: np.ndarray, strength: float) -> float:
        margins = margins - margins.max(axis=1, keepdims=True)
        losses = np.log(np.exp(margins).sum(axis=1)) - margins[np.arange(len(truth)), truth]
        return float(losses.mean() + np.square(planes).sum() / (2 * strength * len(truth)))

    worst = -np.inf
    for choice, params in enumerate(probe.grid):
        planes, offsets = probe._planes[choice]
        found = objective(probe._locate(rows) @ planes + offsets, planes, params["C"])
        plain = LogisticRegression(C=params["C"], max_iter=10_000, tol=1e-8).fit(scaled, truth)
        exact = objective(plain.decision_function(scaled), plain.coef_, params["C"])
        worst = max(worst, found - exact)
    return worst


def of_tags(n_tracks: int = 5000, n_tags: int = 50) -> list[tuple[str, ...]]:
    """Rows of the table: an interval of tag metrics, 2,000 resamples, every track a group."""
    rng = np.random.default_rng(3)
    truth = (rng.random((n_tracks, n_tags)) < rng.uniform(0.01, 0.3, n_tags)).astype(float)
    prediction = truth + rng.standard_normal(truth.shape)
    groups = [f"{number:05}" for number in range(n_tracks)]
    rows = []
    for metric in metrics_of("multilabel", ()):
        seconds, _ = timed(lambda m=metric: score(m, truth, prediction, groups, seed=1))
        rows.append(
            (
                f"{metric.name}: 2,000 resamples of {n_tracks:,} tracks × {n_tags} tags",
                f"{seconds:.2f}",
                "10",
            )
        )
    return rows


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def of_size(
    folder: Path, size: Size, rounds: int
) -> tuple[list[tuple[str, ...]], dict[str, float]]:
    """Rows of the table and figures of one dataset's size."""
    store = write_store(
        Layout(folder / "cache"), size, vectors(size, write_manifests(folder, size))
    )
    data, means = track_means(folder, size, store)
    whole, other, ours, theirs = [], [], [], []
    row: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for number in range(rounds + 1):
        seconds = {
            "whole": process_seconds(folder, size, "--agg", "mean", "--layer", "best"),
            "concat": process_seconds(folder, size, "--agg", "concat", "--layer", "best"),
            "ours": timed(lambda: own_loop(size, data, means)),
            "theirs": timed(lambda: plain_loop(size, data, means)),
        }
        row, chosen = seconds["whole"][1], {name: seconds[name][1] for name in ("ours", "theirs")}
        if number:  # the first round warms up
            for name, some in (
                ("whole", whole),
                ("concat", other),
                ("ours", ours),
                ("theirs", theirs),
            ):
                some.append(seconds[name][0])
        print(size.name, number, {k: round(v[0], 2) for k, v in seconds.items()}, file=sys.stderr)
    if chosen["ours"][1] != chosen["theirs"][1]:
        print(f"{size.name}: other choices, {chosen}", file=sys.stderr)
    name = metrics_of(data.kind, data.targets)[0].name
    settings = f"{N_LAYERS} layers × {size.n_strengths} strengths"
    rows = [
        (
            f"{size.name}: whole process, mean, best of {settings}",
            f"{min(whole):.2f}",
            f"{size.bound_seconds:g}",
        ),
        (f"{size.name}: whole process, concat, the same", f"{min(other):.2f}", "–"),
        (
            f"{size.name}: {size.probe} at every layer and strength, probes here",
            f"{min(ours):.2f}",
            "–",
        ),
        (f"{size.name}: the same, plain scikit-learn in a loop", f"{min(theirs):.2f}", "–"),
    ]
    figures = {
        f"{size.name}: plain scikit-learn over probes here": min(theirs) / min(ours),
        f"{size.name}: best validation {name}, probes here": chosen["ours"][0],
        f"{size.name}: best validation {name}, plain scikit-learn": chosen["theirs"][0],
        f"{size.name}: seconds to predict 1,000 tracks": row.get(
            "seconds_predict_per_1000", np.nan
        ),
        f"{size.name}: peak of fitting above what was there, MB": row.get("peak_fit_bytes", np.nan)
        / 1e6,
    }
    if size.probe == "logistic":
        figures[f"{size.name}: objective above scikit-learn's solved to 1e-8, worst of 6"] = (
            worst_loss(data, means)
        )
    return rows, figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--page", type=Path, help="write the section here instead")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")
    folder = arguments.folder / "probe-benchmark"
    rows, figures, forwards = [], {}, []
    try:
        for size in (EMO, GTZAN):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found, more = of_size(folder, size, arguments.rounds)
            rows, figures = rows + found, figures | more
            low, high = size.forwards
            forwards.append((size.name, f"{low:,} to {high:,}", f"{size.forwards_once:,}", "0"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    threads = os.environ.get("OMP_NUM_THREADS", "as many as there are")
    rows += of_tags()
    body = "\n\n".join(
        [
            "`benchmarks/probe.py`, `make bench-probe`. Made-up vectors of the size of EMO (744 "
            "tracks × 5 segments × 13 × 1024) and GTZAN (930 × 3 × 13 × 1024). A whole process "
            "starts Python, finds the store, reads every layer, chooses layer and strength on "
            "validation, scores test with its interval (2,000 bootstraps of accuracy and F1, a "
            "jackknife of R²), looks for leaks, saves and prints.",
            machine(f"{arguments.rounds} interleaved rounds", f"threads of BLAS: {threads}"),
            table(("", "seconds, least", "bound"), rows),
            table(("", ""), [(k, f"{v:.2g}") for k, v in figures.items()]),
            "scikit-learn's default tolerance ends before the optimum at weak penalties, so that "
            "what it predicts, and chooses, is another model's; both are given.",
            "Forward passes of the frozen encoder: MARBLE v2 runs it in every epoch of a probe, "
            "from when it stops early to its last epoch; here it runs once a slice, and never "
            "again for any probe, aggregation, layer or seed.",
            table(("", "one probe of MARBLE v2", "encoding once", "each probe after it"), forwards),
        ]
    )
    if arguments.page is not None:
        write_section("Probes", body, page=arguments.page)
    else:
        write_section("Probes", body)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
