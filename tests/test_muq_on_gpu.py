"""What MuQ does on a GPU, seen without one: fake tensors have a device and a type, no numbers."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tune_cache.encoders.muq import memory
from tune_cache.encoders.muq.config import MuqConfig
from tune_cache.encoders.muq.encoder import DTYPES
from tune_cache.encoders.muq.forward import Forward
from tune_cache.encoders.muq.memory import SCRATCH, Plan, image_bytes, make_plan, peak_bytes

CUDA = torch.device("cuda")
SMALL = MuqConfig(
    conv_dim=16,
    dim=32,
    n_blocks=2,
    n_heads=4,
    ffn_dim=64,
    kernel=31,
    rotary_base=10_000.0,
    norm_epsilon=1e-5,
    mel_mean=6.8,
    mel_std=18.4,
)
LARGE = replace(SMALL, conv_dim=512, dim=1024, n_blocks=1, n_heads=16, ffn_dim=4096)
ATEN = torch.ops.aten
ATTENTION = ATEN.scaled_dot_product_attention.default
PRODUCTS = (
    ATEN.mm.default,
    ATEN.addmm.default,
    ATEN.bmm.default,
    ATEN.convolution.default,
    ATTENTION,
)


class Blank:
    """Stands for a weights file: every tensor is there, in the shape asked for."""

    def __contains__(self, name: str) -> bool:
        return True

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        return torch.ones(shape)

    def norm(self, prefix: str, size: int, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(size), torch.ones(size)


class Watch(TorchDispatchMode):
    """Takes each operation apart and notes devices, types, and bytes that live on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: set[str] = set()
        self.launches: Counter[str] = Counter()
        self.products: list[set[torch.dtype]] = []
        self.norms: set[torch.dtype] = set()
        self.depthwise_contiguous: list[bool] = []
        self.copies_to_gpu: list[tuple[int, ...]] = []
        self.live_bytes = self.peak_bytes = 0
        self._sizes: dict[int, int] = {}
        self._others: set[int] = set()  # weights

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "aten" and func is not ATTENTION:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        made = [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self._note(func, args, given, made)
        return result

    def _note(self, func, args, given, made) -> None:
        if func is ATEN._to_copy.default and {x.device.type for x in given} == {"cpu"}:
            self.copies_to_gpu.append(tuple(given[0].shape))
        elif func.namespace == "aten" and not func.is_view:
            self.devices |= {str(x.device) for x in given + made}
            if made and func is not ATEN.empty.memory_format:
                self.launches[str(func)] += 1
        if func in PRODUCTS:
            self.products.append({x.dtype for x in given})
        if func is ATEN.native_layer_norm.default:
            self.norms |= {x.dtype for x in given}
        if func is ATEN.convolution.default and args[-1] > 1:
            self.depthwise_contiguous.append(args[0].is_contiguous())
        for x in given:
            if x.untyped_storage()._cdata not in self._sizes:
                self._others.add(x.untyped_storage()._cdata)
        for x in made:
            storage = x.untyped_storage()
            key = storage._cdata
            if x.device.type == "cuda" and key not in self._sizes and key not in self._others:
                self._sizes[key] = storage.nbytes()
                self.live_bytes += storage.nbytes()
                self.peak_bytes = max(self.peak_bytes, self.live_bytes)
                weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.live_bytes -= self._sizes.pop(key)


@dataclass(frozen=True)
class Run:
    watch: Watch
    plan: Plan
    pooled: dict[str, torch.Tensor]
    predicted_bytes: int


def run(
    config: MuqConfig, precision: str, n_items: int, n_samples: int, budget: int | None = None
) -> Run:
    """Run the whole forward on a GPU that is not there."""
    dtype = getattr(torch, DTYPES[precision])
    sizes = {"n_samples": n_samples, "itemsize": dtype.itemsize, "on_cpu": False}
    plan = make_plan(config, n_items=n_items, max_memory_bytes=budget, **sizes)
    with FakeTensorMode():
        forward = Forward(
            Blank(),
            config,
            n_blocks=config.n_blocks,
            device=CUDA,
            dtype=dtype,
            tf32=precision == "tf32",
        )
        waveforms = torch.zeros(n_items, n_samples)
        with Watch() as watch:
            layers = range(config.n_layers)
            pooled = forward.pooled(waveforms, layers, ("mean", "max", "std"), plan)
    return Run(watch, plan, pooled, peak_bytes(config, plan, **sizes))


LENGTHS = [1025, 1919, 23_999, 240_000, 1_250_007]


@pytest.mark.parametrize("n_samples", LENGTHS)
@pytest.mark.parametrize("precision", DTYPES)
def test_everything_is_on_the_gpu_and_in_the_type_that_was_asked_for(precision, n_samples):
    done = run(SMALL, precision, 3, n_samples)
    assert done.watch.devices == {"cuda:0"}
    assert done.watch.copies_to_gpu == [(3, n_samples)]
    for values in done.pooled.values():
        assert (values.dtype, values.device.type) == (torch.float32, "cuda")
        assert values.shape == (3, SMALL.n_layers, SMALL.dim)
    assert done.watch.norms == {torch.float32}
    dtype = getattr(torch, DTYPES[precision])
    # the mel filters are the only product that stays in float32
    assert all(len(types) == 1 for types in done.watch.products)
    assert set().union(*done.watch.products) == {dtype, torch.float32}


def test_many_items_too_short_for_two_strips_of_mel_run_together():
    assert run(SMALL, "fp32", 300, 1025).pooled["mean"].shape == (300, SMALL.n_layers, SMALL.dim)


def test_depthwise_convolution_is_not_left_to_cudnn():
    assert set(run(SMALL, "bf16", 2, 240_000).watch.depthwise_contiguous) == {True}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("share", [1.0, 0.7, 0.4])
@pytest.mark.parametrize(("n_items", "seconds"), [(4, 10), (32, 10), (10, 30), (1, 300)])
def test_memory_of_the_gpu_stays_below_the_prediction(
    monkeypatch, precision, share, n_items, seconds
):
    dtype = getattr(torch, DTYPES[precision])
    n_samples = seconds * 24_000
    sizes = {"n_samples": n_samples, "itemsize": dtype.itemsize, "on_cpu": False}
    most = peak_bytes(LARGE, make_plan(LARGE, n_items=n_items, **sizes), **sizes)
    least = peak_bytes(LARGE, Plan(n_items=1, mel_frames=64, frames=128), **sizes)
    budget = max(least, math.floor(share * most))
    done = run(LARGE, precision, n_items, n_samples, budget)
    assert done.predicted_bytes <= budget
    # fake tensors call no library: without the guesses at their workspaces it is what is used
    monkeypatch.setattr(memory, "GPU_SCRATCH", 0)
    monkeypatch.setattr(memory, "GPU_WORKSPACE_IMAGES", 0)
    in_tensors = peak_bytes(LARGE, done.plan, **sizes)
    assert done.watch.peak_bytes <= in_tensors + SCRATCH // 2
    # and the prediction is not idle: at most twice that
    assert in_tensors <= 2 * done.watch.peak_bytes


@pytest.mark.parametrize("itemsize", [4, 2])
def test_libraries_are_given_room_on_a_gpu_and_not_on_a_cpu(monkeypatch, itemsize):
    plan, n_samples = Plan(n_items=4, mel_frames=4000, frames=4096), 240_000
    room = {}
    for on_cpu in (True, False):
        sizes = {"n_samples": n_samples, "itemsize": itemsize, "on_cpu": on_cpu}
        with monkeypatch.context() as patch:
            room[on_cpu] = peak_bytes(LARGE, plan, **sizes)
            patch.setattr(memory, "GPU_SCRATCH", 0)
            patch.setattr(memory, "GPU_WORKSPACE_IMAGES", 0)
            room[on_cpu] -= peak_bytes(LARGE, plan, **sizes)
    # four items of 1,000 mel frames go through the front end together
    assert room == {True: 0, False: 64_000_000 + image_bytes(LARGE, 4000, itemsize)}


def test_launches_hardly_grow_with_the_batch():
    few, many = (sum(run(SMALL, "bf16", n, 240_000).watch.launches.values()) for n in (1, 32))
    assert many < 4 * few
