"""Vectors of others: a folder with a .npy or .pt a track becomes a store that says so."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import tune
from exchange_world import HOSTILE_IDS, files_of, leftovers
from rivals import places_to_stop, stop_for_a_rival
from small_dataset import make_small_dataset
from test_hostile_exchange import Pwn, with_header
from test_preflight import Usage
from world import World

import tune_cache
from tune_cache.cache import disk, preflight
from tune_cache.cache.exchange.foreign import ForeignTrack, foreign_assembly
from tune_cache.cache.exchange.vectors import describe
from tune_cache.cache.layout import Layout
from tune_cache.errors import StoreCorruptError, StoreError, StoreMismatchError, UsageError

MOST_BYTES = 60 << 20


def save(path: Path, array) -> None:
    """Write one file by its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pt":
        torch.save(array if isinstance(array, torch.Tensor) else torch.from_numpy(array), path)
    else:
        with path.open("wb") as file:
            np.save(file, array)


def rows(n: int, n_layers: int = 2, dim: int = 5, dtype: str = "f4", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng([seed, n]).standard_normal((n, n_layers, dim))
    return values.astype(dtype)


def bring(folder: Path, **options):
    given = {"encoder_name": "clap", "seg": 10, "cache_dir": folder.parent / "cache", **options}
    return tune_cache.import_store(folder, **given)


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "vectors").mkdir()
    return tmp_path / "vectors"


@pytest.mark.parametrize("suffix", ["npy", "pt"])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_vectors_come_back_as_they_were(folder, suffix, dtype, axes):
    arrays = {}
    for index, n in enumerate([3, 1, 4]):
        array = rows(n, dtype=dtype)
        array = array if axes == 3 else array[:, 0] if axes == 2 else array[0, 0]
        save(folder / f"sub/{index}.{suffix}", array)
        arrays[f"sub/{index}"] = array
    store = bring(folder).store
    assert store.track_ids == tuple(sorted(arrays))
    assert store.spec.dtype == ("f2" if dtype == "f2" else "f4")
    for name, array in arrays.items():
        found = store.read([name]).values
        expected = array.reshape(found.shape)
        np.testing.assert_array_equal(found, expected.astype(found.dtype))


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(rows(7)),
        np.asfortranarray(rows(7)[:, 0]),
        rows(7).astype(">f4"),
        rows(7)[::2],
        torch.randn(9, 2, 5)[2:4],
        torch.randn(2, 5, 3).permute(2, 0, 1),
        torch.randn(3, 2, 5, requires_grad=True),
        torch.randn(3, 2, 5).bfloat16(),
    ],
    ids=["fortran", "fortran-2", "big-endian", "strided", "view", "permuted", "grad", "bfloat16"],
)
def test_however_they_were_saved(folder, array):
    is_tensor = isinstance(array, torch.Tensor)
    save(folder / ("a.pt" if is_tensor else "a.npy"), array)
    store = bring(folder).store
    found = store.read(["a"]).values
    expected = array.detach().float().numpy() if is_tensor else array
    np.testing.assert_array_equal(found, expected.reshape(found.shape))


def test_more_rows_than_a_block_are_read_in_order(folder, monkeypatch):
    monkeypatch.setattr("tune_cache.cache.exchange.vectors.BLOCK_BYTES", 100)
    array = rows(1500)
    save(folder / "a.npy", array)
    np.testing.assert_array_equal(bring(folder).store.read(["a"]).values, array)


def test_memory_does_not_grow_with_the_file(folder):
    save(folder / "b.npy", rows(1, 8, 100))
    bring(folder, cache_dir=folder.parent / "warm")
    peaks = []
    for n_rows in (5_000, 20_000):
        save(folder / "a.npy", rows(n_rows, 8, 100))
        tracemalloc.start()
        bring(folder, cache_dir=folder.parent / str(n_rows))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = 15_000 * 8 * 100 * 4
    assert peaks[1] - peaks[0] < grown // 10


