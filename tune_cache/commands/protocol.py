"""What ``--protocol marble-v2`` means for a verb: what it decides, and which stores serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tune_cache.cache.find import is_resampled_first
from tune_cache.commands.context import Context
from tune_cache.datasets.protocols import PROTOCOLS, Profile
from tune_cache.errors import UsageError
from tune_cache.segments import slice_spec
from tune_cache.specs import SegmentSpec, StoreSpec

__all__ = ["chosen_protocol", "slices_of", "stores_of"]


def chosen_protocol(context: Context, given: str | None, **decided: Any) -> bool:
    """Whether marble-v2 is followed; refuses flags that it decides.

    Parameters
    ----------
    given
        The flag; None for what is configured.
    decided
        Flags as given, by their names; None and empty are not given.

    Raises
    ------
    UsageError
        If there is no such protocol, or it decides a flag that was given.
    """
    name = context.setting("protocol", given, PROTOCOLS[0])
    if name not in PROTOCOLS:
        raise UsageError(f"--protocol is {name!r}, expected {' or '.join(PROTOCOLS)}")
    if name == PROTOCOLS[0]:
        return False
    for flag, value in decided.items():
        if value is not None and value is not False and value != ():
            written = f"--{flag.replace('_', '-')}"
            raise UsageError(
                f"{written} is {value!r}, but --protocol {name} decides it",
                hint=f"leave out {written}, or --protocol",
            )
    return True


def slices_of(profile: Profile, *, sample_rate_hz: int, min_samples: int) -> SegmentSpec:
    """How a profile cuts tracks."""
    return slice_spec(
        profile.slice_seconds,
        least_share=profile.least_share,
        sample_rate_hz=sample_rate_hz,
        min_samples=min_samples,
    )


def stores_of(profiles: Sequence[Profile]) -> Callable[[StoreSpec], bool]:
    """Which specs serve these profiles; those of no protocol if there is none."""
    if not profiles:
        return is_resampled_first

    def serves(spec: StoreSpec) -> bool:
        return any(
            spec.channels == profile.channels
            and spec.segments
            == slices_of(
                profile,
                sample_rate_hz=spec.segments.sample_rate_hz,
                min_samples=spec.segments.min_samples,
            )
            for profile in profiles
        )

    return serves
