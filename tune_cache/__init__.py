"""Encode a music collection once with a frozen encoder, then probe it as often as you like.

Conventions
-----------
Public names are resolved when first used, so that importing the package costs
nothing. Each verb of the command line is one function here with the same
arguments; ``cache ls`` is ``cache_ls``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_cache.cache.store import Store, open_store
    from tune_cache.commands.caches import cache_info, cache_ls
    from tune_cache.commands.datasets import (
        dataset_check,
        dataset_info,
        dataset_ls,
        dataset_scan,
    )
    from tune_cache.commands.demo import demo
    from tune_cache.commands.extract import extract
    from tune_cache.commands.probe import probe
    from tune_cache.commands.report import report
    from tune_cache.datasets.catalog import load_dataset
    from tune_cache.errors import TuneCacheError

__version__ = "0.1.0"

_NAMES = {
    "Store": "tune_cache.cache.store",
    "TuneCacheError": "tune_cache.errors",
    "cache_info": "tune_cache.commands.caches",
    "cache_ls": "tune_cache.commands.caches",
    "dataset_check": "tune_cache.commands.datasets",
    "dataset_info": "tune_cache.commands.datasets",
    "dataset_ls": "tune_cache.commands.datasets",
    "dataset_scan": "tune_cache.commands.datasets",
    "demo": "tune_cache.commands.demo",
    "extract": "tune_cache.commands.extract",
    "load_dataset": "tune_cache.datasets.catalog",
    "open_store": "tune_cache.cache.store",
    "probe": "tune_cache.commands.probe",
    "report": "tune_cache.commands.report",
}

__all__ = [
    "Store",
    "TuneCacheError",
    "__version__",
    "cache_info",
    "cache_ls",
    "dataset_check",
    "dataset_info",
    "dataset_ls",
    "dataset_scan",
    "demo",
    "extract",
    "load_dataset",
    "open_store",
    "probe",
    "report",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tune_cache' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
