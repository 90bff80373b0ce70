"""Make golden vectors: what the ``muq`` package's own forward gives for a tiny random model.

Run it where transformers is older than 5, since the package's forward fails from there on::

    python tests/make_muq_golden.py            # writes tests/data/muq_golden again
    python tests/make_muq_golden.py --states   # the vectors only, of the weights that are there
    python tests/make_muq_golden.py --check    # compares it with what the package gives now

The model has every part of the published one at a tiny size, and statistics of its normalisations
far from 0 and 1. Its weights are shipped, not drawn again: random streams differ between releases.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

FOLDER = Path(__file__).parent / "data" / "muq_golden"
N_SAMPLES = (1025, 24_000, 79_200, 240_000)
LONGEST_WHOLE = 79_200  # of longer inputs some frames and the time means are kept
SOME_FRAMES = (0, 1, 97, 98, 99, 100, 125, 248, 249)  # around a seam of the front end's stretches


def waveforms(n_samples: int) -> np.ndarray:
    """Noise with a beat, and a loud tone that ends in silence; (2, n_samples) float32.

    The tone has a noise floor 40 dB below it. Bins far from a pure tone hold nothing but what
    the FFT rounds, whose decibels differ by 0.05 in hidden states between one processor's FFT
    and another's, in the package's own forward too.
    """
    time = np.arange(n_samples) / 24_000
    noise = np.random.default_rng(n_samples).normal(size=n_samples)
    beat = 0.1 * noise * np.exp(-8 * (time % 0.5)) + 1e-4 * noise
    tone = (0.9 * np.sin(2 * np.pi * 440 * time) + 0.01 * noise[::-1]) * (time < 0.8 * time[-1])
    return np.stack([beat, tone]).astype(np.float32)


def make_model() -> torch.nn.Module:
    """A tiny MuQ in evaluation mode, drawn from a seed."""
    from muq import MuQ, MuQConfig

    torch.manual_seed(1234)
    model = MuQ(
        MuQConfig(
            label_rate=25,
            codebook_size=4,
            codebook_dim=2,
            encoder_dim=16,
            encoder_depth=3,
            conv_dim=4,
            stat={
                "melspec_2048_mean": 6.768444971712967,
                "melspec_2048_std": 18.417922652295623,
            },
            w2v2_config={
                "activation_dropout": 0.1,
                "attention_dropout": 0.1,
                "conformer_conv_dropout": 0.1,
                "conv_depthwise_kernel_size": 31,
                "feat_extract_activation": "gelu",
                "feat_proj_dropout": 0.1,
                "hidden_act": "swish",
                "hidden_dropout": 0.1,
                "hidden_size": 16,
                "intermediate_size": 40,
                "layer_norm_eps": 2e-05,
                "layerdrop": 0.1,
                "num_attention_heads": 2,
                "num_conv_pos_embedding_groups": 4,
                "num_conv_pos_embeddings": 16,
                "position_embeddings_type": "rotary",
                "rotary_embedding_base": 10000,
            },
        )
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.2, 2)
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d | torch.nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
    return model.eval()


def stock_vectors(folder: Path) -> dict[str, torch.Tensor]:
    """Hidden states of the package's own forward, (batch, layers, frames, dim)."""
    from muq import MuQ

    model = MuQ.from_pretrained(str(folder)).eval()
    vectors = {}
    for n_samples in N_SAMPLES:
        with torch.inference_mode():
            states = torch.stack(model(torch.from_numpy(waveforms(n_samples))).hidden_states, dim=1)
        vectors[f"{n_samples}.mean"] = states.mean(2)
        vectors[f"{n_samples}.frames"] = (
            states if n_samples <= LONGEST_WHOLE else states[:, :, list(SOME_FRAMES)]
        ).contiguous()
    return vectors


def main(arguments: list[str]) -> int:
    import transformers

    if int(transformers.__version__.split(".")[0]) >= 5:
        print(
            f"transformers is {transformers.__version__}, expected 4.57: "
            "the forward of the muq package fails from 5.0 on",
            file=sys.stderr,
        )
        return 2
    if "--check" in arguments:
        stored, now = load_file(FOLDER / "states.safetensors"), stock_vectors(FOLDER)
        worst = max(float((now[name] - stored[name]).abs().max()) for name in stored)
        print(f"transformers {transformers.__version__}, largest difference {worst:.1e}")
        return 0 if stored.keys() == now.keys() and worst <= 5e-6 else 1
    if "--states" not in arguments:
        make_model().save_pretrained(FOLDER)
        (FOLDER / "README.md").unlink(missing_ok=True)  # the hub's model card
    save_file(stock_vectors(FOLDER), FOLDER / "states.safetensors")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
