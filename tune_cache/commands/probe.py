"""``tune probe``: fit light probes on stored vectors, choose on validation, score on test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tune_cache.cache.find import find_stores, missing_tracks
from tune_cache.cache.store import Store, open_store
from tune_cache.commands.context import (
    Context,
    Length,
    lengths,
    open_context,
    plan_tracks,
    several,
)
from tune_cache.datasets.base import Dataset
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    TaskError,
    first_few,
)
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.features import read_features
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.tasks import load_task
from tune_cache.reports.results import RunContext, SavedRun, load_run, save_result

__all__ = ["ProbeReport", "probe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What ``tune probe`` found.

    Parameters
    ----------
    dataset
        That was probed.
    runs
        One a configuration, as saved, with predictions.
    warnings
        What the user should know about how the stores were found.
    """

    dataset: Dataset
    runs: tuple[SavedRun, ...]
    warnings: tuple[str, ...] = ()


def probe(
    dataset: str | Path | None = None,
    *,
    task: str | Sequence[str] = (),
    agg: str | Sequence[str] = (),
    layer: str | int | Sequence[str | int] = (),
    probe: str | Sequence[str] = (),
    seed: int | Sequence[int] = (),
    seg: Length | Sequence[Length] = (),
    encoder: str | None = None,
    store: Path | None = None,
    max_segments: int | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_start: Callable[[Dataset], None] | None = None,
    on_result: Callable[[SavedRun], None] | None = None,
) -> ProbeReport:
    """Probe a dataset's stores with every combination of what is given.

    Parameters
    ----------
    dataset
        As for :func:`~tune_cache.commands.extract.extract`.
    task
        Names; all tasks of the dataset if empty.
    agg
        Aggregations of segments to tracks; ``mean`` if empty.
    layer
        Indices, ``last``, ``mean``, ``best`` or ``all``; ``best`` if empty.
    probe
        ``auto``, ``logistic``, ``ridge`` or ``knn``.
    seg
        Segment lengths; every length that a store at hand has if empty.
    encoder
        The dataset's own if None, or the only one that has stores.
    store
        Exactly this store.
    max_segments
        Segments that concat keeps of each track.
    on_start, on_result
        Called once before the work, and with each finished run.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store serves, or several encodings do.
    TaskError
        If labels or splits cannot support the probe.
    """
    context = open_context(cache_dir)
    choose = context.setting
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    if on_start is not None:
        on_start(loaded)
    if not loaded.tasks:
        raise TaskError(
            f"dataset {loaded.name!r} has no task: its records have no 'label'",
            hint="say which keys are labels under [datasets.NAME.tasks.T] in tune.toml",
        )
    names = choose("task", several(task), tuple(item.name for item in loaded.tasks))
    tasks = [loaded.task(name) for name in names]
    stores, warnings = _stores(
        context,
        loaded,
        given=loaded.name if dataset is None else os.fspath(dataset),
        seg=lengths(choose("seg", several(seg), ())),
        encoder=encoder,
        store=store,
    )
    cells = list(
        itertools.product(
            choose("agg", several(agg), ("mean",)),
            choose("probe", several(probe), ("auto",)),
            choose("layer", several(layer), ("best",)),
            choose("seed", several(seed), (1234,)),
        )
    )
    runs = []
    for opened, item in itertools.product(stores, tasks):
        data = load_task(loaded, item, opened.status)
        features = read_features(opened, data)
        where = _where(loaded, opened)
        for aggregation, name, policy, number in cells:
            options = (
                {"max_segments": max_segments} if max_segments and aggregation == "concat" else {}
            )
            results = run_probe(
                features,
                data,
                aggregation=aggregation,
                aggregation_options=options,
                probe=name,
                layer=policy,
                seed=number,
            )
            for result in results:
                run, problem = _saved(context.layout.results_db, result, where)
                warnings += [problem] if problem and problem not in warnings else []
                runs.append(run)
                if on_result is not None:
                    on_result(run)
    return ProbeReport(dataset=loaded, runs=tuple(runs), warnings=tuple(warnings))


def _saved(path: Path, result: ProbeResult, where: RunContext) -> tuple[SavedRun, str]:
    """Save a result; where that fails it is still shown, with the reason."""
    try:
        return load_run(path, save_result(path, result, where)), ""
    except (StoreError, OSError) as error:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        run = SavedRun(run_id=0, created=created, context=where, result=result)
        return run, f"result is not saved: {error}"


def _where(dataset: Dataset, store: Store) -> RunContext:
    return RunContext(
        dataset=dataset.name,
        encoder=store.spec.encoder.name,
        seg=store.spec.segments.label,
        store=store.name,
        spec_key=store.spec.key,
        content_digest=store.content_digest,
        note=str(store.attrs.get("encoder_note", "")),
        spec=store.spec.to_json(),
        cost=store.ledger,
    )


def _stores(
    context: Context,
    dataset: Dataset,
    *,
    given: str,
    seg: Sequence[float | Literal["full"]],
    encoder: str | None,
    store: Path | None,
) -> tuple[list[Store], list[str]]:
    """Find the stores to probe, and what must be said about the choice."""
    track_ids = [track.track_id for track in dataset.tracks]

    @cache
    def audio() -> Mapping[str, str]:
        with context.inventory() as inventory:
            planned = plan_tracks(dataset.tracks, inventory)
        return {track.track_id: track.audio_sha256 for track in planned}

    exact = context.setting("store", store)
    if exact is not None:
        opened = open_store(exact)
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
    }
    name = asked or dataset.encoder
    remedy = f"tune extract {given} --encoder "
    try:
        return find_stores(context.layout, encoder=name, remedy=remedy + name, **common), []
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
                hint=f"{remedy}{next(iter(there))}{flags}",
            ) from error
        if len(others) > 1:
            raise StoreAmbiguousError(
                f"several encoders have stores of these tracks: {_listed(others)}",
                hint=f"choose one, as --encoder {next(iter(others))}",
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