def test_the_identity_is_the_vectors_and_no_encoder_s(folder, tmp_path):
    save(folder / "a.npy", rows(3))
    first = bring(folder).store
    assert first.spec.encoder.name == "import:clap"
    assert first.path.parent.name == "import:clap"
    assert first.spec.resampler == first.spec.decoder == "unknown"
    assert "importer's word" in first.attrs["encoder_note"]
    save(folder / "a.pt", rows(3))
    (folder / "a.npy").unlink()
    same = bring(folder, cache_dir=tmp_path / "same").store  # in another kind of file
    assert same.spec == first.spec
    assert same.content_digest == first.content_digest
    seen = {first.spec.key}
    for number, change in enumerate(
        [{"seg": 5}, {"hop": 5}, {"encoder_name": "other"}, {"dtype": "f2"}]
    ):
        key = bring(folder, cache_dir=tmp_path / f"{number}", **change).store.spec.key
        assert key not in seen
        seen.add(key)
    values = rows(3)
    values[2, 1, 4] = np.nextafter(values[2, 1, 4], np.float32(9))
    save(folder / "a.pt", values)
    other = bring(folder, cache_dir=tmp_path / "changed").store
    assert other.spec.key not in seen


def test_the_same_folder_is_found_again(folder):
    save(folder / "a.npy", rows(3))
    assert not bring(folder).hit
    assert bring(folder).hit


@pytest.mark.parametrize("honest", [True, False], ids=["locks work", "locks lie"])
def test_another_import_may_do_everything_between_any_two_system_calls(folder, tmp_path, honest):
    for number in range(3):
        save(folder / f"{number}.npy", rows(3, seed=number))
    for call in places_to_stop(partial(bring, folder), sample=6):
        cache = tmp_path / str(call)
        work = partial(bring, folder, cache_dir=cache)
        assert stop_for_a_rival(work, call, honest=honest) == [0, 0], call
        assert leftovers([cache]) == [], call
        assert bring(folder, cache_dir=cache).hit
        shutil.rmtree(cache)


def test_the_grid_is_what_the_importer_says(folder):
    save(folder / "a.npy", rows(3))
    store = bring(folder, seg=10, hop=2.5).store
    assert store.segment_start.tolist() == [0, 2500, 5000]
    assert store.segment_n_samples.tolist() == [10_000] * 3
    assert store.spec.segments.length_seconds == 10
    assert store.n_samples.tolist() == [15_000]
    assert store.attrs["coverage"]["seconds_encoded"] == 15
    save(folder / "a.npy", rows(1)[0, 0])
    whole = bring(folder, seg="full").store
    assert whole.spec.segments.is_full
    assert whole.segment_n_samples.tolist() == [1000]


def test_a_file_without_rows_is_a_failed_track(folder):
    save(folder / "a.npy", rows(3))
    save(folder / "b.npy", rows(0))
    report = bring(folder)
    assert report.failed == {"b": "no-vectors: imported file 'b.npy' has no segments"}
    assert len(report.store.read(["a"])) == 1


def test_hostile_names_are_ids_like_any_other(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [name for name in HOSTILE_IDS if "\0" not in name and ".." not in name]
    for index, name in enumerate(names):
        save(folder / f"{name}.npy", rows(1, seed=index))
    report = bring(folder)
    assert report.store.track_ids == tuple(sorted(names))
    tune_cache.export_store(report.store, tmp_path / "a.h5")
    back = tune_cache.import_store(tmp_path / "a.h5", cache_dir=tmp_path / "other")
    assert files_of(back.store.path) == files_of(report.store.path)
    assert not (tmp_path / "pwned").exists()


def test_other_files_and_hidden_ones_are_not_looked_at(folder):
    save(folder / "a.npy", rows(1))
    (folder / "README.txt").write_text("hello")
    (folder / "._a.npy").write_bytes(b"resource fork")
    (folder / ".git").mkdir()
    (folder / ".git/b.npy").write_bytes(b"x")
    assert bring(folder).store.track_ids == ("a",)


# links and odd files


def test_a_link_within_the_folder_is_followed(folder):
    (folder / ".objects").mkdir()
    save(folder / ".objects/x.npy", rows(2))
    (folder / ".objects/x.npy").rename(folder / ".objects/1234")
    (folder / "a.npy").symlink_to(".objects/1234")
    np.testing.assert_array_equal(bring(folder).store.read(["a"]).values, rows(2))


@pytest.mark.parametrize("name", ["a.npy", "a.pt"])
def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path, name):
    save(tmp_path / "outside" / name, rows(2))
    (folder / name).symlink_to(tmp_path / "outside" / name)
    with pytest.raises(StoreError, match="leads out of the folder"):
        bring(folder)


