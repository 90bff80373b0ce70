"""How many segments go through the encoder together.

Conventions
-----------
A number of items of one length, never an identity. Three things decide: what is
worth it (seconds of audio), what fits (a budget that the user set, else the
memory that is free), and on a CPU that it must not show in the vectors: there,
free memory changes a batch by multiples of the encoder's grain only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from tune_cache.encoders.base import Encoder
from tune_cache.encoders.sized import MemoryModel, SizedEncoder
from tune_cache.errors import EncoderError
from tune_cache.specs import SegmentSpec

__all__ = [
    "batch_size_for",
    "choose_batch_size",
    "fitting_batch",
    "longest_segment",
    "wanted_items",
]

logger = logging.getLogger(__name__)

# seconds of audio in a batch where nothing else is said: large enough to keep a
# processor busy, small enough for a laptop
BATCH_SECONDS = 40.0
# on a GPU whose memory is known: 4,000 frames make nine rounds of tiles on the 108
# multiprocessors of an A100 in MuQ's products, 1,000 make two and a third; not timed on one
CUDA_BATCH_SECONDS = 160.0
FREE_SHARE = 0.8  # of free memory: a prediction may err, and others want some


def wanted_items(*, n_samples: int, sample_rate: int, on_cuda: bool, grain: int = 1) -> int:
    """Items that are worth running together.

    Examples
    --------
    >>> wanted_items(n_samples=240_000, sample_rate=24_000, on_cuda=False)
    4
    >>> wanted_items(n_samples=72_000, sample_rate=24_000, on_cuda=False, grain=3)
    12
    """
    seconds = CUDA_BATCH_SECONDS if on_cuda else BATCH_SECONDS
    return max(1, grain, int(seconds * sample_rate / n_samples) // grain * grain)


def choose_batch_size(
    wanted: int,
    peak_bytes: Callable[[int], int],
    *,
    grain: int = 1,
    allowed_bytes: int | None = None,
    free_bytes: int | None = None,
) -> int:
    """Choose the largest batch that fits.

    Parameters
    ----------
    wanted
        At most so many items.
    peak_bytes
        Predicts the memory of a batch, and grows with it.
    allowed_bytes
        What the user set; kept at any price.
    free_bytes
        What was found; only 80 % of it are used, but a batch is never made smaller
        than the grain for it.

    Raises
    ------
    EncoderError
        If not even one item is allowed.
    """
    limits = [] if free_bytes is None else [int(FREE_SHARE * free_bytes)]
    limits += [] if allowed_bytes is None else [allowed_bytes]
    size = wanted
    for size in _halves(wanted, grain):
        if not limits or peak_bytes(size) <= min(limits):
            return size
    if allowed_bytes is None:
        return size
    for smaller in _halves(size, 1):
        if peak_bytes(smaller) <= allowed_bytes:
            return smaller
    raise EncoderError(
        f"one segment alone needs {peak_bytes(1) / 1e6:.0f} MB above the weights, "
        f"--max-memory allows {allowed_bytes / 1e6:.0f} MB",
        hint="allow more with --max-memory, or cut shorter segments with --seg",
    )


def _halves(count: int, grain: int) -> Iterator[int]:
    """``count``, its half, …, in multiples of ``grain`` if it is one."""
    step = grain if count % grain == 0 else 1
    units = count // step
    while units > 1:
        yield units * step
        units = -(-units // 2)
    yield step


def longest_segment(seconds: Iterable[float], spec: SegmentSpec) -> int:
    """Samples of the longest segment that tracks of these lengths come to.

    Examples
    --------
    >>> from tune_cache.segments import segment_spec
    >>> ten, full = (segment_spec(s, sample_rate_hz=100, min_samples=5) for s in (10, "full"))
    >>> [longest_segment(tracks, spec) for tracks in ([7, 8], [7, 12]) for spec in (ten, full)]
    [800, 800, 1000, 1200]
    """
    longest = round(max(seconds, default=0.0) * spec.sample_rate_hz)
    if not spec.is_full:
        longest = spec.length_samples if spec.tail == "pad" else min(longest, spec.length_samples)
    return max(longest, spec.min_samples)


def fitting_batch(
    model: MemoryModel | SizedEncoder | None,
    *,
    n_samples: int,
    sample_rate: int,
    device: str = "cpu",
    asked: int = 0,
    free_bytes: int | None = None,
) -> int:
    """Choose the batch for segments of one length.

    Parameters
    ----------
    model
        Of the encoder's memory; None for one that does not know it, which gets what
        was asked, or about 40 s of audio.
    asked
        At most so many; 0 leaves it to memory and what is worth it.

    Raises
    ------
    EncoderError
        If its budget does not hold one segment.
    """
    if model is None:
        return asked or wanted_items(n_samples=n_samples, sample_rate=sample_rate, on_cuda=False)
    grain = model.grain(n_samples)
    on_cuda = device.startswith("cuda") and free_bytes is not None
    wanted = asked or wanted_items(
        n_samples=n_samples, sample_rate=sample_rate, on_cuda=on_cuda, grain=grain
    )
    return choose_batch_size(
        wanted,
        lambda n_items: model.peak_bytes(n_items, n_samples),
        grain=grain,
        allowed_bytes=model.max_memory_bytes,
        free_bytes=None if asked else free_bytes,
    )


def batch_size_for(encoder: Encoder, n_samples: int, asked: int = 0) -> int:
    """Choose the batch of a loaded encoder, by what is free now.

    Raises
    ------
    EncoderError
        If its budget does not hold one segment.
    """
    model = encoder if isinstance(encoder, SizedEncoder) else None
    free = None if model is None else model.free_bytes()
    size = fitting_batch(
        model,
        n_samples=n_samples,
        sample_rate=encoder.sample_rate,
        device=str(getattr(encoder, "device", "cpu")),
        asked=asked,
        free_bytes=free,
    )
    needed = 0 if model is None else model.peak_bytes(size, n_samples)
    if free is not None and needed > free:
        logger.warning(
            "%.0f MB are free, encoding segments of %.1f s takes %.0f MB: consider --max-memory",
            free / 1e6,
            n_samples / encoder.sample_rate,
            needed / 1e6,
        )
    return size
