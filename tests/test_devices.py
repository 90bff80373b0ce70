"""Devices of stage two and torch's switches around it, on a GPU that is made up."""

from __future__ import annotations

import logging
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stage_two_world import random_tracks

from tune_cache.aggregation import tensors
from tune_cache.aggregation.tensors import find_device, torch_settings
from tune_cache.aggregation.transformer import Transformer
from tune_cache.devices import release_cached_memory
from tune_cache.errors import UsageError
from tune_cache.probes.joint import WATCHED, pieces_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs, and what their first kernel is replaced by."""

    def run_by(kernel):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])
        monkeypatch.setattr(torch, "ones", kernel)

    tensors._warn_once.cache_clear()
    return run_by


def refuse(*arguments, **keywords):
    raise RuntimeError("CUDA error: no kernel image is available\nfor execution")


def test_a_gpu_that_computes_is_taken_and_none_beyond_the_count(two_gpus):
    asked = []

    def ones(size, device):
        asked.append(str(device))
        return torch.zeros(size)

    two_gpus(ones)
    names = ("auto", "cuda", "cuda:1", "cpu")
    assert [str(find_device(name)) for name in names] == ["cuda", "cuda", "cuda:1", "cpu"]
    assert asked == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(UsageError, match="'cuda:7' is not here: torch sees 2 of them"):
        find_device("cuda:7")
    with pytest.raises(UsageError, match="'cuda:2' is not here"):
        Transformer(device="cuda:2").pretrained(random_tracks(np.random.default_rng(0), 6))


def test_auto_goes_to_the_cpu_where_this_torch_has_no_kernels_for_the_gpu(two_gpus, caplog):
    two_gpus(refuse)
    with caplog.at_level(logging.WARNING):
        assert [find_device("auto") for _ in range(3)] == [CPU] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "the GPU cannot be used, the CPU is instead: CUDA error: no kernel image is available"
    ]
    with pytest.raises(UsageError, match=r"'cuda:1' cannot be used: .* no kernel image") as error:
        find_device("cuda:1")
    assert "sm_75 sm_80" in error.value.hint
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:", "cuda:-1", "cuda:one", "cpu:0", "tpu", "", "CUDA"])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(UsageError, match="expected one of auto, cpu, cuda, cuda:N"):
        find_device(name)


@pytest.mark.parametrize("is_strict", [False, True])
def test_settings_of_a_gpu_leave_torchs_strict_mode_to_the_caller(monkeypatch, is_strict):
    """It refuses each product of a process that began without cuBLAS's variable."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.use_deterministic_algorithms(is_strict)
    try:
        with torch_settings(CUDA):
            assert torch.are_deterministic_algorithms_enabled() == is_strict
            assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
        assert torch.are_deterministic_algorithms_enabled() == is_strict
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_products_are_in_float32_whatever_the_caller_has_set_and_that_comes_back(device):
    backends = torch.backends
    switch = (backends.cuda if device.type == "cuda" else backends.mkldnn).matmul
    for word in ("tf32", "ieee", "none"):
        switch.fp32_precision = word
        before = switch.fp32_precision
        try:
            with torch_settings(device):
                assert switch.fp32_precision == "ieee"
            assert switch.fp32_precision == before
        finally:
            switch.fp32_precision = "none"


def test_a_transformer_is_the_same_under_a_callers_switches_and_autocast():
    tracks = random_tracks(np.random.default_rng(0), 6)
    matmuls = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]
    n_threads = torch.get_num_threads()

    def computed():
        made = Transformer(n_layers=1, hidden=8, n_heads=1, device="cpu").fit(tracks)
        return made.transform(tracks)

    expected = computed()
    try:
        for matmul in matmuls:
            matmul.fp32_precision = "tf32"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = computed()
            assert torch.is_autocast_enabled("cpu")
        assert [matmul.fp32_precision for matmul in matmuls] == ["tf32", "tf32"]
    finally:
        for matmul in matmuls:
            matmul.fp32_precision = "none"
    np.testing.assert_array_equal(found, expected)
    assert torch.get_num_threads() == n_threads


def test_held_out_tracks_go_to_a_gpu_in_pieces_and_stay_together_on_a_cpu():
    rows = np.arange(2 * WATCHED + 3)
    some = pieces_of(rows, CUDA)
    assert [len(piece) for piece in some] == [WATCHED, WATCHED, 3]
    np.testing.assert_array_equal(np.concatenate(some), rows)
    assert [len(piece) for piece in pieces_of(rows, CPU)] == [len(rows)]


@pytest.mark.parametrize(
    ("is_used", "device", "expected"),
    [
        (False, "cuda:1", []),
        (True, "cpu", ["empty"]),
        (True, None, ["empty"]),
        (True, torch.device("cuda:1"), ["empty", torch.device("cuda:1")]),
    ],
)
def test_memory_is_given_back_and_peaks_begin_anew_on_a_gpu_only(
    monkeypatch, is_used, device, expected
):
    asked = []
    cuda = SimpleNamespace(
        is_initialized=lambda: is_used,
        empty_cache=lambda: asked.append("empty"),
        reset_peak_memory_stats=asked.append,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    release_cached_memory(device)
    assert asked == expected
