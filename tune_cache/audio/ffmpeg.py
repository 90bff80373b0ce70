"""Read with FFmpeg what libsndfile cannot, or did not to its end.

Conventions
-----------
Blocks as in :mod:`tune_cache.audio.mono`. PyAV's wheel brings its own FFmpeg;
it is imported at the first file that needs it. The demuxer is forced and the
bytes come from an open descriptor, so that no name is taken for a protocol and
no playlist is followed. Damaged packets are left out, and counted in a note.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tune_cache.audio.containers import CONTAINERS, OPEN_ENDED
from tune_cache.audio.failures import failure
from tune_cache.audio.mono import Blocks, Reading, check_limits

__all__ = ["ffmpeg_blocks", "ffmpeg_seconds"]


def ffmpeg_seconds(descriptor: int, container: str) -> float | None:
    """Duration that the header claims, None if it claims none."""
    with _audio_stream(descriptor, container) as (_, _, seconds):
        return seconds


def ffmpeg_blocks(descriptor: int, container: str, reading: Reading) -> Blocks:
    """Decode the first audio stream.

    Raises
    ------
    AudioError
        ``unreadable``, or ``not-audio`` if there is no audio stream.
    """
    import av

    n_damaged = 0
    with _audio_stream(descriptor, container) as (file, stream, seconds):
        check_limits(stream.rate, stream.channels)
        reading.rate_hz = stream.rate
        if seconds is not None and container not in OPEN_ENDED:
            reading.header_frames = round(seconds * stream.rate)
        planar = av.AudioResampler(format="fltp")  # changes the sample type only
        packets = file.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = [part for frame in packet.decode() for part in planar.resample(frame)]
            except av.error.InvalidDataError:
                n_damaged += 1
                continue
            for frame in frames:
                yield frame.sample_rate, np.ascontiguousarray(frame.to_ndarray().T)
    if n_damaged:
        reading.notes.append(f"{n_damaged} damaged packets left out")


@contextmanager
def _audio_stream(descriptor: int, container: str) -> Iterator[tuple[Any, Any, float | None]]:
    """Open the file; gives it, its first audio stream, and the claimed seconds."""
    import av

    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        with av.open(io.FileIO(descriptor, closefd=False), format=CONTAINERS[container]) as file:
            if not file.streams.audio:
                raise failure("not-audio", f"is {container} without an audio stream")
            stream = file.streams.audio[0]
            if stream.codec_context is None:
                raise failure("unreadable", f"is {container} with an unknown codec")
            seconds = None
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            elif file.duration is not None:
                seconds = file.duration / av.time_base
            yield file, stream, seconds
    except (av.FFmpegError, ValueError) as error:  # ValueError: the format changes midway
        if isinstance(error, MemoryError):
            raise
        said = getattr(error, "strerror", None) or error
        raise failure("unreadable", f"cannot be decoded: {said}") from error
