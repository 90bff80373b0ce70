"""Our MuQ beside the package's own forward: speed and difference, in one interleaved run.

::

    python benchmarks/encoder.py WEIGHTS --stock-python .venv-stock/bin/python [--subset FOLDER]

WEIGHTS is a folder written by ``benchmarks/stock.py make``. Writes its section of RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from page import Server, machine, table, write_section
from stock import waveforms

from tune_cache.audio import decode
from tune_cache.datasets.catalog import load_dataset
from tune_cache.encoders.base import get_encoder

RATE = 24_000
N_CLIPS = 24
LENGTHS_COMPARED = (1.0, 3.7, 10.0, 60.0, 300.0)


class Own:
    """Our encoder, in every precision and depth asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[tuple[str, tuple[int, ...] | None], Any] = {}

    def encoder(self, precision: str = "fp32", layers: tuple[int, ...] | None = None) -> Any:
        key = (precision, layers)
        if key not in self._loaded:
            self._loaded[key] = get_encoder("muq").load(
                path=self.folder,
                precision=precision,
                device="cpu",
                layers=layers,
                poolings=("mean",),
                max_memory_bytes=None,
            )
        return self._loaded[key]

    def seconds(self, length: float, batch: int, precision: str, layers: Any = None) -> float:
        encoder, samples = self.encoder(precision, layers), waveforms(length, batch)
        start = time.perf_counter()
        encoder.embed(samples)
        return time.perf_counter() - start

    def frames(self, length: float) -> np.ndarray:
        """All hidden states of one item at frame rate, (1, layers, frames, dim)."""
        import torch

        from tune_cache.encoders.muq.memory import Plan
        from tune_cache.encoders.muq.ops import exact_math

        forward = self.encoder()._forward
        plan = Plan(n_items=1, mel_frames=1000, frames=1024)
        with exact_math(torch.device("cpu"), tf32=False):
            states = [
                state.clone()
                for state in forward.states(torch.from_numpy(waveforms(length, 1)), plan)
            ]
        return torch.stack(states, dim=1).numpy()


def gigaflops(seconds: float, n_blocks: int = 12, dim: int = 1024, channels: int = 512) -> float:
    """Multiplications and additions of MuQ over one item, 2 a product, in 10⁹.

    Convolutions of 3 × 3: the first block sees 1 then 512 channels, the second 512 then 512, each
    with a third on its shortcut; a conformer block has 2 feed-forwards of 4 × dim, 4 projections,
    2 products of attention, 3 × dim of pointwise and 31 × dim of depthwise convolution.
    """
    mel_frames = seconds * 100
    frames = mel_frames / 4
    first = mel_frames / 2 * 64 * 9 * channels * (1 + channels + 1)
    second = mel_frames / 4 * 32 * 9 * channels * channels * 3
    project = frames * channels * 32 * dim
    block = frames * (16 * dim * dim + 4 * dim * dim + 2 * frames * dim + 3 * dim * dim + 31 * dim)
    return 2 * (first + second + project + n_blocks * block) / 1e9


def product_peak(dtype: str) -> float:
    """The best that this machine's libraries reach in a product, in GFLOP/s.

    Over the product of torch, the packed one of oneDNN, and a 3 × 3 convolution.
    """
    import torch

    kind = getattr(torch, dtype)
    best = 0.0
    for size in (1024, 2048, 4096):
        x, y = (torch.randn(size, size).to(kind) for _ in range(2))
        packed = torch.ops.mkldnn._reorder_linear_weight(y, size)
        linear = torch.ops.mkldnn._linear_pointwise
        candidates: list[Callable[[], Any]] = [
            partial(torch.matmul, x, y),
            partial(linear, x, packed, None, "none", [], ""),
        ]
        for product in candidates:
            best = max(best, 2 * size**3 / _fastest(product) / 1e9)
    image = torch.randn(1, 512, 256, 64).to(kind).to(memory_format=torch.channels_last)
    kernel = torch.randn(512, 512, 3, 3).to(kind).to(memory_format=torch.channels_last)
    seconds = _fastest(lambda: torch.nn.functional.conv2d(image, kernel, padding=1))
    return max(best, 2 * 9 * 512 * 512 * 256 * 64 / seconds / 1e9)


def _fastest(run: Callable[[], Any], repeats: int = 7) -> float:
    import torch

    taken = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            taken.append(time.perf_counter() - start)
    return min(taken)


