"""A small world for tests of the cache: a toy encoder, tracks around the edges, no decoders.

The toy encoder is a pure function of each waveform, counts what it encodes in a
file (so that counts survive a kill), and needs neither torch nor weights.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tune_cache.audio import DecodedAudio, decode, write_wav
from tune_cache.cache.extract import Circumstances, ExtractOutcome, extract_stores
from tune_cache.cache.inventory import Inventory, stamp_of
from tune_cache.cache.layout import Layout
from tune_cache.cache.plan import PlannedTrack
from tune_cache.encoders.base import EncoderInfo
from tune_cache.errors import AudioError, EncoderError
from tune_cache.segments import segment_spec
from tune_cache.specs import EncoderSpec, StoreSpec

RATE = 8000
MIN_SAMPLES = 100
SEGMENT_SECONDS = 1.0

# shorter than a segment; exactly one; one sample over; a tail to keep; many; too short
LENGTHS = {
    "a/short.wav": 3000,
    "a/exact.wav": RATE,
    "a/over.wav": RATE + 1,
    "b/tail.wav": 2 * RATE + 8000 // 2,
    "b/many.wav": 7 * RATE,
    "b/twin.wav": 3 * RATE,
    "c/min.wav": MIN_SAMPLES,
    "c/long.wav": 11 * RATE + 17,
}


@dataclass(slots=True)
class ToyEncoder:
    """Projects simple statistics of a waveform; every layer differs."""

    log: Path | None = None
    scale: float = 1.0
    algorithm: int = 1
    weights_sha256: str = "00" * 32
    layers: tuple[int, ...] = (0, 1, 2)
    poolings: tuple[str, ...] = ("mean",)
    name: str = "toy"
    sample_rate: int = RATE
    n_layers: int = 3
    dim: int = 8
    frame_rate_hz: float = 80.0
    min_samples: int = MIN_SAMPLES

    def spec(self) -> EncoderSpec:
        return EncoderSpec(
            name=self.name,
            weights_sha256=self.weights_sha256,
            config_sha256="11" * 32,
            algorithm=self.algorithm,
        )

    def info(self) -> EncoderInfo:
        return EncoderInfo(
            name=self.name,
            sample_rate=self.sample_rate,
            n_layers=self.n_layers,
            dim=self.dim,
            frame_rate_hz=self.frame_rate_hz,
            min_samples=self.min_samples,
            spec=self.spec(),
            note="a toy",
        )

    def embed(self, waveforms: np.ndarray) -> dict[str, np.ndarray]:
        if waveforms.shape[1] < self.min_samples:
            raise EncoderError("too short")
        if self.log is not None:
            with self.log.open("ab") as file:
                file.write(b"." * len(waveforms))
        out = np.empty((len(waveforms), len(self.layers), self.dim), np.float32)
        for item, waveform in enumerate(waveforms):
            x = waveform.astype(np.float64)
            base = [x.mean(), x.std(), x[0], x[-1], len(x) / RATE, np.abs(x).max()]
            base += [float((x[1:] * x[:-1]).mean()), float(np.diff(x).std())]
            for place, layer in enumerate(self.layers):
                out[item, place] = self.scale * np.roll(base, layer) * (layer + 1)
        return {name: out * (1 + len(name)) for name in self.poolings}

    def n_encoded(self) -> int:
        return self.log.stat().st_size if self.log and self.log.exists() else 0


class InlineDecoders:
    """Decodes at once in this process: quick, for tests that are not about decoding."""

    def submit(self, track_id: str, path: Path) -> Future[DecodedAudio]:
        future: Future[DecodedAudio] = Future()
        try:
            future.set_result(decode(path, sample_rate_hz=RATE, track_id=track_id))
        except AudioError as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def inline_decoders(n_workers: int, spec: StoreSpec, spool: Path) -> Iterator[InlineDecoders]:
    yield InlineDecoders()


def write_track(path: Path, n_samples: int, seed: int) -> None:
    """A wav of noise under a slow swell, old enough to be trusted by its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    samples = rng.uniform(-0.5, 0.5, n_samples) * np.linspace(0.2, 1.0, n_samples)
    write_wav(path, samples.astype(np.float32), RATE)
    make_old(path)


def make_old(path: Path) -> None:
    status = path.stat()
    os.utime(path, (status.st_atime - 60, status.st_mtime - 60))


def toy_spec(encoder: ToyEncoder, seconds: float | str = SEGMENT_SECONDS, **changes) -> StoreSpec:
    fields = {
        "encoder": encoder.spec(),
        "segments": segment_spec(
            seconds, sample_rate_hz=RATE, min_samples=MIN_SAMPLES, min_tail_seconds=0.3
        ),
        "layers": encoder.layers,
        "poolings": encoder.poolings,
        "resampler": "none",
        "decoder": "test",
    }
    return StoreSpec(**{**fields, **changes})


@dataclass(slots=True)
class World:
    """Audio, a cache and a toy encoder in one temporary folder."""

    folder: Path
    encoder: ToyEncoder

    @classmethod
    def make(cls, folder: Path, lengths: dict[str, int] = LENGTHS) -> World:
        for seed, (name, n_samples) in enumerate(sorted(lengths.items())):
            write_track(folder / "audio" / name, n_samples, seed)
        return cls(folder, ToyEncoder(log=folder / "encoded.log"))

    @property
    def audio(self) -> Path:
        return self.folder / "audio"

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "cache")

    def tracks(self, names: Sequence[str] | None = None) -> list[PlannedTrack]:
        if names is None:
            names = sorted(p.relative_to(self.audio).as_posix() for p in self.audio.rglob("*.*"))
        self.layout.prepare()
        planned = []
        with Inventory(self.layout.audio_db) as inventory:
            paths = [self.audio / name for name in names]
            for name, (path, file) in zip(names, inventory.files(paths), strict=True):
                failed = isinstance(file, AudioError)
                planned.append(
                    PlannedTrack(
                        track_id=name,
                        path=path,
                        audio_sha256="" if failed else file.sha256,
                        # long units would make one of this world: minutes instead of seconds
                        seconds=0.0 if failed else file.seconds * 60,
                        stamp=stamp_of(path),
                        reason=file.reason if failed else "",
                        message=str(file) if failed else "",
                    )
                )
        return planned

    def extract(self, *seconds: float | str, **options) -> list[ExtractOutcome]:
        specs = [toy_spec(self.encoder, length) for length in seconds or (SEGMENT_SECONDS,)]
        return self.extract_specs(specs, **options)

    def extract_specs(
        self,
        specs: Sequence[StoreSpec],
        *,
        names: Sequence[str] | None = None,
        planned: Sequence[PlannedTrack] | None = None,
        **options,
    ) -> list[ExtractOutcome]:
        return extract_stores(
            self.tracks(names) if planned is None else planned,
            specs,
            layout=self.layout,
            info=self.encoder.info(),
            load=lambda: self.encoder,
            circumstances=Circumstances(**options),
            open_decoders=inline_decoders,
        )


def arrays_of(store: Path) -> dict[str, bytes]:
    """Every file that holds data, without what may differ between equal runs."""
    return {
        path.relative_to(store).as_posix(): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
        and path.relative_to(store).parts[0] in {"embeddings", "segments", "tracks"}
    }
