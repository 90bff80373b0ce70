"""Find what is wrong with a dataset before it costs an hour: files, ids, splits, labels.

Conventions
-----------
Nothing stops at the first problem, and nothing is changed. An ``error`` is what
makes a run fail or its score mean something else (a leak between splits, a class
that training never sees); a ``warning`` is worth a look. Every problem names its
manifest line where there is one. Groups that straddle splits are the flaw of
Sturm, "The GTZAN dataset", 2013; they are errors in published splits as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import reprlib
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tune_cache.datasets.base import SPLITS, Dataset, Problem, Task, Track
from tune_cache.datasets.catalog import read_dataset
from tune_cache.datasets.config import Config
from tune_cache.errors import AudioError, first_few

if TYPE_CHECKING:
    from tune_cache.audio import DecodedAudio

__all__ = ["Problem", "check_dataset"]

DECODE_RATE_HZ = 24_000
TOLERANCE_SECONDS = 0.25  # mp3 headers are off by up to 8,359 samples: FACTS of libsndfile 1.2.2
TOLERANCE_SHARE = 0.01
BLOCK_BYTES = 1 << 20

Severity = Literal["error", "warning"]
Decode = Callable[[Track], "DecodedAudio"]


def check_dataset(
    dataset: Dataset | str | None = None,
    *,
    deep: bool = True,
    decode: Decode | None = None,
    data_root: Path | None = None,
    config: Config | None = None,
    allow_outside_root: bool = False,
    cache_dir: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """Check a dataset and list every problem.

    Parameters
    ----------
    dataset
        A name or path as for :func:`~tune_cache.datasets.catalog.load_dataset`, or
        a dataset, whose manifests are then not read again.
    deep
        Decode every file; otherwise files are only looked at and, where two have
        one size, hashed.
    decode
        Decodes one track or raises AudioError; None is
        :func:`tune_cache.audio.decode`. Give one that uses a
        :class:`~tune_cache.audio.DecodePool` for audio from strangers.
    on_progress
        Called with the number of tracks decoded and of all.

    Returns
    -------
    Problems in the order of manifest and line; those of the whole dataset first.

    Raises
    ------
    UsageError
        If the name stands for no dataset.
    """
    problems: list[Problem] = []
    if not isinstance(dataset, Dataset):
        dataset, found = read_dataset(
            dataset,
            data_root=data_root,
            config=config,
            allow_outside_root=allow_outside_root,
            cache_dir=cache_dir,
        )
        problems += found
    readable = []
    for track in dataset.tracks:
        fault = _file_fault(track)
        problems += [fault] if fault else []
        readable += [] if fault else [track]
    problems += _same_audio(readable)
    problems += _splits(dataset)
    for task in dataset.tasks:
        problems += _labels(dataset, task)
    if dataset.tracks and not dataset.tasks:
        problems.append(_problem("warning", "no-labels", "no record has a label: nothing to probe"))
    if deep:
        for n_done, track in enumerate(readable, start=1):
            problems += _decoded(track, decode or _decode)
            if on_progress is not None:
                on_progress(n_done, len(readable))
    return sorted(problems, key=lambda item: (item.path, item.line, item.severity, item.code))


def _problem(
    severity: Severity, code: str, message: str, track: Track | None = None, *, hint: str = ""
) -> Problem:
    return Problem(
        severity=severity,
        code=code,
        message=message,
        path=track.manifest if track else "",
        line=track.line if track else 0,
        track_id=track.track_id if track else "",
        hint=hint,
    )


def _place(track: Track) -> str:
    return f"{track.manifest}:{track.line}"


def _decode(track: Track) -> DecodedAudio:
    from tune_cache.audio import decode

    return decode(track.path, sample_rate_hz=DECODE_RATE_HZ, track_id=track.track_id)


def _file_fault(track: Track) -> Problem | None:
    """Say why a file cannot be opened, without opening it (a FIFO would block)."""
    name = reprlib.repr(track.audio_path)
    try:
        status = track.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _problem(
            "error",
            "missing-file",
            f"audio file {name} is missing",
            track,
            hint="audio paths are relative to the data root: --data-root",
        )
    except OSError as error:
        return _problem(
            "error", "unreadable", f"audio file {name} cannot be read: {error.strerror}", track
        )
    if not stat.S_ISREG(status.st_mode):
        return _problem("error", "not-a-file", f"audio file {name} is not a regular file", track)
    if status.st_size == 0:
        return _problem("error", "empty-file", f"audio file {name} is empty", track)
    if not os.access(track.path, os.R_OK):
        return _problem("error", "unreadable", f"audio file {name} may not be read", track)
    return None


def _same_audio(tracks: Sequence[Track]) -> Iterator[Problem]:
    """Find equal files under two ids; only files of equal size are hashed."""
    by_size: dict[int, list[Track]] = {}
    for track in tracks:
        with contextlib.suppress(OSError):  # gone since it was looked at: decoding will say
            by_size.setdefault(track.path.stat().st_size, []).append(track)
    for same_size in by_size.values():
        first: dict[str, Track] = {}
        for track in same_size if len(same_size) > 1 else ():
            try:
                digest = _sha256(track.path)
            except OSError as error:
                yield _problem(
                    "error",
                    "unreadable",
                    f"audio file {reprlib.repr(track.audio_path)} cannot be read: {error.strerror}",
                    track,
                )
                continue
            other = first.setdefault(digest, track)
            if other is track:
                continue
            leaks = other.split != track.split
            yield _problem(
                "error" if leaks else "warning",
                "same-audio",
                f"track {reprlib.repr(track.track_id)} has the same audio as "
                f"{reprlib.repr(other.track_id)} at {_place(other)}"
                + (f", which is in {other.split!r}, not {track.split!r}" if leaks else ""),
                track,
                hint="keep one of the two",
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _splits(dataset: Dataset) -> Iterator[Problem]:
    """Find empty splits, and groups in two."""
    counts = Counter(track.split for track in dataset.tracks)
    if not counts:
        yield _problem("error", "empty-dataset", f"dataset {dataset.name!r} has no usable track")
        return
    for split in SPLITS:
        if not counts[split]:
            yield _problem(
                "error" if len(counts) > 1 else "warning",
                "empty-split",
                f"no track is in {split!r}",
                hint="a probe needs train, val and test; extraction does not",
            )
    first: dict[str, Track] = {}
    told = set()
    for track in dataset.tracks:
        other = first.setdefault(track.group, track)
        if other.split != track.split and (track.group, track.split) not in told:
            told.add((track.group, track.split))
            yield _problem(
                "error",
                "group-in-two-splits",
                f"group {reprlib.repr(track.group)} is in {track.split!r} and in "
                f"{other.split!r} at {_place(other)}",
                track,
                hint="scores would measure that the group is known: move it into one split",
            )


def _labels(dataset: Dataset, task: Task) -> Iterator[Problem]:
    """Find missing labels, and labels that cannot be learned or tested."""
    by_split: dict[str, list[Track]] = {split: [] for split in SPLITS}
    for track in dataset.tracks:
        if task.name in track.labels:
            by_split[track.split].append(track)
        else:
            yield _problem(
                "warning", "missing-label", f"record has no label for task {task.name!r}", track
            )
    if task.kind == "regression":
        yield from _targets(task, by_split)
    else:
        yield from _classes(task, by_split)


def _targets(task: Task, by_split: dict[str, list[Track]]) -> Iterator[Problem]:
    for index, target in enumerate(task.targets):
        for split, tracks in by_split.items():
            values = {track.labels[task.name][index] for track in tracks}
            if len(tracks) > 1 and len(values) == 1:
                yield _problem(
                    "error",
                    "constant-target",
                    f"target {target!r} of task {task.name!r} is {values.pop()!r} for all "
                    f"{len(tracks)} tracks of {split!r}, so that R² is not defined",
                    tracks[0],
                )


def _classes(task: Task, by_split: dict[str, list[Track]]) -> Iterator[Problem]:
    word = "tag" if task.kind == "multilabel" else "class"
    tracks_of: dict[object, dict[str, list[Track]]] = {}
    for split, tracks in by_split.items():
        for track in tracks:
            label = track.labels[task.name]
            for value in label if isinstance(label, tuple) else (label,):
                tracks_of.setdefault(value, {}).setdefault(split, []).append(track)
    if len(tracks_of) < 2:
        message = f"task {task.name!r} has {first_few(list(tracks_of)) or 'no label'} only"
        yield _problem("error", "one-class", f"{message}: nothing to tell apart")
    for value, splits in sorted(tracks_of.items(), key=lambda item: str(item[0])):
        name = f"{word} {reprlib.repr(value)} of task {task.name!r}"
        first = next(iter(splits.values()))[0]
        if sum(map(len, splits.values())) == 1:
            yield _problem(
                "warning", "rare-label", f"{name} has one track, at {_place(first)}", first
            )
        if "train" not in splits and by_split["train"]:
            yield _problem(
                "error" if word == "class" else "warning",
                "label-not-in-train",
                f"{name} is in {' and '.join(map(repr, splits))} but not in 'train'",
                first,
                hint="it can never be predicted: drop it, or draw the splits again",
            )
        for split in ("val", "test"):
            if "train" in splits and split not in splits and by_split[split]:
                yield _problem(
                    "warning", "label-not-in-split", f"{name} has no track in {split!r}", first
                )


def _decoded(track: Track, decode: Decode) -> Iterator[Problem]:
    """Decode a track and compare it with what its manifest says."""
    try:
        facts = decode(track).facts
    except AudioError as error:
        yield _problem(
            "error", error.reason or "unreadable", error.message, track, hint=error.hint or ""
        )
        return
    seconds = facts.n_frames / facts.sample_rate_hz
    claimed = track.duration_seconds
    tolerance = max(TOLERANCE_SECONDS, TOLERANCE_SHARE * seconds)
    if claimed is not None and not math.isclose(claimed, seconds, rel_tol=0, abs_tol=tolerance):
        yield _problem(
            "warning",
            "duration-mismatch",
            f"manifest says {claimed:.3f} s, decoded {seconds:.3f} s",
            track,
            hint="the decoded length decides",
        )
    if facts.is_silent:
        yield _problem("warning", "silent", "audio is silence", track)
    if facts.n_nonfinite:
        message = f"audio has {facts.n_nonfinite} samples that are NaN or infinite"
        yield _problem("warning", "not-finite", message, track)
    for note in facts.notes:
        yield _problem("warning", "decoder-note", note, track)
