"""Exchange files by strangers: refused before anything outside is read or much is allocated."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from exchange_contract import restore
from exchange_world import SAMPLES, files_of, make_store

from tune_cache.cache.exchange.export import export_file
from tune_cache.cache.exchange.files import open_file
from tune_cache.cache.exchange.formats import FORMATS
from tune_cache.errors import StoreError

MOST_BYTES = 60 << 20  # of Python's and numpy's memory, whatever a file claims


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("cache"), SAMPLES["usual"])


@pytest.fixture
def folder(store, tmp_path) -> Path:
    for name, form in FORMATS.items():
        export_file(store, tmp_path / name, form)
    (tmp_path / "secret").write_bytes(bytes(range(256)) * 100)
    return tmp_path


class Pwn:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path / "pwned",))


def refused(folder: Path, format: str, match: str) -> None:
    """The import fails with a sentence, reads no rows, runs nothing, and takes little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match=match) as caught:
            restore(FORMATS[format], folder / format, folder / "imported")
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert not list((folder / "imported").rglob("*.zarr"))
    assert not (folder / "pwned").exists()


# HDF5 -------------------------------------------------------------------------------------


def replaced(name: str, make):
    """Delete an object and put another one under its name."""

    def change(file: h5py.File, folder: Path) -> None:
        old = file[name]
        values = old[()] if isinstance(old, h5py.Dataset) else None
        del file[name]
        make(file, name, values, folder)

    return change


def external_values(file, name, values, folder):
    file.create_dataset(
        name, values.shape, values.dtype, external=[(str(folder / "secret"), 0, values.nbytes)]
    )


def virtual_values(file, name, values, folder):
    layout = h5py.VirtualLayout(values.shape, values.dtype)
    layout[...] = h5py.VirtualSource(str(folder / "other"), "x", values.shape)
    file.create_virtual_dataset(name, layout)


def compact_values(file, name, values, folder):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(values.shape)
    kind = h5py.h5t.py_create(values.dtype)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=plist)
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)


def null_space(file, name, values, folder):
    kind = h5py.h5t.py_create(values.dtype)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.NULL))


def with_attribute(file, folder):
    file["tracks/offset"].attrs["more"] = 1


