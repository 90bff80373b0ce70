"""Which files are opened at all, and what their bytes (not their names) say they are.

Conventions
-----------
Containers are named by :data:`CONTAINERS`, an allow-list; libsndfile's raw and
instrument formats, playlists and everything else that can point elsewhere are
outside it. Offsets are bytes. What follows the format: ISO 11172-3 2.4.2.3
(MPEG audio headers), RFC 3533 section 6 (Ogg pages), id3.org v2.4 section 3.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tune_cache.audio.failures import failure

__all__ = ["CONTAINERS", "OPEN_ENDED", "mpeg_samples", "ogg_links", "open_regular", "sniff"]

# name here → FFmpeg's demuxer; it is forced, so that FFmpeg never guesses a playlist
CONTAINERS = {
    "wav": "wav",
    "w64": "w64",
    "aiff": "aiff",
    "au": "au",
    "caf": "caf",
    "flac": "flac",
    "ogg": "ogg",
    "mp3": "mp3",
    "aac": "aac",
    "mp4": "mov",
    "matroska": "matroska",
    "asf": "asf",
}
# their headers give no length, or a guess
OPEN_ENDED = ("mp3", "ogg", "aac")
JUNK_BYTES = 1 << 16  # how far a first (or next) MPEG frame is searched
MPEG_CHAIN = 3  # headers in a row that make MPEG audio; chance gives one in 10^9 files


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file, and nothing else, for reading; never blocks on a FIFO.

    Yields
    ------
    a file descriptor.

    Raises
    ------
    AudioError
        ``missing``, ``permission``, ``not-a-file``, ``unreadable`` or ``empty``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        dangling = path.is_symlink()
        raise failure("missing", "is a link to nothing" if dangling else "is missing") from error
    except PermissionError as error:
        raise failure("permission", "may not be read by this user") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        is_socket = isinstance(error, OSError) and error.errno == errno.ENXIO
        reason = "not-a-file" if is_socket else "unreadable"
        raise failure(reason, f"cannot be opened: {error}") from error
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise failure("not-a-file", "is a folder, pipe or device, expected a regular file")
        if facts.st_size == 0:
            raise failure("empty", "has no bytes")
        yield descriptor
    finally:
        os.close(descriptor)


def sniff(descriptor: int) -> str:
    """Tell the container from the bytes.

    Returns
    -------
    a key of :data:`CONTAINERS`.

    Raises
    ------
    AudioError
        ``not-audio``.
    """
    start = _after_id3(descriptor)
    head = os.pread(descriptor, 12, start)
    first, kind = head[:4], head[8:12]
    if first in (b"RIFF", b"RIFX", b"RF64") and kind == b"WAVE":
        return "wav"
    if first == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:2] == b"\xff\xf1" or head[:2] == b"\xff\xf9":
        return "aac"
    named = {
        b"fLaC": "flac",
        b"OggS": "ogg",
        b"caff": "caf",
        b".snd": "au",
        b"riff": "w64",
        b"\x1a\x45\xdf\xa3": "matroska",
        b"\x30\x26\xb2\x75": "asf",
    }
    if first in named:
        return named[first]
    if _next_mpeg_frame(descriptor, start) is not None:
        return "mp3"
    raise failure("not-audio", f"is not audio that is known here: it begins with {head!r}")


def mpeg_samples(descriptor: int) -> int:
    """Count the samples of an mp3 from its frames, whatever its header claims.

    Junk between frames is stepped over. The encoder's delay and padding are
    counted, so that up to about 3,000 samples are not music.
    """
    n_samples = 0
    offset = _next_mpeg_frame(descriptor, _after_id3(descriptor))
    while offset is not None:
        frame = _mpeg_frame(os.pread(descriptor, 4, offset))
        if frame is None:
            offset = _next_mpeg_frame(descriptor, offset)
            continue
        n_bytes, n_frame_samples = frame
        n_samples += n_frame_samples
        offset += n_bytes
    return n_samples


def ogg_links(descriptor: int) -> tuple[list[tuple[int, int]], bool]:
    """Find the links of a chained Ogg file, complete streams one after another.

    Returns
    -------
    where each begins and ends; and whether the last page says that the stream
    ends with it.
    """
    starts, offset, in_data, ends = [0], 0, False, False
    while len(page := os.pread(descriptor, 27, offset)) == 27 and page[:4] == b"OggS":
        begins_stream, ends = bool(page[5] & 2), bool(page[5] & 4)
        if begins_stream and in_data:  # streams side by side all begin before any data
            starts.append(offset)
        in_data = not begins_stream
        offset += 27 + page[26] + sum(os.pread(descriptor, page[26], offset + 27))
    n_bytes = os.fstat(descriptor).st_size
    return list(itertools.pairwise([*starts, n_bytes])), ends and offset <= n_bytes


def _after_id3(descriptor: int) -> int:
    """Offset behind the ID3v2 tags at the start."""
    offset = 0
    while (tag := os.pread(descriptor, 10, offset))[:3] == b"ID3" and len(tag) == 10:
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
        )
        offset += 10 + size + (10 if tag[5] & 0x10 else 0)
    return offset


_KBITS = {  # (is MPEG 1, layer) → kbit/s by index; layer 1 is not met in music files
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def _mpeg_frame(header: bytes) -> tuple[int, int] | None:
    """Bytes and samples of the MPEG audio frame with this header, None if it is none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version = (header[1] >> 3) & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    layer = 4 - ((header[1] >> 1) & 3)
    bitrate, rate = header[2] >> 4, (header[2] >> 2) & 3
    if version == 1 or layer not in (2, 3) or bitrate in (0, 15) or rate == 3:
        return None
    rate_hz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    kbits = _KBITS[version == 3, layer][bitrate - 1]
    n_samples = 576 if version != 3 and layer == 3 else 1152
    return n_samples // 8 * kbits * 1000 // rate_hz + ((header[2] >> 1) & 1), n_samples


def _next_mpeg_frame(descriptor: int, offset: int) -> int | None:
    """Offset of the first run of MPEG frames near ``offset``, None if there is none."""
    near = os.pread(descriptor, JUNK_BYTES, offset)
    end = os.fstat(descriptor).st_size
    at = near.find(b"\xff")
    while at >= 0:
        position, n_headers = offset + at, 0
        while n_headers < MPEG_CHAIN and position < end:
            frame = _mpeg_frame(os.pread(descriptor, 4, position))
            if frame is None:
                break
            position += frame[0]
            n_headers += 1
        if n_headers == MPEG_CHAIN or (n_headers and position == end):
            return offset + at
        at = near.find(b"\xff", at + 1)
    return None
