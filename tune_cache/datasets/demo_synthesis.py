"""Mix note events and master the mix: room, tone, hiss, level.

Conventions
-----------
Samples are float32 mono at 24 kHz; levels are linear, loudness is in decibels of
full scale. A note is rendered once per (instrument, pitch, length class,
brightness) and mixed as often as it occurs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tune_cache.datasets.demo_instruments import RATE_HZ, Samples, noise, note

__all__ = ["Event", "master", "mix"]

BLOCK = 40_000  # samples of one step of the room's convolution
FOURIER = 65_536  # of its transform
ADVANCE = 512  # samples by which the colour filter rings before its centre
CEILING = 0.7  # where the limiter begins


class Event(NamedTuple):
    """One note or one stroke of a drum; drums have pitch 0."""

    start_seconds: float
    duration_seconds: float
    pitch: int
    level: float
    instrument: str
    brightness: int = 2


def mix(events: Iterable[Event], n_samples: int) -> Samples:
    """Add up the notes; what rings beyond the end is cut."""
    out = np.zeros(n_samples, dtype=np.float32)
    for event in events:
        length_class = max(0, round(4 * np.log2(max(event.duration_seconds, 0.05) / 0.05)))
        sound = note(event.instrument, event.pitch, length_class, event.brightness)
        start = int(event.start_seconds * RATE_HZ)
        sound = sound[: max(0, n_samples - start)]
        out[start : start + len(sound)] += np.float32(event.level) * sound
    return out


@lru_cache(maxsize=4)
def _room(size: int) -> npt.NDArray[np.complex64]:
    """Transform of a room's echoes: noise that dies away, after a short silence."""
    n_samples = FOURIER - BLOCK - 2 * ADVANCE
    time = np.arange(n_samples, dtype=np.float32) / np.float32(RATE_HZ)
    tail = noise(n_samples, "room", size) * np.exp(time * np.float32(-6.9 / (0.5 + 0.25 * size)))
    tail += np.roll(tail, 1)
    tail[: 240 + 120 * size] = 0
    tail[-2400:] *= np.linspace(1, 0, 2400, dtype=np.float32)
    return np.fft.rfft(tail / np.sqrt(np.sum(tail * tail)), FOURIER).astype(np.complex64)


def _convolve(samples: Samples, response: npt.NDArray[np.complex64]) -> Samples:
    """Filter in blocks, each transform's overhang added to the next block."""
    blocks = np.zeros((-(-len(samples) // BLOCK) + 1, BLOCK), dtype=np.float32)
    blocks.reshape(-1)[: len(samples)] = samples
    pieces = np.fft.irfft(np.fft.rfft(blocks, FOURIER) * response, FOURIER)
    out = pieces[:, :BLOCK].copy()
    out[1:, : FOURIER - BLOCK] += pieces[:-1, BLOCK:]
    return out.reshape(-1)[ADVANCE : ADVANCE + len(samples)].astype(np.float32, copy=False)


def master(
    dry: Samples,
    rng: np.random.Generator,
    *,
    room: int,
    wet: float,
    tilt: float,
    hiss: float,
    loudness_db: float,
) -> Samples:
    """Put a mix into a room, colour it, add hiss, and set its level.

    Parameters
    ----------
    room, wet
        Size of 0 to 3, and the level of its echoes.
    tilt
        Gain grows with frequency ** tilt; 0 is neutral.
    hiss
        Level of white noise relative to the music.
    loudness_db
        Root mean square of the result, before a limiter that few peaks reach.
    """
    hertz = np.fft.rfftfreq(FOURIER, 1 / RATE_HZ)
    colour = ((hertz + 60) / 800) ** tilt * np.exp(-2j * np.pi * hertz * ADVANCE / RATE_HZ)
    out = _convolve(dry, (1 + np.float32(wet) * _room(room)) * colour.astype(np.complex64))
    n_fade = min(len(out), RATE_HZ // 4)
    out[-n_fade:] *= np.linspace(1, 0, n_fade, dtype=np.float32)
    out *= np.float32(1 / np.sqrt(np.mean(out * out)))
    out += np.float32(hiss) * rng.standard_normal(len(out), dtype=np.float32)
    out *= np.float32(10 ** (loudness_db / 20) / np.sqrt(1 + hiss * hiss))
    over = np.abs(out) > CEILING
    headroom = 1 - CEILING
    bent = CEILING + headroom * np.tanh((np.abs(out[over]) - CEILING) / headroom)
    out[over] = np.copysign(bent, out[over])
    return out
