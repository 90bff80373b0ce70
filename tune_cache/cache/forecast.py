"""What a length would cost, put together from what is known of it; nothing here looks at the world.

Conventions
-----------
Seconds are wall-clock, of stage one. A store that is there costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_cache.cache.ahead import Ahead
from tune_cache.cache.batching import fitting_batch
from tune_cache.cache.speed import Speed
from tune_cache.encoders.base import EncoderInfo
from tune_cache.encoders.sized import MemoryModel, SizedEncoder

__all__ = [
    "Batch",
    "LengthEstimate",
    "Measured",
    "batch_for",
    "forecast",
    "forecast_seconds",
    "together_seconds",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """How segments of one length go through the encoder.

    Parameters
    ----------
    n_items
        Together, at most.
    peak_bytes
        Above the weights, None where the encoder does not know.
    pieces
        That a batch is taken apart into, by name.
    """

    n_items: int
    peak_bytes: int | None = None
    pieces: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen on this machine, or assumed.

    Parameters
    ----------
    device
        Where, or for which.
    assumed_x_real_time
        By the caller, instead of everything else.
    speeds
        Path of a store to how fast its segments are encoded.
    load_seconds
        Of the encoder.
    decode_x_real_time
        Of one decoder, None if no track could be decoded.
    """

    device: str = "cpu"
    assumed_x_real_time: float | None = None
    speeds: Mapping[Path, Speed] = field(default_factory=dict)
    load_seconds: float = 0.0
    decode_x_real_time: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthEstimate:
    """What one segment length would cost.

    Parameters
    ----------
    ahead
        What there is, what is left to do, and how large the store will be.
    batch, speed, x_real_time
        None where nothing is left to do; speed also where it was assumed.
    encode_seconds
        In the encoder.
    seconds
        Of stage one, if this length is made alone.
    """

    ahead: Ahead
    batch: Batch | None = None
    speed: Speed | None = None
    x_real_time: float | None = None
    encode_seconds: float = 0.0
    seconds: float = 0.0


def batch_for(
    ahead: Ahead,
    model: MemoryModel | SizedEncoder | None,
    info: EncoderInfo,
    *,
    device: str,
    asked: int,
    free: int | None,
) -> Batch:
    """Choose the batch of the longest segments, as extract does."""
    n_samples = ahead.work.longest_samples
    size = fitting_batch(
        model,
        n_samples=n_samples,
        sample_rate=info.sample_rate,
        device=device,
        asked=asked,
        free_bytes=free,
    )
    if model is None:
        return Batch(n_items=size)
    return Batch(
        n_items=size,
        peak_bytes=model.peak_bytes(size, n_samples),
        pieces=model.pieces(size, n_samples) if isinstance(model, MemoryModel) else {},
    )


def forecast(
    ahead: Ahead, batch: Batch | None, measured: Measured, *, n_workers: int = 0
) -> LengthEstimate:
    """Put together what is known of one length; computes only."""
    speed = measured.speeds.get(ahead.path)
    x_real_time = measured.assumed_x_real_time or (speed.x_real_time if speed else None)
    if batch is None or x_real_time is None:
        return LengthEstimate(ahead=ahead)
    return LengthEstimate(
        ahead=ahead,
        batch=batch,
        speed=speed,
        x_real_time=x_real_time,
        encode_seconds=ahead.work.input_seconds / x_real_time,
        seconds=forecast_seconds(
            ahead.work.input_seconds / x_real_time,
            track_seconds=ahead.work.track_seconds,
            decode_x_real_time=measured.decode_x_real_time,
            on_cpu=not measured.device.startswith("cuda"),
            n_workers=n_workers,
            load_seconds=measured.load_seconds,
        ),
    )


def together_seconds(
    rows: Sequence[LengthEstimate], measured: Measured, *, n_workers: int = 0
) -> float:
    """Forecast all lengths in one run: one load, and each file is decoded once."""
    return forecast_seconds(
        sum(row.encode_seconds for row in rows),
        track_seconds=max((row.ahead.work.track_seconds for row in rows), default=0.0),
        decode_x_real_time=measured.decode_x_real_time,
        on_cpu=not measured.device.startswith("cuda"),
        n_workers=n_workers,
        load_seconds=measured.load_seconds,
    )


def forecast_seconds(
    encode_seconds: float,
    *,
    on_cpu: bool = True,
    track_seconds: float = 0.0,
    decode_x_real_time: float | None = None,
    n_workers: int = 0,
    load_seconds: float = 0.0,
) -> float:
    """Forecast stage one.

    Decoders run beside the encoder: on a CPU they share its cores, so that their
    times add up; for a GPU the slower of the two decides.

    Parameters
    ----------
    track_seconds
        Of audio to be decoded; without a speed that is left out.
    n_workers
        That decode; 0 is one a core.

    Examples
    --------
    >>> forecast_seconds(5.0, load_seconds=3.0)
    8.0
    >>> decode = {"track_seconds": 300.0, "decode_x_real_time": 10.0, "n_workers": 2}
    >>> forecast_seconds(5.0, on_cpu=True, **decode), forecast_seconds(5.0, on_cpu=False, **decode)
    (20.0, 15.0)
    >>> forecast_seconds(0.0, load_seconds=3.0)
    0.0
    """
    if not encode_seconds:
        return 0.0
    decode_seconds = 0.0
    if decode_x_real_time is not None:
        n_decoders = n_workers or os.cpu_count() or 1
        decode_seconds = track_seconds / decode_x_real_time / n_decoders
    if on_cpu:
        return load_seconds + encode_seconds + decode_seconds
    return load_seconds + max(encode_seconds, decode_seconds)
