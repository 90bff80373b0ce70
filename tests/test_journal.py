"""A unit is done only if it is whole, of this spec and under its own number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from world import ToyEncoder, toy_spec

from tune_cache.cache.journal import JournalUnit, TrackOutcome, read_unit, unit_path, write_unit

SPEC = toy_spec(ToyEncoder())


@pytest.fixture
def work(tmp_path):
    (tmp_path / "units").mkdir()
    rows = np.arange(2 * 3 * 8, dtype=np.float16).reshape(2, 3, 8)
    unit = JournalUnit(
        outcomes=(TrackOutcome(track_id="t", audio_sha256="0" * 64, status="ok", n_rows=2),),
        embeddings={"mean": rows},
        start_sample=np.array([0, 8000]),
        n_samples=np.array([8000, 8000], np.int32),
    )
    write_unit(tmp_path, 0, SPEC, unit)
    return tmp_path


def test_a_unit_comes_back_as_it_was(work):
    unit = read_unit(work, 0, SPEC)
    assert unit is not None
    assert unit.embeddings["mean"].ravel().tolist() == list(range(48))


def test_a_unit_with_any_flipped_bit_is_no_unit(work):
    path = unit_path(work, 0)
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        found = read_unit(work, 0, SPEC)
        # white space of the header, and what JSON may write in two ways, change nothing
        assert found is None or found.embeddings["mean"].ravel().tolist() == list(range(48))
    n_bytes_of_rows = 96
    for position in range(len(data) - n_bytes_of_rows, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        assert read_unit(work, 0, SPEC) is None, position


def test_a_unit_cut_short_is_no_unit(work):
    path = unit_path(work, 0)
    data = path.read_bytes()
    for length in range(0, len(data), 11):
        path.write_bytes(data[:length])
        assert read_unit(work, 0, SPEC) is None


def test_a_unit_of_another_number_or_spec_is_no_unit(work):
    other = unit_path(work, 1)
    other.write_bytes(unit_path(work, 0).read_bytes())
    assert read_unit(work, 1, SPEC) is None
    assert read_unit(work, 0, dataclasses.replace(SPEC, channels="first")) is None


def test_a_link_is_no_unit(work):
    unit_path(work, 1).symlink_to(unit_path(work, 0))
    assert read_unit(work, 1, SPEC) is None