MEAN = "embeddings/mean"
HOSTILE_HDF5 = {
    "soft-link": (
        replaced(MEAN, lambda f, n, v, d: f.__setitem__(n, h5py.SoftLink("/tracks/offset"))),
        "points elsewhere",
    ),
    "soft-link-to-nothing": (
        replaced(MEAN, lambda f, n, v, d: f.__setitem__(n, h5py.SoftLink("/nothing"))),
        "points elsewhere",
    ),
    "external-link": (
        replaced(MEAN, lambda f, n, v, d: f.__setitem__(n, h5py.ExternalLink("other", "/x"))),
        "points elsewhere",
    ),
    "external-link-as-header": (
        replaced(
            "header_utf8", lambda f, n, v, d: f.__setitem__(n, h5py.ExternalLink("other", "/x"))
        ),
        "points elsewhere",
    ),
    "external-link-as-group": (
        replaced("tracks", lambda f, n, v, d: f.__setitem__(n, h5py.ExternalLink("other", "/"))),
        "points elsewhere",
    ),
    "external-values": (replaced(MEAN, external_values), "in other files|not contiguous"),
    "external-values-of-an-id": (
        replaced("tracks/id_utf8", external_values), "in other files|not contiguous"
    ),
    "virtual": (replaced(MEAN, virtual_values), "virtual"),
    "gzip": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v, compression="gzip")),
        "chunked",
    ),
    "chunked": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v, chunks=(2, 1, 4))), "chunked"
    ),
    "resizable": (
        replaced(
            MEAN, lambda f, n, v, d: f.create_dataset(n, data=v, maxshape=(None, *v.shape[1:]))
        ),
        "chunked",
    ),
    "compact": (replaced(MEAN, compact_values), "compact"),
    "bomb": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, (10**12, 3, 4), "f2")),
        "has shape",
    ),
    "bomb-of-ids": (
        replaced("tracks/id_utf8", lambda f, n, v, d: f.create_dataset(n, (10**12,), "u1")),
        "has shape",
    ),
    "bomb-of-a-header": (
        replaced("header_utf8", lambda f, n, v, d: f.create_dataset(n, (10**12,), "u1")),
        "claims 1000000000000 bytes",
    ),
    "never-written": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, v.shape, v.dtype)), "claims"
    ),
    "other-dtype": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v.astype("f4"))), "is float32"
    ),
    "big-endian": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v.astype(">f2"))), "is >f2"
    ),
    "integers": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v.astype("i2"))), "is int16"
    ),
    "objects": (
        replaced(
            MEAN,
            lambda f, n, v, d: f.create_dataset(n, v.shape, h5py.vlen_dtype(np.dtype("f2"))),
        ),
        "expected <f2|expected float16",
    ),
    "references": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, v.shape, h5py.ref_dtype)),
        "expected",
    ),
    "records": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, v.shape, [("a", "f2")])), "expected"
    ),
    "flat": (
        replaced(MEAN, lambda f, n, v, d: f.create_dataset(n, data=v.reshape(-1))), "has shape"
    ),
    "no-array": (replaced(MEAN, null_space), "is no array"),
    "group-as-array": (replaced(MEAN, lambda f, n, v, d: f.create_group(n)), "is no dataset"),
    "type-as-array": (
        replaced(MEAN, lambda f, n, v, d: f.__setitem__(n, np.dtype("f2"))), "is no dataset"
    ),
    "array-as-group": (
        replaced("segments", lambda f, n, v, d: f.create_dataset(n, data=[1])), "is no group"
    ),
    "array-that-is-another": (
        replaced("tracks/id_offset", lambda f, n, v, d: f.__setitem__(n, f["tracks/offset"])),
        "is not the one that was written",
    ),
    "more-members": (lambda f, d: f.create_dataset("more", data=[1]), "5 members"),
    "more-poolings": (lambda f, d: f.create_group("embeddings/std"), "2 members, expected 1"),
    "a-million-names": (
        lambda f, d: [f["tracks"].__setitem__(f"{i}", f["tracks"]) for i in range(2000)],
        "members, expected",
    ),
    "other-name": (lambda f, d: f.move(MEAN, "embeddings/max"), "has no 'mean'"),
    "more-attributes": (lambda f, d: f.attrs.__setitem__("more", 1), "not those of its header"),
    "other-spec": (
        lambda f, d: f.attrs.modify("spec_key", np.bytes_(b"0" * 64)), "not what its header says"
    ),
    "attribute-of-other-length": (
        lambda f, d: f.attrs.__setitem__("spec", "short"), "is not a text of"
    ),
    "attribute-in-the-heap": (
        lambda f, d: f.attrs.__setitem__("encoder", "toy"), "is not a text of"
    ),
    "attribute-that-is-an-array": (
        lambda f, d: f.attrs.__setitem__("encoder", np.zeros(7000)), "is not a text of"
    ),
    "attribute-of-an-array": (with_attribute, "has attributes"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_HDF5)
def test_a_hostile_hdf5_is_refused(folder, name):
    change, match = HOSTILE_HDF5[name]
    with h5py.File(folder / "other", "w") as other:
        other["x"] = np.ones((11, 3, 4), "f2")
    with h5py.File(folder / "hdf5", "r+") as file:
        change(file, folder)
    refused(folder, "hdf5", match)


def test_a_changed_hdf5_that_says_the_same_is_read(folder, store):
    """The tests above change files with h5py; what they then refuse is not that."""
    with h5py.File(folder / "hdf5", "r+") as file:
        values = file[MEAN][:]
        del file[MEAN]
        file.create_dataset(MEAN, data=values, track_times=False)
    back = restore(FORMATS["hdf5"], folder / "hdf5", folder / "imported")
    assert files_of(back.path) == files_of(store.path)


def test_one_file_of_an_hdf5_family_is_refused(folder):
    with h5py.File(folder / "part%d", "w", driver="family", memb_size=4096) as file:
        file["x"] = np.zeros(5000)
    (folder / "part0").rename(folder / "hdf5")
    refused(folder, "hdf5", "cannot be read")


# npz --------------------------------------------------------------------------------------


def repacked(change, **options):
    """Write all members anew, after a change to their bytes by name."""

    def make(path: Path, folder: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members = change(members, folder) or members
        with zipfile.ZipFile(path, "w", **options) as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return make


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def pickled_npy(folder: Path) -> bytes:
    return npy(np.array([Pwn(folder)], object), allow_pickle=True)


def member(name: str, data):
    def change(members, folder):
        members[name] = data(members[name], folder) if callable(data) else data

    return repacked(change)


def renamed(old: str, new: str):
    return repacked(lambda m, d: {new if name == old else name: v for name, v in m.items()})


def with_header(text: str, values: bytes = b"") -> bytes:
    encoded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(encoded)) + encoded + values


