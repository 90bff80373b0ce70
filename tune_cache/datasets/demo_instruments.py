"""Render single notes and strokes with numpy alone.

Conventions
-----------
Samples are float32 mono at :data:`RATE_HZ`; pitches are MIDI numbers, brightness
is an integer of 0 to 4. Noise is seeded by what is rendered, never by the order
of rendering, so a note is the same in every process.
Strings are Karplus and Strong's in closed form (Computer Music Journal 7(2),
1983), bells and electric piano are Chowning's FM (JAES 21(7), 1973).
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["DRUMS", "INSTRUMENTS", "RATE_HZ", "Samples", "Timbre", "noise", "note"]

RATE_HZ = 24_000
HIGHEST_HZ = 11_000.0  # partials above would alias
TABLE = 4096  # samples of one period of a sustained tone
PERIOD = 128  # samples of one period of a plucked string
VIBRATO_HZ = np.float32(5.3)
LIFT = 0.4  # a step of brightness multiplies partial k by k ** LIFT

Samples: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timbre:
    """How an instrument sounds.

    Parameters
    ----------
    kind
        ``wave``: a periodic tone; ``string``: plucked; ``bar``: struck, with
        partials at ``ratios``; ``fm``: two oscillators.
    rolloff
        Partial k of a wave or a string starts at k ** -rolloff.
    drawbars
        Amplitudes of a wave's partials instead of a rolloff.
    formants_hz
        Resonances of a wave.
    decay_seconds
        Of a wave, how fast it falls to ``sustain``; else of the lowest partial.
    swell
        Share of a wave's upper partials that comes and goes with the attack.
    vibrato_cents, detune_cents
        Depth of the vibrato; distance to a second oscillator, 0 for none.
    """

    kind: Literal["wave", "string", "bar", "fm"]
    rolloff: float = 1.0
    odd_only: bool = False
    drawbars: tuple[float, ...] = ()
    formants_hz: tuple[float, ...] = ()
    ratios: tuple[float, ...] = (1.0,)
    index: float = 1.0
    attack_seconds: float = 0.004
    decay_seconds: float = 0.5
    sustain: float = 1.0
    release_seconds: float = 0.08
    swell: float = 0.3
    vibrato_cents: float = 0.0
    detune_cents: float = 0.0
    breath: float = 0.0


def _stiff(n_partials: int, stiffness: float) -> tuple[float, ...]:
    """Partials of a stiff string, stretched as a piano's."""
    return tuple(k * (1 + stiffness * k * k) ** 0.5 for k in range(1, n_partials + 1))


