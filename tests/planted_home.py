"""A small dataset whose results were planted: no audio is encoded, the answers are known."""

from __future__ import annotations

from pathlib import Path

from small_dataset import make_home
from test_advice import planted
from test_results import context_of

from tune_cache.reports.results import save_result

CELLS = (("full", 40, 7e9, 10), ("10", 41, 3e9, 20), ("30", 90, 3e9, 30))


def planted_home(folder: Path) -> Path:
    """Whole tracks are best, 10-s segments as good for less, 30-s segments neither."""
    make_home(folder)
    for seg, n_wrong, memory, seconds in CELLS:
        cost = {
            "wait_seconds": 0,
            "encode_seconds": seconds,
            "write_seconds": 0,
            "audio_seconds": 3600,
            "peak_vram_allocated_bytes": memory,
            "devices": ["cuda: planted"],
        }
        save_result(
            folder / "cache/v1/results.sqlite",
            planted(n_wrong, task="kind"),
            context_of(dataset="small", seg=seg, spec_key=seg, cost=cost, store=f"{seg}.zarr"),
        )
    return folder
