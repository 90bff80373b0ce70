"""What a page says in sentences: what was found, what it cannot tell, how to repeat it.

Conventions
-----------
Pure text from rows. Nothing is claimed that its row does not have; a sentence whose
figure is unknown is left out.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tune_cache.probes.compare import FEW_GROUPS
from tune_cache.reports.page.rows import (
    COSTS,
    Row,
    encoder_name,
    seg_name,
    title_of,
)
from tune_cache.reports.sweeps import ALPHA, interval, number

__all__ = ["commands_of", "details", "figure", "headline", "metric_name", "summary"]

FIGURES = 3
# options of aggregations that the command line takes with a value
VALUED = ("max_segments", "fill", "derive", "pretrain_epochs", "positions", "readout")
METRICS = {
    "r2": "R²",
    "rmse": "RMSE",
    "macro_f1": "macro F1",
    "roc_auc": "ROC-AUC",
    "ap": "average precision",
    "weighted_key": "weighted key score",
}


def figure(value: float | None, digits: int = FIGURES) -> str:
    """Any quantity to three figures, large ones whole.

    Examples
    --------
    >>> [figure(value) for value in (None, 0.0, 3e-5, 0.012345, 11.0, 450.2, 12345.6)]
    ['–', '0', '<0.001', '0.0123', '11.0', '450', '12,346']
    """
    if value is None or not math.isfinite(value):
        return "–"
    if 0 < value < 0.001:
        return "<0.001"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".")


def metric_name(name: str) -> str:
    """A metric as papers write it.

    Examples
    --------
    >>> [metric_name(name) for name in ("r2_arousal", "accuracy", "macro_f1", "mine")]
    ['R² arousal', 'accuracy', 'macro F1', 'mine']
    """
    for key, written in METRICS.items():
        if name == key or name.startswith(f"{key}_"):
            return written + name[len(key) :].replace("_", " ")
    return name


def headline(rows: Sequence[Row]) -> tuple[str, str, str]:
    """The chosen cell's score, what score that is, and which cell."""
    row = next(row for row in rows if row["is_reference"])
    low, high = row["test_low"], row["test_high"]
    span = f", 95 % interval {low:.2f} to {high:.2f}" if math.isfinite(low) else ""
    value = number(row["test"], absent="undefined")
    return value, f"{metric_name(row['metric'])} on test{span}", title_of(row)


def summary(rows: Sequence[Row], leaks: Sequence[str] = ()) -> list[str]:
    """Tell what a task's cells show, and what n tracks cannot, a sentence or two each."""
    chosen = next(row for row in rows if row["is_reference"])
    compared = [row for row in rows if row["difference"] is not None]
    n_groups = compared[0]["n_groups"] if compared else None
    of_groups = f" in {n_groups} groups" if n_groups not in (None, chosen["n_test"]) else ""
    said = [
        f"{chosen['n_test']} test tracks{of_groups}; {chosen['n_train']} to learn from, "
        f"{chosen['n_val']} to choose on."
    ]
    if not math.isfinite(chosen["val"]):
        said.append("No cell has a defined validation score, so nothing was chosen by merit.")
    if not math.isfinite(chosen["test"]):
        said.append("The test score of the chosen cell is undefined.")
    said += _verdicts(compared, chosen)
    said += _limits(rows, compared, chosen)
    notes = dict.fromkeys(encoder_name(row) for row in rows if row["note"])
    if notes:
        said.append(
            f"Scores of {', '.join(notes)} show that everything runs, not what a trained encoder "
            "can do."
        )
    if leaks:
        said.append("Splits share tracks, see “Leaks between splits”: scores may be too good.")
    return said


