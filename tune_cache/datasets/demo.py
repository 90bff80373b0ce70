"""Render the built-in demo dataset once, and keep it whole.

Conventions
-----------
The manifests are MARBLE's: ``label`` is the style, ``emotion`` is [arousal,
valence], versions of one song share ``ori_uid``. Files appear under the final
name all at once, ``COMPLETE`` lists their sizes, and what is complete is never
written again.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.audio import write_flac
from tune_cache.datasets.demo_composition import Piece
from tune_cache.datasets.demo_instruments import RATE_HZ
from tune_cache.datasets.demo_plan import (
    DEMO_VERSION,
    DemoSpec,
    DemoTrack,
    compose_track,
    plan_demo,
    render_track,
)
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["DEMO_LICENCE", "DEMO_VERSION", "DemoProgress", "DemoSpec", "ensure_demo"]

DEMO_LICENCE = "CC0-1.0 (composed and rendered by tune_cache)"
COMPLETE = "COMPLETE"
UNFINISHED = ".demo-"  # folders that a killed process leaves behind
UNFINISHED_SECONDS = 3600
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
class DemoProgress:
    """How far rendering is, in tracks and in seconds of audio."""

    n_done: int
    n_tracks: int
    seconds: float


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
    in it are left alone. Several processes may do this at once: on one machine
    they write the same bytes.

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
    _sweep(root)
    work = root / f"{UNFINISHED}{secrets.token_hex(8)}"
    work.mkdir()
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

    def write(track: DemoTrack) -> str:
        piece = compose_track(track)
        write_flac(folder / track.audio_path, render_track(track, piece), RATE_HZ)
        return json.dumps(_record(track, piece)) + "\n"

    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    seconds = 0.0
    pool = ThreadPoolExecutor(n_workers)
    try:
        written = zip(tracks, pool.map(write, tracks), strict=True)
        for n_done, (track, line) in enumerate(written, start=1):
            lines[track.split].append(line)
            seconds += track.n_samples / RATE_HZ
            if on_progress is not None:
                on_progress(DemoProgress(n_done=n_done, n_tracks=len(tracks), seconds=seconds))
    finally:
        pool.shutdown(cancel_futures=True)
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


def _record(track: DemoTrack, piece: Piece) -> dict[str, Any]:
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
        "emotion": [round(piece.arousal, 4), round(piece.valence, 4)],
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


def _sweep(root: Path) -> None:
    """Remove what processes killed long ago have left."""
    for path in root.glob(f"{UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                shutil.rmtree(path)


def _flush(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
