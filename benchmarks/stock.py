"""The other side of every comparison: the ``muq`` package's own forward pass.

Runs in an environment with transformers 4.57, where that forward works, and needs nothing of
tune_cache there::

    python benchmarks/stock.py make FOLDER            # a random MuQ of the true size, 1.33 GB
    python benchmarks/stock.py run FOLDER --seconds 10 --batch 4 [--autocast] [--states FILE]
    python benchmarks/stock.py pool FOLDER --waves FILE --pooled FILE

``run`` prints one JSON object: the seconds of every repeat and the resident memory above the
weights. ``serve`` does the same for requests on standard input: two programs can take turns.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SAMPLE_RATE = 24_000
W2V2_CONFIG = {
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "conformer_conv_dropout": 0.1,
    "conv_depthwise_kernel_size": 31,
    "feat_extract_activation": "gelu",
    "feat_proj_dropout": 0.1,
    "hidden_act": "swish",
    "hidden_dropout": 0.1,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.0,
    "num_attention_heads": 16,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 10000,
}


def waveforms(seconds: float, batch: int) -> np.ndarray:
    """Noise with a beat over chords that change every second; (batch, n_samples) float32."""
    n_samples = round(seconds * SAMPLE_RATE)
    time_seconds = np.arange(n_samples, dtype=np.float32) / SAMPLE_RATE
    items = []
    for seed in range(batch):
        rng = np.random.default_rng(seed)
        samples = rng.normal(size=n_samples).astype(np.float32) * 0.05
        samples *= np.exp(-6 * (time_seconds % np.float32(0.5)))
        pitches = 55 * 2 ** (rng.integers(0, 48, (int(seconds) + 1, 3)) / 12)
        for voice in range(3):
            hz = pitches[(time_seconds).astype(int), voice].astype(np.float32)
            samples += 0.1 * np.sin(2 * np.pi * ((hz * time_seconds) % 1)).astype(np.float32)
        items.append(samples)
    return np.stack(items)


def make(folder: Path) -> None:
    """Save a random MuQ of the published shape, with statistics of a trained one's spread."""
    import torch
    from muq import MuQ, MuQConfig

    torch.manual_seed(0)
    model = MuQ(
        MuQConfig(
            label_rate=25,
            codebook_size=8192,
            codebook_dim=16,
            use_rvq_target=True,
            rvq_n_codebooks=8,
            encoder_dim=1024,
            encoder_depth=12,
            conv_dim=512,
            stat={
                "melspec_2048_mean": 6.768444971712967,
                "melspec_2048_std": 18.417922652295623,
            },
            w2v2_config=W2V2_CONFIG,
        )
    )
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.2, 1)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.1)
    model.save_pretrained(folder)


class Stock:
    """The package's model, loaded once."""

    def __init__(self, folder: Path) -> None:
        import torch
        from muq import MuQ

        self.torch = torch
        self.model = MuQ.from_pretrained(str(folder)).eval()
        settle()
        self.loaded_bytes = resident_bytes()

    def run(
        self,
        seconds: float,
        batch: int,
        *,
        autocast: bool = False,
        repeats: int = 1,
        states: Path | None = None,
    ) -> dict[str, Any]:
        torch = self.torch
        samples = torch.from_numpy(waveforms(seconds, batch))
        reset_peak()
        taken = []
        for _ in range(repeats):
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                start = time.perf_counter()
                hidden = self.model(samples).hidden_states
                pooled = torch.stack([state.float().mean(1) for state in hidden], dim=1)
                taken.append(time.perf_counter() - start)
            if states is not None:
                np.savez(states, frames=torch.stack(hidden, dim=1).float().numpy())
            del hidden
        return {
            "seconds": taken,
            "peak_bytes": peak_bytes() - self.loaded_bytes,
            "pooled": pooled.tolist(),
        }

    def pool(self, waves: Path, pooled: Path) -> None:
        """Time means of all hidden states of arrays in an ``.npz``, one at a time."""
        out = {}
        with np.load(waves) as items, self.torch.inference_mode():
            for name in items.files:
                hidden = self.model(self.torch.from_numpy(items[name][None])).hidden_states
                out[name] = self.torch.stack([state.mean(1)[0] for state in hidden]).numpy()
                del hidden
        np.savez(pooled, **out)


def settle() -> None:
    """Give memory that was freed back to the system, so that it is not counted as in use."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def resident_bytes() -> int:
    """Of this process, now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """Highest resident memory since :func:`reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Start the high-water mark anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["make", "run", "serve", "pool"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--autocast", action="store_true")
    parser.add_argument("--states", type=Path)
    parser.add_argument("--waves", type=Path, help="of pool: .npz of waveforms")
    parser.add_argument("--pooled", type=Path, help="of pool: .npz that is written")
    arguments = vars(parser.parse_args())
    action, folder = arguments.pop("action"), arguments.pop("folder")
    if action == "make":
        make(folder)
        return
    stock = Stock(folder)
    waves, pooled = arguments.pop("waves"), arguments.pop("pooled")
    if action == "pool":
        stock.pool(waves, pooled)
        return
    if action == "run":
        print(json.dumps(stock.run(**arguments)))
        return
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(stock.run(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