def speed(own: Own, stock: Server, rounds: int) -> tuple[str, dict[str, float]]:
    """Interleaved rounds of everything; the table and the ratios that bounds are set for."""
    shallow = tuple(range(7))
    runs: dict[tuple[str, str], Callable[[], float]] = {}

    def stock_seconds(length: float, batch: int, autocast: bool) -> float:
        answer = stock.ask(seconds=length, batch=batch, autocast=autocast)
        return float(answer["seconds"][0])

    for length, batch in ((10.0, 4), (45.0, 1)):
        size = f"{length:g} s × {batch}"
        for name, autocast in (("stock fp32", False), ("stock autocast bf16", True)):
            runs[size, name] = partial(stock_seconds, length, batch, autocast)
        for precision in ("fp32", "bf16"):
            runs[size, f"tune_cache {precision}"] = partial(own.seconds, length, batch, precision)
            runs[size, f"tune_cache {precision}, --layers 6"] = partial(
                own.seconds, length, batch, precision, shallow
            )
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for key, run in runs.items():
            seconds = run()
            if number:  # the first round warms up
                taken[key].append(seconds)
            print(number, key, f"{seconds:.2f}", file=sys.stderr, flush=True)
    peaks = {kind: product_peak(name) for kind, name in (("fp32", "float32"), ("bf16", "bfloat16"))}
    rows = []
    for (size, name), values in taken.items():
        length, batch = (float(part) for part in size.replace(" s", "").split(" × "))
        flops = gigaflops(length, 6 if "layers" in name else 12) * batch
        kind = "bf16" if "bf16" in name else "fp32"
        base = min(taken[size, "stock fp32"])
        rows.append(
            (
                f"{name}, {size}",
                f"{min(values):.2f}",
                f"{np.median(values):.2f}",
                f"{length * batch / min(values):.1f}",
                f"{base / min(values):.2f}",
                f"{flops / min(values) / peaks[kind]:.0%}",
            )
        )
    best = {key: min(values) for key, values in taken.items()}
    small, large = "10 s × 4", "45 s × 1"
    ratios = {
        "bf16 over stock fp32, 10 s × 4 (bound ≥ 5)": best[small, "stock fp32"]
        / best[small, "tune_cache bf16"],
        "bf16 over stock autocast, 10 s × 4 (bound ≥ 2.2)": best[small, "stock autocast bf16"]
        / best[small, "tune_cache bf16"],
        "fp32 over stock fp32, 10 s × 4 (bound ≥ 1.1)": best[small, "stock fp32"]
        / best[small, "tune_cache fp32"],
        "fp32 --layers 6 over all layers, 10 s × 4 (bound ≥ 1.15)": best[small, "tune_cache fp32"]
        / best[small, "tune_cache fp32, --layers 6"],
        "fp32, a second of 45 s × 1 over one of 10 s × 4 (bound ≤ 1.15)": best[
            large, "tune_cache fp32"
        ]
        / 45
        / (best[small, "tune_cache fp32"] / 40),
    }
    fastest = 4 * gigaflops(10) / peaks["bf16"]  # seconds, were every product at its peak
    over = {name: best[small, f"stock {name}"] / fastest for name in ("fp32", "autocast bf16")}
    note = (
        f"Peak of a product here: {peaks['fp32']:.0f} GFLOP/s in fp32, {peaks['bf16']:.0f} in bf16 "
        f"(best of torch's product, oneDNN's packed one, and a 3 × 3 convolution); MuQ takes "
        f"{gigaflops(10):.0f} GFLOP for 10 s. With every product at that peak and nothing else, "
        f"bf16 at 10 s × 4 would be {over['fp32']:.1f} × stock fp32 and "
        f"{over['autocast bf16']:.1f} × stock under autocast: no more is to be had on this machine."
    )
    header = ("", "seconds", "median", "× real time", "× stock fp32", "of the product's peak")
    return table(header, rows) + "\n\n" + note, ratios


