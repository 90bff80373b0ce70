"""Collect decoded blocks into one mono signal at the encoder's rate, and facts on the way.

Conventions
-----------
Blocks are (frames, channels) float32 at the file's rate; frames are counted at
that rate, samples at the encoder's. Resampling (soxr, HQ) streams, and its
result does not depend on how the signal is blocked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import soxr

from tune_cache.audio.failures import failure
from tune_cache.audio.samples import Collected, SpooledSamples
from tune_cache.audio.slices import Slicer
from tune_cache.specs import ChannelRule

__all__ = [
    "LONGEST_SECONDS",
    "RESAMPLER",
    "TOLERANCE_SECONDS",
    "AudioFacts",
    "Blocks",
    "DecodedAudio",
    "Mono",
    "Reading",
    "check_limits",
]

RESAMPLER = "soxr-hq"
MAX_CHANNELS = 32
MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 384_000
TOLERANCE_SECONDS = 0.25  # headers of healthy mp3, Vorbis and Opus files are off by up to 0.19 s
SILENT_PEAK = 1e-5  # −100 dB re full scale, below one step of 16 bits
LOUD_PEAK = 16.0  # no mastering gets there
MAX_PEAK = 1e10  # 32-bit integers as floats stay below; beyond it powers overflow
PREALLOCATED_SECONDS = 3600  # a header may ask for this much memory, not for more
LONGEST_SECONDS = 6 * 3600  # as decoded; a spool file has no other bound, 2 GB at 24 kHz


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioFacts:
    """What decoding a file showed.

    Parameters
    ----------
    sample_rate_hz, n_channels
        Of the file; of its first stream if it is a chain.
    n_frames
        Decoded, at the file's rate.
    header_frames
        What the header promised; None if it says nothing.
    n_samples
        At the encoder's rate, round(n_frames · target / source); of slices, up to the
        end of the last.
    peak
        Largest magnitude of the mono signal before resampling.
    n_nonfinite
        NaN and infinite mono samples; 0 in whatever :func:`decode` returns.
    decoder
        ``libsndfile`` or ``ffmpeg``.
    container
        By content, as ``wav``.
    notes
        What is odd but no reason to refuse, in sentences' parts.
    """

    sample_rate_hz: int
    n_channels: int
    n_frames: int
    header_frames: int | None
    n_samples: int
    peak: float
    is_silent: bool
    n_nonfinite: int
    decoder: str
    container: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedAudio:
    """A track's samples, (n_samples,) float32, and the facts about its file.

    Parameters
    ----------
    samples
        An array, or a file to take slices of where the track is long.
    seconds
        Of wall-clock that decoding took.
    peak_rss_bytes
        Resident memory of the decoder process at its worst so far; 0 where the
        file was decoded in the process that asks.
    """

    samples: np.ndarray | SpooledSamples
    facts: AudioFacts
    seconds: float = 0.0
    peak_rss_bytes: int = 0


@dataclass(slots=True)
class Reading:
    """What a decoder says besides samples, filled in while it reads."""

    decoder: str
    rate_hz: int = 0  # known as soon as the header is understood
    header_frames: int | None = None
    notes: list[str] = field(default_factory=list)


# blocks of (frames, channels) float32 with their rate, which a chained file may change
Blocks = Iterator[tuple[int, np.ndarray]]


class Mono:
    """Collects blocks into one mono signal at the target rate, and facts on the way.

    Parameters
    ----------
    slices
        Seconds and least share to cut the signal by before it is resampled.
    samples
        Where they go; into memory if None.
    on_progress
        Called with every number of samples taken.
    """

    def __init__(
        self,
        target_hz: int,
        channels: ChannelRule,
        reading: Reading,
        *,
        slices: tuple[float, float] | None = None,
        samples: Collected | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._slicer = None if slices is None else Slicer(*slices, target_hz)
        self._slices = slices
        self.target_hz = target_hz
        self.channels = channels
        self.reading = reading
        self.rate_hz = self.n_channels = self.n_frames = self.n_nonfinite = 0
        self.peak = self.channel_peak = 0.0
        self._samples = samples or Collected()
        self._on_progress = on_progress or (lambda n_samples: None)

    @property
    def seconds(self) -> str:
        return f"{self.n_frames / (self.rate_hz or 1):.1f} s"

    def is_shorter_than(self, n_frames: int) -> bool:
        """Whether there are more frames than this one has, beyond what decoders differ by."""
        return n_frames > self.n_frames + TOLERANCE_SECONDS * self.rate_hz

    @property
    def promised(self) -> str:
        frames = self.reading.header_frames
        return f"{frames / self.reading.rate_hz:.1f} s" if frames else "an unknown length"

    def drain(self, blocks: Blocks) -> None:
        """Take all blocks; what was taken stays, and is complete, if they raise."""
        resampler, resampled_hz = None, 0
        try:
            for rate_hz, block in blocks:
                if rate_hz != resampled_hz:
                    check_limits(rate_hz, block.shape[1])
                    self._flush(resampler)
                    resampler, resampled_hz = None, rate_hz
                    if rate_hz != self.target_hz and self._slicer is None:
                        resampler = soxr.ResampleStream(
                            rate_hz, self.target_hz, 1, dtype="float32", quality="HQ"
                        )
                    self.rate_hz = self.rate_hz or rate_hz
                    self.n_channels = self.n_channels or block.shape[1]
                mono = self._reduce(block)
                if self._slicer is not None:
                    for piece in self._slicer.take(mono, rate_hz):
                        self._append(piece)
                    continue
                self._append(mono if resampler is None else resampler.resample_chunk(mono))
        finally:
            self._flush(resampler)
            for piece in self._slicer.finish() if self._slicer is not None else ():
                self._append(piece)

    def result(self, container: str) -> DecodedAudio:
        """Return samples and facts, or say why they are not fit for use."""
        if self.n_frames == 0:
            raise failure("empty", "has no samples")
        if self.n_nonfinite:
            raise failure(
                "non-finite",
                f"has {self.n_nonfinite} NaN or infinite samples among {self.n_frames}",
            )
        if self.peak > MAX_PEAK:
            raise failure("non-finite", f"peaks at {self.peak:.3g}, where full scale is 1")
        if self._slices is not None and not self._samples.n_samples:
            seconds, share = self._slices
            raise failure(
                "too-short",
                f"has {self.seconds}, expected at least {share:g} of a slice of {seconds:g} s",
            )
        notes = list(self.reading.notes)
        if self._slicer is not None and self._slicer.n_dropped:
            n_seconds = self._slicer.n_dropped / self.rate_hz
            notes.append(f"its last {n_seconds:.1f} s are too short for a slice")
        header_frames = self.reading.header_frames
        tolerance = TOLERANCE_SECONDS * self.rate_hz
        if header_frames is not None and abs(header_frames - self.n_frames) > tolerance:
            notes.insert(0, f"header says {self.promised}, decoded {self.seconds}")
        if self.peak > LOUD_PEAK:
            notes.append(f"peaks at {self.peak:.3g}, where full scale is 1: integers as floats?")
        is_silent = self.peak < SILENT_PEAK
        if is_silent and self.channel_peak >= SILENT_PEAK:
            notes.append(f"channels peak at {self.channel_peak:.2g} but cancel when mixed")
        facts = AudioFacts(
            sample_rate_hz=self.rate_hz,
            n_channels=self.n_channels,
            n_frames=self.n_frames,
            header_frames=header_frames,
            n_samples=self._samples.n_samples,
            peak=self.peak,
            is_silent=is_silent,
            n_nonfinite=self.n_nonfinite,
            decoder=self.reading.decoder,
            container=container,
            notes=tuple(notes),
        )
        return DecodedAudio(samples=self._samples.result(), facts=facts)

    def _reduce(self, block: np.ndarray) -> np.ndarray:
        """Apply the channel rule to a block and take note of its level."""
        n_frames, n_channels = block.shape
        mono = np.ascontiguousarray(block[:, 0])
        if self.channels == "mix" and n_channels > 1:
            self.channel_peak = max(self.channel_peak, float(block.max()), -float(block.min()))
            with np.errstate(over="ignore", invalid="ignore"):  # counted below
                for channel in range(1, n_channels):
                    mono += block[:, channel]
            mono /= n_channels
        self.n_frames += n_frames
        peak = max(float(mono.max()), -float(mono.min()))
        if not np.isfinite(peak):
            self.n_nonfinite += int(np.count_nonzero(~np.isfinite(mono)))
        self.peak = max(self.peak, peak)
        return mono

    def _flush(self, resampler: soxr.ResampleStream | None) -> None:
        """Take what a resampler still holds."""
        if resampler is not None:
            self._append(resampler.resample_chunk(np.empty(0, np.float32), last=True))

    def _append(self, piece: np.ndarray) -> None:
        """Hand samples on, up to the longest track."""
        if self._samples.n_samples + len(piece) > LONGEST_SECONDS * self.target_hz:
            raise failure("too-long", f"is longer than {LONGEST_SECONDS / 3600:g} hours")
        seconds = (self.reading.header_frames or 0) / self.rate_hz
        expected = int(min(seconds, PREALLOCATED_SECONDS) * self.target_hz) + 1
        self._samples.append(piece, expected=expected)
        self._on_progress(len(piece))


def check_limits(rate_hz: int, n_channels: int) -> None:
    """Refuse what is no recording before memory is taken for it."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise failure("bad-rate", f"has {rate_hz} Hz, expected {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")
    if n_channels > MAX_CHANNELS:
        raise failure(
            "too-many-channels", f"has {n_channels} channels, expected {MAX_CHANNELS} at most"
        )