def _verdicts(compared: Sequence[Row], chosen: Row) -> list[str]:
    """How the other cells stand to the chosen one."""
    if not compared:
        return ["There is one cell, so nothing to compare it with."]
    good = [row for row in compared if row["as_good"] is True]
    unknown = [row for row in compared if row["as_good"] is None]
    differ = [row for row in compared if row["p_holm"] is not None and row["p_holm"] < ALPHA]
    others = f"the other {len(compared)} cells" if len(compared) > 1 else "the other cell"
    less = f"loses less than {chosen['margin']:g}, with 95 % confidence"
    if len(unknown) == len(compared):
        few = (compared[0]["n_groups"] or 0) < FEW_GROUPS
        why = f" from these tracks: fewer than {FEW_GROUPS} independent groups" if few else ""
        which = "Which of " + others + " are" if len(compared) > 1 else f"Whether {others} is"
        said = [f"{which} as good cannot be told{why}."]
    elif not good:
        said = [f"That {'any of ' * (len(compared) > 1)}{others} is as good ({less}) is not shown."]
    elif len(compared) == 1:
        said = [f"{others.capitalize()} is as good: it {less}."]
    else:
        are = "is" if len(good) == 1 else "are"
        said = [f"Of {others}, {len(good)} {are} as good: each {less}."]
    if differ:
        verb = "differs" if len(differ) == 1 else "differ"
        said.append(f"{len(differ)} {verb} significantly (Holm-corrected p below {ALPHA}).")
    else:
        said.append("No difference is significant after Holm’s correction.")
    cheapest = _cheapest([chosen, *good])
    if good and cheapest:
        said.append(cheapest)
    return said


def _cheapest(rows: Sequence[Row]) -> str:
    """The least of each cost among cells that are as good."""
    parts = []
    for cost in COSTS[:3]:
        known = [(value, row) for row in rows if (value := cost.of(row)) is not None]
        if len({value for value, _ in known}) > 1:
            value, row = min(known, key=lambda item: item[0])
            parts.append(f"{cost.name.rpartition(',')[0]} {figure(value)} {cost.unit} with "
                         f"{seg_name(row)}, {row['aggregation']}")  # fmt: skip
    return f"The least among these: {'; '.join(parts)}." if parts else ""


def _limits(rows: Sequence[Row], compared: Sequence[Row], chosen: Row) -> list[str]:
    """What n could show at all."""
    said = []
    smallest = chosen["smallest_in_table"]
    if compared and math.isfinite(smallest):
        said.append(
            f"The smallest difference that {compared[0]['n_common']} test tracks would show "
            f"(power 0.8, one pair) is about {smallest:.3f}; smaller ones in this table are no "
            "evidence."
        )
    one = [row for row in rows if row["share_one_segment"] >= 1.0]
    if one:
        said.append(
            f"In {len(one)} of {len(rows)} cells every track is one segment, where mean, max and "
            "concat are the same thing by definition."
        )
    return said


def details(row: Row) -> list[tuple[str, str]]:
    """The whole configuration of a cell and its figures, as hovering shows them."""
    metric = metric_name(row["metric"])
    items: list[tuple[str, Any]] = [
        (f"{metric}, test", interval(row["test"], row["test_low"], row["test_high"])),
        (f"{metric}, validation", number(row["val"])),
        *((f"{metric_name(n)}, test", number(value)) for n, value in row["others"].items()),
        ("to the chosen cell", _difference(row)),
        ("encoder", encoder_name(row)),
        ("segments", seg_name(row)),
        ("aggregation", row["aggregation"]),
        ("options", ", ".join(f"{k}={v}" for k, v in row["aggregation_options"].items())),
        ("same thing", ", ".join(row["same_aggregation"])),
        ("probe", row["probe"]),
        ("chosen settings", ", ".join(f"{k}={_plain(v)}" for k, v in row["params"].items())),
        ("layer", f"{row['layer']} (asked: {row['layer_asked']})"),
        ("features", f"{row['n_features']:,}"),
        ("seeds", ", ".join(map(str, row["seeds"]))),
        ("tracks", f"{row['n_train']} train, {row['n_val']} val, {row['n_test']} test"),
        *((cost.name, figure(cost.of(row))) for cost in COSTS if cost.of(row) is not None),
        ("left out", "training tracks that leak" if row["without_leaks"] else ""),
        ("flags", "; ".join(row["flags"])),
        ("runs", ", ".join(map(str, row["run_ids"]))),
        ("store", row["store"]),
    ]
    return [(name, str(value)) for name, value in items if value not in ("", None)]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _difference(row: Row) -> str:
    if row["is_reference"]:
        return "this is it"
    if row["difference"] is None:
        return ""
    return interval(row["difference"], row["difference_low"], row["difference_high"], sign="+")


