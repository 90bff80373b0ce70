"""Exchange files: every format keeps every promise, and other programs read them."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import tune
from exchange_contract import ExchangeContract, restore
from exchange_world import HOSTILE_IDS, SAMPLES, Sample, files_of, make_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tune_cache
from tune_cache.cache.exchange.export import export_file
from tune_cache.cache.exchange.formats import FORMATS, format_of_content, format_of_name
from tune_cache.errors import (
    MissingExtraError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
    UsageError,
)


class TestHdf5(ExchangeContract):
    format = "hdf5"


class TestNpz(ExchangeContract):
    format = "npz"


class TestParquet(ExchangeContract):
    format = "parquet"


def test_every_format_has_a_contract():
    assert {cls.format for cls in ExchangeContract.__subclasses__()} == set(FORMATS)


ids = st.text(
    st.characters(max_codepoint=0x10FFFF, categories=("L", "N", "P", "S", "Z", "C", "Cs")),
    min_size=1,
    max_size=12,
)


@st.composite
def samples(draw) -> Sample:
    """Small stores of any shape."""
    names = draw(st.lists(ids, min_size=1, max_size=6, unique=True))
    counts = st.one_of(st.none(), st.integers(0, 5))
    return Sample(
        rows={name: draw(counts) for name in names},
        dtype=draw(st.sampled_from(["f2", "f4"])),
        poolings=draw(
            st.sampled_from([("mean",), ("max",), ("mean", "std"), ("mean", "max", "std")])
        ),
        layers=draw(st.sampled_from([(0,), (12,), (0, 6, 12)])),
        dim=draw(st.integers(1, 5)),
        seed=draw(st.integers(0, 100)),
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sample=samples())
def test_any_small_store_comes_back_from_every_format(sample, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    store = make_store(folder / "cache", sample)
    assert store.track_ids == tuple(sorted(sample.rows))
    for name, form in FORMATS.items():
        export_file(store, folder / f"file.{name}", form)
        back = restore(form, folder / f"file.{name}", folder / name)
        assert files_of(back.path) == files_of(store.path)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("cache"), SAMPLES["f4-poolings"])


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, form in FORMATS.items():
        export_file(store, folder / f"store.{name}", form)
    return folder


def test_plain_h5py_reads_the_same(store, folder):
    import h5py

    with h5py.File(folder / "store.hdf5", "r") as file:
        for pooling in store.poolings:
            expected = store.read(store.track_ids, pooling=pooling).values
            np.testing.assert_array_equal(file[f"embeddings/{pooling}"][:], expected)
        np.testing.assert_array_equal(file["tracks/offset"][:], store.offset)
        assert bytes(file["tracks/id_utf8"][:]).decode() == "".join(store.track_ids)
        assert json.loads(file.attrs["spec"]) == store.spec.to_json()
        assert file.attrs["content_digest"].decode() == store.content_digest
        assert file.attrs["license_note"].decode("utf-8") == store.attrs["license_note"]
        header = json.loads(bytes(file["header_utf8"][:]))["header"]
        assert header["attributes"] == store.attrs
        assert header["ledger"] == store.ledger


def test_plain_numpy_reads_the_same(store, folder):
    with np.load(folder / "store.npz", allow_pickle=False) as file:
        for pooling in store.poolings:
            expected = store.read(store.track_ids, pooling=pooling).values
            np.testing.assert_array_equal(file[f"embeddings/{pooling}"], expected)
        np.testing.assert_array_equal(file["segments/start_sample"], store.segment_start)
        header = json.loads(bytes(file["header_utf8"]))["header"]
        assert header["attributes"]["spec"] == store.spec.to_json()


def test_plain_pyarrow_reads_the_same(store, folder):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(folder / "store.parquet")
    assert table.column("track_id").to_pylist() == ["x"] * 5 + ["y"] * 2
    for pooling in store.poolings:
        expected = store.read_layer(store.track_ids, 6, pooling=pooling).values
        found = np.array(table.column(f"{pooling}_6").to_pylist(), "f4")
        np.testing.assert_array_equal(found, expected)
    facts = pyarrow.parquet.read_metadata(folder / "store.parquet").metadata
    hashes = base64.b64decode(facts[b"tune_cache.tracks/audio_sha256"])
    assert hashes == bytes.fromhex("".join(store.audio_sha256))
    assert json.loads(facts[b"tune_cache.header"])["header"]["ledger"] == store.ledger


@pytest.mark.parametrize("share", [0.1, 0.999])
def test_a_footer_that_would_not_be_read_again_is_not_written(
    folder, store, tmp_path, share, monkeypatch
):
    (n_footer,) = struct.unpack("<I", (folder / "store.parquet").read_bytes()[-8:-4])
    limit = int(n_footer * share)
    monkeypatch.setattr("tune_cache.cache.exchange.parquet.LARGEST_FOOTER_BYTES", limit)
    with pytest.raises(StoreError, match="more than a Parquet footer") as caught:
        export_file(store, tmp_path / "file", FORMATS["parquet"])
    assert "hdf5" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_python_of_the_docs_runs(tmp_path, monkeypatch):
    import re

    store = make_store(tmp_path / "cache", SAMPLES["usual"])
    for suffix in ("h5", "npz", "parquet"):
        tune_cache.export_store(store, tmp_path / f"store.{suffix}")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs/exchange.md").read_text("utf-8")
    found: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(block, found)
    assert found["ids"] == list(store.track_ids)
    expected = store.read_layer(["a.wav"], 1).values
    np.testing.assert_array_equal(found["layer_1"], expected)
    np.testing.assert_array_equal(found["vectors"][:3, 1], expected)
    assert found["table"].column("mean_1").to_pylist()[:3] == expected.astype(float).tolist()
    assert found["spec"] == store.spec.to_json()


def test_ids_that_are_no_text_are_readable_in_parquet_and_exact_in_its_metadata(tmp_path):
    import pyarrow.parquet

    store = make_store(tmp_path, SAMPLES["hostile-ids"])
    export_file(store, tmp_path / "file", FORMATS["parquet"])
    table = pyarrow.parquet.read_table(tmp_path / "file")
    assert "caf\\xed\\xb3\\xa9.wav" in table.column("track_id").to_pylist()
    facts = pyarrow.parquet.read_metadata(tmp_path / "file").metadata
    raw = base64.b64decode(facts[b"tune_cache.tracks/id_utf8"])
    assert raw.decode("utf-8", "surrogatepass") == "".join(sorted(HOSTILE_IDS))


def test_an_npz_beyond_four_gigabytes_comes_back(store, tmp_path, monkeypatch):
    """Its form, at a size that a test can have: zip64 begins at this limit."""
    import zipfile

    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 200)
    export_file(store, tmp_path / "file", FORMATS["npz"])
    assert b"PK\x06\x07" in (tmp_path / "file").read_bytes()
    back = restore(FORMATS["npz"], tmp_path / "file", tmp_path / "cache")
    assert files_of(back.path) == files_of(store.path)


@pytest.mark.parametrize(
    ("name", "asked", "format"),
    [
        ("a.h5", None, "hdf5"),
        ("a.HDF5", None, "hdf5"),
        ("a.npz", None, "npz"),
        ("a.parquet", None, "parquet"),
        ("a.bin", "npz", "npz"),
        ("a.npz", "hdf5", "hdf5"),
    ],
)
def test_a_format_is_asked_for_or_told_by_the_suffix(name, asked, format):
    assert format_of_name(asked, Path(name)).name == format


def test_formats_that_are_none_are_sentences(tmp_path, folder):
    with pytest.raises(UsageError, match=r"does not say which format"):
        format_of_name(None, Path("a.csv"))
    with pytest.raises(UsageError, match="'csv', expected one of hdf5, npz, parquet"):
        format_of_name("csv", Path("a.csv"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StoreMismatchError, match="none of hdf5, npz, parquet"):
        format_of_content(None, tmp_path / "text")
    with pytest.raises(StoreMismatchError, match="is hdf5 by its first bytes"):
        format_of_content("npz", folder / "store.hdf5")


def test_parquet_without_pyarrow_names_the_command(store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError) as caught:
        export_file(store, tmp_path / "file", FORMATS["parquet"])
    assert "pip install 'tune-cache[parquet]'" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_the_extra_is_one_that_the_package_has():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert "pyarrow" in project["optional-dependencies"]["parquet"][0]


def test_exporting_to_hdf5_imports_neither_torch_nor_pyarrow(store, tmp_path):
    script = (
        "import sys, tune_cache\n"
        "report = tune_cache.export_store(sys.argv[1], sys.argv[2])\n"
        "tune_cache.import_store(report.out, cache_dir=sys.argv[3])\n"
        "assert not {'torch', 'pyarrow', 'sklearn', 'av'} & set(sys.modules)"
    )
    arguments = [str(store.path), str(tmp_path / "a.h5"), str(tmp_path / "cache")]
    subprocess.run([sys.executable, "-c", script, *arguments], check=True)


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_line_exports_and_imports(tmp_path, format):
    store = make_store(tmp_path / "cache", SAMPLES["usual"])
    done = tune(
        tmp_path, "cache", "export", store.name[:12], "--format", format, "--out", "file",
        "--cache-dir", "cache", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"schema", "command", "dataset", "rows", "warnings"}
    assert found["command"] == "cache export"
    assert found["rows"][0]["bytes"] == (tmp_path / "file").stat().st_size
    assert found["rows"][0]["content_digest"] == store.content_digest
    again = tune(tmp_path, "cache", "export", str(store.path), "--format", format, "--out", "file")
    assert again.returncode == 2
    assert "--force" in again.stderr

    done = tune(tmp_path, "cache", "import", "file", "--cache-dir", "other", "--json")
    assert done.returncode == 3, done.stderr  # as extract does where tracks failed
    found = json.loads(done.stdout)
    assert found["command"] == "cache import"
    assert found["rows"][0]["content_digest"] == store.content_digest
    assert found["warnings"] == ["c.wav: missing: audio file 'c.wav': is missing"]
    assert files_of(Path(found["rows"][0]["store"])) == files_of(store.path)
    plain = tune(tmp_path, "cache", "import", "file", "--cache-dir", "other")
    assert plain.returncode == 3
    assert "there already" in plain.stdout
    assert "1 tracks have no vectors" in plain.stderr
    assert "CC BY-NC" in plain.stderr


def test_a_store_s_folder_is_imported_as_well(tmp_path):
    store = make_store(tmp_path / "cache", SAMPLES["f4-poolings"])
    report = tune_cache.import_store(store.path, cache_dir=tmp_path / "other")
    assert report.format == "zarr"
    assert not report.hit
    assert files_of(report.store.path) == files_of(store.path)
    assert tune_cache.import_store(store.path, cache_dir=tmp_path / "other").hit


def test_flags_about_vectors_are_refused_where_the_file_says_it_itself(folder, tmp_path):
    with pytest.raises(UsageError, match=r"--seg is given"):
        tune_cache.import_store(folder / "store.npz", seg=10, cache_dir=tmp_path)
    with pytest.raises(StoreNotFoundError, match="no file or folder"):
        tune_cache.import_store(tmp_path / "nothing", cache_dir=tmp_path)
    with pytest.raises(StoreMismatchError, match="says npz"):
        tune_cache.import_store(folder / "store.hdf5", format="npz", cache_dir=tmp_path)


def test_hostile_names_never_reach_the_terminal_as_they_are(tmp_path):
    store = make_store(tmp_path / "cache", SAMPLES["hostile-ids"])
    export_file(store, tmp_path / "file", FORMATS["npz"])
    done = tune(tmp_path, "cache", "import", "file", "--cache-dir", "other")
    assert done.returncode == 3
    for line in (done.stdout + done.stderr).splitlines():
        assert line.isprintable()
    assert not (tmp_path / "pwned").exists()
