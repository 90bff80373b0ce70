"""What only a GPU can show: its numbers, its memory, and what it leaves behind."""

from __future__ import annotations

import make_muq_golden as golden
import numpy as np
import pytest
import torch
from stage_two_world import classes_world
from trained_world import TINY

from tune_cache.cache.encode import Batcher
from tune_cache.cache.ledger import Meter
from tune_cache.devices import release_cached_memory
from tune_cache.encoders.available import free_bytes
from tune_cache.encoders.muq import NANO
from tune_cache.encoders.muq.encoder import OLDEST_BF16
from tune_cache.encoders.muq.memory import GPU_SCRATCH
from tune_cache.probes import joint
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.mlp import MLPOptions
from tune_cache.probes.workshop import Workshop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda"


def noise(n_items: int, seconds: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (n_items, int(24_000 * seconds))
    return list(rng.normal(0, 0.1, shape).astype(np.float32))


def test_one_process_encodes_pretrains_trains_with_a_head_and_a_perceptron_and_repeats_it(
    monkeypatch,
):
    monkeypatch.setattr(joint, "MOST_STEPS", 20)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    NANO.load(device=DEVICE).embed(golden.waveforms(24_000))  # cuBLAS begins outside our settings
    data, features = classes_world(np.random.default_rng(0), n=(40, 12, 12), signal=(0,))

    def probed(aggregation, options, **asked):
        (result,) = run_probe(
            features,
            data,
            aggregation=aggregation,
            aggregation_options=options,
            layer="0",
            n_resamples=1,
            workshop=Workshop(device=DEVICE),
            **asked,
        )
        return result.predictions

    perceptron = {"probe": "mlp", "probe_options": MLPOptions(device=DEVICE)}
    for aggregation, options, asked in (
        ("transformer", TINY, {}),
        ("transformer", {**TINY, "finetune": True}, {}),
        ("attention", {"hidden": 8}, {}),
        ("mean", {}, perceptron),
    ):
        one, two = (probed(aggregation, options, **asked) for _ in range(2))
        assert one == two


@pytest.mark.parametrize(("n_items", "seconds"), [(1, 100), (40, 1), (7, 10), (3, 31.7)])
def test_batches_of_any_shape_agree_with_the_cpu(n_items, seconds):
    waveforms = noise(n_items, seconds)
    expected = Batcher(NANO.load(device="cpu")).run(waveforms)["mean"]
    found = Batcher(NANO.load(device=DEVICE)).run(waveforms)["mean"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("n_items", "seconds"), [(1, 1), (64, 10), (5, 30), (1, 300)])
def test_tensors_stay_below_the_prediction(precision, n_items, seconds):
    if precision == "bf16" and torch.cuda.get_device_capability() < OLDEST_BF16:
        pytest.skip("this GPU has no bf16")
    encoder = NANO.load(device=DEVICE, precision=precision)
    waveforms = np.stack(noise(n_items, seconds))
    weights = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    encoder.embed(waveforms)
    used = torch.cuda.max_memory_allocated() - weights
    assert used <= encoder.peak_bytes(n_items, waveforms.shape[1])


def test_too_little_memory_halves_the_batch_and_all_of_it_comes_back():
    waveforms = noise(256, 10)
    encoder = NANO.load(device=DEVICE)
    expected = Batcher(encoder, batch_size=8).run(waveforms)["mean"]
    release_cached_memory()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    needed = encoder.peak_bytes(256, 240_000) - GPU_SCRATCH
    _, total = torch.cuda.mem_get_info()
    batcher = Batcher(encoder, batch_size=256)
    torch.cuda.set_per_process_memory_fraction((reserved + needed / 4) / total)
    try:
        found = batcher.run(waveforms)["mean"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert batcher.n_backoffs >= 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    release_cached_memory()
    assert torch.cuda.memory_allocated() <= allocated
    assert torch.cuda.memory_reserved() <= reserved


def test_the_last_gpu_is_measured_though_the_first_is_current():
    count = torch.cuda.device_count()
    last = f"cuda:{count - 1}"
    encoder = NANO.load(device=last)
    meter = Meter(encoder)
    meter.begin()
    encoder.embed(golden.waveforms(24_000))
    read = meter.read()
    assert read["device"] == f"cuda: {torch.cuda.get_device_name(last)}"
    assert 0 < read["peak_vram_allocated_bytes"] <= read["peak_vram_reserved_bytes"]
    _, total = torch.cuda.mem_get_info(last)
    assert 0 < free_bytes(last) < total
    assert free_bytes(f"cuda:{count}") is None


def test_a_run_leaves_torchs_switches_as_they_were():
    backends = torch.backends

    def switches():
        matmul = backends.cuda.matmul
        return (
            matmul.fp32_precision,
            backends.cudnn.conv.fp32_precision,
            backends.cudnn.benchmark,
            backends.cudnn.deterministic,
            matmul.allow_fp16_accumulation,
            matmul.allow_fp16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction,
            backends.cuda.cudnn_sdp_enabled(),
            backends.cuda.cufft_plan_cache[torch.cuda.current_device()].max_size,
            torch.are_deterministic_algorithms_enabled(),
        )

    backends.cudnn.conv.fp32_precision = "tf32"  # its first state cannot be set again
    try:
        before = switches()
        NANO.load(device=DEVICE).embed(golden.waveforms(24_000))
        assert switches() == before
    finally:
        backends.cudnn.conv.fp32_precision = "none"


def test_what_fp16_cannot_hold_is_encoded_in_fp32():
    waveforms = golden.waveforms(24_000)
    expected = NANO.load(device="cpu").embed(waveforms)["mean"]
    encoder = NANO.load(device=DEVICE, precision="fp16")
    with torch.inference_mode():
        encoder._forward.front_end.project.weight.mul_(60_000)
    found = encoder.embed(waveforms)["mean"]
    assert encoder.n_recomputed == len(waveforms)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
