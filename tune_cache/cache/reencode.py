"""Encoding a few stored segments afresh, to see whether they come out as stored.

Conventions
-----------
A stored value may differ from a fresh one by one unit in the last place of the
stored type, and by a share of its vector's root mean square that depends on the
precision of the computation: another device, batch or library sums in another
order. Vectors of different audio differ by far more.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.audio import DecodedAudio
from tune_cache.cache.journal import check_rows
from tune_cache.cache.store import Store
from tune_cache.cache.work import OpenDecoders, open_pool
from tune_cache.encoders.base import Encoder
from tune_cache.errors import AudioError, EncoderError
from tune_cache.segments import cut, take

__all__ = ["TOLERANCES", "Reencoded", "choose_segments", "reencode", "share_of_tolerance"]

# share of a vector's root mean square by which two computations of it may differ
TOLERANCES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoded:
    """One segment, stored and fresh.

    Parameters
    ----------
    segment
        Its place in the track.
    largest_difference
        Between a stored value and a fresh one that was rounded to the stored type.
    largest_share
        Of what is tolerated at that value; above 1 it is another vector.
    problem
        Why there is nothing to compare, or empty.
    """

    track_id: str
    segment: int
    largest_difference: float = 0.0
    largest_share: float = 0.0
    problem: str = ""

    @property
    def is_same(self) -> bool:
        """Whether it came out as stored."""
        return not self.problem and self.largest_share <= 1.0


def choose_segments(
    store: Store, track_ids: Sequence[str], n_segments: int, seed: int
) -> dict[str, list[int]]:
    """Draw segments without replacement, each as likely as any other.

    Parameters
    ----------
    track_ids
        To draw from; those that have rows.

    Returns
    -------
    track id to places of segments in it, ascending.
    """
    lengths = dict(zip(store.track_ids, np.diff(store.offset).tolist(), strict=True))
    places = [(name, place) for name in track_ids for place in range(lengths[name])]
    drawn = np.random.default_rng(seed).permutation(len(places))[:n_segments]
    chosen: dict[str, list[int]] = {}
    for index in sorted(drawn.tolist()):
        chosen.setdefault(places[index][0], []).append(places[index][1])
    return chosen


def reencode(
    store: Store,
    chosen: Mapping[str, Sequence[int]],
    paths: Mapping[str, Path],
    encoder: Encoder,
    *,
    open_decoders: OpenDecoders = open_pool,
) -> list[Reencoded]:
    """Encode segments one at a time and compare them with what is stored.

    Parameters
    ----------
    chosen
        As :func:`choose_segments` gives it.
    paths
        Track id to its audio file.
    encoder
        The store's own.

    Raises
    ------
    EncoderError
        If it is another than the store's.
    """
    if encoder.spec() != store.spec.encoder:
        raise EncoderError(
            f"encoder {encoder.name!r} is not the one that was described: its weights changed",
            hint="run the same command again",
        )
    results: list[Reencoded] = []
    with (
        tempfile.TemporaryDirectory() as spool,
        open_decoders(1, store.spec, Path(spool)) as decoders,
    ):
        for name, places in chosen.items():
            try:
                decoded = decoders.submit(name, paths[name]).result()
            except AudioError as error:
                results += [
                    Reencoded(track_id=name, segment=place, problem=str(error)) for place in places
                ]
                continue
            results += [_compared(store, name, place, decoded, encoder) for place in places]
    return results


def _compared(
    store: Store, name: str, place: int, decoded: DecodedAudio, encoder: Encoder
) -> Reencoded:
    """Encode one segment and compare every pooling and layer of it."""
    grid = cut(len(decoded.samples), store.spec.segments, track_id=name)
    if place >= len(grid):
        return Reencoded(
            track_id=name, segment=place, problem=f"has {len(grid)} segments by now, not {place}"
        )
    waveform = take(decoded.samples, grid[place], store.spec.segments)
    fresh = encoder.embed(np.ascontiguousarray(waveform)[None])
    difference = share = 0.0
    for pooling in store.poolings:
        stored = store.read([name], pooling=pooling).values[place]
        try:
            again = check_rows(pooling, fresh[pooling][0], store.spec.dtype)
        except ValueError as error:
            return Reencoded(track_id=name, segment=place, problem=str(error))
        one, other = stored.astype(np.float64), again.astype(np.float64)
        difference = max(difference, float(np.abs(one - other).max()))
        share = max(share, share_of_tolerance(stored, again, store.spec.encoder.precision))
    return Reencoded(
        track_id=name, segment=place, largest_difference=difference, largest_share=share
    )


def share_of_tolerance(stored: npt.NDArray[Any], fresh: npt.NDArray[Any], precision: str) -> float:
    """Largest difference of two vectors a layer, as a share of what is tolerated.

    Parameters
    ----------
    stored, fresh : of shape (n_layers, dim), in the stored dtype
    precision
        Of the computation.

    Examples
    --------
    >>> ones = np.ones((1, 4), np.float16)
    >>> share_of_tolerance(ones, np.nextafter(ones, np.float16(2)), "fp32") < 1
    True
    >>> share_of_tolerance(ones, ones * np.float16(1.01), "fp32") > 1
    True
    """
    one, other = stored.astype(np.float64), fresh.astype(np.float64)
    larger = np.maximum(np.abs(stored), np.abs(fresh))
    last_place = np.spacing(larger).astype(np.float64)
    scale = np.sqrt(np.mean(one**2, axis=-1, keepdims=True))
    tolerated = last_place + TOLERANCES[precision] * scale
    return float((np.abs(one - other) / tolerated).max())
