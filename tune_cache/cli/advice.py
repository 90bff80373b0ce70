"""``tune recommend``: options in, one public function."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tune_cache.cli.options import AsJson, CacheDir, DatasetArgument, EncoderName, TaskNames

__all__ = ["recommend"]


class Rule(StrEnum):
    """Values of --rule."""

    margin = "margin"
    share = "share"


class Memory(StrEnum):
    """Values of --memory-kind."""

    vram = "vram"
    rss = "rss"


def recommend(
    dataset: DatasetArgument = None,
    task: TaskNames = None,
    encoder: EncoderName = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Peak memory of stage one, weights included, as 4GB."),
    ] = None,
    memory_kind: Annotated[
        Memory | None,
        typer.Option(help="Whose memory, where results have both: a GPU's or a process's."),
    ] = None,
    max_seconds_per_hour: Annotated[
        float | None, typer.Option(help="Seconds of stage one for an hour of audio.")
    ] = None,
    max_bytes: Annotated[str | None, typer.Option(help="Of a store on disk, as 500MB.")] = None,
    rule: Annotated[
        Rule, typer.Option(help="As good: a loss shown to be small, or a share of the best.")
    ] = Rule.margin,
    margin: Annotated[
        float | None,
        typer.Option(help="Largest loss that does not matter; 0.02.", show_default=False),
    ] = None,
    share: Annotated[float, typer.Option(help="Of the best score, for --rule share.")] = 0.98,
    published: Annotated[
        bool, typer.Option("--published", help="From the study's table of EMO or GTZAN.")
    ] = False,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Say which cell to use: the best, the cheapest as good as it, the best in a budget."""
    from tune_cache.commands.recommend import recommend as run
    from tune_cache.commands.show_advice import recommendation

    found = run(
        dataset,
        task=task or (),
        encoder=encoder,
        max_memory=max_memory,
        memory_kind=memory_kind.value if memory_kind else None,
        max_seconds_per_hour=max_seconds_per_hour,
        max_bytes=max_bytes,
        rule=rule.value,
        margin=margin,
        share=share,
        published=published,
        cache_dir=cache_dir,
    )
    typer.echo(recommendation(found, as_json=json))
