"""What ``tune probe`` says beside its table: grids, confusion matrices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tune_cache.errors import printable
from tune_cache.reports.results import SavedRun
from tune_cache.reports.text import plain_table

__all__ = ["confusions", "grids", "trainings"]


def grids(runs: Iterable[SavedRun]) -> list[str]:
    """Say once what each probe chose from on validation, simplest first."""
    lines = dict.fromkeys(
        f"{run.result.probe.removesuffix(f' {run.result.shots}-shot')} chooses "
        + _grid(run.result.grid)
        for run in runs
        if len(run.result.grid) > 1
    )
    return [printable(line) for line in lines]


def _grid(grid: Sequence[Mapping[str, Any]]) -> str:
    """A grid as the values of each parameter.

    Examples
    --------
    >>> _grid([{"k": 3, "metric": "cosine"}, {"k": 1, "metric": "cosine"}])
    'k in 3, 1; metric in cosine'
    """
    values: dict[str, dict[str, None]] = {}
    for params in grid:
        for name, value in params.items():
            text = f"{value:g}" if isinstance(value, float) else str(value)
            values.setdefault(name, {})[text] = None
    return "; ".join(f"{name} in {', '.join(found)}" for name, found in values.items())


def trainings(runs: Iterable[SavedRun]) -> list[str]:
    """Say once what the training of each aggregation or layer mix did."""
    lines: dict[str, None] = {}
    for run in runs:
        result = run.result
        if result.trained:
            place = f"{result.aggregation}, seg {run.context.seg}, layer {result.layer}"
            lines[f"{place}, seed {result.seed}: {trained_text(result.trained)}"] = None
    return [printable(line) for line in lines]


def trained_text(facts: Mapping[str, Any]) -> str:
    """Steps of a training in words.

    Examples
    --------
    >>> print(trained_text({"pretraining": {"steps": 8, "epochs": 1, "tracks": 4, "heads": 8}}))
    pre-trained by 8 steps (1 epoch, 4 tracks, 8 heads)
    """
    parts = []
    before = facts.get("pretraining")
    if before:
        parts.append(f"pre-trained by {_steps(before)}")
    if "steps" in facts:
        parts.append(f"trained with its head by {_steps(facts)}")
    if "layer_weights" in facts:
        parts.append("layer weights " + " ".join(f"{w:.2f}" for w in facts["layer_weights"]))
    return "; ".join(parts)


def _steps(facts: Mapping[str, Any]) -> str:
    epochs = facts["epochs"]
    told = [f"{epochs} epoch{'s' * (epochs != 1)}", f"{facts['tracks']} tracks"]
    if facts.get("held_out"):
        told.append(f"{facts['held_out']} held out")
    if facts.get("one_segment"):
        told.append(f"{facts['one_segment']} of one segment skipped")
    if "heads" in facts:
        told.append(f"{facts['heads']} heads")
    if facts.get("loss_held_out") is not None:
        told.append(f"held-out loss {facts['loss_held_out']:.3f}")
    elif facts.get("loss") is not None:
        told.append(f"loss {facts['loss']:.3f}")
    return f"{facts['steps']} steps ({', '.join(told)})"


def confusions(runs: Iterable[SavedRun]) -> str:
    """Draw the confusion matrix of each run that has one, rows the truth."""
    parts = []
    for run in runs:
        result = run.result
        if not result.confusion:
            continue
        title = (
            f"{result.task}, seg {run.context.seg}, {result.aggregation}, {result.probe}, "
            f"layer {result.layer}: test tracks, rows the truth"
        )
        rows = [
            {"": name, **{other: str(n) for other, n in zip(result.classes, counts, strict=True)}}
            for name, counts in zip(result.classes, result.confusion, strict=True)
        ]
        width = 4 + max(map(len, result.classes)) + sum(4 + len(n) for n in result.classes)
        parts.append(f"\n{printable(title)}\n{plain_table(rows, width=width)}")
    return "\n".join(parts)
