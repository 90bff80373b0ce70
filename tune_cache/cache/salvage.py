"""A damaged store, read for what is left of it.

Conventions
-----------
What follows from the rest is computed, never read: the grid of segments follows
from the spec and the length of each track, the ``zarr.json`` of an array from
its shape. What is read must be as listed, as in any store.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from tune_cache.cache.gather import tracks_between
from tune_cache.cache.store import STATUS_OK, Store
from tune_cache.segments import Segment, cut

__all__ = ["ORIGINALS", "SMALL", "Salvage"]

# small arrays in the order in which the content digest takes them, with dtype and length:
# segments, tracks, or what the last entry of another array says
SMALL: dict[str, tuple[str, str]] = {
    "segments/track": ("i4", "segments"),
    "segments/start_sample": ("i8", "segments"),
    "segments/n_samples": ("i4", "segments"),
    "tracks/id_utf8": ("u1", "tracks/id_offset"),
    "tracks/id_offset": ("i8", "tracks+1"),
    "tracks/message_utf8": ("u1", "tracks/message_offset"),
    "tracks/message_offset": ("i8", "tracks+1"),
    "tracks/offset": ("i8", "tracks+1"),
    "tracks/audio_sha256": ("u1", "tracks"),
    "tracks/n_samples": ("i8", "tracks"),
    "tracks/sample_rate": ("i4", "tracks"),
    "tracks/status": ("u1", "tracks"),
}
# their values are nowhere else; the others follow from these and the spec
ORIGINALS = tuple(name for name in SMALL if name.startswith("tracks/") and name != "tracks/offset")


class Salvage(Store):
    """A store of which some files are damaged."""

    is_described = False

    @cached_property
    def grids(self) -> tuple[tuple[Segment, ...], ...]:
        """Segments of each track, as the spec cuts it; none of a failed one.

        Raises
        ------
        AudioError
            If a length is below the shortest that the spec allows.
        """
        codes = self._small("tracks/status", "u1", self.n_tracks)
        return tuple(
            cut(int(length), self.spec.segments) if code == STATUS_OK else ()
            for length, code in zip(self.n_samples, codes, strict=True)
        )

    @cached_property
    def offset(self) -> npt.NDArray[np.int64]:
        """Of shape (n_tracks + 1,): rows of track t are ``offset[t]:offset[t+1]``."""
        counts = np.array([len(grid) for grid in self.grids], np.int64)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    @cached_property
    def segment_n_samples(self) -> npt.NDArray[np.int32]:
        """Of shape (n_segments,): real samples in each segment, padding not counted."""
        return np.array([item.n_samples for grid in self.grids for item in grid], np.int32)

    @cached_property
    def segment_start(self) -> npt.NDArray[np.int64]:
        """Of shape (n_segments,): first sample of each segment in its track."""
        return np.array([item.start_sample for grid in self.grids for item in grid], np.int64)

    @cached_property
    def segment_track(self) -> npt.NDArray[np.int32]:
        """Of shape (n_segments,): place of each segment's track."""
        return np.repeat(np.arange(self.n_tracks), np.diff(self.offset)).astype(np.int32)

    def tracks_between(self, start: int, stop: int) -> tuple[str, ...]:
        """Ids of the tracks that have rows in ``start:stop``."""
        return tracks_between(self.track_ids, self.offset, start, stop)
