"""How fast stage one runs here: a few seconds of it, with a clock.

Conventions
-----------
Speeds are multiples of real time: seconds of audio per second of wall-clock.
The first batch of a shape is never timed; it is warm-up and work in one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tune_cache.audio import DecodePool
from tune_cache.cache.plan import PlannedTrack
from tune_cache.encoders.base import Encoder, Waveforms
from tune_cache.errors import AudioError
from tune_cache.specs import ChannelRule

__all__ = ["DecodeSpeed", "Speed", "measure_decoding", "measure_encoding", "probe_shape"]

PROBE_SECONDS = 6.0  # of work for each segment length, about
FIRST_SECONDS = 2.0  # of audio, to find out what fits into that
MOST_RUNS = 5
TRACKS_DECODED = 3
LONGEST_DECODED_SECONDS = 600.0
FASTEST = 1e6  # a clock that stood still


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast segments were encoded.

    Parameters
    ----------
    n_samples
        Of each segment that was timed; fewer than asked for if one would have
        taken too long.
    n_items
        In a batch.
    """

    x_real_time: float
    n_samples: int
    n_items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSpeed:
    """How fast one decoder turned files into samples, and some of them."""

    x_real_time: float
    samples: Waveforms


def probe_shape(
    n_samples: int, n_items: int, *, cost_per_sample: float, min_samples: int
) -> tuple[int, int]:
    """Choose items and samples of a batch that takes half of the time for probing.

    A whole segment comes before several; a piece of one is the last resort.

    Examples
    --------
    >>> probe_shape(1000, 4, cost_per_sample=0.001, min_samples=10)
    (3, 1000)
    >>> probe_shape(8000, 4, cost_per_sample=0.001, min_samples=10)
    (1, 3000)
    """
    affordable = int(PROBE_SECONDS / 2 / cost_per_sample)
    if affordable < n_samples:
        return 1, min(n_samples, max(min_samples, affordable))
    return max(1, min(n_items, affordable // n_samples)), n_samples


def measure_encoding(
    encoder: Encoder,
    samples: Waveforms,
    *,
    n_samples: int,
    n_items: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Time an encoder on segments of one length, for about six seconds.

    Parameters
    ----------
    samples : of shape (n,)
        Music to cut segments from, repeated where it is too short.
    n_items
        Of a batch, at most.
    """
    rate = encoder.sample_rate

    def run(items: int, length: int) -> float:
        batch = np.resize(samples, (items, length)).astype(np.float32, copy=False)
        began = clock()
        encoder.embed(batch)
        return max(clock() - began, items * length / rate / FASTEST)

    first = min(n_samples, max(encoder.min_samples, int(FIRST_SECONDS * rate)))
    run(1, first)
    cost = run(1, first) / first
    items, length = probe_shape(
        n_samples, n_items, cost_per_sample=cost, min_samples=encoder.min_samples
    )
    spent = run(items, length)
    taken = [run(items, length)]
    while len(taken) < MOST_RUNS and spent + sum(taken) + taken[-1] < PROBE_SECONDS:
        taken.append(run(items, length))
    speed = len(taken) * items * length / rate / sum(taken)
    return Speed(x_real_time=speed, n_samples=length, n_items=items)


def measure_decoding(
    tracks: Sequence[PlannedTrack], *, sample_rate_hz: int, channels: ChannelRule
) -> DecodeSpeed | None:
    """Decode a few tracks, spread over a dataset; None if none of them can be decoded."""
    short = [t for t in tracks if t.audio_sha256 and t.seconds <= LONGEST_DECODED_SECONDS]
    places = np.unique(np.linspace(0, max(len(short) - 1, 0), TRACKS_DECODED).astype(int))
    chosen = [short[place] for place in places if short]
    seconds, parts = 0.0, []
    with DecodePool(1, sample_rate_hz=sample_rate_hz, channels=channels) as pool:
        for future in [pool.submit(track.track_id, track.path) for track in chosen]:
            try:
                decoded = future.result()
            except AudioError:
                continue
            parts.append(np.asarray(decoded.samples, np.float32))
            seconds += decoded.seconds
    if not parts:
        return None
    samples = np.concatenate(parts)
    speed = min(FASTEST, len(samples) / sample_rate_hz / max(seconds, 1e-9))
    return DecodeSpeed(x_real_time=speed, samples=samples)
