"""How a batch is taken apart, and what memory that takes above the weights.

Conventions
-----------
Bytes are what the forward pass holds at its worst moment, in whole tensors;
``SCRATCH`` for the libraries' own comes on top. Nothing here changes
a result beyond rounding: a plan is circumstance, never identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from tune_cache.encoders.muq.config import HOP_SAMPLES, N_MELS, MuqConfig, n_frames_of
from tune_cache.errors import EncoderError

__all__ = ["Plan", "make_plan", "peak_bytes"]

HALO_FRAMES = 12
# Frames that fill a matrix product on a CPU. An item of more than half of them runs by itself, so
# that its numbers do not depend on the batch in any bit, nor memory on the batch size.
CPU_FRAMES = 256
MEL_FRAMES = (1000, 500, 248, 124, 64)
FRAMES = (1024, 512, 256, 128)
SCRATCH = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the pieces.

    Parameters
    ----------
    n_items
        Items that run through the model together.
    mel_frames
        Mel frames that the front end looks at together, in one item or several.
    frames
        Stretch of the blocks, per item.
    """

    n_items: int
    mel_frames: int
    frames: int


def make_plan(
    config: MuqConfig,
    *,
    n_items: int,
    n_samples: int,
    itemsize: int,
    on_cpu: bool,
    max_memory_bytes: int | None = None,
) -> Plan:
    """Choose the largest pieces that fit.

    Fewer items together come first, then shorter stretches: both cost little
    speed. What has no smaller piece is the residual stream, keys and values of
    one item, 12 kB a frame at dim 1024 in float32: 18 MB a minute.

    Parameters
    ----------
    itemsize
        Bytes of an element of the products: 4, or 2 for bf16 and fp16.
    max_memory_bytes
        Of everything above the weights; None takes the fastest sizes.

    Raises
    ------
    EncoderError
        If one item does not fit even in the smallest pieces.
    """
    together = max(1, CPU_FRAMES // n_frames_of(n_samples)) if on_cpu else n_items
    together = min(together, n_items)
    if max_memory_bytes is None:
        return Plan(n_items=together, mel_frames=MEL_FRAMES[0], frames=FRAMES[0])
    plan = Plan(n_items=1, mel_frames=MEL_FRAMES[-1], frames=FRAMES[-1])
    for mel_frames, frames in zip(MEL_FRAMES, (*FRAMES, FRAMES[-1]), strict=True):
        for items in _halvings(together):
            plan = Plan(n_items=items, mel_frames=mel_frames, frames=frames)
            if peak_bytes(config, plan, n_samples=n_samples, itemsize=itemsize) <= max_memory_bytes:
                return plan
    needed = peak_bytes(config, plan, n_samples=n_samples, itemsize=itemsize)
    raise EncoderError(
        f"{n_samples} samples need {needed / 1e6:.0f} MB above the weights, "
        f"expected at most {max_memory_bytes / 1e6:.0f} MB",
        hint="allow more with --max-memory, or cut shorter segments with --seg",
    )


def peak_bytes(config: MuqConfig, plan: Plan, *, n_samples: int, itemsize: int) -> int:
    """Predict the highest memory above the weights while ``plan`` runs."""
    n_frames = n_frames_of(n_samples)
    mel_frames = min(plan.mel_frames + 2 * HALO_FRAMES, plan.n_items * n_samples // HOP_SAMPLES)
    # the first convolution block has two images at a time
    image = mel_frames * config.conv_dim * (N_MELS // 4) * itemsize
    # keys and values, or the gated input of the convolution, and a stretch of the widest layer
    whole = n_frames * config.dim * max(2 * itemsize, 4)
    stretch = min(plan.frames, n_frames) * (config.ffn_dim * itemsize + 2 * config.dim * 4)
    stream = n_frames * config.dim * 4
    # three images of the second block, each an eighth in size, stay in the allocator's hands
    kept = 3 * image // 8 + SCRATCH
    return plan.n_items * stream + max(2 * image, plan.n_items * (whole + stretch)) + kept


def _halvings(count: int) -> list[int]:
    """``count``, its half, … down to 1."""
    counts = []
    while count > 1:
        counts.append(count)
        count = -(-count // 2)
    return [*counts, 1]