INSTRUMENTS: dict[str, Timbre] = {
    "piano": Timbre(kind="bar", ratios=_stiff(9, 4e-4), rolloff=1.3, decay_seconds=1.1),
    "music box": Timbre(
        kind="bar", ratios=(1.0, 2.76, 5.4, 8.93), rolloff=1.0, decay_seconds=0.8, sustain=0.9
    ),
    "guitar": Timbre(kind="string", rolloff=0.8, decay_seconds=0.7),
    "harp": Timbre(kind="string", rolloff=1.5, decay_seconds=1.1, release_seconds=0.4),
    "electric piano": Timbre(kind="fm", ratios=(1.0, 14.0), index=0.8, decay_seconds=0.9),
    "bell": Timbre(
        kind="fm", ratios=(1.0, 3.5), index=1.6, decay_seconds=1.2, release_seconds=0.5
    ),
    "organ": Timbre(
        kind="wave", drawbars=(1, 0.8, 0.5, 0.5, 0, 0.25, 0, 0.2), attack_seconds=0.02, swell=0.1
    ),
    "strings": Timbre(
        kind="wave", rolloff=1.1, attack_seconds=0.12, release_seconds=0.2, vibrato_cents=9,
        detune_cents=9,
    ),
    "fiddle": Timbre(
        kind="wave", rolloff=0.9, formants_hz=(500, 1100, 2900), attack_seconds=0.04,
        vibrato_cents=14, breath=0.02,
    ),
    "flute": Timbre(
        kind="wave", drawbars=(1, 0.35, 0.12, 0.05), attack_seconds=0.05, vibrato_cents=10,
        breath=0.08,
    ),
    "reed": Timbre(
        kind="wave", rolloff=0.8, odd_only=True, attack_seconds=0.03, detune_cents=7, breath=0.02
    ),
    "brass": Timbre(kind="wave", rolloff=0.7, attack_seconds=0.06, swell=0.8, vibrato_cents=5),
    "voice": Timbre(
        kind="wave", rolloff=0.9, formants_hz=(600, 1050, 2600), attack_seconds=0.09,
        release_seconds=0.15, vibrato_cents=22, detune_cents=6, breath=0.03,
    ),
    "square": Timbre(
        kind="wave", rolloff=1.0, odd_only=True, decay_seconds=0.2, sustain=0.6, swell=0.6
    ),
    "saw": Timbre(
        kind="wave", rolloff=1.0, decay_seconds=0.25, sustain=0.5, swell=0.7, detune_cents=12
    ),
    "pad": Timbre(
        kind="wave", rolloff=1.2, attack_seconds=0.2, release_seconds=0.35, detune_cents=15
    ),
    "upright bass": Timbre(kind="string", rolloff=1.6, decay_seconds=0.6),
    "synth bass": Timbre(kind="wave", rolloff=1.1, decay_seconds=0.15, sustain=0.5, swell=0.7),
    "pedal": Timbre(kind="wave", drawbars=(1, 0.6, 0.3, 0.15), attack_seconds=0.03, swell=0.1),
}  # fmt: skip
DRUMS = ("kick", "snare", "hat", "clap", "shaker", "tom", "brush")


def noise(n_samples: int, *what: object) -> Samples:
    """White noise that depends only on what it is for."""
    rng = np.random.default_rng(zlib.crc32(repr(what).encode()))
    return rng.standard_normal(n_samples, dtype=np.float32)


def _seconds(n_samples: int) -> Samples:
    return np.arange(n_samples, dtype=np.float32) / np.float32(RATE_HZ)


def _cycles(frequency_hz: float, n_samples: int) -> Samples:
    """Phase in cycles, reduced to [0, 1) before precision is lost."""
    cycles = np.arange(n_samples) * (frequency_hz / RATE_HZ)
    cycles -= np.floor(cycles)
    return cycles.astype(np.float32)


def _sine(cycles: Samples) -> Samples:
    sine: Samples = np.sin(np.float32(2 * np.pi) * cycles)
    return sine


