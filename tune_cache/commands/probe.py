"""``tune probe``: fit light probes on stored vectors, choose on validation, score on test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.commands.context import Length, lengths, open_context, several
from tune_cache.commands.probe_protocol import probe_by_protocol
from tune_cache.commands.probe_settings import aggregation_options, on_leaks
from tune_cache.commands.probe_stores import context_of, saved_run, stores_to_probe
from tune_cache.commands.protocol import chosen_protocol
from tune_cache.commands.training import training_of, write_weights
from tune_cache.datasets.base import Dataset
from tune_cache.errors import TaskError
from tune_cache.probes.evaluate import N_REPEATS
from tune_cache.probes.mlp import mlp_options
from tune_cache.probes.models import is_trained
from tune_cache.probes.sources import Loader, refuse_derived, sources
from tune_cache.probes.sweep import Cell, Evaluator
from tune_cache.reports.results import SavedRun

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
    fill: str | None = None,
    pretrain_epochs: int | None = None,
    pretrain_on: str | None = None,
    finetune: bool = False,
    positions: str | None = None,
    readout: str | None = None,
    aggregator: Path | None = None,
    attention_out: Path | None = None,
    derive: float | Sequence[float] = (),
    shots: int | Sequence[int] = (),
    repeats: int | None = None,
    checkpoint: str | None = None,
    device: str | None = None,
    protocol: str | None = None,
    strict: bool = False,
    drop_leaks: bool = False,
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
        Aggregations of segments to tracks; ``mean`` if empty. ``multiscale-…``
        takes all segment lengths at once, the others each length by itself.
    layer
        Indices, ``last``, ``mean``, ``mix`` (learnt weights), ``best`` or ``all``;
        ``best`` if empty.
    probe
        ``auto``, one of :data:`~tune_cache.probes.models.PROBES`, or a
        scikit-learn estimator by its dotted path.
    seg
        Segment lengths; every length that a store at hand has if empty.
    encoder
        The dataset's own if None, or the only one that has stores.
    store
        Exactly this store.
    max_segments, fill
        Segments that concat keeps of each track, and how it fills up those that
        have fewer: ``draw``, ``mean`` or ``zero``.
    pretrain_epochs, pretrain_on, finetune, positions, readout
        Of a transformer: passes of masked modelling (1 if None), another dataset to
        make them over, training together with a head, ``learned`` or ``sinusoidal``
        or no positions (of attention too), and ``cls`` or ``mean``.
    aggregator
        Exactly these trained weights; nothing is trained.
    attention_out
        CSV file for the weights that attention gives segments.
    device
        Where training runs: ``auto``, ``cpu`` or ``cuda``.
    derive
        Lengths in seconds: runs of shorter segments are averaged to segments of
        this length, a row of its own beside the stored one.
    shots, repeats
        Learn from so many tracks a class, drawn so many times (10 if None).
    checkpoint
        Epoch of ``mlp`` that is kept: ``best-val`` (if None) or ``last``.
    protocol
        ``marble-v2`` trains as MARBLE's profile of each task says, on slices that
        ``tune extract --protocol marble-v2`` made; of the flags above it leaves ``task``,
        ``layer``, ``seed``, ``checkpoint`` and ``device``. ``tune`` if None.
    strict, drop_leaks
        Where tracks of one group or file, or near-duplicates, are in two splits:
        refuse, or leave out those in the split that is learnt from. Neither: say so.
    on_start, on_result
        Called once before the work, and with each finished run.

    Raises
    ------
    StoreNotFoundError, StoreAmbiguousError
        If no store serves, or several encodings do.
    TaskError
        If labels or splits cannot support the probe, or under ``strict`` leak.
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
    follows = chosen_protocol(
        context,
        protocol,
        agg=several(agg),
        probe=several(probe),
        seg=several(seg),
        derive=several(derive),
        shots=several(shots),
        repeats=repeats,
        max_segments=max_segments,
        fill=fill,
    )
    leaks = on_leaks(choose, strict=strict, drop_leaks=drop_leaks)
    if follows:
        runs, warnings = probe_by_protocol(
            context,
            loaded,
            tasks,
            given=loaded.name if dataset is None else os.fspath(dataset),
            layer=several(layer),
            seed=several(seed),
            checkpoint=choose("checkpoint", checkpoint),
            device=choose("device", device),
            encoder=encoder,
            store=store,
            leaks=leaks,
            on_result=on_result,
        )
        return ProbeReport(dataset=loaded, runs=tuple(runs), warnings=tuple(warnings))
    aggregations = choose("agg", several(agg), ("mean",))
    of_concat = {
        "max_segments": choose("max_segments", max_segments),
        "fill": choose("fill", fill),
    }
    training = training_of(
        context,
        loaded,
        aggregations,
        aggregator=aggregator,
        device=device,
        pretrain_on=pretrain_on,
        pretrain_epochs=pretrain_epochs,
        finetune=finetune or None,
        positions=positions,
        readout=readout,
    )
    options = aggregation_options(aggregations, {**of_concat, **training.options})
    derives = choose("derive", several(derive), ())
    stores, warnings = stores_to_probe(
        context,
        loaded,
        given=loaded.name if dataset is None else os.fspath(dataset),
        seg=lengths(choose("seg", several(seg), ())),
        encoder=encoder,
        store=store,
    )
    refuse_derived(stores, derives)
    cells = list(
        itertools.product(
            choose("probe", several(probe), ("auto",)),
            choose("layer", several(layer), ("best",)),
            choose("shots", several(shots), (None,)),
        )
    )
    seeds = choose("seed", several(seed), (1234,))
    trained = {"checkpoint": choose("checkpoint", checkpoint), "device": choose("device", device)}
    mlp_options(trained)  # a mistake is one whatever is probed
    draws = choose("repeats", repeats, N_REPEATS)
    loader = Loader(loaded, stores)
    evaluate = Evaluator(loaded, loader=loader)
    found = (
        (source, name)
        for one in tasks
        for source, names in sources(
            loader,
            one,
            stores,
            tuple(aggregations),
            derive=derives,
            on_leaks=leaks,
        )
        for name in names
    )
    runs = []
    for source, aggregation in found:
        where = context_of(loaded, loader.stores(source))
        for model, policy, few in cells:
            results = evaluate(
                [
                    Cell(
                        source=source,
                        aggregation=aggregation,
                        aggregation_options=options[aggregation],
                        probe=model,
                        probe_options=trained if is_trained(model) else {},
                        layer=str(policy),
                        seed=number,
                        shots=few,
                        repeats=draws,
                        training=training.of(aggregation, loader.stores(source)),
                    )
                    for number in seeds
                ]
            )
            for result in results:
                run, problem = saved_run(context.layout.results_db, result, where)
                warnings += [problem] if problem and problem not in warnings else []
                runs.append(run)
                if on_result is not None:
                    on_result(run)
    if attention_out is not None:
        write_weights(attention_out, runs)
    return ProbeReport(dataset=loaded, runs=tuple(runs), warnings=tuple(warnings))
