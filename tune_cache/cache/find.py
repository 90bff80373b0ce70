"""Which finished stores serve a question: by their attributes, tracks and audio.

Conventions
-----------
A store serves if its tracks contain those asked for. Where the audio is at
hand its hash must agree, so a changed file never gets its old vectors; where
it is not, ids alone decide. Stores of several segment lengths are no
ambiguity: each is an answer. Several encodings at one length are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tune_cache.cache.blame import readable_part
from tune_cache.cache.layout import Layout
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.store import Store, open_store
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    first_few,
    quoted,
)
from tune_cache.specs import StoreSpec, differing_fields

__all__ = ["copy_sources", "find_stores", "is_resampled_first", "missing_tracks"]

logger = logging.getLogger(__name__)


def is_resampled_first(spec: StoreSpec) -> bool:
    """Whether tracks were resampled and then cut, as everything is but a protocol's slices."""
    return spec.segments.grid == "encoder"


def copy_sources(
    layout: Layout, spec: StoreSpec, tracks: Sequence[PlannedTrack], distrusted: set[Path]
) -> dict[str, tuple[Store, str]]:
    """Find, for each track, a store with this very spec and audio.

    Parameters
    ----------
    distrusted
        Stores that turned out damaged.

    Returns
    -------
    track id to the store and the id that the audio has there; tracks without
    any are absent.
    """
    folder = layout.v1 / spec.encoder.name
    place: dict[str, tuple[Store, str]] = {}
    for path in sorted(folder.glob(f"seg{spec.segments.label}-{spec.key[:8]}-*.zarr")):
        if path in distrusted:
            continue
        try:
            store = open_store(path)
            if store.spec == spec:
                for name, sha256 in store.audio_of.items():
                    place.setdefault(sha256, (store, name))
        except StoreError as error:
            logger.warning("store %s is not copied from: %s", path.name, error)
    return {t.track_id: place[t.audio_sha256] for t in tracks if t.audio_sha256 in place}


def missing_tracks(store: Store, audio: Mapping[str, str]) -> list[str]:
    """Ids that a store lacks, or has with other audio.

    Parameters
    ----------
    audio
        Track id to sha256 of the audio now, empty where it is not at hand.
    """
    here = dict(zip(store.track_ids, store.audio_sha256, strict=True))
    return [
        name
        for name, sha256 in audio.items()
        if name not in here or (sha256 and here[name] != sha256)
    ]


def find_stores(
    layout: Layout,
    *,
    encoder: str,
    lengths: Sequence[float | Literal["full"]] = (),
    audio: Callable[[], Mapping[str, str]],
    track_ids: Sequence[str],
    pooling: str = "mean",
    serves: Callable[[StoreSpec], bool] = is_resampled_first,
    remedy: str = "tune extract",
) -> list[Store]:
    """Find the stores that hold some tracks, one a segment length.

    Parameters
    ----------
    encoder
        Its name.
    lengths
        Segment lengths asked for; empty takes every length there is.
    audio
        Gives track id to sha256 of the audio; called only if a store has the ids.
    track_ids
        All tracks of the dataset.
    pooling
        Must be kept by the store.
    serves
        Which specs do; a protocol's slices only where a protocol asks for them.
    remedy
        The command that makes what is missing, for the hint.

    Raises
    ------
    StoreNotFoundError
        If none serves, saying what the nearest lacks.
    StoreCorruptError
        If none serves, and one would that is damaged.
    StoreError
        The same of one of which a file may not be read.
    StoreAmbiguousError
        If several encodings serve at one length.
    """
    wanted = [("full" if length == "full" else f"{length:.6g}") for length in lengths]
    candidates: list[Store] = []
    near: list[str] = []
    damaged: dict[str, StoreError] = {}
    for path in layout.store_paths():
        if path.parent.name != encoder:
            continue
        label = path.name.removeprefix("seg").split("-")[0]
        if wanted and label not in wanted:
            continue
        try:
            store = open_store(path)
            if not serves(store.spec):
                continue
            known = set(store.track_ids)
        except StoreError as error:  # it may be of other tracks: told only if nothing serves
            is_there = not isinstance(error, StoreMismatchError | StoreNotFoundError)
            if is_there and _would_serve(path, track_ids, serves):
                damaged.setdefault(label, error.detached())
            near.append(f"{path.name} cannot be used: {error}")
            continue
        if pooling not in store.poolings:
            near.append(f"{store.name} keeps {', '.join(store.poolings)}, not {pooling}")
            continue
        lacking = [name for name in track_ids if name not in known]
        reason = "lacks"
        if not lacking:
            lacking = missing_tracks(store, audio())
            reason = "has other audio for"
        if lacking:
            if len(lacking) < len(track_ids):
                near.append(
                    f"{store.name} {reason} {len(lacking)} of {len(track_ids)} tracks "
                    f"({first_few(lacking, 2)})"
                )
            continue
        candidates.append(store)
    for label in damaged.keys() - {store.spec.segments.label for store in candidates}:
        if wanted or not candidates:
            raise damaged.pop(label)
        logger.warning("segment length %s is passed over: %s", label, damaged[label])
    return _one_a_length(candidates, track_ids, wanted, near, encoder, remedy)


