"""``tune sweep``: a grid of probes, and which of its cells are as good as the best."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.store import Store
from tune_cache.cache.work import Progress
from tune_cache.commands.context import Context, Length, lengths, open_context, plan_tracks
from tune_cache.commands.extract import extract
from tune_cache.commands.probe_settings import aggregation_options, on_leaks
from tune_cache.commands.sweep_cells import Asked, Planned, Ran, plan, run_cells
from tune_cache.commands.sweep_judging import Runs, judged
from tune_cache.commands.sweep_settings import axis, check
from tune_cache.commands.sweep_stores import Collection, Grid, choose_encoder, find_grids, with_cost
from tune_cache.commands.training import training_of
from tune_cache.datasets.base import Dataset
from tune_cache.devices import release_cached_memory
from tune_cache.encoders.base import EncoderInfo, get_encoder
from tune_cache.errors import EncoderError, StoreNotFoundError, UsageError, quoted
from tune_cache.probes.compare import MARGIN
from tune_cache.probes.evaluate import N_REPEATS
from tune_cache.probes.presets import preset_named
from tune_cache.probes.sources import refuse_derived
from tune_cache.probes.verdicts import Entry, Verdict, choose_reference, judge

__all__ = ["SweepReport", "SweepTable", "sweep"]

ROUNDS = 3  # header lengths may join lengths that decoding tells apart, and then once more


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTable:
    """One task's table.

    Parameters
    ----------
    verdicts, runs
        One a row, in the order asked for; runs are one a seed, without predictions.
    margin
        Largest loss that does not matter.
    """

    task: str
    verdicts: tuple[Verdict, ...]
    runs: tuple[Runs, ...]
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What ``tune sweep`` found.

    Parameters
    ----------
    failed
        Cells without a result, in words, and why.
    n_cells, n_remembered
        Cells of the grid, each thing once, and those of them that earlier
        results already had.
    """

    dataset: Dataset
    encoder: str
    tables: tuple[SweepTable, ...]
    n_cells: int
    n_remembered: int
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def sweep(
    dataset: str | Path | None = None,
    *,
    preset: str | None = None,
    task: str | Sequence[str] = (),
    seg: Length | Sequence[Length] = (),
    agg: str | Sequence[str] = (),
    layer: str | int | Sequence[str | int] = (),
    probe: str | Sequence[str] = (),
    seed: int | Sequence[int] = (),
    encoder: str | None = None,
    encoder_path: Path | None = None,
    device: str | None = None,
    extract_missing: bool = False,
    jobs: int | None = None,
    margin: float | None = None,
    max_segments: int | None = None,
    fill: str | None = None,
    pretrain_epochs: int | None = None,
    pretrain_on: str | None = None,
    finetune: bool = False,
    positions: str | None = None,
    readout: str | None = None,
    derive: float | Sequence[float] = (),
    shots: int | Sequence[int] = (),
    repeats: int | None = None,
    strict: bool = False,
    drop_leaks: bool = False,
    checkpoint: str | None = None,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_start: Callable[..., None] | None = None,
    on_missing: Callable[[Sequence[Grid]], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_cell: Callable[[int, int], None] | None = None,
) -> SweepReport:
    """Probe every combination of lengths, aggregations, layers, probes and seeds.

    Cells that are one thing by definition are worked out once and are one row.
    What was worked out before is read, unless vectors, labels, splits, settings
    or code have changed.

    Parameters
    ----------
    dataset, task, seg, encoder, max_segments, fill, checkpoint, data_root, allow_outside_root
        As for :func:`~tune_cache.commands.probe.probe`.
    derive, shots, repeats, strict, drop_leaks,
    pretrain_epochs, pretrain_on, finetune, positions, readout
        As there. Few-shot cells are not compared: they keep no predictions.
    preset
        A named grid, as ``tune-paper``; what is given beside it wins.
    agg, layer, probe, seed
        Axes of the grid; ``mean``, ``best``, ``auto`` and 1234 if empty.
    encoder_path, device
        As for :func:`~tune_cache.commands.extract.extract`.
    extract_missing
        Make the stores that are missing; without it they are listed and
        nothing is done.
    jobs
        Processes, of one BLAS thread each; by the number of cells if None, one if a GPU trains.
    margin
        Largest loss against the chosen cell that does not matter; 0.02 if None.
    on_start, on_missing, on_progress, on_cell
        Called once before the work, with the missing stores, with each step of
        stage one, and with the numbers of cells done and of all.

    Raises
    ------
    StoreNotFoundError
        If stores are missing.
    TaskError
        If no cell of a task has a result.
    """
    context = open_context(cache_dir)
    preset = context.setting("preset", preset)
    margin = float(context.setting("margin", margin, MARGIN))
    jobs = context.setting("jobs", jobs)
    if context.setting("protocol", None, "tune") != "tune":
        raise UsageError("a sweep follows no protocol", hint="use `tune probe --protocol …`")
    chosen = preset_named(preset)
    loaded = context.dataset(dataset, data_root=data_root, allow_outside_root=allow_outside_root)
    if on_start is not None:
        on_start(loaded)
    values = partial(axis, context, preset)
    of_concat = {
        "max_segments": context.setting("max_segments", max_segments),
        "fill": context.setting("fill", fill),
    }
    aggregations = values("agg", agg, chosen.agg)
    training = training_of(
        context,
        loaded,
        aggregations,
        device=device,
        pretrain_on=pretrain_on,
        pretrain_epochs=pretrain_epochs,
        finetune=finetune or None,
        positions=positions,
        readout=readout,
    )
    segs = lengths(values("seg", seg, chosen.seg))
    asked, without = check(
        loaded,
        Asked(
            tasks=values("task", task, tuple(item.name for item in loaded.tasks)),
            aggregations=aggregations,
            options=aggregation_options(aggregations, {**of_concat, **training.options}),
            training=training,
            probes=values("probe", probe, chosen.probe),
            layers=tuple(map(str, values("layer", layer, chosen.layer))),
            seeds=values("seed", seed, chosen.seed),
            derive=values("derive", derive, ()),
            shots=values("shots", shots, (None,)),
            repeats=context.setting("repeats", repeats, N_REPEATS),
            checkpoint=context.setting("checkpoint", checkpoint),
            on_leaks=on_leaks(context.setting, strict=strict, drop_leaks=drop_leaks),
        ),
        segs,
        margin=margin,
        jobs=jobs,
    )
    given = loaded.name if dataset is None else os.fspath(dataset)
    sweeper = _Stores(
        context=context,
        dataset=loaded,
        lengths=segs,
        encoder=context.setting("encoder", encoder),
        encoder_path=context.setting("encoder_path", encoder_path),
    )

    def make(missing: Sequence[Grid], name: str) -> list[str]:
        if on_missing is not None:
            on_missing(missing)
        flags = context.cache_flag + "".join(f" --seg {grid.labels[0]}" for grid in missing)
        if not extract_missing:
            raise StoreNotFoundError(
                f"{len(missing)} of the stores of encoder {name!r} that the sweep needs are"
                f" missing: {', '.join(' = '.join(grid.labels) for grid in missing)}",
                hint="add --extract-missing, or make them with "
                f"`tune extract {quoted(given)} --encoder {quoted(name)}{flags}`",
            )
        done = extract(
            dataset,
            seg=[grid.lengths[0] for grid in missing],
            encoder=name,
            encoder_path=encoder_path,
            device=device,
            data_root=data_root,
            cache_dir=cache_dir,
            allow_outside_root=allow_outside_root,
            on_progress=on_progress,
            on_start=on_start,
        )
        release_cached_memory()  # other processes may train on this GPU next
        return [f"{track}: {text}" for track, text in sorted(done.failed.items())]

    name, grids, said = sweeper.find(make)
    refuse_derived([store for _, store in grids], asked.derive)
    rows, left_out = plan(loaded, grids, asked, context.layout.comparisons)
    ran = run_cells(loaded, rows, context.layout.results_db, jobs=jobs, on_cell=on_cell)
    tables = [
        _table(
            task_name, [row for row in rows if row.task == task_name], ran, context, margin, jobs
        )
        for task_name in asked.tasks
    ]
    return SweepReport(
        dataset=loaded,
        encoder=name,
        tables=tuple(tables),
        n_cells=len({key for row in rows for key in row.keys}),
        n_remembered=ran.n_remembered,
        failed=tuple(
            (_in_words(row, place), str(ran.failed[key]))
            for row in rows
            for place, key in enumerate(row.keys)
            if key in ran.failed
        ),
        warnings=(*without, *said, *left_out, *ran.warnings),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stores:
    """What decides which stores a sweep needs."""

    context: Context
    dataset: Dataset
    lengths: Sequence[Length]
    encoder: str | None
    encoder_path: Path | None

    def find(
        self, make: Callable[[Sequence[Grid], str], list[str]]
    ) -> tuple[str, list[tuple[Grid, Store]], list[str]]:
        """Find the stores of all lengths; ``make`` makes the missing ones or raises.

        Returns
        -------
        the encoder, grids with their stores, and what must be said
        """

        @cache
        def planned() -> Sequence[PlannedTrack]:
            with self.context.inventory() as inventory:
                return plan_tracks(self.dataset.tracks, inventory)

        collection = Collection(context=self.context, dataset=self.dataset, planned=planned)
        name, note = choose_encoder(collection, self.encoder)
        said = [note] if note else []
        for _ in range(ROUNDS):
            grids = find_grids(collection, name, self.lengths, lambda: self._describe(name))
            missing = [grid for grid in grids if grid.store is None]
            if not missing:
                break
            with contextlib.suppress(EncoderError):  # whoever makes them is told what is wrong
                info = self._describe(name)
                missing = [with_cost(grid, collection, info) for grid in missing]
            said += make(missing, name)
        return name, [(grid, grid.store) for grid in grids if grid.store is not None], said

    def _describe(self, name: str) -> EncoderInfo:
        with self.context.inventory() as inventory:
            return get_encoder(name).describe(
                path=self.encoder_path, hash_file=lambda file: inventory.file(file).sha256
            )


def _table(
    task: str, rows: Sequence[Planned], ran: Ran, context: Context, margin: float, jobs: int | None
) -> SweepTable:
    """Compare the rows of one task with the one that validation chooses."""
    done = [row for row in rows if all(key in ran.runs for key in row.keys)]
    if not done:
        raise next(ran.failed[key] for row in rows for key in row.keys if key in ran.failed)
    runs = [tuple(ran.runs[key] for key in row.keys) for row in done]
    entries = [
        Entry(
            results=tuple(run.result for run in some),
            segs=row.segs,
            aggregations=row.aggregations,
        )
        for row, some in zip(done, runs, strict=True)
    ]
    reference = choose_reference(entries)
    found = judged(
        list(zip(runs, (row.keys for row in done), strict=True)),
        reference,
        path=context.layout.results_db,
        memory=context.layout.comparisons,
        jobs=jobs,
    )
    scores, comparisons = zip(*found, strict=True)
    return SweepTable(
        task=task,
        verdicts=tuple(judge(entries, scores, comparisons, reference, margin=margin)),
        runs=tuple(runs),
        margin=margin,
    )


def _in_words(row: Planned, place: int) -> str:
    cell = row.cells[place]
    derive, shots = cell.source.derive, cell.shots
    return (
        f"{row.task}: seg {' = '.join(row.segs)}, {' = '.join(row.aggregations)}"
        + (f" of {derive:g} s derived" if derive else "")
        + f", {cell.probe}"
        + (f" {shots}-shot" if shots else "")
        + f", layer {cell.layer}, seed {cell.seed}"
    )