def patched(change):
    """Change the bytes of the file itself."""

    def make(path: Path, folder: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return make


def twice(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tracks/offset.npy", b"other")


def lying_sizes(data: bytes) -> bytes:
    """Let the directory say that the first member has 4 GB."""
    place = data.index(b"PK\x01\x02")
    return data[: place + 20] + struct.pack("<LL", 2**32 - 2, 2**32 - 2) + data[place + 28 :]


def renumbered(data: bytes) -> bytes:
    """Let both headers of the first member say that its stored bytes are deflated."""
    changed = bytearray(data)
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        changed[data.index(signature) + place] = zipfile.ZIP_DEFLATED
    return bytes(changed)


def many_members(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for index in range(3000):
            archive.writestr(f"{index}.npy", b"")


MEAN_NPY = "embeddings/mean.npy"
HOSTILE_NPZ = {
    "deflated": (repacked(lambda m, d: m, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "lzma": (repacked(lambda m, d: m, compression=zipfile.ZIP_LZMA), "is compressed"),
    "says-it-is-deflated": (patched(renumbered), "is compressed"),
    "bomb": (
        repacked(
            lambda m, d: m | {MEAN_NPY: bytes(200 << 20)}, compression=zipfile.ZIP_DEFLATED
        ),
        "is compressed",
    ),
    "pickled-array": (
        member(MEAN_NPY, lambda old, d: pickled_npy(d)),
        "never loaded",
    ),
    "bare-pickle": (member(MEAN_NPY, lambda old, d: pickle.dumps(Pwn(d))), "cannot be read"),
    "pickled-header": (
        member("header_utf8.npy", lambda old, d: pickled_npy(d)),
        "never loaded",
    ),
    "records": (member(MEAN_NPY, npy(np.zeros(3, [("a", "f2")]))), "never loaded"),
    "fortran": (
        member(MEAN_NPY, lambda old, d: npy(np.asfortranarray(np.load(io.BytesIO(old))))),
        "expected float16 of shape",
    ),
    "big-endian": (
        member(MEAN_NPY, lambda old, d: npy(np.load(io.BytesIO(old)).astype(">f2"))), "is >f2"
    ),
    "other-dtype": (
        member(MEAN_NPY, lambda old, d: npy(np.load(io.BytesIO(old)).astype("f4"))), "is float32"
    ),
    "other-shape": (
        member(MEAN_NPY, lambda old, d: npy(np.load(io.BytesIO(old)).reshape(-1))), "of shape"
    ),
    "claims-10^12-rows": (
        member(
            MEAN_NPY,
            with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (10**12, 3, 4), }"),
        ),
        "cannot be read",
    ),
    "claims-a-trillion-rows": (
        member(
            MEAN_NPY,
            with_header(
                "{'descr': '<f2', 'fortran_order': False, 'shape': (1000000000000, 3, 4), }"
            ),
        ),
        "of shape",
    ),
    "negative-shape": (
        member(
            MEAN_NPY,
            with_header("{'descr': '<f2', 'fortran_order': False, 'shape': (-11, 3, 4), }"),
        ),
        "shape is",
    ),
    "code-as-header": (
        member(MEAN_NPY, with_header("__import__('pathlib').Path('pwned').touch()")),
        "cannot be read",
    ),
    "brackets-as-header": (member(MEAN_NPY, with_header("(" * 9000)), "cannot be read"),
    "endless-header": (
        member(MEAN_NPY, b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)),
        "header has 4294967295",
    ),
    "later-npy": (member(MEAN_NPY, b"\x93NUMPY\x09\x00" + bytes(100)), "version"),
    "longer": (member(MEAN_NPY, lambda old, d: old + b"xx"), "expected float16 of shape"),
    "shorter": (member(MEAN_NPY, lambda old, d: old[:-2]), "expected float16 of shape"),
    "no-values": (member(MEAN_NPY, b""), "cannot be read"),
    "missing": (repacked(lambda m, d: {k: v for k, v in m.items() if k != MEAN_NPY}), "differ"),
    "no-header": (
        repacked(lambda m, d: {k: v for k, v in m.items() if "header" not in k}), "has no member"
    ),
    "path-outside": (repacked(lambda m, d: m | {"../../outside.npy": b"x"}), "differ"),
    "absolute-path": (repacked(lambda m, d: m | {"/etc/passwd": b"x"}), "differ"),
    "terminal-name": (repacked(lambda m, d: m | {"\x1b]0;x\x07": b"x"}), "differ"),
    "other-name": (renamed(MEAN_NPY, "embeddings/max.npy"), "differ"),
    "twice": (twice, "is there twice"),
    "many-members": (many_members, "no small directory"),
    "junk-before": (patched(lambda data: b"PK\x03\x04" + data), "no small directory"),
    "junk-behind": (patched(lambda data: data + b"PK"), "no small directory"),
    "comment": (patched(lambda data: data[:-2] + b"\x02\x00hi"), "no small directory"),
    "no-directory": (patched(lambda data: data[:-22]), "no small directory"),
    "sizes-that-lie": (patched(lying_sizes), "claim more bytes"),
    "locator-of-nothing": (
        patched(lambda data: data[:-22] + b"PK\x06\x07" + bytes(16) + data[-22:]),
        "no small directory",
    ),
    "only-a-directory": (lambda path, d: zipfile.ZipFile(path, "w").close(), "no small directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_NPZ)
def test_a_hostile_npz_is_refused(folder, name, monkeypatch):
    monkeypatch.chdir(folder)
    make, match = HOSTILE_NPZ[name]
    make(folder / "npz", folder)
    refused(folder, "npz", match)


def test_a_repacked_npz_that_says_the_same_is_read(folder, store):
    repacked(lambda members, folder: members)(folder / "npz", folder)
    back = restore(FORMATS["npz"], folder / "npz", folder / "imported")
    assert files_of(back.path) == files_of(store.path)


def test_an_encrypted_npz_is_refused(folder):
    data = bytearray((folder / "npz").read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + place] |= 1
    (folder / "npz").write_bytes(bytes(data))
    refused(folder, "npz", "encrypted")


# Parquet ----------------------------------------------------------------------------------


def rewritten(change=lambda table: table, metadata=None, **options):
    """Read the table and write it anew, with the metadata that it had."""

    def make(path: Path, folder: Path) -> None:
        facts = pyarrow.parquet.read_metadata(path).metadata
        kept = {key: value for key, value in facts.items() if key != b"ARROW:schema"}
        table = change(pyarrow.parquet.read_table(path))
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        size = options.pop("row_group_size", 1024)
        with pyarrow.parquet.ParquetWriter(path, table.schema, **{**plain, **options}) as writer:
            writer.write_table(table, row_group_size=size)
            writer.add_key_value_metadata((metadata or dict)(kept))

    return make


def column(name: str, make):
    """Replace a column by one made from it, with the type that it then has."""

    def change(table: pyarrow.Table) -> pyarrow.Table:
        index = table.schema.get_field_index(name)
        values = make(table.column(name).combine_chunks())
        return table.set_column(index, pyarrow.field(name, values.type, nullable=False), values)

    return change


def nulls(table: pyarrow.Table) -> pyarrow.Table:
    index = table.schema.get_field_index("mean_0")
    values = table.column("mean_0").to_pylist()
    field = table.schema.field(index).with_nullable(True)
    return table.set_column(index, field, pyarrow.array([None, *values[1:]], field.type))


def other_list(values):
    return pyarrow.array(values.to_pylist(), pyarrow.list_(pyarrow.float16()))


def dictionary_bomb(path: Path, folder: Path) -> None:
    """A few bytes that say: ten million rows of the same value."""
    facts = pyarrow.parquet.read_metadata(path).metadata
    schema = pyarrow.parquet.read_schema(path)
    names = [name for name in schema.names if not name.startswith("mean")]
    values = {name: pyarrow.repeat(pyarrow.scalar(0), 10**7) for name in names}
    table = pyarrow.table(values)
    with pyarrow.parquet.ParquetWriter(path, table.schema, compression="none") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(
            {key: value for key, value in facts.items() if key != b"ARROW:schema"}
        )


def retold(change):
    """Change the JSON header; its hash does not agree any more."""

    def metadata(kept):
        value = json.loads(kept[b"tune_cache.header"])
        change(value["header"])
        return {**kept, b"tune_cache.header": json.dumps(value).encode()}

    return rewritten(metadata=metadata)


HOSTILE_PARQUET = {
    "snappy": (rewritten(compression="snappy"), "SNAPPY"),
    "gzip": (rewritten(compression="gzip"), "GZIP"),
    "dictionary": (rewritten(use_dictionary=True), "DICTIONARY"),
    "delta": (
        rewritten(column_encoding={"start_sample": "DELTA_BINARY_PACKED"}), "DELTA_BINARY_PACKED"
    ),
    "dictionary-bomb": (dictionary_bomb, "schema"),
    "other-groups": (rewritten(row_group_size=2), "in 6 groups"),
    "fewer-rows": (rewritten(lambda table: table.slice(1)), "has 10 rows"),
    "more-rows": (rewritten(lambda table: pyarrow.concat_tables([table, table])), "has 22 rows"),
    "fewer-columns": (rewritten(lambda table: table.drop_columns(["mean_1"])), "schema"),
    "more-columns": (
        rewritten(lambda table: table.append_column("x", table.column("track"))), "schema"
    ),
    "other-names": (
        rewritten(lambda t: t.rename_columns([n.replace("mean", "max") for n in t.schema.names])),
        "schema",
    ),
    "lists-of-any-length": (rewritten(column("mean_0", other_list)), "schema"),
    "wider-integers": (
        rewritten(column("track", lambda values: values.cast(pyarrow.int64()))), "schema"
    ),
    "text-as-number": (
        rewritten(column("track", lambda values: values.cast(pyarrow.string()))), "schema"
    ),
    "nulls": (rewritten(nulls), "schema"),
    "track-of-nobody": (
        rewritten(column("track", lambda v: pyarrow.array([10**9] * len(v), pyarrow.int32()))),
        "is not the one that was written",
    ),
    "other-ids": (
        rewritten(column("track_id", lambda v: pyarrow.array(["x"] * len(v)))), "names other tracks"
    ),
    "other-values": (
        rewritten(
            lambda t: t.set_column(4, t.schema.field(4), t.column(5))
        ),
        "content digest",
    ),
    "no-metadata": (rewritten(metadata=lambda kept: {}), "no header of ours"),
    "no-hashes": (
        rewritten(
            metadata=lambda kept: {k: v for k, v in kept.items() if not k.endswith(b"sha256")}
        ),
        "audio_sha256",
    ),
    "metadata-that-is-no-base64": (
        rewritten(metadata=lambda kept: {**kept, b"tune_cache.tracks/offset": b"\xff!"}),
        "cannot be read",
    ),
    "metadata-of-other-length": (
        rewritten(metadata=lambda kept: {**kept, b"tune_cache.tracks/offset": b"AAAA"}),
        "cannot be read",
    ),
    "retold-header": (retold(lambda v: v["attributes"].update(license_note="free")), "header"),
    "footer-that-claims": (
        patched(lambda data: data[:-8] + struct.pack("<I", 2**31) + b"PAR1"), "footer claims"
    ),
    "footer-of-the-whole-file": (
        patched(lambda data: data[:-8] + struct.pack("<I", len(data)) + b"PAR1"), "footer claims"
    ),
    "encrypted": (patched(lambda data: b"PARE" + data[4:-4] + b"PARE"), "footer claims"),
    "no-footer": (patched(lambda data: data[:-8]), "footer claims"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_PARQUET)
def test_a_hostile_parquet_is_refused(folder, name):
    make, match = HOSTILE_PARQUET[name]
    make(folder / "parquet", folder)
    refused(folder, "parquet", match)


def test_uneven_row_groups_are_refused(store, folder, monkeypatch):
    monkeypatch.setattr("tune_cache.cache.exchange.parquet.SHARD_ROWS", 4)

    def uneven(path: Path) -> None:
        facts = pyarrow.parquet.read_metadata(path).metadata
        table = pyarrow.parquet.read_table(path)
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with pyarrow.parquet.ParquetWriter(path, table.schema, **options) as writer:
            for start, stop in ((0, 3), (3, 7), (7, 11)):
                writer.write_table(table.slice(start, stop - start))
            facts.pop(b"ARROW:schema")
            writer.add_key_value_metadata(facts)

    uneven(folder / "parquet")
    refused(folder, "parquet", "row group 0 has 3 rows, expected 4")


def test_names_that_no_file_can_have_are_sentences(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(StoreError, match="cannot be opened"), open_file(Path("a\0b")):
        pass
    link = open_file(tmp_path / "link", follow=False)
    with pytest.raises(StoreError, match="cannot be opened"), link:
        pass


def test_a_rewritten_parquet_that_says_the_same_is_read(folder, store):
    rewritten()(folder / "parquet", folder)
    back = restore(FORMATS["parquet"], folder / "parquet", folder / "imported")
    assert files_of(back.path) == files_of(store.path)


def test_the_hostile_files_are_as_many_as_promised():
    from exchange_contract import HOSTILE_CONTENT

    assert len(HOSTILE_HDF5) >= 30
    assert len(HOSTILE_NPZ) >= 30
    assert len(HOSTILE_PARQUET) >= 20
    assert len(HOSTILE_CONTENT) >= 30
