"""What a store can be made from again: its audio, its encoder, its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tune_cache.audio import DECODER, RESAMPLER
from tune_cache.cache.find import copy_sources
from tune_cache.cache.inventory import Inventory
from tune_cache.cache.layout import Layout
from tune_cache.cache.listing import mending, removing
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.repair import damaged_tracks, failed_for_now
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.verify import Verification
from tune_cache.commands.context import Context, plan_tracks
from tune_cache.commands.extract import store_specs
from tune_cache.encoders.base import EncoderInfo, get_encoder
from tune_cache.errors import (
    EncoderError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    UsageError,
    first_few,
    quoted,
)
from tune_cache.segments import parse_seg
from tune_cache.specs import StoreSpec, collection_digest, differing_fields, is_imported

__all__ = ["RepairPlan", "Source", "encoder_of", "plan_all", "plan_rows"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where audio is to be found: in a dataset, or in files that stage one has seen."""

    context: Context
    dataset: str | Path | None
    data_root: Path | None
    allow_outside_root: bool

    def tracks(self, inventory: Inventory) -> list[PlannedTrack]:
        """All tracks of the dataset that was named."""
        loaded = self.context.dataset(
            self.dataset, data_root=self.data_root, allow_outside_root=self.allow_outside_root
        )
        return plan_tracks(loaded.tracks, inventory)

    def find(self, audio: Mapping[str, str]) -> dict[str, PlannedTrack]:
        """Tracks whose very audio is at hand.

        Parameters
        ----------
        audio
            Track id to sha256.
        """
        with self.context.inventory() as inventory:
            if self.dataset is not None:
                planned = self.tracks(inventory)
                places = {t.audio_sha256: (t.path, t.seconds, t.stamp) for t in planned}
            else:
                found = inventory.holding(audio.values())
                places = {
                    sha256: (path, file.seconds, file.stamp)
                    for sha256, (path, file) in found.items()
                }
        return {
            name: PlannedTrack(
                track_id=name,
                path=places[sha256][0],
                audio_sha256=sha256,
                seconds=places[sha256][1],
                stamp=places[sha256][2],
            )
            for name, sha256 in audio.items()
            if sha256 in places
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """What a replacement is made of.

    Parameters
    ----------
    tracks
        All of the store.
    wanted
        Ids of those that are not copied from it.
    info
        Of its encoder.
    """

    tracks: tuple[PlannedTrack, ...]
    wanted: frozenset[str]
    spec: StoreSpec
    info: EncoderInfo


def encoder_of(spec: StoreSpec, context: Context, encoder_path: Path | None) -> EncoderInfo:
    """Describe the encoder at hand, if it is the one of a spec.

    Raises
    ------
    EncoderError
        If there is none, as the vectors were imported.
    StoreMismatchError
        If it, or how this version decodes audio, is another: every differing field.
    """
    if is_imported(spec.encoder.name):
        raise EncoderError(f"its vectors were imported, nothing here makes {spec.encoder.name!r}")
    with context.inventory() as inventory:
        info = get_encoder(spec.encoder.name).describe(
            path=context.setting("encoder_path", encoder_path),
            precision=spec.encoder.precision,
            hash_file=lambda file: inventory.file(file).sha256,
        )
    here = dataclasses.replace(spec, encoder=info.spec, decoder=DECODER, resampler=RESAMPLER)
    fields = differing_fields(spec.to_json(), here.to_json())
    if fields:
        told = "; ".join(f"{name}: {left!r} there, {right!r} here" for name, left, right in fields)
        raise StoreMismatchError(
            f"the store was made with another encoder or decoder than those at hand: {told}",
            hint="give the weights it was made with as --encoder-path, or use the version of "
            "tune_cache that made it; `tune extract` makes a new store with those at hand",
        )
    return info


def plan_rows(found: Verification, source: Source, encoder_path: Path | None) -> RepairPlan:
    """Plan to encode damaged tracks again, and those that failed for a reason that may pass.

    Raises
    ------
    StoreCorruptError
        If neither audio nor another store has a damaged track.
    """
    store = found.store
    if store is None:
        raise StoreCorruptError(f"store {str(found.path)!r} cannot be read", path=str(found.path))
    damaged = damaged_tracks(found)
    wanted = {**failed_for_now(found), **damaged}
    imported = is_imported(store.spec.encoder.name)
    at_hand = source.find(wanted) if wanted and not imported else {}
    seconds = store.n_samples / store.spec.segments.sample_rate_hz
    tracks = tuple(
        dataclasses.replace(at_hand[name], seconds=float(length) or at_hand[name].seconds)
        if name in at_hand
        else PlannedTrack(track_id=name, path=Path(), audio_sha256=sha256, seconds=float(length))
        for name, sha256, length in zip(store.track_ids, store.audio_sha256, seconds, strict=True)
    )
    missing = [track for track in tracks if track.track_id in wanted]
    elsewhere = copy_sources(source.context.layout, store.spec, missing, {found.path})
    lacking = sorted(damaged.keys() - at_hand.keys() - elsewhere.keys())
    if imported and set(found.tracks) - elsewhere.keys():
        raise _lost(found)
    if lacking:
        raise StoreCorruptError(
            f"{len(lacking)} of {len(damaged)} damaged tracks of store {found.path.name!r} cannot "
            f"be made again, as their audio is not at hand: {first_few(lacking)}",
            hint="say where it is: --dataset DATASET, perhaps --data-root; nothing was changed",
            path=str(found.path),
            tracks=tuple(lacking),
        )
    wanted_here = (wanted.keys() & at_hand.keys()) | elsewhere.keys()
    if wanted_here - elsewhere.keys():
        info = encoder_of(store.spec, source.context, encoder_path)
    else:
        info = _info_of(store)
    return RepairPlan(tracks=tracks, wanted=frozenset(wanted_here), spec=store.spec, info=info)


def _lost(found: Verification) -> StoreCorruptError:
    """Make the error of imported vectors that are damaged."""
    return StoreCorruptError(
        f"damaged vectors of store {found.path.name!r} cannot be made again, as they were imported",
        hint=f"nothing was changed\n{mending(found.path)}",
        path=str(found.path),
        tracks=found.tracks,
    )


def _info_of(store: Store) -> EncoderInfo:
    """Describe an encoder by what its store says, where nothing is encoded."""
    spec, attributes = store.spec, store.attrs
    return EncoderInfo(
        name=spec.encoder.name,
        sample_rate=spec.segments.sample_rate_hz,
        n_layers=len(spec.layers),
        dim=store.dim,
        frame_rate_hz=float(attributes.get("frame_rate_hz", 0.0)),
        min_samples=spec.segments.min_samples,
        spec=spec.encoder,
        license_note=str(attributes.get("license_note", "")),
        note=str(attributes.get("encoder_note", "")),
    )


def plan_all(found: Verification, source: Source, encoder_path: Path | None) -> RepairPlan:
    """Plan to make a store anew of which nothing can be relied on but its name.

    Raises
    ------
    StoreCorruptError
        If no dataset is named, or the settings cannot be told.
    StoreMismatchError
        If the dataset's audio is not what the store's name says.
    """
    path = found.path
    if is_imported(path.parent.name):
        raise _lost(found)
    if source.dataset is None:
        files = [item.file for item in found.findings if item.scope == "store"]
        raise StoreCorruptError(
            f"nothing of store {path.name!r} can be relied on, as {first_few(files)} "
            f"{'is' if len(files) == 1 else 'are'} damaged: all of it must be encoded again",
            hint="say of which dataset it is: --dataset DATASET",
            path=str(path),
        )
    spec = _spec_of(found, source.context, encoder_path)
    with source.context.inventory() as inventory:
        tracks = tuple(source.tracks(inventory))
    collection = collection_digest((track.track_id, track.audio_sha256) for track in tracks)
    place = Layout(path.parent).store_path(spec, collection)
    if place.name != path.name:
        raise StoreMismatchError(
            f"the audio of dataset {str(source.dataset)!r} makes store {place.name!r}, "
            f"not {path.name!r}: tracks were added, removed or changed, or it is another dataset",
            hint=f"run `tune extract {quoted(source.dataset)}{source.context.cache_flag}`; "
            f"`{removing(path)}` removes this",
        )
    info = encoder_of(spec, source.context, encoder_path)
    wanted = frozenset(track.track_id for track in tracks)
    return RepairPlan(tracks=tracks, wanted=wanted, spec=spec, info=info)


def _spec_of(found: Verification, context: Context, encoder_path: Path | None) -> StoreSpec:
    """Settings with the key in a store's name: its own, another store's, or the usual ones."""
    path = found.path
    label, _, digits = path.name.removeprefix("seg").partition("-")
    key = digits.partition("-")[0]
    if found.store is not None and found.store.spec.key[:8] == key:
        return found.store.spec
    for other in context.layout.store_paths():
        if other != path and other.parent == path.parent and f"-{key}-" in other.name:
            try:
                return open_store(other).spec
            except StoreError:
                continue
    try:
        info = get_encoder(path.parent.name).describe(
            path=context.setting("encoder_path", encoder_path),
            precision=context.setting("precision", None, "fp32"),
        )
        (spec,) = store_specs(context, info, seg=[parse_seg(label)])
        if spec.key[:8] == key:
            return spec
    except (EncoderError, UsageError):
        pass
    raise StoreCorruptError(
        f"the settings of store {path.name!r} cannot be read, and it was not made with the usual",
        hint=f"remove it (`{removing(path)}`) and run `tune extract` with the "
        "flags it was made with",
        path=str(path),
    )
