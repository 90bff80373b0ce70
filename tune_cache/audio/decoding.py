"""Decode a file to mono float32: which decoder, and what becomes of damage.

Conventions
-----------
libsndfile decodes what it can, FFmpeg (PyAV) the rest. Where libsndfile finds
nothing or breaks off in a lossy stream, or yields clearly less of an mp3 than
its frames hold, FFmpeg is asked too and the longer wins. A file that holds less
than its header promises, or a lossless stream that breaks in the middle, is
``truncated``; mp3, Ogg and AAC, which promise nothing exactly and are made to
be cut anywhere, are used as far as they go, with a note.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from tune_cache.audio.containers import OPEN_ENDED, mpeg_samples, open_regular, sniff
from tune_cache.audio.failures import about, failure
from tune_cache.audio.ffmpeg import ffmpeg_blocks, ffmpeg_seconds
from tune_cache.audio.mono import DecodedAudio, Mono, Reading
from tune_cache.audio.samples import Collected, Spilling, SpoolError
from tune_cache.audio.sndfile import SoundFileError, said, sndfile_blocks, sndfile_seconds
from tune_cache.errors import AudioError
from tune_cache.specs import ChannelRule

__all__ = ["DECODER", "decode", "header_seconds"]

DECODER = "libsndfile+ffmpeg-1"  # family and version of the rules above, part of a store's key
FFMPEG_ONLY = ("mp4", "aac", "matroska", "asf")

StartMono = Callable[[str], Mono]  # decoder's name → where its blocks go


def decode(
    path: Path,
    *,
    sample_rate_hz: int,
    channels: ChannelRule = "mix",
    slices: tuple[float, float] | None = None,
    track_id: str = "",
    spilling: Spilling | None = None,
    keep_samples: bool = True,
    on_progress: Callable[[int], None] | None = None,
) -> DecodedAudio:
    """Decode a file as a whole.

    A minute takes 5.8 MB at 24 kHz and, while decoding, a block more; under
    ``spilling`` only up to its limit, whatever the length.

    Parameters
    ----------
    channels
        ``mix`` averages the channels, ``first`` takes the first and ignores
        what is in the others.
    slices
        Cut at the file's own rate into pieces of so many seconds, a tail kept if it is
        so large a share of one, and resample each by itself; see
        :mod:`tune_cache.audio.slices`. None takes the track as one signal.
    spilling
        Where samples go that are too many for memory; they stay there if None.
        Samples are the same either way.
    keep_samples
        False for the facts alone.
    on_progress
        Called with every number of samples decoded.

    Raises
    ------
    AudioError
        With one of the :data:`~tune_cache.audio.REASONS`.
    OSError
        If the spool file cannot be written: the disk is full, say.
    """

    def start(decoder: str) -> Mono:
        samples = Collected(spilling, keep=keep_samples)
        reading = Reading(decoder)
        return Mono(
            sample_rate_hz,
            channels,
            reading,
            slices=slices,
            samples=samples,
            on_progress=on_progress,
        )

    began = time.perf_counter()
    try:
        with open_regular(path) as descriptor:
            decoded = _decode(descriptor, start)
        return dataclasses.replace(decoded, seconds=time.perf_counter() - began)
    except SpoolError as trouble:
        # a new one: an error that is its own cause keeps the file open
        raise OSError(trouble.error.errno, trouble.error.strerror) from trouble
    except AudioError as error:
        raise about(path, track_id, error) from error.__cause__
    except MemoryError as error:
        refusal = failure("memory", "needs more memory than there is")
        raise about(path, track_id, refusal) from error
    except OSError as error:
        refusal = failure("unreadable", f"cannot be read: {error}")
        raise about(path, track_id, refusal) from error


def header_seconds(path: Path) -> float | None:
    """Read the duration a file's header claims: cheap, for planning, not to be relied on.

    Returns
    -------
    None where nothing is claimed, or the file cannot be opened.
    """
    try:
        with open_regular(path) as descriptor:
            container = sniff(descriptor)
            if container in FFMPEG_ONLY:
                return ffmpeg_seconds(descriptor, container)
            return sndfile_seconds(descriptor)
    except (AudioError, OSError, SoundFileError, ZeroDivisionError):
        return None


def _decode(descriptor: int, start: StartMono) -> DecodedAudio:
    """Decode an open file by the rules of the module."""
    container = sniff(descriptor)
    if container in FFMPEG_ONLY:
        mono = _by_ffmpeg(descriptor, container, start)
    else:
        mono = _by_libsndfile(descriptor, container, start)
    promised = mono.reading.header_frames
    if promised is not None and container not in OPEN_ENDED and mono.is_shorter_than(promised):
        raise failure("truncated", f"ends after {mono.seconds}, its header says {mono.promised}")
    return mono.result(container)


def _by_libsndfile(descriptor: int, container: str, start: StartMono) -> Mono:
    mono = start("libsndfile")
    complaint = ""
    try:
        mono.drain(sndfile_blocks(descriptor, container, mono.reading))
    except SoundFileError as error:
        complaint = said(error)
        if mono.reading.rate_hz and container not in OPEN_ENDED:
            found = f"breaks off after {mono.seconds}, its header says {mono.promised}: {complaint}"
            raise failure("truncated", found) from error
    held = mpeg_samples(descriptor) if container == "mp3" else 0
    if complaint or not mono.n_frames or mono.is_shorter_than(held):
        return _longer(mono, descriptor, container, complaint, start)
    return mono


def _longer(mono: Mono, descriptor: int, container: str, complaint: str, start: StartMono) -> Mono:
    """Ask FFmpeg too; return its decoding if it is clearly longer."""
    try:
        other = _by_ffmpeg(descriptor, container, start)
    except AudioError as error:
        if error.reason == "too-long":
            raise
        if complaint and not mono.n_frames:
            found = f"is {container} that neither decoder takes: {complaint}; {error.message}"
            raise failure("unreadable", found) from error
        complaint, other = f"{complaint}; FFmpeg: {error.message}", None
    if other is not None and mono.is_shorter_than(other.n_frames):
        if mono.n_frames:
            found = f"libsndfile decoded {mono.seconds}, FFmpeg {other.seconds}"
            other.reading.notes.append(found)
            other.reading.header_frames = mono.reading.header_frames
        return other
    if complaint:
        mono.reading.notes.append(f"libsndfile broke off: {complaint}")
    return mono


def _by_ffmpeg(descriptor: int, container: str, start: StartMono) -> Mono:
    mono = start("ffmpeg")
    mono.drain(ffmpeg_blocks(descriptor, container, mono.reading))
    return mono
