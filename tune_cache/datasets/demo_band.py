"""Play bars: melody, chords, bass and drums of a song in an arrangement.

Conventions
-----------
A *song* fixes what its versions share: style, mode, key, progressions, motifs. An
*arrangement* fixes the rest: tempo, instruments, density, brightness. Melody
notes are degrees of the scale, 0 the tonic nearest to the style's register. What
is played is a stroke: cell and length in cells of its bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from tune_cache.datasets.demo_styles import MODES, STYLES

__all__ = ["Arrangement", "Band", "Bar", "Motif", "Song", "Stroke", "chord_of", "voicing"]

FORM = (0, 1, 0, 2)  # motifs of the bars of a phrase
INTENSITY = {"intro": -0.8, "verse": -0.3, "chorus": 0.6}
LOWEST_BASS = 34
DRUM_LEVELS = {
    "kick": 0.9, "snare": 0.5, "hat": 0.22, "clap": 0.4, "shaker": 0.18, "tom": 0.7, "brush": 0.25,
}  # fmt: skip

T = TypeVar("T")


class Stroke(NamedTuple):
    """A note within its bar; drums have pitch 0."""

    instrument: str
    cell: int
    n_cells: int
    pitch: int
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Motif:
    """A bar of melody: a rhythm, a leaning up or down, and steps on the scale."""

    rhythm: str
    lean: int
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
    """What a version chooses for itself.

    Parameters
    ----------
    balance
        Gains of lead, accompaniment, bass, drums.
    density, staccato
        From 0 to 1.
    brightness
        From 0 to 4.
    shift
        Semitones by which melody and chords lie above the style's register.
    """

    tempo: float
    transposition: int
    lead: str
    comp: str
    bass: str
    has_drums: bool
    balance: tuple[float, float, float, float]
    density: float
    brightness: float
    staccato: float
    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar to be played: the ``index``-th of ``n_bars`` in its section."""

    section: str
    index: int
    n_bars: int
    chords: tuple[int, ...]
    next_chord: int


def chord_of(song: Song, degree: int) -> tuple[int, ...]:
    """List the pitch classes of a chord, root first."""
    scale = MODES[song.mode].chords
    if song.mode == "blues":  # every chord is a dominant seventh
        return tuple((song.tonic + scale[degree] + up) % 12 for up in (0, 4, 7, 10))
    return tuple((song.tonic + scale[(degree + third) % 7]) % 12 for third in (0, 2, 4))


def voicing(chord: Sequence[int], before: Sequence[int], lowest: int) -> tuple[int, ...]:
    """Choose the close inversion, from ``lowest`` on, that moves the voices least.

    Examples
    --------
    >>> voicing((5, 9, 0), before=(60, 64, 67), lowest=55)  # C major to F major
    (60, 65, 69)
    """

    def moved(voices: Sequence[int]) -> int:
        return sum(abs(new - old) for new, old in zip(voices, before, strict=False))

    inversions = [
        tuple(sorted(bottom + (tone - bottom) % 12 for tone in chord))
        for bottom in range(lowest, lowest + 14)
        if bottom % 12 in chord
    ]
    return min(inversions, key=moved)


def onsets(bar: str) -> Iterator[tuple[int, int, str]]:
    """Read a bar as (cell, cells until the next sign, sign).

    Examples
    --------
    >>> list(onsets("x..o."))
    [(0, 3, 'x'), (3, 2, 'o')]
    """
    cells = [cell for cell, sign in enumerate(bar) if sign != "."]
    for cell, following in zip(cells, [*cells, len(bar)][1:], strict=True):
        yield cell, following - cell, bar[cell]


