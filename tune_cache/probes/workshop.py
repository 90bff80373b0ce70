"""Where trained aggregations come from: trained here, or kept from another time.

Conventions
-----------
A record holds all that shapes weights: the vectors, ids and groups of the training
tracks, in their order, settings, seed, labels where a head is trained, the kind of
device, and the code. What was kept under the same record is used again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError
from tune_cache.specs import canonical_json, sha256_text

if TYPE_CHECKING:
    from tune_cache.aggregation.checkpoints import Trained
    from tune_cache.aggregation.transformer import Transformer
    from tune_cache.probes.features import Tracks
    from tune_cache.probes.joint import Joint

__all__ = ["HEADS", "Lesson", "Unlabelled", "Workshop", "head_named", "is_joint"]

Array = np.ndarray[Any, np.dtype[Any]]

HEADS = ("linear", "mlp")


def is_joint(aggregation: str, options: Mapping[str, Any], layer: str) -> bool:
    """Whether something is trained together with a head.

    Examples
    --------
    >>> is_joint("transformer", {}, "last"), is_joint("mean", {}, "mix")
    (False, True)
    """
    tuned = aggregation == "transformer" and bool(options.get("finetune"))
    mixed = layer == "mix" and aggregation != "slices"  # there mlp weighs layers by itself
    return mixed or aggregation == "attention" or tuned


def head_named(probe: str) -> str:
    """The head that a probe's name asks for; ``auto`` is ``linear``.

    Raises
    ------
    TaskError
        If it is a probe that cannot be trained together with an aggregation.
    """
    if probe in ("auto", *HEADS):
        return HEADS[0] if probe == "auto" else probe
    raise TaskError(
        f"probe {probe!r} cannot be trained together with an aggregation or a layer mix",
        hint=f"use --probe auto, {' or '.join(HEADS)}",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Unlabelled:
    """Another collection to pre-train on.

    Parameters
    ----------
    name
        As results tell it.
    tracks_of
        From a layer's name (an index, ``mean``, ``mix``) to its segments.
    track_ids, groups
        One a track.
    """

    name: str
    tracks_of: Callable[[str], Ragged]
    track_ids: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """Training tracks of one fit.

    Parameters
    ----------
    layer
        As :func:`~tune_cache.probes.layers.layers_asked` names it.
    """

    layer: str
    tracks: Tracks
    track_ids: Sequence[str]
    groups: Sequence[str]
    truth: Array
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workshop:
    """What training may use, and where its weights are kept.

    Parameters
    ----------
    folder
        Of checkpoints; None keeps none.
    exactly
        Weights are read from this file, or nothing is done.
    source
        To pre-train on in place of the training tracks.
    """

    folder: Path | None = None
    exactly: Path | None = None
    source: Unlabelled | None = None
    device: str = "auto"

    def pretrained(
        self, aggregate: Transformer, lesson: Lesson, *, is_last: bool = True
    ) -> Trained:
        """Weights of masked modelling; ``is_last`` if nothing is trained after it."""
        from tune_cache.aggregation.checkpoints import obtain

        tracks, groups, record = self._masked(aggregate, lesson)
        is_mixed = tracks.values.ndim == 3

        def make() -> Trained:
            some = _even_mix(tracks) if is_mixed else tracks
            return aggregate.pretrained(some, groups, is_scaled=is_mixed)

        exactly = self.exactly if is_last else None
        return obtain(record, make, folder=self.folder, exactly=exactly)

    def _masked(
        self, aggregate: Transformer, lesson: Lesson
    ) -> tuple[Ragged, Sequence[str], dict[str, Any]]:
        """Tracks to pre-train on, their groups, and the record of it."""
        from tune_cache.aggregation.checkpoints import digest_of

        source = self.source
        tracks = lesson.tracks if source is None else source.tracks_of(lesson.layer)
        names = lesson.track_ids if source is None else source.track_ids
        groups = lesson.groups if source is None else source.groups
        if not isinstance(tracks, Ragged):
            raise TaskError(
                "a transformer takes one segment length at a time",
                hint="use --agg multiscale-mean or multiscale-concat for several",
            )
        record = {
            "trained": "masked modelling",
            "vectors": digest_of(tracks.values, tracks.offsets),
            "tracks": sha256_text(canonical_json([list(names), list(groups)])),
            "n_tracks": len(tracks),
            "layers": "even mix" if tracks.values.ndim == 3 else "one",
            **aggregate.record(),
        }
        return tracks, groups, record

    def joint(
        self, aggregation: str, options: Mapping[str, Any], head: str, lesson: Lesson, seed: int
    ) -> Joint:
        """Train what is learnt together with a head."""
        from tune_cache.aggregation.attention import Attention
        from tune_cache.aggregation.checkpoints import Trained, code_of, digest_of, obtain
        from tune_cache.aggregation.registry import make_aggregation
        from tune_cache.aggregation.tensors import find_device
        from tune_cache.aggregation.transformer import Transformer
        from tune_cache.probes.joint import CODE, Joint, fit_joint
        from tune_cache.probes.objective import Objective
        from tune_cache.probes.parts import Inputs

        trained_ones = (Attention, Transformer)
        aggregate = make_aggregation(aggregation, **options)
        if isinstance(aggregate, trained_ones):
            aggregate.set_params(seed=seed, device=self.device)
            aggregate.check_options()
        inputs = Inputs.of(
            lesson.tracks,
            lambda: make_aggregation(aggregation, **options),
            is_mixed=lesson.layer == "mix",
        )
        if isinstance(aggregate, Transformer) and aggregate.positions == "learned":
            known = int(self._masked(aggregate, lesson)[0].lengths.max())  # by pre-training
            inputs = dataclasses.replace(inputs, longest=min(inputs.longest, known))
        given = inputs.given(lesson.tracks)
        n_layers = given.values.shape[1] if lesson.layer == "mix" else 0
        settings = aggregate.get_params()
        settings.pop("device", None)
        device = str(find_device(self.device))
        record: dict[str, Any] = {
            "trained": f"{aggregation} with a {head} head",
            "vectors": digest_of(given.values, given.offsets),
            "tracks": sha256_text(canonical_json([list(lesson.track_ids), list(lesson.groups)])),
            "n_tracks": len(given),
            "labels": digest_of(lesson.truth),
            "kind": lesson.kind,
            "n_layers": n_layers,
            "settings": settings,
            "seed": seed,
            "device": device.partition(":")[0],
            "code": code_of(*CODE),
        }
        if isinstance(aggregate, Transformer):
            record["before"] = sha256_text(canonical_json(self._masked(aggregate, lesson)[2]))

        def make() -> Trained:
            pool: Mapping[str, Array] = {}
            before: Mapping[str, Any] | None = None
            if isinstance(aggregate, Transformer):
                start = self.pretrained(aggregate, lesson, is_last=False)
                aggregate.take(start.weights)
                pool, before = start.weights, start.facts
            made = fit_joint(
                inputs,
                given,
                lesson.truth,
                kind=lesson.kind,
                aggregate=aggregate,
                n_layers=n_layers,
                head=head,
                pool=pool,
                groups=lesson.groups,
                seed=seed,
                device=device,
            )
            facts = {**made.facts, "pretraining": before} if before is not None else made.facts
            return Trained(weights=made.weights, facts=facts)

        trained = obtain(record, make, folder=self.folder, exactly=self.exactly)
        if isinstance(aggregate, trained_ones):
            pool = Trained(weights=trained.part("pool."))
            aggregate.fit(inputs.first_layer(lesson.tracks), trained=pool)
        else:
            aggregate = inputs.by_layer[0]
        return Joint(
            inputs=inputs,
            aggregate=aggregate,
            objective=Objective(lesson.kind, lesson.truth),
            trained=trained,
            n_layers=n_layers,
            head=head,
            device=device,
        )


def _even_mix(tracks: Ragged) -> Ragged:
    """Scaled layers, averaged: what a learnt mix starts from."""
    from tune_cache.aggregation.concat import statistics_of

    mean, scale = statistics_of(tracks.values)
    total = np.zeros((len(tracks.values), tracks.values.shape[2]), dtype=np.float32)
    for place in range(tracks.values.shape[1]):
        total += (tracks.values[:, place] - mean[place]) / scale[place]
    return Ragged(
        values=total / tracks.values.shape[1], offsets=tracks.offsets, n_samples=tracks.n_samples
    )
