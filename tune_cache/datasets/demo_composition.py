"""Compose short pieces: from a song and an arrangement to note events.

Conventions
-----------
A *song* fixes what its versions share: style, mode, key, progressions, motifs. An
*arrangement* fixes the rest: tempo, instruments, density, brightness. Melody
notes are degrees of the scale, 0 the tonic nearest to the style's register.
Everything is drawn from the generators given, nothing from the clock or from a
global state. How a piece feels follows from what was composed, not from its
style's name, plus the disagreement of listeners.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tune_cache.datasets.demo_styles import (
    ANY_BASS,
    ANY_COMP,
    ANY_LEAD,
    MODES,
    PROGRESSIONS,
    STYLES,
    Style,
)
from tune_cache.datasets.demo_synthesis import Event

__all__ = ["Arrangement", "Motif", "Piece", "Song", "arrange", "compose", "write_song"]

SECTION_SECONDS = 8.0
FORM = (0, 1, 0, 2)  # motifs of the bars of a phrase
INTENSITY = {"intro": -0.8, "verse": -0.3, "chorus": 0.6}
DRUM_LEVELS = {
    "kick": 0.9, "snare": 0.5, "hat": 0.22, "clap": 0.4, "shaker": 0.18, "tom": 0.7, "brush": 0.25,
}  # fmt: skip
NOISE = 0.35  # of how a piece feels: listeners disagree
BORROWED = 0.12  # share of instruments that come from another style


@dataclass(frozen=True, slots=True, kw_only=True)
class Motif:
    """A bar of melody: a rhythm, a start within the chord, and steps on the scale."""

    rhythm: str
    start: int
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Song:
    """What the versions of one song share."""

    style: str
    mode: str
    tonic: int
    progressions: Mapping[str, tuple[int, ...]]
    motifs: Mapping[str, tuple[Motif, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """What a version chooses for itself."""

    tempo: float
    transposition: int
    lead: str
    comp: str
    bass: str
    has_drums: bool
    balance: tuple[float, float, float, float]  # lead, comp, bass, drums
    density: float
    brightness: float
    staccato: float
    octave: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A composition: its notes, its sections (start in seconds, name), and how it feels."""

    events: tuple[Event, ...]
    sections: tuple[tuple[float, str], ...]
    arousal: float
    valence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar to be played."""

    section: str
    index: int  # within its section
    n_bars: int  # of its section
    chords: tuple[int, ...]
    next_chord: int


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
    return Motif(rhythm=rhythm, start=int(rng.integers(-1, 4)), steps=tuple(map(int, steps)))


def arrange(song: Song, rng: np.random.Generator) -> Arrangement:
    """Choose a version; its energy moves tempo, density, brightness and touch together."""

    def pick(own: Sequence[str], anything: Sequence[str]) -> str:
        return str(rng.choice(anything if rng.random() < BORROWED else own))

    def near(centre: float, pull: float, spread: float) -> float:
        return centre + pull * energy + spread * float(rng.normal())

    rules = STYLES[song.style]
    slow, fast = rules.tempo
    energy = 0.5 * MODES[song.mode].happiness + 0.85 * float(rng.normal())
    return Arrangement(
        tempo=slow * (fast / slow) ** min(max(near(0.5, 0.18, 0.2), 0), 1),
        transposition=int(rng.integers(-2, 3)),
        lead=pick(rules.leads, ANY_LEAD),
        comp=pick(rules.comp_instruments, ANY_COMP),
        bass=pick(rules.bass_instruments, ANY_BASS),
        has_drums=bool(rng.random() < rules.drum_chance),
        balance=tuple(np.exp(0.25 * rng.normal(size=4)).tolist()),
        density=min(max(near(0.5, 0.2, 0.18), 0), 1),
        brightness=min(max(near(rules.brightness, 0.7, 0.45), 0), 4),
        staccato=min(max(near(rules.staccato, 0.1, 0.15), 0), 1),
        octave=int(rng.choice((-12, *9 * (0,), 12))),
    )


def _bars(song: Song, bar_seconds: float, n_bars: int, rng: np.random.Generator) -> Iterator[Bar]:
    """Lay out the form: half an intro or none, then verse and chorus in turn."""
    length = 2 ** min(max(round(math.log2(SECTION_SECONDS / bar_seconds)), 1), 3)
    layout = [("intro", length // 2)] if rng.random() < 0.6 else []
    layout += [("verse", length), ("chorus", length)] * n_bars
    bars: list[tuple[str, int, int, tuple[int, ...]]] = []
    for section, count in layout:
        chords = song.progressions["verse" if section == "intro" else section]
        for index in range(count):
            first = index * len(chords) // length
            last = max(first + 1, (index + 1) * len(chords) // length)
            bars.append((section, index, count, chords[first:last]))
    for bar, after in pairwise(bars[: n_bars + 1]):
        section, index, count, degrees = bar
        yield Bar(
            section=section, index=index, n_bars=count, chords=degrees, next_chord=after[3][0]
        )


def _chord(song: Song, degree: int) -> tuple[int, ...]:
    """Pitch classes of a chord, root first."""
    scale = MODES[song.mode].chords
    if song.mode == "blues":  # every chord is a dominant seventh
        return tuple((song.tonic + scale[degree] + up) % 12 for up in (0, 4, 7, 10))
    return tuple((song.tonic + scale[(degree + third) % 7]) % 12 for third in (0, 2, 4))


def _voicing(chord: Sequence[int], before: Sequence[int], low: int) -> tuple[int, ...]:
    """Choose the inversion that moves the voices least."""

    def moved(voices: Sequence[int]) -> int:
        return sum(abs(new - old) for new, old in zip(voices, before, strict=False))

    inversions = [
        tuple(sorted(lowest + (tone - lowest) % 12 for tone in chord))
        for lowest in range(low, low + 14)
        if lowest % 12 in chord
    ]
    return min(inversions, key=moved)


def _onsets(bar: str) -> Iterator[tuple[int, int, str]]:
    """Read a bar as (cell, cells until the next sign, sign)."""
    cells = [cell for cell, sign in enumerate(bar) if sign != "."]
    for cell, following in zip(cells, [*cells[1:], len(bar)], strict=True):
        yield cell, following - cell, bar[cell]


class _Players:
    """The band: each method plays one bar and returns (cell, cells, pitch, level) rows."""

    def __init__(self, song: Song, arrangement: Arrangement, rng: np.random.Generator) -> None:
        self.song, self.arrangement, self.rng = song, arrangement, rng
        self.rules = STYLES[song.style]
        self.n_cells = len(self.rules.rhythms[0])
        self.voices = tuple(self.rules.low + up for up in (4, 8, 11, 14))
        self.degree = 0  # where the melody stands

    def _pattern(self, patterns: Sequence[str], section: str) -> str:
        """Choose by density and section, from sparse to dense."""
        wish = self.arrangement.density * (len(patterns) - 1) + INTENSITY[section]
        return patterns[min(max(round(wish), 0), len(patterns) - 1)]

    def _degree_at(self, bar: Bar, cell: int) -> int:
        return bar.chords[cell * len(bar.chords) // self.n_cells]

    def comp(self, bar: Bar) -> Iterator[tuple[int, int, int, float]]:
        """Play chords or broken chords, led smoothly from one to the next."""
        for cell, length, sign in _onsets(self._pattern(self.rules.comps, bar.section)):
            chord = _chord(self.song, self._degree_at(bar, cell))
            self.voices = _voicing(chord, self.voices, self.rules.low)
            if sign.isdigit():
                yield cell, length, self.voices[int(sign)], 0.7
            else:
                for voice in self.voices:
                    yield cell, length, voice, 0.4

    def bass(self, bar: Bar) -> Iterator[tuple[int, int, int, float]]:
        """Play the bass line; ``a`` leads by a semitone to the next root."""
        for cell, length, sign in _onsets(self._pattern(self.rules.basses, bar.section)):
            chord = _chord(self.song, self._degree_at(bar, cell))
            tone = {"3": chord[1], "5": chord[2]}.get(sign, chord[0])
            if sign == "a":
                tone = _chord(self.song, bar.next_chord)[0] - 1
            yield cell, length, 34 + (tone - 34) % 12 + (12 if sign == "8" else 0), 0.8

    def melody(self, bar: Bar) -> Iterator[tuple[int, int, int, float]]:
        """Play a motif on the chord of the bar, ornamented or thinned by density."""
        if bar.section == "intro":
            return
        density, centre = self.arrangement.density, 2 if bar.section == "chorus" else -1
        motif = self.song.motifs[bar.section][FORM[bar.index % len(FORM)]]
        rhythm, steps = motif.rhythm, motif.steps
        if bar.index == bar.n_bars - 1:  # a phrase ends on one long note
            rhythm, steps = "x" + "." * (self.n_cells - 1), (0,)
        self.degree = (2 * self.degree + centre + motif.start) // 3
        for (cell, length, _), step in zip(_onsets(rhythm), steps, strict=True):
            self.degree += step
            if cell == 0:  # accented notes belong to the chord
                tones = {(self._degree_at(bar, cell) + third) % 7 for third in (0, 2, 4)}
                near = range(self.degree - 3, self.degree + 4)
                self.degree = min(
                    (degree for degree in near if degree % 7 in tones),
                    key=lambda degree: abs(degree - self.degree),
                )
            elif not -6 <= self.degree - centre <= 6:
                self.degree -= 2 * step
            chance = self.rng.random()
            if cell and chance < 0.3 * (1 - density):
                continue
            level = 1.0 if cell % max(1, self.n_cells // self.rules.beats) == 0 else 0.8
            if length >= 2 and chance > 1 - 0.35 * density:
                half = length // 2
                yield cell, half, self._pitch(self.degree), level
                yield cell + half, length - half, self._pitch(self.degree + 1), 0.8 * level
            else:
                yield cell, length, self._pitch(self.degree), level

    def _pitch(self, degree: int) -> int:
        register = self.rules.register + self.arrangement.octave
        tonic = self.song.tonic + 12 * round((register - self.song.tonic) / 12)
        return tonic + 12 * (degree // 7) + MODES[self.song.mode].melody[degree % 7]

    def drums(self, bar: Bar) -> Iterator[tuple[int, str, float]]:
        """Play the kit as (cell, drum, level) rows; it waits for the first verse."""
        if not self.arrangement.has_drums or bar.section == "intro":
            return
        wish = self.arrangement.density * 2 + INTENSITY[bar.section]
        for drum, pattern in self.rules.drums[min(max(round(wish), 0), 2)].items():
            for cell, _, sign in _onsets(pattern):
                yield cell, drum, DRUM_LEVELS[drum] * (1.0 if sign == "x" else 0.5)


def compose(song: Song, rng: np.random.Generator, *, seconds: float) -> Piece:
    """Arrange and play a version of a song that lasts the given time.

    The form is cut at the last whole bar, where a final chord rings out.
    """
    rules = STYLES[song.style]
    arrangement = arrange(song, rng)
    song = replace(song, tonic=(song.tonic + arrangement.transposition) % 12)
    players = _Players(song, arrangement, rng)
    bar_seconds = 60 / arrangement.tempo * rules.beats
    cell_seconds = bar_seconds / players.n_cells
    opening = float(rng.uniform(0.03, 0.4))
    n_bars = max(1, int((seconds - opening - 1.2) / bar_seconds))
    gap = 0.6 * arrangement.staccato  # share of a note that is silent, up to a fifth of a second
    lead, comp, bass, drums = arrangement.balance
    parts = (
        (arrangement.lead, lead, players.melody),
        (arrangement.comp, comp, players.comp),
        (arrangement.bass, bass, players.bass),
    )
    events: list[Event] = []
    sections: list[tuple[float, str]] = []
    for number, bar in enumerate(_bars(song, bar_seconds, n_bars, rng)):
        start = opening + number * bar_seconds
        if bar.index == 0:
            sections.append((start, bar.section))
        lift = 0.7 if bar.section == "chorus" else 0.0
        brightness = min(4, round(arrangement.brightness + lift))
        for instrument, balance, play in parts:
            for cell, length, pitch, level in play(bar):
                at = max(0.0, start + cell * cell_seconds + 0.006 * float(rng.normal()))
                level *= balance * (1 + 0.3 * lift) * (1 + 0.1 * float(rng.normal()))
                duration = length * cell_seconds
                duration -= min(gap * duration, 0.2)
                events.append(Event(at, duration, pitch, level, instrument, brightness))
        for cell, drum, level in players.drums(bar):
            at = max(0.0, start + cell * cell_seconds + 0.004 * float(rng.normal()))
            level *= drums * (1 + 0.15 * float(rng.normal()))
            events.append(Event(at, 0.2, 0, level, drum, brightness))
    end = opening + n_bars * bar_seconds
    home = _voicing(_chord(song, 0), players.voices, rules.low)
    for instrument, pitch, level in (
        *((arrangement.comp, voice, 0.4) for voice in home),
        (arrangement.bass, 34 + (song.tonic - 34) % 12, 0.8),
        (arrangement.lead, players._pitch(0), 0.9),
    ):
        events.append(
            Event(end, seconds - end, pitch, level, instrument, round(arrangement.brightness))
        )
    arousal, valence = _feeling(song, arrangement, len(events) / seconds)
    noise = rng.normal(size=2)
    return Piece(
        events=tuple(events),
        sections=tuple(sections),
        arousal=arousal + NOISE * float(noise[0]),
        valence=valence + NOISE * float(noise[1]),
    )


def _feeling(song: Song, arrangement: Arrangement, notes_per_second: float) -> tuple[float, float]:
    """Derive arousal and valence, roughly of zero mean and unit variance over the styles."""
    pace = math.log2(notes_per_second / 9)
    glow = arrangement.brightness - 2.1
    touch = arrangement.staccato - 0.4
    height = (STYLES[song.style].register + arrangement.octave - 72) / 6
    arousal = 0.7 * pace + 0.3 * glow + touch + 0.4 * (arrangement.has_drums - 0.5)
    valence = 0.6 * MODES[song.mode].happiness + 0.5 * glow + 0.45 * height + 0.15 * pace - 0.1
    return arousal, valence
