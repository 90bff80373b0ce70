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
    from tune_cache.commands.compare import compare
    from tune_cache.commands.datasets import (
        dataset_check,
        dataset_info,
        dataset_ls,
        dataset_scan,
    )
    from tune_cache.commands.demo import demo
    from tune_cache.commands.estimate import estimate
    from tune_cache.commands.exchange import export_store, import_store
    from tune_cache.commands.extract import extract
    from tune_cache.commands.integrity import cache_diff, cache_repair, cache_verify
    from tune_cache.commands.management import cache_du, cache_prune, cache_rm, cache_status
    from tune_cache.commands.probe import probe
    from tune_cache.commands.recommend import recommend
    from tune_cache.commands.report import report
    from tune_cache.commands.sweep import sweep
    from tune_cache.datasets.catalog import load_dataset
    from tune_cache.errors import TuneCacheError

__version__ = "0.1.0"

_NAMES = {
    "Store": "tune_cache.cache.store",
    "TuneCacheError": "tune_cache.errors",
    "cache_diff": "tune_cache.commands.integrity",
    "cache_du": "tune_cache.commands.management",
    "cache_info": "tune_cache.commands.caches",
    "cache_ls": "tune_cache.commands.caches",
    "cache_prune": "tune_cache.commands.management",
    "cache_repair": "tune_cache.commands.integrity",
    "cache_rm": "tune_cache.commands.management",
    "cache_status": "tune_cache.commands.management",
    "cache_verify": "tune_cache.commands.integrity",
    "compare": "tune_cache.commands.compare",
    "dataset_check": "tune_cache.commands.datasets",
    "dataset_info": "tune_cache.commands.datasets",
    "dataset_ls": "tune_cache.commands.datasets",
    "dataset_scan": "tune_cache.commands.datasets",
    "demo": "tune_cache.commands.demo",
    "estimate": "tune_cache.commands.estimate",
    "export_store": "tune_cache.commands.exchange",
    "extract": "tune_cache.commands.extract",
    "import_store": "tune_cache.commands.exchange",
    "load_dataset": "tune_cache.datasets.catalog",
    "open_store": "tune_cache.cache.store",
    "probe": "tune_cache.commands.probe",
    "recommend": "tune_cache.commands.recommend",
    "report": "tune_cache.commands.report",
    "sweep": "tune_cache.commands.sweep",
}

__all__ = [
    "Store",
    "TuneCacheError",
    "__version__",
    "cache_diff",
    "cache_du",
    "cache_info",
    "cache_ls",
    "cache_prune",
    "cache_repair",
    "cache_rm",
    "cache_status",
    "cache_verify",
    "compare",
    "dataset_check",
    "dataset_info",
    "dataset_ls",
    "dataset_scan",
    "demo",
    "estimate",
    "export_store",
    "extract",
    "import_store",
    "load_dataset",
    "open_store",
    "probe",
    "recommend",
    "report",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'tune_cache' has no attribute {name!r}")
    value = getattr(importlib.import_module(_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
