"""``tune sweep`` and ``tune compare``: options in, one public function each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli.options import (
    SOME_FAILED,
    AsJson,
    CacheDir,
    Checkpoint,
    DataRoot,
    DatasetArgument,
    Derive,
    DropLeaks,
    EncoderName,
    Fill,
    Finetune,
    MaxSegments,
    Outside,
    Positions,
    PretrainEpochs,
    PretrainOn,
    ReadOut,
    Repeats,
    Segments,
    Shots,
    Strict,
    TaskNames,
    lengths,
)

__all__ = ["register"]

Margin = Annotated[
    float | None,
    typer.Option(help="Largest loss that does not matter; 0.02.", show_default=False),
]
Aggregations = Annotated[
    list[str] | None, typer.Option(help="Aggregation; repeatable.", show_default=False)
]
Layers = Annotated[
    list[str] | None,
    typer.Option(metavar="N|last|mean|mix|best|all", help="Layer; repeatable.", show_default=False),
]
Probes = Annotated[list[str] | None, typer.Option(help="Probe; repeatable.", show_default=False)]
Seeds = Annotated[list[int] | None, typer.Option(help="Seed; repeatable.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (sweep, compare):
        app.command()(verb)


def sweep(
    dataset: DatasetArgument = None,
    preset: Annotated[
        str | None, typer.Option(metavar="tune-paper", help="A named grid; flags win over it.")
    ] = None,
    seg: Segments = None,
    agg: Aggregations = None,
    layer: Layers = None,
    probe: Probes = None,
    seed: Seeds = None,
    task: TaskNames = None,
    encoder: EncoderName = None,
    encoder_path: Annotated[
        Path | None, typer.Option(help="Local folder of weights.", show_default=False)
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1.")] = None,
    extract_missing: Annotated[
        bool, typer.Option("--extract-missing", help="Make the stores that are missing.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(help="Processes; by the number of cells.", show_default=False)
    ] = None,
    margin: Margin = None,
    max_segments: MaxSegments = None,
    fill: Fill = None,
    pretrain_epochs: PretrainEpochs = None,
    pretrain_on: PretrainOn = None,
    finetune: Finetune = False,
    positions: Positions = None,
    readout: ReadOut = None,
    derive: Derive = None,
    shots: Shots = None,
    repeats: Repeats = None,
    strict: Strict = False,
    drop_leaks: DropLeaks = False,
    checkpoint: Checkpoint = None,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Probe a grid of settings; say which cells are as good as the best."""
    from tune_cache.commands.show import started
    from tune_cache.commands.show_sweep import CellProgress, missing, sweep_report
    from tune_cache.commands.sweep import sweep as run
    from tune_cache.commands.terminal import ExtractProgress

    with ExtractProgress() as progress:
        found = run(
            dataset,
            preset=preset,
            task=task or (),
            seg=lengths(seg),
            agg=agg or (),
            layer=layer or (),
            probe=probe or (),
            seed=seed or (),
            encoder=encoder,
            encoder_path=encoder_path,
            device=device,
            extract_missing=extract_missing,
            jobs=jobs,
            margin=margin,
            max_segments=max_segments,
            fill=fill,
            pretrain_epochs=pretrain_epochs,
            pretrain_on=pretrain_on,
            finetune=finetune,
            positions=positions,
            readout=readout,
            derive=derive or (),
            shots=shots or (),
            repeats=repeats,
            strict=strict,
            drop_leaks=drop_leaks,
            checkpoint=checkpoint,
            data_root=data_root,
            cache_dir=cache_dir,
            allow_outside_root=allow_outside_root,
            on_start=started,
            on_missing=missing,
            on_progress=progress,
            on_cell=CellProgress(),
        )
    typer.echo(sweep_report(found, as_json=json))
    if found.failed:
        raise typer.Exit(SOME_FAILED)


def compare(
    dataset: DatasetArgument = None,
    run: Annotated[
        list[int] | None, typer.Option(help="Number of a run; two of them.", show_default=False)
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Encoder; once or twice.", show_default=False)
    ] = None,
    seg: Annotated[
        list[str] | None,
        typer.Option(metavar="SECONDS|full", help="Once or twice.", show_default=False),
    ] = None,
    agg: Aggregations = None,
    layer: Layers = None,
    probe: Probes = None,
    seed: Seeds = None,
    task: TaskNames = None,
    margin: Margin = None,
    tracks: Annotated[int, typer.Option(help="Tracks to list that differ.", min=0)] = 10,
    cache_dir: CacheDir = None,
    json: AsJson = False,
) -> None:
    """Compare two result sets on common tracks: the setting given twice, or two runs."""
    from tune_cache.commands.compare import compare as run_it
    from tune_cache.commands.show_sweep import compare_report

    found = run_it(
        dataset,
        run=run or (),
        encoder=encoder or (),
        seg=lengths(seg),
        agg=agg or (),
        layer=layer or (),
        probe=probe or (),
        seed=seed or (),
        task=task or (),
        margin=margin,
        cache_dir=cache_dir,
    )
    typer.echo(compare_report(found, as_json=json, n_tracks=tracks))
