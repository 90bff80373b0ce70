"""What a probe found: scores, choices, predictions, and how to read them.

Conventions
-----------
Plain values only, so a result can be written as JSON and read back; NaN is
null there. Predictions are kept per track: every later question about
uncertainty, or about two cells on common tracks, is answered from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tune_cache.errors import StoreMismatchError
from tune_cache.probes.metrics import Score

__all__ = ["Label", "Prediction", "ProbeResult", "without_nan"]

Label = str | tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One track of validation or test.

    Parameters
    ----------
    truth, prediction
        A class by its name; or numbers, one a target, or one a tag: 1 or 0 in
        truth, a score that is larger where the tag is likelier in prediction.
    """

    track_id: str
    split: str
    group: str
    truth: Label
    prediction: Label


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """One cell: a configuration and what it scored.

    Parameters
    ----------
    layer_asked, layer
        As asked for (``best``, ``mean``, …) and as used, an index or ``mean``.
    params, grid
        Settings of the probe chosen on validation, and those it chose from.
    metric
        The one that choices were made by.
    scores
        By split (``val``, ``test``) and metric. The validation score of a
        chosen cell is optimistic: it was the best of many.
    n
        Tracks by split.
    n_classes
        Of training tracks; None for regression.
    share_one_segment
        Of all tracks, those with a single segment; at 1.0 mean, max and concat
        are one thing.
    layer_curve
        Best validation score of each layer looked at.
    seconds
        ``read``, ``fit`` (every layer and strength), ``predict``.
    cost
        ``seconds_predict_per_1000``: aggregating and predicting 1,000 tracks with
        what was chosen. ``peak_fit_bytes``, ``peak_predict_bytes``: memory above
        what was there before, see :mod:`tune_cache.probes.measure`.
    excluded
        Track id → why it is in no split.
    classes, targets
        By the numbers they have in ``confusion`` and in predictions. Classes end
        with those that no training track has.
    confusion
        Test tracks by class, rows the truth; empty for other kinds of task.
    shots
        Training tracks a class, None for all. Scores are then means over
        repeats, and there are no predictions.
    repeat_scores
        Test scores of each repeat, by metric.
    trained
        What training an aggregation or a layer mix did: steps, epochs, losses; empty
        where nothing of the kind was trained.
    segment_weights
        Track id → how much each of its segments counts, under attention; not kept with
        the result.
    """

    task: str
    kind: str
    aggregation: str
    aggregation_options: Mapping[str, Any] = field(default_factory=dict)
    probe: str
    layer_asked: str
    layer: str
    params: Mapping[str, Any]
    grid: tuple[Mapping[str, Any], ...]
    seed: int
    metric: str
    scores: Mapping[str, Mapping[str, Score]]
    n: Mapping[str, int]
    n_classes: int | None
    n_features: int
    share_one_segment: float
    layer_curve: tuple[tuple[str, float], ...] = ()
    flags: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    excluded: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    shots: int | None = None
    repeat_scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    trained: Mapping[str, Any] = field(default_factory=dict)
    segment_weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    predictions: tuple[Prediction, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, all but the predictions and the weights of segments."""
        fields = dataclasses.asdict(dataclasses.replace(self, predictions=(), segment_weights={}))
        del fields["predictions"], fields["segment_weights"]
        return dict(without_nan(fields))

    @classmethod
    def from_json(
        cls, value: Mapping[str, Any], predictions: tuple[Prediction, ...] = ()
    ) -> ProbeResult:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        StoreMismatchError
            If a field is missing or unknown: the result is from another version.
        """
        try:
            fields = dict(value)
            fields["scores"] = {
                split: {name: Score(**_with_nan(score)) for name, score in scores.items()}
                for split, scores in fields["scores"].items()
            }
            fields["layer_curve"] = tuple(
                (layer, math.nan if score is None else score)
                for layer, score in fields["layer_curve"]
            )
            for name in ("grid", "flags", "warnings", "classes", "targets"):
                fields[name] = tuple(fields.get(name, ()))
            fields["cost"] = _with_nan(fields.get("cost", {}))
            fields["confusion"] = tuple(map(tuple, fields.get("confusion", ())))
            fields["repeat_scores"] = {
                name: tuple(math.nan if score is None else score for score in scores)
                for name, scores in fields.get("repeat_scores", {}).items()
            }
            return cls(**fields, predictions=predictions)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StoreMismatchError(
                f"result cannot be read: {error}",
                hint="it was written by another version of tune_cache; probe again",
            ) from error


def without_nan(value: Any) -> Any:
    """Replace NaN and infinities by None, which JSON has, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with_nan(fields: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if item is None else item for name, item in fields.items()}
