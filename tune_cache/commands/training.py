"""Settings of trained aggregations, and the other collection that they may learn from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cache.aggregation.registry import TRAINED, make_aggregation
from tune_cache.cache.store import Store
from tune_cache.commands.context import Context
from tune_cache.commands.probe_stores import stores_to_probe
from tune_cache.datasets.base import Dataset
from tune_cache.errors import StoreMismatchError, TaskError, UsageError
from tune_cache.probes.unlabelled import Training, UnlabelledStore
from tune_cache.reports.csv_cells import csv_name, name_of
from tune_cache.reports.results import SavedRun

__all__ = ["AskedTraining", "read_weights", "training_of", "write_weights"]

HEADER = ("dataset", "task", "seg", "layer", "seed", "track_id", "segment", "weight")
SETTINGS = ("pretrain_epochs", "finetune", "positions", "readout")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTraining:
    """What was asked for.

    Parameters
    ----------
    options
        Of aggregations, those that were given.
    pretrain_on
        Another dataset's name.
    aggregator
        Exactly these weights.
    """

    context: Context
    dataset: Dataset
    options: Mapping[str, Any]
    pretrain_on: str | None
    aggregator: Path | None
    device: str
    sources: dict[Path, UnlabelledStore] = field(default_factory=dict)

    def of(self, aggregation: str, stores: Sequence[Store]) -> Training:
        """What an aggregation of some stores is trained with."""
        wanted = aggregation == "transformer" and self.pretrain_on is not None
        return Training(
            folder=self.context.layout.aggregators,
            exactly=self.aggregator,
            source=self._source(stores[0]) if wanted else None,
            device=self.device,
        )

    def _source(self, store: Store) -> UnlabelledStore:
        """The other collection in the encoding of a store.

        Raises
        ------
        StoreNotFoundError, StoreAmbiguousError
            If it has no store of this length.
        StoreMismatchError
            If its store is of another encoding.
        """
        assert self.pretrain_on is not None
        if store.path in self.sources:
            return self.sources[store.path]
        other = self.context.dataset(self.pretrain_on)
        seconds = store.spec.segments.length_seconds
        (found,), _ = stores_to_probe(
            self.context,
            other,
            given=self.pretrain_on,
            seg=["full" if seconds is None else seconds],
            encoder=store.spec.encoder.name,
            store=None,
        )
        if found.spec.key != store.spec.key:
            raise StoreMismatchError(
                f"store {found.name!r} of {other.name!r} is of another encoding than"
                f" {store.name!r}",
                hint="extract both with the same settings; `tune cache diff` tells them apart",
            )
        chosen = UnlabelledStore.of(other, found, self.dataset, store)
        if not chosen.track_ids:
            raise TaskError(
                f"every track of {other.name!r} is held out in {self.dataset.name!r}",
                hint="pre-train on a collection of other tracks",
            )
        self.sources[store.path] = chosen
        return chosen


def training_of(
    context: Context,
    dataset: Dataset,
    aggregations: Sequence[str],
    *,
    aggregator: Path | None = None,
    device: str | None = None,
    pretrain_on: str | None = None,
    **given: Any,
) -> AskedTraining:
    """Collect settings of training; one that no aggregation takes is an error.

    Raises
    ------
    UsageError
        If a setting was given that nothing asked for has.
    """
    options = {name: context.setting(name, given.get(name)) for name in SETTINGS}
    asked = {name: value for name, value in given.items() if value is not None}
    takes = {
        name: set(make_aggregation(name).get_params()) for name in aggregations if name in TRAINED
    }
    wanted = set(asked) | ({"finetune"} if pretrain_on else set())
    for name in sorted(wanted):
        if not any(name in params for params in takes.values()):
            flag = "--pretrain-on" if name not in asked else "--" + name.replace("_", "-")
            raise UsageError(
                f"{flag} is of no aggregation asked for ({', '.join(aggregations)})",
                hint="add --agg transformer"
                + (" or attention" if name == "positions" else "")
                + f", or leave out {flag}",
            )
    return AskedTraining(
        context=context,
        dataset=dataset,
        options={name: value for name, value in options.items() if value is not None},
        pretrain_on=context.setting("pretrain_on", pretrain_on),
        aggregator=aggregator,
        device=context.setting("device", device, "auto"),
    )


def write_weights(path: Path, runs: Iterable[SavedRun]) -> int:
    """Write the weights of segments as CSV, one row a segment; return how many.

    Names are written so that no spreadsheet runs them, and read back as they were.

    Raises
    ------
    UsageError
        If no run has any, or the file cannot be written.
    """
    rows = [
        (
            csv_name(run.context.dataset),
            csv_name(run.result.task),
            csv_name(run.context.seg),
            csv_name(run.result.layer),
            run.result.seed,
            csv_name(track_id),
            segment,
            f"{weight:.6g}",
        )
        for run in runs
        for track_id, weights in run.result.segment_weights.items()
        for segment, weight in enumerate(weights)
    ]
    if not rows:
        raise UsageError(
            "no result has weights of segments", hint="--attention-out is for --agg attention"
        )
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEADER, *rows])
    except OSError as error:
        raise UsageError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="choose another file",
        ) from error
    return len(rows)


def read_weights(path: Path) -> dict[tuple[str, str, str], dict[str, list[float]]]:
    """Read what :func:`write_weights` wrote.

    Returns
    -------
    by dataset, task and segment length: the weights of each track, of the first layer
    and seed that the file has of them

    Raises
    ------
    UsageError
        If it is another file.
    """
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    first: dict[tuple[str, str, str], tuple[str, str]] = {}
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != HEADER:
                raise UsageError(
                    f"{str(path)!r} has no weights of segments",
                    hint="`tune probe --agg attention --attention-out FILE` writes them",
                )
            for dataset, task, seg, layer, seed, track_id, segment, weight in rows:
                place = name_of(dataset), name_of(task), name_of(seg)
                if first.setdefault(place, (layer, seed)) == (layer, seed):
                    weights = found.setdefault(place, {}).setdefault(name_of(track_id), [])
                    if int(segment) == len(weights):
                        weights.append(float(weight))
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"weights {str(path)!r} cannot be read: {error}",
            hint="`tune probe --agg attention --attention-out FILE` writes them",
        ) from error
    return found
