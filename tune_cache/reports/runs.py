"""What a run is: a result, where its vectors came from, and which runs are the same question.

Conventions
-----------
Plain values only, so that a run can be written as JSON.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from tune_cache import __version__
from tune_cache.probes.result import ProbeResult, without_nan
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["RunContext", "SavedRun", "config_key", "without_leaks"]


def _versions() -> dict[str, str]:
    names = ("numpy", "scikit-learn", "scipy")
    found = {name: metadata.version(name) for name in names}
    return {"tune_cache": __version__, "python": platform.python_version(), **found}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """Where the vectors of a run came from; plain JSON values throughout.

    Parameters
    ----------
    store, spec, spec_key, content_digest
        Name of the store, and what its attributes say.
    seg
        Label of the segment length, as ``10`` or ``full``.
    note
        What every table must say, as ``random weights``.
    cost
        Of stage one, as the store's ledger had it at the time: a result keeps its
        cost when the store is gone, and two results of one store the same.
    cell_key
        Hash of all that the result depends on, where a sweep made it.
    """

    dataset: str
    encoder: str
    seg: str
    store: str
    spec_key: str
    content_digest: str
    pooling: str = "mean"
    note: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    cell_key: str = ""
    versions: Mapping[str, str] = field(default_factory=_versions)


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRun:
    """A result as read back, with the number and time of its run (UTC)."""

    run_id: int
    created: str
    context: RunContext
    result: ProbeResult


def config_key(result: ProbeResult, context: RunContext) -> str:
    """Hash what a user asked for: a rerun has the same, whatever it found.

    Not part of it: the store's content. Vectors of a changed collection
    supersede those of the old one.
    """
    asked = {
        "dataset": context.dataset,
        "spec_key": context.spec_key,
        "pooling": context.pooling,
        "task": result.task,
        "aggregation": result.aggregation,
        "aggregation_options": without_nan(result.aggregation_options),
        "probe": result.probe,
        "layer_asked": result.layer_asked,
        "layer": result.layer if result.layer_asked == "all" else "",
        "seed": result.seed,
    }
    if without_leaks(result):
        asked["left_out"] = "leaks"  # beside the row that learnt from them, not in its place
    return sha256_text(canonical_json(asked))


def without_leaks(result: ProbeResult) -> bool:
    """Whether tracks were left out because they leak."""
    return any(why.startswith("leak: ") for why in result.excluded.values())
