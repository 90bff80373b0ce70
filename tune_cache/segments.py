"""Cut a track into segments: seconds to a grid of samples, integers only.

Conventions
-----------
Starts are 0, H, 2H, … in samples of the encoder's rate, so no rounding adds up
over hours. Of the starts whose segment runs over the end only the first can be
a tail, and only if it reaches samples that no full segment has: the later ones
(hop shorter than length) lie inside it. A segment's ``n_samples`` is what it
covers of the track, never padding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tune_cache.errors import AudioError, UsageError
from tune_cache.specs import SegmentSpec, TailPolicy

__all__ = [
    "Segment",
    "Sliceable",
    "coverage_samples",
    "covered_samples",
    "cut",
    "parse_seg",
    "segment_spec",
    "slice_spec",
    "take",
]

LONGEST_SECONDS = 3600.0  # whoever asks for more meant milliseconds, samples, or "full"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a track, as ``samples[start_sample:start_sample + n_samples]``."""

    start_sample: int
    n_samples: int

    @property
    def stop_sample(self) -> int:
        """One past the last sample covered."""
        return self.start_sample + self.n_samples


def parse_seg(text: str) -> float | Literal["full"]:
    """Read a value of ``--seg``.

    Raises
    ------
    UsageError
        If it is neither ``full`` nor a plausible number of seconds.

    Examples
    --------
    >>> parse_seg("30"), parse_seg("full")
    (30.0, 'full')
    """
    if text.strip().lower() == "full":
        return "full"
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(
            f"segment length is {text!r}, expected a number of seconds or 'full'",
            hint="for example --seg 30 or --seg full",
        ) from None
    return _plausible_seconds(seconds, "segment length")


def segment_spec(
    seconds: float | Literal["full"],
    *,
    sample_rate_hz: int,
    min_samples: int,
    hop_seconds: float | None = None,
    tail: TailPolicy = "keep",
    min_tail_seconds: float | None = None,
) -> SegmentSpec:
    """Turn what the user asked for into a grid in samples.

    Settings that cannot change a cut are left out of the spec, so that they do
    not divide stores: the tail policy of whole tracks, the shortest tail under
    ``drop``.

    Parameters
    ----------
    seconds
        Segment length, or ``full`` for one segment a track.
    min_samples
        Shortest input the encoder takes.
    hop_seconds
        From start to start, the length if None. Longer than the length leaves
        gaps: a way to sample long tracks sparsely.
    min_tail_seconds
        Shortest tail worth a segment; if None a second or a tenth of the
        length, whichever is longer, and at most the length.

    Raises
    ------
    UsageError
        If a value is out of range or looks like milliseconds.
    """
    if seconds == "full":
        if hop_seconds is not None:
            raise UsageError(
                f"hop is {hop_seconds!r} s, but whole tracks have none",
                hint="give a segment length in seconds, or leave out --hop",
            )
        return SegmentSpec(
            sample_rate_hz=sample_rate_hz, length_samples=0, hop_samples=0, min_samples=min_samples
        )
    length = round(_plausible_seconds(seconds, "segment length") * sample_rate_hz)
    if length < min_samples:
        raise UsageError(
            f"segment length is {seconds!r} s, {length} samples at {sample_rate_hz} Hz, "
            f"expected at least the {min_samples} samples that the encoder needs",
            hint=f"take {math.ceil(1000 * min_samples / sample_rate_hz) / 1000} s or more",
        )
    hop = length
    if hop_seconds is not None:
        hop = max(1, round(_plausible_seconds(hop_seconds, "hop") * sample_rate_hz))
    if tail == "drop":
        min_tail = 0
    elif min_tail_seconds is None:
        min_tail = min(length, max(sample_rate_hz, round(0.1 * length)))
    else:
        min_tail = _tail_samples(min_tail_seconds, seconds, sample_rate_hz)
    return SegmentSpec(
        sample_rate_hz=sample_rate_hz,
        length_samples=length,
        hop_samples=hop,
        tail=tail,
        min_tail_samples=min_tail,
        min_samples=min_samples,
    )


def slice_spec(
    seconds: float, *, least_share: float, sample_rate_hz: int, min_samples: int
) -> SegmentSpec:
    """Slices that are cut at a file's own rate and resampled one by one, the last one padded.

    Parameters
    ----------
    least_share
        Of a slice: a tail below it is dropped.

    Raises
    ------
    UsageError
        If samples cannot tell these numbers exactly, so that a file would be cut elsewhere.
    """
    length = round(seconds * sample_rate_hz)
    spec = SegmentSpec(
        sample_rate_hz=sample_rate_hz,
        length_samples=length,
        hop_samples=length,
        tail="pad",
        min_tail_samples=round(least_share * length),
        min_samples=min_samples,
        grid="file",
    )
    if spec.slices != (seconds, least_share):
        raise UsageError(
            f"slices of {seconds!r} s and {least_share!r} of one are no whole numbers of samples "
            f"at {sample_rate_hz} Hz"
        )
    return spec


