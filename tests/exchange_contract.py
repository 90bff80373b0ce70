"""What every exchange format promises; inherited by the tests of each."""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from exchange_world import SAMPLES, Sample, files_of, leftovers, make_store

from tune_cache.cache import disk
from tune_cache.cache.exchange.export import content_of, export_file
from tune_cache.cache.exchange.formats import FORMATS, Format, format_of_content
from tune_cache.cache.exchange.header import ARRAYS, Content, Header
from tune_cache.cache.exchange.restore import assembly_of, publish
from tune_cache.cache.layout import Layout
from tune_cache.cache.shards import SHARD_ROWS
from tune_cache.cache.store import Store, open_store
from tune_cache.errors import StoreCorruptError, StoreError, StoreMismatchError, UsageError
from tune_cache.specs import StoreSpec, canonical_json, collection_digest


@functools.cache
def made(base: Path, name: str) -> Store:
    """A store that every format's tests share; read-only."""
    return make_store(base / "made", SAMPLES[name])


def restore(form: Format, path: Path, cache: Path) -> Store:
    """Import a file into a cache."""
    with form.opened(path) as content:
        return publish(Layout(cache), assembly_of(content, str(path)))[0]


def changed_header(content: Content, change) -> Content:
    """Change what a header says and make its hash agree again, as a stranger could."""
    value = json.loads(canonical_json(content.header.value))
    change(value)
    return dataclasses.replace(content, header=dataclasses.replace(content.header, value=value))


def changed_array(content: Content, name: str, change) -> Content:
    """Change a small array and make every hash in the header agree again."""
    array = content.arrays[name].copy()
    array = change(array)
    arrays = {**content.arrays, name: array}

    def rehash(value):
        value["sha256"][name] = hashlib.sha256(array.tobytes()).hexdigest()
        if name.endswith("utf8"):
            value["bytes"][name] = len(array)

    return dataclasses.replace(changed_header(content, rehash), arrays=arrays)


def forged(change):
    """The text of a header that was changed, with the hash that it has now."""
    return lambda content: changed_header(content, change).header.text()


def attributes(change):
    return lambda content: changed_header(content, lambda value: change(value["attributes"]))


def respecified(**changes):
    """Another spec, whose key agrees."""

    def change(value):
        spec = value["attributes"]["spec"]
        for name, new in changes.items():
            part, _, field = name.rpartition("__")
            (spec[part] if part else spec)[field] = new
        try:
            key = StoreSpec.from_json(spec).key
        except (StoreError, ValueError, TypeError):
            key = "0" * 64
        value["attributes"].update(spec_key=key)

    return lambda content: changed_header(content, change)


def array(name: str, change):
    return lambda content: changed_array(content, name, change)


def rehashed(content: Content) -> Content:
    """Make both digests agree with content that was changed, as a stranger could."""
    digest = hashlib.sha256()
    for pooling in content.header.spec.poolings:
        digest.update(f"embeddings/{pooling}\0".encode())
        for block in content.blocks(pooling):
            digest.update(block.tobytes())
    for name in ARRAYS:
        if not name.startswith("tracks/message"):
            digest.update(f"{name}\0".encode() + content.arrays[name].tobytes())
    ends = content.arrays["tracks/id_offset"].tolist()
    text = content.arrays["tracks/id_utf8"].tobytes()
    hashes = content.arrays["tracks/audio_sha256"]
    audio = [
        (text[a:b].decode(), row.tobytes().hex() if row.any() else "")
        for (a, b), row in zip(itertools.pairwise(ends), hashes, strict=True)
    ]
    change = {"content_digest": digest.hexdigest(), "collection_digest": collection_digest(audio)}
    return changed_header(content, lambda value: value["attributes"].update(change))


def times(factor):
    """Rows that were multiplied."""
    return lambda content: dataclasses.replace(
        content, blocks=lambda pooling: (block * factor for block in content.blocks(pooling))
    )


def put(index, value):
    def change(values):
        values[index] = value
        return values

    return change


