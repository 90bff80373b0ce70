"""Masked modelling: what is blotted out, what is counted, what is never seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stage_two_world import random_tracks

from tune_cache.aggregation.pretraining import held_out_groups, masks
from tune_cache.aggregation.tensors import drawn_from
from tune_cache.aggregation.transformer import Transformer
from tune_cache.cache.ragged import Ragged


def small(**changed):
    return Transformer(**{"n_layers": 1, "hidden": 8, "batch_size": 4, "n_heads": 2} | changed)


@pytest.fixture(scope="module")
def tracks():
    return random_tracks(np.random.default_rng(5), 30, dim=4, lengths=(1, 4))


def test_some_segments_are_blotted_out_never_all_and_none_of_a_single_one():
    lengths = torch.tensor([1, 2, 3, 10, 20])
    present = torch.arange(20) < lengths[:, None]
    for seed in range(20):
        found = masks(present, 0.15, drawn_from(seed))
        assert not (found & ~present).any()
        assert found.sum(dim=1).tolist() == [0, 1, 1, 2, 3]
    drawn = torch.stack([masks(present, 0.15, drawn_from(seed))[3, :10] for seed in range(200)])
    assert drawn.float().mean(dim=0).sub(0.2).abs().max() < 0.12  # every place alike


def test_steps_are_counted_and_tracks_of_one_segment_left_out(tracks):
    facts = small().fit(tracks).trained_.facts
    n_long = int((tracks.lengths > 1).sum())
    assert facts["tracks"] == n_long
    assert facts["one_segment"] == 30 - n_long
    assert (facts["epochs"], facts["steps"]) == (1, -(-n_long // 4))
    assert facts["held_out"] == 0


def test_where_no_track_has_two_segments_nothing_is_trained():
    single = random_tracks(np.random.default_rng(5), 12, dim=4, lengths=(1, 1))
    fitted = small(pretrain_epochs=5).fit(single)
    assert fitted.trained_.facts["steps"] == 0
    start = small(pretrain_epochs=0).fit(single).trained_.weights
    for name, value in fitted.trained_.weights.items():
        np.testing.assert_array_equal(value, start[name])


def test_several_epochs_stop_by_held_out_training_tracks_and_return_to_the_best():
    """Noise cannot be guessed: it only gets worse."""
    noise = random_tracks(np.random.default_rng(1), 40, dim=4, lengths=(3, 3))
    facts = small(pretrain_epochs=400, patience=3, learning_rate=0.03).fit(noise).trained_.facts
    assert facts["held_out"] == 4
    assert facts["epochs"] == facts["best_epoch"] + 3 < 400


def test_what_can_be_guessed_is_learnt():
    """Every segment of a track is the same vector."""
    rng = np.random.default_rng(0)
    same = Ragged.from_tracks(
        [np.repeat(rng.standard_normal((1, 4)), 4, axis=0).astype("f4") for _ in range(64)]
    )
    before, after = (
        small(pretrain_epochs=n, learning_rate=0.01, patience=30).fit(same).trained_.facts
        for n in (2, 30)
    )
    assert after["loss_held_out"] < 0.5 < before["loss_held_out"]


def test_groups_are_held_out_whole():
    groups = [f"g{place // 3}" for place in range(60)]
    away = held_out_groups(groups, 0.1, seed=1)
    assert away.sum() == 6
    assert len({group for group, is_away in zip(groups, away, strict=True) if is_away}) == 2


def test_two_runs_with_one_seed_agree_to_the_last_bit_and_touch_nothing_global(tracks):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    one, two = (small(pretrain_epochs=3).fit(tracks).trained_.weights for _ in range(2))
    other = small(pretrain_epochs=3, seed=1).fit(tracks).trained_.weights
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])
    assert any((value != other[name]).any() for name, value in one.items())
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
