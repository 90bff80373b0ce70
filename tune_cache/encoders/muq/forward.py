"""MuQ's forward pass: hidden states one layer at a time, in bounded memory.

Conventions
-----------
Input is (batch, n_samples) float32 at 24 kHz, without padding. Hidden state 0
is the input of the first block, the last one has passed the encoder's final
norm. A state is pooled as soon as it exists and is then overwritten; blocks
beyond the deepest state asked for are neither loaded nor run.

Equal to the forward of the ``muq`` package to 1e-5 in float32 on every state
(golden vectors in `tests/data`). It reads the weights by name and needs only
torch: the package's own forward fails under transformers 5, takes seconds to
import and to initialise at random, and holds all states of all frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tune_cache.encoders.muq.config import MuqConfig
from tune_cache.encoders.muq.conformer import ConformerBlock, chunks, rotary_angles
from tune_cache.encoders.muq.frontend import FrontEnd
from tune_cache.encoders.muq.memory import Plan
from tune_cache.encoders.muq.ops import LayerNorm, exact_math
from tune_cache.errors import EncoderError

if TYPE_CHECKING:
    import torch

    from tune_cache.encoders.muq.checkpoint import Tensors

__all__ = ["Forward"]


class Forward:
    """The frozen model, ready to run.

    Parameters
    ----------
    n_blocks
        How many blocks to load; state ``n_blocks`` is the deepest one then.
    """

    def __init__(
        self,
        tensors: Tensors,
        config: MuqConfig,
        *,
        n_blocks: int,
        device: torch.device,
        dtype: torch.dtype,
        tf32: bool = False,
    ) -> None:
        import torch

        self.config = config
        self.device = device
        self.tf32 = tf32
        self.itemsize = dtype.itemsize
        with torch.inference_mode():
            self.front_end = FrontEnd(tensors, config, device=device, dtype=dtype)
            self.blocks = [
                ConformerBlock(
                    tensors, f"conformer.layers.{index}.", config, device=device, dtype=dtype
                )
                for index in range(n_blocks)
            ]
            self.last_norm = None
            if n_blocks == config.n_blocks:
                weight = tensors("conformer.layer_norm.weight", config.dim)
                bias = tensors("conformer.layer_norm.bias", config.dim)
                self.last_norm = LayerNorm(weight, bias, device=device, epsilon=config.norm_epsilon)
            name, half = "conformer.embed_positions.inv_freq", config.head_dim // 2
            if name in tensors:
                frequencies = tensors(name, half)
            else:
                steps = torch.arange(0, config.head_dim, 2).to(torch.float32) / config.head_dim
                frequencies = 1.0 / config.rotary_base**steps
            self.inverse_frequencies = frequencies.to(device)

    def pooled(
        self, waveforms: torch.Tensor, layers: Sequence[int], poolings: Sequence[str], plan: Plan
    ) -> dict[str, torch.Tensor]:
        """Pool hidden states over time; pooling → (batch, layers, dim) float32."""
        import torch

        shape = (len(waveforms), len(layers), self.config.dim)
        pooled = {
            pooling: torch.empty(shape, dtype=torch.float32, device=self.device)
            for pooling in poolings
        }
        with exact_math(self.device, tf32=self.tf32):
            for start in range(0, len(waveforms), plan.n_items):
                items = slice(start, start + plan.n_items)
                given = waveforms[items].to(self.device, non_blocking=True)
                for layer, states in enumerate(self.states(given, plan)):
                    if layer in layers:
                        for pooling, values in pooled.items():
                            values[items, layers.index(layer)] = _pool(states, pooling)
                del given, states  # it would stay while the front end of the next items runs
        return pooled

    def states(self, waveforms: torch.Tensor, plan: Plan) -> Iterator[torch.Tensor]:
        """Yield (batch, n_frames, dim) float32 per layer, overwritten by the next one.

        Run it inside :func:`exact_math`; :meth:`pooled` does.
        """
        import torch

        if not torch.is_inference_mode_enabled():
            raise EncoderError(
                "MuQ's forward pass was started outside inference mode",
                hint="call Forward.pooled, or wrap the loop in exact_math",
            )
        x = self.front_end(waveforms, plan.mel_frames)
        yield x
        angles = rotary_angles(x.shape[1], self.inverse_frequencies)
        for number, block in enumerate(self.blocks, 1):
            block(x, angles, plan.frames)
            if number == self.config.n_blocks and self.last_norm is not None:
                for here in chunks(x.shape[1], plan.frames):
                    x[:, here] = self.last_norm(x[:, here])
            yield x


def _pool(states: torch.Tensor, pooling: str) -> torch.Tensor:
    """Pool (batch, n_frames, dim) over time."""
    import torch

    if pooling == "mean":
        return states.mean(dim=1)
    if pooling == "max":
        return states.amax(dim=1)
    return torch.std(states, dim=1, correction=0)
