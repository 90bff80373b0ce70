"""``tune dataset …`` and ``tune cache …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli import exchange, stores
from tune_cache.cli.options import (
    DAMAGED,
    FAILED,
    AsJson,
    CacheDir,
    DataRoot,
    DatasetArgument,
    Outside,
)

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the groups to the command line."""
    datasets = typer.Typer(help="Make, check and describe datasets.", no_args_is_help=True)
    datasets.command("scan")(scan)
    datasets.command("check")(check)
    datasets.command("ls")(dataset_ls)
    datasets.command("info")(dataset_info)
    caches = typer.Typer(
        help="See, check, mend and clear what lies in the cache.", no_args_is_help=True
    )
    caches.command("ls")(cache_ls)
    caches.command("info")(cache_info)
    stores.register(caches)
    exchange.register(caches)
    app.add_typer(datasets, name="dataset")
    app.add_typer(caches, name="cache")


def scan(
    folder: Annotated[Path, typer.Argument(help="FOLDER/LABEL/… or, with --labels, any tree.")],
    out: Annotated[Path | None, typer.Option(help="Where manifests go; FOLDER.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV: a file column and labels.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="Label column of the CSV; repeatable.")
    ] = None,
    group: Annotated[
        str | None, typer.Option(help="What must not straddle splits: a regex, or column:NAME.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the 60/20/20 split.")] = 1234,
    name: Annotated[str | None, typer.Option(help="The folder's name.")] = None,
    force: Annotated[bool, typer.Option(help="Replace other manifests.")] = False,
    json: AsJson = False,
) -> None:
    """Write train/val/test manifests for a folder of music."""
    from tune_cache.commands.datasets import dataset_scan
    from tune_cache.commands.show import scan_report

    found = dataset_scan(
        folder,
        out=out,
        labels_csv=labels,
        label_columns=column or (),
        group=group,
        seed=seed,
        name=name,
        force=force,
    )
    typer.echo(scan_report(found, as_json=json))


def check(
    dataset: DatasetArgument = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not decode the audio.")] = False,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """List everything that is wrong with a dataset."""
    from tune_cache.commands.datasets import dataset_check
    from tune_cache.commands.show import problems

    found = dataset_check(
        dataset,
        deep=not quick,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
    )
    typer.echo(problems(found, dataset=dataset, as_json=json))
    if any(problem.severity == "error" for problem in found):
        raise typer.Exit(FAILED)


def dataset_ls(cache_dir: CacheDir = None, json: AsJson = False) -> None:
    """List the datasets that have a name here."""
    from tune_cache.commands.datasets import dataset_ls as run
    from tune_cache.commands.show import table

    typer.echo(table(run(cache_dir=cache_dir), command="dataset ls", as_json=json))


def dataset_info(
    dataset: DatasetArgument = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Describe a dataset: tasks, splits, labels, licence."""
    from tune_cache.commands.datasets import dataset_info as run
    from tune_cache.commands.show import describe_dataset

    found = run(
        dataset,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
    )
    typer.echo(describe_dataset(found, as_json=json))


def cache_ls(cache_dir: CacheDir = None, json: AsJson = False) -> None:
    """List the finished stores."""
    from tune_cache.commands.caches import cache_ls as run
    from tune_cache.commands.show import table

    found = run(cache_dir=cache_dir)
    typer.echo(table([item.row() for item in found], command="cache ls", as_json=json))
    if any(item.is_damaged for item in found):
        raise typer.Exit(DAMAGED)


def cache_info(
    name: Annotated[str, typer.Argument(help="A path, or the beginning of a store's name.")],
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Describe a store: what it holds, what made it, what it cost."""
    from tune_cache.commands.caches import cache_info as run
    from tune_cache.commands.show import describe_store

    typer.echo(describe_store(run(name, cache_dir=cache_dir), as_json=json))
