"""Which stores a sweep works on: those at hand, those that are missing, those that are the same.

Conventions
-----------
Lengths that cut every track alike are one *grid*: one store serves them all,
and none is encoded twice. As long as no store is at hand the lengths of tracks
are those of their headers; decoded lengths decide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tune_cache.cache.ahead import Ahead, look_ahead
from tune_cache.cache.find import find_stores
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.store import Store
from tune_cache.commands.context import Context, Length
from tune_cache.commands.extract import store_specs
from tune_cache.datasets.base import Dataset
from tune_cache.encoders.base import EncoderInfo
from tune_cache.errors import StoreAmbiguousError, StoreNotFoundError
from tune_cache.probes.sweep import Cut
from tune_cache.segments import segment_spec
from tune_cache.specs import SegmentSpec, canonical_json

__all__ = ["Collection", "Grid", "choose_encoder", "find_grids", "label_of", "with_cost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Segment lengths that cut a dataset alike, and the store that serves them.

    Parameters
    ----------
    lengths
        As asked for.
    store
        None where it is missing.
    n_segments, audio_seconds
        What a missing store would hold, by the best lengths known.
    ahead
        What is left to encode of it, and how large it will be; None where the
        encoder cannot be described here.
    x_real_time
        Speed that the ledger of another store of this encoder tells; NaN where
        none does.
    """

    lengths: tuple[Length, ...]
    store: Store | None
    n_segments: int = 0
    audio_seconds: float = 0.0
    ahead: Ahead | None = None
    x_real_time: float = math.nan

    @property
    def encode_seconds(self) -> float:
        """Of encoding what is missing, NaN where no speed is known."""
        left = self.ahead.work.input_seconds if self.ahead else self.audio_seconds
        return left / self.x_real_time

    @property
    def labels(self) -> tuple[str, ...]:
        """Lengths as tables show them."""
        return tuple(map(label_of, self.lengths))


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A dataset's tracks, and where their stores may lie.

    Parameters
    ----------
    planned
        Gives all tracks with the hashes and header lengths of their files;
        called once at most.
    """

    context: Context
    dataset: Dataset
    planned: Callable[[], Sequence[PlannedTrack]]

    def audio(self) -> Mapping[str, str]:
        """Track id to sha256 of its audio."""
        return {track.track_id: track.audio_sha256 for track in self.planned()}

    def stores(self, encoder: str, lengths: Sequence[Length]) -> list[Store]:
        """Stores at hand, one a length; of every length there is if none is asked for.

        Raises
        ------
        StoreAmbiguousError
            If several encodings of one length serve.
        """
        found = []
        one_by_one: list[tuple[Length, ...]] = [(length,) for length in lengths]
        for asked in one_by_one or [()]:
            try:
                found += find_stores(
                    self.context.layout,
                    encoder=encoder,
                    lengths=asked,
                    audio=self.audio,
                    track_ids=[track.track_id for track in self.dataset.tracks],
                )
            except StoreNotFoundError:
                continue
            except StoreAmbiguousError as error:
                raise StoreAmbiguousError(
                    str(error),
                    hint="a sweep takes one encoding of each length: remove the other with "
                    "`tune cache rm`, or probe it alone with `tune probe --store`",
                ) from error
        return found


def label_of(length: Length) -> str:
    """A segment length as stores and tables name it."""
    return "full" if length == "full" else f"{length:.6g}"


def choose_encoder(collection: Collection, asked: str | None) -> tuple[str, str]:
    """Choose the encoder asked for, else the dataset's own, else the only one with stores.

    Returns
    -------
    its name, and what must be said about the choice

    Raises
    ------
    StoreAmbiguousError
        If the dataset's own has none of these tracks, and several others have.
    """
    own = collection.dataset.encoder
    if asked is not None:
        return asked, ""
    if _has_any(collection, own):
        return own, ""
    names = {path.parent.name for path in collection.context.layout.store_paths()} - {own}
    others = [name for name in sorted(names) if _has_any(collection, name)]
    if len(others) > 1:
        raise StoreAmbiguousError(
            f"several encoders have stores of these tracks: {', '.join(others)}",
            hint=f"choose one, as --encoder {others[0]}",
        )
    if not others:
        return own, ""
    return others[0], (
        f"encoder {own!r} has no store of these tracks; {others[0]!r} has, and is used"
    )


def _has_any(collection: Collection, encoder: str) -> bool:
    try:
        return bool(collection.stores(encoder, ()))
    except StoreAmbiguousError:
        return True


def find_grids(
    collection: Collection,
    encoder: str,
    lengths: Sequence[Length],
    describe: Callable[[], EncoderInfo],
) -> list[Grid]:
    """Find the stores of some lengths, and join the lengths that cut alike.

    Parameters
    ----------
    lengths
        Asked for; every length at hand if empty.
    describe
        Says what the encoder needs; called if a length is missing and no store
        of the encoder tells.

    Raises
    ------
    StoreNotFoundError
        If no length is asked for and none is at hand.
    """
    stores = collection.stores(encoder, lengths)
    if not lengths:
        if not stores:
            raise StoreNotFoundError(
                f"no store of encoder {encoder!r} holds the tracks of {collection.dataset.name!r}",
                hint="say which lengths, as --seg 10 --seg full, and add --extract-missing",
            )
        lengths = [_length_of(store) for store in stores]
    by_label = {store.spec.segments.label: store for store in stores}
    absent = [length for length in lengths if label_of(length) not in by_label]
    others = _others(collection, encoder) if absent else []
    known = next(iter([*stores, *others]), None)
    grids: dict[tuple[str, str], Grid] = {}
    for store in others:  # one that nobody asked for may hold the very segments
        key = _settings_of(store), _cut_of(store, collection).digest(store.spec.segments)
        grids.setdefault(key, Grid(lengths=(), store=store))
    for length in lengths:
        mine = by_label.get(label_of(length))
        if mine is not None:
            spec, cuts = mine.spec.segments, _cut_of(mine, collection)
            settings = _settings_of(mine)
        else:
            spec = _spec_of(collection.context, length, known, describe)
            cuts = Cut.of(_track_lengths(collection, known, spec.sample_rate_hz), spec)
            settings = _settings_of(known) if known else ""
        key = settings, cuts.digest(spec)
        grid = grids.get(key) or _missing(cuts, spec, known)
        grids[key] = dataclasses.replace(
            grid, lengths=(*grid.lengths, length), store=grid.store or mine
        )
    asked_for = [grid for grid in grids.values() if grid.lengths]
    return sorted(asked_for, key=lambda grid: lengths.index(grid.lengths[0]))


def _others(collection: Collection, encoder: str) -> list[Store]:
    """Stores of every length at hand; none where it is not clear which."""
    try:
        return collection.stores(encoder, ())
    except StoreAmbiguousError:
        return []


def _length_of(store: Store) -> Length:
    seconds = store.spec.segments.length_seconds
    return "full" if seconds is None else seconds


def _settings_of(store: Store) -> str:
    """All that makes its vectors but the grid."""
    spec = store.spec.to_json()
    del spec["segments"]
    return canonical_json(spec)


def _spec_of(
    context: Context,
    length: Length,
    known: Store | None,
    describe: Callable[[], EncoderInfo],
) -> SegmentSpec:
    """The grid that `tune extract` would use for a length."""
    if known is not None:
        rate, least = known.spec.segments.sample_rate_hz, known.spec.segments.min_samples
    else:
        info = describe()
        rate, least = info.sample_rate, info.min_samples
    return segment_spec(
        length,
        sample_rate_hz=rate,
        min_samples=least,
        hop_seconds=None if length == "full" else context.setting("hop", None),
        tail=context.setting("tail", None, "keep"),
        min_tail_seconds=context.setting("min_tail", None),
    )


def _cut_of(store: Store, collection: Collection) -> Cut:
    """How a store's segments lie in the tracks of a dataset."""
    names = [
        track.track_id
        for track in collection.dataset.tracks
        if store.status[track.track_id] == "ok"
    ]
    rows, offsets = store.rows_of(names)
    return Cut(
        track_ids=tuple(names),
        offsets=offsets,
        starts=store.segment_start[rows],
        n_samples=store.segment_n_samples[rows],
    )


