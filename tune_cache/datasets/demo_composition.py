"""Compose short pieces in six styles: songs, their versions, and how they feel.

Conventions
-----------
Everything is drawn from the generators given, nothing from the clock or from a
global state. Arousal and valence follow from what was composed, not from the
name of the style, plus the disagreement of listeners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tune_cache.datasets.demo_band import Arrangement, Band, Bar, Motif, Song
from tune_cache.datasets.demo_styles import (
    ANY_BASS,
    ANY_COMP,
    ANY_LEAD,
    MODES,
    PROGRESSIONS,
    STYLES,
)
from tune_cache.datasets.demo_synthesis import Event

__all__ = ["Piece", "arrange", "compose", "write_song"]

SECTION_SECONDS = 8.0
LAST_CHORD_SECONDS = 1.2  # at least
BORROWED = 0.12  # share of instruments that come from another style
NOISE = 0.3  # of how a piece feels: listeners disagree


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A composition: its notes, its sections (start in seconds, name), and how it feels."""

    events: tuple[Event, ...]
    sections: tuple[tuple[float, str], ...]
    brightness: float
    arousal: float
    valence: float


def write_song(style: str, rng: np.random.Generator) -> Song:
    """Invent a song: mode, key, and for verse and chorus a progression and motifs."""
    rules = STYLES[style]
    mode = str(rng.choice(list(rules.modes), p=list(rules.modes.values())))
    verse, chorus = rng.choice(len(PROGRESSIONS[mode]), 2, replace=False)
    return Song(
        style=style,
        mode=mode,
        tonic=int(rng.integers(0, 12)),
        progressions={"verse": PROGRESSIONS[mode][verse], "chorus": PROGRESSIONS[mode][chorus]},
        motifs={
            section: tuple(_motif(rules.rhythms, rng) for _ in range(3))
            for section in ("verse", "chorus")
        },
    )


def _motif(rhythms: Sequence[str], rng: np.random.Generator) -> Motif:
    rhythm = rhythms[int(rng.triangular(0, 2, len(rhythms)))]
    steps = rng.choice((-2, -1, -1, 0, 1, 1, 2), size=rhythm.count("x"))
    return Motif(rhythm=rhythm, lean=int(rng.integers(-1, 4)), steps=tuple(steps.tolist()))


def arrange(song: Song, rng: np.random.Generator) -> Arrangement:
    """Choose a version; its energy moves tempo, density, brightness and touch together."""
    rules = STYLES[song.style]
    happiness = MODES[song.mode].happiness
    energy = 0.5 * happiness + 0.85 * float(rng.normal())

    def pick(own: Sequence[str], anything: Sequence[str]) -> str:
        return str(rng.choice(anything if rng.random() < BORROWED else own))

    def near(centre: float, pull: float, spread: float, most: float = 1.0) -> float:
        return min(max(centre + pull * energy + spread * float(rng.normal()), 0.0), most)

    slow, fast = rules.tempo
    lead, comp, bass, drums = np.exp(0.25 * rng.normal(size=4)).tolist()
    return Arrangement(
        tempo=slow * (fast / slow) ** near(0.5, 0.18, 0.2),
        transposition=int(rng.integers(-2, 3)),
        lead=pick(rules.leads, ANY_LEAD),
        comp=pick(rules.comps_by, ANY_COMP),
        bass=pick(rules.basses_by, ANY_BASS),
        has_drums=bool(rng.random() < rules.drum_chance),
        balance=(lead, comp, bass, drums),
        density=near(0.5, 0.2, 0.18),
        brightness=near(rules.brightness + 0.3 * happiness, 0.6, 0.5, most=4.0),
        staccato=near(rules.staccato, 0.1, 0.15),
        shift=round(2 * float(rng.normal()) + 2 * happiness),
    )


