"""Make the weights of ``muq-nano``: random numbers from a seed, nothing is learned.

Run ``python tests/make_muq_nano.py [FOLDER]`` to write them again; without a folder into the
package. `test_muq.py` checks that this gives the tensors that are shipped.

Layers get the gains that keep a signal's size through them (He et al., "Delving deep into
rectifiers", ICCV 2015), and the front end's batch normalisations the statistics of a few seconds of
synthetic music, so that random features still tell sounds apart. Only the tensors that a hidden
state depends on are written, as float16; ``MuQ.from_pretrained`` fills in the rest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, linear, relu

import tune_cache
from tune_cache.encoders.muq.config import SAMPLE_RATE
from tune_cache.encoders.muq.frontend import FLOOR, mel_filters

SEED = 20250101
CONV_DIM, DIM, FFN_DIM, N_BLOCKS, N_HEADS, KERNEL, N_BANDS = 16, 96, 256, 4, 4, 31, 32
CONFIG = {
    "label_rate": 25,
    "num_codebooks": 1,
    "codebook_dim": 4,
    "codebook_size": 16,
    "features": ["melspec_2048"],
    "hop_length": 240,
    "n_mels": 128,
    "conv_dim": CONV_DIM,
    "encoder_dim": DIM,
    "encoder_depth": N_BLOCKS,
    "stat": {
        "melspec_2048_mean": 6.768444971712967,
        "melspec_2048_std": 18.417922652295623,
    },
    "w2v2_config": {
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "conformer_conv_dropout": 0.0,
        "conv_depthwise_kernel_size": KERNEL,
        "feat_extract_activation": "gelu",
        "feat_proj_dropout": 0.0,
        "hidden_act": "swish",
        "hidden_dropout": 0.0,
        "hidden_size": DIM,
        "intermediate_size": FFN_DIM,
        "layer_norm_eps": 1e-05,
        "layerdrop": 0.0,
        "max_source_positions": 5000,
        "num_attention_heads": N_HEADS,
        "num_conv_pos_embedding_groups": 4,
        "num_conv_pos_embeddings": 16,
        "position_embeddings_type": "rotary",
        "rotary_embedding_base": 10000,
    },
}
FOLDER = Path(tune_cache.__file__).parent / "encoders" / "weights" / "muq-nano"


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config_text(), "utf-8")
    save_file(make_tensors(), folder / "model.safetensors", metadata={"format": "pt"})


def config_text() -> str:
    return json.dumps(CONFIG, indent=2) + "\n"


def make_tensors() -> dict[str, torch.Tensor]:
    """All tensors by the names of the ``muq`` package."""
    rng = np.random.default_rng(SEED)
    tensors: dict[str, torch.Tensor] = {}

    def add(name: str, values: np.ndarray | torch.Tensor) -> torch.Tensor:
        tensors[f"model.{name}"] = torch.as_tensor(values).to(torch.float16).contiguous()
        return tensors[f"model.{name}"].float()  # later layers see what will be read back

    def normal(name: str, *shape: int, gain: float = 1.0) -> torch.Tensor:
        fan_in = int(np.prod(shape[1:]))
        return add(name, rng.normal(size=shape) * np.sqrt(gain / fan_in))

    def small(name: str, size: int) -> torch.Tensor:
        return add(name, rng.normal(size=size) * 0.1)

    def norm(name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        return add(f"{name}.weight", rng.uniform(0.8, 1.2, size)), small(f"{name}.bias", size)

    def front_end_conv(index: int, number: int, image: torch.Tensor, stride: int) -> torch.Tensor:
        prefix = f"conv.conv.{index}."
        weight = normal(f"{prefix}conv{number}.weight", CONV_DIM, image.shape[1], 3, 3, gain=2)
        bias = small(f"{prefix}conv{number}.bias", CONV_DIM)
        scale, shift = norm(f"{prefix}bn{number}", CONV_DIM)
        image = conv2d(image, weight, bias, stride=stride, padding=1)
        mean = add(f"{prefix}bn{number}.running_mean", image.mean((0, 2, 3)))
        variance = add(f"{prefix}bn{number}.running_var", image.var((0, 2, 3), correction=0))
        scale, shift = scale[:, None, None], shift[:, None, None]
        return (image - mean[:, None, None]) / variance[:, None, None].sqrt() * scale + shift

    with torch.inference_mode():
        image = calibration_mel(rng)
        for index in (0, 1):
            inner = relu(front_end_conv(index, 1, image, stride=2))
            outer = front_end_conv(index, 2, inner, stride=1)
            image = relu(outer + front_end_conv(index, 3, image, stride=2))
        # the features' mean over time, most of their energy, carries little: project around it
        weight = normal("conv.linear.weight", DIM, CONV_DIM * N_BANDS, gain=4)
        frames = image.permute(0, 3, 1, 2).flatten(2)
        add("conv.linear.bias", -linear(frames, weight).mean((0, 1)))

    for index in range(N_BLOCKS):
        prefix = f"conformer.layers.{index}."
        for name in ("ffn1", "ffn2"):
            norm(f"{prefix}{name}_layer_norm", DIM)
            normal(f"{prefix}{name}.intermediate_dense.weight", FFN_DIM, DIM, gain=2)
            small(f"{prefix}{name}.intermediate_dense.bias", FFN_DIM)
            normal(f"{prefix}{name}.output_dense.weight", DIM, FFN_DIM, gain=2)
            small(f"{prefix}{name}.output_dense.bias", DIM)
        norm(f"{prefix}self_attn_layer_norm", DIM)
        for letter, gain in (("q", 4), ("k", 4), ("v", 1), ("out", 1)):
            normal(f"{prefix}self_attn.linear_{letter}.weight", DIM, DIM, gain=gain)
            small(f"{prefix}self_attn.linear_{letter}.bias", DIM)
        norm(f"{prefix}conv_module.layer_norm", DIM)
        normal(f"{prefix}conv_module.pointwise_conv1.weight", 2 * DIM, DIM, 1)
        normal(f"{prefix}conv_module.depthwise_conv.weight", DIM, 1, KERNEL)
        norm(f"{prefix}conv_module.batch_norm", DIM)
        add(f"{prefix}conv_module.batch_norm.running_mean", np.zeros(DIM))
        # of a · sigmoid(b), both standard normal
        add(f"{prefix}conv_module.batch_norm.running_var", np.full(DIM, 0.293))
        normal(f"{prefix}conv_module.pointwise_conv2.weight", DIM, DIM, 1, gain=2)
        norm(f"{prefix}final_layer_norm", DIM)
    norm("conformer.layer_norm", DIM)
    return tensors


def calibration_mel(rng: np.random.Generator) -> torch.Tensor:
    """Normalised log-mel of synthetic clips, (clips, 1, mels, frames)."""
    seconds, n_clips = 2, 16
    time = np.arange(seconds * SAMPLE_RATE) / SAMPLE_RATE
    clips = []
    for _ in range(n_clips):
        clip = rng.normal(size=len(time)) * 10 ** rng.uniform(-4, -1.5)
        for _ in range(8):  # notes with overtones and a decay, from two octaves up to five
            pitch_hz, start = 55 * 2 ** rng.uniform(0, 4), rng.uniform(0, seconds)
            decay = np.where(time < start, 0, np.exp((start - time) / rng.uniform(0.05, 1)))
            for overtone in range(1, 13):
                clip += (
                    0.1
                    / overtone ** rng.uniform(0.5, 2)
                    * decay
                    * np.sin(2 * np.pi * pitch_hz * overtone * time)
                )
        clips.append(clip)
    spectra = torch.stft(
        torch.tensor(np.array(clips), dtype=torch.float32),
        2048,
        240,
        window=torch.hann_window(2048),
        return_complex=True,
    )
    mel = mel_filters().T @ spectra.abs().square()
    decibel = 10 * mel.clamp(min=FLOOR).log10()
    stat = CONFIG["stat"]
    return ((decibel - stat["melspec_2048_mean"]) / stat["melspec_2048_std"]).unsqueeze(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
