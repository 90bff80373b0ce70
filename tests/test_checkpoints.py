"""Weights are read back as they were written, or not at all."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest

from tune_cache.aggregation.checkpoints import Trained, checkpoint_path, obtain, read
from tune_cache.errors import StoreCorruptError, StoreMismatchError, StoreNotFoundError

RECORD = {"trained": "a test", "vectors": "00", "settings": {"seed": 1, "positions": None}}


@pytest.fixture
def made(tmp_path):
    """A folder, its one checkpoint, and how often something was trained."""
    calls = []

    def make():
        calls.append(1)
        rng = np.random.default_rng(0)
        weights = {"b": rng.standard_normal((3, 2)).astype("f4"), "a.weight": np.zeros(2, "f4")}
        return Trained(weights=weights, facts={"steps": 3})

    obtain(RECORD, make, folder=tmp_path / "aggregators")
    return tmp_path / "aggregators", checkpoint_path(tmp_path / "aggregators", RECORD), make, calls


def test_what_was_trained_once_is_read(made):
    folder, path, make, calls = made
    again = obtain(RECORD, make, folder=folder)
    assert len(calls) == 1
    assert again.facts == {"steps": 3}
    fresh = make()
    assert again.weights.keys() == fresh.weights.keys()
    for name, value in fresh.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)
    assert [item.name for item in folder.iterdir()] == [path.name]


def test_the_same_weights_are_the_same_bytes(made, tmp_path):
    _, path, make, _ = made
    obtain(RECORD, make, folder=tmp_path / "other")
    assert (tmp_path / "other" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "changed",
    [{"vectors": "01"}, {"settings": {"seed": 2, "positions": None}}, {"more": 1}],
    ids=str,
)
def test_another_record_is_another_checkpoint_and_one_for_it_is_refused(made, changed):
    folder, path, make, calls = made
    record = RECORD | changed
    assert checkpoint_path(folder, record) != path
    with pytest.raises(StoreMismatchError, match="was trained on or by something else") as caught:
        obtain(record, make, exactly=path)
    assert next(iter(changed)) in str(caught.value)
    assert "--aggregator" in caught.value.hint
    path.rename(checkpoint_path(folder, record))
    with pytest.raises(StoreMismatchError):
        obtain(record, make, folder=folder)
    assert len(calls) == 1


def test_every_flipped_byte_and_every_cut_is_noticed(made):
    folder, path, make, calls = made
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x21]) + whole[place + 1 :])
        with pytest.raises((StoreCorruptError, StoreMismatchError)) as caught:
            obtain(RECORD, make, folder=folder)
        assert "remove" in caught.value.hint
    for n in range(0, len(whole), 7):
        path.write_bytes(whole[:n])
        with pytest.raises(StoreCorruptError):
            obtain(RECORD, make, folder=folder)
    assert len(calls) == 1


def test_a_missing_one_that_was_asked_for_is_an_error(made, tmp_path):
    with pytest.raises(StoreNotFoundError, match="is not there") as caught:
        obtain(RECORD, made[2], exactly=tmp_path / "nothing.safetensors")
    assert "to train it" in caught.value.hint
    assert len(made[3]) == 1


def test_a_file_of_somebody_else_is_no_checkpoint(made):
    from safetensors.numpy import save

    path = made[1]
    for data in (save({"a": np.zeros(2)}), b"", b"text", struct.pack("<Q", 1 << 60)):
        path.write_bytes(data)
        with pytest.raises(StoreCorruptError, match="damaged or none of ours"):
            read(path, RECORD)


def test_a_record_that_was_rewritten_is_noticed(made):
    path = made[1]
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    told = header["__metadata__"]["tune_cache"].replace('"seed":1', '"seed":2')
    header["__metadata__"]["tune_cache"] = told
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    record = {**RECORD, "settings": {"seed": 2, "positions": None}}
    with pytest.raises(StoreCorruptError, match="sha256"):
        read(path, record)
