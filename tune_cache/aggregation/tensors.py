"""From ragged tracks to tensors, and arithmetic that gives the same bits in every run.

Conventions
-----------
On a CPU everything runs in one thread: sums then have one order, whatever else the
machine does, and cells of a sweep run side by side anyway. Tracks are used in pieces
of a fixed size and one length, so that a track's output never depends on the others:
a matrix product of few rows takes another way through the libraries than one of many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tune_cache.cache.ragged import Ragged

__all__ = ["by_track", "deterministic", "device_for", "drawn_from", "padded"]

Array = np.ndarray[Any, np.dtype[Any]]

PIECE = 8  # tracks at a time in use


def device_for(asked: str) -> str:
    """Choose where to compute: ``auto`` takes a GPU if there is one.

    Raises
    ------
    UsageError
        If it is no device of this machine.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            "trained aggregations need torch", hint="pip install torch"
        ) from error
    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = asked.partition(":")[0]
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_available()):
        raise UsageError(
            f"device is {asked!r}, expected auto, cpu or a cuda device of this machine"
        )
    return asked


@contextmanager
def deterministic() -> Iterator[None]:
    """One thread, and full precision on a GPU, for as long as the block lasts."""
    import torch

    n_threads = torch.get_num_threads()
    precision = torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        torch.set_float32_matmul_precision(precision)


def drawn_from(seed: int, device: str = "cpu") -> Generator:
    """A source of chance of its own; the global one is left alone."""
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def padded(
    tracks: Ragged, chosen: Array, longest: int, mean: Array, scale: Array, device: str
) -> tuple[Tensor, Tensor]:
    """Scaled segments of some tracks side by side, zeros where there are none.

    Parameters
    ----------
    longest
        Tracks are cut to this many segments.
    mean, scale
        Of one segment: (dim,), or (layers, dim) where segments have layers.

    Returns
    -------
    (tracks, segments, …, dim) and which are there, (tracks, segments)
    """
    import torch

    lengths = np.minimum(tracks.lengths[chosen], longest)
    shape = (len(chosen), int(lengths.max(initial=1)), *tracks.values.shape[1:])
    values = np.zeros(shape, dtype=np.float32)
    for row, (track, n) in enumerate(zip(chosen.tolist(), lengths.tolist(), strict=True)):
        values[row, :n] = (tracks[track][:n] - mean) / scale
    present = np.arange(shape[1]) < lengths[:, None]
    return torch.from_numpy(values).to(device), torch.from_numpy(present).to(device)


def by_track(
    tracks: Ragged,
    longest: int,
    mean: Array,
    scale: Array,
    device: str,
    compute: Callable[[Tensor, Tensor], Tensor],
) -> list[Array]:
    """Apply a network to every track, in pieces of tracks of one length.

    Returns
    -------
    one array a track, what ``compute`` gives for its row
    """
    import torch

    found: list[Array] = [np.zeros(0)] * len(tracks)
    lengths = np.minimum(tracks.lengths, longest)
    with deterministic(), torch.no_grad():
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for start in range(0, len(same), PIECE):
                some = same[start : start + PIECE]
                full = np.resize(some, PIECE)  # repeated to a full piece
                values, present = padded(tracks, full, longest, mean, scale, device)
                out = compute(values, present).cpu().numpy()
                for track, row in zip(some.tolist(), out, strict=False):
                    found[track] = row
    return found