class Band:
    """Four players who remember where the last bar left them.

    Parameters
    ----------
    rng
        Decides which notes of the melody are ornamented or left out.
    """

    def __init__(self, song: Song, arrangement: Arrangement, rng: np.random.Generator) -> None:
        self.song, self.arrangement, self._rng = song, arrangement, rng
        self.rules = STYLES[song.style]
        self.n_cells = len(self.rules.rhythms[0])
        self._low = self.rules.low + arrangement.shift
        self._voices = tuple(self._low + up for up in (4, 8, 11, 14))
        self._degree = 0

    def play(self, bar: Bar) -> Iterator[Stroke]:
        """Play one bar together; melody and drums wait for the first verse."""
        lead, comp, bass, drums = self.arrangement.balance
        parts = [(comp, self._comp), (bass, self._bass)]
        if bar.section != "intro":
            parts.append((lead, self._melody))
            if self.arrangement.has_drums:
                parts.append((drums, self._drums))
        for gain, part in parts:
            for stroke in part(bar):
                yield stroke._replace(level=gain * stroke.level)

    def end(self) -> Iterator[Stroke]:
        """Play the final chord."""
        home = chord_of(self.song, 0)
        for voice in voicing(home, self._voices, self._low):
            yield Stroke(self.arrangement.comp, 0, 1, voice, 0.4)
        yield Stroke(self.arrangement.bass, 0, 1, self._bass_pitch(home[0]), 0.8)
        yield Stroke(self.arrangement.lead, 0, 1, self._lead_pitch(0), 0.9)

    def _choose(self, patterns: Sequence[T], section: str) -> T:
        """Take the pattern that fits density and section; they go from sparse to dense."""
        wish = round(self.arrangement.density * (len(patterns) - 1) + INTENSITY[section])
        return patterns[min(max(wish, 0), len(patterns) - 1)]

    def _degree_at(self, bar: Bar, cell: int) -> int:
        return bar.chords[cell * len(bar.chords) // self.n_cells]

    def _comp(self, bar: Bar) -> Iterator[Stroke]:
        """Play chords or broken chords, led smoothly from one to the next."""
        for cell, length, sign in onsets(self._choose(self.rules.comps, bar.section)):
            chord = chord_of(self.song, self._degree_at(bar, cell))
            self._voices = voicing(chord, self._voices, self._low)
            if sign.isdigit():
                pitch = self._voices[int(sign)]
                yield Stroke(self.arrangement.comp, cell, length, pitch, 0.7)
            else:
                for pitch in self._voices:
                    yield Stroke(self.arrangement.comp, cell, length, pitch, 0.4)

    def _bass(self, bar: Bar) -> Iterator[Stroke]:
        """Play the bass line; ``a`` leads by a semitone to the next root."""
        for cell, length, sign in onsets(self._choose(self.rules.basses, bar.section)):
            chord = chord_of(self.song, self._degree_at(bar, cell))
            leading = chord_of(self.song, bar.next_chord)[0] - 1
            tone = {"3": chord[1], "5": chord[2], "a": leading}.get(sign, chord[0])
            pitch = self._bass_pitch(tone) + (12 if sign == "8" else 0)
            yield Stroke(self.arrangement.bass, cell, length, pitch, 0.8)

    def _melody(self, bar: Bar) -> Iterator[Stroke]:
        """Play a motif on the chord of the bar, ornamented or thinned by density."""
        density, lead = self.arrangement.density, self.arrangement.lead
        centre = 2 if bar.section == "chorus" else -1
        motif = self.song.motifs[bar.section][FORM[bar.index % len(FORM)]]
        rhythm, steps = motif.rhythm, motif.steps
        if bar.index == bar.n_bars - 1:  # a section ends on one long note
            rhythm, steps = "x" + "." * (self.n_cells - 1), (0,)
        self._degree = (2 * self._degree + centre + motif.lean) // 3
        for (cell, length, _), step in zip(onsets(rhythm), steps, strict=True):
            self._degree += step
            if cell == 0:
                self._degree = self._nearest_chord_tone(self._degree, bar.chords[0])
            elif not -6 <= self._degree - centre <= 6:
                self._degree -= 2 * step
            chance = self._rng.random()
            if cell and chance < 0.3 * (1 - density):
                continue
            level = 1.0 if cell * self.rules.beats % self.n_cells == 0 else 0.8
            pitch, half = self._lead_pitch(self._degree), length // 2
            if half and chance > 1 - 0.35 * density:
                yield Stroke(lead, cell, half, pitch, level)
                cell, length = cell + half, length - half
                pitch, level = self._lead_pitch(self._degree + 1), 0.8 * level
            yield Stroke(lead, cell, length, pitch, level)

    def _drums(self, bar: Bar) -> Iterator[Stroke]:
        for drum, pattern in self._choose(self.rules.drums, bar.section).items():
            for cell, _, sign in onsets(pattern):
                level = DRUM_LEVELS[drum] * (1.0 if sign == "x" else 0.5)
                yield Stroke(drum, cell, 1, 0, level)

    def _nearest_chord_tone(self, degree: int, root: int) -> int:
        tones = [tone for tone in range(degree - 3, degree + 4) if (tone - root) % 7 in (0, 2, 4)]
        return min(tones, key=lambda tone: abs(tone - degree))

    def _lead_pitch(self, degree: int) -> int:
        register = self.rules.register + self.arrangement.shift
        tonic = self.song.tonic + 12 * round((register - self.song.tonic) / 12)
        return tonic + 12 * (degree // 7) + MODES[self.song.mode].melody[degree % 7]

    def _bass_pitch(self, tone: int) -> int:
        return LOWEST_BASS + (tone - LOWEST_BASS) % 12
