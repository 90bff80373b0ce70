"""What MuQ does on a GPU, seen without one: fake tensors have a device and a type, no numbers."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace

import make_muq_golden as golden
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tune_cache.encoders.muq import NANO, forward, memory, ops
from tune_cache.encoders.muq.config import MuqConfig
from tune_cache.encoders.muq.encoder import DTYPES, MuqEncoder
from tune_cache.encoders.muq.forward import Forward
from tune_cache.encoders.muq.memory import (
    SCRATCH,
    SMALLEST,
    Plan,
    image_bytes,
    make_plan,
    peak_bytes,
)
from tune_cache.errors import EncoderError

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
        self.waits: list[bool] = []
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
        if func is ATEN._to_copy.default and {x.device.type for x in given} == {"cpu"}:
            self.waits.append(not kwargs.get("non_blocking"))
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
    assert done.watch.waits == [False]
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


# -- the encoder around it ------------------------------------------------------------------------


class Pretended:
    """muq-nano on the CPU that takes itself for one on a GPU, with what it pins and plans."""

    def __init__(self, monkeypatch) -> None:
        self.pinned: list[tuple[int, ...]] = []
        self.plans: list[Plan] = []
        self.too_large = lambda n_items, plan: False
        self.encoder = NANO.load(device="cpu")
        assert isinstance(self.encoder, MuqEncoder)
        self.encoder.memory = replace(self.encoder.memory, on_cpu=False)
        self.encoder.device = torch.device("cuda", 1)
        pooled = self.encoder._forward.pooled

        def watched(batch, layers, poolings, plan):
            self.plans.append(plan)
            if self.too_large(len(batch), plan):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
            return pooled(batch, layers, poolings, plan)

        def pin(tensor):
            self.pinned.append(tuple(tensor.shape))
            return tensor

        monkeypatch.setattr(self.encoder._forward, "pooled", watched)
        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)


@pytest.fixture
def pretended(monkeypatch):
    return Pretended(monkeypatch)


def test_a_batch_is_pinned_for_a_gpu_and_only_for_one(pretended):
    waveforms = golden.waveforms(24_000)
    expected = NANO.load(device="cpu").embed(waveforms)["mean"]
    assert pretended.pinned == []
    found = pretended.encoder.embed(waveforms)["mean"]
    assert pretended.pinned == [waveforms.shape]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_one_item_that_does_not_fit_is_tried_in_the_smallest_pieces(pretended):
    waveforms = golden.waveforms(240_000)[:1]
    expected = pretended.encoder.embed(waveforms)["mean"]
    pretended.too_large = lambda n_items, plan: plan != SMALLEST
    found = pretended.encoder.embed(waveforms)["mean"]
    assert len(pretended.plans) == 3
    assert SMALLEST not in pretended.plans[:2]
    assert pretended.plans[2] == SMALLEST
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_several_items_that_do_not_fit_are_the_callers_to_halve(pretended):
    pretended.too_large = lambda n_items, plan: plan != SMALLEST
    with pytest.raises(torch.OutOfMemoryError):
        pretended.encoder.embed(golden.waveforms(24_000))
    assert len(pretended.plans) == 1


def test_what_does_not_fit_in_the_smallest_pieces_is_tried_no_more(pretended):
    pretended.too_large = lambda n_items, plan: True
    with pytest.raises(torch.OutOfMemoryError):
        pretended.encoder.embed(golden.waveforms(240_000)[:1])
    assert len(pretended.plans) == 2


def test_memory_of_a_cpu_that_does_not_suffice_changes_no_pieces(monkeypatch):
    encoder, calls = NANO.load(device="cpu"), []

    def failing(*arguments):
        calls.append(arguments)
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(encoder._forward, "pooled", failing)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        encoder.embed(golden.waveforms(240_000)[:1])
    assert len(calls) == 1


def test_weights_that_do_not_fit_are_a_sentence_with_a_remedy(monkeypatch):
    said = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    def failing(*arguments, **keywords):
        raise said

    monkeypatch.setattr(forward, "Forward", failing)
    match = r"weights of muq-nano in fp32 do not fit into the memory of 'cpu': .* 2 GiB$"
    with pytest.raises(EncoderError, match=match) as error:
        NANO.load(device="cpu")
    assert "--device cpu" in error.value.hint
    said = RuntimeError("something else")
    with pytest.raises(RuntimeError, match=r"^something else$"):
        NANO.load(device="cpu")


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_plans_of_the_fourier_transform_are_few_while_it_runs(monkeypatch, name):
    plans = SimpleNamespace(max_size=4096)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.backends.cuda, "cufft_plan_cache", {1: plans})
    with ops.exact_math(torch.device(name), tf32=False):
        assert plans.max_size == ops.PLANS == 64
    assert plans.max_size == 4096
