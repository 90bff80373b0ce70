"""Named grids of `tune sweep`: what a published comparison tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tune_cache.errors import UsageError

__all__ = ["PRESETS", "Preset", "preset_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A grid; every value can be overruled by its flag."""

    seg: tuple[float | Literal["full"], ...]
    agg: tuple[str, ...]
    layer: tuple[str, ...]
    probe: tuple[str, ...] = ("auto",)
    seed: tuple[int, ...] = (1234,)


PRESETS = {
    # The TUNE study: one fixed layer, so that cells differ in length and aggregation only.
    "tune-paper": Preset(
        seg=(10.0, 30.0, 60.0, "full"),
        agg=("concat", "mean", "max", "transformer"),
        layer=("last",),
    )
}


def preset_named(name: str | None) -> Preset:
    """Look a preset up; None is the grid of one cell a length that a sweep is by default.

    Raises
    ------
    UsageError
        If there is no such preset.
    """
    if name is None:
        return Preset(seg=(), agg=("mean",), layer=("best",))
    if name not in PRESETS:
        raise UsageError(f"preset is {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
