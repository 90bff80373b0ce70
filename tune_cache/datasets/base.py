"""What a dataset is: tracks with splits, groups and labels, tasks, and problems.

Conventions
-----------
Plain frozen values; nothing here touches a file. Track ids are data, never paths:
any text, lone surrogates included. Lines count from 1; line 0 is the whole file.
A reader collects what is wrong as :class:`Problem`; a loader raises the first error.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tune_cache.errors import ManifestError, UsageError, first_few

__all__ = ["SPLITS", "Dataset", "Kind", "Problem", "Task", "Track", "raise_errors"]

SPLITS = ("train", "val", "test")

Kind = Literal["multiclass", "multilabel", "regression"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a dataset.

    Parameters
    ----------
    severity
        An ``error`` stops or falsifies a run; a ``warning`` is worth a look.
    code
        Short and stable, for tables and scripts, as ``missing-file``.
    """

    severity: Literal["error", "warning"]
    code: str
    message: str
    path: str = ""
    line: int = 0
    track_id: str = ""
    hint: str = ""

    @property
    def where(self) -> str:
        """Place as ``file:line``, as far as known."""
        return f"{self.path}:{self.line}" if self.line else self.path


def raise_errors(problems: Iterable[Problem]) -> None:
    """Raise the first error among problems; name the places of the next ones.

    Raises
    ------
    ManifestError
        If any problem is an error.
    """
    errors: Sequence[Problem] = [item for item in problems if item.severity == "error"]
    if not errors:
        return
    first, *others = errors
    text = f"{first.where}: {first.message}" if first.path else first.message
    if others:
        places = ", ".join(item.where or item.code for item in others[:2])
        more = f" and {len(others) - 2} more" if len(others) > 2 else ""
        text += f" (also {places}{more})"
    raise ManifestError(
        text,
        hint=first.hint or "`tune dataset check` lists every problem",
        path=first.path,
        line=first.line,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One audio file of a dataset.

    Parameters
    ----------
    track_id
        The record's ``track_id``, else ``audio_path`` relative to the data root.
    path
        Where the audio is, absolute and with links resolved; it need not exist.
    audio_path
        As the manifest writes it.
    group
        What must not straddle splits; the track id where the manifest names none.
    labels
        By task name: a str, int or bool (multiclass), a tuple of str
        (multilabel), a tuple of float (regression). A task that the record has
        no label for is absent.
    duration_seconds
        What the manifest claims; the decoded length decides.
    manifest, line
        The first record of this track.
    extra
        The record's other keys, as they were.
    """

    track_id: str
    path: Path
    audio_path: str
    split: str
    group: str
    labels: Mapping[str, Any] = field(default_factory=dict)
    duration_seconds: float | None = None
    manifest: str = ""
    line: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is predicted from a track.

    Parameters
    ----------
    label
        Key of the record, or several joined by commas, one a target.
    targets
        Names of the regression targets; empty for the other kinds.
    metrics
        Names of the metrics to report; empty leaves it to the probe.
    protocol_task
        Whose profile a protocol follows; empty for that of its own name.
    """

    name: str
    label: str
    kind: Kind
    targets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    protocol_task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named collection of tracks with splits and tasks.

    Parameters
    ----------
    tracks
        Sorted by track id, each id once.
    encoder
        Name of the encoder used where none is asked for.
    licence, citation
        Of the audio and labels, where the catalog knows them.
    note
        What a user should know about how the dataset was read; may be empty.
    """

    name: str
    tracks: tuple[Track, ...]
    tasks: tuple[Task, ...]
    data_root: Path
    encoder: str = "muq"
    licence: str = ""
    citation: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        ids = [track.track_id for track in self.tracks]
        if any(left >= right for left, right in itertools.pairwise(ids)):
            raise ManifestError(f"tracks of {self.name!r} are not sorted by unique track ids")

    def split(self, name: str) -> tuple[Track, ...]:
        """Tracks of one split, in the order of their ids; may be empty."""
        if name not in SPLITS:
            raise UsageError(f"split is {name!r}, expected one of {', '.join(SPLITS)}")
        return tuple(track for track in self.tracks if track.split == name)

    def task(self, name: str) -> Task:
        """Look a task up by name.

        Raises
        ------
        UsageError
            If the dataset has no such task; message and hint tell those it has.
        """
        names = [task.name for task in self.tasks]
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            there = first_few(names, 9)
            raise UsageError(
                f"dataset {self.name!r} has no task {name!r}; it has {there or 'none'}",
                hint=(f"did you mean {close[0]!r}? " if close else "")
                + f"--task takes {there or 'what tune.toml names: [datasets.NAME.tasks.T]'}",
            )
        return self.tasks[names.index(name)]
