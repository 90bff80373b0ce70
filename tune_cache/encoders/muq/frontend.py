"""From samples to the input of the first block, a stretch of time at a time.

Conventions
-----------
Images are (batch, channels, time, frequency), time before frequency and
channels last in memory, so that the projection reads them without a copy;
kernels are transposed to match. Mel frames come every 240 samples, the last
one of the STFT is dropped, decibel re 1 with a floor of −100 dB.

A stretch is computed with 12 mel frames more on each side that are then thrown
away: a frame depends on 9 (3 × 3 kernels at strides 1, 2, 2, 4: 1 + 2 + 2 + 4).
Batch normalisation in evaluation mode is what makes this exact.

References
----------
H. Zhu et al., "MuQ: Self-Supervised Music Representation Learning with Mel
Residual Vector Quantization", 2025, section 3; ``muq/modules/conv.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune_cache.encoders.muq.config import (
    HOP_SAMPLES,
    N_FFT,
    N_FOLD,
    N_MELS,
    SAMPLE_RATE,
    MuqConfig,
    n_frames_of,
)
from tune_cache.encoders.muq.memory import (
    HALO_FRAMES,
    STRIP_FRAMES,
    Tidy,
    image_bytes,
    stretch_of,
)
from tune_cache.encoders.muq.ops import Linear

if TYPE_CHECKING:
    import torch

    from tune_cache.encoders.muq.checkpoint import Tensors

__all__ = ["FrontEnd", "mel_filters"]

FLOOR = 1e-10
NORM_EPSILON = 1e-5
N_BANDS = N_MELS // 4


def mel_filters() -> torch.Tensor:
    """Triangles on the HTK mel scale from 0 Hz to half the rate, not normalised.

    Bit for bit those of ``torchaudio.transforms.MelSpectrogram``.

    Returns
    -------
    of shape (n_fft // 2 + 1, n_mels)
    """
    import math

    import torch

    bins_hz = torch.linspace(0, SAMPLE_RATE // 2, N_FFT // 2 + 1, dtype=torch.float32)
    top_mel = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    edges_mel = torch.linspace(0.0, top_mel, N_MELS + 2, dtype=torch.float32)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    widths = edges_hz[1:] - edges_hz[:-1]
    slopes = edges_hz[None, :] - bins_hz[:, None]
    rising = -slopes[:, :-2] / widths[:-1]
    falling = slopes[:, 2:] / widths[1:]
    return torch.clamp(torch.minimum(rising, falling), min=0.0)


class FrontEnd:
    """Mel spectrogram, two residual convolution blocks, projection."""

    def __init__(
        self,
        tensors: Tensors,
        config: MuqConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        import torch

        self.config = config
        self.device = device
        self.itemsize = dtype.itemsize
        self.window = torch.hann_window(N_FFT, dtype=torch.float32, device=device)
        filters = mel_filters().repeat_interleave(2, dim=0).T
        self.filters = Linear(filters, None, dtype=torch.float32, device=device)
        channels = config.conv_dim
        self.blocks = [
            _ResidualBlock(
                tensors, f"conv.conv.{index}.", n_in, channels, device=device, dtype=dtype
            )
            for index, n_in in enumerate((1, channels))
        ]
        weight = tensors("conv.linear.weight", config.dim, channels * N_BANDS)
        weight = torch.unflatten(weight, 1, (channels, N_BANDS)).transpose(1, 2).flatten(1)
        bias = tensors("conv.linear.bias", config.dim)
        self.project = Linear(weight, bias, dtype=dtype, device=device)

    def __call__(self, waveforms: torch.Tensor, mel_frames: int) -> torch.Tensor:
        """Encode (batch, n_samples) into (batch, n_frames, dim), float32.

        Short items go together, long ones in stretches of equal length, so that
        about ``mel_frames`` are looked at together.
        """
        import torch

        n_samples = waveforms.shape[1]
        n_mel_frames = n_samples // HOP_SAMPLES
        n_items = max(1, mel_frames // n_mel_frames)
        on_cpu = self.device.type == "cpu"
        n_stretches, length = stretch_of(mel_frames, n_mel_frames, on_cpu=on_cpu)
        image = image_bytes(self.config, n_items * length, self.itemsize)
        tidy = Tidy(image, n_stretches, on_cpu=on_cpu)
        shape = (len(waveforms), n_frames_of(n_samples), self.config.dim)
        frames = torch.empty(shape, dtype=torch.float32, device=self.device)
        for item in range(0, len(waveforms), n_items):
            items = slice(item, item + n_items)
            for start in range(0, n_mel_frames, length):
                stop = min(start + length, n_mel_frames)
                tidy.before(start)
                stretch = self._stretch(waveforms[items], start, stop)
                frames[items, start // N_FOLD : -(-stop // N_FOLD)] = stretch
            tidy.after()
        return frames

    def _stretch(self, waveforms: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Frames of the mel frames ``start`` to ``stop``; ``start`` is a multiple of 4."""
        first = max(start - HALO_FRAMES, 0)
        last = min(stop + HALO_FRAMES, waveforms.shape[1] // HOP_SAMPLES)
        image = self.mel(waveforms, first, last).unsqueeze(1)
        for block in self.blocks:
            image = block(image)
        n_halo, n_frames = (start - first) // N_FOLD, -(-(stop - start) // N_FOLD)
        image = image[:, :, n_halo : n_halo + n_frames]
        # channels are last in memory: (batch, time, frequency × channels)
        return self.project(image.permute(0, 2, 3, 1).flatten(2))

    def mel(self, waveforms: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """Normalised mel frames ``start`` to ``stop``, (batch, n_mel_frames, n_mels)."""
        import torch

        shape = (len(waveforms), stop - start, N_MELS)
        frames = torch.empty(shape, dtype=torch.float32, device=self.device)
        # two at least: the reflection at the start needs more samples than it adds
        length = max(2, STRIP_FRAMES // len(waveforms))
        if self.device.type != "cpu":  # it would wait for Python between strips
            length = stop - start
        for first in range(start, stop, length):
            last = min(first + length, stop)
            frames[:, first - start : last - start] = self._mel_power(waveforms, first, last)
        decibel = frames.clamp_(min=FLOOR).log10_().mul_(10.0)
        return decibel.sub_(self.config.mel_mean).div_(self.config.mel_std)

    def _mel_power(self, waveforms: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        import torch

        # frame i sees samples 240 i − 1024 to 240 i + 1024, reflected beyond the ends
        n_samples = waveforms.shape[1]
        first = start * HOP_SAMPLES - N_FFT // 2
        last = (stop - 1) * HOP_SAMPLES + N_FFT // 2
        samples = waveforms[:, max(first, 0) : min(last, n_samples)]
        beyond = (max(-first, 0), max(last - n_samples, 0))
        if any(beyond):
            samples = torch.nn.functional.pad(samples, beyond, mode="reflect")
        spectra = torch.stft(
            samples, N_FFT, HOP_SAMPLES, window=self.window, center=False, return_complex=True
        )
        # (batch, frames, 2 × bins): the product below adds real² and imaginary²
        parts = torch.view_as_real(spectra.transpose(1, 2)).flatten(2)
        return self.filters(parts.square_())


class _ResidualBlock:
    """``relu(conv(relu(conv(x))) + conv(x))``, normalisation folded into the kernels."""

    def __init__(
        self,
        tensors: Tensors,
        prefix: str,
        n_in: int,
        n_out: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        import torch

        self.kernels: list[tuple[torch.Tensor, torch.Tensor]] = []
        for number, inputs in ((1, n_in), (2, n_out), (3, n_in)):
            weight = tensors(f"{prefix}conv{number}.weight", n_out, inputs, 3, 3).transpose(2, 3)
            bias = tensors(f"{prefix}conv{number}.bias", n_out)
            scale, shift = tensors.norm(f"{prefix}bn{number}.", n_out, NORM_EPSILON)
            weight = (weight * scale[:, None, None, None]).to(
                device, dtype, memory_format=torch.channels_last
            )
            self.kernels.append((weight, (bias * scale + shift).to(device, dtype)))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        from torch.nn.functional import conv2d

        (first, first_bias), (second, second_bias), (skip, skip_bias) = self.kernels
        image = image.to(first.dtype)
        inner = conv2d(image, first, first_bias, stride=2, padding=1).relu_()
        outer = conv2d(inner, second, second_bias, padding=1)
        del inner
        outer += conv2d(image, skip, skip_bias, stride=2, padding=1)
        return outer.relu_()
