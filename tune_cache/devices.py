"""What all that uses torch shares: whether a GPU computes, its memory, its switches.

Conventions
-----------
torch is used only where it is loaded, or was asked for by handing in a device.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = [
    "OUT_OF_MEMORY",
    "first_line",
    "is_out_of_memory",
    "release_cached_memory",
    "set_precision",
    "what_to_check",
    "why_it_cannot_compute",
]

# What the libraries below torch say where it is no OutOfMemoryError of its own. Handles are made
# when first used, and engines of cuDNN are left out that want more workspace than there is. Some
# have other causes too: a batch of one must quote them.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "error: out of memory",  # of CUDA, or of its driver where segments can expand
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUFFT_ALLOC_FAILED",
    "CUFFT_INTERNAL_ERROR",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "nable to find an engine to execute this computation",  # after GET, FIND, or a capital
    "nable to find a valid cuDNN algorithm to run convolution",
)


def first_line(error: BaseException) -> str:
    """What an error says first; its name if it says nothing."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise torch's out-of-memory errors without importing torch."""
    names = {kind.__name__ for kind in type(error).__mro__}
    said = any(sign in str(error) for sign in OUT_OF_MEMORY)
    return isinstance(error, MemoryError) or "OutOfMemoryError" in names or said


def release_cached_memory(device: Any = None) -> None:
    """Give back what torch keeps of GPUs: cuBLAS, cuDNN and the driver take theirs beside it.

    Parameters
    ----------
    device
        Whose peaks count anew, so that they are of what ran and not of an attempt that
        failed; batches before it are then not in them either. None leaves them.
    """
    torch = sys.modules.get("torch")  # never imported only for this
    if torch is None or not torch.cuda.is_initialized():
        return
    torch.cuda.empty_cache()
    if str(device).startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def why_it_cannot_compute(device: torch.device) -> str:
    """Run one kernel: a build of torch has none for GPUs older than it supports.

    Returns
    -------
    what torch said, on one line; empty if the kernel ran
    """
    import torch

    try:
        torch.ones(2, device=device).sum().item()
    except RuntimeError as error:
        return first_line(error)
    return ""


def what_to_check() -> str:
    """Hint at why a GPU does not compute."""
    import torch

    return (
        "see whether another process holds it, and whether this torch was built for it "
        f"(it was for {' '.join(torch.cuda.get_arch_list())}); or use --device cpu"
    )


def set_precision(stack: ExitStack, switch: Any, precision: str) -> None:
    """Set an operator's float32 switch until the stack ends; then it follows its parents again.

    The older ``torch.set_float32_matmul_precision`` cannot be read, on a CPU either,
    where a caller has set one of these switches.
    """
    before = switch.fp32_precision  # what holds, be it the operator's own or inherited
    switch.fp32_precision = "none"
    inherited = switch.fp32_precision
    own = "none" if inherited == before else before
    stack.callback(setattr, switch, "fp32_precision", own)
    switch.fp32_precision = precision