def differences(own: Own, stock: Server, lengths: tuple[float, ...]) -> str:
    """Largest difference to the stock forward, over all states and frames."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for length in lengths:
            path = Path(name) / "states.npz"
            stock.ask(seconds=length, batch=1, states=str(path))
            with np.load(path) as saved:
                expected = saved["frames"]
            found = own.frames(length)
            by_layer = np.abs(found - expected).max(axis=(0, 2, 3))
            pooled = np.abs(found.mean(axis=2) - expected.mean(axis=2)).max()
            rows.append((f"{length:g} s", f"{by_layer.max():.1e}", f"{pooled:.1e}"))
            del found, expected
    return table(("fp32, one item of", "worst frame, any layer", "worst time mean"), rows)


def bf16_cost(own: Own, subset: Path) -> str:
    """What bf16 does to embeddings of real clips, beside what tells tracks apart."""
    tracks = load_dataset(str(subset / "soundtrack"), data_root=subset).tracks[:N_CLIPS]
    clips = []
    for track in tracks:
        samples = decode(track.path, sample_rate_hz=RATE).samples
        clips.append(np.asarray(samples[: 10 * RATE]))
    exact, rounded = (
        np.concatenate([own.encoder(p).embed(clip[None])["mean"] for clip in clips])
        for p in ("fp32", "bf16")
    )
    error = np.sqrt(((rounded - exact) ** 2).mean(axis=0)) / exact.std(axis=0)
    product = (rounded * exact).sum(-1)
    cosine = product / np.linalg.norm(rounded, axis=-1) / np.linalg.norm(exact, axis=-1)
    rows = [
        (layer, f"{np.median(values):.2%}", f"{values.max():.2%}", f"{cosine[:, layer].min():.6f}")
        for layer, values in enumerate(error)
    ]
    header = ("layer", "median", "worst dimension", "lowest cosine")
    said = (
        f"bf16 against fp32 on the first 10 s of {len(clips)} real clips: error of a dimension "
        "(root mean square) over its standard deviation between clips "
        "(bounds: median ≤ 2 %, worst ≤ 10 %, cosine ≥ 0.9999)."
    )
    return said + "\n\n" + table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--stock-python", required=True)
    parser.add_argument("--subset", type=Path, help="real clips, for what bf16 costs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["speed", "difference"])
    arguments = parser.parse_args()
    script = Path(__file__).parent / "stock.py"
    stock = Server([arguments.stock_python, str(script), "serve", str(arguments.weights)])
    own = Own(arguments.weights)
    where = (
        "Random weights of the true size (333 M), synthetic waveforms; "
        "the `muq` package under transformers 4.57.6 beside tune_cache."
    )
    if arguments.only != "difference":
        timing, ratios = speed(own, stock, arguments.rounds)
        bounds = table(("ratio of minima", ""), [(k, f"{v:.2f}") for k, v in ratios.items()])
        head = f"`benchmarks/encoder.py`, `make bench-encoder`. {where}"
        rounds = machine(f"{arguments.rounds} interleaved rounds")
        write_section("The encoder: speed", "\n\n".join([head, rounds, timing, bounds, TRIED]))
        print(json.dumps(ratios, indent=2))
    if arguments.only != "speed":
        parts = [f"`benchmarks/encoder.py`, `make bench-encoder`. {where}", machine()]
        parts.append(differences(own, stock, LENGTHS_COMPARED))
        if arguments.subset is not None and arguments.subset.exists():
            parts.append(bf16_cost(own, arguments.subset))
        write_section("The encoder: difference", "\n\n".join(parts))
    stock.close()


TRIED = """What was tried and not kept, on one thread of an AMD EPYC (Zen 5: AVX512-BF16, no AMX):

- Winograd in our own products for the stride-1 convolutions (512 channels, 256 × 64):
  F(2 × 2) took 0.43 s where oneDNN's direct convolution took 0.37 s;
  F(4 × 4) took 0.31 s, with an error of 7.8e-5 where the direct one has 9e-6:
  it would break the bound of 1e-5.
  In bf16 both were slower (0.46 and 0.30 s beside 0.17 s), and F(4 × 4) 15 times less exact.
- `torch.compile` with freezing: a conformer block took 0.143 s compiled, 0.141 s as written with
  MKL's products, 0.070 s with oneDNN's packed ones, which are kept; in bf16 0.042, 0.040, 0.037 s.
  The convolutions took 1.39 s compiled and 1.35 s not. It costs 5 to 23 s for each new length and
  needs a C++ compiler.
- bf16 depthwise convolutions: oneDNN never returns from some of them (8 or 16 channels);
  they are 1 % of the time and run in float32.
- Kept: BatchNorm folded into kernels, channels last, packed weights with swish fused,
  scaled_dot_product_attention, items of 5 s and more one at a time (their images stay in cache),
  the STFT in strips of 256 frames, one thread for models of 256 dimensions or fewer."""


if __name__ == "__main__":
    main()
