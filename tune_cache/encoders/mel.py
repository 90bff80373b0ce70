"""A classical baseline without weights: log-mel, deltas, MFCC, texture.

Conventions
-----------
24 kHz like MuQ, so that one decoding serves both; centred frames of 2,048
samples every 480 (50 Hz), reflected at the ends. Power in decibel re 1, floor
−100 dB, never relative to a clip's own maximum. Four layers of 128 dimensions:
0 log-mel, 1 its speed of change, 2 cepstrum and its speed, 3 texture.

References
----------
S. Davis, P. Mermelstein, "Comparison of parametric representations …", IEEE
TASSP 28(4) 1980 (MFCC); M. Slaney, "Auditory Toolbox", Interval TR 1998-010
(mel scale); G. Tzanetakis, P. Cook, "Musical genre classification of audio
signals", IEEE TSAP 10(5) 2002 (texture windows); B. McFee et al., "librosa",
SciPy 2015 (conventions of the filters and of the deltas, which tests compare).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from tune_cache.encoders.base import (
    Encoder,
    EncoderInfo,
    Waveforms,
    check_waveforms,
    kept_layers,
    kept_poolings,
    sha256_file,
)
from tune_cache.errors import EncoderError
from tune_cache.specs import EncoderSpec, canonical_json, sha256_text

__all__ = ["ENCODER", "MelEncoder", "MelFactory", "mel_filters"]

SAMPLE_RATE = 24_000
N_FFT = 2048
HOP = 480
N_MELS = 128
N_CEPSTRA = N_MELS // 2
FLOOR = 1e-10  # power; −100 dB
DELTA_RADIUS = 4  # slope over 9 frames, 0.18 s
TEXTURE_RADIUS = 25  # 51 frames, 1 s
BLOCK_FRAMES = 256  # of spectra held at once; decides memory, and rounding, so it is fixed
BLOCK_BANDS = 16
ALGORITHM = 1
LAYERS = ("log-mel", "|delta log-mel|", "MFCC and |delta MFCC|", "texture")
MIN_SAMPLES = N_FFT // 2 + 1  # the shortest that can be reflected


class MelFactory:
    """Describes and makes :class:`MelEncoder`."""

    name = "mel"

    def describe(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        hash_file: Callable[[Path], str] = sha256_file,
    ) -> EncoderInfo:
        """Say what it is; ``hash_file`` has nothing to hash here."""
        _refuse_weights(path)
        return EncoderInfo(
            name=self.name,
            sample_rate=SAMPLE_RATE,
            n_layers=len(LAYERS),
            dim=N_MELS,
            frame_rate_hz=SAMPLE_RATE / HOP,
            min_samples=MIN_SAMPLES,
            spec=_spec(precision),
            citation="Davis and Mermelstein 1980; Tzanetakis and Cook 2002",
        )

    def load(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        device: str = "auto",
        layers: tuple[int, ...] | None = None,
        poolings: tuple[str, ...] = ("mean",),
        max_memory_bytes: int | None = None,
    ) -> Encoder:
        """Make it; it runs on the CPU whatever the device, in little memory.

        Raises
        ------
        EncoderError
            If a path to weights, or a precision other than fp32, is given.
        """
        _refuse_weights(path)
        return MelEncoder(_spec(precision), kept_layers(layers, len(LAYERS)), poolings)


class MelEncoder:
    """Four classical frame features, pooled over time."""

    name = MelFactory.name
    sample_rate = SAMPLE_RATE
    n_layers = len(LAYERS)
    dim = N_MELS
    frame_rate_hz = SAMPLE_RATE / HOP
    min_samples = MIN_SAMPLES

    def __init__(
        self, spec: EncoderSpec, layers: tuple[int, ...], poolings: tuple[str, ...]
    ) -> None:
        self._spec = spec
        self.layers = layers
        self.poolings = kept_poolings(poolings)

    def spec(self) -> EncoderSpec:
        """What identifies it."""
        return self._spec

    def embed(self, waveforms: Waveforms) -> dict[str, np.ndarray]:
        """Encode item by item, so that no sum depends on the batch.

        Memory grows with one item (150 kB a second beside its samples), not with the batch.

        Raises
        ------
        EncoderError
            If the batch has a wrong shape or dtype, is too short or not finite.
        """
        check_waveforms(waveforms, self)
        shape = (len(waveforms), len(self.layers), self.dim)
        pooled = {pooling: np.empty(shape, np.float32) for pooling in self.poolings}
        for item, waveform in enumerate(waveforms):
            log_mel = log_mel_spectrogram(waveform)
            for position, layer in enumerate(self.layers):
                frames = _layer_frames(log_mel, layer)
                for pooling, values in pooled.items():
                    values[item, position] = _pool(frames, pooling)
        return pooled


ENCODER = MelFactory()


@cache
def mel_filters() -> np.ndarray:
    """Triangles of equal area on Slaney's mel scale, 0 Hz to half the rate.

    Returns
    -------
    of shape (n_fft // 2 + 1, n_mels), float32
    """
    # linear below 1 kHz, 15 mel; above it 27 steps for a factor of 6.4
    step = np.log(6.4) / 27
    top = 15 + np.log(SAMPLE_RATE / 2 / 1000) / step
    mels = np.linspace(0, top, N_MELS + 2)
    edges_hz = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))
    bins_hz = np.arange(N_FFT // 2 + 1)[:, None] * (SAMPLE_RATE / N_FFT)
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    area = 2 / (high - low)
    return np.asarray(area * np.maximum(0, np.minimum(rising, falling)), np.float32)


def log_mel_spectrogram(waveform: np.ndarray) -> np.ndarray:
    """Compute mel power in decibel, a block of frames at a time.

    Returns
    -------
    of shape (1 + n_samples // 480, 128), float32
    """
    padded = np.pad(waveform, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP]
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)  # periodic
    filters = mel_filters()
    mel = np.empty((len(frames), N_MELS), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        block = slice(start, start + BLOCK_FRAMES)
        spectra = np.fft.rfft(frames[block] * window)
        mel[block] = (spectra.real**2 + spectra.imag**2) @ filters
    decibel = np.maximum(mel, np.float32(FLOOR), out=mel)
    np.log10(decibel, out=decibel)
    decibel *= 10
    return decibel


def _layer_frames(log_mel: np.ndarray, layer: int) -> np.ndarray:
    """Frame features of one layer, (n_frames, 128)."""
    if layer == 0:
        return log_mel
    if layer == 1:  # a signed slope would average to (end − start) / duration: nothing
        return np.asarray(np.abs(_slope(log_mel)))
    if layer == 2:
        cepstra = log_mel @ _dct()
        return np.concatenate([cepstra, np.abs(_slope(cepstra))], axis=1)
    return _local_std(log_mel, TEXTURE_RADIUS)


@cache
def _dct() -> np.ndarray:
    """First half of the orthonormal DCT-II, (n_mels, n_cepstra)."""
    angle = np.pi / N_MELS * np.outer(np.arange(N_MELS) + 0.5, np.arange(N_CEPSTRA))
    basis = np.sqrt(2 / N_MELS) * np.cos(angle)
    basis[:, 0] = np.sqrt(1 / N_MELS)
    return np.asarray(basis, np.float32)


def _slope(frames: np.ndarray) -> np.ndarray:
    """Least-squares slope per frame, end frames repeated beyond the ends."""
    n_frames = len(frames)
    padded = np.pad(frames, ((DELTA_RADIUS, DELTA_RADIUS), (0, 0)), mode="edge")
    slope = np.zeros(frames.shape, np.float32)
    for lag in range(1, DELTA_RADIUS + 1):
        ahead = padded[DELTA_RADIUS + lag : DELTA_RADIUS + lag + n_frames]
        behind = padded[DELTA_RADIUS - lag : DELTA_RADIUS - lag + n_frames]
        slope += lag * (ahead - behind)
    slope /= 2 * sum(lag * lag for lag in range(1, DELTA_RADIUS + 1))
    return slope


def _local_std(frames: np.ndarray, radius: int) -> np.ndarray:
    """Standard deviation over the frames within ``radius``, fewer at the ends."""
    n_frames = len(frames)
    first = np.maximum(np.arange(n_frames) - radius, 0)
    stop = np.minimum(np.arange(n_frames) + radius + 1, n_frames)
    std = np.empty_like(frames)
    for band in range(0, frames.shape[1], BLOCK_BANDS):  # sums are float64: a few bands at a time
        bands = slice(band, band + BLOCK_BANDS)
        centred = frames[:, bands] - frames[:, bands].mean(axis=0, dtype=np.float64)
        sums = np.zeros((2, n_frames + 1, centred.shape[1]))
        np.cumsum(centred, axis=0, out=sums[0, 1:])
        np.cumsum(centred**2, axis=0, out=sums[1, 1:])
        mean, square = (sums[:, stop] - sums[:, first]) / (stop - first)[:, None]
        # the difference of two sums can fall a rounding below zero
        std[:, bands] = np.sqrt(np.maximum(square - mean**2, 0))
    return std


def _pool(frames: np.ndarray, pooling: str) -> np.ndarray:
    """Pool frames over time, (dim,)."""
    if pooling == "max":
        return np.asarray(frames.max(axis=0))
    reduce = np.mean if pooling == "mean" else np.std
    return np.asarray(reduce(frames, axis=0, dtype=np.float64), np.float32)


def _spec(precision: str) -> EncoderSpec:
    """Identity: the constants above, and the version of the code between them."""
    if precision != "fp32":
        raise EncoderError(
            f"mel was asked for precision {precision!r}, expected 'fp32'",
            hint="leave out --precision",
        )
    config = {
        "sample_rate": SAMPLE_RATE,
        "n_fft": N_FFT,
        "hop": HOP,
        "n_mels": N_MELS,
        "floor": FLOOR,
        "n_cepstra": N_CEPSTRA,
        "delta_radius": DELTA_RADIUS,
        "texture_radius": TEXTURE_RADIUS,
    }
    return EncoderSpec(
        name=MelFactory.name,
        weights_sha256="",
        config_sha256=sha256_text(canonical_json(config)),
        precision=precision,
        algorithm=ALGORITHM,
    )


def _refuse_weights(path: Path | None) -> None:
    if path is not None:
        raise EncoderError(
            f"mel was given the weights {str(path)!r}, expected none",
            hint="leave out --encoder-path, or name another --encoder",
        )
