from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from tune_cache.cache.encode import Batcher
from tune_cache.devices import OUT_OF_MEMORY
from tune_cache.encoders.muq import ops
from tune_cache.encoders.muq.encoder import find_device
from tune_cache.errors import EncoderError


def test_gpu_that_this_torch_has_no_kernels_for_is_refused(monkeypatch):
    def refuse(*arguments, **keywords):
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
    monkeypatch.setattr(torch, "ones", refuse)
    for name in ("auto", "cuda", "cuda:1"):
        with pytest.raises(EncoderError, match=r"'cuda:1' cannot be used: .* no kernel image") as e:
            find_device(name)
        assert "sm_75 sm_80" in str(e.value.hint)
        assert "--device cpu" in str(e.value.hint)


@pytest.mark.parametrize("words", OUT_OF_MEMORY)
def test_memory_that_a_library_below_torch_lacks_halves_the_batch(words):
    class Tight:
        name, sample_rate = "tight", 100

        def embed(self, waveforms):
            if len(waveforms) > 2:
                raise RuntimeError(f"error: {words} when calling something")
            return {"mean": waveforms[:, None, :1]}

    batcher = Batcher(Tight(), batch_size=8)
    rows = batcher.run([np.full(5, n, np.float32) for n in range(8)])["mean"]
    assert rows[:, 0, 0].tolist() == list(range(8))
    assert batcher.n_backoffs == 2


@pytest.mark.parametrize(
    "said",
    [
        "GET was unable to find an engine to execute this computation\nat a.cpp",
        "FIND was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuFFT error: CUFFT_INTERNAL_ERROR",
        "CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA",
        "CUDA driver error: out of memory",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "",
    ],
)
def test_what_one_item_says_is_quoted_since_it_may_mean_something_else(said):
    class Old:
        name, sample_rate = "old", 100

        def embed(self, waveforms):
            raise RuntimeError(said) if said else MemoryError

    with pytest.raises(EncoderError, match=r"0\.1 s does not fit into memory: ") as error:
        Batcher(Old(), batch_size=2).run([np.zeros(5, np.float32)] * 2)
    quoted = str(error.value).partition("memory: ")[2]
    assert quoted == ((said.splitlines() or ["MemoryError"])[0])


def test_another_error_is_not_taken_for_too_little_memory():
    class Broken:
        name, sample_rate = "broken", 100

        def embed(self, waveforms):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        Batcher(Broken(), batch_size=2).run([np.zeros(5, np.float32)] * 2)


IN_A_NEW_PROCESS = """
import torch
from tune_cache.encoders.muq import ops

backends = torch.backends
with ops.exact_math(torch.device("cpu"), tf32=False):
    pass
for word in ("ieee", "tf32", "ieee"):
    backends.fp32_precision = word  # what was not set for an operator itself follows
    assert backends.cudnn.conv.fp32_precision == word
    assert backends.cuda.matmul.fp32_precision == word
    assert backends.mkldnn.matmul.fp32_precision == word
    with ops.exact_math(torch.device("cpu"), tf32=False):
        assert backends.mkldnn.matmul.fp32_precision == "ieee"
"""


def test_a_run_on_the_cpu_leaves_the_switches_of_a_gpu_alone_and_its_own_as_they_were():
    # cuDNN's switch has a first state that cannot be set again: this needs a process of its own
    done = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_run_on_a_gpu_decides_sums_and_attention_itself_and_puts_them_back():
    matmul, cuda = torch.backends.cuda.matmul, torch.backends.cuda

    def settings():
        return (
            matmul.allow_fp16_accumulation,
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
            cuda.cudnn_sdp_enabled(),
            cuda.mem_efficient_sdp_enabled(),
        )

    before = settings()
    cuda.enable_mem_efficient_sdp(False)
    try:
        with ops.exact_math(torch.device("cuda"), tf32=False):
            assert settings() == (False, False, False, False, True)
        assert settings() == (*before[:4], False)
    finally:
        cuda.enable_mem_efficient_sdp(before[4])
