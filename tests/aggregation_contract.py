"""What every aggregation promises; inherited by the tests of each."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from stage_two_world import random_tracks

from tune_cache.cache.ragged import Ragged
from tune_cache.errors import TaskError, UsageError


class AggregationContract:
    """Set ``make``, ``wrong`` parameters, and ``reference``, the obvious slow version.

    ``reference(train, tracks)`` takes lists of (n_segments, dim) float64 arrays; for
    what weighs segments, ``n_samples`` of a segment are 1 + its place in its track.
    Scikit-learn's own checks are in ``test_aggregation_checks.py``.
    """

    keeps_order = False
    wrong: dict[str, object] = {"statistics": "nothing"}  # noqa: RUF012  # never changed

    def make(self):
        raise NotImplementedError

    def reference(self, train, tracks):
        raise NotImplementedError

    @pytest.fixture
    def tracks(self):
        found = random_tracks(np.random.default_rng(5), 12, dim=6, lengths=(1, 4))
        place = np.arange(len(found.values)) - np.repeat(found.offsets[:-1], found.lengths)
        return dataclasses.replace(found, n_samples=1 + place)

    def test_equals_the_obvious_slow_version(self, tracks):
        train, rest = tracks[:8], tracks[4:]
        found = self.make().fit(train).transform(rest)
        slow = self.reference([t.astype(float) for t in train], [t.astype(float) for t in rest])
        np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)

    def test_ragged_list_and_cube_agree(self, tracks):
        tracks = dataclasses.replace(tracks, n_samples=np.ones(len(tracks.values)))
        found = self.make().fit_transform(tracks)
        np.testing.assert_array_equal(self.make().fit_transform(list(tracks)), found)
        cube = np.random.default_rng(0).standard_normal((5, 3, 2))
        np.testing.assert_array_equal(
            self.make().fit_transform(cube), self.make().fit_transform(list(cube))
        )

    def test_tracks_do_not_see_each_other(self, tracks):
        fitted = self.make().fit(tracks)
        np.testing.assert_array_equal(
            fitted.transform(tracks)[[7, 2]], fitted.transform(tracks[[7, 2]])
        )

    def test_segment_order_matters_only_if_declared(self, tracks):
        fitted = self.make().fit(tracks)
        reversed_tracks = Ragged.from_tracks(
            [track[::-1] for track in tracks],
            np.concatenate([np.arange(n, 0, -1) for n in tracks.lengths]),
        )
        same = np.allclose(fitted.transform(reversed_tracks), fitted.transform(tracks), atol=1e-5)
        assert same != self.keeps_order

    @pytest.mark.parametrize(("given", "made"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
    def test_float16_is_accumulated_in_float32(self, given, made):
        values = np.full((4000, 2), 40.0, dtype=given)  # the sum is beyond float16's range
        values[::2, 1] = -40.0
        tracks = Ragged.from_tracks([values, values])
        found = self.make().fit_transform(tracks)
        assert found.dtype == np.dtype(made)
        assert np.isfinite(found).all()
        expected = self.reference([values.astype(float)] * 2, [values.astype(float)] * 2)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

    def test_names_of_features_are_unique_and_as_many_as_columns(self, tracks):
        fitted = self.make().fit(tracks)
        names = fitted.get_feature_names_out()
        assert len(set(names)) == len(names) == fitted.transform(tracks).shape[1]

    def test_a_clone_is_unfitted_and_gives_the_same(self, tracks):
        fitted = self.make().fit(tracks)
        copy = clone(fitted)
        assert not hasattr(copy, "n_features_in_")
        np.testing.assert_array_equal(copy.fit_transform(tracks), fitted.transform(tracks))

    def test_works_in_a_pipeline_under_a_grid_search(self, tracks):
        y = np.arange(len(tracks)) % 2
        pipeline = make_pipeline(self.make(), LogisticRegression())
        for X in (list(tracks), tracks):
            search = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0]}, cv=2)
            assert search.fit(X, y).predict(X).shape == (len(tracks),)

    def test_cross_validation_equals_a_loop_over_folds(self, tracks):
        """Folds are cut with everything that tracks have, the lengths of their segments too."""
        y = np.arange(len(tracks)) % 3
        pipeline = make_pipeline(self.make(), LogisticRegression())
        folds = KFold(4)
        found = cross_val_predict(pipeline, tracks, y, cv=folds)
        for train, test in folds.split(y):
            vectors = self.make().fit(tracks[train])
            model = LogisticRegression().fit(vectors.transform(tracks[train]), y[train])
            expected = model.predict(vectors.transform(tracks[test]))
            np.testing.assert_array_equal(found[test], expected)

    def test_another_width_is_refused(self, tracks):
        with pytest.raises(TaskError, match="features"):
            self.make().fit(tracks).transform([np.zeros((2, 5))])

    def test_vectors_that_are_not_finite_are_refused(self, tracks):
        bad = tracks[list(range(len(tracks)))]
        bad.values[3, 2] = np.nan
        with pytest.raises(TaskError, match="NaN"):
            self.make().fit(bad)

    def test_a_track_without_segments_is_refused_and_named(self):
        with pytest.raises(TaskError, match="1 of 2 tracks have no segments: positions 1"):
            self.make().fit([np.ones((2, 3)), np.ones((0, 3))])

    def test_layers_must_be_chosen_first(self):
        with pytest.raises(TaskError, match="expected \\(n_segments, dim\\)"):
            self.make().fit(Ragged.from_tracks([np.ones((2, 13, 4))]))

    def test_tracks_of_different_width_are_refused(self):
        with pytest.raises(TaskError, match="differ in the width"):
            self.make().fit([np.ones((2, 3)), np.ones((2, 4))])

    def test_parameters_are_checked_by_fit(self, tracks):
        with pytest.raises(UsageError, match="expected"):
            self.make().set_params(**self.wrong).fit(tracks)
