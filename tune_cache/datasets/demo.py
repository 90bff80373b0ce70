"""Plan, render and keep the built-in demo dataset.

Conventions
-----------
Everything follows from a :class:`DemoSpec`. Length, level and file name carry no
information on style: lengths and levels are dealt out evenly over the styles.
Versions of one song share ``ori_uid`` and a split. Labels: ``label`` is the
style, ``emotion`` is [arousal, valence]. Files appear under the final name all
at once; what is complete is never written again.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tune_cache.audio import write_flac
from tune_cache.datasets.demo_composition import Piece, compose, write_song
from tune_cache.datasets.demo_instruments import RATE_HZ, Samples
from tune_cache.datasets.demo_styles import STYLES
from tune_cache.datasets.demo_synthesis import master, mix
from tune_cache.errors import UsageError
from tune_cache.specs import canonical_json, sha256_text

__all__ = [
    "DEMO_LICENCE",
    "DEMO_VERSION",
    "DemoProgress",
    "DemoSpec",
    "DemoTrack",
    "compose_track",
    "ensure_demo",
    "plan_demo",
    "render_track",
]

DEMO_VERSION = "1"
DEMO_LICENCE = "CC0-1.0 (composed and rendered by tune_cache)"
COMPLETE = "COMPLETE"
# (split, versions) of a style's songs; any three tracks or more fill all splits.
SONGS = (
    ("train", 1), ("val", 1), ("test", 1), ("train", 2), ("train", 3), ("val", 2), ("test", 2),
    ("train", 3), ("train", 2), ("val", 2), ("test", 2), ("train", 2), ("train", 1), ("train", 2),
)  # fmt: skip
README = """\
# tune_cache demo dataset, version {version}

{n_tracks} pieces of music in six styles, composed and rendered by a program from a
seed; no recording and no one else's work is in it. Licence: {licence}.

Labels: `label` is the style; `emotion` is [arousal, valence], derived from what was
composed (pace, brightness, touch, mode, register) plus noise, roughly z-scored.
`ori_uid` names the song; its versions differ in arrangement and share a split.

It shows how the tool works. Scores on it say little about real music.
"""


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
        if not 3 <= self.tracks_per_style <= most:
            raise UsageError(f"tracks per style is {self.tracks_per_style!r}, expected 3 to {most}")
        if not 2.0 <= self.shortest_seconds <= self.longest_seconds <= 600.0:
            raise UsageError(
                f"track lengths are {self.shortest_seconds!r} to {self.longest_seconds!r} s, "
                "expected 2 to 600 s in ascending order"
            )

    @property
    def folder(self) -> str:
        """Name of the folder: the version, and a hash for anything but the default."""
        name = f"demo-{DEMO_VERSION}"
        return (
            name
            if self == DemoSpec()
            else f"{name}-{sha256_text(canonical_json(asdict(self)))[:8]}"
        )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoProgress:
    """How far rendering is."""

    n_done: int
    n_tracks: int
    audio_seconds: float


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
    seconds = spec.shortest_seconds + stretch * (1 - (1 - place) ** (1 / 2.7))
    lengths = _deal(np.rint(seconds * RATE_HZ), n_styles, rng)
    levels = _deal(-28 + 9 * place, n_styles, rng)
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


def ensure_demo(
    root: Path,
    *,
    spec: DemoSpec | None = None,
    n_workers: int = 2,
    on_progress: Callable[[DemoProgress], None] | None = None,
) -> Path:
    """Return the folder of the demo dataset, rendering it if it is not there whole.

    Whole means that every file has the size it was written with; the content is
    not read again. A damaged folder is mended in place, file by file; other files
    in it are left alone. Several processes may do this at once: they write the
    same bytes.

    Parameters
    ----------
    root
        Folder in which ``demo-1`` stands; made if need be.
    n_workers
        Threads; the files do not depend on it.

    Returns
    -------
    The folder that holds ``demo.train.jsonl``, ``demo.val.jsonl``, ``demo.test.jsonl``.
    """
    spec = spec or DemoSpec()
    final = root / spec.folder
    if _is_complete(final):
        return final
    root.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{spec.folder}-", dir=root))
    try:
        _render_all(work, plan_demo(spec), n_workers, on_progress)
        _publish(work, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _render_all(
    folder: Path,
    tracks: tuple[DemoTrack, ...],
    n_workers: int,
    on_progress: Callable[[DemoProgress], None] | None,
) -> None:
    (folder / "audio").mkdir()

    def write(track: DemoTrack) -> tuple[float, float]:
        piece = compose_track(track)
        write_flac(folder / track.audio_path, render_track(track, piece), RATE_HZ)
        return round(piece.arousal, 4), round(piece.valence, 4)

    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    audio_seconds = 0.0
    with ThreadPoolExecutor(n_workers) as pool:
        for n_done, (track, emotion) in enumerate(
            zip(tracks, pool.map(write, tracks), strict=True), start=1
        ):
            lines[track.split].append(json.dumps(_record(track, emotion)) + "\n")
            audio_seconds += track.n_samples / RATE_HZ
            if on_progress is not None:
                on_progress(
                    DemoProgress(n_done=n_done, n_tracks=len(tracks), audio_seconds=audio_seconds)
                )
    for split, records in lines.items():
        (folder / f"demo.{split}.jsonl").write_text("".join(records), encoding="utf-8")
    readme = README.format(version=DEMO_VERSION, n_tracks=len(tracks), licence=DEMO_LICENCE)
    (folder / "README.md").write_text(readme, encoding="utf-8")
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / COMPLETE).write_text(_seal(sizes), encoding="utf-8")


def _record(track: DemoTrack, emotion: tuple[float, float]) -> dict[str, Any]:
    """Write a track as a line of a MARBLE manifest."""
    return {
        "audio_path": track.audio_path,
        "label": track.style,
        "sample_rate": RATE_HZ,
        "num_samples": track.n_samples,
        "channels": 1,
        "duration": track.n_samples / RATE_HZ,
        "bit_depth": 16,
        "ori_uid": f"song-{track.song:02d}",
        "emotion": list(emotion),
    }


def _seal(sizes: Mapping[str, int]) -> str:
    """Write the marker: sizes of all files, and the digest of the list."""
    digest = sha256_text(canonical_json(sizes))
    return canonical_json({"digest": digest, "files": sizes, "version": DEMO_VERSION})


def _is_complete(folder: Path) -> bool:
    """Check the marker and the size of each file it lists."""
    try:
        text = (folder / COMPLETE).read_text(encoding="utf-8")
        sizes = json.loads(text)["files"]
        return text == _seal(sizes) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _publish(work: Path, final: Path) -> None:
    """Flush and rename; where a damaged folder is in the way, replace its files one by one."""
    paths = sorted(work.rglob("*"), key=lambda path: (path.name == COMPLETE, path))
    for path in (*paths, work):
        _flush(path)
    try:
        work.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _is_complete(final):
            (final / "audio").mkdir(exist_ok=True)
            for path in paths:
                if path.is_file():
                    path.replace(final / path.relative_to(work))
            _flush(final / "audio")
            _flush(final)
    _flush(final.parent)


def _flush(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
