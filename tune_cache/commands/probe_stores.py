"""Which stores ``tune probe`` reads, and what a result keeps of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tune_cache.cache.find import find_stores, missing_tracks
from tune_cache.cache.store import Store, open_store
from tune_cache.commands.context import Context, plan_tracks
from tune_cache.commands.protocol import stores_of
from tune_cache.datasets.base import Dataset
from tune_cache.datasets.protocols import Profile
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    first_few,
    quoted,
)
from tune_cache.probes.result import ProbeResult
from tune_cache.reports.results import RunContext, SavedRun, load_run, save_result
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["context_of", "saved_run", "stores_to_probe"]


def stores_to_probe(
    context: Context,
    dataset: Dataset,
    *,
    given: str,
    seg: Sequence[float | Literal["full"]],
    encoder: str | None,
    store: Path | None,
    profiles: Sequence[Profile] = (),
) -> tuple[list[Store], list[str]]:
    """Find the stores to probe, one a segment length, and what must be said about the choice.

    Parameters
    ----------
    given
        How the dataset was named, for hints.
    seg
        Segment lengths; every length that a store at hand has if empty.
    encoder
        The dataset's own if None, or the only one that has stores.
    store
        Exactly this store.
    profiles
        Of a protocol whose slices are asked for; none for stores of no protocol.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store serves, or several encodings do.
    """
    track_ids = [track.track_id for track in dataset.tracks]
    serves = stores_of(profiles)

    @cache
    def audio() -> Mapping[str, str]:
        with context.inventory() as inventory:
            planned = plan_tracks(dataset.tracks, inventory)
        return {track.track_id: track.audio_sha256 for track in planned}

    exact = context.setting("store", store)
    if exact is not None:
        opened = open_store(exact)
        if profiles and not serves(opened.spec):
            raise StoreMismatchError(
                f"store {opened.name!r} does not hold the slices of profile {profiles[0].name}",
                hint=f"make them with `tune extract {quoted(given)} --protocol marble-v2"
                f"{context.cache_flag}`",
            )
        asked_for = {
            "--seg": [length if length == "full" else f"{length:.6g}" for length in seg],
            "--encoder": [encoder] if encoder else [],
        }
        is_there = {"--seg": opened.spec.segments.label, "--encoder": opened.spec.encoder.name}
        for flag, values in asked_for.items():
            if values and is_there[flag] not in values:
                raise StoreMismatchError(
                    f"store {opened.name!r} has {is_there[flag]!r}, and {flag} asks for "
                    f"{values[0]!r}",
                    hint=f"leave out {flag} or --store",
                )
        lacking = missing_tracks(opened, audio())
        if lacking:
            raise StoreError(
                f"store {opened.name!r} lacks {len(lacking)} of {len(track_ids)} tracks of "
                f"{dataset.name!r}, or has them with other audio: {first_few(lacking)}",
                hint="extract this dataset again, or check --data-root",
            )
        return [opened], []
    asked = context.setting("encoder", encoder)
    common: dict[str, Any] = {
        "lengths": seg,
        "audio": audio,
        "track_ids": track_ids,
        "serves": serves,
    }
    name = asked or dataset.encoder
    protocol = " --protocol marble-v2" if profiles else ""
    remedy = f"tune extract {quoted(given)}{protocol}{context.cache_flag} --encoder "
    try:
        return find_stores(context.layout, encoder=name, remedy=remedy + quoted(name), **common), []
    except StoreNotFoundError as error:
        if asked:
            raise
        others = _others(context, name, common)
        if not others:
            there = _others(context, name, {**common, "lengths": ()})
            if not there:
                raise
            labels = ["full" if length == "full" else f"{length:g}" for length in seg]
            flags = "".join(f" --seg {label}" for label in labels)
            raise StoreNotFoundError(
                f"no store at segment length {', '.join(labels)} holds these tracks; "
                f"there are {_listed(there)}",
                hint=f"{remedy}{quoted(next(iter(there)))}{flags}",
            ) from error
        if len(others) > 1:
            raise StoreAmbiguousError(
                f"several encoders have stores of these tracks: {_listed(others)}",
                hint=f"choose one, as --encoder {quoted(next(iter(others)))}",
            ) from error
    other, stores = others.popitem()
    return stores, [f"encoder {name!r} has no store of these tracks; {other!r} has, and is used"]


def _listed(stores: Mapping[str, Sequence[Store]]) -> str:
    """Encoders and the lengths they have, as ``mel (10, full)``."""
    return ", ".join(
        f"{name} ({', '.join(store.spec.segments.label for store in found)})"
        for name, found in stores.items()
    )


def _others(context: Context, name: str, common: Mapping[str, Any]) -> dict[str, list[Store]]:
    """Stores of other encoders that would serve, by encoder."""
    found: dict[str, list[Store]] = {}
    for encoder in sorted({path.parent.name for path in context.layout.store_paths()} - {name}):
        try:
            found[encoder] = find_stores(context.layout, encoder=encoder, **common)
        except StoreError:
            continue
    return found


def context_of(dataset: Dataset, stores: Sequence[Store]) -> RunContext:
    """Tell where a result comes from; of several stores, names and digests are joined."""
    first = stores[0]
    return RunContext(
        dataset=dataset.name,
        encoder=first.spec.encoder.name,
        seg="+".join(store.spec.segments.label for store in stores),
        store=" + ".join(store.name for store in stores),
        spec_key=_one([store.spec.key for store in stores]),
        content_digest=_one([store.content_digest for store in stores]),
        note=str(first.attrs.get("encoder_note", "")),
        spec=first.spec.to_json()
        if len(stores) == 1
        else {"scales": [store.spec.to_json() for store in stores]},
        cost=first.ledger if len(stores) == 1 else _together(stores),
    )


def _one(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else sha256_text(canonical_json(list(digests)))


def _together(stores: Sequence[Store]) -> dict[str, Any]:
    """Cost of several stores: seconds add up, memory is the highest; unknown if one is."""
    rules: dict[str, Callable[[list[float]], float]] = {
        "stage_one_seconds": sum,
        "n_copied_tracks": sum,
        "peak_vram_allocated_bytes": max,
        "peak_rss_bytes": max,
        "n_lengths": max,
    }
    cost: dict[str, Any] = {}
    for name, rule in rules.items():
        figures = [store.ledger.get(name) for store in stores]
        known = [figure for figure in figures if isinstance(figure, int | float)]
        if len(known) == len(stores):
            cost[name] = rule(known)
    return cost


def saved_run(path: Path, result: ProbeResult, where: RunContext) -> tuple[SavedRun, str]:
    """Save a result; where that fails it is still shown, with the reason."""
    try:
        run = load_run(path, save_result(path, result, where))
        kept = dataclasses.replace(run.result, segment_weights=result.segment_weights)
        return dataclasses.replace(run, result=kept), ""
    except (StoreError, OSError) as error:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        run = SavedRun(run_id=0, created=created, context=where, result=result)
        return run, f"result is not saved: {error}"
