"""Which tracks form a unit of work: a pure function of ids and audio.

Conventions
-----------
Tracks stand in the order of their ids; consecutive tracks form a unit of about
ten minutes of audio, at least one track. Nothing else enters, so units are the
same for any number of workers and after any crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.errors import UsageError

__all__ = ["PlannedTrack", "make_plan", "units_of_part"]

UNIT_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTrack:
    """A track as stage one sees it.

    Parameters
    ----------
    track_id
        Its id; data, never a path.
    path
        Where its audio lies.
    audio_sha256
        Of the file; empty where it cannot be read.
    seconds
        Expected length, for planning only.
    stamp
        Of the file when it was hashed; another one later means it changed.
    reason, message
        Why it cannot be read, empty where it can.
    """

    track_id: str
    path: Path
    audio_sha256: str
    seconds: float
    stamp: str = ""
    reason: str = ""
    message: str = ""


def make_plan(tracks: Sequence[PlannedTrack]) -> tuple[tuple[PlannedTrack, ...], ...]:
    """Cut the sorted tracks into units of about :data:`UNIT_SECONDS`.

    Examples
    --------
    >>> from pathlib import Path
    >>> ids = ["c", "a", "b"]
    >>> tracks = [
    ...     PlannedTrack(track_id=i, path=Path(i), audio_sha256="", seconds=400.0) for i in ids
    ... ]
    >>> [[track.track_id for track in unit] for unit in make_plan(tracks)]
    [['a'], ['b'], ['c']]
    """
    units: list[tuple[PlannedTrack, ...]] = []
    current: list[PlannedTrack] = []
    seconds = 0.0
    for track in sorted(tracks, key=lambda track: track.track_id):
        if current and seconds + track.seconds > UNIT_SECONDS:
            units.append(tuple(current))
            current, seconds = [], 0.0
        current.append(track)
        seconds += track.seconds
    if current:
        units.append(tuple(current))
    return tuple(units)


def units_of_part(n_units: int, part: str | None) -> list[int]:
    """List the units of a share ``I/N``; all without one.

    Examples
    --------
    >>> units_of_part(5, "2/2")
    [1, 3]
    """
    if part is None:
        return list(range(n_units))
    share, slash, shares = part.partition("/")
    if not (slash and share.isdecimal() and shares.isdecimal() and 1 <= int(share) <= int(shares)):
        raise UsageError(
            f"--part is {part!r}, expected I/N with 1 ≤ I ≤ N", hint="the first of four is 1/4"
        )
    return list(range(int(share) - 1, n_units, int(shares)))
