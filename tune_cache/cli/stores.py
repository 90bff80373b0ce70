"""``tune cache verify``, ``repair``, ``diff``, ``status``, ``du``, ``rm`` and ``prune``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli.options import (
    DAMAGED,
    FAILED,
    SOME_FAILED,
    AsJson,
    CacheDir,
    DataRoot,
    DatasetArgument,
    EncoderName,
    Outside,
    Segments,
    lengths,
)

__all__ = ["register"]

OneStore = Annotated[str, typer.Argument(help="A path, or the beginning of a store's name.")]
Audio = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Where the audio is; files that stage one has seen by default.",
        show_default=False,
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Local folder of weights.", show_default=False)]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; otherwise only show what would be done.")]


def register(caches: typer.Typer) -> None:
    """Add the commands to ``tune cache``."""
    for verb in (verify, repair, diff, status, du, rm, prune):
        caches.command()(verb)


def verify(
    store: Annotated[
        list[str] | None, typer.Argument(help="Paths, or beginnings of stores' names.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All stores of the cache.")] = False,
    reencode: Annotated[
        int, typer.Option(min=0, help="Encode so many random segments again and compare.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Decides which segments.")] = 1234,
    dataset: Audio = None,
    encoder_path: Weights = None,
    device: Device = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Read every byte of stores; name damaged files and the tracks they hit."""
    from tune_cache.commands.integrity import cache_verify
    from tune_cache.commands.show_caches import verified
    from tune_cache.commands.terminal import ReadingProgress

    found = cache_verify(
        store or (),
        every=every,
        reencode=reencode,
        seed=seed,
        dataset=dataset,
        encoder_path=encoder_path,
        device=device,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
        on_bytes=ReadingProgress(),
    )
    typer.echo(verified(found, as_json=json))
    if not all(item.is_ok for item in found):
        raise typer.Exit(DAMAGED if any(item.is_damaged for item in found) else FAILED)


def repair(
    store: OneStore,
    dataset: Audio = None,
    encoder_path: Weights = None,
    device: Device = None,
    max_memory: Annotated[str | None, typer.Option(help="Above the weights, as 4GB.")] = None,
    workers: Annotated[int | None, typer.Option(help="Decoding processes; 0: one a core.")] = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Replace a damaged store: damaged tracks are encoded again, all others copied."""
    from tune_cache.commands.integrity import cache_repair
    from tune_cache.commands.show_caches import repaired
    from tune_cache.commands.terminal import ExtractProgress, ReadingProgress, say
    from tune_cache.errors import printable

    with ExtractProgress() as progress:
        found = cache_repair(
            store,
            dataset=dataset,
            encoder_path=encoder_path,
            device=device,
            max_memory=max_memory,
            workers=workers,
            data_root=data_root,
            cache_dir=cache_dir,
            allow_outside_root=allow_outside_root,
            on_bytes=ReadingProgress(),
            on_progress=progress,
        )
    typer.echo(repaired(found, as_json=json))
    if found.repair is not None and found.repair.left:
        say(printable(found.repair.left))
    if found.repair is not None and found.repair.failed:
        raise typer.Exit(SOME_FAILED)


def diff(
    left: Annotated[str, typer.Argument(metavar="A", help="A store, by path or name.")],
    right: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Compare two stores: settings, tracks, content, vectors of common tracks."""
    from tune_cache.commands.integrity import cache_diff
    from tune_cache.commands.show_caches import compared

    typer.echo(compared(cache_diff(left, right, cache_dir=cache_dir), as_json=json))


def status(
    dataset: DatasetArgument = None,
    seg: Segments = None,
    encoder: EncoderName = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Say how much of a dataset is in the cache, and what is unfinished."""
    from tune_cache.commands.management import cache_status
    from tune_cache.commands.show_caches import status as shown

    found = cache_status(
        dataset,
        seg=lengths(seg),
        encoder=encoder,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
    )
    typer.echo(shown(found, as_json=json))


def du(cache_dir: CacheDir = None, json: AsJson = False) -> None:
    """Say what takes how much room."""
    from tune_cache.commands.management import cache_du
    from tune_cache.commands.show_caches import usage

    typer.echo(usage(cache_du(cache_dir=cache_dir), as_json=json))


def rm(
    store: Annotated[list[str], typer.Argument(help="Paths, or beginnings of stores' names.")],
    yes: Yes = False,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Remove stores that nobody reads."""
    from tune_cache.commands.management import cache_rm
    from tune_cache.commands.show_caches import removals

    found = cache_rm(store, yes=yes, cache_dir=cache_dir)
    typer.echo(removals(found, command="cache rm", did=yes, as_json=json))
    if any(item.problem for item in found):
        raise typer.Exit(FAILED)


def prune(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Not used for so long, as 30d or 12h.", show_default=False
        ),
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="Stores without results, and not read since made.")
    ] = False,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="What interrupted work has left behind.")
    ] = False,
    yes: Yes = False,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Remove what nobody needs any more, never what somebody uses."""
    from tune_cache.commands.management import cache_prune
    from tune_cache.commands.show_caches import removals

    found = cache_prune(
        older_than=older_than, unused=unused, orphans=orphans, yes=yes, cache_dir=cache_dir
    )
    typer.echo(removals(found, command="cache prune", did=yes, as_json=json))
    if yes and any(item.problem for item in found):
        raise typer.Exit(FAILED)
