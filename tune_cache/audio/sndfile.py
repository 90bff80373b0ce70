"""Read and write with libsndfile.

Conventions
-----------
Blocks as in :mod:`tune_cache.audio.mono`. A chained Ogg file is read link by
link, since libsndfile itself stops after the first.
"""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tune_cache.audio.containers import ogg_links
from tune_cache.audio.mono import Blocks, Reading, check_limits
from tune_cache.errors import UsageError

__all__ = [
    "SoundFileError",
    "said",
    "sndfile_blocks",
    "sndfile_seconds",
    "write_flac",
    "write_wav",
]

BLOCK_FRAMES = 1 << 16
SoundFileError = soundfile.SoundFileError


def sndfile_seconds(descriptor: int) -> float | None:
    """Duration that the header claims."""
    with _stream(descriptor) as file:
        return float(file.frames / file.samplerate)


def write_wav(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write mono float32 WAV, exactly the samples given."""
    soundfile.write(path, samples, sample_rate_hz, format="WAV", subtype="FLOAT")


def write_flac(path: Path, samples: np.ndarray, sample_rate_hz: int) -> None:
    """Write mono 16-bit FLAC.

    Raises
    ------
    UsageError
        If a sample lies outside ±1, which would be clipped.
    """
    peak = float(np.abs(samples).max(initial=0))
    if not peak <= 1:
        raise UsageError(
            f"samples for {str(path)!r} peak at {peak!r}, expected at most 1",
            hint="scale them, or use write_wav, which keeps any level",
        )
    soundfile.write(path, samples, sample_rate_hz, format="FLAC", subtype="PCM_16")


class _Stream(soundfile.SoundFile):  # type: ignore[misc]  # soundfile ships no types
    """A file that is read straight on.

    ``SoundFile.read`` seeks behind every block if it may, and an mp3 decoder
    forgets its state there: samples then depend on the size of the blocks, by up
    to 1e-3. (``SoundFile.blocks`` in turn fills a short last block with whatever
    is in memory.)
    """

    def seekable(self) -> bool:
        return False


class _Part(io.RawIOBase):
    """A stretch of a file as a file of its own, for links of a chain."""

    def __init__(self, descriptor: int, start: int, stop: int) -> None:
        self._descriptor, self._start, self._stop = descriptor, start, stop
        self._at = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._stop}[whence]
        self._at = max(self._start, base + offset)
        return self._at - self._start

    def readinto(self, target: Any) -> int:
        n_wanted = min(len(target), max(0, self._stop - self._at))
        n_read = os.preadv(self._descriptor, [memoryview(target)[:n_wanted]], self._at)
        self._at += n_read
        return n_read


def _stream(descriptor: int) -> _Stream:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return _Stream(descriptor, closefd=False)


# libsndfile's log of a size field that runs over the end of the file
_CORRECTION = re.compile(r"(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)")
UNKNOWN_FRAMES = 1 << 62  # FLAC from a pipe
STREAMED_BYTES = 0x7FFF_0000  # sizes from here on are written by encoders that do not know them


def sndfile_blocks(descriptor: int, container: str, reading: Reading) -> Blocks:
    """Read all links of a file with libsndfile."""
    links, is_complete = ogg_links(descriptor) if container == "ogg" else ([(0, 0)], True)
    if not is_complete:
        reading.notes.append("the last page is missing: cut off?")
    if len(links) > 1:
        reading.notes.append(f"{len(links)} streams in a chain")
    for link in links:
        is_whole = len(links) == 1
        with _stream(descriptor) if is_whole else _Stream(_Part(descriptor, *link)) as file:
            check_limits(file.samplerate, file.channels)
            reading.rate_hz = reading.rate_hz or file.samplerate
            if file.frames < UNKNOWN_FRAMES:
                reading.header_frames = (reading.header_frames or 0) + _promised_frames(file)
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield file.samplerate, block


def _promised_frames(file: soundfile.SoundFile) -> int:
    """Frames that the header promises, where libsndfile has corrected it by the file's size."""
    for claimed, present in _CORRECTION.findall(file.extra_info):
        if 0 < int(present) < int(claimed) < STREAMED_BYTES:
            return int(file.frames) * int(claimed) // int(present)
    return int(file.frames)


def said(error: Exception) -> str:
    """What a decoder complained of, without the file's name."""
    text = getattr(error, "error_string", "") or str(error)
    return text.strip().rstrip(".") or f"error {getattr(error, 'code', '')}".strip()