def cut(n_samples: int, spec: SegmentSpec, *, track_id: str = "") -> tuple[Segment, ...]:
    """Cut a track of ``n_samples`` by the grid and its tail policy.

    A tail must be as long as the spec's shortest tail and the encoder's shortest
    input, under ``pad`` too: what would be mostly zeros is no segment. A track
    shorter than one segment is its only segment under every policy. Where the file
    was cut by its own grid, what was decoded ends with the last slice, and every tail
    is one.

    Returns
    -------
    in order of their starts, never empty.

    Raises
    ------
    AudioError
        ``too-short``, if the track is below the encoder's shortest input.

    Examples
    --------
    GTZAN's 30.013 s are three segments of 10 s, not four:

    >>> spec = segment_spec(10, sample_rate_hz=24_000, min_samples=1025)
    >>> len(cut(720_312, spec))
    3
    """
    if n_samples < spec.min_samples:
        rate = spec.sample_rate_hz
        raise AudioError(
            f"{_named(track_id)} has {n_samples} samples at {rate} Hz, expected at least the "
            f"{spec.min_samples} ({spec.min_samples / rate:.3f} s) that the encoder needs",
            hint="remove the track from the manifest, or check whether its file is complete",
            track_id=track_id,
            reason="too-short",
        )
    length, hop = spec.length_samples, spec.hop_samples
    if spec.is_full or n_samples <= length:
        return (Segment(0, n_samples),)
    n_full = 1 + (n_samples - length) // hop
    segments = [Segment(index * hop, length) for index in range(n_full)]
    start = n_full * hop
    n_tail = n_samples - start
    adds_samples = segments[-1].stop_sample < n_samples
    shortest = spec.min_tail_samples if spec.grid == "encoder" else 0
    long_enough = n_tail >= max(shortest, spec.min_samples)
    if spec.tail != "drop" and adds_samples and long_enough:
        segments.append(Segment(start, n_tail))
    return tuple(segments)


def coverage_samples(segments: Iterable[Segment]) -> int:
    """Count the samples that at least one segment has, overlap once.

    Examples
    --------
    >>> coverage_samples([Segment(0, 10), Segment(5, 10), Segment(20, 5)])
    20
    """
    covered = stop = 0
    for segment in sorted(segments, key=lambda segment: segment.start_sample):
        covered += max(0, segment.stop_sample - max(stop, segment.start_sample))
        stop = max(stop, segment.stop_sample)
    return covered


class Sliceable(Protocol):
    """Samples of a track: an array, or a file that is read by slices."""

    def __getitem__(self, piece: slice, /) -> np.ndarray: ...


def covered_samples(
    starts: npt.NDArray[np.integer[Any]], counts: npt.NDArray[np.integer[Any]]
) -> int:
    """Count the samples that at least one segment has, from arrays; starts never fall.

    Examples
    --------
    >>> covered_samples(np.array([0, 5]), np.array([10, 10]))
    15
    """
    if len(starts) == 0:
        return 0
    stops = starts + counts
    seen = np.concatenate([[0], np.maximum.accumulate(stops)[:-1]])
    return int(np.maximum(0, stops - np.maximum(starts, seen)).sum())


def take(samples: Sliceable, segment: Segment, spec: SegmentSpec) -> np.ndarray:
    """Read one segment of a track.

    Parameters
    ----------
    samples : of shape (n_samples,)
        The whole track.

    Returns
    -------
    what the slice gives, of an array a view; under ``pad`` a copy with zeros up to
    ``length_samples`` where short.
    """
    piece = samples[segment.start_sample : segment.stop_sample]
    if spec.tail == "pad" and len(piece) < spec.length_samples:
        return np.pad(piece, (0, spec.length_samples - len(piece)))
    return piece


def _plausible_seconds(seconds: float, subject: str) -> float:
    """Return a positive number of seconds up to an hour."""
    if 0 < seconds <= LONGEST_SECONDS:
        return seconds
    if seconds > LONGEST_SECONDS and math.isfinite(seconds):
        may_be_milliseconds = seconds / 1000 <= LONGEST_SECONDS
        raise UsageError(
            f"{subject} of {seconds!r} s is longer than an hour"
            + (": milliseconds?" if may_be_milliseconds else ""),
            hint=f"give seconds, as {seconds / 1000 if may_be_milliseconds else 10:g}; "
            "'full' takes whole tracks",
        )
    raise UsageError(
        f"{subject} is {seconds!r} s, expected a positive number",
        hint="give seconds, as 10 or 0.5",
    )


def _tail_samples(min_tail: float, length: float, sample_rate_hz: int) -> int:
    """Return the shortest tail in samples, at most the segment length."""
    if 0 <= min_tail <= length:
        return round(min_tail * sample_rate_hz)
    suspicion = ": milliseconds?" if min_tail >= 100 else ""
    raise UsageError(
        f"shortest tail is {min_tail!r} s, expected 0 to the segment length {length!r} s"
        + suspicion,
        hint="--tail drop keeps full segments only; --min-tail 0 keeps every tail",
    )


def _named(track_id: str) -> str:
    return f"track {track_id!r}" if track_id else "the track"
