"""A factory of audio files that go wrong, each with what must come of it.

Every case says either the reason code with which the file is refused, or the
seconds of sound that it holds and, where something is odd, the note about it.
The sound is a tone of 440 Hz in noise, never silent, so that zeros would show.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

RATE = 22_050
SECONDS = 3.0


@dataclass(frozen=True)
class Case:
    """One hostile file: ``make`` writes into a folder and returns the path to decode."""

    id: str
    make: Callable[[Path], Path]
    reason: str = ""
    seconds: float = SECONDS
    note: str = ""
    is_silent: bool = False


def sound(seconds: float = SECONDS, rate: int = RATE, n_channels: int = 1) -> np.ndarray:
    """Frames by channels, all channels the same."""
    rng = np.random.default_rng(7)
    time = np.arange(round(seconds * rate)) / rate
    mono = 0.4 * np.sin(2 * np.pi * 440 * time) + rng.uniform(-0.1, 0.1, len(time))
    return np.repeat(mono[:, None], n_channels, axis=1)


def encoded(kind: str, subtype: str | None = None, rate: int = RATE, **of_sound) -> bytes:
    """A healthy file's bytes by libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, sound(rate=rate, **of_sound), rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def encoded_by_ffmpeg(kind: str, codec: str, rate: int = RATE, **options: str) -> bytes:
    """A healthy file's bytes by FFmpeg."""
    import av

    with tempfile.NamedTemporaryFile() as temporary:  # some options read what was written
        with av.open(temporary.name, "w", format=kind, options=options) as file:
            stream = file.add_stream(codec, rate=rate)
            stream.layout = "mono"
            stream.bit_rate = 96_000
            resampler = av.AudioResampler(stream.format.name, "mono", rate, stream.frame_size)
            frame = av.AudioFrame.from_ndarray(
                sound(rate=rate).T.astype(np.float32), format="flt", layout="mono"
            )
            frame.sample_rate = rate
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(stream.encode(part))
            file.mux(stream.encode(None))
        return Path(temporary.name).read_bytes()


def vbr_mp3() -> bytes:
    """Quiet, loud, quiet: bit rates that mislead who extrapolates from the first frames."""
    frames = sound(9.0)
    frames[: 3 * RATE] *= 1e-3
    frames[6 * RATE :] *= 1e-3
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer,
        "w",
        RATE,
        1,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",
        compression_level=0.3,
    ) as file:
        file.write(frames)
    return buffer.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """Cut off the first frame, which holds the Xing header and no sound."""
    assert b"Xing" in mp3[:200]
    return mp3[mp3.index(mp3[:2], 4) :]


