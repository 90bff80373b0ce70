"""What a store cost and where it was made; outside every digest.

Conventions
-----------
Seconds are wall-clock. Memory of the GPU, of the encoding process and of its
decoders have three names and are never added up. Figures of units are summed;
peaks are maxima. torch is asked only if it is loaded already.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tune_cache.audio.memory import peak_rss_bytes
from tune_cache.cache.journal import UnitLedger
from tune_cache.encoders.base import Encoder

__all__ = ["Meter", "machine_facts", "summarise"]

PACKAGES = (
    "tune-cache",
    "torch",
    "muq",
    "transformers",
    "zarr",
    "numpy",
    "soundfile",
    "soxr",
    "av",
)
# whatever is no sum; every other number of a unit is one
MAXIMA = ("batch_size", "n_threads", "n_lengths")
DRIVER = Path("/sys/module/nvidia/version")


def package_versions() -> dict[str, str]:
    """Versions of what can have shaped a vector; absent packages are left out."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def machine_facts() -> dict[str, Any]:
    """Provenance of a store: when, on what, with which versions; GPUs are in the ledger."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "machine": platform.machine(),
        "system": platform.system(),
    }


def _torch_with_cuda() -> Any:
    """The torch of this process if it uses CUDA, else None; never imported only to be asked."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return torch


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads what an encoder's device and this process have taken.

    Parameters
    ----------
    encoder
        One with an attribute ``device`` that begins with ``cuda`` is on a GPU.
    """

    encoder: Encoder

    def begin(self) -> None:
        """Let the GPU's peaks count from now; those of processes count from their start."""
        torch = self._torch()
        if torch is not None:
            torch.cuda.reset_peak_memory_stats(self._device)

    def read(self) -> dict[str, Any]:
        """Fields of :class:`~tune_cache.cache.journal.UnitLedger`."""
        loaded = sys.modules.get("torch")
        fields: dict[str, Any] = {
            "device": "cpu",
            "n_threads": loaded.get_num_threads() if loaded is not None else 0,
            "peak_rss_bytes": peak_rss_bytes(),
        }
        torch = self._torch()
        if torch is not None:
            fields |= {
                "device": f"cuda: {torch.cuda.get_device_name(self._device)}",
                "peak_vram_allocated_bytes": torch.cuda.max_memory_allocated(self._device),
                "peak_vram_reserved_bytes": torch.cuda.max_memory_reserved(self._device),
            }
        return fields

    @property
    def _device(self) -> Any:
        return getattr(self.encoder, "device", "cpu")

    def _torch(self) -> Any:
        return _torch_with_cuda() if str(self._device).startswith("cuda") else None


def summarise(
    costs: Sequence[UnitLedger], *, n_copied: int, write_seconds: float = 0.0
) -> dict[str, Any]:
    """Add up what the units of a store cost.

    Parameters
    ----------
    costs
        One a unit, by whatever runs and machines made them.
    n_copied
        Tracks whose rows came from other stores, at no cost.
    write_seconds
        Beyond what units carry: the last of them, and the assembly.

    Returns
    -------
    the fields of :class:`~tune_cache.cache.journal.UnitLedger`, ``devices`` in
    place of ``device``; ``stage_one_seconds`` = load + wait + encode + write, None
    if a unit is from a version that did not measure all of these;
    ``x_real_time`` = audio / encode; and the machine that assembled.
    """
    total: dict[str, Any] = {}
    for name in (item.name for item in dataclasses.fields(UnitLedger) if item.name != "device"):
        values = [getattr(cost, name) for cost in costs]
        is_peak = name in MAXIMA or name.startswith("peak_")
        total[name] = max(values, default=0) if is_peak else sum(values)
    total["write_seconds"] += write_seconds
    total["peak_rss_bytes"] = max(total["peak_rss_bytes"], peak_rss_bytes())
    parts = [total[f"{name}_seconds"] for name in ("load", "wait", "encode", "write")]
    encode = total["encode_seconds"]
    return {
        "stage_one_seconds": sum(parts) if all(cost.device for cost in costs) else None,
        **total,
        "x_real_time": total["audio_seconds"] / encode if encode else None,
        "n_units": len(costs),
        "n_copied_tracks": n_copied,
        "devices": sorted({cost.device for cost in costs if cost.device}),
        "machine": _machine(),
    }


def _machine() -> dict[str, Any]:
    """What speed depends on, of this process."""
    facts: dict[str, Any] = {
        "n_cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": package_versions(),
    }
    torch = _torch_with_cuda()
    if torch is not None:
        facts["cuda"] = torch.version.cuda
        if DRIVER.is_file():
            facts["driver"] = DRIVER.read_text("ascii", "replace").strip()
    return facts
