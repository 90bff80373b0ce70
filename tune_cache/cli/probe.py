"""``tune probe``: options in, one public function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tune_cache.cli.options import (
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
    Protocol,
    ReadOut,
    Repeats,
    Segments,
    Shots,
    Strict,
    TaskNames,
    lengths,
)

__all__ = ["probe"]

AGGREGATIONS = (
    "mean, mean-duration, median, max, min, std, first, middle, joined by + as mean+std; concat; "
    "multiscale-mean, multiscale-concat over all --seg; trained: transformer, attention; "
    "repeatable."
)
PROBES = (
    "auto, logistic, ridge, svm, knn, centroid, mlp, or a scikit-learn estimator as "
    "'sklearn.svm.SVC(C={0.1, 1})'; trained with an aggregation or mix: linear (auto), mlp; "
    "repeatable."
)


def probe(
    dataset: DatasetArgument = None,
    agg: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=AGGREGATIONS, show_default=False)
    ] = None,
    task: TaskNames = None,
    layer: Annotated[
        list[str] | None, typer.Option(metavar="N|last|mean|mix|best|all", help="best; repeatable.")
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=PROBES, show_default=False)
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="1234; repeatable.")] = None,
    seg: Segments = None,
    derive: Derive = None,
    shots: Shots = None,
    repeats: Repeats = None,
    checkpoint: Checkpoint = None,
    protocol: Protocol = None,
    encoder: EncoderName = None,
    store: Annotated[
        Path | None, typer.Option(help="Exactly this store.", show_default=False)
    ] = None,
    max_segments: MaxSegments = None,
    fill: Fill = None,
    pretrain_epochs: PretrainEpochs = None,
    pretrain_on: PretrainOn = None,
    finetune: Finetune = False,
    positions: Positions = None,
    readout: ReadOut = None,
    aggregator: Annotated[
        Path | None,
        typer.Option(help="Exactly these trained weights, or an error.", show_default=False),
    ] = None,
    attention_out: Annotated[
        Path | None,
        typer.Option(help="CSV of the weights attention gives segments.", show_default=False),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where aggregations and mlp are trained: auto, cpu, cuda.", show_default=False
        ),
    ] = None,
    strict: Strict = False,
    drop_leaks: DropLeaks = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Print the confusion matrix of each row too.")
    ] = False,
    data_root: DataRoot = None,
    cache_dir: CacheDir = None,
    allow_outside_root: Outside = False,
    json: AsJson = False,
) -> None:
    """Fit light probes on stored vectors (stage two)."""
    from tune_cache.commands.probe import probe as run
    from tune_cache.commands.show import results, started, warn
    from tune_cache.commands.show_probe import confusions, grids, trainings
    from tune_cache.commands.terminal import say

    found = run(
        dataset,
        agg=agg or (),
        task=task or (),
        layer=layer or (),
        probe=probe or (),
        seed=seed or (),
        seg=lengths(seg),
        derive=derive or (),
        shots=shots or (),
        repeats=repeats,
        checkpoint=checkpoint,
        protocol=protocol,
        encoder=encoder,
        store=store,
        max_segments=max_segments,
        fill=fill,
        pretrain_epochs=pretrain_epochs,
        pretrain_on=pretrain_on,
        finetune=finetune,
        positions=positions,
        readout=readout,
        aggregator=aggregator,
        attention_out=attention_out,
        device=device,
        strict=strict,
        drop_leaks=drop_leaks,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_outside_root=allow_outside_root,
        on_start=started,
    )
    warn(found.warnings)
    for line in [*grids(found.runs), *trainings(found.runs)]:
        say(line)
    text = results(
        found.runs,
        form="json" if json else "text",
        command="probe",
        dataset=found.dataset.name,
        warnings=found.warnings,
    )
    typer.echo(text)
    if confusion and not json:
        typer.echo(confusions(found.runs))
