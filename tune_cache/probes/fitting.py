"""What is fitted to training tracks, and what was chosen of it.

Conventions
-----------
An aggregation and a probe belong together: both have seen the same training
tracks and no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import make_aggregation
from tune_cache.probes.models import Params, Probe, make_probe
from tune_cache.probes.workshop import Lesson, Workshop, is_joint

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Tracks
    from tune_cache.probes.joint import Joint
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
    workshop
        Where trained aggregations come from.
    notes
        What the result must say about what was asked for.
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
    workshop: Workshop
    notes: tuple[str, ...] = ()

    @property
    def options_told(self) -> dict[str, Any]:
        """Options of features and aggregation, for the result."""
        told = {**self.told, **self.options}
        if self.aggregation == "transformer" and self.workshop.source is not None:
            told["pretrain_on"] = self.workshop.source.name
        return told

    def fitted(self, layer: str, tracks: Tracks, rows: Array | None = None) -> Fitted | Joint:
        """Fit aggregation and probe, at every strength, to training tracks or some of them."""
        lesson = self._lesson(layer, tracks, rows)
        if is_joint(self.aggregation, self.options, layer):
            return self.workshop.joint(
                self.aggregation, self.options, self.probe, lesson, self.seed
            )
        aggregate, facts = self._aggregate(lesson)
        vectors = aggregate.transform(lesson.tracks)
        _, model = make_probe(self.probe, self.data.kind, seed=self.seed)
        model.fit(vectors, lesson.truth, standardise=not aggregate.standardised_output)
        return Fitted(aggregate=aggregate, model=model, facts=facts)

    def _aggregate(self, lesson: Lesson) -> tuple[TrackAggregation, Mapping[str, Any]]:
        """An aggregation fitted to training tracks, and what its training did, if it has one."""
        aggregate = make_aggregation(self.aggregation, **self.options)
        if self.aggregation != "transformer":
            return aggregate.fit(lesson.tracks), {}
        from tune_cache.aggregation.transformer import Transformer

        assert isinstance(aggregate, Transformer)
        aggregate.set_params(seed=self.seed, device=self.workshop.device)
        trained = self.workshop.pretrained(aggregate, lesson)
        return aggregate.fit(lesson.tracks, trained=trained), {"pretraining": dict(trained.facts)}

    def _lesson(self, layer: str, tracks: Tracks, rows: Array | None) -> Lesson:
        train = self.data.splits["train"]
        places = np.arange(len(train)) if rows is None else rows
        return Lesson(
            layer=layer,
            tracks=tracks if rows is None else tracks[rows],
            track_ids=[train.track_ids[place] for place in places.tolist()],
            groups=[train.groups[place] for place in places.tolist()],
            truth=train.truth[places],
            kind=self.data.kind,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """An aggregation and a probe that belong together.

    Parameters
    ----------
    facts
        Of the aggregation's training, if it was trained.
    """

    aggregate: TrackAggregation
    model: Probe
    facts: Mapping[str, Any] = field(default_factory=dict)

    def segment_weights(self, tracks: Tracks) -> list[Array]:
        """None: every probe but attention sees tracks only."""
        return []

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
    fitted: list[Fitted | Joint]
    tracks: Mapping[str, Tracks]