def _would_serve(path: Path, track_ids: Sequence[str], serves: Callable[[StoreSpec], bool]) -> bool:
    """Whether a store that does not open has these tracks, as far as that can be read."""
    store = readable_part(path)
    if store is None or not serves(store.spec):
        return False
    try:
        return set(store.track_ids).issuperset(track_ids)
    except StoreError:
        return False


def _differ(left: Store, right: Store, track_ids: Sequence[str]) -> bool:
    """Whether two stores have rows of the same tracks from different audio."""
    return any(
        name in left.audio_of
        and name in right.audio_of
        and left.audio_of[name] != right.audio_of[name]
        for name in track_ids
    )


def _one_a_length(
    candidates: Sequence[Store],
    track_ids: Sequence[str],
    wanted: Sequence[str],
    near: Sequence[str],
    encoder: str,
    remedy: str,
) -> list[Store]:
    """Choose the store of each length; refuse to guess between encodings."""

    def usefulness(store: Store) -> tuple[int, int]:
        return -sum(store.status[name] == "ok" for name in track_ids), store.n_tracks

    by_length: dict[str, dict[str, Store]] = {}
    for store in sorted(candidates, key=usefulness):
        chosen = by_length.setdefault(store.spec.segments.label, {})
        best = chosen.setdefault(store.spec.key, store)
        if best is not store and _differ(best, store, track_ids):
            raise StoreAmbiguousError(
                f"stores {best.name} and {store.name} hold these tracks with different audio, "
                f"and the audio is not at hand to tell which is meant",
                hint=f"choose one, as --store {quoted(best.path)}",
            )
    absent = [label for label in wanted if label not in by_length]
    if absent or not by_length:
        flags = "".join(f" --seg {label}" for label in absent)
        told = f"; {near[0]}" if near else ""
        raise StoreNotFoundError(
            f"no store of encoder {encoder!r}"
            + (f" at segment length {', '.join(absent)}" if absent else "")
            + f" holds these tracks{told}",
            hint=f"{remedy}{flags}",
        )
    for label, stores in by_length.items():
        if len(stores) > 1:
            first, second = list(stores.values())[:2]
            fields = differing_fields(first.spec.to_json(), second.spec.to_json())
            raise StoreAmbiguousError(
                f"{len(stores)} encodings of segment length {label} hold these tracks: "
                f"{', '.join(store.name for store in stores.values())}; they differ in "
                + "; ".join(f"{name}: {left!r} or {right!r}" for name, left, right in fields[:4]),
                hint=f"choose one, as --store {quoted(first.path)}",
            )
    order = sorted(by_length, key=lambda label: float("inf") if label == "full" else float(label))
    return [next(iter(by_length[label].values())) for label in order]