# files that the format's own writer makes, with content that a stranger changed
HOSTILE_CONTENT = {
    "rows-that-differ": lambda c: dataclasses.replace(
        c, blocks=lambda pooling: (block + 1 for block in c.blocks(pooling))
    ),
    "rows-not-finite": times(np.nan),
    "rows-not-finite-with-the-right-digest": lambda c: rehashed(times(np.float16(np.nan))(c)),
    "rows-of-unknown-audio-with-the-right-digests": lambda c: rehashed(
        array("tracks/audio_sha256", put(0, 0))(c)
    ),
    "other-content-digest": attributes(lambda a: a.update(content_digest="0" * 64)),
    "digest-of-another-kind": attributes(lambda a: a.update(content_digest=7)),
    "other-collection": attributes(lambda a: a.update(collection_digest="0" * 64)),
    "other-spec-key": attributes(lambda a: a.update(spec_key="0" * 64)),
    "path-as-encoder": respecified(encoder__name="../../outside"),
    "absolute-encoder": respecified(encoder__name="/tmp/outside"),
    "hidden-encoder": respecified(encoder__name="."),
    "number-as-encoder": respecified(encoder__name=7),
    "fraction-as-length": respecified(segments__length_samples=0.5),
    "negative-length": respecified(segments__length_samples=-1),
    "infinite-rate": respecified(segments__sample_rate_hz=1 << 60),
    "other-layers": respecified(layers=[5, 6, 7]),
    "text-as-layer": respecified(layers=["0", "1", "2"]),
    "spec-with-more": respecified(extra=1),
    "truth-as-layer": respecified(layers=[False, 1, 2]),
    "layers-from-the-end": respecified(layers=[-3, -2, -1]),
    "digest-that-is-none": attributes(lambda a: a.update(content_digest="x" * 64)),
    "spec-that-leaves-out": attributes(lambda a: a["spec"]["encoder"].pop("precision")),
    "more-hashes": lambda c: changed_header(c, lambda v: v["sha256"].update(more="0" * 64)),
    "more-lengths": lambda c: changed_header(c, lambda v: v["bytes"].update(more=1)),
    "later-format": attributes(lambda a: a["format"].update(version=99)),
    "wide-rows": attributes(lambda a: a.update(dim=10**12)),
    "no-width": attributes(lambda a: a.update(dim=0)),
    "true-as-width": attributes(lambda a: a.update(dim=True)),
    "note-that-is-a-list": attributes(lambda a: a.update(license_note=["x"])),
    "ledger-that-is-a-list": lambda c: changed_header(c, lambda v: v.update(ledger=[])),
    "more-in-the-header": lambda c: changed_header(c, lambda v: v.update(more=1)),
    "other-array-hash": lambda c: changed_header(
        c, lambda v: v["sha256"].update({"tracks/message_utf8": "0" * 64})
    ),
    "segment-of-another-track": array("segments/track", put(0, 1)),
    "track-before-all": array("segments/track", put(0, -1)),
    "offset-that-falls": array("tracks/offset", put(1, 10**9)),
    "offset-below-zero": array("tracks/offset", put(0, -5)),
    "id-offset-beyond": array("tracks/id_offset", put(-1, 10**9)),
    "id-offset-that-falls": array("tracks/id_offset", put(1, -3)),
    "ids-out-of-order": array("tracks/id_utf8", put(0, ord("z"))),
    "ids-not-text": array("tracks/id_utf8", put(0, 0xFF)),
    "status-of-no-kind": array("tracks/status", put(2, 9)),
    "failed-with-rows": array("tracks/status", put(0, 1)),
    "failed-without-reason": array("tracks/message_utf8", lambda a: a * 0 + ord("x")),
    "rows-of-unknown-audio": array("tracks/audio_sha256", put(0, 0)),
    "negative-length-of-track": array("tracks/n_samples", put(0, -1)),
    "segment-of-nothing": array("segments/n_samples", put(0, 0)),
    "segment-that-never-begins": array("segments/start_sample", put(0, -1)),
}


