"""How a batch is taken apart, and what memory that takes above the weights.

Conventions
-----------
Bytes are what is held at the worst moment, in whole tensors, with what the
allocator cannot use again and a constant for the libraries' own. Nothing here
changes a result beyond rounding: a plan is circumstance, never identity.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tune_cache.encoders.muq.config import (
    HOP_SAMPLES,
    N_FFT,
    N_FOLD,
    N_MELS,
    SAMPLE_RATE,
    MuqConfig,
    n_frames_of,
)
from tune_cache.errors import EncoderError

__all__ = [
    "ITEM_BYTES",
    "SMALLEST",
    "Memory",
    "Plan",
    "Tidy",
    "give_back",
    "image_bytes",
    "make_plan",
    "peak_bytes",
    "stretch_of",
    "weights_bytes",
]

ITEM_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}  # of products, by precision
HALO_FRAMES = 12
STRIP_FRAMES = 256  # of the STFT: what stays in a processor's cache is 5 times as fast
# Frames that fill a matrix product on a CPU. An item of more than half of them runs by itself, so
# that its numbers do not depend on the batch in any bit, nor memory on the batch size.
CPU_FRAMES = 256
MEL_FRAMES = (1000, 500, 248, 124, 64)
FRAMES = (1024, 512, 256, 128)
# A GPU waits for Python between small pieces: 24,625 launches for 20 minutes, 6,096 with these.
GPU_MEL_FRAMES, GPU_FRAMES = 4000, 4096
# code of the libraries that the first batch brings into memory, on a CPU
SCRATCH = 12_000_000
# glibc maps larger blocks one by one and returns each at once (DEFAULT_MMAP_THRESHOLD_MAX). Smaller
# ones come from its heap, where up to 2.37 an aligned block that was freed does not serve the next
# one of its size.
LARGEST_HEAP_BLOCK = 32 << 20
# Beside tensors, on a GPU: cuBLAS's workspace (32 MiB on Hopper, 8 elsewhere), and cuDNN's for the
# widest kernels, taken for one image more. Both are guesses: nobody has measured them.
GPU_SCRATCH, GPU_WORKSPACE_IMAGES = 64_000_000, 1
SMALL_IMAGE = 4 << 20  # below it, what stays behind is not worth a system call


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


SMALLEST = Plan(n_items=1, mel_frames=MEL_FRAMES[-1], frames=FRAMES[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What one MuQ takes, known without loading it.

    Parameters
    ----------
    n_blocks
        How many are loaded.
    itemsize
        Bytes of an element of the products: 4, or 2 for bf16 and fp16.
    max_memory_bytes
        Of everything above the weights; None takes the fastest sizes.
    """

    config: MuqConfig
    n_blocks: int
    itemsize: int
    on_cpu: bool
    max_memory_bytes: int | None = None

    @property
    def weights_bytes(self) -> int:
        """Of the tensors that stay loaded."""
        return weights_bytes(
            self.config, n_blocks=self.n_blocks, itemsize=self.itemsize, on_cpu=self.on_cpu
        )

    def grain(self, n_samples: int) -> int:
        """Items that share matrix products: batches in multiples of it give the same bits."""
        return _together(n_samples) if self.on_cpu else 1

    def plan(self, n_items: int, n_samples: int) -> Plan:
        """Take a batch apart; see :func:`make_plan`."""
        return make_plan(
            self.config,
            n_items=n_items,
            n_samples=n_samples,
            itemsize=self.itemsize,
            on_cpu=self.on_cpu,
            max_memory_bytes=self.max_memory_bytes,
        )

    def peak_bytes(self, n_items: int, n_samples: int) -> int:
        """Predict what a batch takes above the weights if its items run together.

        More than ``max_memory_bytes`` means that the items will not run together.

        Raises
        ------
        EncoderError
            If not even one item can be kept within ``max_memory_bytes``.
        """
        plan = self.plan(n_items, n_samples)
        together = min(n_items, _together(n_samples)) if self.on_cpu else n_items
        return peak_bytes(
            self.config,
            replace(plan, n_items=together),
            n_samples=n_samples,
            itemsize=self.itemsize,
            on_cpu=self.on_cpu,
        )

    def pieces(self, n_items: int, n_samples: int) -> dict[str, int]:
        """Name the sizes of the pieces, for tables."""
        plan = self.plan(n_items, n_samples)
        return {
            "items_together": plan.n_items,
            "mel_frames": plan.mel_frames,
            "frames": plan.frames,
        }


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
    together = min(_together(n_samples), n_items) if on_cpu else n_items
    sizes = list(zip(MEL_FRAMES, (*FRAMES, FRAMES[-1]), strict=True))
    if not on_cpu:
        sizes = [(GPU_MEL_FRAMES, GPU_FRAMES), *sizes]
    if max_memory_bytes is None:
        return Plan(n_items=together, mel_frames=sizes[0][0], frames=sizes[0][1])

    def needed(plan: Plan) -> int:
        return peak_bytes(config, plan, n_samples=n_samples, itemsize=itemsize, on_cpu=on_cpu)

    plan = SMALLEST
    for mel_frames, frames in sizes:
        # large pieces of few items are more launches than small pieces of many
        for items in [together] if frames == GPU_FRAMES else _halvings(together):
            plan = Plan(n_items=items, mel_frames=mel_frames, frames=frames)
            if needed(plan) <= max_memory_bytes:
                return plan
    megabytes = -(-needed(plan) // 10**6)
    raise EncoderError(
        f"a segment of {n_samples / SAMPLE_RATE:.1f} s needs {megabytes} MB above the weights "
        f"in the smallest pieces, expected at most {max_memory_bytes / 1e6:.0f} MB",
        hint=f"allow it with --max-memory {megabytes}MB, or cut shorter segments with --seg",
    )


def stretch_of(plan_mel_frames: int, n_mel_frames: int, *, on_cpu: bool) -> tuple[int, int]:
    """Cut an item for the front end: number of stretches and mel frames of each.

    Of equal length on a CPU; on a GPU of one length for items of any, since
    cuDNN makes a plan for every new shape.
    """
    n_stretches = -(-n_mel_frames // plan_mel_frames)
    if not on_cpu:
        return n_stretches, plan_mel_frames
    return n_stretches, -(-n_mel_frames // (n_stretches * N_FOLD)) * N_FOLD


def image_bytes(config: MuqConfig, n_mel_frames: int, itemsize: int) -> int:
    """Size of what comes out of the first convolution, half in time and in frequency."""
    return -(-n_mel_frames // 2) * (N_MELS // 2) * config.conv_dim * itemsize


def is_mapped(n_bytes: int) -> bool:
    """Whether a block of this size goes back to the system as soon as it is freed."""
    return n_bytes >= LARGEST_HEAP_BLOCK


class Tidy:
    """Gives memory back between the stretches of an item, where that is worth it.

    Mapped images do not use what smaller blocks leave behind, so that is given
    back before each; otherwise around an item of several stretches. At 10 s that
    is 1 % of the time in float32, and nothing in bf16.

    Parameters
    ----------
    image
        Bytes of the largest block of a stretch.
    """

    def __init__(self, image: int, n_stretches: int, *, on_cpu: bool) -> None:
        self.before_each = on_cpu and is_mapped(image)
        self.around_items = on_cpu and image > SMALL_IMAGE and n_stretches > 1

    def before(self, start: int) -> None:
        """Begin a stretch."""
        if self.before_each or (self.around_items and start == 0):
            give_back()

    def after(self) -> None:
        """End an item."""
        if self.around_items:
            give_back()


def peak_bytes(
    config: MuqConfig, plan: Plan, *, n_samples: int, itemsize: int, on_cpu: bool
) -> int:
    """Predict the highest memory above the weights while ``plan`` runs."""
    n_frames = n_frames_of(n_samples)
    front = max(
        _front_bytes(config, seen, itemsize, on_cpu=on_cpu)
        for seen in _mel_frames_seen(plan, n_samples // HOP_SAMPLES, on_cpu=on_cpu)
    )
    # keys and values, or the gated input of the convolution, and a stretch: of the widest layer
    # between its input and output, or of what is turned by angles
    whole = n_frames * config.dim * max(2 * itemsize, 4)
    widest = max(config.ffn_dim * itemsize + 2 * config.dim * 4, 5 * config.dim * 4)
    stretch = min(plan.frames, n_frames) * widest
    angles = n_frames * config.head_dim * 4
    stream = n_frames * config.dim * 4
    samples = 0 if on_cpu else n_samples * 4  # the caller's array serves on the CPU
    if on_cpu:
        if itemsize == 2:  # the library's own layout of keys and values, of each call
            whole += 2 * n_frames * config.dim * itemsize
        stretch *= 2  # in the heap what one step had leaves holes that the next does not fit into
        whole *= 1 if is_mapped(n_frames * config.dim * itemsize) else 2
    blocks = angles + plan.n_items * (whole + stretch)
    scratch = SCRATCH if on_cpu else GPU_SCRATCH
    return plan.n_items * (stream + samples) + max(front, blocks) + scratch


def _mel_frames_seen(plan: Plan, n_mel_frames: int, *, on_cpu: bool) -> set[int]:
    """Mel frames that the front end looks at together: in the first, and in a middle stretch."""
    n_stretches, length = stretch_of(plan.mel_frames, n_mel_frames, on_cpu=on_cpu)
    if n_stretches == 1:
        return {min(max(1, plan.mel_frames // n_mel_frames), plan.n_items) * n_mel_frames}
    halos = {1, min(n_stretches - 1, 2)}
    return {min(length + n * HALO_FRAMES, n_mel_frames) for n in halos}


def _front_bytes(config: MuqConfig, n_mel_frames: int, itemsize: int, *, on_cpu: bool) -> int:
    """Memory of the front end while it looks at so many mel frames."""
    # the first convolution block has two images at a time, beside its input; in the heap the third
    # of a block cannot take the place of the first, and now and then those of the stretch before
    # lie so that a fourth is needed
    image = image_bytes(config, n_mel_frames, itemsize)
    images = (2 if on_cpu else 2 + GPU_WORKSPACE_IMAGES) * image
    if on_cpu and not is_mapped(image):
        images = 7 * image // 2
    # the library's own layout of a kernel, and the one before it
    kernels = 2 * 9 * config.conv_dim**2 * itemsize
    # windows and spectra of a strip, which matter to small models only
    strip = min(STRIP_FRAMES if on_cpu else n_mel_frames, n_mel_frames) * (N_FFT + N_FFT + 2) * 4
    return max(images + kernels, strip) + n_mel_frames * N_MELS * (4 + itemsize)


def weights_bytes(config: MuqConfig, *, n_blocks: int, itemsize: int, on_cpu: bool) -> int:
    """Count the bytes of all tensors that are loaded, by their shapes."""
    dim, ffn_dim, channels = config.dim, config.ffn_dim, config.conv_dim
    kernels = 9 * channels * (1 + channels + 1) + 9 * channels * 3 * channels + 6 * channels
    front = kernels + dim * channels * (N_MELS // 4) + dim
    filters = N_FFT + N_MELS * 2 * (N_FFT // 2 + 1)  # window and mel filters, float32
    feed_forward = 2 * dim * ffn_dim + ffn_dim + dim
    attention = 4 * (dim * dim + dim)
    block = (2 * feed_forward + attention + 3 * dim * dim) * itemsize
    block += dim * (config.kernel + 1) * (4 if on_cpu else itemsize)
    block += 5 * 2 * dim * 4  # norms
    last = 2 * dim * 4 if n_blocks == config.n_blocks else 0
    return front * itemsize + filters * 4 + n_blocks * block + last + config.head_dim // 2 * 4


def give_back() -> None:
    """Return what glibc keeps between blocks in use to the system: 160 MB after loading."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """The function of the C library, None where it has none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def _together(n_samples: int) -> int:
    """Items that run together on a CPU, at most."""
    return max(1, CPU_FRAMES // n_frames_of(n_samples))


def _halvings(count: int) -> list[int]:
    """``count``, its half, … down to 1."""
    return [1] if count <= 1 else [count, *_halvings(-(-count // 2))]