def wav_saying(n_data_bytes: int) -> bytes:
    """A WAV whose data chunk claims another size than it has."""
    wav = bytearray(encoded("WAV", "PCM_16"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", n_data_bytes)
    wav[4:8] = struct.pack("<I", min(n_data_bytes + 36, 0xFFFF_FFFF))
    return bytes(wav)


def float_wav(*values: float, subtype: str = "FLOAT") -> bytes:
    """A float WAV with ``values`` in its middle."""
    frames = sound()
    frames[RATE : RATE + len(values), 0] = values
    buffer = io.BytesIO()
    soundfile.write(buffer, frames, RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


def pcm_wav(n_channels: int, rate: int) -> bytes:
    """A WAV by hand, with what libsndfile would refuse to write."""
    data = b"\1\2" * (n_channels * 1000)
    form = struct.pack("<HHIIHH", 1, n_channels, rate, rate * 2 * n_channels, 2 * n_channels, 16)
    body = (
        b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flac_of_ten_hours() -> bytes:
    """Three seconds with a header that would take 3.5 GB."""
    flac = bytearray(encoded("FLAC"))
    n_frames = 36_000 * RATE  # 36 bits, the last of them in bytes 21 to 25
    flac[21] = (flac[21] & 0xF0) | (n_frames >> 32)
    flac[22:26] = (n_frames & 0xFFFF_FFFF).to_bytes(4, "big")
    return bytes(flac)


def flac_of_unknown_length() -> bytes:
    """As an encoder writes it into a pipe."""
    flac = bytearray(encoded("FLAC"))
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    return bytes(flac)


def flac_with_bad_md5() -> bytes:
    flac = bytearray(encoded("FLAC"))
    flac[26:42] = bytes(16 * [0xAB])  # the end of STREAMINFO
    return bytes(flac)


def flipped(content: bytes) -> bytes:
    """Damage in the middle, of the same length."""
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(byte ^ 0x5A for byte in content[middle : middle + 200])
        + (content[middle + 200 :])
    )


def mp4_without_sound() -> bytes:
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def _file(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content())
        return path

    return make


def _is(case: str, name: str, content: Callable[[], bytes], **expected) -> Case:
    return Case(case, _file(name, content), **expected)


def _antiphase() -> bytes:
    frames = sound(n_channels=2)
    frames[:, 1] *= -1
    buffer = io.BytesIO()
    soundfile.write(buffer, frames, RATE, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def _zeros(n_frames: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(n_frames), RATE, format="FLAC")
    return buffer.getvalue()


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


def _folder(folder: Path) -> Path:
    (folder / "folder.wav").mkdir()
    return folder / "folder.wav"


def _socket(folder: Path) -> Path:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.wav")
    finally:
        os.chdir(here)
    return folder / "socket.wav"


def _link(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "link.wav").symlink_to(target)
        return folder / "link.wav"

    return make


def _noise(n_bytes: int) -> bytes:
    return np.random.default_rng(3).bytes(n_bytes)


def _vorbis(rate: int = RATE, n_channels: int = 1) -> bytes:
    return encoded("OGG", "VORBIS", rate, n_channels=n_channels)


def _noisy_mp3() -> bytes:
    mp3 = encoded("MP3")
    return mp3[:9000] + _noise(3000) + mp3[9000:]


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


REFUSED = (
    Case("missing", lambda folder: folder / "nothing.wav", "missing"),
    Case("dangling link", _link("nowhere.wav"), "missing"),
    Case("link to itself", _link("link.wav"), "unreadable"),
    Case("name too long", lambda folder: folder / ("n" * 300 + ".wav"), "unreadable"),
    Case("NUL in the name", lambda folder: folder / "a\0b.wav", "unreadable"),
    Case("folder", _folder, "not-a-file"),
    Case("FIFO", _fifo, "not-a-file"),
    Case("socket", _socket, "not-a-file"),
    Case("device", lambda folder: Path("/dev/zero"), "not-a-file"),
    _is("no bytes", "a.wav", lambda: b"", reason="empty"),
    _is("header without samples", "a.wav", lambda: encoded("WAV", seconds=0), reason="empty"),
    _is("WAV cut behind its header", "a.wav", lambda: encoded("WAV")[:44], reason="empty"),
    _is("text", "a.mp3", lambda: b"this is no music\n" * 9000, reason="not-audio"),
    _is("UTF-16 text", "a.mp3", lambda: "ÿûmusic".encode("utf-16") * 500, reason="not-audio"),
    _is("noise", "a.wav", lambda: _noise(99_999), reason="not-audio"),
    _is("zeros", "a.wav", lambda: bytes(99_999), reason="not-audio"),
    _is("picture", "a.flac", lambda: b"\x89PNG\r\n\x1a\n" + bytes(999), reason="not-audio"),
    _is("one byte", "a.wav", lambda: b"R", reason="not-audio"),
    _is(
        "playlist that names a file",
        "a.m4a",
        lambda: b"#EXTM3U\n#EXTINF:9,\n/etc/hostname\n",
        reason="not-audio",
    ),
    _is("film without sound", "a.mp4", mp4_without_sound, reason="not-audio"),
    _is("half a FLAC", "a.flac", lambda: _half(encoded("FLAC")), reason="truncated"),
    _is("half a WAV", "a.wav", lambda: _half(encoded("WAV")), reason="truncated"),
    _is("half an AIFF", "a.aiff", lambda: _half(encoded("AIFF")), reason="truncated"),
    _is("header that lies", "a.wav", lambda: wav_saying(RATE * 2 * 12), reason="truncated"),
    _is("FLAC that lies", "a.flac", flac_of_ten_hours, reason="truncated"),
    _is("FLAC damaged inside", "a.flac", lambda: flipped(encoded("FLAC")), reason="truncated"),
    _is("header of a FLAC", "a.flac", lambda: encoded("FLAC")[:30], reason="unreadable"),
    _is("header of a WAV", "a.wav", lambda: encoded("WAV")[:20], reason="unreadable"),
    _is("header of an Ogg", "a.ogg", lambda: _vorbis()[:60], reason="unreadable"),
    _is(
        "index of an m4a lost",
        "a.m4a",
        lambda: _half(encoded_by_ffmpeg("mp4", "aac")),
        reason="unreadable",
    ),
    _is(
        "end of an m4a lost",
        "a.m4a",
        lambda: _half(encoded_by_ffmpeg("mp4", "aac", movflags="faststart")),
        reason="truncated",
    ),
    _is(
        "end of a webm lost",
        "a.webm",
        lambda: _half(encoded_by_ffmpeg("webm", "libopus", 48_000)),
        reason="truncated",
    ),
    _is("NaN", "a.wav", lambda: float_wav(np.nan), reason="non-finite"),
    _is("infinity", "a.wav", lambda: float_wav(np.inf, -np.inf), reason="non-finite"),
    _is("beyond float32", "a.wav", lambda: float_wav(1e300, subtype="DOUBLE"), reason="non-finite"),
    _is("beyond reason", "a.wav", lambda: float_wav(1e30), reason="non-finite"),
    _is("33 channels", "a.wav", lambda: pcm_wav(33, RATE), reason="too-many-channels"),
    _is("1 kHz", "a.wav", lambda: pcm_wav(1, 1000), reason="bad-rate"),
    _is("768 kHz", "a.wav", lambda: pcm_wav(1, 768_000), reason="bad-rate"),
)

DECODED = (
    *(
        _is(f"WAV {subtype}", "a.wav", lambda s=subtype: encoded("WAV", s))
        for subtype in (
            "PCM_U8",
            "PCM_16",
            "PCM_24",
            "PCM_32",
            "FLOAT",
            "DOUBLE",
            "ULAW",
            "MS_ADPCM",
        )
    ),
    *(
        _is(f"{rate} Hz", "a.wav", lambda r=rate: encoded("WAV", "PCM_16", r, seconds=1), seconds=1)
        for rate in (
            4000,
            8000,
            11_025,
            16_000,
            24_000,
            44_056,
            44_100,
            48_000,
            96_000,
            192_000,
            384_000,
        )
    ),
    *(
        _is(f"{kind} {subtype}", f"a.{kind.lower()}", lambda k=kind, s=subtype: encoded(k, s))
        for kind, subtype in (
            ("FLAC", "PCM_24"),
            ("AIFF", "PCM_16"),
            ("AU", "PCM_16"),
            ("CAF", "PCM_16"),
            ("W64", "PCM_16"),
            ("RF64", "PCM_16"),
            ("OGG", "VORBIS"),
            ("MP3", None),
        )
    ),
    _is("Opus", "a.opus", lambda: encoded("OGG", "OPUS", 48_000)),
    _is("16 channels", "a.wav", lambda: encoded("WAV", n_channels=16)),
    _is("32 channels", "a.wav", lambda: encoded("WAV", n_channels=32)),
    _is("wrong extension", "a.mp3", lambda: encoded("FLAC")),
    _is("no extension", "a", lambda: encoded("OGG", "VORBIS")),
    _is("m4a", "a.m4a", lambda: encoded_by_ffmpeg("mp4", "aac")),
    _is("aac", "a.aac", lambda: encoded_by_ffmpeg("adts", "aac")),
    _is("alac", "a.m4a", lambda: encoded_by_ffmpeg("mp4", "alac")),
    _is("webm", "a.webm", lambda: encoded_by_ffmpeg("webm", "libopus", 48_000)),
    _is("wma", "a.wma", lambda: encoded_by_ffmpeg("asf", "wmav2")),
    _is(
        "one sample",
        "a.wav",
        lambda: encoded("WAV", "FLOAT", 24_000, seconds=1 / 24_000),
        seconds=1 / 24_000,
    ),
    _is("exact silence", "a.flac", lambda: _zeros(3 * RATE), is_silent=True),
    _is("antiphase", "a.wav", _antiphase, is_silent=True, note="cancel when mixed"),
    _is("integers as floats", "a.wav", lambda: float_wav(32_000.0), note="full scale is 1"),
    _is("FLAC with a bad MD5", "a.flac", flac_with_bad_md5),
    _is("FLAC of unknown length", "a.flac", flac_of_unknown_length),
    _is("size unknown", "a.wav", lambda: wav_saying(0xFFFF_FFFF)),
    _is("size of zero", "a.wav", lambda: wav_saying(0)),
    _is(
        "half an Ogg", "a.ogg", lambda: _half(_vorbis()), seconds=0.66, note="last page is missing"
    ),
    _is(
        "half an mp3",
        "a.mp3",
        lambda: _half(encoded("MP3")),
        seconds=1.4,
        note="header says 3.0 s, decoded 1",
    ),
    _is("VBR mp3", "a.mp3", vbr_mp3, seconds=9),
    _is(
        "VBR mp3 without Xing header",
        "a.mp3",
        lambda: without_xing(vbr_mp3()),
        seconds=9,
        note="FFmpeg 9.1 s",
    ),
    _is("zeros before an mp3", "a.mp3", lambda: bytes(5000) + encoded("MP3")),
    _is("noise before an mp3", "a.mp3", lambda: _noise(5000) + encoded("MP3")),
    _is("noise behind an mp3", "a.mp3", lambda: encoded("MP3") + _noise(9000)),
    _is("noise inside an mp3", "a.mp3", _noisy_mp3, note="damaged packets left out"),
    _is("big ID3 tag", "a.mp3", lambda: b"ID3\4\0\0\0\x06\0\0" + bytes(6 << 14) + encoded("MP3")),
    _is(
        "chained Ogg",
        "a.ogg",
        lambda: _vorbis() + _vorbis(),
        seconds=6,
        note="2 streams in a chain",
    ),
    _is(
        "chain of other rates",
        "a.ogg",
        lambda: _vorbis() + _vorbis(16_000, 2),
        seconds=6,
        note="2 streams",
    ),
    *(
        _is(f"named {name!r}", name, lambda: encoded("WAV"))
        for name in (
            "new\nline.wav",
            "-rf.wav",
            "'\"`$(id).wav",
            "[bold]x[bold].wav",
            "\x1b[31m.wav",
            os.fsdecode(b"\xff\xfe.wav"),
            "http:..host.wav",
            "pipe:0.wav",
        )
    ),
    _is("m4a named like a protocol", "concat:a|b.m4a", lambda: encoded_by_ffmpeg("mp4", "aac")),
)