class ExchangeContract:
    """Set ``format`` to a name of :data:`FORMATS`."""

    format: str

    @property
    def form(self) -> Format:
        return FORMATS[self.format]

    @pytest.fixture(params=SAMPLES)
    def store(self, request, tmp_path_factory) -> Store:
        return made(tmp_path_factory.getbasetemp(), request.param)

    @pytest.fixture
    def usual(self, tmp_path_factory) -> Store:
        return made(tmp_path_factory.getbasetemp(), "usual")

    @pytest.fixture
    def file(self, usual, tmp_path) -> Path:
        export_file(usual, tmp_path / "file", self.form)
        return tmp_path / "file"

    def test_a_store_comes_back_byte_for_byte(self, store, tmp_path):
        n_bytes = export_file(store, tmp_path / "file", self.form)
        assert n_bytes == (tmp_path / "file").stat().st_size
        assert format_of_content(None, tmp_path / "file") is self.form
        back = restore(self.form, tmp_path / "file", tmp_path / "cache")
        assert back.name == store.name
        assert files_of(back.path) == files_of(store.path)
        assert leftovers([tmp_path]) == []

    def test_the_same_store_gives_the_same_bytes(self, store, tmp_path, monkeypatch):
        export_file(store, tmp_path / "one", self.form)
        moment = time.localtime(1.5e9)
        monkeypatch.setattr(time, "time", lambda: 1.5e9)
        monkeypatch.setattr(time, "localtime", lambda *_: moment)
        moved = open_store(shutil.copytree(store.path, tmp_path / "moved.zarr"))
        export_file(moved, tmp_path / "two", self.form)
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()

    def test_importing_again_finds_the_store(self, file, tmp_path):
        first = restore(self.form, file, tmp_path / "cache")
        before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
        restore(self.form, file, tmp_path / "cache")
        assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before

    def test_another_store_under_the_same_name_is_refused(self, file, tmp_path):
        other = dataclasses.replace(SAMPLES["usual"], seed=9)
        make_store(tmp_path / "cache", other)
        with pytest.raises(StoreMismatchError, match=r"another store.*content_digest"):
            restore(self.form, file, tmp_path / "cache")

    @pytest.mark.parametrize("name", HOSTILE_CONTENT)
    def test_content_that_contradicts_itself_is_refused(self, usual, tmp_path, name):
        content = HOSTILE_CONTENT[name](content_of(usual))
        with np.errstate(all="ignore"):
            self.form.write(tmp_path / "file", content)
        with pytest.raises(StoreError) as caught:
            restore(self.form, tmp_path / "file", tmp_path / "cache")
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 2000
        assert not list((tmp_path / "cache").rglob("COMPLETE"))
        assert leftovers([tmp_path]) == []

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"{",
            b"[1]",
            b'{"header": 1, "sha256": 2}',
            b'{"header": NaN, "sha256": ""}',
            b'{"header": {"exchange": 1e999}, "sha256": ""}',
            b"\xff\xfe",
            b"[" * 200_000,
            b'{"header": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b', "sha256": ""}',
            b'{"header": ' + b"9" * 10_000 + b', "sha256": ""}',
            forged(lambda value: value.update(attributes=[])),
            forged(lambda value: value.update(bytes=[])),
            forged(lambda value: value["attributes"].update(datasets=[1])),
            forged(lambda value: value["attributes"].update(spec=7)),
            forged(lambda value: value["attributes"].pop("n_tracks")),
        ],
        ids=[
            "empty",
            "open",
            "list",
            "numbers",
            "nan",
            "inf",
            "bytes",
            "deep",
            "deeper",
            "digits",
            "no-attributes",
            "no-lengths",
            "datasets-of-numbers",
            "no-spec",
            "no-count",
        ],
    )
    def test_a_header_that_is_none_is_refused(self, usual, tmp_path, text, monkeypatch):
        content = content_of(usual)
        if callable(text):
            text = text(content)
        with monkeypatch.context() as patch:
            patch.setattr(Header, "text", lambda self: text)
            self.form.write(tmp_path / "file", content)
        with pytest.raises(StoreError):
            restore(self.form, tmp_path / "file", tmp_path / "cache")

    def test_content_that_was_hashed_again_unchanged_is_read(self, usual, tmp_path):
        """What the tests above refuse is what they name, not their hashing."""
        self.form.write(tmp_path / "file", rehashed(times(np.float16(1))(content_of(usual))))
        back = restore(self.form, tmp_path / "file", tmp_path / "cache")
        assert files_of(back.path) == files_of(usual.path)

    def test_a_flipped_bit_never_becomes_other_numbers(self, usual, file, tmp_path):
        data = file.read_bytes()
        expected = files_of(usual.path)
        rng = np.random.default_rng(0)
        n_refused = 0
        places = rng.choice(len(data), size=120, replace=False).tolist()
        for number, place in enumerate([0, len(data) - 1, *places]):
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(bytes(damaged))
            try:
                back = restore(self.form, file, tmp_path / str(number))
            except StoreError:
                n_refused += 1
            else:  # a bit that says nothing, as in padding
                assert files_of(back.path) == expected
        assert n_refused > 25  # a small HDF5 file is mostly unused space

    def test_a_file_that_is_cut_off_is_refused(self, file, tmp_path):
        data = file.read_bytes()
        for number, length in enumerate([0, 1, 7, 8, 100, len(data) // 2, len(data) - 1]):
            file.write_bytes(data[:length])
            with pytest.raises(StoreError):
                restore(self.form, file, tmp_path / str(number))

    def test_noise_behind_the_right_first_bytes_is_refused(self, tmp_path):
        rng = np.random.default_rng(1)
        for length in (0, 4, 100, 5000):
            (tmp_path / "file").write_bytes(self.form.magic + rng.bytes(length))
            with pytest.raises(StoreError):
                restore(self.form, tmp_path / "file", tmp_path / "cache")

    def test_only_regular_files_are_opened(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path / "pipe", tmp_path, Path(os.devnull), tmp_path / "none"):
            with pytest.raises(StoreError):
                restore(self.form, path, tmp_path / "cache")

    def test_a_file_that_exists_is_replaced_only_by_force(self, usual, file, tmp_path):
        file.write_bytes(b"mine")
        with pytest.raises(UsageError, match="exists") as caught:
            export_file(usual, file, self.form)
        assert "--force" in caught.value.hint
        assert file.read_bytes() == b"mine"
        export_file(usual, file, self.form, force=True)
        restore(self.form, file, tmp_path / "cache")

    def test_a_link_is_replaced_not_followed(self, usual, tmp_path):
        (tmp_path / "target").write_bytes(b"mine")
        (tmp_path / "link").symlink_to("target")
        export_file(usual, tmp_path / "link", self.form, force=True)
        assert (tmp_path / "target").read_bytes() == b"mine"
        assert not (tmp_path / "link").is_symlink()

    def test_places_that_are_none_are_refused(self, usual, tmp_path):
        for out in (tmp_path, tmp_path / "no" / "where", usual.path / "tracks" / "file"):
            with pytest.raises(UsageError):
                export_file(usual, out, self.form, force=True)

    def test_a_damaged_store_gives_no_file(self, tmp_path):
        sample = dataclasses.replace(SAMPLES["shards"], poolings=("mean", "std"))
        store = make_store(tmp_path / "cache", sample)
        shards = store.path / "embeddings/mean/c"
        one, two = (shards / f"{n}/0/0" for n in (0, 1))
        assert one.stat().st_size == two.stat().st_size
        kept = one.read_bytes()
        one.write_bytes(two.read_bytes())  # every checksum inside is right
        two.write_bytes(kept)
        with pytest.raises(StoreCorruptError):
            export_file(open_store(store.path), tmp_path / "file", self.form)
        assert not (tmp_path / "file").exists()
        assert leftovers([tmp_path]) == []

    def test_a_store_that_is_not_what_it_says_gives_no_file(self, usual, tmp_path, monkeypatch):
        monkeypatch.setattr(Store, "content_digest", property(lambda self: "0" * 64))
        with pytest.raises(StoreCorruptError, match="does not hold the values"):
            export_file(usual, tmp_path / "file", self.form)
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_fails_leaves_the_old_file(self, usual, file):
        file.write_bytes(b"mine")
        operations: list[str] = []
        with disk.observed(lambda operation, path, data: operations.append(operation) or data):
            export_file(usual, file.with_name("other"), self.form)
        assert {"create", "write", "sync", "rename"} <= set(operations)

        for n in range(operations.index("rename") + 1):
            count = iter(range(len(operations)))

            def fail(operation, path, data, count=count, n=n):
                if next(count) == n:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return data

            with disk.observed(fail), pytest.raises(OSError, match="No space"):
                export_file(usual, file, self.form, force=True)
            assert file.read_bytes() == b"mine"
            assert leftovers([file.parent]) == []

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_a_full_disk_inside_the_library_leaves_nothing(self, usual, file, share):
        limit = int(file.stat().st_size * share)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                export_file(usual, file.with_name("other"), self.form)
            except OSError:
                code = 10
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
        assert not file.with_name("other").exists()
        assert leftovers([file.parent]) == []

    @pytest.mark.parametrize("operation", ["publish", "write"])
    def test_a_rival_that_is_first_is_no_error(self, usual, file, tmp_path, operation):
        """At ``write`` it also removes our unfinished folder, as where locks do nothing."""
        cache = tmp_path / "cache"

        def interfere(found, path, data):
            if found == operation and not Layout(cache).store_paths():
                with disk.observed(lambda operation, path, data: data):
                    restore(self.form, file, cache)
            return data

        with disk.observed(interfere):
            store = restore(self.form, file, cache)
        assert files_of(store.path) == files_of(usual.path)
        assert leftovers([cache]) == []

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12
    def test_an_import_that_is_killed_anywhere_is_done_again(self, usual, file, tmp_path):
        operations: list[str] = []
        with disk.observed(lambda operation, path, data: operations.append(operation) or data):
            restore(self.form, file, tmp_path / "whole")
        steps = sorted({*range(0, len(operations), 11), len(operations) - 1, len(operations) - 2})
        for n in steps:
            cache = tmp_path / str(n)
            pid = os.fork()
            if pid == 0:
                try:
                    count = iter(range(len(operations) + 1))

                    def die(operation, path, data, count=count, n=n):
                        if next(count) == n:
                            os.kill(os.getpid(), signal.SIGKILL)
                        return data

                    with disk.observed(die):
                        restore(self.form, file, cache)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            for path in Layout(cache).store_paths():
                assert files_of(path) == files_of(usual.path)
            assert files_of(restore(self.form, file, cache).path) == files_of(usual.path)
            if operations[n] != "remove" and n < operations.index("publish"):
                assert leftovers([cache]) == []

    def test_memory_holds_a_few_blocks_whatever_the_size(self, tmp_path):
        sample = Sample(rows={f"{i:02}": 640 for i in range(16)}, layers=(0,), dim=2)
        store = make_store(tmp_path / "cache", sample)
        assert store.n_segments == 10 * SHARD_ROWS
        alive: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
        most = 0

        def watched(blocks):
            def generate(pooling):
                nonlocal most
                for number, block in enumerate(blocks(pooling)):
                    assert len(block) <= SHARD_ROWS
                    alive[number] = block
                    most = max(most, len(alive))
                    yield block

            return generate

        content = content_of(store)
        out = dataclasses.replace(content, blocks=watched(content.blocks))
        self.form.write(tmp_path / "file", out)
        assert 1 <= most <= 3
        most = 0
        with self.form.opened(tmp_path / "file") as content:
            found = dataclasses.replace(content, blocks=watched(content.blocks))
            publish(Layout(tmp_path / "other"), assembly_of(found, "file"))
        assert 1 <= most <= 3
