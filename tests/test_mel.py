"""The mel encoder: the contract, librosa's conventions, and what each layer is."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from encoder_contract import EncoderContract

from tune_cache.encoders import mel
from tune_cache.encoders.mel import ENCODER, log_mel_spectrogram, mel_filters
from tune_cache.errors import EncoderError

librosa = pytest.importorskip("librosa", reason="comes with muq; the reference for conventions")

RATE = mel.SAMPLE_RATE


class TestMel(EncoderContract):
    factory = ENCODER

    def n_frames(self, n_samples):
        return len(log_mel_spectrogram(np.zeros(n_samples, np.float32)))


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    rng = np.random.default_rng(2)
    time = np.arange(7 * RATE) / RATE
    tone = np.sin(2 * np.pi * 330 * time) * np.sin(2 * np.pi * 1.5 * time)
    return (0.4 * tone + rng.normal(0, 0.02, len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def log_mel(waveform) -> np.ndarray:
    return log_mel_spectrogram(waveform)


def layer_frames(log_mel, layer):
    return mel._layer_frames(log_mel, layer)


def test_filters_are_librosas():
    reference = librosa.filters.mel(sr=RATE, n_fft=mel.N_FFT, n_mels=mel.N_MELS)
    np.testing.assert_allclose(mel_filters(), reference.T, atol=1e-7)
    assert (mel_filters().sum(axis=0) > 0).all(), "a band without a bin"


def test_log_mel_is_librosas(waveform, log_mel):
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=RATE,
        n_fft=mel.N_FFT,
        hop_length=mel.HOP,
        n_mels=mel.N_MELS,
        pad_mode="reflect",
    )
    reference = librosa.power_to_db(power, ref=1.0, amin=mel.FLOOR, top_db=None)
    np.testing.assert_allclose(log_mel, reference.T, atol=1e-3)


def test_slope_is_librosas_delta(log_mel):
    reference = librosa.feature.delta(log_mel.T, width=9, mode="nearest").T
    np.testing.assert_allclose(layer_frames(log_mel, 1), np.abs(reference), atol=1e-4)


def test_cepstrum_is_librosas_mfcc(log_mel):
    reference = librosa.feature.mfcc(S=log_mel.T, n_mfcc=mel.N_CEPSTRA).T
    np.testing.assert_allclose(layer_frames(log_mel, 2)[:, : mel.N_CEPSTRA], reference, atol=1e-2)


def test_texture_is_the_deviation_in_a_window_of_a_second(log_mel):
    radius = mel.TEXTURE_RADIUS
    expected = [
        log_mel[max(0, at - radius) : at + radius + 1].astype(np.float64).std(axis=0)
        for at in range(len(log_mel))
    ]
    np.testing.assert_allclose(layer_frames(log_mel, 3), expected, atol=1e-4)


@pytest.mark.parametrize("layer", range(len(mel.LAYERS)))
def test_poolings_are_statistics_over_frames(waveform, log_mel, layer):
    pooled = ENCODER.load(layers=(layer,), poolings=("mean", "max", "std")).embed(waveform[None])
    frames = layer_frames(log_mel, layer).astype(np.float64)
    for pooling, values in pooled.items():
        expected = getattr(frames, pooling)(axis=0)
        np.testing.assert_allclose(values[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_silence_is_the_floor_and_nothing_moves():
    pooled = ENCODER.load().embed(np.zeros((1, RATE), np.float32))["mean"][0]
    np.testing.assert_allclose(pooled[0], -100)
    np.testing.assert_array_equal(pooled[1], 0)
    np.testing.assert_array_equal(pooled[3], 0)


def test_gain_moves_the_level_and_leaves_change_and_texture():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, (1, 2 * RATE)).astype(np.float32)
    encoder = ENCODER.load()
    quiet, loud = encoder.embed(noise)["mean"][0], encoder.embed(10 * noise)["mean"][0]
    np.testing.assert_allclose(loud[0] - quiet[0], 20, atol=1e-2)
    np.testing.assert_allclose(loud[[1, 3]], quiet[[1, 3]], atol=1e-3)


def test_blocks_of_frames_do_not_show(waveform, log_mel):
    for at in (0, 255, 256, 300):
        frame = np.pad(waveform, mel.N_FFT // 2, mode="reflect")[at * mel.HOP :][: mel.N_FFT]
        window = np.hanning(mel.N_FFT + 1)[:-1]
        power = np.abs(np.fft.rfft(frame * window)) ** 2 @ mel_filters()
        np.testing.assert_allclose(log_mel[at], 10 * np.log10(power), atol=1e-3)


def test_spectra_are_never_held_all_at_once():
    waveform = np.random.default_rng(0).normal(0, 0.1, (1, 120 * RATE)).astype(np.float32)
    encoder = ENCODER.load(poolings=("mean", "max", "std"))
    encoder.embed(waveform[:, :RATE])
    tracemalloc.start()
    try:
        encoder.embed(waveform)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    n_frames = waveform.size // mel.HOP
    spectra_bytes = 8 * n_frames * (mel.N_FFT // 2 + 1)
    assert peak_bytes < spectra_bytes


def test_layers_are_named():
    assert len(mel.LAYERS) == ENCODER.describe().n_layers


def test_identity_follows_every_constant(monkeypatch):
    before = ENCODER.describe().spec
    assert before == ENCODER.describe().spec
    monkeypatch.setattr(mel, "DELTA_RADIUS", 5)
    assert ENCODER.describe().spec.config_sha256 != before.config_sha256


def test_weights_and_other_precisions_are_refused(tmp_path):
    with pytest.raises(EncoderError, match="expected none"):
        ENCODER.load(path=tmp_path)
    with pytest.raises(EncoderError, match="expected 'fp32'"):
        ENCODER.describe(precision="bf16")


def test_mel_needs_neither_torch_nor_scipy():
    script = """
import sys, numpy
from tune_cache.encoders.mel import ENCODER
ENCODER.load().embed(numpy.zeros((1, 24000), "float32"))
print(sorted({"torch", "scipy", "librosa"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout == b"[]\n"
