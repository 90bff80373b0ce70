"""``tune cache export`` and ``tune cache import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli.options import SOME_FAILED, AsJson, CacheDir, DataRoot, Outside

__all__ = ["register"]

FormatName = Annotated[
    str | None, typer.Option(help="hdf5, npz or parquet; by suffix or content.", show_default=False)
]


def register(caches: typer.Typer) -> None:
    """Add the two commands to ``tune cache``."""
    caches.command("export")(export)
    caches.command("import")(import_)


def export(
    store: Annotated[str, typer.Argument(help="A path, or the beginning of a store's name.")],
    out: Annotated[Path, typer.Option(help="The file to write.", show_default=False)],
    format: FormatName = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Write a store into one file, for other programs and machines."""
    from tune_cache.commands.exchange import export_store
    from tune_cache.commands.show_exchange import exported

    found = export_store(store, out, format=format, force=force, cache_dir=cache_dir)
    typer.echo(exported(found, as_json=json))


def import_(
    path: Annotated[Path, typer.Argument(help="An exported file, a store, a folder of vectors.")],
    format: FormatName = None,
    encoder_name: Annotated[
        str | None, typer.Option(help="Folder: what made the vectors.", show_default=False)
    ] = None,
    seg: Annotated[
        str | None,
        typer.Option(metavar="SECONDS|full", help="Folder: segment length.", show_default=False),
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="Folder: from start to start; --seg.", show_default=False)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Folder: f2 or f4; what files need.", show_default=False)
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(help="Folder: track ids by path, or by manifest.", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Folder: whose tracks these are (--ids manifest).", show_default=False),
    ] = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Bring an exported store, or a folder with a .npy or .pt a track, into the cache."""
    from tune_cache.commands.exchange import import_store
    from tune_cache.commands.show_exchange import imported

    found = import_store(
        path,
        format=format,
        encoder_name=encoder_name,
        seg=seg,
        hop=hop,
        dtype=dtype,
        ids=ids,
        dataset=dataset,
        data_root=data_root,
        allow_outside_root=allow_outside_root,
        cache_dir=cache_dir,
    )
    typer.echo(imported(found, as_json=json))
    if found.failed:
        raise typer.Exit(SOME_FAILED)