def test_a_linked_folder_is_refused(folder, tmp_path):
    save(folder / "a.npy", rows(2))
    (folder / "loop").symlink_to(folder)
    with pytest.raises(StoreError, match="is a link"):
        bring(folder)


@pytest.mark.parametrize("kind", ["fifo", "folder", "dangling", "loop"])
def test_what_is_no_file_is_refused(folder, kind):
    save(folder / "a.npy", rows(2))
    odd = folder / "b.npy"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "folder":
        save(odd / "c.npy", rows(1))
        assert bring(folder).store.track_ids == ("a", "b.npy/c")
        return
    else:
        odd.symlink_to("nothing" if kind == "dangling" else "b.npy")
    with pytest.raises(StoreError, match=r"regular file|leads nowhere"):
        bring(folder)


def test_two_files_of_one_name_are_refused(folder):
    save(folder / "a.npy", rows(2))
    save(folder / "a.pt", rows(2))
    with pytest.raises(StoreError, match="two files"):
        bring(folder)


def test_an_empty_folder_is_a_sentence(folder):
    with pytest.raises(StoreError, match=r"has no \.npy or \.pt file"):
        bring(folder)


# values


@pytest.mark.parametrize("suffix", ["npy", "pt"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_names_its_file_and_segment(folder, suffix, bad):
    save(folder / "good.npy", rows(2))
    values = rows(4)
    values[2, 1, 3] = bad
    save(folder / f"x/bad.{suffix}", values)
    with pytest.raises(StoreError, match=rf"file 'x/bad\.{suffix}', segment 2.*not finite"):
        bring(folder)
    assert not list(folder.parent.rglob("COMPLETE"))


@pytest.mark.parametrize(
    ("value", "dtype", "match"),
    [(1e300, None, "beyond float32"), (1e5, "f2", "use --dtype f4"), (1e300, "f2", "--dtype f4")],
)
def test_a_value_that_does_not_fit_is_refused(folder, value, dtype, match):
    values = rows(3, dtype="f8")
    values[1, 0, 0] = value
    save(folder / "a.npy", values)
    with pytest.raises(StoreError, match=f"'a.npy', segment 1: .*{match}"):
        bring(folder, dtype=dtype)


def test_a_file_that_changes_between_the_two_readings_is_refused(folder):
    save(folder / "a.npy", rows(3))
    save(folder / "b.npy", rows(3))
    tracks = [
        ForeignTrack(track_id=name, file=describe(folder / f"{name}.npy", f"{name}.npy"))
        for name in ("a", "b")
    ]
    assembly = foreign_assembly(tracks, name="x", seconds=10)
    save(folder / "b.npy", rows(3, seed=1))
    with pytest.raises(StoreError, match=r"'b\.npy' changed"):
        list(assembly.rows("mean"))
    for other in (rows(2), np.asfortranarray(rows(2))):
        save(folder / "b.npy", other)
        with pytest.raises(StoreError, match=r"'b\.npy' changed"):
            list(assembly.rows("mean"))


def test_a_large_file_in_fortran_s_order_is_a_sentence(folder, monkeypatch):
    monkeypatch.setattr("tune_cache.cache.exchange.vectors.LARGEST_WHOLE_BYTES", 100)
    save(folder / "a.npy", np.asfortranarray(rows(7)))
    with pytest.raises(StoreMismatchError, match="in Fortran's order") as caught:
        bring(folder)
    assert "ascontiguousarray" in caught.value.hint


def test_a_folder_is_no_file_of_ours(folder):
    save(folder / "a.npy", rows(1))
    with pytest.raises(StoreMismatchError, match="a folder of vectors, --format says npz"):
        bring(folder, format="npz")
    assert bring(folder, format="vectors").store.n_tracks == 1


# flags


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"encoder_name": None}, "not what made them"),
        ({"seg": None}, "not what made them"),
        ({"encoder_name": "../x"}, "encoder is called"),
        ({"encoder_name": ""}, "encoder is called"),
        ({"encoder_name": "a/b"}, "encoder is called"),
        ({"seg": "ten"}, "'ten'"),
        ({"seg": -1}, "-1"),
        ({"seg": "full", "hop": 3}, "whole tracks"),
        ({"dtype": "f8"}, "expected one of f2, f4"),
        ({"ids": "name"}, "expected path or manifest"),
        ({"ids": "path", "dataset": "x"}, "takes track ids from file names"),
        ({"format": "cvs"}, "expected one of"),
    ],
)
def test_flags_that_say_nothing_are_refused(folder, options, match):
    save(folder / "a.npy", rows(3))
    with pytest.raises(UsageError, match=match):
        bring(folder, **options)


