"""Named grids of `tune sweep`: what a published comparison tried, as far as it exists here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tune_cache.aggregation.registry import AGGREGATIONS
from tune_cache.errors import UsageError

__all__ = ["PRESETS", "Preset", "preset_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A grid; every value can be overruled by its flag.

    Parameters
    ----------
    agg
        Of the comparison; those that do not exist here are left out.
    """

    seg: tuple[float | Literal["full"], ...]
    agg: tuple[str, ...]
    layer: tuple[str, ...]
    probe: tuple[str, ...] = ("auto",)
    seed: tuple[int, ...] = (1234,)

    def aggregations(self, known: Sequence[str] = AGGREGATIONS) -> tuple[str, ...]:
        """Those that exist."""
        return tuple(name for name in self.agg if name in known)

    def left_out(self, known: Sequence[str] = AGGREGATIONS) -> tuple[str, ...]:
        """Those that do not exist yet."""
        return tuple(name for name in self.agg if name not in known)


PRESETS = {
    # The TUNE study: one fixed layer, so that cells differ in length and aggregation only.
    "tune-paper": Preset(
        seg=(10.0, 30.0, 60.0, "full"),
        agg=("concat", "mean", "max", "transformer"),
        layer=("last",),
    )
}


def preset_named(name: str) -> Preset:
    """Look a preset up.

    Raises
    ------
    UsageError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise UsageError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
