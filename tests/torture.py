"""How often the reliability tests repeat: a sample by default, all of it with ``make torture``."""

from __future__ import annotations

import os

__all__ = ["FULL", "repetitions"]

FULL = os.environ.get("TUNE_TORTURE") == "1"


def repetitions(sample: int, full: int) -> int:
    """Choose by the environment."""
    return full if FULL else sample
