"""What is fitted to training tracks, and what was chosen of it.

Conventions
-----------
An aggregation and a probe belong together: both have seen the same training
tracks and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.probes.models import Params, Probe, make_probe

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Tracks
    from tune_cache.probes.tasks import TaskData

__all__ = ["Chosen", "Fitted", "Plan"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is asked for, the same for every layer.

    Parameters
    ----------
    told
        Options of the features, for the result.
    draws
        Training tracks of each repeat; empty learns from all, once.
    """

    data: TaskData
    aggregation: str
    options: Mapping[str, Any]
    told: Mapping[str, Any]
    probe: str
    layer_asked: str
    seed: int
    n_resamples: int
    shots: int | None
    draws: tuple[Array, ...]

    def fitted(self, tracks: Tracks, rows: Array | None = None) -> Fitted:
        """Fit aggregation and probe, at every strength, to training tracks or some of them."""
        truth = self.data.splits["train"].truth
        if rows is not None:
            tracks, truth = tracks[rows], truth[rows]
        aggregate = make_aggregation(self.aggregation, **self.options)
        vectors = aggregate.fit_transform(tracks)
        _, model = make_probe(self.probe, self.data.kind, seed=self.seed)
        model.fit(vectors, truth, standardise=not aggregate.standardised_output)
        return Fitted(aggregate=aggregate, model=model)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """An aggregation and a probe that belong together."""

    aggregate: TrackAggregation
    model: Probe

    def predict_all(self, tracks: Tracks, grid: tuple[Params, ...]) -> list[Array]:
        found = self.model.predict_all(self.aggregate.transform(tracks))
        return [found[self.model.grid.index(params)] for params in grid]

    def predict(self, tracks: Tracks, params: Params) -> Array:
        choice = self.model.grid.index(params)
        return self.model.predict(self.aggregate.transform(tracks), choice)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chosen:
    """The best strength at one layer, ready to be scored.

    Parameters
    ----------
    val
        Predictions of what choices are made on, one a repeat.
    fitted
        One a repeat; none where folds were fitted.
    """

    layer: str
    params: Params
    grid: tuple[Params, ...]
    val_score: float
    val: list[Array]
    fitted: list[Fitted]
    tracks: Mapping[str, Tracks]
