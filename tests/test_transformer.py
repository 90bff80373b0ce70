"""A frozen transformer as an aggregation, beside the same forward written out in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from aggregation_contract import AggregationContract
from scipy.special import erf, softmax
from sklearn.utils.estimator_checks import parametrize_with_checks
from stage_two_world import random_tracks

from tune_cache.aggregation.networks import heads_for
from tune_cache.aggregation.transformer import Transformer
from tune_cache.errors import TaskError, UsageError


def small(**changed):
    return Transformer(**{"n_layers": 2, "hidden": 12, "batch_size": 4, "n_heads": 3} | changed)


def norm(x, weights, name):
    away = x - x.mean(axis=-1, keepdims=True)
    scaled = away / np.sqrt(np.square(away).mean(axis=-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def encoded(track, fitted):
    """One track, one head and one layer at a time."""
    w = {name: value.astype(np.float64) for name, value in fitted.trained_.weights.items()}
    x = (track - fitted.mean_) / fitted.scale_
    x = np.vstack([w["cls"], x + w["positions"][: len(x)]])
    heads, width = fitted.shape_.n_heads, x.shape[1] // fitted.shape_.n_heads
    for layer in range(fitted.n_layers):
        q, k, v = np.split(linear(norm(x, w, f"{layer}.norm1"), w, f"{layer}.qkv"), 3, axis=1)
        seen = []
        for head in range(heads):
            some = slice(head * width, (head + 1) * width)
            shares = softmax(q[:, some] @ k[:, some].T / np.sqrt(width), axis=1)
            seen.append(shares @ v[:, some])
        x = x + linear(np.hstack(seen), w, f"{layer}.out")
        inner = linear(norm(x, w, f"{layer}.norm2"), w, f"{layer}.up")
        x = x + linear(inner * (1 + erf(inner / np.sqrt(2))) / 2, w, f"{layer}.down")
    return norm(x, w, "norm")


class TestTransformer(AggregationContract):
    keeps_order = True
    wrong = {"readout": "nothing"}  # noqa: RUF012  # never changed

    def make(self):
        return small()

    def reference(self, train, tracks):
        fitted = self.make().fit(train)
        return np.array([encoded(track, fitted)[0] for track in tracks])

    @pytest.mark.parametrize(("given", "made"), [("f2", "f4"), ("f4", "f4"), ("f8", "f8")])
    def test_float16_is_accumulated_in_float32(self, given, made):
        """Fewer segments than elsewhere, which attention compares in pairs."""
        rng = np.random.default_rng(0)
        tracks = [(1000 + 50 * rng.standard_normal((100, 2))).astype(given) for _ in range(3)]
        fitted = small(n_layers=1, n_heads=1, pretrain_epochs=0).fit(tracks)
        found = fitted.transform(tracks)  # the sum is beyond float16's range
        assert found.dtype == np.dtype(made)
        slow = np.array([encoded(track.astype(float), fitted)[0] for track in tracks])
        np.testing.assert_allclose(found, slow, rtol=1e-4, atol=1e-4)

    def test_equals_the_obvious_slow_version(self, tracks):
        fitted = self.make().fit(tracks[:8])
        slow = np.array([encoded(track, fitted)[0] for track in tracks[4:]])
        np.testing.assert_allclose(fitted.transform(tracks[4:]), slow, rtol=1e-4, atol=1e-5)


@parametrize_with_checks([small(n_layers=1)])
def test_it_is_what_scikit_learn_calls_a_transformer(estimator, check):
    check(estimator)


@pytest.fixture
def tracks():
    return random_tracks(np.random.default_rng(5), 30, dim=6, lengths=(1, 4))


def test_the_mean_read_out_is_the_mean_over_a_track_s_outputs(tracks):
    fitted = small(readout="mean").fit(tracks)
    slow = np.array([encoded(track, fitted)[1:].mean(axis=0) for track in tracks])
    np.testing.assert_allclose(fitted.transform(tracks), slow, rtol=1e-4, atol=1e-5)


def test_a_track_s_output_is_the_same_to_the_last_bit_in_any_company():
    """At a width whose products of few rows and of many differ."""
    tracks = random_tracks(np.random.default_rng(1), 30, dim=256, lengths=(1, 4))
    fitted = small(n_layers=1, n_heads=8, pretrain_epochs=0).fit(tracks)
    together = fitted.transform(tracks)
    for track in range(30):
        np.testing.assert_array_equal(fitted.transform(tracks[[track]])[0], together[track])


def test_learnt_positions_cut_longer_tracks_and_say_so(tracks):
    fitted = small(max_segments=2).fit(tracks)
    assert fitted.n_truncated(tracks.lengths) == (tracks.lengths > 2).sum() > 0
    cut = dataclasses.replace(tracks)
    found = fitted.transform(cut)
    np.testing.assert_array_equal(found, fitted.transform([track[:2] for track in tracks]))
    assert small(positions="sinusoidal").fit(tracks).n_truncated(np.array([500])) == 0


def test_without_positions_order_makes_no_difference(tracks):
    turned = [track[::-1] for track in tracks]
    for positions, differs in (("none", False), ("sinusoidal", True)):
        fitted = small(positions=positions).fit(tracks)
        same = np.allclose(fitted.transform(turned), fitted.transform(tracks), atol=1e-5)
        assert same is not differs


def test_a_width_that_eight_does_not_divide_has_fewer_heads(tracks):
    assert small(n_heads=4).fit(tracks).shape_.n_heads == 3
    assert heads_for(128, 8) == 8


def test_tracks_of_one_segment_are_flagged(tracks):
    fitted = small().fit(tracks)
    n_one = int((tracks.lengths == 1).sum())
    assert fitted.flags(tracks.lengths) == [f"unmasked: {n_one} tracks have one segment"]
    assert "maps one vector" in fitted.flags(np.ones(4))[0]
    assert fitted.flags(np.full(4, 2)) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"positions": "some"}, "positions are 'some'"),
        ({"pretrain_epochs": -1}, "pretrain_epochs is -1, expected 0 or more"),
        ({"masked": 1.0}, "masked is 1.0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tracks, wrong, why):
    with pytest.raises(UsageError, match=why):
        small(**wrong).fit(tracks)


def test_it_cannot_be_fine_tuned_without_a_head(tracks):
    with pytest.raises(TaskError, match="trained with a probe's head"):
        small(finetune=True).fit(tracks)


def test_weights_of_another_width_are_refused(tracks):
    other = small().fit(random_tracks(np.random.default_rng(0), 5, dim=4, lengths=(2, 3)))
    with pytest.raises(TaskError, match="weights are for 4 dimensions, vectors have 6"):
        small().fit(tracks, trained=other.trained_)