@pytest.mark.parametrize(
    ("first", "second", "options", "match"),
    [
        (rows(2), rows(2, dim=6), {}, "differ in"),
        (rows(2), rows(2)[:, 0], {}, "differ in"),
        (rows(1), rows(2), {"seg": "full"}, "means one segment"),
        (rows(0), rows(0), {}, "none of 2 files has a vector"),
        (rows(1), np.zeros((1, 1, 1, 5), "f4"), {}, "has shape"),
        (rows(1), np.zeros((), "f4"), {}, "has shape"),
        (rows(1), np.zeros((3, 0), "f4"), {}, "has shape"),
        (rows(1), np.zeros((1, 1 << 19), "f4"), {}, "has shape"),
        (rows(1), np.zeros((2, 5), "i4"), {}, "holds int32"),
        (rows(1), np.zeros((2, 5), "c8"), {}, "holds complex64"),
        (rows(1), np.zeros((2, 5), "g"), {}, "holds (float128|longdouble)"),
        (rows(1), np.zeros((2, 5), "U4"), {}, "holds str"),
        (rows(1), np.zeros((2, 5), "M8[s]"), {}, "holds datetime64"),
    ],
    ids=lambda value: str(value.shape) + value.dtype.name if isinstance(value, np.ndarray) else "",
)
def test_files_that_cannot_be_one_encoder_s_are_refused(folder, first, second, options, match):
    save(folder / "a.npy", first)
    save(folder / "b.npy", second)
    with pytest.raises(StoreMismatchError, match=match):
        bring(folder, **options)


# hostile files


def torch_zip(path: Path, change) -> None:
    """Save a tensor and change the members of its zip."""
    buffer = io.BytesIO()
    torch.save(torch.randn(3, 2, 5), buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    options = change(members) or {}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def edited(old: bytes, new: bytes):
    def change(members):
        name = next(name for name in members if name.endswith("data.pkl"))
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    return lambda path: torch_zip(path, change)


def shortened(members):
    name = next(name for name in members if name.endswith("data/0"))
    members[name] = members[name][:-4]


def a_bomb_of_tuples(members):
    """Nested pairs of themselves as a key: 2**60 steps to hash."""
    name = next(name for name in members if name.endswith("data.pkl"))
    body = b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
    )
    members[name] = b"\x80\x02}K\x01q\x00" + body + b"K\x01s."


def pickled(make):
    def change(path: Path):
        def replace(members):
            name = next(name for name in members if name.endswith("data.pkl"))
            members[name] = make(path.parent)

        torch_zip(path, replace)

    return change


