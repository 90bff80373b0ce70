from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cache.cache.ragged import Ragged


def ragged_of(lengths, *inner):
    n = sum(lengths)
    values = np.arange(n * int(np.prod(inner)), dtype=np.float32).reshape(n, *inner)
    offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=int))])
    return Ragged(values=values, offsets=offsets, n_samples=np.arange(n))


LENGTHS = st.lists(st.integers(0, 4), max_size=6)


@given(LENGTHS, st.data())
def test_any_selection_equals_a_loop_over_tracks(lengths, data):
    tracks = ragged_of(lengths, 3)
    n = len(tracks)
    key = data.draw(
        st.one_of(
            st.slices(n),
            st.lists(st.integers(-n, n - 1), max_size=8) if n else st.just([]),
            st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
        )
    )
    chosen = tracks[key]
    expected = np.arange(n)[key if isinstance(key, slice) or len(key) else slice(0)]
    assert len(chosen) == len(expected)
    for found, track in zip(chosen, expected, strict=True):
        np.testing.assert_array_equal(found, tracks[track])
    rows = [np.arange(*tracks.offsets[[track, track + 1]]) for track in expected]
    np.testing.assert_array_equal(chosen.n_samples, np.concatenate([[], *rows]))


def test_slices_and_single_tracks_are_views():
    tracks = ragged_of([2, 1, 3], 4)
    assert np.shares_memory(tracks[1:].values, tracks.values)
    assert np.shares_memory(tracks[2], tracks.values)


def test_a_layer_is_a_view_with_the_same_tracks():
    tracks = ragged_of([2, 1], 3, 4)
    layer = tracks.layer(1)
    np.testing.assert_array_equal(layer.values, tracks.values[:, 1])
    assert np.shares_memory(layer.values, tracks.values)
    assert layer.lengths.tolist() == [2, 1]


def test_from_tracks_joins_and_splits_back():
    parts = [np.full((n, 2), n) for n in (3, 0, 1)]
    tracks = Ragged.from_tracks(parts)
    for found, part in zip(tracks, parts, strict=True):
        np.testing.assert_array_equal(found, part)
    assert tracks.n_samples.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("track", [3, -4])
def test_a_track_out_of_range_is_an_index_error(track):
    with pytest.raises(IndexError):
        ragged_of([1, 1, 1], 2)[track]


@pytest.mark.parametrize(
    ("offsets", "n_samples", "match"),
    [
        ([0, 2], [1, 1, 1], "number of rows"),
        ([1, 3], [1, 1, 1], "number of rows"),
        ([], [1, 1, 1], "number of rows"),
        ([0, 2, 1, 3], [1, 1, 1], "never fall"),
        ([0, 3], [1, 1], "n_samples"),
    ],
)
def test_inconsistent_parts_are_refused(offsets, n_samples, match):
    with pytest.raises(ValueError, match=match):
        Ragged(values=np.zeros((3, 2)), offsets=np.array(offsets), n_samples=np.array(n_samples))


def test_what_has_no_meaning_is_refused():
    with pytest.raises(ValueError, match="no layer axis"):
        ragged_of([1], 2).layer(0)
    with pytest.raises(ValueError, match="no tracks"):
        Ragged.from_tracks([])
