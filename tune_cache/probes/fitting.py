"""What is fitted to training tracks, and what was chosen of it.

Conventions
-----------
An aggregation and a probe belong together: both have seen the same training
tracks and no others. A probe that is trained by steps watches the tracks that
choices are made on meanwhile; its epoch is one more such choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import SLICES, make_aggregation
from tune_cache.errors import UsageError
from tune_cache.probes.models import HeldOut, Params, Probe, is_trained, make_probe
from tune_cache.probes.workshop import Lesson, Workshop, is_joint

if TYPE_CHECKING:
    from tune_cache.aggregation.base import TrackAggregation
    from tune_cache.probes.features import Tracks
    from tune_cache.probes.joint import Joint
    from tune_cache.probes.mlp import MLPOptions
    from tune_cache.probes.tasks import TaskData

__all__ = ["Chosen", "Fitted", "Plan", "fit_seeds", "rates_to_follow"]

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """What is asked for, the same for every layer.

    Parameters
    ----------
    told
        Options of the features, for the result.
    probe, probe_options
        Its name, and what else shapes one that is trained by steps.
    probe_label
        What tables call it.
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
    probe_options: MLPOptions | None
    probe_label: str
    layer_asked: str
    seed: int
    n_resamples: int
    shots: int | None
    draws: tuple[Array, ...]
    workshop: Workshop
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.aggregation == SLICES and not is_trained(self.probe):
            raise UsageError(
                f"--agg slices is learned by training, which probe {self.probe!r} is not",
                hint="use --probe mlp",
            )

    @property
    def is_stepped(self) -> bool:
        """Whether the probe is trained by steps, on vectors that are there."""
        joint = is_joint(self.aggregation, self.options, self.layer_asked)
        return is_trained(self.probe) and not joint

    @property
    def counts_memory(self) -> bool:
        """Whether memory can be counted: what torch takes is not seen, and importing it is."""
        return not self.is_stepped

    @property
    def options_told(self) -> dict[str, Any]:
        """Options of features and aggregation, for the result."""
        told = {**self.told, **self.options}
        if self.aggregation == "transformer" and self.workshop.source is not None:
            told["pretrain_on"] = self.workshop.source.name
        return told

    def fitted(self, layer: str, tracks: Tracks, rows: Array | None = None) -> Fitted | Joint:
        """Fit aggregation and probe, at every strength, to training tracks or some of them."""
        lesson = self.lesson(layer, tracks, rows)
        if is_joint(self.aggregation, self.options, layer):
            return self.workshop.joint(
                self.aggregation, self.options, self.probe, lesson, self.seed
            )
        aggregate, facts = self.aggregate(lesson)
        vectors = aggregate.transform(lesson.tracks)
        _, model = make_probe(self.probe, self.data.kind, seed=self.seed)
        model.fit(vectors, lesson.truth, standardise=not aggregate.standardised_output)
        return Fitted(aggregate=aggregate, model=model, facts=facts)

    def aggregate(self, lesson: Lesson) -> tuple[TrackAggregation, Mapping[str, Any]]:
        """An aggregation fitted to training tracks, and what its training did, if it has one."""
        aggregate = make_aggregation(self.aggregation, **self.options)
        if self.aggregation != "transformer":
            return aggregate.fit(lesson.tracks), {}
        from tune_cache.aggregation.transformer import Transformer

        assert isinstance(aggregate, Transformer)
        aggregate.set_params(seed=self.seed, device=self.workshop.device)
        trained = self.workshop.pretrained(aggregate, lesson)
        return aggregate.fit(lesson.tracks, trained=trained), {"pretraining": dict(trained.facts)}

    def lesson(self, layer: str, tracks: Tracks, rows: Array | None) -> Lesson:
        """Training tracks of one fit, with what shapes it."""
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


def fit_seeds(
    plans: Sequence[Plan],
    layer: str,
    tracks: Tracks,
    rows: Array | None = None,
    *,
    held_out: tuple[Tracks, Array] | None = None,
    rates: Sequence[Array | None] | None = None,
) -> list[Fitted | Joint]:
    """Fit aggregation and probe, at every strength, to training tracks or some of them.

    Parameters
    ----------
    plans
        That differ in their seed only; several only of a probe that is trained.
    held_out
        Tracks and labels that choices are made on.
    rates
        Learning rates to follow, of each plan, where nothing is held out.

    Returns
    -------
    one a plan
    """
    plan = plans[0]
    if not plan.is_stepped:
        return [one.fitted(layer, tracks, rows) for one in plans]
    lesson = plan.lesson(layer, tracks, rows)
    aggregate, facts = plan.aggregate(lesson)
    vectors, truth = aggregate.transform(lesson.tracks), lesson.truth
    standardise = not aggregate.standardised_output
    models = [
        make_probe(one.probe, one.data.kind, seed=one.seed, options=one.probe_options)[1]
        for one in plans
    ]
    from tune_cache.probes.mlp import MLP, together_at_best

    watched = None
    if held_out is not None:
        metric, labels = plan.data.metrics[0], held_out[1]
        watched = HeldOut(
            X=aggregate.transform(held_out[0]),
            y=labels,
            score=lambda predicted: metric(labels, predicted),
        )
    perceptrons = [model for model in models if isinstance(model, MLP)]
    n_together = 1 if rates else together_at_best(plan.probe_options, len(perceptrons))
    for first in range(0, len(perceptrons), n_together):
        MLP.fit_together(
            perceptrons[first : first + n_together],
            vectors,
            truth,
            standardise=standardise,
            held_out=watched,
            rates=rates[first] if rates else None,
        )
    return [Fitted(aggregate=aggregate, model=model, facts=facts) for model in models]


def rates_to_follow(fitted: Sequence[Fitted | Joint]) -> Array | None:
    """Learning rates, epoch by epoch, to train on all rows with after folds chose their epochs.

    Those of the fold whose best epoch is the median one; None of a probe without epochs.
    """
    found = [one.model.rates for one in fitted if hasattr(one.model, "rates")]
    return sorted(found, key=len)[(len(found) - 1) // 2] if found else None


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
    rates
        To follow when all training tracks are learnt from after folds.
    """

    layer: str
    params: Params
    grid: tuple[Params, ...]
    val_score: float
    val: list[Array]
    fitted: list[Fitted | Joint]
    rates: Array | None
    tracks: Mapping[str, Tracks]

    def told(self, fitted: Sequence[Fitted | Joint]) -> dict[str, Any]:
        """Settings, and what training found: one value, or one a repeat."""
        found: dict[str, list[Any]] = {}
        for one in fitted:
            for name, value in getattr(one.model, "told", {}).items():
                found.setdefault(name, []).append(value)
        epochs = {name: some[0] if len(some) == 1 else some for name, some in found.items()}
        return {**self.params, **epochs}
