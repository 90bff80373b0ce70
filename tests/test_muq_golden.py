"""Our forward pass against the ``muq`` package's own, recorded by ``make_muq_golden.py``."""

from __future__ import annotations

from pathlib import Path

import make_muq_golden as golden
import make_muq_nano as nano
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tune_cache.encoders.muq import ENCODER, NANO
from tune_cache.encoders.muq.checkpoint import open_tensors
from tune_cache.encoders.muq.config import MuqConfig
from tune_cache.encoders.muq.forward import Forward
from tune_cache.encoders.muq.frontend import FrontEnd, mel_filters
from tune_cache.encoders.muq.memory import Plan
from tune_cache.encoders.muq.ops import exact_math

CPU = torch.device("cpu")
TOLERANCE = 1e-5
PLANS = {
    "whole": Plan(n_items=2, mel_frames=100_000, frames=100_000),
    "usual": Plan(n_items=1, mel_frames=400, frames=1024),
    "tiny": Plan(n_items=2, mel_frames=24, frames=31),
}


@pytest.fixture(scope="module")
def stored():
    return load_file(golden.FOLDER / "states.safetensors")


@pytest.fixture(scope="module")
def config():
    return MuqConfig.read(golden.FOLDER / "config.json")


@pytest.fixture(scope="module")
def forward(config):
    with open_tensors(golden.FOLDER / "model.safetensors") as tensors:
        return Forward(tensors, config, n_blocks=3, device=CPU, dtype=torch.float32)


def all_states(forward: Forward, waveforms: np.ndarray, plan: Plan) -> torch.Tensor:
    """(batch, layers, frames, dim)."""
    with exact_math(CPU, tf32=False):
        items = torch.from_numpy(waveforms).split(plan.n_items)
        return torch.cat(
            [torch.stack([s.clone() for s in forward.states(x, plan)], dim=1) for x in items]
        )


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("n_samples", golden.N_SAMPLES)
def test_every_hidden_state_of_every_frame_equals_the_stock_forward(
    forward, stored, n_samples, plan
):
    states = all_states(forward, golden.waveforms(n_samples), plan)
    expected = stored[f"{n_samples}.frames"]
    if n_samples > golden.LONGEST_WHOLE:
        torch.testing.assert_close(
            states.mean(2), stored[f"{n_samples}.mean"], rtol=0, atol=TOLERANCE
        )
        states = states[:, :, list(golden.SOME_FRAMES)]
    torch.testing.assert_close(states, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("n_samples", golden.N_SAMPLES)
@pytest.mark.parametrize("order", [[0], [1], [1, 0], [0, 1, 0, 0, 1]])
def test_embedding_equals_the_stock_mean_whatever_the_batch(stored, n_samples, order):
    encoder = ENCODER.load(path=golden.FOLDER, device="cpu")
    pooled = encoder.embed(golden.waveforms(n_samples)[order])["mean"]
    expected = stored[f"{n_samples}.mean"].numpy()[order]
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=TOLERANCE)
    # float16 is what a store keeps
    np.testing.assert_allclose(pooled.astype("f2"), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "max", "std"])
def test_poolings_are_those_of_the_stock_frames(stored, pooling):
    encoder = ENCODER.load(path=golden.FOLDER, device="cpu", layers=(1, 3), poolings=(pooling,))
    frames = stored["79200.frames"].numpy()[:, [1, 3]].astype(np.float64)
    expected = getattr(np, pooling)(frames, axis=2)
    found = encoder.embed(golden.waveforms(79_200))[pooling]
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_stretches_of_the_front_end_do_not_change_its_output(config):
    with open_tensors(golden.FOLDER / "model.safetensors") as tensors:
        front_end = FrontEnd(tensors, config, device=CPU, dtype=torch.float32)
    samples = torch.from_numpy(golden.waveforms(100_123))
    whole = front_end(samples, 100_000)
    for mel_frames in (24, 100, 400):
        torch.testing.assert_close(front_end(samples, mel_frames), whole, rtol=0, atol=2e-6)


def test_mel_spectrogram_is_the_one_of_torchaudio(config):
    import torchaudio

    stock = torchaudio.transforms.MelSpectrogram(24_000, n_fft=2048, hop_length=240, n_mels=128)
    assert torch.equal(stock.mel_scale.fb, mel_filters())
    with open_tensors(golden.FOLDER / "model.safetensors") as tensors:
        front_end = FrontEnd(tensors, config, device=CPU, dtype=torch.float32)
    samples = torch.from_numpy(golden.waveforms(30_001))
    decibel = torchaudio.transforms.AmplitudeToDB()(stock(samples))[..., :-1]
    expected = (decibel - config.mel_mean) / config.mel_std
    found = torch.cat([front_end.mel(samples, 0, 40), front_end.mel(samples, 40, 125)], dim=1)
    torch.testing.assert_close(found, expected.transpose(1, 2), rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore")  # of muq's own dependencies, while they are imported
@pytest.mark.parametrize("folder", [golden.FOLDER, nano.FOLDER], ids=["golden", "nano"])
def test_tensors_are_those_that_from_pretrained_puts_into_the_package(folder):
    from muq import MuQ

    expected = MuQ.from_pretrained(str(folder)).state_dict()
    read = {}
    with open_tensors(folder / "model.safetensors") as tensors:
        original = type(tensors).__call__

        class Recording(type(tensors)):
            def __call__(self, name: str, *shape: int) -> torch.Tensor:
                read[f"model.{name}"] = original(self, name, *shape)
                return read[f"model.{name}"]

        tensors.__class__ = Recording
        config = MuqConfig.read(folder / "config.json")
        Forward(tensors, config, n_blocks=config.n_blocks, device=CPU, dtype=torch.float32)
    unused = (
        "pos_conv_embed",
        "model.linear.",
        "quantizer",
        "cls_token",
        "num_batches",
        "inv_freq",
    )
    for name, tensor in expected.items():
        if name in read:
            assert torch.equal(read.pop(name), tensor), name
        else:
            assert any(part in name for part in unused), f"{name} is never read"
    assert not read


@pytest.mark.filterwarnings("ignore")
def test_script_of_the_golden_vectors_gives_them_again(capsys):
    import transformers

    if transformers.__version__.startswith("4."):
        assert golden.main(["--check"]) == 0
    else:
        assert golden.main(["--check"]) == 2
        assert "expected 4.57" in capsys.readouterr().err


def test_golden_data_stay_small():
    assert sum(path.stat().st_size for path in golden.FOLDER.iterdir()) < 200_000


def test_nano_weights_are_those_of_its_script():
    shipped, made = load_file(nano.FOLDER / "model.safetensors"), nano.make_tensors()
    assert shipped.keys() == made.keys()
    for name, tensor in made.items():
        # statistics may differ in the last bit of float16 between processors
        torch.testing.assert_close(shipped[name].float(), tensor.float(), rtol=2e-3, atol=2e-3)
    assert Path(nano.FOLDER, "config.json").read_text("utf-8") == nano.config_text()
    assert sum(path.stat().st_size for path in nano.FOLDER.iterdir()) < 2_000_000
    assert NANO.describe().note == "random weights"
