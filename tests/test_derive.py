from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cache.aggregation.derive import derive
from tune_cache.cache.ragged import Ragged
from tune_cache.errors import UsageError
from tune_cache.probes.features import Features, derived, n_derived
from tune_cache.segments import cut, segment_spec

RATE = 100


def spec_of(seconds, **settings):
    return segment_spec(seconds, sample_rate_hz=RATE, min_samples=10, **settings)


def averaged_audio(lengths, spec):
    """An encoder without context: each segment's vector is the mean of its samples."""
    tracks, n_samples = [], []
    for seed, length in enumerate(lengths):
        audio = np.random.default_rng(seed).standard_normal((length, 2))
        pieces = cut(length, spec)
        tracks.append(
            np.array([audio[p.start_sample : p.stop_sample].mean(axis=0) for p in pieces])
        )
        n_samples += [piece.n_samples for piece in pieces]
    return Ragged.from_tracks(tracks, np.array(n_samples))


@given(st.lists(st.integers(150, 4000), min_size=1, max_size=5), st.sampled_from(["keep", "drop"]))
def test_derived_segments_are_true_ones_where_there_is_no_context(lengths, tail):
    """Grids, lengths and values, but for audio that the shorter segments leave out."""
    short, long = spec_of(1, tail=tail), spec_of(3, tail=tail)
    features = Features(layers=(0,), of_layer=lambda _: {"train": averaged_audio(lengths, short)})
    assert n_derived(short, 3.0) == 3
    made = derived(features, short, 3.0)
    found, expected = made.of_layer(0)["train"], averaged_audio(lengths, long)
    np.testing.assert_array_equal(found.lengths, expected.lengths)
    left_out = expected.n_samples - found.n_samples
    whole = left_out == 0
    assert (left_out[~whole] < short.length_samples).all()
    np.testing.assert_allclose(found.values[whole], expected.values[whole], atol=1e-6)
    assert made.options == {"derive": 3}


def test_runs_equal_a_loop_over_tracks():
    rng = np.random.default_rng(0)
    tracks = [rng.standard_normal((n, 3)).astype("f2") for n in (1, 3, 4, 7)]
    weights = rng.integers(1, 50, size=15)
    found = derive(Ragged.from_tracks(tracks, weights), 3)
    assert found.values.dtype == np.float32
    assert found.lengths.tolist() == [1, 1, 2, 3]
    rows, start = [], 0
    for track in tracks:
        own = weights[start : start + len(track)]
        start += len(track)
        rows += [
            np.average(track[k : k + 3].astype(float), axis=0, weights=own[k : k + 3])
            for k in range(0, len(track), 3)
        ]
    np.testing.assert_allclose(found.values, rows, atol=1e-3)
    assert found.n_samples.sum() == weights.sum()


def test_a_short_last_run_goes_but_an_only_one_stays():
    tracks = Ragged.from_tracks([np.ones((4, 1)), np.ones((1, 1))], np.array([9, 9, 9, 4, 4]))
    assert derive(tracks, 3, min_tail_samples=5).lengths.tolist() == [1, 1]
    assert derive(tracks, 3, min_tail_samples=4).lengths.tolist() == [2, 1]


def test_no_track_is_no_derived_track():
    none = Ragged(values=np.ones((0, 2), "f2"), offsets=np.zeros(1), n_samples=np.zeros(0))
    assert len(derive(none, 3)) == 0
    with pytest.raises(UsageError, match="of 0 segments"):
        derive(none, 0)


@pytest.mark.parametrize(
    "spec",
    [spec_of("full"), spec_of(10, hop_seconds=5), spec_of(30), spec_of(20), spec_of(60)],
    ids=["full", "overlap", "itself", "no multiple", "longer"],
)
def test_stores_that_cannot_serve_are_told(spec):
    assert n_derived(spec, 30) == 0
