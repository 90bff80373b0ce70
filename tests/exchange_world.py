"""Stores of any content, made without audio, for tests of exchange files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_cache.cache.assemble import Assembly
from tune_cache.cache.exchange.restore import covered_samples, publish
from tune_cache.cache.journal import TrackOutcome
from tune_cache.cache.layout import Layout
from tune_cache.cache.rows import Rows
from tune_cache.cache.store import Store
from tune_cache.specs import EncoderSpec, SegmentSpec, StoreSpec, collection_digest

RATE = 1000
HOSTILE_IDS = (
    "$(touch pwned).wav",
    "=1+1.wav",
    "[red]not red[/red].wav",
    "a\nb.wav",
    "caf\udce9.wav",  # a file name that is not UTF-8
    "nul\0.wav",
    "pi\u00f1ata \u202e.wav",
    "../../outside.wav",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a store is to hold.

    Parameters
    ----------
    rows
        Track id to its number of segments; None for a failed track.
    """

    rows: dict[str, int | None]
    dtype: str = "f2"
    poolings: tuple[str, ...] = ("mean",)
    layers: tuple[int, ...] = (0, 1, 2)
    dim: int = 4
    scale: float = 1.0
    seed: int = 0

    @property
    def spec(self) -> StoreSpec:
        return StoreSpec(
            encoder=EncoderSpec(name="toy", weights_sha256="0" * 64, config_sha256="1" * 64),
            segments=SegmentSpec(sample_rate_hz=RATE, length_samples=500, hop_samples=250),
            layers=self.layers,
            poolings=self.poolings,
            dtype=self.dtype,
            resampler="none",
            decoder="test",
        )

    def values(self, pooling: str) -> np.ndarray:
        """Of all rows; extreme ones of the dtype among them."""
        n_rows = sum(n or 0 for n in self.rows.values())
        rng = np.random.default_rng([self.seed, len(pooling)])
        values = rng.standard_normal((n_rows, len(self.layers), self.dim)) * self.scale
        stored = values.astype("<" + self.dtype)
        info = np.finfo(stored.dtype)
        extremes = [info.max, info.min, info.smallest_subnormal, -0.0]
        flat = stored.reshape(-1)
        flat[: len(extremes)] = extremes[: len(flat)]
        return stored


def make_store(folder: Path, sample: Sample) -> Store:
    """Publish a store with this content below a cache folder."""
    outcomes, grids = [], []
    for number, (track_id, n_rows) in enumerate(sorted(sample.rows.items())):
        if n_rows is None:
            outcomes.append(
                TrackOutcome(
                    track_id=track_id,
                    audio_sha256="" if number % 2 else f"{number + 1:064x}",
                    status="missing",
                    message=f"audio file {track_id!r}: is missing",
                )
            )
            continue
        starts = np.arange(n_rows, dtype=np.int64) * 250
        counts = np.full(n_rows, 500, np.int32)
        counts[-1:] = 300
        grids.append((starts, counts))
        outcomes.append(
            TrackOutcome(
                track_id=track_id,
                audio_sha256=f"{number + 1:064x}",
                status="ok",
                message="header is wrong" if number % 3 == 0 else "",
                n_samples=int(starts[-1] + 300) if n_rows else 7,
                sample_rate_hz=44_100,
                n_rows=n_rows,
                covered_samples=covered_samples(starts, counts),
            )
        )
    starts = np.concatenate([np.zeros(0, np.int64), *(grid[0] for grid in grids)])
    counts = np.concatenate([np.zeros(0, np.int32), *(grid[1] for grid in grids)])

    def rows(pooling: str) -> Iterator[Rows]:
        yield Rows(sample.values(pooling), starts, counts)

    assembly = Assembly(
        spec=sample.spec,
        dim=sample.dim,
        collection=collection_digest((o.track_id, o.audio_sha256) for o in outcomes),
        outcomes=outcomes,
        facts={
            "frame_rate_hz": 25.0,
            "datasets": ["EMO", "na\u00efve \udcff"],
            "license_note": "CC BY-NC 4.0 \u2014 not for sale",
            "encoder_note": "a toy",
            "provenance": {"created": "2024-01-01T00:00:00+00:00", "versions": {"python": "3"}},
            "some_fact_of_later": [1, {"two": None}],
        },
        ledger={"encode_seconds": 1.5, "n_units": 3},
        rows=rows,
    )
    return publish(Layout(folder), assembly)[0]


SAMPLES = {
    "usual": Sample(rows={"a.wav": 3, "b.wav": 1, "c.wav": None, "d.wav": 7}),
    "f4-poolings": Sample(
        rows={"x": 5, "y": 2}, dtype="f4", poolings=("mean", "max", "std"), layers=(6,), dim=9
    ),
    "hostile-ids": Sample(rows={name: i % 3 or None for i, name in enumerate(HOSTILE_IDS)}),
    "empty-tracks": Sample(rows={"a": 0, "b": 2, "c": 0, "d": None}, poolings=("mean", "std")),
    "no-rows": Sample(rows={"a": 0, "b": None}),
    "shards": Sample(rows={f"{i:03}": i % 50 for i in range(90)}, layers=(0, 12), dim=3),
}


def files_of(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def leftovers(folders: Sequence[Path]) -> list[str]:
    """Temporary files and unfinished folders."""
    return [
        path.name
        for folder in folders
        for path in folder.rglob(".*")
        if path.name.endswith((".tmp", ".building"))
    ]
