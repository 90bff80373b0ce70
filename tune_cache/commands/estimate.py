"""``tune estimate``: what stage one would cost here, before it is paid."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache.cache.ahead import Ahead, look_ahead
from tune_cache.cache.forecast import (
    Batch,
    LengthEstimate,
    Measured,
    batch_for,
    forecast,
    together_seconds,
)
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.speed import measure_decoding, measure_encoding
from tune_cache.commands.context import (
    Length,
    lengths,
    open_context,
    parse_bytes,
    plan_tracks,
    several,
)
from tune_cache.commands.extract import (
    DEFAULT_SECONDS,
    known_precision,
    parse_batch_size,
    store_specs,
)
from tune_cache.datasets.base import Dataset
from tune_cache.encoders.available import free_bytes, likely_device
from tune_cache.encoders.base import Encoder, EncoderInfo, get_encoder
from tune_cache.encoders.sized import MemoryModel, SizedEncoder, SizedFactory
from tune_cache.errors import UsageError
from tune_cache.specs import ChannelRule, TailPolicy

__all__ = ["EstimateReport", "doubts", "estimate"]

NOISE_SECONDS = 10.0
CLOSE = 0.8  # a segment that was timed is as good as a whole one from this share on


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateReport:
    """What ``tune estimate`` found.

    Parameters
    ----------
    rows
        One a segment length.
    weights_bytes
        Of the encoder, None where it does not know.
    free_bytes
        On the device beside the weights, None where it cannot be asked.
    seconds
        Of stage one for all lengths together: one load, each file decoded once.
    """

    dataset: Dataset
    encoder: EncoderInfo
    rows: tuple[LengthEstimate, ...]
    weights_bytes: int | None = None
    max_memory_bytes: int | None = None
    free_bytes: int | None = None
    measured: Measured = field(default_factory=Measured)
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()


def estimate(
    dataset: str | Path | None = None,
    *,
    seg: Length | Sequence[Length] = (),
    encoder: str | None = None,
    encoder_path: Path | None = None,
    hop: float | None = None,
    tail: TailPolicy | None = None,
    min_tail: float | None = None,
    layers: str | None = None,
    pool: str | None = None,
    precision: str | None = None,
    dtype: str | None = None,
    channels: ChannelRule | None = None,
    device: str | None = None,
    batch_size: int | str | None = None,
    max_memory: str | int | None = None,
    workers: int | None = None,
    assume_xrt: float | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_start: Callable[[Dataset, EncoderInfo], None] | None = None,
) -> EstimateReport:
    """Say what ``extract`` with the same arguments would take: time, memory, disk.

    Lengths of tracks are those that headers tell, as in extract's own plan; what
    the cache has already costs nothing here as there. Speed is measured for some
    seconds on the dataset's own audio, or assumed.

    Parameters
    ----------
    assume_xrt
        Speed of the encoder in multiples of real time; then nothing is loaded, and a
        device that is not here may be named.
    seg, hop, layers, max_memory, …
        As for :func:`~tune_cache.commands.extract.extract`.

    Raises
    ------
    TuneCacheError
        Whatever would stop ``extract`` before it begins, a budget of memory that is
        too small among it.
    """
    if assume_xrt is not None and not 0 < assume_xrt < float("inf"):
        raise UsageError(
            f"--assume-xrt is {assume_xrt!r}, expected a positive number",
            hint="120 is 120 × real time: two minutes of audio a second",
        )
    context = open_context(cache_dir)
    choose = context.setting
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    path = choose("encoder_path", encoder_path)
    precision = known_precision(choose("precision", precision, "fp32"))
    budget = parse_bytes(choose("max_memory", max_memory))
    asked = parse_batch_size(choose("batch_size", batch_size, 0))
    device = likely_device(choose("device", device, "auto"))
    factory = get_encoder(choose("encoder", encoder, loaded.encoder))
    with context.inventory() as inventory:
        info = factory.describe(
            path=path, precision=precision, hash_file=lambda file: inventory.file(file).sha256
        )
        if on_start is not None:
            on_start(loaded, info)
        specs = store_specs(
            context,
            info,
            seg=lengths(choose("seg", several(seg), (DEFAULT_SECONDS,))),
            hop=hop,
            tail=tail,
            min_tail=min_tail,
            layers=layers,
            pool=pool,
            dtype=dtype,
            channels=channels,
        )
        planned = plan_tracks(loaded.tracks, inventory)
    kept = specs[0]
    settings: dict[str, Any] = {
        "path": path,
        "precision": precision,
        "device": device,
        "layers": kept.layers,
        "max_memory_bytes": budget,
    }
    model = factory.memory(**settings) if isinstance(factory, SizedFactory) else None
    ahead = [
        look_ahead(planned, spec, layout=context.layout, dim=info.dim)
        for spec in dict.fromkeys(specs)
    ]
    to_do = [item for item in ahead if item.work.n_encode]
    free = _beside_weights(free_bytes(device), model)
    # here a budget that is too small is refused, before anything is loaded
    batches = _batches(to_do, model, info, device=device, asked=asked, free=free)
    measured = Measured(device=device, assumed_x_real_time=assume_xrt)
    if to_do and assume_xrt is None:
        began = time.perf_counter()
        loaded_encoder = factory.load(**settings, poolings=kept.poolings)
        load_seconds = time.perf_counter() - began
        if model is None and isinstance(loaded_encoder, SizedEncoder):
            free = loaded_encoder.free_bytes()
            batches = _batches(to_do, loaded_encoder, info, device=device, asked=asked, free=free)
        measured = _measure(loaded_encoder, to_do, batches, planned, load_seconds=load_seconds)
    n_workers = choose("workers", workers, 0)
    rows = tuple(
        forecast(item, batches.get(item.path), measured, n_workers=n_workers) for item in ahead
    )
    return EstimateReport(
        dataset=loaded,
        encoder=info,
        rows=rows,
        weights_bytes=None if model is None else model.weights_bytes,
        max_memory_bytes=budget,
        free_bytes=free,
        measured=measured,
        seconds=together_seconds(rows, measured, n_workers=n_workers),
        warnings=doubts(rows, info, device=measured.device, budget=budget, free=free),
    )


def _beside_weights(free: int | None, model: MemoryModel | None) -> int | None:
    """What is left of free memory once the weights are loaded."""
    if free is None or model is None:
        return free
    return max(0, free - model.weights_bytes)


def _batches(
    ahead: Sequence[Ahead],
    model: MemoryModel | SizedEncoder | None,
    info: EncoderInfo,
    *,
    device: str,
    asked: int,
    free: int | None,
) -> dict[Path, Batch]:
    """Choose the batch of each length, by the path of its store."""
    return {
        item.path: batch_for(item, model, info, device=device, asked=asked, free=free)
        for item in ahead
    }


def _measure(
    encoder: Encoder,
    ahead: Sequence[Ahead],
    batches: Mapping[Path, Batch],
    planned: Sequence[PlannedTrack],
    *,
    load_seconds: float,
) -> Measured:
    """Run the encoder for some seconds a length, on the dataset's own audio."""
    wanted = {name for item in ahead for name in item.to_decode}
    decode = measure_decoding(
        [track for track in planned if track.track_id in wanted],
        sample_rate_hz=encoder.sample_rate,
        channels=ahead[0].spec.channels,
    )
    if decode is not None:
        samples = decode.samples
    else:
        noise = np.random.default_rng(0).normal(size=int(NOISE_SECONDS * encoder.sample_rate))
        samples = (0.1 * noise).astype(np.float32)
    speeds = {
        item.path: measure_encoding(
            encoder,
            samples,
            n_samples=item.work.typical_samples,
            n_items=batches[item.path].n_items,
        )
        for item in ahead
    }
    return Measured(
        device=str(getattr(encoder, "device", "cpu")),
        speeds=speeds,
        load_seconds=load_seconds,
        decode_x_real_time=None if decode is None else decode.x_real_time,
    )


def doubts(
    rows: Sequence[LengthEstimate],
    info: EncoderInfo,
    *,
    device: str,
    budget: int | None,
    free: int | None,
) -> tuple[str, ...]:
    """Say what the figures leave open."""
    said: list[str] = []
    for row in rows:
        label, work = row.ahead.spec.segments.label, row.ahead.work
        if work.n_failing:
            said.append(f"seg {label}: {work.n_failing} tracks have no segments: see dataset check")
        if row.speed is not None and row.speed.n_samples < CLOSE * work.typical_samples:
            rate = info.sample_rate
            said.append(
                f"seg {label}: speed was measured on {row.speed.n_samples / rate:.0f} s at a time, "
                f"segments have {work.typical_samples / rate:.0f} s and are slower"
            )
        if row.batch is not None and row.batch.peak_bytes is not None and free is not None:
            needed = row.batch.peak_bytes
            if needed > free:
                said.append(
                    f"seg {label}: needs {needed / 1e6:.0f} MB above the weights, but "
                    f"{free / 1e6:.0f} MB are left on {device}"
                )
    if budget is not None and any(row.batch and row.batch.peak_bytes is None for row in rows):
        said.append(f"encoder {info.name} does not know its memory: --max-memory is not obeyed")
    return tuple(said)
