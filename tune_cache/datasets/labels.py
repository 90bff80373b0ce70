"""Say what kind of task a column of labels is, and bring the labels into one form.

Conventions
-----------
A string, an integer or a boolean is a class; a list of strings, maybe empty, is
tags; a float or a list of numbers is regression targets. A task has one kind: what
most of its labels are, and every other label is a problem. Labels come out as str,
int or bool; tuple of str, each tag once; tuple of float.
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cache.datasets.base import Kind, Problem, Task
from tune_cache.datasets.manifest import Record

__all__ = ["LabelRule", "apply_rules", "infer_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRule:
    """Where a task's labels are in the records, and what is known of them.

    Parameters
    ----------
    keys
        Of the record; several make one regression task, one target each.
    kind, targets, metrics
        As demanded; None and empty leave it to the labels.
    sets
        Names of the manifest sets whose records are read; empty reads all.
    suggested
        Known for a dataset of this name, and used where the labels agree.
    is_optional
        Whether it is no problem that no record has the keys.
    """

    name: str
    keys: tuple[str, ...] = ("label",)
    kind: Kind | None = None
    targets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    suggested: Task | None = None
    is_optional: bool = False


def _form(value: object) -> str:
    """Name the form of a raw label as messages do."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            return "a list of strings"
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
            return f"a list of {len(value)} number{'s' if len(value) > 1 else ''}"
        return "a mixed list"
    return "an object" if isinstance(value, dict) else "null"


def _kind_of(form: str, numbers_are_classes: bool) -> Kind | None:
    if form in ("a string", "a boolean"):
        return "multiclass"
    if form == "a list of strings":
        return "multilabel"
    if form == "a number":
        return "multiclass" if numbers_are_classes else "regression"
    return "regression" if form.startswith("a list of") else None


def _tidy(value: Any, kind: Kind) -> Any:
    if kind == "multiclass":
        return value
    if kind == "multilabel":
        return tuple(dict.fromkeys(value))
    return tuple(map(float, value)) if isinstance(value, list) else (float(value),)


def is_emotion(name: str) -> bool:
    """Whether a dataset is MARBLE's EMO by its name, so that its targets are known.

    Examples
    --------
    >>> is_emotion("EMO"), is_emotion("my-emo_15s"), is_emotion("memory")
    (True, True, False)
    """
    return "EMO" in name or "emo" in re.split(r"[^a-z]+", name.lower())


def _default_targets(rule: LabelRule, dataset: str, n: int) -> tuple[str, ...]:
    if len(rule.keys) == n and n > 1:
        return rule.keys
    suggested = rule.suggested.targets if rule.suggested else ()
    if len(suggested) == n:
        return suggested
    if n == 2 and any(map(is_emotion, (dataset, rule.name, *rule.sets))):
        return ("arousal", "valence")
    return tuple(f"y{index}" for index in range(n))


