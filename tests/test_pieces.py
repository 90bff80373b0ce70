"""Layers that do not fit: read some tracks at a time, with the numbers of all at once."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stage_two_world import GENRE, dataset_of
from test_ragged import LENGTHS, ragged_of
from world import World

from tune_cache.aggregation.registry import MULTISCALE, STATISTICS, make_aggregation
from tune_cache.cache import gather, pieces
from tune_cache.cache import store as store_module
from tune_cache.cache.pieces import Pieced, bounds
from tune_cache.cache.ragged import Ragged
from tune_cache.cache.store import open_store
from tune_cache.probes.evaluate import run_probe
from tune_cache.probes.features import derived, joined, read_features
from tune_cache.probes.guard import find_leaks
from tune_cache.probes.layers import layers_asked
from tune_cache.probes.tasks import load_task
from tune_cache.segments import segment_spec
from tune_cache.specs import SegmentSpec

PIECE_ROWS = 12
LONGEST = 7
N = {"train": 30, "val": 12, "test": 12}


class Spec:
    dtype = "f2"


class Store:
    """Rows of random vectors; remembers how many rows each reading took."""

    layers = (0, 1, 2)
    dim = 6
    spec = Spec()

    def __init__(self, track_ids, seed=0):
        rng = np.random.default_rng(seed)
        self.place = {name: place for place, name in enumerate(track_ids)}
        counts = rng.integers(1, LONGEST + 1, len(track_ids))
        self.n_segments = int(counts.sum())
        self.all = Ragged(
            values=rng.standard_normal((self.n_segments, 3, self.dim)).astype("f2"),
            offsets=np.concatenate([[0], np.cumsum(counts)]),
            n_samples=rng.integers(50, 101, self.n_segments),
        )
        self.segment_n_samples = self.all.n_samples
        self.asked = []

    def rows_of(self, track_ids):
        places = [self.place[name] for name in track_ids]
        spans = [np.arange(*self.all.offsets[[place, place + 1]]) for place in places]
        return np.concatenate(spans), np.cumsum([0, *map(len, spans)])

    def read(self, track_ids, *, layers, pooling):
        found = self.all[[self.place[name] for name in track_ids]]
        self.asked.append(len(found.values))
        return Ragged(
            values=found.values[:, list(layers)], offsets=found.offsets, n_samples=found.n_samples
        )


@pytest.fixture
def data():
    labels = {split: [f"c{number % 2}" for number in range(n)] for split, n in N.items()}
    return load_task(dataset_of(labels), GENRE)


@pytest.fixture
def make(data, monkeypatch):
    """Two views of one store: all at once, and in pieces; the readings of the second."""
    names = [name for split in data.splits.values() for name in split.track_ids]

    def two(seed=0):
        whole = read_features(Store(names, seed), data)
        store = Store(names, seed)
        return whole, read_features(store, data, keep_bytes=0), store.asked

    monkeypatch.setattr(pieces, "PIECE_ROWS", PIECE_ROWS)
    return two


def same_bits(left, right):
    assert left.dtype == right.dtype
    np.testing.assert_array_equal(left.view(np.uint8), right.view(np.uint8))


@pytest.mark.parametrize("name", [*STATISTICS, "mean+std", "max+mean-duration"])
def test_statistics_in_pieces_hold_few_rows_and_equal_all_at_once_bit_for_bit(make, name):
    whole, pieced, asked = make()
    for layer in (0, 2):
        expected, found = whole.of_layer(layer), pieced.of_layer(layer)
        assert asked == []
        fitted = make_aggregation(name).fit(found["train"])
        for split in N:
            right = make_aggregation(name).fit(expected["train"]).transform(expected[split])
            same_bits(fitted.transform(found[split]), right)
        assert 0 < max(asked) <= PIECE_ROWS
        # every row once, but for the track that fit looks at
        assert sum(asked) <= len(Store(range(54)).all.values) + LONGEST
        asked.clear()


@pytest.mark.parametrize("name", MULTISCALE)
def test_several_lengths_in_pieces_equal_all_at_once(make, name):
    both = [make(seed) for seed in (0, 1)]
    expected = joined([whole for whole, _, _ in both]).of_layer(1)
    found = joined([pieced for _, pieced, _ in both]).of_layer(1)
    for split in N:
        right = make_aggregation(name).fit(expected["train"]).transform(expected[split])
        same_bits(make_aggregation(name).fit(found["train"]).transform(found[split]), right)
    for _, _, asked in both:
        assert 0 < max(asked) <= PIECE_ROWS


def spec_of(seconds: float) -> SegmentSpec:
    return segment_spec(seconds, sample_rate_hz=100, min_samples=10)


def test_derived_lengths_and_means_of_layers_are_pieces_of_pieces(make):
    whole, pieced, asked = make()
    for change in (
        lambda features: derived(features, spec_of(1.0), 2.0).of_layer(1),
        lambda features: next(layers_asked(features, "mean"))[1],
        lambda features: next(layers_asked(derived(features, spec_of(1.0), 3.0), "mean"))[1],
    ):
        expected, found = change(whole), change(pieced)
        assert asked == []
        for split in N:
            np.testing.assert_array_equal(found[split].offsets, expected[split].offsets)
            np.testing.assert_array_equal(found[split].n_samples, expected[split].n_samples)
            right = make_aggregation("mean").fit_transform(expected[split])
            same_bits(make_aggregation("mean").fit_transform(found[split]), right)
        assert 0 < max(asked) <= PIECE_ROWS
        asked.clear()


@pytest.mark.parametrize("layer", ["best", "mean"])
@pytest.mark.parametrize("aggregation", ["mean", "concat"])
def test_probes_find_the_same_whether_layers_fit_or_not(make, data, layer, aggregation):
    whole, pieced, asked = make()
    options = {"layer": layer, "aggregation": aggregation, "n_resamples": 20}
    (right,) = run_probe(whole, data, **options)
    (found,) = run_probe(pieced, data, **options)
    assert found.predictions == right.predictions
    assert found.scores == right.scores
    assert found.flags == right.flags
    assert asked
    if aggregation == "mean":
        assert max(asked) <= PIECE_ROWS
    assert find_leaks(data, {}, pieced) == find_leaks(data, {}, whole)


def test_a_layer_that_fits_is_read_in_one_piece_and_kept(data, monkeypatch):
    names = [name for split in data.splits.values() for name in split.track_ids]
    store = Store(names)
    n_bytes = store.n_segments * store.dim * 2
    monkeypatch.setattr(pieces, "PIECE_ROWS", PIECE_ROWS)
    features = read_features(store, data, keep_bytes=n_bytes)
    for _ in range(2):
        assert not isinstance(features.of_layer(0)["train"], Pieced)
    assert store.asked == [store.n_segments]
    assert isinstance(features.of_layer(1)["train"], Pieced)  # no room beside the first
    monkeypatch.setattr(pieces, "PIECE_ROWS", store.n_segments)
    assert not isinstance(features.of_layer(2)["train"], Pieced)  # one piece is all of it
    large = Store([*names, *range(100)])  # of which the task has few tracks
    monkeypatch.setattr(pieces, "PIECE_ROWS", large.n_segments - 1)
    assert not isinstance(read_features(large, data, keep_bytes=0).of_layer(0)["train"], Pieced)


class Names(tuple):
    """A split of a task as far as reading looks at it."""

    __slots__ = ()
    track_ids = property(tuple)


def test_a_real_store_is_read_in_pieces(tmp_path, monkeypatch):
    store = open_store(World.make(tmp_path).extract()[0].path)
    names = sorted(store.track_ids, reverse=True)
    data = SimpleNamespace(splits={"train": Names(names[:5]), "test": Names(names[5:])})
    whole = read_features(store, data).of_layer(1)
    monkeypatch.setattr(pieces, "PIECE_ROWS", PIECE_ROWS)
    asked, real = [], gather.read_rows

    def counted(folder, rows, *rest, **more):
        asked.append(len(rows))
        return real(folder, rows, *rest, **more)

    monkeypatch.setattr(store_module, "read_rows", counted)
    found = read_features(store, data, keep_bytes=0).of_layer(1)
    for split, expected in whole.items():
        mean = make_aggregation("mean-duration").fit(found["train"])
        same_bits(mean.transform(found[split]), mean.transform(expected))
    assert len(asked) > 2
    assert max(asked) <= max(PIECE_ROWS, int(np.diff(store.offset).max()))
    assert max(asked) < len(whole["train"].values)


@given(LENGTHS, st.data())
def test_any_selection_of_pieced_tracks_is_that_of_tracks_in_memory(lengths, data):
    tracks = ragged_of(lengths, 3)
    pieced = Pieced(tracks.__getitem__, offsets=tracks.offsets, n_samples=tracks.n_samples)
    n = len(tracks)
    keys = st.one_of(
        st.slices(n),
        st.lists(st.integers(-n, n - 1), max_size=8) if n else st.just([]),
        st.lists(st.booleans(), min_size=n, max_size=n).map(np.array),
    )
    key = data.draw(keys)
    for kept in (False, True):
        if kept:
            np.testing.assert_array_equal(pieced.values, tracks.values)
        found, expected = pieced[key], tracks[key]
        for name in ("offsets", "n_samples", "values"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert len(list(pieced[key])) == len(expected)
        for left, right in zip(pieced, tracks, strict=True):
            np.testing.assert_array_equal(left, right)
    if n:
        np.testing.assert_array_equal(pieced[-1], tracks[-1])


@given(st.lists(st.integers(0, 30), max_size=12))
def test_pieces_cover_all_tracks_once_within_their_bound(lengths):
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=int)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_ROWS", PIECE_ROWS)
        found = list(bounds(offsets))
    assert [part.start for part in found[1:]] == [part.stop for part in found[:-1]]
    assert (found[0].start, found[-1].stop) == (0, len(lengths))
    for part in found:
        rows = sum(lengths[part])
        assert rows <= PIECE_ROWS or part.stop - part.start == 1
