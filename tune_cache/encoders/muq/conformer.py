"""A conformer block on a residual stream that is updated in place.

Conventions
-----------
The stream is (batch, n_frames, dim) float32 whatever the precision of the
products; each sum over it is done stretch by stretch, so that only keys and
values, or the gated input of the convolution, exist for all frames at once.
Attention sees all frames: queries come in stretches, keys whole.

References
----------
A. Gulati et al., "Conformer", Interspeech 2020; ``Wav2Vec2ConformerEncoderLayer``
of transformers, from which it differs in nothing but the order of sums. Rotary
positions there turn the *input* of the query and key projections.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tune_cache.encoders.muq.config import MuqConfig
from tune_cache.encoders.muq.ops import LayerNorm, Linear

if TYPE_CHECKING:
    import torch

    from tune_cache.encoders.muq.checkpoint import Tensors

__all__ = ["ConformerBlock", "chunks", "rotary_angles"]

NORM_EPSILON = 1e-5


def rotary_angles(
    n_frames: int, inverse_frequencies: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every frame's rotation, each (n_frames, 1, head_dim // 2)."""
    import torch

    frames = torch.arange(n_frames, device=inverse_frequencies.device)
    angles = (frames.to(torch.float32)[:, None] * inverse_frequencies)[:, None, :]
    return angles.cos(), angles.sin()


class ConformerBlock:
    """Half a feed-forward, attention, convolution, half a feed-forward, norm."""

    def __init__(
        self,
        tensors: Tensors,
        prefix: str,
        config: MuqConfig,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        import torch

        self.config = config
        self.dtype = dtype
        dim = config.dim

        def norm(name: str) -> LayerNorm:
            weight = tensors(f"{prefix}{name}.weight", dim)
            bias = tensors(f"{prefix}{name}.bias", dim)
            return LayerNorm(weight, bias, device=device, epsilon=NORM_EPSILON)

        def linear(name: str, n_out: int, n_in: int, scale: float = 1, act: str = "none") -> Linear:
            weight = tensors(f"{prefix}{name}.weight", n_out, n_in) * scale
            bias = tensors(f"{prefix}{name}.bias", n_out) * scale
            return Linear(weight, bias, dtype=dtype, device=device, activation=act)

        def pointwise(name: str, n_out: int) -> Linear:
            weight = tensors(f"{prefix}conv_module.{name}.weight", n_out, dim, 1)[:, :, 0]
            return Linear(weight, None, dtype=dtype, device=device)

        def feed_forward(name: str) -> tuple[LayerNorm, Linear, Linear]:
            return (
                norm(f"{name}_layer_norm"),
                linear(f"{name}.intermediate_dense", config.ffn_dim, dim, act="swish"),
                # half a step: a power of two, so scaling the weights rounds nothing
                linear(f"{name}.output_dense", dim, config.ffn_dim, scale=0.5),
            )

        self.ffn1, self.ffn2 = feed_forward("ffn1"), feed_forward("ffn2")
        self.attention_norm = norm("self_attn_layer_norm")
        self.query, self.key, self.value, self.out = (
            linear(f"self_attn.linear_{name}", dim, dim) for name in ("q", "k", "v", "out")
        )
        self.conv_norm = norm("conv_module.layer_norm")
        self.gated = pointwise("pointwise_conv1", 2 * dim)
        self.mix = pointwise("pointwise_conv2", dim)
        scale, shift = tensors.norm(f"{prefix}conv_module.batch_norm.", dim, NORM_EPSILON)
        kernel = tensors(f"{prefix}conv_module.depthwise_conv.weight", dim, 1, config.kernel)
        # on the CPU in float32: oneDNN 3.12 never returns from some bf16 depthwise convolutions
        # (16 channels or fewer), and this is 1 % of the time
        kernel_dtype = torch.float32 if device.type == "cpu" else dtype
        self.kernel = (kernel * scale[:, None, None]).unsqueeze(2).to(device, kernel_dtype)
        self.kernel_bias = shift.to(device, kernel_dtype)
        self.final_norm = norm("final_layer_norm")

    def __call__(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], chunk_frames: int
    ) -> None:
        """Turn the block's input into its output, in place."""
        pieces = list(chunks(x.shape[1], chunk_frames))
        for here in pieces:
            self._feed_forward(x[:, here], self.ffn1)
        self._attend(x, angles, pieces)
        self._convolve(x, pieces)
        for here in pieces:
            self._feed_forward(x[:, here], self.ffn2)
            x[:, here] = self.final_norm(x[:, here])

    @staticmethod
    def _feed_forward(x: torch.Tensor, layers: tuple[LayerNorm, Linear, Linear]) -> None:
        norm, widen, narrow = layers
        x += narrow(widen(norm(x)))

    def _attend(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], pieces: list[slice]
    ) -> None:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        keys = torch.empty(x.shape, dtype=self.dtype, device=x.device)
        values = torch.empty_like(keys)
        for here in pieces:
            normed = self.attention_norm(x[:, here])
            values[:, here] = self.value(normed)
            keys[:, here] = self.key(self._rotate(normed, angles, here))
        heads = (self.config.n_heads, self.config.head_dim)
        keys, values = (
            torch.unflatten(states, 2, heads).transpose(1, 2) for states in (keys, values)
        )
        for here in pieces:  # reads no other frame of x than those it replaces
            queries = self.query(self._rotate(self.attention_norm(x[:, here]), angles, here))
            attended = scaled_dot_product_attention(
                torch.unflatten(queries, 2, heads).transpose(1, 2), keys, values
            )
            x[:, here] += self.out(attended.transpose(1, 2).flatten(2))

    def _rotate(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], here: slice
    ) -> torch.Tensor:
        """Turn (first half, second half) of each head by the frame's angles."""
        import torch

        cosine, sine = (angle[here] for angle in angles)
        heads = torch.unflatten(x, 2, (self.config.n_heads, self.config.head_dim))
        first, second = heads.chunk(2, dim=-1)
        turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
        return turned.flatten(2).to(x.dtype)

    def _convolve(self, x: torch.Tensor, pieces: list[slice]) -> None:
        import torch
        from torch.nn.functional import conv2d, glu, silu

        gated = torch.empty(x.shape, dtype=self.kernel.dtype, device=x.device)
        for here in pieces:
            gated[:, here] = glu(self.gated(self.conv_norm(x[:, here])), dim=-1)
        radius = self.config.kernel // 2
        for here in pieces:
            first = max(here.start - radius, 0)
            # (batch, dim, 1, frames) with dim last in memory
            window = gated[:, first : here.stop + radius].unsqueeze(1).permute(0, 3, 1, 2)
            if window.device.type == "cuda":
                # PyTorch's own kernel then, not cuDNN's
                window = window.contiguous()
            wide = conv2d(
                window, self.kernel, self.kernel_bias, padding=(0, radius), groups=len(self.kernel)
            )
            mixed = wide[..., here.start - first : here.stop - first].squeeze(2).transpose(1, 2)
            x[:, here] += self.mix(silu(mixed))


def chunks(n_frames: int, chunk_frames: int) -> Iterator[slice]:
    """Cut time into stretches, the last one shorter."""
    for start in range(0, n_frames, chunk_frames):
        yield slice(start, min(start + chunk_frames, n_frames))
