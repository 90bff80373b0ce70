"""A small learnable dataset in MARBLE's form: tones against noise, arousal as loudness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tune_cache.audio import write_wav

RATE = 24_000
N_TRACKS = 24


def make_small_dataset(folder: Path, name: str = "small", n_tracks: int = N_TRACKS) -> Path:
    """Write audio and two-task manifests; returns the prefix to give as DATASET."""
    (folder / "audio").mkdir(parents=True)
    rng = np.random.default_rng(5)
    records: dict[str, list[dict[str, object]]] = {"train": [], "val": [], "test": []}
    for index in range(n_tracks):
        label = ("tone", "noise")[index % 2]
        n_samples = int(RATE * rng.choice([0.7, 1.0, 2.2, 3.5]))
        loudness = rng.uniform(0.05, 0.5)
        time = np.arange(n_samples) / RATE
        tone = np.sin(2 * np.pi * rng.uniform(200, 800) * time)
        noise = rng.standard_normal(n_samples) / 3
        samples = loudness * (tone + 0.05 * noise if label == "tone" else noise)
        path = f"audio/{index:02}.wav"
        write_wav(folder / path, samples.astype(np.float32), RATE)
        split = ("train", "train", "train", "val", "val", "test", "test", "train")[index // 2 % 8]
        records[split].append(
            {
                "audio_path": path,
                "label": label,
                "level": [float(np.log(loudness)), float(n_samples / RATE)],
                "ori_uid": f"song{index // 2}",
                "duration": n_samples / RATE,
            }
        )
    for split, rows in records.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.{split}.jsonl").write_text(text)
    (folder / "tune.toml").write_text(
        f'[datasets.{name}]\nmanifests = "{name}"\n'
        f'[datasets.{name}.tasks.kind]\nlabel = "label"\n'
        f'[datasets.{name}.tasks.level]\nlabel = "level"\ntargets = ["loudness", "length"]\n'
    )
    return folder / name


def make_home(folder: Path) -> Path:
    """The dataset in ``data``; its tune.toml makes ``mel`` and the folder ``cache`` defaults."""
    make_small_dataset(folder / "data")
    settings = (folder / "data/tune.toml").read_text()
    settings = settings.replace('manifests = "small"', 'manifests = "data/small"\nencoder = "mel"')
    settings += '[defaults]\ndataset = "small"\ncache_dir = "cache"\n'
    (folder / "tune.toml").write_text(settings)
    return folder
