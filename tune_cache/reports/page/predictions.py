"""What the chosen cell predicted: confusion, predicted against true, the plane of two targets.

Conventions
-----------
Test tracks only. With several seeds it is the first one's predictions that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tune_cache.probes.metrics import metrics_of
from tune_cache.probes.result import Prediction, ProbeResult
from tune_cache.reports.page.marks import LEFT, RIGHT, TOP
from tune_cache.reports.page.svg import Frame, dots, element, place, scale_of

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = [
    "Confusion", "confusion_of", "most_confused", "plane", "predicted_against_true", "tag_table",
]  # fmt: skip

MOST_CLASSES = 40
MOST_ARROWS = 150
N_CONFUSED = 12
N_STEPS = 5
SIDE = 390.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """A matrix to be laid out as a table.

    Parameters
    ----------
    rows
        Of each true class: its name, its number of tracks, and a count and a step of
        tint (0 to 5, by share of the row) for each predicted class.
    """

    classes: tuple[str, ...]
    rows: tuple[tuple[str, int, tuple[tuple[int, int], ...]], ...]


def confusion_of(result: ProbeResult) -> Confusion | None:
    """Lay out a confusion matrix; None without one, or of too many classes to be read."""
    if not result.confusion or len(result.classes) > MOST_CLASSES:
        return None
    rows = []
    for name, counts in zip(result.classes, result.confusion, strict=True):
        total = sum(counts)
        cells = tuple(
            (count, math.ceil(N_STEPS * count / total) if total else 0) for count in counts
        )
        rows.append((name, total, cells))
    return Confusion(classes=result.classes, rows=tuple(rows))


def most_confused(result: ProbeResult, n: int = N_CONFUSED) -> list[tuple[str, str, int, int]]:
    """List the errors that happen most: true class, predicted class, how often, of how many."""
    found = [
        (result.classes[true], result.classes[other], count, sum(counts))
        for true, counts in enumerate(result.confusion)
        for other, count in enumerate(counts)
        if count and true != other
    ]
    return sorted(found, key=lambda item: (-item[2], item[0], item[1]))[:n]


def _numbers(result: ProbeResult) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """True and predicted targets of test tracks, where all are finite."""

    def values(label: object) -> tuple[float, ...]:
        some = label if isinstance(label, tuple) else ()
        return tuple(math.nan if value is None else float(value) for value in some)

    pairs = [
        (values(item.truth), values(item.prediction))
        for item in result.predictions
        if item.split == "test"
    ]
    return [
        (true, found)
        for true, found in pairs
        if true and len(true) == len(found) and all(map(math.isfinite, (*true, *found)))
    ]


def predicted_against_true(result: ProbeResult) -> list[tuple[str, Markup]]:
    """Draw a scatter a target, with the line where both are the same."""
    pairs = _numbers(result)
    drawn = []
    for number, target in enumerate(result.targets):
        points = [(true[number], found[number]) for true, found in pairs if number < len(true)]
        if not points:
            continue
        spans = [value for point in points for value in point]
        x, y = scale_of(spans, LEFT, RIGHT), scale_of(spans, SIDE - 44, TOP + 10)
        line = f"M{place(x(x.low))} {place(y(x.low))}L{place(x(x.high))} {place(y(x.high))}"
        marks = [
            element("path", d=line, class_="diagonal"),
            element("path", d=dots((x(a), y(b)) for a, b in points), class_="dots k0"),
        ]
        frame = Frame(x=x, y=y, x_name=f"true {target}", y_name=f"predicted {target}", height=SIDE)
        label = f"Predicted against true {target} of {len(points)} test tracks"
        drawn.append((target, frame.draw(label, *marks)))
    return drawn


def plane(result: ProbeResult) -> tuple[Markup, int, int] | None:
    """Draw two targets as a plane, a line from the truth to the prediction of each track.

    Returns
    -------
    the drawing, the tracks drawn (the worst, if there are many) and the tracks there are;
    None of a task without exactly two targets
    """
    pairs = _numbers(result)
    if len(result.targets) != 2 or not pairs:
        return None
    first = result.targets.index("valence") if "valence" in result.targets else 0
    second = 1 - first

    def error(pair: tuple[tuple[float, ...], tuple[float, ...]]) -> float:
        return math.dist(*pair)

    shown = sorted(pairs, key=error, reverse=True)[:MOST_ARROWS]
    x = scale_of([v[first] for pair in pairs for v in pair], LEFT, RIGHT)
    y = scale_of([v[second] for pair in pairs for v in pair], SIDE - 44, TOP + 10)
    lines = "".join(
        f"M{place(x(a[first]))} {place(y(a[second]))}L{place(x(b[first]))} {place(y(b[second]))}"
        for a, b in shown
    )
    marks = [
        element("path", d=lines, class_="moves"),
        element("path", d=dots((x(a[first]), y(a[second])) for a, _ in shown), class_="dots k0"),
        element("path", d=dots((x(b[first]), y(b[second])) for _, b in shown), class_="squares k1"),
    ]
    names = result.targets
    frame = Frame(x=x, y=y, x_name=names[first], y_name=names[second], height=SIDE)
    label = (
        f"{names[first]} and {names[second]} of {len(shown)} test tracks: "
        "lines lead from true to predicted"
    )
    return frame.draw(label, *marks), len(shown), len(pairs)


def tag_table(result: ProbeResult) -> list[tuple[str, int, float]]:
    """Of each tag: its name, test tracks that have it, and the ROC-AUC, the worst first.

    A tag that all or no test tracks have is left out: it has no ROC-AUC.
    """
    if result.kind != "multilabel":
        return []
    (auc,) = metrics_of(result.kind, (), ("roc_auc",))
    test: Sequence[Prediction] = [item for item in result.predictions if item.split == "test"]
    found = []
    for number, tag in enumerate(result.classes):
        truth = [item.truth[number] for item in test]
        scores = [item.prediction[number] for item in test]
        n_true = sum(value == 1 for value in truth)
        if 0 < n_true < len(truth) and all(isinstance(v, float | int) for v in scores):
            columns = [np.array(some, dtype=np.float64)[:, None] for some in (truth, scores)]
            found.append((tag, n_true, auc(*columns)))
    return sorted(found, key=lambda item: (item[2], item[0]))
