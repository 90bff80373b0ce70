"""Deep verification: every damage is found, by its file and by the tracks it hits."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from damage import (
    KINDS,
    N_ROWS,
    SECONDS,
    SIZES_SHOW,
    Stores,
    assign,
    chunk_place,
    damaged,
    files_of,
    forge,
    forge_array,
    forge_attributes,
    make_world,
    numbers_of,
    relist,
    small_spec,
    wrong_numbers,
)
from torture import repetitions
from world import ToyEncoder, World, inline_decoders

from tune_cache.cache import gather
from tune_cache.cache.exchange.export import content_of
from tune_cache.cache.layout import Layout
from tune_cache.cache.reencode import choose_segments, reencode
from tune_cache.cache.shards import CHUNK_ROWS, SHARD_ROWS, inner_n_bytes
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.errors import (
    EncoderError,
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
)

VOUCHERS = "COMPLETE and files.json"
SHARD = "embeddings/mean/c/0/0/0"
REPETITIONS = repetitions(1, 4)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[str, tuple[World, Path]]:
    folder = tmp_path_factory.mktemp("worlds")
    good = make_world(folder / "good")
    return {
        "good": good,
        "other": make_world(folder / "other", seed=1),
        "stale": make_world(folder / "stale", scale=0.5, audio=good[0].audio),
    }


@pytest.fixture(scope="module")
def pristine(worlds) -> Stores:
    return Stores(*(worlds[name][1] for name in ("good", "other", "stale")))


@pytest.fixture
def stores(pristine, tmp_path) -> Stores:
    """The good store is a copy to be harmed, in a cache folder of its own."""
    place = tmp_path / "v1" / pristine.good.parent.name / pristine.good.name
    shutil.copytree(pristine.good, place)
    return Stores(place, pristine.other, pristine.stale)


@pytest.fixture(scope="module")
def expected(pristine) -> dict[str, np.ndarray]:
    return numbers_of(pristine.good)


def test_whole_stores_verify(pristine):
    for path in (pristine.good, pristine.other, pristine.stale):
        found = verify_store(path)
        assert found.findings == ()
        assert found.content_digest == open_store(path).content_digest
        assert found.n_bytes > sum(len((path / name).read_bytes()) for name in files_of(path)) / 2
    assert sorted(files_of(pristine.good)) == sorted(files_of(pristine.other))
    assert N_ROWS > SHARD_ROWS


def flip(store: Path, block: int, layer: int) -> None:
    """Change one bit of one chunk; blocks count through all shards."""
    index, inner = divmod(block, SHARD_ROWS // CHUNK_ROWS)
    path = store / f"embeddings/mean/c/{index}/0/0"
    place, _ = chunk_place(path, min(SHARD_ROWS, N_ROWS - index * SHARD_ROWS), inner, layer)
    data = bytearray(path.read_bytes())
    data[place + 7] ^= 4
    path.write_bytes(bytes(data))


N_BLOCKS = -(-N_ROWS // CHUNK_ROWS)


@pytest.mark.parametrize("block", range(N_BLOCKS))
def test_a_read_that_fails_names_the_tracks_of_the_chunk(stores, block):
    store = open_store(stores.good)
    rows = range(block * CHUNK_ROWS, (block + 1) * CHUNK_ROWS)
    hit = tuple(
        name
        for name, (start, stop) in zip(
            store.track_ids, itertools.pairwise(store.offset.tolist()), strict=True
        )
        if set(rows) & set(range(start, stop))
    )
    assert 0 < len(hit) < len(SECONDS)
    flip(stores.good, block, 1)
    for read in (lambda: store.read(hit[-1:]), lambda: list(content_of(store).blocks("mean"))):
        with pytest.raises(StoreCorruptError) as caught:
            read()
        assert caught.value.tracks == hit


def test_a_shard_that_is_gone_names_the_tracks_that_it_held(stores):
    store = open_store(stores.good)
    (stores.good / "embeddings/mean/c/1/0/0").unlink()
    assert len(store.read(["a.wav"]))
    with pytest.raises(StoreCorruptError) as caught:
        store.read(store.track_ids)
    assert caught.value.tracks == ("e.wav",)
    (stores.good / "embeddings/mean/zarr.json").write_text("{}")
    with pytest.raises(StoreCorruptError) as caught:
        store.read(["a.wav"])
    assert caught.value.tracks == store.track_ids


@pytest.mark.parametrize(
    ("file", "hit"),
    [
        ("embeddings/mean/c/1/0/0", "tracks of it"),
        ("tracks/audio_sha256/c/0/0", "all"),
        ("segments/n_samples/c/0", "none"),
        ("tracks/id_offset/c/0", "unknown"),
        ("COMPLETE", "unknown"),
    ],
)
def test_a_store_that_does_not_open_names_the_tracks_that_a_file_costs(stores, pristine, file, hit):
    whole = open_store(pristine.good)
    (stores.good / file).unlink()
    with pytest.raises(StoreCorruptError) as caught:
        open_store(stores.good)
    assert Path(caught.value.path) == stores.good / file
    expected = {"tracks of it": ("e.wav",), "all": whole.track_ids}.get(hit, ())
    assert caught.value.tracks == expected


def test_one_layer_is_read_without_a_byte_of_the_others(stores, expected, monkeypatch):
    read, real = [], os.preadv

    def counted(descriptor, buffers, offset):
        read.append(real(descriptor, buffers, offset))
        return read[-1]

    monkeypatch.setattr(gather.os, "preadv", counted)
    store = open_store(stores.good)
    for layer in (0, 2):
        for block in range(N_BLOCKS):
            flip(stores.good, block, layer)
    found = store.read_layer(store.track_ids, 1).values
    assert sum(read) == N_BLOCKS * inner_n_bytes(store.dim, "f2")
    np.testing.assert_array_equal(found, expected["mean"][:, 1])
    for layer in (0, 2):
        with pytest.raises(StoreCorruptError, match=f"chunk 0 of layer {layer}"):
            store.read_layer(["a.wav"], layer)


def test_the_stores_differ_in_values_and_not_in_sizes(pristine):
    """Or swapping their files would prove nothing."""
    for other in (pristine.other, pristine.stale):
        assert (other / SHARD).stat().st_size == (pristine.good / SHARD).stat().st_size
        assert (other / SHARD).read_bytes() != (pristine.good / SHARD).read_bytes()
    assert pristine.stale.name == pristine.good.name  # of the very same tracks


@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_is_found_and_never_becomes_numbers(stores, expected, kind):
    draw = random.Random(kind)
    n_cases = 0
    few = kind in ("other", "stale")  # most files of the three stores are the same
    step = 1 if few else repetitions(2, 1)
    for name in files_of(stores.good)[KINDS.index(kind) % step :: step] * REPETITIONS:
        if (stores.good / name).stat().st_size == 0:
            continue
        with damaged(stores, kind, name, draw) as done:
            if not done.is_done:
                continue
            n_cases += 1
            found = {finding.file for finding in verify_store(stores.good).findings}
            # either of the two may be the damaged one where they disagree
            vouchers = {"COMPLETE", "files.json"}
            assert done.file in found or (name in vouchers and found & vouchers), (done, found)
            if kind in SIZES_SHOW and not name.startswith("ledger/"):
                with pytest.raises(StoreError, match=re.escape(stores.good.name)):
                    open_store(stores.good)
            assert wrong_numbers(stores.good, expected) == [], done
    assert n_cases >= REPETITIONS * (6 if few else 30 // step)
    assert verify_store(stores.good).findings == ()


def test_the_cases_are_as_many_as_the_contract_asks(pristine):
    """1,500 where everything is repeated; some files of swapped stores are the same."""
    n_cases = len(files_of(pristine.good)) * (len(KINDS) - 2) * repetitions(4, 4)
    assert n_cases >= 1500


def tracks_of_rows(path: Path, start: int, stop: int) -> tuple[str, ...]:
    """The obvious slow way: ask every row."""
    store = open_store(path)
    owner = np.repeat(np.array(store.track_ids), np.diff(store.offset))
    return tuple(sorted(set(owner[start:stop].tolist())))


@pytest.mark.parametrize("block", range(4))
def test_a_damaged_chunk_names_the_tracks_of_its_rows_and_no_other(stores, pristine, block):
    path = stores.good / SHARD
    offset, length = chunk_place(path, SHARD_ROWS, block, 1)
    data = bytearray(path.read_bytes())
    data[offset + length // 2] ^= 1
    path.write_bytes(bytes(data))
    found = verify_store(stores.good)
    assert [finding.file for finding in found.findings] == [SHARD]
    rows = block * CHUNK_ROWS, (block + 1) * CHUNK_ROWS
    assert found.tracks == tracks_of_rows(pristine.good, *rows)
    assert found.is_trusted
    store = open_store(stores.good)
    whole = [name for name in store.track_ids if name not in found.tracks]
    good = open_store(pristine.good)
    assert np.array_equal(store.read(whole).values, good.read(whole).values)
    with pytest.raises(StoreError, match="fails the checksum of chunk"):
        store.read(found.tracks)


def test_a_chunk_of_another_store_is_found_and_not_read(stores, pristine):
    """Its own checksum is right, its length too: only the list knows better."""
    path = stores.good / SHARD
    offset, length = chunk_place(path, SHARD_ROWS, 2, 0)
    data = bytearray(path.read_bytes())
    data[offset : offset + length] = (pristine.other / SHARD).read_bytes()[offset : offset + length]
    path.write_bytes(bytes(data))
    found = verify_store(stores.good)
    assert found.tracks == tracks_of_rows(pristine.good, 2 * CHUNK_ROWS, 3 * CHUNK_ROWS)
    with pytest.raises(StoreError, match="holds another chunk 2 of layer 0 than was written"):
        open_store(stores.good).read(found.tracks, layers=[0])


def test_chunks_that_changed_places_are_found_and_not_read(stores, expected):
    path = stores.good / SHARD
    data = bytearray(path.read_bytes())
    one, two = (chunk_place(path, SHARD_ROWS, block, 1) for block in (0, 3))
    first = bytes(data[one[0] : sum(one)])
    data[one[0] : sum(one)] = data[two[0] : sum(two)]
    data[two[0] : sum(two)] = first
    path.write_bytes(bytes(data))
    assert set(verify_store(stores.good).tracks) == {"a.wav", "d.wav", "e.wav"}
    assert wrong_numbers(stores.good, expected) == []
    with pytest.raises(StoreError, match="another chunk"):
        numbers_of(stores.good)


def as_of_old(store: Path) -> None:
    """A store of before chunks and ledger were listed."""
    listing = json.loads((store / "files.json").read_text())
    for entry in listing["files"].values():
        entry.pop("crc32c", None)
    del listing["ledger"]
    relist(store, listing)


def test_an_older_store_verifies_and_a_swapped_shard_of_it_is_found(stores):
    as_of_old(stores.good)
    assert verify_store(stores.good).findings == ()
    shutil.copy(stores.other / SHARD, stores.good / SHARD)
    found = verify_store(stores.good)
    assert [finding.file for finding in found.findings] == [SHARD]
    assert found.tracks == tracks_of_rows(stores.good, 0, SHARD_ROWS)


FORGERIES = {
    "offset falls": ("tracks/offset", assign(2, 1), "not how the spec cuts"),
    "offset begins late": ("tracks/offset", assign(0, 1), "not how the spec cuts"),
    "grid shifted": ("segments/start_sample", assign(7, 3), "not how the spec cuts"),
    "length of a segment": ("segments/n_samples", assign(7, 3), "not how the spec cuts"),
    "row of another track": ("segments/track", assign(7, 3), "not how the spec cuts"),
    "an id twice": ("tracks/id_utf8", assign(5, ord("a")), "more than once"),
    "ids not sorted": ("tracks/id_utf8", assign(0, ord("z")), "not sorted"),
    "a status nobody knows": ("tracks/status", assign(1, 7), "neither ok nor failed"),
    "another audio": ("tracks/audio_sha256", assign(3, 3), "another collection"),
    "another length": ("tracks/n_samples", assign(0, 8000), "not how the spec cuts"),
    "a length too short": ("tracks/n_samples", assign(0, 5), "cannot be cut"),
    "another rate": ("tracks/sample_rate", assign(0, 44_100), "another content digest"),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_arrays_that_contradict_each_other_are_found_though_every_hash_agrees(stores, case):
    name, change, match = FORGERIES[case]
    forge_array(stores.good, name, change)
    open_store(stores.good)  # sizes say nothing
    found = verify_store(stores.good)
    assert any(match in finding.problem for finding in found.findings), found.findings
    assert not found.is_trusted


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.update(n_segments=a["n_segments"] - 1), "states|shards"),
        (lambda a: a.update(n_segments=10**12), "states"),
        (lambda a: a.update(n_tracks=10**9), "states a shape"),
        (lambda a: a.update(n_tracks=-1), "shape|makes no sense"),
        (lambda a: a.update(dim=10**6), "bytes|shape"),
        (lambda a: a.update(layers=[0]), "states layers"),
        (lambda a: a.update(dtype="f4"), "states dtype"),
        (lambda a: a.update(collection_digest="00" * 32), "another collection"),
        (lambda a: a.update(content_digest="00" * 32), "another content digest"),
        (lambda a: a["coverage"].update(ok=3), "coverage"),
        (lambda a: a.update(spec_key="00" * 32), "spec key"),
        (lambda a: a.pop("spec"), "cannot be read"),
    ],
)
def test_attributes_that_contradict_the_arrays_are_found(stores, change, match):
    forge_attributes(stores.good, change)
    if match == "spec key":  # it says that it is of another version
        with pytest.raises(StoreMismatchError, match=match):
            verify_store(stores.good)
        return
    found = verify_store(stores.good)
    assert not found.is_trusted
    problems = " ".join(finding.problem for finding in found.findings)
    assert any(word in problems for word in match.split("|")), problems


def test_rows_that_are_not_finite_are_found_by_track(stores, pristine):
    path = stores.good / SHARD
    data = bytearray(path.read_bytes())
    offset, length = chunk_place(path, SHARD_ROWS, 3, 2)
    row = 800
    at = offset + (row - 3 * CHUNK_ROWS) * 16
    data[at : at + 2] = struct.pack("<H", 0x7E00)
    data[offset + length - 4 : offset + length] = struct.pack(
        "<I", google_crc32c.value(bytes(data[offset : offset + length - 4]))
    )
    forge(stores.good, SHARD, bytes(data))
    found = verify_store(stores.good)
    assert found.findings[0].problem == "has 1 rows that are not finite"
    assert found.tracks == tracks_of_rows(pristine.good, row, row + 1)


def test_a_shard_that_nobody_lists_is_found(stores):
    listing = json.loads((stores.good / "files.json").read_text())
    del listing["files"][SHARD]
    relist(stores.good, listing)
    found = {finding.file: finding for finding in verify_store(stores.good).findings}
    assert "not listed" in found[SHARD].problem


@pytest.mark.parametrize("kind", ["missing", "any byte", "emptied", "truncated"])
@pytest.mark.parametrize("name", ["COMPLETE", "files.json"])
def test_without_a_voucher_the_content_digest_vouches_for_the_rest(stores, name, kind):
    draw = random.Random(7)
    for _ in range(repetitions(3, 100)):
        with damaged(stores, kind, name, draw):
            found = verify_store(stores.good)
            # nothing vouches for the ledger but its entry in files.json, and which of the
            # two is wrong cannot be told where all the rest agrees with both
            files = {finding.file for finding in found.findings} - {"ledger/extract.json"}
            assert len(files) == 1
            assert files <= {"COMPLETE", "files.json"}
            assert kind == "any byte" or files == {name}
            assert found.is_trusted
            assert found.tracks == ()


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("COMPLETE", "[1]", "holds no JSON object"),
        ("files.json", "[1]", "holds no JSON object"),
        ("files.json", "{}", "cannot be read: it has no entry 'files'"),
        ("files.json", '{"files": {"../x": {"bytes": 1, "sha256": ""}}}', "names '../x', outside"),
        ("embeddings/mean/zarr.json", "[1]", "has 3 bytes, expected"),
    ],
)
def test_a_finding_is_a_predicate(stores, file, text, problem):
    (stores.good / file).write_text(text)
    told = {item.file: item.problem for item in verify_store(stores.good).findings}
    assert told[file].startswith(problem)


def test_what_cannot_be_read_is_named_by_its_place_in_the_store(stores):
    store = open_store(stores.good)
    flip(stores.good, 0, 1)
    with pytest.raises(StoreCorruptError, match=f"^file '{SHARD}' of store '{stores.good}' fails"):
        store.read(["a.wav"])
    (found,) = verify_store(stores.good).findings
    assert found.problem == "fails the checksum of chunk 0 of layer 1"


@pytest.mark.parametrize("lost", ["files.json", "COMPLETE and files.json", "everything"])
def test_where_nothing_tells_what_a_store_has_nothing_is_accused_of_not_belonging(stores, lost):
    group = json.loads((stores.good / "zarr.json").read_text())
    del group["attributes"]["dim"]
    (stores.good / "zarr.json").write_text(json.dumps(group))
    for name in files_of(stores.good):
        if name in lost or lost == "everything":
            (stores.good / name).unlink()
    found = verify_store(stores.good)
    assert not found.is_trusted
    named = {item.file: item for item in found.findings}
    assert named.keys() == {
        "zarr.json",
        *(lost if lost != "everything" else VOUCHERS).split(" and "),
    }
    assert {item.scope for item in found.findings} == {"store"}
    if lost != "everything":
        assert named["zarr.json"].problem == "cannot be read: it has no attribute 'dim'"


def test_without_files_json_damaged_rows_put_all_in_doubt(stores):
    with damaged(stores, "middle byte", SHARD, random.Random(1)):
        (stores.good / "files.json").unlink()
        found = verify_store(stores.good)
        assert not found.is_trusted
        assert set(found.tracks) == set(SECONDS)


def test_without_complete_damaged_rows_are_still_told_apart(stores, pristine):
    path = stores.good / SHARD
    offset, _ = chunk_place(path, SHARD_ROWS, 0, 0)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
    (stores.good / "COMPLETE").unlink()
    found = verify_store(stores.good)
    assert found.is_trusted
    assert found.tracks == tracks_of_rows(pristine.good, 0, CHUNK_ROWS)


@pytest.mark.parametrize("folder", ["embeddings", "embeddings/mean/c", "tracks", "ledger"])
def test_linked_and_strange_folders_are_found(stores, tmp_path, folder):
    (stores.good / folder).rename(tmp_path / "elsewhere")
    (stores.good / folder).symlink_to(tmp_path / "elsewhere")
    assert folder in {finding.file for finding in verify_store(stores.good).findings}
    (stores.good / folder).unlink()
    (tmp_path / "elsewhere").rename(stores.good / folder)
    (stores.good / folder / "strange").mkdir()
    (stores.good / folder / "strange" / "file").write_text("x")
    found = verify_store(stores.good).findings
    assert [finding.file for finding in found] == [f"{folder}/strange"]


def test_a_store_in_the_wrong_place_is_found(stores):
    wrong = stores.good.with_name(stores.good.name.replace("seg0.05", "seg10"))
    stores.good.rename(wrong)
    assert "belongs at" in verify_store(wrong).findings[0].problem
    elsewhere = wrong.parent.with_name("muq") / stores.good.name
    elsewhere.parent.mkdir()
    wrong.rename(elsewhere)
    found = verify_store(elsewhere).findings
    assert found[0].problem.startswith("lies at 'muq/")
    outside = elsewhere.parents[2] / "anything"
    elsewhere.rename(outside)
    assert verify_store(outside).findings == ()  # names are free outside a cache


def test_verifying_changes_nothing_and_needs_no_permission_to_write(stores):
    for path in (stores.good, *stores.good.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in stores.good.rglob("*")}
    assert verify_store(stores.good).findings == ()
    assert {path: path.stat().st_mtime_ns for path in stores.good.rglob("*")} == before
    for path in (stores.good, *stores.good.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_what_is_no_store_and_what_is_of_another_version_are_said(stores, tmp_path):
    with pytest.raises(StoreNotFoundError):
        verify_store(tmp_path / "nothing")
    with pytest.raises(StoreNotFoundError):
        verify_store(stores.good / "zarr.json")
    forge_attributes(stores.good, lambda a: a["spec"].update(invented=1))
    with pytest.raises(StoreMismatchError, match="spec cannot be read"):
        verify_store(stores.good)


def test_the_hint_names_the_store_and_both_commands(stores):
    (stores.good / SHARD).write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        open_store(stores.good)
    assert f"tune cache verify {stores.good}" in str(caught.value.hint)
    assert f"tune cache repair {stores.good}" in str(caught.value.hint)


def test_segments_encoded_again_come_out_as_stored(worlds):
    world, path = worlds["good"]
    store = open_store(path)
    chosen = choose_segments(store, sorted(SECONDS), 12, seed=3)
    assert sum(map(len, chosen.values())) == 12
    assert chosen == choose_segments(store, sorted(SECONDS), 12, seed=3)
    assert chosen != choose_segments(store, sorted(SECONDS), 12, seed=4)
    paths = {name: world.audio / name for name in SECONDS}
    again = reencode(store, chosen, paths, ToyEncoder(), open_decoders=inline_decoders)
    assert [item.largest_difference for item in again] == [0.0] * 12
    assert all(item.is_same for item in again)


def test_segments_of_other_vectors_or_other_audio_do_not(worlds):
    world, path = worlds["good"]
    store = open_store(path)
    chosen = choose_segments(store, sorted(SECONDS), 6, seed=3)
    here = {name: world.audio / name for name in SECONDS}
    there = {name: worlds["other"][0].audio / name for name in SECONDS}
    slightly = ToyEncoder(scale=1.01)
    for paths, encoder in ((here, slightly), (there, ToyEncoder())):
        again = reencode(store, chosen, paths, encoder, open_decoders=inline_decoders)
        assert not any(item.is_same for item in again)
    (lost,) = reencode(
        store, {"a.wav": [3]}, {"a.wav": Path("nowhere")}, ToyEncoder(),
        open_decoders=inline_decoders,
    )  # fmt: skip
    assert not lost.is_same
    assert lost.problem
    with pytest.raises(EncoderError, match="not the one that was described"):
        reencode(store, chosen, here, ToyEncoder(algorithm=2), open_decoders=inline_decoders)


def test_drawing_more_segments_than_there_are_draws_all(worlds):
    store = open_store(worlds["good"][1])
    chosen = choose_segments(store, ["c.wav"], 10**6, seed=0)
    assert chosen == {"c.wav": list(range(20))}


def test_layouts_of_these_tests_are_those_of_the_cache(worlds):
    world, path = worlds["good"]
    store = open_store(path)
    place = Layout(world.layout.root).store_path(small_spec(world.encoder), store.collection_digest)
    assert place == path
    assert os.fspath(path).endswith(".zarr")


def test_every_test_that_the_promises_name_exists():
    folder = Path(__file__).parent
    page = (folder.parent / "docs/reliability.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 30
    for file, name in named:
        text = (folder / file).read_text("utf-8")
        assert re.search(rf"^def {name}\(", text, flags=re.MULTILINE), f"{file} has no {name}"
    promises = [int(number) for number in re.findall(r"^\| (\d+) \|", page, flags=re.MULTILINE)]
    assert promises == list(range(1, 19))