def _track_lengths(collection: Collection, known: Store | None, rate: int) -> dict[str, int]:
    """Samples of each track: as decoded where a store tells, else by its header."""
    if known is None:
        return {track.track_id: round(track.seconds * rate) for track in collection.planned()}
    decoded = dict(zip(known.track_ids, known.n_samples.tolist(), strict=True))
    return {
        track.track_id: decoded[track.track_id]
        for track in collection.dataset.tracks
        if known.status[track.track_id] == "ok"
    }


def _missing(cuts: Cut, spec: SegmentSpec, known: Store | None) -> Grid:
    """What would have to be encoded."""
    seconds = float(cuts.n_samples.sum()) / spec.sample_rate_hz
    speed = known.ledger.get("x_real_time") if known else None
    return Grid(
        lengths=(),
        store=None,
        n_segments=len(cuts.starts),
        audio_seconds=seconds,
        x_real_time=speed or math.nan,
    )


def with_cost(grid: Grid, collection: Collection, info: EncoderInfo) -> Grid:
    """Find what is left to do for a missing store: rows that others have are copied."""
    (spec,) = store_specs(collection.context, info, seg=grid.lengths[:1])
    ahead = look_ahead(collection.planned(), spec, layout=collection.context.layout, dim=info.dim)
    return dataclasses.replace(grid, ahead=ahead)