def written(data):
    return lambda path: path.write_bytes(data(path.parent) if callable(data) else data)


def f4_header(shape: str) -> bytes:
    return with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}", bytes(40))


HOSTILE = {
    "pickle.npy": written(lambda folder: pickle.dumps(Pwn(folder))),
    "objects.npy": lambda path: np.save(
        path, np.array([Pwn(path.parent)], object), allow_pickle=True
    ),
    "records.npy": lambda path: np.save(path, np.zeros(3, [("a", "f4")])),
    "trillion.npy": written(f4_header("(1000000000000, 1024)")),
    "trillion-in-fortran.npy": written(
        f4_header("(1000000000000, 1024)").replace(b"False", b"True ")
    ),
    "overflow.npy": written(f4_header("(4611686018427387904, 4)")),
    "negative.npy": written(f4_header("(-1, -10)")),
    "true.npy": written(f4_header("(True, 10)")),
    "code.npy": written(with_header("__import__('pathlib').Path('pwned').touch()")),
    "brackets.npy": written(with_header("[" * 9000)),
    "endless.npy": written(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)),
    "later.npy": written(b"\x93NUMPY\x03\x00" + bytes(200)),
    "empty.npy": written(b""),
    "magic.npy": written(b"\x93NUMPY"),
    "text.npy": written(b"0.1 0.2 0.3\n"),
    "longer.npy": written(f4_header("(1, 9)")),
    "shorter.npy": written(f4_header("(1, 11)")),
    "zip.npy": lambda path: torch.save(torch.zeros(3), path),
    "pickle.pt": written(lambda folder: pickle.dumps(Pwn(folder))),
    "module.pt": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "dict.pt": lambda path: torch.save({"x": torch.zeros(3)}, path),
    "list.pt": lambda path: torch.save([torch.zeros(3)], path),
    "number.pt": lambda path: torch.save(3.0, path),
    "object.pt": lambda path: torch.save(Pwn(path.parent), path),
    "parameter.pt": lambda path: torch.save(torch.nn.Parameter(torch.zeros(3)), path),
    "sparse.pt": lambda path: torch.save(torch.eye(3).to_sparse(), path),
    "meta.pt": lambda path: torch.save(torch.zeros(10**12, device="meta"), path),
    "quantized.pt": lambda path: torch.save(
        torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8), path
    ),
    "integers.pt": lambda path: torch.save(torch.zeros(3, dtype=torch.int32), path),
    "expanded.pt": lambda path: torch.save(torch.zeros(1).expand(10**6, 1024), path),
    "legacy.pt": lambda path: torch.save(
        torch.zeros(3), path, _use_new_zipfile_serialization=False
    ),
    "payload.pt": pickled(lambda folder: pickle.dumps(Pwn(folder), 2)),
    "system.pt": pickled(lambda folder: b"cos\nsystem\n(S'touch pwned'\ntR."),
    "tuples.pt": lambda path: torch_zip(path, a_bomb_of_tuples),
    "one.pt": pickled(lambda folder: b"\x80\x02K\x01."),
    "endless.pt": pickled(lambda folder: b"\x80\x02" + b"K\x01" * 3000 + b"."),
    "large-pickle.pt": pickled(lambda folder: b"\x80\x02" + b"K\x01" * 100_000 + b"."),
    "no-pickle.pt": lambda path: torch_zip(path, lambda m: m.pop("archive/data.pkl") and None),
    "no-storage.pt": lambda path: torch_zip(path, lambda m: m.pop("archive/data/0") and None),
    "two-storages.pt": lambda path: torch_zip(path, lambda m: m.update({"archive/data/1": b"x"})),
    "two-pickles.pt": lambda path: torch_zip(path, lambda m: m.update({"x/data.pkl": b"x"})),
    "short-storage.pt": lambda path: torch_zip(path, shortened),
    "large-storage.pt": edited(b"cpuq\x04K\x1e", b"cpuq\x04J\xff\xff\xff\x7f"),
    "large-tensor.pt": edited(b"K\x03K\x02K\x05\x87", b"J\xff\xff\xff\x0fK\x02K\x05\x87"),
    "deflated.pt": lambda path: torch_zip(path, lambda m: {"compression": zipfile.ZIP_DEFLATED}),
    "bomb.pt": lambda path: torch_zip(
        path,
        lambda m: (
            m.update({"archive/data/0": bytes(50 << 20)}) or {"compression": zipfile.ZIP_DEFLATED}
        ),
    ),
    "npy.pt": written(f4_header("(1, 10)")),
    "empty.pt": written(b""),
}