def infer_task(
    rule: LabelRule, labelled: Sequence[tuple[str, Any, Record]], *, dataset: str
) -> tuple[Task | None, dict[str, Any], list[Problem]]:
    """Infer a task from all its labels.

    Parameters
    ----------
    labelled
        Track id, raw label and record; records without a label left out.

    Returns
    -------
    The task (None if there is no usable label), the labels by track id in their
    one form, and a problem for each label of another form, naming both lines.
    """
    wanted = rule.kind or ("regression" if len(rule.keys) > 1 else None)
    forms = [_form(value) for _, value, _ in labelled]
    numbers_are_classes = wanted != "regression" and not any(
        isinstance(value, float) for _, value, _ in labelled
    )
    kinds = {form: _kind_of(form, numbers_are_classes) for form in forms}
    counts = Counter(form for form in forms if kinds[form] and wanted in (None, kinds[form]))
    chosen = counts.most_common(1)[0][0] if counts else ""
    expected: str = wanted or "a class, tags or numbers"
    if counts:
        model = labelled[forms.index(chosen)][2]
        expected = f"{chosen} as at {model.where}"
    problems = [
        Problem(
            severity="error",
            code="label-type",
            message=f"label {reprlib.repr(value)} of task {rule.name!r} is {form}, "
            f"expected {expected}",
            path=record.path,
            line=record.line,
            track_id=track_id,
            hint="a task has one kind of label: correct these lines, or set `kind` in tune.toml",
        )
        for (track_id, value, record), form in zip(labelled, forms, strict=True)
        if form != chosen
    ]
    kind = kinds.get(chosen)
    if kind is None:
        return None, {}, problems
    labels = {
        track_id: _tidy(value, kind)
        for (track_id, value, _), form in zip(labelled, forms, strict=True)
        if form == chosen
    }
    targets: tuple[str, ...] = ()
    if kind == "regression":
        n_targets = len(next(iter(labels.values())))
        targets = rule.targets or _default_targets(rule, dataset, n_targets)
        if len(targets) != n_targets:
            problems.append(
                Problem(
                    severity="error",
                    code="targets",
                    message=f"task {rule.name!r} names {len(targets)} targets, "
                    f"its labels have {n_targets}",
                    path=model.path,
                    line=model.line,
                    hint="give `targets` one name a number in tune.toml",
                )
            )
    known = rule.suggested if rule.suggested and rule.suggested.kind == kind else None
    metrics = rule.metrics or (known.metrics if known else ())
    task = Task(
        name=rule.name, label=",".join(rule.keys), kind=kind, targets=targets, metrics=metrics
    )
    return task, labels, problems


def apply_rules(
    rules: Sequence[LabelRule], records: Mapping[str, Mapping[str, Record]], *, dataset: str
) -> tuple[tuple[Task, ...], dict[str, dict[str, Any]], list[Problem]]:
    """Infer every task of a dataset.

    Parameters
    ----------
    records
        By track id and manifest set.

    Returns
    -------
    The tasks, the labels by track id and task name, and what is wrong.
    """
    labels: dict[str, dict[str, Any]] = {track_id: {} for track_id in records}
    tasks: list[Task] = []
    problems: list[Problem] = []
    for rule in rules:
        labelled: list[tuple[str, Any, Record]] = []
        for track_id in sorted(records):
            found = list(_raw_labels(rule, records[track_id]))
            labelled += [(track_id, *pair) for pair in found[:1]]
            problems += [
                Problem(
                    severity="error",
                    code="label-conflict",
                    message=f"label {reprlib.repr(value)} of task {rule.name!r} differs from "
                    f"{reprlib.repr(found[0][0])} at {found[0][1].where}",
                    path=record.path,
                    line=record.line,
                    track_id=track_id,
                    hint="a task named like its manifest set reads that set only",
                )
                for value, record in found[1:]
                if value != found[0][0]
            ]
        if labelled:
            task, values, faults = infer_task(rule, labelled, dataset=dataset)
            problems += faults
            tasks += [task] if task else []
            for track_id, value in values.items():
                labels[track_id][rule.name] = value
        elif records and not rule.is_optional:
            problems.append(
                Problem(
                    severity="error",
                    code="label-missing",
                    message=f"no record has the label {', '.join(map(repr, rule.keys))} "
                    f"of task {rule.name!r}",
                    hint="`label` of a task in tune.toml is a key of the records",
                )
            )
    return tuple(tasks), labels, problems


def _raw_labels(rule: LabelRule, records: Mapping[str, Record]) -> Iterator[tuple[Any, Record]]:
    """Take a rule's label out of a track's records, set by set, where there is one."""
    for set_name, record in records.items():
        if rule.sets and set_name not in rule.sets:
            continue
        values = [record.fields.get(key) for key in rule.keys]
        if any(value is not None for value in values):
            yield (values if len(values) > 1 else values[0]), record
