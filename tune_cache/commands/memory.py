"""Small things that a sweep works out once: kept in the cache, one file each, by key.

Conventions
-----------
Losing a file costs time only, and so does a cache that cannot be written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_cache.cache.disk import make_folders, write_durably
from tune_cache.probes.result import without_nan
from tune_cache.specs import canonical_json

__all__ = ["recall", "remember"]

logger = logging.getLogger(__name__)


def recall(path: Path) -> dict[str, Any]:
    """Read what was kept; empty where nothing can be used."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def remember(path: Path, value: Mapping[str, Any]) -> None:
    """Keep plain values, NaN as null."""
    try:
        make_folders(path.parent)
        write_durably(path, canonical_json(without_nan(value)).encode())
    except OSError as error:
        logger.warning("%s is not kept: %s", path.name, error)