@pytest.mark.filterwarnings("ignore:.*quantize:DeprecationWarning")  # making one is deprecated
@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    save(folder / "good.npy", rows(2))
    HOSTILE[name](folder / name)
    tracemalloc.start()
    with pytest.raises(StoreError) as caught:
        bring(folder)
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()
    assert not isinstance(caught.value, StoreCorruptError)  # there is no store to be damaged
    assert "export" not in (caught.value.hint or "")
    assert repr(name) in str(caught.value)
    assert "differ in" not in str(caught.value)  # refused for what it is, not for its width
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert not list(folder.parent.rglob("pwned"))
    assert not list(folder.parent.rglob("*.zarr"))
    assert leftovers([folder.parent]) == []


@pytest.mark.parametrize(
    ("names", "told"), [(["a.npy"], "'a.npy' has more"), (["a.npy", "b.npy"], "'b.npy' have more")]
)
def test_one_file_has_and_two_have_too_many_segments(folder, names, told):
    for name in names:
        save(folder / name, rows(2))
    with pytest.raises(StoreMismatchError, match=told):
        bring(folder, seg="full")


ONE = torch.ones(3, 2, 5)


def cut_off(path: Path) -> None:
    torch.save(ONE, path)
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("name", "write", "match", "hint"),
    [
        ("a.npy", HOSTILE["empty.npy"], "cannot be read: EOF", "numpy.save(path"),
        ("a.npy", HOSTILE["shorter.npy"], "header claims 44 bytes", "numpy.save(path"),
        ("a.npy", HOSTILE["records.npy"], "objects and records", "numpy.save(path"),
        ("a.pt", HOSTILE["legacy.pt"], "no zip archive of torch's", "torch.save(tensor"),
        ("a.pt", HOSTILE["pickle.pt"], "no zip archive of torch's", "torch.save(tensor"),
        ("a.pt", cut_off, "no zip archive of torch's: it is cut off", "torch.save(tensor"),
        ("a.pt", HOSTILE["integers.pt"], "holds int32, expected one of float16", "tensor.float()"),
        (
            "a.pt",
            lambda path: torch.save(ONE.to(torch.complex64), path),
            "holds complex64, expected",
            "tensor.float()",
        ),
        (
            "a.pt",
            lambda path: torch.save(ONE.to(torch.uint16), path),
            "holds unsigned integers",
            "tensor.float()",
        ),
        *(
            (
                "a.pt",
                lambda path, number=number: torch.save(ONE, path, pickle_protocol=number),
                f"pickle of protocol {told}, expected 2",
                "without pickle_protocol",
            )
            for number, told in [(1, "0 or 1"), (4, "4"), (5, "5")]
        ),
    ],
)
def test_how_to_save_a_file_that_is_refused_is_said(folder, name, write, match, hint):
    write(folder / name)
    with pytest.raises(StoreMismatchError, match=match) as caught:
        bring(folder)
    assert hint in caught.value.hint
    assert "not one tensor" not in str(caught.value)


def test_a_rewritten_tensor_is_read(folder):
    """The hostile ones above differ from this in what the test names."""
    torch_zip(folder / "a.pt", lambda members: None)
    assert bring(folder).store.n_segments == 3


