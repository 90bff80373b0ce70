"""Options that several verbs share, and the exit codes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

DONE, FAILED, USAGE, SOME_FAILED, DAMAGED, INTERRUPTED = 0, 1, 2, 3, 4, 130


class Tail(StrEnum):
    """Values of --tail."""

    keep = "keep"
    drop = "drop"
    pad = "pad"


class Format(StrEnum):
    """Values of --format."""

    text = "text"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


DatasetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATASET]",
        help="A name from tune.toml, dir/NAME for dir/NAME.{train,val,test}.jsonl, a folder "
        "or a .jsonl; otherwise the configured dataset, else the built-in demo.",
        show_default=False,
    ),
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where relative audio paths start.", show_default=False)
]
CacheDir = Annotated[
    Path | None, typer.Option(help="Cache folder (or TUNE_CACHE_DIR).", show_default=False)
]
Outside = Annotated[
    bool, typer.Option("--allow-outside-root", help="Take audio outside the data root.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
EncoderName = Annotated[
    str | None, typer.Option(help="muq, muq-nano, mel or a plugin's.", show_default=False)
]
Segments = Annotated[
    list[str] | None,
    typer.Option(metavar="SECONDS|full", help="Segment length; repeatable.", show_default=False),
]
Checkpoint = Annotated[
    str | None, typer.Option(metavar="best-val|last", help="Epoch of mlp that is kept; best-val.")
]
Protocol = Annotated[
    str | None,
    typer.Option(metavar="tune|marble-v2", help="Whose cutting and training to follow; tune."),
]
TaskNames = Annotated[
    list[str] | None, typer.Option(help="Task; repeatable; all by default.", show_default=False)
]
Derive = Annotated[
    list[float] | None,
    typer.Option(
        help="Average shorter segments to this many seconds; repeatable.", show_default=False
    ),
]
Shots = Annotated[
    list[int] | None,
    typer.Option(help="Learn from so many tracks a class; repeatable.", show_default=False),
]
Repeats = Annotated[int | None, typer.Option(help="Draws of --shots; 10.", show_default=False)]
MaxSegments = Annotated[
    int | None,
    typer.Option(
        help="Segments of a track that concat, or what is trained, keeps.", show_default=False
    ),
]
Fill = Annotated[
    str | None,
    typer.Option(
        metavar="draw|mean|zero",
        help="What concat adds to shorter tracks; draw.",
        show_default=False,
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse splits that leak.")]
DropLeaks = Annotated[
    bool, typer.Option("--drop-leaks", help="Learn without tracks that leak into test.")
]
PretrainEpochs = Annotated[
    int | None,
    typer.Option(
        help="Of masked modelling, for transformer; 1; several stop early.",
        min=0,
        show_default=False,
    ),
]
PretrainOn = Annotated[
    str | None,
    typer.Option(
        metavar="DATASET",
        help="Pre-train transformer on another collection's store.",
        show_default=False,
    ),
]
Finetune = Annotated[
    bool, typer.Option("--finetune", help="Train transformer together with the head.")
]
Positions = Annotated[
    str | None,
    typer.Option(
        metavar="learned|sinusoidal|none",
        help="Of transformer (learned), attention (none).",
        show_default=False,
    ),
]
ReadOut = Annotated[
    str | None,
    typer.Option(metavar="cls|mean", help="What transformer gives; cls.", show_default=False),
]


def lengths(texts: list[str] | None) -> list[Any]:
    from tune_cache.segments import parse_seg

    return [parse_seg(text) for text in texts or []]
