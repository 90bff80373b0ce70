"""Another collection's store, to pre-train on: which of its tracks, and how they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cache.cache.ragged import Ragged
from tune_cache.probes.features import Features, Tracks
from tune_cache.probes.layers import layers_asked
from tune_cache.probes.workshop import Unlabelled, Workshop
from tune_cache.specs import canonical_json, sha256_text

if TYPE_CHECKING:
    from tune_cache.cache.store import Store
    from tune_cache.datasets.base import Dataset

__all__ = ["Training", "UnlabelledStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledStore:
    """A store and those of its tracks that may be learnt from; travels between processes.

    Parameters
    ----------
    name
        Of the collection.
    content_digest
        Of the store.
    n_left_out
        Tracks that are held out in the dataset to be probed.
    """

    name: str
    path: Path
    content_digest: str
    track_ids: tuple[str, ...]
    groups: tuple[str, ...]
    n_left_out: int

    @classmethod
    def of(cls, other: Dataset, store: Store, target: Dataset, probed: Store) -> UnlabelledStore:
        """Choose the tracks of another dataset that the target does not hold out.

        Held out is a track by its audio or its group: test, validation, and without
        a validation split all, since folds of training tracks take its place.
        """
        learnt = {"train"} if any(track.split == "val" for track in target.tracks) else set()
        held = [track for track in target.tracks if track.split not in learnt]
        audio = {probed.audio_of.get(track.track_id) for track in held} - {None, ""}
        groups = {track.group for track in held}
        known = [track for track in other.tracks if store.status.get(track.track_id) == "ok"]
        chosen = [
            track
            for track in known
            if store.audio_of.get(track.track_id) not in audio and track.group not in groups
        ]
        return cls(
            name=other.name,
            path=store.path,
            content_digest=store.content_digest,
            track_ids=tuple(track.track_id for track in chosen),
            groups=tuple(track.group for track in chosen),
            n_left_out=len(known) - len(chosen),
        )

    def digest(self) -> str:
        """Hash what is learnt from."""
        parts = [self.name, self.content_digest, list(self.track_ids), list(self.groups)]
        return sha256_text(canonical_json(parts))

    def opened(self) -> Unlabelled:
        """Open the store; a layer is read when it is asked for."""
        from tune_cache.cache.store import open_store

        store = open_store(self.path)

        def of_layer(layer: int) -> Mapping[str, Tracks]:
            return {"": store.read(self.track_ids, layers=[layer], pooling="mean").layer(0)}

        features = Features(layers=tuple(store.layers), of_layer=of_layer)

        @cache
        def tracks_of(layer: str) -> Ragged:
            ((_, found, _),) = layers_asked(features, layer)
            tracks = found[""]
            assert isinstance(tracks, Ragged)
            return tracks

        return Unlabelled(
            name=self.name, tracks_of=tracks_of, track_ids=self.track_ids, groups=self.groups
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What aggregations are trained with; travels between processes.

    Parameters
    ----------
    folder
        Of trained weights; None keeps none.
    exactly
        Only these weights will do.
    source
        Another collection that a transformer is pre-trained on.
    """

    folder: Path | None = None
    exactly: Path | None = None
    source: UnlabelledStore | None = None
    device: str = "auto"

    def settings(self) -> dict[str, Any]:
        """What of it shapes results."""
        source = None if self.source is None else self.source.digest()
        return {"pretrained_on": source, "device": self.device}

    def warnings(self) -> tuple[str, ...]:
        """Tracks that were not learnt from, in words."""
        if self.source is None or not self.source.n_left_out:
            return ()
        return (
            f"{self.source.n_left_out} tracks of {self.source.name!r} are held out here, and were"
            " not pre-trained on",
        )

    def workshop(self) -> Workshop:
        """Open what is needed."""
        return Workshop(
            folder=self.folder,
            exactly=self.exactly,
            source=None if self.source is None else self.source.opened(),
            device=self.device,
        )