@pytest.mark.parametrize(
    "returned",
    [
        lambda: torch.zeros(1).expand(10**6, 1024),
        lambda: torch.zeros(31),
        lambda: torch.zeros(29),
        lambda: torch.zeros(30, device="meta"),
        lambda: torch.eye(5).to_sparse(),
        lambda: [torch.zeros(30)],
    ],
    ids=["expanded", "longer", "shorter", "meta", "sparse", "list"],
)
def test_what_torch_returns_is_compared_with_the_file(folder, monkeypatch, returned):
    torch_zip(folder / "a.pt", lambda members: None)  # of 30 values
    value = returned()
    monkeypatch.setattr(torch, "load", lambda *args, **options: value)
    with pytest.raises(StoreError, match=r"'a\.pt' (claims|is not one tensor)"):
        bring(folder)


def test_nothing_is_loaded_of_a_pickle_that_was_not_looked_at(folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("torch.load was called"))
    for name in ("object.pt", "dict.pt", "tuples.pt", "payload.pt", "legacy.pt", "bomb.pt"):
        HOSTILE[name](folder / name)
        with pytest.raises(StoreError):
            bring(folder)
        (folder / name).unlink()


def test_an_import_without_room_is_refused_before_anything_is_written(folder, monkeypatch):
    save(folder / "a.npy", rows(3))
    store = bring(folder).store
    n_bytes = sum(
        path.stat().st_size
        for name in ("embeddings", "segments", "tracks")
        for path in (store.path / name).rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
    options = {"cache_dir": folder.parent / "other"}
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(n_bytes, 1, n_bytes - 1))
    with disk.observed(lambda operation, path, data: steps.append(operation) or data):
        steps: list[str] = []
        with pytest.raises(StoreError, match="will be written to") as caught:
            bring(folder, **options)
    assert "make room" in caught.value.hint
    assert set(steps) <= {"make-folder", "sync-folder"}
    assert not list((folder.parent / "other").rglob("*.zarr"))
    assert bring(folder).hit  # what is there needs none
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(n_bytes, 0, n_bytes))
    assert not bring(folder, **options).hit


# tracks of a dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Path]:
    home = tmp_path_factory.mktemp("home")
    return home, make_small_dataset(home / "data")


def vectors_of(home: Path, folder: Path, rename, leave_out=()) -> None:
    """Something to learn from, for every track."""
    for index in range(24):
        if index not in leave_out:
            shift = (index % 2) * 2.0
            save(folder / rename(f"audio/{index:02}.wav"), rows(2, seed=index) + shift)


@pytest.mark.parametrize(
    "rename",
    [
        lambda track: f"{track}.npy",
        lambda track: track.replace(".wav", ".npy"),
        lambda track: track.replace("audio/", "").replace(".wav", ".pt"),
        lambda track: f"deep/er/{Path(track).name}.npy",
    ],
    ids=["whole-id", "no-suffix", "name-only", "elsewhere"],
)
def test_files_find_their_tracks_and_are_probed(made, tmp_path, rename):
    home, prefix = made
    folder = tmp_path / "vectors"
    vectors_of(home, folder, rename)
    cache = tmp_path / "cache"
    report = bring(folder, ids="manifest", dataset=prefix, cache_dir=cache)
    assert report.warnings == ()
    assert report.store.attrs["datasets"] == ["small"]
    assert all(report.store.audio_sha256)
    found = tune_cache.probe(str(prefix), encoder="import:clap", cache_dir=cache)
    assert found.runs
    assert {run.context.encoder for run in found.runs} == {"import:clap"}
    run = tune_cache.probe(str(prefix), store=report.store.path, cache_dir=cache).runs[0]
    assert run.context.store == report.store.name


