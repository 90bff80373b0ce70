"""Stage one: from audio files to published stores, through the journal.

Conventions
-----------
Several specs over the same audio are made together: each file is decoded once
and cut for all of them. Everything here may be killed at any point; the next
run does what is missing and comes to the same bytes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cache.cache.assemble import Assembly, assemble
from tune_cache.cache.disk import make_folders, remove_tree, touch
from tune_cache.cache.find import copy_sources
from tune_cache.cache.journal import (
    JournalUnit,
    TrackOutcome,
    make_work_folder,
    read_unit,
    unit_path,
)
from tune_cache.cache.layout import Layout
from tune_cache.cache.ledger import machine_facts, summarise
from tune_cache.cache.listing import corrupt
from tune_cache.cache.locks import Claims
from tune_cache.cache.notes import write_note
from tune_cache.cache.plan import PlannedTrack, make_plan
from tune_cache.cache.preflight import check_room
from tune_cache.cache.rows import rows_from_units_and_stores
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.work import (
    Circumstances,
    Job,
    OpenDecoders,
    Progress,
    Run,
    Unit,
    encode_all,
    open_pool,
)
from tune_cache.encoders.base import Encoder, EncoderInfo
from tune_cache.errors import AudioError, StoreCorruptError
from tune_cache.specs import StoreSpec, collection_digest, differing_fields

__all__ = [
    "Circumstances",
    "ExtractOutcome",
    "Progress",
    "extract_stores",
    "gather",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractOutcome:
    """What one spec came to.

    Parameters
    ----------
    store
        The finished store; None while units of other shares are missing.
    hit
        Whether it was there already.
    failed
        Track id to what went wrong.
    n_encoded, n_copied
        Tracks.
    n_missing_units
        Of shares not done yet.
    ledger
        What this store cost.
    """

    spec: StoreSpec
    path: Path
    store: Store | None
    hit: bool
    failed: dict[str, str] = field(default_factory=dict)
    n_encoded: int = 0
    n_copied: int = 0
    n_missing_units: int = 0
    ledger: dict[str, Any] = field(default_factory=dict)


def extract_stores(
    tracks: Sequence[PlannedTrack],
    specs: Sequence[StoreSpec],
    *,
    layout: Layout,
    info: EncoderInfo,
    load: Callable[[], Encoder],
    circumstances: Circumstances | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    open_decoders: OpenDecoders = open_pool,
) -> list[ExtractOutcome]:
    """Make sure that the stores of some specs over some tracks exist.

    Parameters
    ----------
    tracks
        All tracks of the dataset, also those that cannot be read.
    specs
        Of one encoder; they differ in how tracks are cut.
    layout
        Where stores lie.
    info
        Of the encoder.
    load
        Loads it; called only if something must be encoded.
    open_decoders
        Opens what decodes files: processes of their own, which cannot take the run with them.

    Returns
    -------
    one outcome a spec, in their order.

    Raises
    ------
    StoreCorruptError
        If a store that should serve is damaged, or lies under another's name.
    StoreError
        If the disk has no room for what will be written.
    EncoderError
        If the encoder cannot be loaded or fails on a batch of one.
    """
    layout.prepare(*{spec.encoder.name for spec in specs})
    options = circumstances or Circumstances()
    report = on_progress or (lambda event: None)
    collection = collection_digest((t.track_id, t.audio_sha256) for t in tracks)
    finals = {layout.store_path(spec, collection) for spec in specs}
    distrusted: set[Path] = set()
    while True:
        published = {final for final in finals if final.exists()}
        try:
            return _extract(
                tracks,
                specs,
                collection,
                layout,
                info,
                Run(load, open_decoders, options, report),
                distrusted,
            )
        except (StoreCorruptError, FileNotFoundError) as error:
            if published != {final for final in finals if final.exists()}:
                continue  # a rival published and removed the journal under our hands
            path = error.path if isinstance(error, StoreCorruptError) else ""
            source = _copied_from(Path(path), layout) if path else None
            if source is None or source in distrusted or source in finals:
                raise
            logger.warning("store %s is damaged and not copied from: %s", source.name, error)
            distrusted.add(source)


def _copied_from(path: Path, layout: Layout) -> Path | None:
    """The store that a damaged file belongs to."""
    return next((store for store in layout.store_paths() if path.is_relative_to(store)), None)


def _extract(
    tracks: Sequence[PlannedTrack],
    specs: Sequence[StoreSpec],
    collection: str,
    layout: Layout,
    info: EncoderInfo,
    run: Run,
    distrusted: set[Path],
) -> list[ExtractOutcome]:
    plan = make_plan(tracks)
    outcomes: dict[StoreSpec, ExtractOutcome] = {}
    with contextlib.ExitStack() as stack:
        jobs: list[Job] = []
        for spec in dict.fromkeys(specs):
            final = layout.store_path(spec, collection)
            if final.exists():
                outcomes[spec] = _finished(_expected(final, spec, collection), hit=True)
                touch(layout.lock_path(final))  # in use: `tune cache prune` spares it
                _sweep(layout, final)
                continue
            make_folders(final.parent)
            claims = stack.enter_context(Claims(layout.lock_path(final)))
            copies = copy_sources(layout, spec, tracks, distrusted)
            job = Job(
                spec=spec, final=final, work=layout.work_path(final), claims=claims, copies=copies
            )
            make_work_folder(job.work)
            write_note(job, plan, collection, run.options.dataset)
            jobs.append(job)
        check_room(jobs, plan, dim=info.dim)
        if jobs:
            encode_all(plan, jobs, run)
        for number, job in enumerate(jobs):
            run.report(Progress(stage="assemble", done=number, total=len(jobs)))
            outcomes[job.spec] = _finish(job, plan, collection, info, run.options)
    return [outcomes[spec] for spec in specs]


def _expected(final: Path, spec: StoreSpec, collection: str) -> Store:
    """Open a store by its name, and see that it is what the name says."""
    store = open_store(final)
    if store.spec != spec or store.collection_digest != collection:
        fields = differing_fields(spec.to_json(), store.spec.to_json())
        raise corrupt(
            final,
            f"{str(final)!r} holds another store than its name says"
            + "".join(f"; {name}: expected {a!r}, found {b!r}" for name, a, b in fields[:4]),
        )
    return store


def _sweep(layout: Layout, final: Path) -> None:
    """Remove what a process left that died after it published a store."""
    work = layout.work_path(final)
    if work.exists() or any(_unfinished(final)):
        with Claims(layout.lock_path(final)) as claims, claims.assembling():
            _remove_remains(final, work)


def _remove_remains(final: Path, work: Path) -> None:
    """Remove the journal and unfinished folders of a store that is published."""
    remove_tree(work)
    for orphan in _unfinished(final):
        remove_tree(orphan)


def _unfinished(final: Path) -> Iterator[Path]:
    """Folders in which the store was being assembled."""
    return final.parent.glob(f".{final.name}.*.building")


def _finished(store: Store, *, hit: bool, n_encoded: int = 0, n_copied: int = 0) -> ExtractOutcome:
    return ExtractOutcome(
        spec=store.spec,
        path=store.path,
        store=store,
        hit=hit,
        failed=store.failed,
        n_encoded=n_encoded,
        n_copied=n_copied,
        ledger=store.ledger,
    )


def _finish(
    job: Job, plan: Sequence[Unit], collection: str, info: EncoderInfo, options: Circumstances
) -> ExtractOutcome:
    """Assemble and publish if the journal is full."""
    missing = [k for k, unit in enumerate(plan) if not job.is_done(k, unit)]
    if missing:
        return ExtractOutcome(
            spec=job.spec,
            path=job.final,
            store=None,
            hit=False,
            failed=job.failed,
            n_encoded=job.n_encoded,
            n_missing_units=len(missing),
        )
    with job.claims.assembling():
        if not job.final.exists():
            assembly = gather(job, plan, collection, info, options)
            if not any(outcome.n_rows for outcome in assembly.outcomes):
                first = next(iter(assembly.outcomes), None)
                raise AudioError(
                    f"none of {len(assembly.outcomes)} tracks could be encoded"
                    + (f"; the first: {first.track_id!r}: {first.message}" if first else ""),
                    hint="look at the dataset with `tune dataset check`",
                    reason=first.status if first else "empty",
                )
            assemble(job.final, assembly)
        store = _expected(job.final, job.spec, collection)
        _remove_remains(job.final, job.work)
    return _finished(store, hit=False, n_encoded=job.n_encoded, n_copied=len(job.copies))


def gather(
    job: Job, plan: Sequence[Unit], collection: str, info: EncoderInfo, options: Circumstances
) -> Assembly:
    """Gather every track's outcome from units, copies and unreadable files."""
    began = time.perf_counter()

    def load_unit(index: int) -> JournalUnit:
        unit = read_unit(job.work, index, job.spec)
        if unit is None or not unit.covers(job.needs(plan[index])):
            raise StoreCorruptError(
                f"unit {index} of {job.final.name!r} changed while it was being assembled",
                hint="run the same command again",
                path=str(unit_path(job.work, index)),
            )
        return unit

    outcomes: list[TrackOutcome] = []
    unit_of: dict[str, int] = {}
    costs = []
    for k, unit in enumerate(plan):
        found: dict[str, TrackOutcome] = {}
        if job.needs(unit):
            read = load_unit(k)
            costs.append(read.ledger)
            found = {outcome.track_id: outcome for outcome in read.outcomes}
        for track in unit:
            if track.track_id in job.copies:
                store, name = job.copies[track.track_id]
                outcomes.append(store.outcome_of(name, track.track_id))
            elif track.audio_sha256:
                outcomes.append(found[track.track_id])
                unit_of[track.track_id] = k
            else:
                outcomes.append(
                    TrackOutcome(
                        track_id=track.track_id,
                        audio_sha256="",
                        status=track.reason,
                        message=track.message,
                    )
                )
    facts = {
        "frame_rate_hz": info.frame_rate_hz,
        "datasets": [options.dataset] if options.dataset else [],
        "license_note": info.license_note,
        "encoder_note": info.note,
        "provenance": machine_facts(),
    }

    def ledger() -> dict[str, Any]:
        spent = job.owed_write_seconds + time.perf_counter() - began
        return summarise(costs, n_copied=len(job.copies), write_seconds=spent)

    return Assembly(
        spec=job.spec,
        dim=info.dim,
        collection=collection,
        outcomes=outcomes,
        rows=rows_from_units_and_stores(
            outcomes, unit_of=unit_of, copy_from=job.copies, load_unit=load_unit
        ),
        facts=facts,
        ledger=ledger,
    )