@lru_cache(maxsize=1024)
def _table(instrument: str, pitch: int, brightness: int) -> tuple[Samples, Samples]:
    """Split one period of a wave into its plain tone and the upper partials it swells by."""
    timbre, frequency_hz = INSTRUMENTS[instrument], _frequency(pitch)
    k = np.arange(1, max(1, int(HIGHEST_HZ / frequency_hz)) + 1, dtype=np.float64)
    if timbre.drawbars:
        k = k[: len(timbre.drawbars)]
        amplitudes = np.array(timbre.drawbars[: len(k)])
    else:
        amplitudes = k**-timbre.rolloff
    if timbre.odd_only:
        amplitudes[1::2] *= 0.08
    for formant_hz in timbre.formants_hz:
        amplitudes *= 1 + 2.5 * np.exp(-0.5 * ((k * frequency_hz / formant_hz - 1) / 0.18) ** 2)
    amplitudes *= k ** (LIFT * (brightness - 2.5))
    phases = np.exp(2j * np.pi * np.abs(noise(len(k), instrument, pitch)))
    tables = []
    for share in (k**-0.7, 1 - k**-0.7):
        spectrum = np.zeros(TABLE // 2 + 1, dtype=np.complex128)
        spectrum[1 : len(k) + 1] = amplitudes * share * phases
        tables.append((np.fft.irfft(spectrum) * TABLE).astype(np.float32))
    return tables[0], tables[1]


def _frequency(pitch: int) -> float:
    return 440.0 * math.pow(2, (pitch - 69) / 12)


def _wave(instrument: str, pitch: int, n_held: int, brightness: int) -> Samples:
    """Sound a periodic tone with envelope, swell, vibrato and a second oscillator."""
    timbre = INSTRUMENTS[instrument]
    n_release = int(timbre.release_seconds * RATE_HZ)
    time = _seconds(n_held + n_release)
    attack = 1 - np.exp(-time / np.float32(timbre.attack_seconds / 2))
    fall = np.exp(-time / np.float32(timbre.decay_seconds))
    envelope = attack * (timbre.sustain + (1 - timbre.sustain) * fall)
    envelope[n_held:] *= np.linspace(1, 0, n_release, dtype=np.float32) ** 2
    upper = (1 - timbre.swell) + timbre.swell * attack * fall
    plain, bright = _table(instrument, pitch, brightness)
    out = np.zeros_like(time)
    for cents in (0.0, timbre.detune_cents) if timbre.detune_cents else (0.0,):
        frequency_hz = _frequency(pitch) * 2 ** (cents / 1200)
        cycles = _cycles(frequency_hz, len(time))
        if timbre.vibrato_cents:
            bend_hz = timbre.vibrato_cents / 1200 * math.log(2) * frequency_hz
            depth = np.float32(bend_hz / (2 * math.pi * VIBRATO_HZ))
            cycles += depth * attack**4 * _sine(VIBRATO_HZ * time)
        index = (cycles * TABLE).astype(np.int32) & (TABLE - 1)
        out += plain[index] + upper * bright[index]
    if timbre.breath:
        air = noise(len(out), instrument, pitch, n_held)
        out += timbre.breath * float(np.std(out)) * (air - np.roll(air, 2))
    out *= envelope
    return out


def _string(instrument: str, pitch: int, n_held: int, brightness: int) -> Samples:
    """Pluck a string: each period is the one before through the string's loss.

    Karplus and Strong's loop, solved per partial, so that all periods come from
    one inverse transform, and read at the exact pitch.
    """
    timbre, frequency_hz = INSTRUMENTS[instrument], _frequency(pitch)
    n_samples = n_held + int(timbre.release_seconds * RATE_HZ)
    k = np.arange(1, max(2, min(PERIOD // 2, int(HIGHEST_HZ / frequency_hz) + 1)))
    start = k**-timbre.rolloff * (0.3 + np.abs(np.sin(0.17 * np.pi * k)))
    start *= k ** (LIFT * (brightness - 2))
    phases = np.exp(2j * np.pi * np.abs(noise(len(k), instrument, pitch)))
    loss = (1 + 0.03 * k**1.6) / (timbre.decay_seconds * frequency_hz)
    n_periods = int(n_samples * frequency_hz / RATE_HZ) + 2
    spectrum = np.zeros((n_periods, PERIOD // 2 + 1), dtype=np.complex64)
    gone = np.exp(-np.arange(n_periods, dtype=np.float32)[:, None] * loss.astype(np.float32))
    spectrum[:, 1 : len(k) + 1] = gone * (start * phases).astype(np.complex64)
    periods = np.fft.irfft(spectrum).astype(np.float32).ravel()
    place = np.arange(n_samples) * (frequency_hz * PERIOD / RATE_HZ)
    left = place.astype(np.int64)
    part = (place - left).astype(np.float32)
    out: Samples = periods[left] * (1 - part) + periods[left + 1] * part
    out *= _damping(n_held, n_samples)
    return out


def _damping(n_held: int, n_samples: int) -> Samples:
    """Click-free start, and the hand that stops a ringing note."""
    envelope = np.ones(n_samples, dtype=np.float32)
    envelope[:24] = np.linspace(0, 1, 24, dtype=np.float32)
    envelope[n_held:] = np.linspace(1, 0, n_samples - n_held, dtype=np.float32) ** 2
    return envelope


def _bar(instrument: str, pitch: int, n_held: int, brightness: int) -> Samples:
    """Strike something stiff: inharmonic partials, the higher the sooner gone."""
    timbre, frequency_hz = INSTRUMENTS[instrument], _frequency(pitch)
    n_samples = n_held + int(timbre.release_seconds * RATE_HZ)
    time, out = _seconds(n_samples), np.zeros(n_samples, dtype=np.float32)
    for ratio in timbre.ratios:
        if ratio * frequency_hz > HIGHEST_HZ:
            break
        decay_seconds = timbre.decay_seconds * (220 / frequency_hz) ** 0.4 / ratio**0.6
        n_sounding = min(n_samples, int(6 * decay_seconds * RATE_HZ))
        amplitude = ratio ** (-timbre.rolloff + LIFT * (brightness - 2))
        fall = np.exp(time[:n_sounding] * np.float32(-1 / decay_seconds))
        out[:n_sounding] += amplitude * fall * _sine(_cycles(ratio * frequency_hz, n_sounding))
    out *= _damping(n_held, n_samples)
    return out


def _fm(instrument: str, pitch: int, n_held: int, brightness: int) -> Samples:
    """Modulate a sine by another, the less the longer it rings."""
    timbre, frequency_hz = INSTRUMENTS[instrument], _frequency(pitch)
    n_samples = n_held + int(timbre.release_seconds * RATE_HZ)
    time = _seconds(n_samples)
    carrier, modulator = (frequency_hz * ratio for ratio in timbre.ratios)
    fall = np.exp(time * np.float32(-1 / timbre.decay_seconds))
    if modulator > HIGHEST_HZ:
        modulator = carrier
    index = timbre.index * (0.4 + 0.3 * brightness) * fall**2 / (2 * np.pi)
    cycles = _cycles(carrier, n_samples) + index * _sine(_cycles(modulator, n_samples))
    out: Samples = _sine(cycles) * fall * _damping(n_held, n_samples)
    return out


def _drum(drum: str, brightness: int) -> Samples:
    """Strike a drum: noise bursts, and skins whose pitch falls."""
    time = _seconds(int(0.4 * RATE_HZ))
    hiss = noise(len(time), drum, brightness)
    high = np.diff(hiss, 2, prepend=hiss[:2])
    size = np.float32(0.8 + 0.1 * brightness)
    out: Samples
    if drum in ("kick", "tom"):
        low_hz, sweep, fade = (48, 5.0, 11) if drum == "kick" else (105, 1.8, 9)
        bend = np.float32(0.03 * sweep) * (1 - np.exp(-time / np.float32(0.03)))
        out = _sine(low_hz * size * (time + bend)) * np.exp(-fade * time)
        out += 0.3 * high * np.exp(-400 * time)
    elif drum == "snare":
        out = 0.6 * _sine(185 * size * time) * np.exp(-30 * time)
        out += (hiss + 0.3 * high) * np.exp(-22 * time / size)
    elif drum == "clap":
        out = np.float32(0.3) * np.exp(np.float32(-25) * time)
        for hand in (0, 260, 580):
            out[hand:] += np.exp(-180 * time[: len(time) - hand])
        out *= hiss - np.roll(hiss, 3)
    elif drum == "brush":
        out = (hiss + np.roll(hiss, 1)) * time * np.exp(-26 * time)
    else:
        decay = np.float32(55 if drum == "hat" else 40) / size
        out = high * np.exp(-decay * time)
    return out


MAKERS = {"wave": _wave, "string": _string, "bar": _bar, "fm": _fm}


@lru_cache(maxsize=512)
def note(instrument: str, pitch: int, length_class: int, brightness: int) -> Samples:
    """Render one note at unit loudness; read-only.

    Parameters
    ----------
    length_class
        Held for 0.05 · 2 ** (length_class / 4) seconds; the release comes on top.

    Returns
    -------
    of shape (n_samples,), float32
        Root mean square 1 over its loudest tenth of a second.
    """
    if instrument in DRUMS:
        out = _drum(instrument, brightness)
    else:
        n_held = int(0.05 * 2 ** (length_class / 4) * RATE_HZ)
        out = MAKERS[INSTRUMENTS[instrument].kind](instrument, pitch, n_held, brightness)
    tenth = RATE_HZ // 10
    energy = np.add.reduceat(out * out, np.arange(0, len(out), tenth))
    out *= np.float32(math.sqrt(tenth / float(energy.max())))
    out.flags.writeable = False
    return out