def commands_of(dataset: str, rows: Sequence[Row], specs: Mapping[str, Any]) -> list[str]:
    """Shell commands that make the stores and the cells again.

    Parameters
    ----------
    dataset
        Its name, as the command line takes it.
    specs
        Of each store, by spec key, as its JSON.
    """
    lines: dict[str, None] = {}
    for row in rows:
        spec = specs.get(row["spec_key"]) or {}
        for seg in row["seg"].split("+"):
            flags = ["--encoder", row["encoder"], "--seg", seg, *_store_flags(spec)]
            lines[shlex.join(["tune", "extract", dataset, *flags])] = None
    for shared, segs, aggregations in _grids(rows):
        flags = list(shared)
        for seg in segs:
            flags += ["--seg", seg]
        for name in aggregations:
            flags += ["--agg", name]
        lines[shlex.join(["tune", "probe", dataset, *flags])] = None
    return list(lines)


def _grids(rows: Sequence[Row]) -> list[tuple[tuple[str, ...], list[str], tuple[str, ...]]]:
    """Cells as few grids: the flags that all share, lengths, aggregations."""
    by_length: dict[tuple[tuple[str, ...], str], dict[str, None]] = {}
    for row in rows:
        by_length.setdefault((_shared_flags(row), row["seg"]), {})[row["aggregation"]] = None
    grids: dict[tuple[tuple[str, ...], tuple[str, ...], str], list[str]] = {}
    for (shared, seg), names in by_length.items():
        together = seg if "+" in seg else ""  # several lengths in one cell, no cell each
        grids.setdefault((shared, tuple(names), together), []).extend(seg.split("+"))
    return [(shared, segs, names) for (shared, names, _), segs in grids.items()]


def _shared_flags(row: Row) -> tuple[str, ...]:
    """What a cell was asked for beside length and aggregation."""
    flags = ["--encoder", row["encoder"], "--task", row["task"], "--layer", _layer_flag(row)]
    flags += ["--probe", row["probe"]]
    for seed in row["seeds"]:
        flags += ["--seed", str(seed)]
    if row["without_leaks"]:
        flags.append("--drop-leaks")
    if row["aggregation_options"].get("finetune"):
        flags.append("--finetune")
    for name in VALUED:
        if row["aggregation_options"].get(name) is not None:
            flags += [f"--{name.replace('_', '-')}", str(row["aggregation_options"][name])]
    return tuple(flags)


def _layer_flag(row: Row) -> str:
    return row["layer"] if row["layer_asked"] == "all" else str(row["layer_asked"])


def _store_flags(spec: Mapping[str, Any]) -> list[str]:
    """What a store was made with beside its length, where it is not the default."""
    flags: list[str] = []
    encoder, segments = spec.get("encoder"), spec.get("segments")
    if isinstance(encoder, Mapping) and encoder.get("precision", "fp32") != "fp32":
        flags += ["--precision", str(encoder["precision"])]
    if isinstance(segments, Mapping):
        rate = segments.get("sample_rate_hz") or 1
        length, hop = segments.get("length_samples"), segments.get("hop_samples")
        if hop and hop != length:
            flags += ["--hop", f"{hop / rate:g}"]
        if segments.get("tail", "keep") != "keep":
            flags += ["--tail", str(segments["tail"])]
    for name, default in (("dtype", "f2"), ("channels", "mix")):
        if spec.get(name, default) != default:
            flags += [f"--{name}", str(spec[name])]
    poolings = spec.get("poolings", ["mean"])
    if list(poolings) != ["mean"]:
        flags += ["--pool", ",".join(map(str, poolings))]
    return flags
