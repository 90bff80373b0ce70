"""``tune probe --protocol marble-v2``: each task by its profile, on slices, averaged by file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tune_cache.aggregation.registry import SLICES
from tune_cache.commands.context import Context
from tune_cache.commands.probe_stores import context_of, saved_run, stores_to_probe
from tune_cache.datasets.base import Dataset, Task
from tune_cache.datasets.protocols import profile_of
from tune_cache.errors import TaskError
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.marble import marble_options, marble_warnings
from tune_cache.probes.sources import Loader, OnLeaks, sources
from tune_cache.reports.results import SavedRun

__all__ = ["probe_by_protocol"]


def probe_by_protocol(
    context: Context,
    dataset: Dataset,
    tasks: Sequence[Task],
    *,
    given: str,
    layer: Sequence[str | int],
    seed: Sequence[int],
    checkpoint: str | None,
    device: str | None,
    encoder: str | None,
    store: Path | None,
    leaks: OnLeaks,
    on_result: Callable[[SavedRun], None] | None,
) -> tuple[list[SavedRun], list[str]]:
    """Train and score every task as its profile says.

    Parameters
    ----------
    given
        How the dataset was named, for hints.
    layer, seed
        In place of the profile's, which are taken if empty; another layer is said.

    Returns
    -------
    runs as saved, and what the user should know about stores and saving

    Raises
    ------
    TaskError
        If the store lacks the profile's layer and no other is asked for.
    """
    runs: list[SavedRun] = []
    warnings: list[str] = []
    profiles = [profile_of(dataset, task) for task in tasks]  # a mistake in one costs nothing
    for task, profile in zip(tasks, profiles, strict=True):
        (found,), said = stores_to_probe(
            context,
            dataset,
            given=given,
            seg=(),
            encoder=encoder,
            store=store,
            profiles=(profile,),
        )
        warnings += [text for text in said if text not in warnings]
        loader = Loader(dataset, [found])
        ((source, _),) = sources(loader, task, [found], [SLICES], on_leaks=leaks)
        data, features = loader.load(source)
        if not layer and profile.layer != "mix" and int(profile.layer) not in features.layers:
            raise TaskError(
                f"profile {profile.name} takes layer {profile.layer}, and store {found.name!r} "
                f"keeps {list(features.layers)}",
                hint="choose one of these with --layer, which every row will say, or extract again "
                "with --layers all",
            )
        for policy in map(str, layer or (profile.layer,)):
            for result in run_probe(
                features,
                data,
                aggregation=SLICES,
                probe="mlp",
                probe_options=marble_options(profile, task, checkpoint=checkpoint, device=device),
                probe_label=f"mlp marble-v2 {profile.name}{' last' * (checkpoint == 'last')}",
                layer=policy,
                seed=seed or (profile.seed,),
            ):
                warned = (*result.warnings, *source.leaks, *marble_warnings(profile, task, policy))
                run, problem = saved_run(
                    context.layout.results_db,
                    dataclasses.replace(result, warnings=warned),
                    context_of(dataset, (found,)),
                )
                warnings += [problem] if problem and problem not in warnings else []
                runs.append(run)
                if on_result is not None:
                    on_result(run)
    return runs, warnings
