"""From ragged tracks to tensors, and arithmetic that gives the same bits in every run.

Conventions
-----------
On a CPU everything runs in one thread: sums then have one order, whatever else the
machine does, and cells of a sweep run side by side anyway. Tracks are used in pieces
of a fixed size and one length, so that a track's output never depends on the others:
a matrix product of few rows takes another way through the libraries than one of many.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.devices import set_precision, what_to_check, why_it_cannot_compute
from tune_cache.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Generator, Tensor

    from tune_cache.cache.ragged import Ragged

__all__ = ["by_track", "drawn_from", "find_device", "padded", "torch_settings"]

logger = logging.getLogger(__name__)

Array = np.ndarray[Any, np.dtype[Any]]

PIECE = 8  # tracks at a time in use


def find_device(name: str = "auto") -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    ``auto`` takes a GPU if there is one that this torch has kernels for.

    Raises
    ------
    UsageError
        If there is no such device here, or it does not compute.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("what is trained needs torch", hint="pip install torch") from error
    if re.fullmatch("auto|cpu|cuda(:[0-9]+)?", name) is None:
        raise UsageError(f"device is {name!r}, expected one of auto, cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if int(name.partition(":")[2] or "0") >= count:
        raise UsageError(
            f"device {name!r} is not here: torch sees {count} of them",
            hint="--device auto takes what there is; a CPU build of torch sees none",
        )
    device = torch.device("cuda" if name == "auto" else name)
    reason = why_it_cannot_compute(device)
    if reason and name != "auto":
        raise UsageError(f"device {name!r} cannot be used: {reason}", hint=what_to_check())
    if reason:
        _warn_once(f"the GPU cannot be used, the CPU is instead: {reason}")
        return torch.device("cpu")
    return device


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


@contextmanager
def torch_settings(device: torch.device, *, threads: int | None = None) -> Iterator[None]:
    """Compute the same on every run, in plain float32, and put back what was set.

    On a GPU this needs none of torch's strict mode: products, reductions and gathers
    whose places never collide repeat themselves on one stream. Strict mode would
    refuse every product of a process whose first one ran before
    ``CUBLAS_WORKSPACE_CONFIG`` was set.

    Parameters
    ----------
    threads
        Of the CPU; None leaves their number, which changes a sum's last bits, and
        training makes much of them.
    """
    import torch

    with ExitStack() as stack:
        if threads is not None and threads != torch.get_num_threads():
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        backends: Any = torch.backends  # its stubs lack the switches
        on_gpu = device.type == "cuda"
        set_precision(stack, (backends.cuda if on_gpu else backends.mkldnn).matmul, "ieee")
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(torch.enable_grad())
        yield


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
    with torch_settings(torch.device(device), threads=1), torch.no_grad():
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