def _bars(song: Song, bar_seconds: float, n_bars: int, *, has_intro: bool) -> Iterator[Bar]:
    """Lay out the form: an intro or none, then verse and chorus in turn."""
    length = 2 ** min(max(round(math.log2(SECTION_SECONDS / bar_seconds)), 1), 3)
    layout = [("intro", length // 2)] if has_intro else []
    layout += [("verse", length), ("chorus", length)] * (n_bars // (2 * length) + 1)
    bars: list[Bar] = []
    for section, count in layout:
        chords = song.progressions["verse" if section == "intro" else section]
        for index in range(count):
            first = index * len(chords) // length
            last = max(first + 1, (index + 1) * len(chords) // length)
            bars.append(
                Bar(
                    section=section,
                    index=index,
                    n_bars=count,
                    chords=chords[first:last],
                    next_chord=0,
                )
            )
    for bar, following in pairwise(bars[: n_bars + 1]):
        yield replace(bar, next_chord=following.chords[0])


def compose(song: Song, rng: np.random.Generator, *, seconds: float) -> Piece:
    """Arrange and play a version of a song that lasts the given time.

    The form is cut at the last whole bar that fits; then the final chord rings.
    """
    arrangement = arrange(song, rng)
    song = replace(song, tonic=(song.tonic + arrangement.transposition) % 12)
    band = Band(song, arrangement, rng)
    bar_seconds = 60 / arrangement.tempo * band.rules.beats
    cell_seconds = bar_seconds / band.n_cells
    opening = float(rng.uniform(0.03, 0.4))
    n_bars = max(1, int((seconds - opening - LAST_CHORD_SECONDS) / bar_seconds))
    has_intro = bool(rng.random() < 0.6)
    events: list[Event] = []
    sections: list[tuple[float, str]] = []
    for number, bar in enumerate(_bars(song, bar_seconds, n_bars, has_intro=has_intro)):
        start = opening + number * bar_seconds
        if bar.index == 0:
            sections.append((start, bar.section))
        lift = 0.7 if bar.section == "chorus" else 0.0
        brightness = min(4, round(arrangement.brightness + lift))
        for stroke in band.play(bar):
            late, harder = rng.normal(size=2).tolist()  # nobody plays like a machine
            at = start + stroke.cell * cell_seconds + 0.006 * late
            duration = stroke.n_cells * cell_seconds
            events.append(
                Event(
                    start_seconds=max(0.0, at),
                    duration_seconds=duration - min(0.6 * arrangement.staccato * duration, 0.2),
                    pitch=stroke.pitch,
                    level=stroke.level * (1 + 0.3 * lift) * max(0.0, 1 + 0.12 * harder),
                    instrument=stroke.instrument,
                    brightness=brightness,
                )
            )
    end = opening + n_bars * bar_seconds
    last_brightness = round(arrangement.brightness)
    events += [
        Event(end, seconds - end, pitch, level, instrument, last_brightness)
        for instrument, _, _, pitch, level in band.end()
    ]
    arousal, valence = _feeling(song, arrangement, events, seconds)
    disagreement = NOISE * rng.normal(size=2)
    return Piece(
        events=tuple(events),
        sections=tuple(sections),
        brightness=arrangement.brightness,
        arousal=arousal + float(disagreement[0]),
        valence=valence + float(disagreement[1]),
    )


def _feeling(
    song: Song, arrangement: Arrangement, events: Sequence[Event], seconds: float
) -> tuple[float, float]:
    """Derive arousal and valence, roughly of zero mean and unit variance over the styles."""
    pace = math.log2(len(events) / seconds / 9)
    glow = arrangement.brightness - 2.1
    touch = arrangement.staccato - 0.4
    pitches = [event.pitch for event in events if event.pitch]
    height = (sum(pitches) / len(pitches) - 60) / 6
    arousal = 0.7 * pace + 0.2 * glow + touch + 0.4 * (arrangement.has_drums - 0.5)
    valence = 0.4 * MODES[song.mode].happiness + 0.8 * glow + 0.3 * height - 0.1
    return arousal, valence