def test_tracks_without_a_file_fail_and_files_without_a_track_are_told(made, tmp_path):
    home, prefix = made
    folder = tmp_path / "vectors"
    vectors_of(home, folder, lambda track: f"{track}.npy", leave_out=(3, 4))
    save(folder / "stranger.npy", rows(1))
    done = tune(
        tmp_path, "cache", "import", str(folder), "--encoder-name", "clap", "--seg", "10",
        "--ids", "manifest", "--dataset", str(prefix), "--cache-dir", "cache",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "2 tracks have no vectors" in done.stderr
    assert "audio/03.wav: no-vectors" in done.stderr
    assert "1 of 23 files fit no track of 'small'" in done.stderr
    runs = tune_cache.probe(str(prefix), encoder="import:clap", cache_dir=tmp_path / "cache").runs
    assert {len(run.result.excluded) for run in runs} == {2}


def test_files_that_fit_nothing_or_several_are_refused(made, tmp_path):
    home, prefix = made
    save(tmp_path / "none/x.npy", rows(1))
    with pytest.raises(StoreMismatchError, match=r"no file fits a track of 'small'.*'x'"):
        bring(tmp_path / "none", dataset=prefix)
    save(tmp_path / "twice/a/01.npy", rows(1))
    save(tmp_path / "twice/b/01.npy", rows(1))
    with pytest.raises(StoreMismatchError, match=r"'audio/01\.wav' has several files"):
        bring(tmp_path / "twice", dataset=prefix)
    data = shutil.copytree(home / "data", tmp_path / "data")
    line = json.loads((data / "small.train.jsonl").read_text().splitlines()[0])
    (data / "more").mkdir()
    shutil.copy(data / line["audio_path"], data / "more/01.wav")
    with (data / "small.train.jsonl").open("a") as file:
        file.write(json.dumps({**line, "audio_path": "more/01.wav"}) + "\n")
    (tmp_path / "twice/b/01.npy").unlink()
    with pytest.raises(StoreMismatchError, match="fits 2 tracks"):
        bring(tmp_path / "twice", dataset=data / "small")


def test_where_the_audio_is_gone_ids_alone_decide(made, tmp_path):
    home, _ = made
    data = shutil.copytree(home / "data", tmp_path / "data")
    shutil.rmtree(data / "audio")
    (data / "audio").mkdir()
    folder = tmp_path / "vectors"
    vectors_of(home, folder, lambda track: f"{track}.npy")
    report = bring(folder, ids="manifest", dataset=data / "small")
    assert "the audio of 24 tracks is not at hand" in report.warnings[0]
    by_path = bring(folder, ids="path", cache_dir=tmp_path / "by-path")
    assert by_path.store.content_digest == report.store.content_digest
    assert "--ids manifest" in by_path.warnings[0]
    assert tune_cache.probe(str(data / "small"), cache_dir=tmp_path / "by-path").runs


def test_imported_rows_are_never_taken_for_an_encoder_s(tmp_path):
    """An extract over the same audio encodes; a store of others' vectors is no source."""
    world = World.make(tmp_path, {"a.wav": 8000, "b.wav": 9000})
    folder = tmp_path / "vectors"
    for name in ("a.wav", "b.wav"):
        save(folder / f"{name}.npy", rows(1, 3, 8))
    tracks = [
        ForeignTrack(
            track_id=track.track_id,
            audio_sha256=track.audio_sha256,
            file=describe(folder / f"{track.track_id}.npy", f"{track.track_id}.npy"),
        )
        for track in world.tracks()
    ]
    from tune_cache.cache.exchange.restore import publish

    assembly = foreign_assembly(tracks, name="toy", seconds=1.0)
    imported, _ = publish(Layout(world.layout.root), assembly)
    extracted = world.extract()[0]
    assert extracted.n_copied == 0
    assert extracted.path != imported.path
    assert extracted.store.collection_digest == imported.collection_digest
    changed = dataclasses.replace(assembly, expected_digest="0" * 64)
    with pytest.raises(StoreMismatchError, match="another store"):
        publish(world.layout, changed)
    shutil.rmtree(imported.path)
    with pytest.raises(StoreCorruptError, match="content digest"):
        publish(world.layout, changed)
    assert leftovers([tmp_path]) == []
