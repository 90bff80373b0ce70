"""Opening and reading finished stores; nothing here changes one.

Conventions
-----------
A store that opens is complete, and never changes while it is referred to
(:mod:`tune_cache.cache.holds`). Opening compares lengths of files with their list,
reading checksums too, and refuses what is not finite; ``verify`` hashes everything.
Rows of track t are ``offset[t]:offset[t+1]``, tracks in the order of their ids;
a failed track has none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.disk import touch
from tune_cache.cache.gather import read_rows, tracks_between
from tune_cache.cache.journal import TrackOutcome
from tune_cache.cache.layout import lock_path
from tune_cache.cache.listing import Files, corrupt, open_files, parse_object
from tune_cache.cache.ragged import Ragged
from tune_cache.cache.shards import read_small
from tune_cache.cache.texts import check_offsets, decode_texts
from tune_cache.errors import (
    StoreError,
    StoreMismatchError,
    first_few,
    printable,
)
from tune_cache.segments import covered_samples
from tune_cache.specs import StoreSpec

__all__ = ["FORMAT", "STATUS_FAILED", "STATUS_OK", "Store", "open_store"]

logger = logging.getLogger(__name__)
FORMAT = {"name": "tune_cache store", "version": 1, "min_reader": 1}
READER_VERSION = 1
STATUS_OK, STATUS_FAILED = 0, 1


def open_store(path: Path | str) -> Store:
    """Open a finished store, checking that every file is there in full length.

    Raises
    ------
    StoreNotFoundError
        If there is no store.
    StoreCorruptError
        If a file is missing, linked, or of another length than written.
    StoreMismatchError
        If it was written by a version that this one cannot read.
    """
    path = Path(path)
    files = open_files(path)
    group = parse_object(path / "zarr.json", files.read(path / "zarr.json"))
    attributes = group.get("attributes")
    written = attributes.get("format") if isinstance(attributes, dict) else None
    if not isinstance(attributes, dict) or not isinstance(written, dict):
        raise StoreMismatchError(f"{str(path)!r} is a Zarr hierarchy, but no tune_cache store")
    if written.get("name") != FORMAT["name"] or not (
        isinstance(written.get("min_reader"), int) and written["min_reader"] <= READER_VERSION
    ):
        raise StoreMismatchError(
            f"store {str(path)!r} has format {written!r}, expected {FORMAT!r} or older",
            hint="upgrade tune_cache",
        )
    try:
        return Store(path, attributes, files)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreMismatchError(
            f"attributes of store {str(path)!r} cannot be read: {error}"
        ) from error


class Store:
    """A finished store; get one from :func:`open_store`.

    Parameters
    ----------
    path
        Its folder.
    attributes
        Of its Zarr group.
    files
        What its files must be, and a hold on them.
    """

    is_described = True  # every array's ``zarr.json`` is looked at

    def __init__(self, path: Path, attributes: Mapping[str, Any], files: Files) -> None:
        self.path = path
        self.files = files
        self._is_marked = False
        self.attrs = attributes
        self.spec = StoreSpec.from_json(attributes["spec"])
        if self.spec.key != attributes.get("spec_key"):
            raise StoreMismatchError(
                f"store {str(path)!r} states spec key {attributes.get('spec_key')!r}, "
                f"but its spec has {self.spec.key!r}"
            )
        self.n_tracks = int(attributes["n_tracks"])
        self.n_segments = int(attributes["n_segments"])
        self.dim = int(attributes["dim"])
        self.layers = self.spec.layers
        self._layer_position = {layer: place for place, layer in enumerate(self.layers)}
        self.poolings = self.spec.poolings

    def __repr__(self) -> str:
        return f"<Store {self.name}: {self.n_tracks} tracks, {self.n_segments} segments>"

    @property
    def name(self) -> str:
        """Folder name."""
        return self.path.name

    @property
    def collection_digest(self) -> str:
        """Hash of which audio this is about."""
        return str(self.attrs["collection_digest"])

    @property
    def content_digest(self) -> str:
        """Hash of the decoded values, independent of shard sizes."""
        return str(self.attrs["content_digest"])

    def _small(self, name: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
        path = self.path / name
        return read_small(path, dtype, shape, files=self.files, is_described=self.is_described)

    def _texts(self, name: str) -> tuple[str, ...]:
        offsets = self._small(f"tracks/{name}_offset", "i8", self.n_tracks + 1)
        data = self._small(f"tracks/{name}_utf8", "u1", int(offsets[-1]))
        try:
            return tuple(decode_texts(data, offsets))
        except ValueError as error:
            raise corrupt(self.path / f"tracks/{name}_offset", f"{self.name!r}: {error}") from error

    @cached_property
    def track_ids(self) -> tuple[str, ...]:
        """Ids of all tracks, failed ones too, sorted."""
        return self._texts("id")

    @cached_property
    def _position(self) -> dict[str, int]:
        return {track_id: index for index, track_id in enumerate(self.track_ids)}

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """Of shape (n_tracks + 1,): rows of track t are ``offset[t]:offset[t+1]``."""
        offsets = self._small("tracks/offset", "i8", self.n_tracks + 1)
        try:
            check_offsets("an offset of rows", offsets, self.n_segments)
        except ValueError as error:
            raise corrupt(self.path / "tracks/offset", f"{self.name!r}: {error}") from error
        return offsets

    @cached_property
    def audio_sha256(self) -> tuple[str, ...]:
        """Hash of each track's audio file, empty where it could not be read."""
        digests = self._small("tracks/audio_sha256", "u1", self.n_tracks, 32)
        return tuple(row.tobytes().hex() if row.any() else "" for row in digests)

    @cached_property
    def n_samples(self) -> npt.NDArray[np.int64]:
        """Of shape (n_tracks,): decoded length at the encoder's sample rate."""
        return self._small("tracks/n_samples", "i8", self.n_tracks)

    @cached_property
    def sample_rate_hz(self) -> npt.NDArray[np.int32]:
        """Of shape (n_tracks,): sample rate of the audio file, 0 where it failed."""
        return self._small("tracks/sample_rate", "i4", self.n_tracks)

    @cached_property
    def messages(self) -> tuple[str, ...]:
        """One line a track: what went wrong, or a note; mostly empty."""
        return self._texts("message")

    @cached_property
    def status(self) -> dict[str, str]:
        """Track id to ``ok`` or the reason code of its failure."""
        codes = self._small("tracks/status", "u1", self.n_tracks)
        return {
            track_id: "ok" if code == STATUS_OK else message.partition(": ")[0]
            for track_id, code, message in zip(self.track_ids, codes, self.messages, strict=True)
        }

    @cached_property
    def failed(self) -> dict[str, str]:
        """Track id to message, for failed tracks."""
        return {
            track_id: message
            for track_id, message in zip(self.track_ids, self.messages, strict=True)
            if self.status[track_id] != "ok"
        }

    @cached_property
    def audio_of(self) -> dict[str, str]:
        """Track id to sha256 of its audio, for the tracks that have rows."""
        return {
            track_id: sha256
            for track_id, sha256 in zip(self.track_ids, self.audio_sha256, strict=True)
            if self.status[track_id] == "ok"
        }

    @cached_property
    def segment_n_samples(self) -> npt.NDArray[np.int32]:
        """Of shape (n_segments,): real samples in each segment, padding not counted."""
        return self._small("segments/n_samples", "i4", self.n_segments)

    @cached_property
    def segment_start(self) -> npt.NDArray[np.int64]:
        """Of shape (n_segments,): first sample of each segment in its track."""
        return self._small("segments/start_sample", "i8", self.n_segments)

    @cached_property
    def ledger(self) -> dict[str, Any]:
        """What making it cost; empty where nothing was written."""
        path = self.path / "ledger" / "extract.json"
        try:
            return parse_object(path, self.files.read(path))
        except FileNotFoundError:
            return {}
        except (StoreError, OSError) as error:  # outside all digests: no vector needs it
            logger.warning("ledger of %s: %s", self.name, error)
            return {}

    def outcome_of(self, name: str, track_id: str) -> TrackOutcome:
        """What became of track ``name`` here, told under another id."""
        index = self._position[name]
        rows = slice(*self.offset[index : index + 2])
        starts, counts = self.segment_start[rows], self.segment_n_samples[rows]
        return TrackOutcome(
            track_id=track_id,
            audio_sha256=self.audio_sha256[index],
            status=self.status[name],
            message=self.messages[index].removeprefix(f"{self.status[name]}: "),
            n_samples=int(self.n_samples[index]),
            sample_rate_hz=int(self.sample_rate_hz[index]),
            n_rows=len(starts),
            covered_samples=covered_samples(starts, counts),
        )

    def mark_used(self) -> None:
        """Remember that somebody needed this store: `tune cache prune` spares it for a while."""
        if not self._is_marked:
            self._is_marked = True
            touch(lock_path(self.path))

    def layer_position(self, layer: int) -> int:
        """Find a layer on the stored layer axis.

        Raises
        ------
        StoreError
            If the store does not keep it.
        """
        if layer not in self._layer_position:
            raise StoreError(
                f"store {self.name!r} keeps layers {list(self.layers)}, not {layer}",
                hint=f"extract again with --layers all, or ask for --layer {self.layers[-1]}",
            )
        return self._layer_position[layer]

    def rows_of(
        self, track_ids: Sequence[str]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Row numbers of tracks, one after the other, and where each track's begin.

        Raises
        ------
        StoreError
            If a track is unknown or failed.
        """
        found = map(self._position.get, track_ids, repeat(-1))
        positions = np.fromiter(found, np.int64, len(track_ids))
        if len(positions) and positions.min() < 0:
            unknown = [name for name in track_ids if name not in self._position]
            raise StoreError(f"store {self.name!r} has no track {first_few(unknown)}")
        if self.failed and (failed := [name for name in track_ids if name in self.failed]):
            raise StoreError(
                f"store {self.name!r} has no rows for {first_few(failed)}: "
                f"{printable(self.failed[failed[0]])}"
            )
        starts = self.offset[positions]
        lengths = self.offset[positions + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return rows.astype(np.int64), offsets

    def read(
        self,
        track_ids: Sequence[str],
        *,
        layers: Sequence[int] | None = None,
        pooling: str = "mean",
    ) -> Ragged:
        """Read the segments of some tracks.

        Parameters
        ----------
        track_ids
            Which, in the order wanted.
        layers
            Layer indices, all by default; only theirs are read from disk.
        pooling
            One of :attr:`poolings`.

        Returns
        -------
        with ``values`` of shape (n_segments, n_layers, dim), in the stored dtype
        """
        if pooling not in self.poolings:
            raise StoreError(
                f"store {self.name!r} has poolings {', '.join(self.poolings)}, not {pooling!r}",
                hint=f"extract again with --pool {pooling}",
            )
        rows, offsets = self.rows_of(track_ids)
        self.mark_used()
        asked = self.layers if layers is None else layers
        values = read_rows(
            self.path / "embeddings" / pooling,
            rows,
            [self.layer_position(layer) for layer in asked],
            shape=(self.n_segments, len(self.layers), self.dim),
            dtype=self.spec.dtype,
            files=self.files,
            is_described=self.is_described,
            tracks=partial(tracks_between, self.track_ids, self.offset),
        )
        return Ragged(
            values=values,
            offsets=offsets,
            n_samples=self.segment_n_samples[rows].astype(np.int64),
        )

    def read_layer(self, track_ids: Sequence[str], layer: int, *, pooling: str = "mean") -> Ragged:
        """Read one layer; ``values`` has shape (n_segments, dim)."""
        return self.read(track_ids, layers=[layer], pooling=pooling).layer(0)
