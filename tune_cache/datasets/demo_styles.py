"""What the demo's six styles are made of: modes, progressions, bars, instruments.

Conventions
-----------
Bars are strings of equal cells: ``x`` a note, ``o`` a soft one, ``.`` silence or
a note held on. In basses ``R 3 5 8 a`` are root, third, fifth, octave and a step
towards the next root; in accompaniments digits are voices of the chord.
Scales are semitones above the tonic, chords are degrees of the scale, from 0.
Styles overlap on purpose in every single property, or the demo would be trivial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ANY_BASS", "ANY_COMP", "ANY_LEAD", "MODES", "PROGRESSIONS", "STYLES", "Mode", "Style"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A scale for chords and bass, one for the melody, and how happy it sounds (-1 to 1)."""

    chords: tuple[int, ...]
    melody: tuple[int, ...]
    happiness: float


def _church(semitones: tuple[int, ...], happiness: float) -> Mode:
    return Mode(chords=semitones, melody=semitones, happiness=happiness)


MODES: dict[str, Mode] = {
    "ionian": _church((0, 2, 4, 5, 7, 9, 11), 1.0),
    "mixolydian": _church((0, 2, 4, 5, 7, 9, 10), 0.5),
    "blues": Mode(chords=(0, 2, 4, 5, 7, 9, 10), melody=(0, 3, 4, 5, 7, 9, 10), happiness=0.1),
    "dorian": _church((0, 2, 3, 5, 7, 9, 10), -0.5),
    "aeolian": _church((0, 2, 3, 5, 7, 8, 10), -1.0),
}
PROGRESSIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "ionian": ((0, 5, 3, 4), (0, 3, 0, 4), (0, 4, 5, 3), (3, 4, 0, 5), (0, 2, 3, 4), (3, 0, 1, 4)),
    "mixolydian": ((0, 6, 3, 0), (0, 3, 6, 0), (0, 6, 0, 3), (0, 4, 3, 6)),
    "blues": ((0, 3, 0, 0), (3, 3, 0, 4), (0, 0, 3, 0), (4, 3, 0, 4)),
    "dorian": ((0, 3, 0, 6), (0, 6, 0, 3), (0, 2, 6, 0), (0, 3, 6, 4)),
    "aeolian": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (5, 6, 0, 0), (0, 3, 0, 6)),
}
ANY_LEAD = ("piano", "guitar", "flute", "fiddle", "organ", "electric piano", "voice", "reed")
ANY_COMP = ("piano", "guitar", "organ", "electric piano", "strings", "pad")
ANY_BASS = ("upright bass", "synth bass", "pedal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What pieces of one style have in common; tuples of bars go from sparse to dense."""

    beats: int
    tempo: tuple[float, float]  # beats a minute, slowest and fastest
    modes: Mapping[str, float]
    register: int  # middle of the melody
    low: int  # lowest note of the chords
    brightness: float
    staccato: float
    rhythms: tuple[str, ...]
    basses: tuple[str, ...]
    comps: tuple[str, ...]
    drums: tuple[Mapping[str, str], ...]
    drum_chance: float
    leads: tuple[str, ...]
    comps_by: tuple[str, ...]
    basses_by: tuple[str, ...]


STYLES: dict[str, Style] = {
    "waltz": Style(
        beats=3, tempo=(118, 184), modes={"ionian": 0.65, "aeolian": 0.35}, register=74, low=55,
        brightness=2.1, staccato=0.5,
        rhythms=("x.....", "x...x.", "x.x.x.", "x.xxx.", "xxxxx."),
        basses=("R.....", "R...5.", "R.3.5."), comps=("..x.x.", "..x.x.", "..xxx."),
        drums=({"kick": "x.....", "hat": "..o.o."}, {"kick": "x.....", "snare": "..o.o."},
               {"kick": "x.....", "brush": "..x.x.", "hat": "x.x.xx"}),
        drum_chance=0.35, leads=("reed", "reed", "fiddle", "piano"),
        comps_by=("reed", "piano", "guitar"),
        basses_by=("upright bass", "upright bass", "pedal"),
    ),
    "chorale": Style(
        beats=4, tempo=(64, 112), modes={"ionian": 0.5, "aeolian": 0.3, "dorian": 0.2},
        register=67, low=48, brightness=1.5, staccato=0.15,
        rhythms=("x.......", "x...x...", "x.x.x...", "x.x.x.x.", "x.xxx.xx"),
        basses=("R.......", "R...3...", "R.3.5.a."), comps=("x.......", "x...x...", "x.x.x.x."),
        drums=({}, {"tom": "o......."}, {"tom": "x...o...", "brush": "....x..."}),
        drum_chance=0.1, leads=("organ", "voice", "voice", "strings"),
        comps_by=("organ", "voice", "strings"),
        basses_by=("pedal",),
    ),
    "shuffle": Style(
        beats=4, tempo=(84, 138), modes={"blues": 0.75, "dorian": 0.25}, register=65, low=50,
        brightness=2.3, staccato=0.5,
        rhythms=("x.....x.....", "x.xx..x.....", "x.xx.xx..x..", "x.xx.xx.xx.x", "..xx.xx.xxxx"),
        basses=("R.....5.....", "R..3..5..a..", "R.R3.35.58.a"),
        comps=("...x.....x..", "..x...x..x..", "x.xx.xx.xx.x"),
        drums=({"brush": "x..x.xx..x.x"}, {"hat": "x..x.xx..x.x", "kick": "x.....x....."},
               {"hat": "x..x.xx..x.x", "kick": "x....xx.....", "snare": "...x.....x.o"}),
        drum_chance=0.9, leads=("guitar", "brass", "brass", "electric piano"),
        comps_by=("guitar", "organ", "electric piano"),
        basses_by=("upright bass",),
    ),
    "electro": Style(
        beats=4, tempo=(98, 138), modes={"aeolian": 0.55, "dorian": 0.25, "ionian": 0.2},
        register=70, low=50, brightness=2.7, staccato=0.6,
        rhythms=("x.......x.......", "x...x...x.x.....", "x..x..x...x.x...", "x.x.xx..x.x.x...",
                 "x.x.xx.xx.x.xx.x"),
        basses=("R...R...R...R...", "R.R.R.R.R.R.R.8.", "RRRRRR8RRRRRRR8R"),
        comps=("x...............", "x.....x.....x...", "0121012101210121"),
        drums=({"kick": "x...x...x...x..."},
               {"kick": "x...x...x...x...", "hat": "..x...x...x...x."},
               {"kick": "x...x...x...x...", "hat": "x.x.x.x.x.x.x.xo", "clap": "....x.......x..."}),
        drum_chance=0.95, leads=("square", "saw", "saw", "bell"),
        comps_by=("pad", "saw", "square"),
        basses_by=("synth bass",),
    ),
    "jig": Style(
        beats=2, tempo=(82, 128), modes={"dorian": 0.35, "mixolydian": 0.35, "ionian": 0.3},
        register=76, low=57, brightness=2.4, staccato=0.45,
        rhythms=("x..x..", "x.xx..", "x.xx.x", "xxxx.x", "xxxxxx"),
        basses=("R.....", "R..5..", "R.R5.5"), comps=("x..x..", "x.xx.x", "012012"),
        drums=({"tom": "x..o.."}, {"tom": "x.ox.o"}, {"tom": "x.ox.o", "shaker": "xooxoo"}),
        drum_chance=0.7, leads=("flute", "fiddle", "fiddle", "guitar"),
        comps_by=("guitar", "guitar", "harp"),
        basses_by=("upright bass", "pedal"),
    ),
    "lullaby": Style(
        beats=2, tempo=(44, 76), modes={"ionian": 0.65, "aeolian": 0.2, "mixolydian": 0.15},
        register=79, low=60, brightness=1.6, staccato=0.2,
        rhythms=("x.....", "x..x..", "x.xx..", "x..x.x", "x.xxxx"),
        basses=("R.....", "R..5..", "R..3.5"), comps=("x.....", "012.1.", "012121"),
        drums=({}, {"shaker": "o..o.."}, {"brush": "o..o..", "shaker": "o.oo.o"}),
        drum_chance=0.15, leads=("music box", "music box", "flute", "harp"),
        comps_by=("harp", "piano", "music box"),
        basses_by=("pedal", "upright bass"),
    ),
}  # fmt: skip
