"""``tune cache verify``, ``repair`` and ``diff``: whether stores are what was written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.cache.compare import StoreDiff, compare_stores
from tune_cache.cache.reencode import Reencoded, choose_segments
from tune_cache.cache.reencode import reencode as encode_again
from tune_cache.cache.repair import (
    Repair,
    check_replaceable,
    clean_after,
    failed_for_now,
    finish_swap,
    move_to_its_place,
    repair_store,
)
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.verify import Finding, Verification, verify_store
from tune_cache.cache.work import Circumstances, Progress, Run, open_pool
from tune_cache.commands.caches import cache_info, context_of, store_path
from tune_cache.commands.context import open_context, parse_bytes
from tune_cache.commands.sources import Source, encoder_of, plan_all, plan_rows
from tune_cache.encoders.base import Encoder, get_encoder
from tune_cache.errors import (
    EncoderError,
    MissingExtraError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    UsageError,
)

__all__ = ["Repaired", "Verified", "cache_diff", "cache_repair", "cache_verify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One store of ``tune cache verify``.

    Parameters
    ----------
    found
        What a look at every byte found.
    reencoded
        Segments that were encoded again, if any were asked for.
    problem
        What kept it from being looked at as asked; empty if nothing did.
    """

    found: Verification
    reencoded: tuple[Reencoded, ...] = ()
    problem: str = ""

    @property
    def is_damaged(self) -> bool:
        """Whether a byte is not as written, or a segment does not come out as stored."""
        return not self.found.is_ok or not all(item.is_same for item in self.reencoded)

    @property
    def is_ok(self) -> bool:
        """Whether all that was asked was looked at, and nothing is damaged."""
        return not self.is_damaged and not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What ``tune cache repair`` found and did.

    Parameters
    ----------
    found
        What was wrong.
    repair
        None where nothing was.
    """

    found: Verification
    repair: Repair | None = None


def cache_verify(
    store: str | Path | Sequence[str | Path] = (),
    *,
    every: bool = False,
    reencode: int = 0,
    seed: int = 1234,
    dataset: str | Path | None = None,
    encoder_path: Path | None = None,
    device: str | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_bytes: Callable[[int], None] | None = None,
    on_store: Callable[[Verified], None] | None = None,
) -> list[Verified]:
    """Read every byte of stores and compare it with what was written.

    Parameters
    ----------
    store
        Paths, names, or beginnings of names. A path into another cache than the usual
        means that one, if ``cache_dir`` names none.
    every
        All stores of the cache.
    reencode
        So many random segments of each whole store are encoded again from the audio
        and compared; ``seed`` decides which. Where that cannot be done, the result
        says why.
    dataset
        Where their audio is; without one, files that stage one has seen serve.
    on_bytes, on_store
        Called with the bytes of each piece read, and with each result.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If a name means no store, or several.
    StoreMismatchError
        If a store that was named is of a version that this one cannot read.
    StoreError
        If a file of a store that was named may not be read.
    """
    names = [store] if isinstance(store, str | Path) else list(store)
    if bool(names) == every:
        raise UsageError(
            "there is no store to verify" if not every else "both stores and --all are given",
            hint="name one (see `tune cache ls`), or give --all",
        )
    contexts = {name: context_of(name, cache_dir) for name in names}
    paths = [(store_path(name, context.layout), context) for name, context in contexts.items()]
    if every:
        context = open_context(cache_dir)
        paths = [(path, context) for path in context.layout.store_paths()]
    results = []
    for path, context in paths:
        problem = ""
        try:
            found = verify_store(path, on_bytes=on_bytes)
        except StoreNotFoundError:
            if every:
                continue  # removed meanwhile
            raise
        except StoreError as error:
            if not every:
                raise
            found = _unreadable(path, error)
            problem = "" if found.findings else str(error)
        let_go(found)
        again: Sequence[Reencoded] = ()
        if reencode and found.is_ok and not problem:
            source = Source(context, dataset, data_root, allow_outside_root)
            try:
                again = _reencoded(open_store(path), reencode, seed, source, encoder_path, device)
            except (EncoderError, MissingExtraError, StoreError) as error:
                problem = f"cannot be re-encoded: {error}"
                problem += f" ({' '.join(error.hint.splitlines())})" if error.hint else ""
        results.append(Verified(found=found, reencoded=tuple(again), problem=problem))
        if on_store is not None:
            on_store(results[-1])
    return results


def _unreadable(path: Path, error: StoreError) -> Verification:
    """One store among many of another version, or that may not be read: that is no finding."""
    finding = Finding(file="zarr.json", problem=str(error), scope="store")
    return Verification(
        path=path,
        inode=path.stat().st_ino,
        findings=(finding,) if isinstance(error, StoreMismatchError) else (),
        store=None,
        content_digest="",
        n_files=0,
        n_bytes=0,
        seconds=0.0,
    )


def _reencoded(
    store: Store,
    n_segments: int,
    seed: int,
    source: Source,
    encoder_path: Path | None,
    device: str | None,
) -> list[Reencoded]:
    """Encode some segments of a store again."""
    info = encoder_of(store.spec, source.context, encoder_path)
    tracks = source.find(store.audio_of)
    if not tracks:
        raise StoreError(
            f"audio of store {store.name!r} is not at hand",
            hint="say where it is: --dataset DATASET, perhaps --data-root",
        )
    encoder = get_encoder(info.name).load(
        path=source.context.setting("encoder_path", encoder_path),
        precision=store.spec.encoder.precision,
        device=source.context.setting("device", device, "auto"),
        layers=store.spec.layers,
        poolings=store.spec.poolings,
    )
    chosen = choose_segments(store, sorted(tracks), n_segments, seed)
    return encode_again(store, chosen, {name: tracks[name].path for name in chosen}, encoder)


def let_go(found: Verification) -> None:
    """Give up the hold on a store that was looked at, so that it may be removed."""
    if found.store is not None:
        found.store.files.hold.close()


def cache_diff(
    left: str | Path, right: str | Path, *, cache_dir: Path | str | None = None
) -> StoreDiff:
    """Compare two stores: settings, audio, content, vectors of common tracks.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError, StoreCorruptError
        If one of them cannot be found or read.
    """
    return compare_stores(
        cache_info(str(left), cache_dir=cache_dir), cache_info(str(right), cache_dir=cache_dir)
    )


def cache_repair(
    store: str | Path,
    *,
    dataset: str | Path | None = None,
    encoder_path: Path | None = None,
    device: str | None = None,
    max_memory: str | int | None = None,
    workers: int | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_bytes: Callable[[int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Repaired:
    """Replace a damaged store: damaged tracks are encoded again, all others copied.

    Tracks that failed because the machine was busy or a decoder died are tried
    again as well. The damaged store stays until its replacement is verified.

    Parameters
    ----------
    store
        Path, name, or the beginning of one. A path into another cache than the usual
        means that one, if ``cache_dir`` names none.
    dataset
        Where the audio is; without one, files that stage one has seen serve. Needed
        where not even the list of tracks can be relied on.

    Raises
    ------
    StoreCorruptError
        If audio of damaged tracks is not at hand: which. Nothing is changed then.
    StoreMismatchError
        If the encoder or the decoder at hand is another than the store's.
    StoreError
        If the store may not be read, or not be replaced.
    """
    context = context_of(store, cache_dir)
    final = store_path(store, context.layout)
    finish_swap(final)
    found = verify_store(final, on_bytes=on_bytes)
    try:
        if not found.is_ok or failed_for_now(found):
            check_replaceable(final)
        place = move_to_its_place(found)
        if place != final:
            let_go(found)
            final, found = place, verify_store(place, on_bytes=on_bytes)
        if found.is_ok and not failed_for_now(found):
            let_go(found)
            clean_after(final)
            return Repaired(found=found)
        source = Source(context, dataset, data_root, allow_outside_root)
        plan = (plan_rows if found.is_trusted else plan_all)(found, source, encoder_path)

        def load() -> Encoder:
            return get_encoder(plan.spec.encoder.name).load(
                path=context.setting("encoder_path", encoder_path),
                precision=plan.spec.encoder.precision,
                device=context.setting("device", device, "auto"),
                layers=plan.spec.layers,
                poolings=plan.spec.poolings,
                max_memory_bytes=parse_bytes(context.setting("max_memory", max_memory)),
            )

        options = Circumstances(workers=context.setting("workers", workers, 0))
        repair = repair_store(
            found,
            plan.tracks,
            plan.spec,
            wanted=plan.wanted,
            layout=context.layout,
            info=plan.info,
            run=Run(load, open_pool, options, on_progress or (lambda event: None)),
        )
        return Repaired(found=found, repair=repair)
    finally:
        let_go(found)  # also where an error is kept that refers to it
