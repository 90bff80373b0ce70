"""``tune extract``, ``estimate``, ``probe`` and others: options in, one public function each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli.advice import recommend
from tune_cache.cli.options import (
    SOME_FAILED,
    AsJson,
    CacheDir,
    DataRoot,
    DatasetArgument,
    EncoderName,
    Format,
    Outside,
    Protocol,
    Segments,
    Tail,
    TaskNames,
    lengths,
)
from tune_cache.cli.probe import probe

__all__ = ["register"]

EncoderPath = Annotated[
    Path | None, typer.Option(help="Local folder of weights.", show_default=False)
]
Hop = Annotated[
    float | None, typer.Option(help="Seconds from start to start; the length by default.")
]
TailPolicy = Annotated[Tail | None, typer.Option(help="Shorter last segment: keep, drop or pad.")]
MinTail = Annotated[float | None, typer.Option(help="Shortest tail kept; max(1 s, 0.1 × length).")]
Layers = Annotated[str | None, typer.Option(metavar="all|6|0,6,12", help="Layers to keep; all.")]
Poolings = Annotated[str | None, typer.Option(help="Frame poolings: mean,max,std; mean.")]
Precision = Annotated[
    str | None, typer.Option(metavar="fp32|tf32|bf16|fp16", help="Of the computation; fp32.")
]
StoredType = Annotated[str | None, typer.Option(metavar="f2|f4", help="Stored type; f2.")]
Channels = Annotated[str | None, typer.Option(metavar="mix|first", help="Stereo to mono; mix.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")]
BatchSize = Annotated[
    str | None, typer.Option(help="Segments at a time, at most; auto: what fits and is worth it.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(help="Of the encoder above its weights, on its device, as 4GB; else refused."),
]
Workers = Annotated[int | None, typer.Option(help="Decoding processes; 0: one a core.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (extract, estimate, probe, report, recommend, demo):
        app.command()(verb)


def extract(
    dataset: DatasetArgument = None,
    seg: Segments = None,
    encoder: EncoderName = None,
    encoder_path: EncoderPath = None,
    hop: Hop = None,
    tail: TailPolicy = None,
    min_tail: MinTail = None,
    layers: Layers = None,
    pool: Poolings = None,
    precision: Precision = None,
    dtype: StoredType = None,
    channels: Channels = None,
    device: Device = None,
    batch_size: BatchSize = None,
    max_memory: MaxMemory = None,
    workers: Workers = None,
    part: Annotated[str | None, typer.Option(metavar="I/N", help="A share of the work.")] = None,
    protocol: Protocol = None,
    rehash: Annotated[bool, typer.Option(help="Read every audio file again.")] = False,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Encode a dataset once with the frozen encoder (stage one)."""
    from tune_cache.commands.extract import extract as run
    from tune_cache.commands.show import extract_report, started
    from tune_cache.commands.terminal import ExtractProgress

    with ExtractProgress() as progress:
        found = run(
            dataset,
            seg=lengths(seg),
            encoder=encoder,
            encoder_path=encoder_path,
            hop=hop,
            tail=tail.value if tail else None,
            min_tail=min_tail,
            layers=layers,
            pool=pool,
            precision=precision,
            dtype=dtype,
            channels=channels,  # type: ignore[arg-type]  # checked by the verb
            device=device,
            batch_size=batch_size,
            max_memory=max_memory,
            workers=workers,
            part=part,
            protocol=protocol,
            rehash=rehash,
            data_root=data_root,
            cache_dir=cache_dir,
            allow_outside_root=allow_outside_root,
            on_progress=progress,
            on_start=started,
        )
    typer.echo(extract_report(found, as_json=json))
    if found.failed:
        raise typer.Exit(SOME_FAILED)


def estimate(
    dataset: DatasetArgument = None,
    seg: Segments = None,
    encoder: EncoderName = None,
    encoder_path: EncoderPath = None,
    hop: Hop = None,
    tail: TailPolicy = None,
    min_tail: MinTail = None,
    layers: Layers = None,
    pool: Poolings = None,
    precision: Precision = None,
    dtype: StoredType = None,
    channels: Channels = None,
    device: Device = None,
    batch_size: BatchSize = None,
    max_memory: MaxMemory = None,
    workers: Workers = None,
    assume_xrt: Annotated[
        float | None,
        typer.Option(help="Speed, × real time, of a device that is not here; loads nothing."),
    ] = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Say what extract would take: time, memory above the weights, disk."""
    from tune_cache.commands.estimate import estimate as run
    from tune_cache.commands.show import started
    from tune_cache.commands.show_estimate import estimate_report

    found = run(
        dataset,
        seg=lengths(seg),
        encoder=encoder,
        encoder_path=encoder_path,
        hop=hop,
        tail=tail.value if tail else None,
        min_tail=min_tail,
        layers=layers,
        pool=pool,
        precision=precision,
        dtype=dtype,
        channels=channels,  # type: ignore[arg-type]  # checked by the verb
        device=device,
        batch_size=batch_size,
        max_memory=max_memory,
        workers=workers,
        assume_xrt=assume_xrt,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
        on_start=started,
    )
    typer.echo(estimate_report(found, as_json=json))


def report(
    dataset: DatasetArgument = None,
    task: TaskNames = None,
    encoder: EncoderName = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format.text,
    every: Annotated[bool, typer.Option("--all", help="Results of every dataset.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page for the browser.", show_default=False),
    ] = None,
    attention: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What --attention-out wrote: shown on the page's map.",
            show_default=False,
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Draw figures into a folder.", show_default=False),
    ] = None,
    figure_format: Annotated[
        list[str] | None, typer.Option(metavar="svg|pdf|png", help="svg; repeatable.")
    ] = None,
    figure_width: Annotated[float | None, typer.Option(help="Inches; 3.4, a column.")] = None,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Show the newest result of each configuration."""
    from tune_cache.commands.report import report as run
    from tune_cache.commands.show_report import report_tables, written

    form = "json" if json else format.value
    found = run(
        dataset,
        task=task or (),
        encoder=encoder,
        every=every,
        html=html,
        attention=attention,
        judge=form != "text",
        figures=figures,
        figure_format=figure_format or (),
        figure_width=figure_width,
        cache_dir=cache_dir,
    )
    typer.echo(report_tables(found, form=form))
    written(found)


def demo(cache_dir: CacheDir = None, json: AsJson = False) -> None:
    """Compose a small dataset, encode and probe it: the whole tool in two minutes."""
    from tune_cache.commands.demo import demo as run
    from tune_cache.commands.show import demo_report, started
    from tune_cache.commands.terminal import ExtractProgress, render_progress

    with ExtractProgress() as progress:
        found = run(
            cache_dir=cache_dir,
            on_progress=progress,
            on_start=started,
            on_render=render_progress,
        )
    typer.echo(demo_report(found, as_json=json))
