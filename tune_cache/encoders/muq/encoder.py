"""A loaded MuQ: numpy in, pooled hidden states out, on one device in one precision.

Conventions
-----------
fp32 is the reference; TF32 is off. tf32 rounds the inputs of products on the
GPU, bf16 and fp16 compute products and convolutions in 16 bits while the
residual stream, norms and statistics stay in float32. fp16 can overflow: an
item whose output is not finite is encoded again in fp32, by itself, and counted.
From the first one on the fp32 weights are on the GPU as well; no prediction has them.

An item never sees another one. On the CPU an item of 5.13 s or more also runs
by itself, so its numbers are the same to the last bit whatever the batch;
shorter ones, and any on a GPU, agree to the rounding of the precision (1e-5 in
fp32). The same batch gives the same bits again, with the same number of threads.
Switches of torch are global: two precisions in two threads are not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tune_cache.devices import (
    first_line,
    is_out_of_memory,
    release_cached_memory,
    what_to_check,
    why_it_cannot_compute,
)
from tune_cache.encoders.available import free_bytes
from tune_cache.encoders.base import Waveforms, check_waveforms, kept_layers, kept_poolings
from tune_cache.encoders.muq.checkpoint import open_tensors
from tune_cache.encoders.muq.config import FRAME_RATE_HZ, MIN_SAMPLES, SAMPLE_RATE, MuqConfig
from tune_cache.encoders.muq.memory import ITEM_BYTES, SMALLEST, Memory, Plan, give_back
from tune_cache.errors import EncoderError
from tune_cache.specs import EncoderSpec

if TYPE_CHECKING:
    import torch

    from tune_cache.encoders.muq.forward import Forward

__all__ = ["MuqEncoder", "check_precision", "find_device"]

DTYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16"}
OLDEST_BF16 = (8, 0)
SMALL_DIM = 256


class MuqEncoder:
    """MuQ at one set of weights.

    Parameters
    ----------
    path
        Of ``model.safetensors``.
    spec
        Called when the identity is first asked for: it hashes the weights.
    max_memory_bytes
        Of everything above the weights; None takes the fastest sizes.

    Attributes
    ----------
    n_recomputed
        Items that fp16 could not represent and that were encoded in fp32.
    """

    sample_rate = SAMPLE_RATE
    min_samples = MIN_SAMPLES
    frame_rate_hz = FRAME_RATE_HZ

    def __init__(
        self,
        name: str,
        path: Path,
        config: MuqConfig,
        spec: Callable[[], EncoderSpec],
        *,
        precision: str,
        device: torch.device,
        layers: tuple[int, ...] | None,
        poolings: tuple[str, ...],
        max_memory_bytes: int | None,
    ) -> None:
        self.name = name
        self.config = config
        self.n_layers = config.n_layers
        self.dim = config.dim
        self.layers = kept_layers(layers, config.n_layers)
        self.poolings = kept_poolings(poolings)
        self.precision = precision
        self.device = device
        self.max_memory_bytes = max_memory_bytes
        self.memory = Memory(
            config=config,
            n_blocks=self.layers[-1],
            itemsize=ITEM_BYTES[precision],
            on_cpu=device.type == "cpu",
            max_memory_bytes=max_memory_bytes,
        )
        self.n_recomputed = 0
        self._path = path
        self._make_spec = spec
        self._forward = self._load(precision)

    @cached_property
    def _spec(self) -> EncoderSpec:
        return self._make_spec()

    def spec(self) -> EncoderSpec:
        """What identifies it; hashes the weights when first asked."""
        return self._spec

    def embed(self, waveforms: Waveforms) -> dict[str, np.ndarray]:
        """Encode a batch.

        Raises
        ------
        EncoderError
            If the batch has a wrong shape or dtype, is too short or not finite, does
            not fit into ``max_memory_bytes``, or comes out not finite.
        torch.cuda.OutOfMemoryError
            If the GPU's memory does not hold it: try half the batch. One item is first
            tried in the smallest pieces.
        """
        check_waveforms(waveforms, self)
        pooled = self._run(self._forward, waveforms)
        bad = self._not_finite(pooled)
        if len(bad) and self.precision == "fp16":
            for item in bad:  # a batch of them would take twice the memory that fp16 was given
                again = self._run(self._exact, waveforms[item : item + 1])
                for pooling, values in again.items():
                    pooled[pooling][item] = values[0]
            self.n_recomputed += len(bad)
            bad = self._not_finite(pooled)
        if len(bad):
            raise EncoderError(
                f"{self.name} gave NaN or infinite values for {len(bad)} of {len(waveforms)} "
                f"items in {self.precision}, first at position {bad[0]}",
                hint="try --precision fp32; if that fails too, the weights are damaged",
            )
        return pooled

    def peak_bytes(self, n_items: int, n_samples: int) -> int:
        """Predict the memory of :meth:`embed` above the weights.

        More than ``max_memory_bytes`` means that the items will not run together.

        Raises
        ------
        EncoderError
            If not even one item can be kept within ``max_memory_bytes``.
        """
        return self.memory.peak_bytes(n_items, n_samples)

    def grain(self, n_samples: int) -> int:
        """Items that share matrix products: batches in multiples of it give the same bits."""
        return self.memory.grain(n_samples)

    def free_bytes(self) -> int | None:
        """Memory that is free on its device, None where that cannot be told."""
        return free_bytes(str(self.device))

    @cached_property
    def _exact(self) -> Forward:
        """The same weights in fp32, read when fp16 first fails."""
        return self._load("fp32")

    def _load(self, precision: str) -> Forward:
        import torch

        from tune_cache.encoders.muq.forward import Forward

        try:
            with open_tensors(self._path) as tensors:
                forward = Forward(
                    tensors,
                    self.config,
                    n_blocks=self.layers[-1],
                    device=self.device,
                    dtype=getattr(torch, DTYPES[precision]),
                    tf32=precision == "tf32",
                )
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise EncoderError(
                f"the weights of {self.name} in {precision} do not fit into the memory of "
                f"{str(self.device)!r}: {first_line(error)}",
                hint="end what else uses it, keep fewer layers, or use --precision bf16, "
                "another --device or --device cpu",
            ) from error
        give_back()
        return forward

    def _run(self, forward: Forward, waveforms: Waveforms) -> dict[str, np.ndarray]:
        import torch

        memory = replace(self.memory, itemsize=forward.itemsize)
        plan = memory.plan(len(waveforms), waveforms.shape[1])
        if memory.on_cpu and self.config.dim > SMALL_DIM:
            give_back()
        batch = torch.from_numpy(np.require(waveforms, requirements=["C", "W"]))
        if not memory.on_cpu:
            batch = batch.pin_memory()  # or the copy to the GPU would be made on this thread
        try:
            return self._pooled(forward, batch, plan)
        except RuntimeError as error:
            may_shrink = not memory.on_cpu and len(batch) == 1 and plan != SMALLEST
            if not may_shrink or not is_out_of_memory(error):
                raise
        release_cached_memory(self.device)  # after the error, whose frames hold tensors
        return self._pooled(forward, batch, SMALLEST)

    def _pooled(self, forward: Forward, batch: torch.Tensor, plan: Plan) -> dict[str, np.ndarray]:
        with _threads_for(self.config, self.device):
            pooled = forward.pooled(batch, self.layers, self.poolings, plan)
        return {pooling: values.cpu().numpy() for pooling, values in pooled.items()}

    @staticmethod
    def _not_finite(pooled: dict[str, np.ndarray]) -> np.ndarray:
        finite = [np.isfinite(values).all(axis=(1, 2)) for values in pooled.values()]
        return np.flatnonzero(~np.logical_and.reduce(finite))


@contextmanager
def _threads_for(config: MuqConfig, device: torch.device) -> Iterator[None]:
    """Run a small model on one thread: its operations take less than a barrier between two.

    Beside one other busy process, muq-nano ran at 272 × real time on one thread
    and at 47 × on two, which waited for each other.
    """
    import torch

    before = torch.get_num_threads()
    small = device.type == "cpu" and config.dim <= SMALL_DIM and before > 1
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def find_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    EncoderError
        If there is no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        device = None
        reason = str(error).splitlines()[0]
    if device is None or device.type not in ("cpu", "cuda"):
        raise EncoderError(
            f"device is {name!r}, expected 'auto', 'cpu', 'cuda' or 'cuda:N'"
            + (f": {reason}" if device is None else ""),
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise EncoderError(
                f"device is {name!r}, but torch sees {count} CUDA devices",
                hint="check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu",
            )
        if device.index is None:  # another one may be current when something is allocated
            device = torch.device("cuda", torch.cuda.current_device())
        problem = why_it_cannot_compute(device)
        if problem:
            raise EncoderError(
                f"device {str(device)!r} cannot be used: {problem}", hint=what_to_check()
            )
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that is emulated, or means nothing, on a device.

    Raises
    ------
    EncoderError
        With the reason.
    """
    import torch

    if precision not in DTYPES:
        raise EncoderError(
            f"precision is {precision!r}, expected one of {', '.join(DTYPES)}",
            hint="fp32 is the reference",
        )
    reason = ""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if precision in ("bf16", "tf32") and capability < OLDEST_BF16:
            reason = (
                f"compute capability {capability[0]}.{capability[1]} has none "
                f"(8.0 is the first); bf16 would be emulated, tf32 ignored"
            )
    elif precision in ("tf32", "fp16"):
        reason = "it exists on GPUs only"
    elif precision == "bf16" and not _cpu_has_bf16():
        reason = "this processor has no bf16 instructions (AVX512-BF16, AMX) and would emulate it"
    if reason:
        raise EncoderError(
            f"precision {precision!r} is refused on {str(device)!r}: {reason}",
            hint="use --precision fp32" + (" or bf16" if precision in ("tf32", "fp16") else ""),
        )


def _cpu_has_bf16() -> bool:
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
