"""Plan the demo's tracks, and compose and render one of them.

Conventions
-----------
Everything follows from a :class:`DemoSpec`; nothing is read or written. Length,
level and file name carry no information on style: lengths and levels are dealt
out evenly over the styles, names at random. Versions of one song share a split.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from tune_cache.datasets.demo_composition import Piece, compose, write_song
from tune_cache.datasets.demo_instruments import RATE_HZ, Samples
from tune_cache.datasets.demo_styles import STYLES
from tune_cache.datasets.demo_synthesis import master, mix
from tune_cache.errors import UsageError
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["DEMO_VERSION", "DemoSpec", "DemoTrack", "compose_track", "plan_demo", "render_track"]

DEMO_VERSION = "1"
SKEW = 2.7  # of track lengths towards the shortest
QUIETEST_DB, LOUDEST_DB = -28.0, -19.0
# (split, versions) of a style's songs; any three tracks or more fill all splits.
SONGS = (
    ("train", 1), ("val", 1), ("test", 1), ("train", 2), ("train", 3), ("val", 2), ("test", 2),
    ("train", 3), ("train", 2), ("val", 2), ("test", 2), ("train", 2), ("train", 1), ("train", 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSpec:
    """Everything that decides the demo dataset.

    Parameters
    ----------
    tracks_per_style
        From 3 (one per split) to 26.
    shortest_seconds, longest_seconds
        Of a track; short ones are more frequent.
    """

    seed: int = 1234
    tracks_per_style: int = 26
    shortest_seconds: float = 20.0
    longest_seconds: float = 60.0

    def __post_init__(self) -> None:
        most = sum(n_versions for _, n_versions in SONGS)
        if self.seed < 0:
            raise UsageError(f"demo seed is {self.seed!r}, expected 0 or more")
        if not 3 <= self.tracks_per_style <= most:
            raise UsageError(
                f"demo has {self.tracks_per_style!r} tracks per style, expected 3 to {most}",
                hint="three fill all splits; more songs than that are not composed",
            )
        if not 2.0 <= self.shortest_seconds <= self.longest_seconds <= 600.0:
            raise UsageError(
                f"demo tracks last {self.shortest_seconds!r} to {self.longest_seconds!r} s, "
                "expected 2 to 600 s, the shortest first",
            )

    @property
    def folder(self) -> str:
        """Name of the folder: the version, and a hash for anything but the default."""
        name = f"demo-{DEMO_VERSION}"
        if self == DemoSpec():
            return name
        return f"{name}-{sha256_text(canonical_json(asdict(self)))[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTrack:
    """One track before it is composed."""

    audio_path: str
    style: str
    split: str
    song: int
    version: int
    n_samples: int
    loudness_db: float
    seed: int


def _deal(values: np.ndarray, n_styles: int, rng: np.random.Generator) -> np.ndarray:
    """Deal sorted values out like cards, so that every style gets the same hand.

    Returns
    -------
    of shape (n_styles, n_tracks_per_style)
    """
    hands = rng.permuted(values.reshape(-1, n_styles), axis=1).T
    return rng.permuted(hands, axis=1)


def plan_demo(spec: DemoSpec | None = None) -> tuple[DemoTrack, ...]:
    """Decide style, split, song, length and level of every track, sorted by path."""
    spec = spec or DemoSpec()
    rng = np.random.default_rng(spec.seed)
    n_styles, n_each = len(STYLES), spec.tracks_per_style
    place = (np.arange(n_styles * n_each) + 0.5) / (n_styles * n_each)
    stretch = spec.longest_seconds - spec.shortest_seconds
    seconds = spec.shortest_seconds + stretch * (1 - (1 - place) ** (1 / SKEW))
    lengths = _deal(np.rint(seconds * RATE_HZ), n_styles, rng)
    levels = _deal(QUIETEST_DB + (LOUDEST_DB - QUIETEST_DB) * place, n_styles, rng)
    numbers = iter(rng.permutation(n_styles * n_each).tolist())
    songs = iter(rng.permutation(n_styles * len(SONGS)).tolist())
    tracks = []
    for row, style in enumerate(STYLES):
        versions = [
            (split, song, version)
            for (split, n_versions), song in zip(SONGS, songs, strict=False)
            for version in range(n_versions)
        ]
        for column, (split, song, version) in enumerate(versions[:n_each]):
            tracks.append(
                DemoTrack(
                    audio_path=f"audio/{next(numbers):03d}.flac",
                    style=style,
                    split=split,
                    song=song,
                    version=version,
                    n_samples=int(lengths[row, column]),
                    loudness_db=round(float(levels[row, column]), 3),
                    seed=spec.seed,
                )
            )
    return tuple(sorted(tracks, key=lambda track: track.audio_path))


def compose_track(track: DemoTrack) -> Piece:
    """Compose the notes of a track; cheap."""
    song = write_song(track.style, np.random.default_rng([track.seed, 0, track.song]))
    rng = np.random.default_rng([track.seed, 1, track.song, track.version])
    return compose(song, rng, seconds=track.n_samples / RATE_HZ)


def render_track(track: DemoTrack, piece: Piece) -> Samples:
    """Play a piece and master it; room, tone and hiss are the recording's, not the style's."""
    rng = np.random.default_rng([track.seed, 2, track.song, track.version])
    return master(
        mix(piece.events, track.n_samples),
        rng,
        room=int(rng.integers(0, 4)),
        wet=float(rng.uniform(0.05, 0.35)),
        tilt=0.26 * (piece.brightness - 2) + 0.06 * float(rng.normal()),
        hiss=float(10 ** rng.uniform(-3.2, -2.2)),
        loudness_db=track.loudness_db,
    )
