"""What a store cost and where it was made; outside every digest.

Conventions
-----------
Seconds are wall-clock. Peak memory on the CPU is resident set size and is
never mixed with a GPU's under one name.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tune_cache.cache.journal import UnitLedger

__all__ = ["machine_facts", "summarise"]

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
    """Provenance of a store: when, on what, with which versions."""
    facts: dict[str, Any] = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    torch = sys.modules.get("torch")  # never imported only to be asked
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        facts["cuda"] = torch.cuda.get_device_name()
    return facts


def summarise(costs: Sequence[UnitLedger], *, n_copied: int, peak_rss_bytes: int) -> dict[str, Any]:
    """Add up what the units of a store cost.

    Parameters
    ----------
    costs
        One a unit.
    n_copied
        Tracks whose rows came from other stores, at no cost.
    peak_rss_bytes
        Of the process that assembled.
    """
    total: dict[str, Any] = {}
    for item in dataclasses.fields(UnitLedger):
        values = [getattr(cost, item.name) for cost in costs]
        total[item.name] = max(values, default=0) if item.name == "batch_size" else sum(values)
    encode = total["encode_seconds"]
    return {
        **total,
        "x_real_time": total["audio_seconds"] / encode if encode else None,
        "n_units": len(costs),
        "n_copied_tracks": n_copied,
        "peak_rss_bytes": peak_rss_bytes,
    }
