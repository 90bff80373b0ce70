"""Stage one: what is encoded, what is found again, what a bad track costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from world import (
    LENGTHS,
    MIN_SAMPLES,
    RATE,
    InlineDecoders,
    ToyEncoder,
    World,
    arrays_of,
    make_old,
    toy_spec,
    write_track,
)

from tune_cache.audio import decode, write_wav
from tune_cache.cache import assemble, extract, shards
from tune_cache.cache.encode import Batcher, encode_unit
from tune_cache.cache.extract import extract_stores
from tune_cache.cache.find import find_stores
from tune_cache.cache.locks import Claims
from tune_cache.cache.store import open_store
from tune_cache.errors import (
    AudioError,
    EncoderError,
    StoreAmbiguousError,
    StoreCorruptError,
    UsageError,
)
from tune_cache.segments import cut, segment_spec
from tune_cache.specs import collection_digest


@pytest.fixture
def world(tmp_path) -> World:
    return World.make(tmp_path)


def rows_by_hand(
    world: World, name: str, seconds: float | str = 1.0, pooling: str = "mean"
) -> np.ndarray:
    """The obvious slow version: one segment at a time, nothing batched or cached."""
    spec = toy_spec(world.encoder, seconds)
    samples = InlineDecoders().submit(name, world.audio / name).result().samples
    encoder = ToyEncoder(poolings=(pooling,))
    rows = [
        encoder.embed(samples[None, s.start_sample : s.start_sample + s.n_samples])[pooling][0]
        for s in cut(len(samples), spec.segments)
    ]
    return np.stack(rows).astype(np.float16)


@pytest.mark.parametrize("seconds", [1.0, 2.5, "full"])
def test_stored_rows_equal_the_slow_reference(world, seconds):
    store = world.extract(seconds)[0].store
    assert store.track_ids == tuple(sorted(LENGTHS))
    read = store.read(store.track_ids)
    for index, name in enumerate(store.track_ids):
        np.testing.assert_array_equal(read[index], rows_by_hand(world, name, seconds))


def test_a_second_extract_encodes_nothing_and_loads_nothing(world):
    first = world.extract()[0]
    n_encoded = world.encoder.n_encoded()
    second = extract_stores(
        world.tracks(),
        [toy_spec(world.encoder)],
        layout=world.layout,
        info=world.encoder.info(),
        load=lambda: pytest.fail("the encoder was loaded for nothing"),
    )[0]
    assert (first.hit, second.hit) == (False, True)
    assert second.path == first.path
    assert world.encoder.n_encoded() == n_encoded


def test_a_store_reads_the_same_in_a_new_process(world):
    store = world.extract()[0].store
    script = (
        "import sys, hashlib; from tune_cache.cache.store import open_store;"
        "s = open_store(sys.argv[1]); r = s.read(s.track_ids);"
        "print(hashlib.sha256(r.values.tobytes()).hexdigest())"
    )
    out = subprocess.run(
        [sys.executable, "-c", script, str(store.path)], capture_output=True, text=True, check=True
    )
    here = hashlib.sha256(store.read(store.track_ids).values.tobytes()).hexdigest()
    assert out.stdout.strip() == here


def test_several_lengths_in_one_run_equal_one_at_a_time(world, tmp_path):
    together = world.extract(1.0, 2.0, "full")
    other = World(tmp_path / "other", world.encoder)
    shutil.copytree(world.audio, other.audio)
    for path in other.audio.rglob("*.wav"):
        make_old(path)
    for outcome, seconds in zip(together, (1.0, 2.0, "full"), strict=True):
        alone = other.extract(seconds)[0]
        assert alone.path.name == outcome.path.name
        assert arrays_of(alone.path) == arrays_of(outcome.path)


def test_batch_size_never_changes_a_stored_byte(world, tmp_path):
    reference = arrays_of(world.extract()[0].path)
    for batch_size in (1, 3, 1000):
        other = World(tmp_path / f"other{batch_size}", world.encoder)
        shutil.copytree(world.audio, other.audio)
        assert arrays_of(other.extract(batch_size=batch_size)[0].path) == reference


def test_only_the_changed_track_is_encoded_again(world):
    before = world.extract()[0].store
    n_encoded = world.encoder.n_encoded()
    write_track(world.audio / "b/tail.wav", 3 * RATE, seed=99)
    after = world.extract()[0]
    assert after.path != before.path
    assert world.encoder.n_encoded() - n_encoded == 3
    assert (after.n_encoded, after.n_copied) == (1, len(LENGTHS) - 1)
    np.testing.assert_array_equal(
        after.store.read(["b/tail.wav"]).values, rows_by_hand(world, "b/tail.wav")
    )
    others = [name for name in after.store.track_ids if name != "b/tail.wav"]
    np.testing.assert_array_equal(after.store.read(others).values, before.read(others).values)


def test_an_added_track_costs_only_itself(world):
    world.extract()
    n_encoded = world.encoder.n_encoded()
    write_track(world.audio / "d/new.wav", 2 * RATE, seed=7)
    outcome = world.extract()[0]
    assert world.encoder.n_encoded() - n_encoded == 2
    assert "d/new.wav" in outcome.store.track_ids


def test_a_store_with_copied_rows_equals_one_made_at_once(world, tmp_path):
    fresh = World(tmp_path / "fresh", world.encoder)
    shutil.copytree(world.audio, fresh.audio)
    world.extract(names=["a/exact.wav", "b/many.wav"])
    grown = world.extract()[0]
    assert grown.n_copied == 2
    assert arrays_of(fresh.extract()[0].path) == arrays_of(grown.path)


def test_a_renamed_file_is_copied_not_encoded(world):
    world.extract()
    n_encoded = world.encoder.n_encoded()
    (world.audio / "b/many.wav").rename(world.audio / "b/renamed.wav")
    outcome = world.extract()[0]
    assert world.encoder.n_encoded() == n_encoded
    np.testing.assert_array_equal(
        outcome.store.read(["b/renamed.wav"]).values, rows_by_hand(world, "b/renamed.wav")
    )


def test_a_damaged_source_of_copies_is_passed_over(world):
    source = world.extract()[0].path
    shard = source / "embeddings/mean/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 0xFF
    shard.write_bytes(bytes(data))
    write_track(world.audio / "d/new.wav", 2 * RATE, seed=7)
    outcome = world.extract()[0]
    assert outcome.n_copied == 0
    np.testing.assert_array_equal(
        outcome.store.read(["b/many.wav"]).values, rows_by_hand(world, "b/many.wav")
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"not music, not at all" * 50), "not-audio"),
        (lambda path: path.unlink(), "missing"),
        (lambda path: write_track(path, MIN_SAMPLES - 1, 0), "too-short"),
    ],
    ids=["empty", "text", "missing", "too-short"],
)
def test_one_bad_track_costs_one_track(world, damage, reason):
    names = sorted(LENGTHS)
    damage(world.audio / "b/many.wav")
    outcome = world.extract(names=names)[0]
    assert list(outcome.failed) == ["b/many.wav"]
    assert outcome.store.status["b/many.wav"] == reason
    assert outcome.store.attrs["coverage"]["failed"] == {reason: 1}
    good = [name for name in names if name != "b/many.wav"]
    for name in good:
        np.testing.assert_array_equal(outcome.store.read([name]).values, rows_by_hand(world, name))
    again = world.extract(names=names)[0]
    assert again.hit
    assert again.failed == outcome.failed


def test_when_every_track_fails_nothing_is_published(world):
    for path in world.audio.rglob("*.wav"):
        path.write_bytes(b"nothing")
    with pytest.raises(AudioError, match=r"none of 8 tracks could be encoded"):
        world.extract()
    assert world.layout.store_paths() == []


def test_a_file_that_changes_while_it_is_read_is_refused(world):
    tracks = world.tracks()
    write_track(world.audio / "b/many.wav", 5 * RATE, seed=123)
    outcome = world.extract(planned=tracks)[0]
    assert outcome.store.status["b/many.wav"] == "changed"


@pytest.mark.parametrize(
    ("scale", "dtype", "match"),
    [
        (1e9, "f2", "beyond float16"),
        (float("nan"), "f2", "not finite"),
        (float("inf"), "f4", "not finite"),
    ],
)
def test_values_outside_the_stored_dtype_fail_the_track(world, scale, dtype, match):
    good = world.extract()[0]
    assert not good.failed
    world.encoder = dataclasses.replace(world.encoder, scale=scale, algorithm=2)
    with pytest.raises(AudioError, match=match):
        world.extract_specs([toy_spec(world.encoder, dtype=dtype)])


class Loud(ToyEncoder):
    """Gives a bad value in its last pooling where a waveform is loud."""

    bad = 0.0

    def embed(self, waveforms):
        out = ToyEncoder.embed(self, waveforms)
        out[self.poolings[-1]][np.abs(waveforms).max(axis=1) > 0.9, -1, 2] = self.bad
        return out


@pytest.mark.parametrize(
    ("bad", "dtype", "match"),
    [
        (-1e9, "f2", "max embedding reaches 1e+09, beyond float16"),
        (float("nan"), "f2", "max embedding is not finite"),
        (float("inf"), "f4", "max embedding is not finite"),
    ],
)
def test_one_bad_value_costs_its_track_and_no_other(world, bad, dtype, match):
    path = world.audio / "b/many.wav"
    samples = decode(path, sample_rate_hz=RATE).samples
    samples[3 * RATE] = 0.95  # in one segment of seven
    write_wav(path, samples, RATE)
    world.encoder = Loud(log=world.encoder.log, poolings=("mean", "max"))
    world.encoder.bad = bad
    specs = [toy_spec(world.encoder, dtype=dtype)]
    outcome = world.extract_specs(specs)[0]
    assert list(outcome.failed) == ["b/many.wav"]
    assert match in outcome.failed["b/many.wav"]
    assert outcome.store.status["b/many.wav"] == "bad-embedding"
    assert outcome.store.attrs["coverage"]["failed"] == {"bad-embedding": 1}
    for name in sorted(LENGTHS.keys() - {"b/many.wav"}):
        for pooling in world.encoder.poolings:
            found = outcome.store.read([name], pooling=pooling).values.astype(np.float16)
            np.testing.assert_array_equal(found, rows_by_hand(world, name, pooling=pooling))
    again = world.extract_specs(specs)[0]
    assert (again.hit, again.failed) == (True, outcome.failed)


def test_large_values_are_kept_exactly_as_float32(world):
    world.encoder = dataclasses.replace(world.encoder, scale=1e9, algorithm=2)
    store = world.extract_specs([toy_spec(world.encoder, dtype="f4")])[0].store
    assert store.read(store.track_ids).values.max() > 1e8


class Narrow(ToyEncoder):
    """Runs out of memory above two items of a second."""

    def embed(self, waveforms):
        if waveforms.size > 2 * RATE:
            raise MemoryError
        return super().embed(waveforms)


def test_running_out_of_memory_halves_the_batch_and_keeps_the_vectors(world, tmp_path):
    reference = arrays_of(world.extract()[0].path)
    other = World(tmp_path / "other", Narrow())
    shutil.copytree(world.audio, other.audio)
    outcome = other.extract(batch_size=16)[0]
    assert arrays_of(outcome.path) == reference
    assert outcome.ledger["n_backoffs"] >= 1


def test_one_item_that_does_not_fit_is_a_sentence(world):
    world.encoder = Narrow()
    with pytest.raises(EncoderError, match=r"7\.0 s does not fit into memory"):
        world.extract("full")


def test_shares_together_make_the_whole(world, tmp_path):
    reference = arrays_of(world.extract()[0].path)
    other = World(tmp_path / "other", world.encoder)
    shutil.copytree(world.audio, other.audio)
    first = other.extract(part="2/2")[0]
    assert first.store is None
    assert first.n_missing_units > 0
    last = other.extract(part="1/2")[0]
    assert arrays_of(last.path) == reference


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2"])
def test_an_impossible_share_is_a_usage_error(world, part):
    with pytest.raises(UsageError, match="--part"):
        world.extract(part=part)


def test_every_field_of_a_spec_makes_another_store(world):
    base = toy_spec(world.encoder)
    seen = {base.key}
    changes = {
        "layers": (0, 1),
        "poolings": ("mean", "max"),
        "dtype": "f4",
        "channels": "first",
        "resampler": "other",
        "decoder": "other",
    }
    variants = [dataclasses.replace(base, **{name: value}) for name, value in changes.items()]
    inner = {
        "encoder": {
            "name": "other",
            "weights_sha256": "22" * 32,
            "config_sha256": "22" * 32,
            "precision": "bf16",
            "algorithm": 2,
        },
        "segments": {
            "sample_rate_hz": 9000,
            "length_samples": 9000,
            "hop_samples": 4000,
            "tail": "pad",
            "min_tail_samples": 1,
            "min_samples": 99,
        },
    }
    for part, fields in inner.items():
        for name, value in fields.items():
            changed = dataclasses.replace(getattr(base, part), **{name: value})
            variants.append(dataclasses.replace(base, **{part: changed}))
    padded = dataclasses.replace(base.segments, tail="pad", grid="file")  # only padded ones may
    variants.append(dataclasses.replace(base, segments=padded))
    n_fields = sum(len(dataclasses.fields(x)) for x in (base, base.encoder, base.segments))
    # normalisation has one legal value; encoder and segments are counted by their own fields
    assert len(variants) == n_fields - 3
    for variant in variants:
        assert variant.key not in seen
        seen.add(variant.key)
        assert type(variant).from_json(variant.to_json()) == variant


def test_padding_reaches_embeddings_only_under_pad(world):
    encoder = world.encoder
    spec = toy_spec(encoder)
    padded = dataclasses.replace(spec, segments=dataclasses.replace(spec.segments, tail="pad"))
    tracks = world.tracks(["b/tail.wav"])
    decoded = [InlineDecoders().submit(t.track_id, t.path).result() for t in tracks]
    plain = encode_unit(tracks, decoded, spec, Batcher(encoder))
    zeros = encode_unit(tracks, decoded, padded, Batcher(encoder))
    np.testing.assert_array_equal(plain.embeddings["mean"][:2], zeros.embeddings["mean"][:2])
    assert zeros.embeddings["mean"][2, 0, 3] == 0.0  # the last sample is padding
    assert plain.embeddings["mean"][2, 0, 3] != 0.0
    assert zeros.n_samples[2] == plain.n_samples[2] == RATE // 2


def test_hit_on_a_damaged_store_is_an_error_not_numbers(world):
    path = world.extract()[0].path
    shard = path / "embeddings/mean/c/0/0/0"
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    with pytest.raises(StoreCorruptError, match="embeddings/mean/c/0/0/0"):
        world.extract()
    with pytest.raises(StoreCorruptError):
        open_store(path)


def test_every_pooling_keeps_its_own_rows_copied_ones_too(world):
    world.encoder = dataclasses.replace(world.encoder, poolings=("mean", "max", "std"))
    world.extract(names=["a/exact.wav", "b/many.wav"])
    outcome = world.extract()[0]
    assert outcome.n_copied == 2
    for pooling in world.encoder.poolings:
        for name in outcome.store.track_ids:
            np.testing.assert_array_equal(
                outcome.store.read([name], pooling=pooling).values,
                rows_by_hand(world, name, pooling=pooling),
            )


def test_a_store_under_another_name_is_no_hit(world, tmp_path):
    one = world.extract(1.0)[0].path
    two = world.extract(2.0)[0].path
    shutil.rmtree(two)
    shutil.copytree(one, two)
    with pytest.raises(StoreCorruptError, match="holds another store") as caught:  # as verify
        world.extract(2.0)
    assert caught.value.path == str(two)


def test_a_store_under_another_specs_name_is_not_copied_from(world):
    names = sorted(LENGTHS)
    mine = toy_spec(world.encoder)
    other = dataclasses.replace(mine, decoder="another")
    path = world.extract_specs([other], names=names[:2])[0].path
    path.rename(path.with_name(path.name.replace(other.key[:8], mine.key[:8])))
    (outcome,) = world.extract_specs([mine], names=names[:3])
    assert (outcome.n_copied, outcome.n_encoded) == (0, 3)


class Stubborn(ToyEncoder):
    """Gives one layer, whatever was asked for."""

    def embed(self, waveforms):
        return {name: rows[:, :1] for name, rows in ToyEncoder.embed(self, waveforms).items()}


def test_an_encoder_that_gives_another_shape_is_refused(world):
    world.encoder = Stubborn()
    with pytest.raises(EncoderError, match=r"of shape \(\d+, 1, 8\), expected \(\d+, 3, 8\)"):
        world.extract()


def test_an_encoder_other_than_described_is_refused(world):
    spec = toy_spec(world.encoder)
    world.encoder = dataclasses.replace(world.encoder, weights_sha256="99" * 32)
    with pytest.raises(EncoderError, match="is not the one that was described"):
        world.extract_specs([spec])


class FullCpu(ToyEncoder):
    """Fails as torch does on a CPU without memory."""

    def embed(self, waveforms):
        if waveforms.size > 2 * RATE:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return ToyEncoder.embed(self, waveforms)


def test_torch_without_memory_on_a_cpu_is_recognised(world):
    world.encoder = FullCpu()
    assert world.extract(batch_size=16)[0].ledger["n_backoffs"] >= 1


def test_a_touched_file_with_the_same_bytes_has_not_changed(world):
    tracks = world.tracks()
    (world.audio / "b/many.wav").chmod(0o600)
    outcome = world.extract(planned=tracks)[0]
    assert not outcome.failed


def test_the_content_digest_names_no_path(world, tmp_path):
    (world.audio / "a/exact.wav").write_bytes(b"broken")
    other = World(tmp_path / "other", world.encoder)
    shutil.copytree(world.audio, other.audio)
    here, there = world.extract()[0].store, other.extract()[0].store
    assert here.failed != {}
    assert here.content_digest == there.content_digest


def test_the_content_digest_names_no_shard_size(tmp_path, monkeypatch):
    world = World.make(tmp_path, {"a.wav": 31 * RATE, "b.wav": 22 * RATE + 17})
    world.encoder = dataclasses.replace(world.encoder, poolings=("mean", "std"))
    digests, n_shards = {}, {}

    def assemble_often(final, assembly):
        for n_rows in (256, 512, 2048, 1024):
            monkeypatch.setattr(assemble, "SHARD_ROWS", n_rows)
            monkeypatch.setattr(shards, "SHARD_ROWS", n_rows)
            store = tmp_path / f"{n_rows}.zarr"
            assert assemble.assemble(store, assembly)
            attributes = json.loads((store / "zarr.json").read_text())["attributes"]
            digests[n_rows] = attributes["content_digest"]
            n_shards[n_rows] = len([*(store / "embeddings/std/c").glob("*/0/0")])
        return assemble.assemble(final, assembly)

    monkeypatch.setattr(extract, "assemble", assemble_often)
    segments = segment_spec(0.02, sample_rate_hz=RATE, min_samples=MIN_SAMPLES, min_tail_seconds=0)
    store = world.extract_specs([toy_spec(world.encoder, segments=segments)])[0].store
    assert n_shards == {n: -(-store.n_segments // n) for n in (256, 512, 1024, 2048)}
    assert min(n_shards.values()) >= 2
    assert set(digests.values()) == {store.content_digest}


def test_a_folder_that_an_assembly_left_goes_also_where_its_journal_is_gone(world):
    path = world.extract()[0].path
    before = arrays_of(path)
    left = path.with_name(f".{path.name}.here.99999.abcd1234.building")
    other = path.with_name(f".other-{path.name}.here.99999.abcd1234.building")
    for folder in (left, other):
        (folder / "embeddings").mkdir(parents=True)
        (folder / "embeddings/file").write_bytes(b"12345")
    assert not world.layout.work_path(path).exists()
    assert world.extract()[0].hit
    assert not left.exists()
    assert other.exists()  # of a store that is not published
    assert arrays_of(path) == before


@pytest.mark.parametrize("name", ["a\ud800b.wav", "\udcc3\udca9.wav"])
def test_ids_with_lone_surrogates_survive(world, name):
    tracks = [
        dataclasses.replace(track, track_id=name) if track.track_id == "b/many.wav" else track
        for track in world.tracks()
    ]
    store = world.extract(planned=tracks)[0].store
    assert name in store.track_ids
    np.testing.assert_array_equal(store.read([name]).values, rows_by_hand(world, "b/many.wav"))


def test_finding_prefers_the_store_that_has_the_track(world):
    path = world.audio / "b/many.wav"
    data = path.read_bytes()
    names = sorted(LENGTHS)
    path.unlink()
    world.extract(names=names)
    path.write_bytes(data)
    whole = world.extract(names=names)[0]
    audio = {track.track_id: track.audio_sha256 for track in world.tracks(names)}
    for at_hand in (audio, dict.fromkeys(audio, "")):
        found = find_stores(world.layout, encoder="toy", audio=lambda a=at_hand: a, track_ids=names)
        assert [store.path for store in found] == [whole.path]


def test_without_audio_stores_that_disagree_are_not_guessed_between(world):
    names = sorted(LENGTHS)
    world.extract(names=names)
    write_track(world.audio / "b/many.wav", 4 * RATE, seed=55)
    after = world.extract(names=names)[0]
    audio = {track.track_id: track.audio_sha256 for track in world.tracks(names)}
    found = find_stores(world.layout, encoder="toy", audio=lambda: audio, track_ids=names)
    assert [store.path for store in found] == [after.path]
    with pytest.raises(StoreAmbiguousError, match="different audio"):
        find_stores(
            world.layout,
            encoder="toy",
            audio=lambda: dict.fromkeys(audio, ""),
            track_ids=names,
        )


def test_an_unrelated_damaged_store_is_passed_over(world):
    other = world.extract(names=["a/exact.wav"])[0].path
    whole = world.extract()[0]
    (other / "embeddings/mean/zarr.json").unlink()
    audio = {track.track_id: track.audio_sha256 for track in world.tracks()}
    found = find_stores(world.layout, encoder="toy", audio=lambda: audio, track_ids=sorted(LENGTHS))
    assert [store.path for store in found] == [whole.path]


def test_a_length_whose_unit_a_rival_held_is_made_in_the_end(world):
    spec = toy_spec(world.encoder, 1.0)
    tracks = world.tracks()
    final = world.layout.store_path(
        spec, collection_digest((t.track_id, t.audio_sha256) for t in tracks)
    )
    final.parent.mkdir(parents=True)
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:  # a rival that holds unit 0 of the one-second store, then dies
        with Claims(world.layout.lock_path(final)) as claims:
            claims.take(0)
            os.write(ready[1], b"x")
            os.read(done[0], 1)
            os._exit(0)
    os.read(ready[0], 1)

    class Freeing(ToyEncoder):
        def embed(self, waveforms):
            os.write(done[1], b"x")  # the rival ends once we are at work
            return ToyEncoder.embed(self, waveforms)

    world.encoder = Freeing()
    outcomes = world.extract(1.0, 2.0)
    os.waitpid(pid, 0)
    assert all(outcome.store is not None for outcome in outcomes)
