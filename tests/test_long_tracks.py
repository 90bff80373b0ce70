"""Tracks too long for memory: the same store, nothing left behind, memory bounded."""

from __future__ import annotations

import dataclasses
import json
import resource
import shutil

import numpy as np
import pytest
from world import RATE, InlineDecoders, ToyEncoder, World, arrays_of, toy_spec

from tune_cache.audio import DecodePool, SpooledSamples, pool, process
from tune_cache.cache.encode import Batcher
from tune_cache.cache.extract import extract_stores
from tune_cache.cache.work import Circumstances, open_pool
from tune_cache.errors import AudioError, StoreError

UNIT_SECONDS = 10  # in this world a planned second stands for a minute
LENGTHS = {
    "a/long.wav": 25 * RATE + 17,
    "b/unit.wav": UNIT_SECONDS * RATE,
    "c/over.wav": UNIT_SECONDS * RATE + 1,
    **{f"d/{index:02}.wav": (1 + index % 4) * RATE for index in range(12)},
    "e/short.wav": 3000,
}


@pytest.fixture
def world(tmp_path) -> World:
    return World.make(tmp_path, LENGTHS)


@pytest.fixture
def small_memory(monkeypatch):
    """Limits of the pool in the proportions of the real ones, for seconds instead of minutes."""
    monkeypatch.setattr(pool, "SPILL_SECONDS", UNIT_SECONDS)
    monkeypatch.setattr(pool, "HELD_SECONDS", 2 * UNIT_SECONDS)


@dataclasses.dataclass
class Watched:
    """Opens the decoders that users get, and watches what their results hold in memory."""

    pools: list[DecodePool] = dataclasses.field(default_factory=list)
    held: list[int] = dataclasses.field(default_factory=list)
    spooled: set[str] = dataclasses.field(default_factory=set)
    names: set[str] = dataclasses.field(default_factory=set)  # seen in the spool's folder

    def open(self, n_workers, spec, spool):
        decoders = open_pool(n_workers, spec, spool)
        self.pools.append(decoders)
        count, watched = decoders._count, self

        def counted(decoded):
            count(decoded)
            watched.held.append(decoders._held_samples())
            if isinstance(decoded.samples, SpooledSamples):
                watched.spooled.add(str(decoded.facts.n_samples))
            journal = (".json", ".tmp")
            watched.names |= {p.name for p in spool.iterdir() if p.suffix not in journal}

        decoders._count = counted
        return decoders


def extract(world: World, *seconds, watched: Watched | None = None, tracks=None, **options):
    return extract_stores(
        world.tracks() if tracks is None else tracks,
        [toy_spec(world.encoder, length) for length in seconds],
        layout=world.layout,
        info=world.encoder.info(),
        load=lambda: world.encoder,
        circumstances=Circumstances(**{"workers": 2} | options),
        open_decoders=(watched or Watched()).open,
    )


def inline(world: World, folder, *seconds) -> list[dict[str, bytes]]:
    """The stores that decoding in this process, in memory, comes to."""
    other = World(folder / "inline", ToyEncoder())
    shutil.copytree(world.audio, other.audio)
    return [arrays_of(outcome.path) for outcome in other.extract(*seconds)]


def leftovers(world: World) -> list[str]:
    folder = world.layout.v1 / "toy"
    return [path.name for path in folder.glob(".*") if not path.name.endswith(".lock")]


def test_spooled_tracks_make_the_same_store_to_the_last_bit(world, tmp_path, small_memory):
    watched = Watched()
    outcomes = extract(world, 1.0, 2.5, "full", watched=watched)
    assert watched.spooled == {str(n) for n in LENGTHS.values() if n > UNIT_SECONDS * RATE}
    expected = inline(world, tmp_path, 1.0, 2.5, "full")
    assert [arrays_of(outcome.path) for outcome in outcomes] == expected
    assert watched.names == {"units"}  # a run killed at any time leaves no file of samples
    assert leftovers(world) == []


def test_at_most_two_units_of_audio_are_in_memory(world, tmp_path, small_memory):
    watched = Watched()
    extract(world, 1.0, watched=watched, workers=4)
    assert max(watched.held) <= 2 * UNIT_SECONDS * RATE
    assert sum(LENGTHS.values()) > 4 * UNIT_SECONDS * RATE
    assert watched.pools[0]._held_samples() == 0


def test_headers_that_lie_do_not_fill_the_memory(world, tmp_path, small_memory):
    """All tracks in one unit, as if each were nearly nothing: what is too much is spooled."""
    tracks = [dataclasses.replace(track, seconds=0.01) for track in world.tracks()]
    watched = Watched()
    outcome = extract(world, 1.0, watched=watched, tracks=tracks)[0]
    n_workers = 2
    assert max(watched.held) <= (2 + n_workers) * UNIT_SECONDS * RATE
    assert len(watched.spooled) > sum(n > UNIT_SECONDS * RATE for n in LENGTHS.values())
    assert arrays_of(outcome.path) == inline(world, tmp_path, 1.0)[0]


FULL_STARTER = (
    "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY));"
    + process._STARTER
)


def test_a_full_disk_under_the_spool_is_a_pause(world, tmp_path, small_memory, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(process, "_STARTER", FULL_STARTER)
        with pytest.raises(StoreError, match="File too large") as caught:
            extract(world, 1.0)
    assert not isinstance(caught.value, AudioError)
    assert "same command again" in (caught.value.hint or "")
    assert world.layout.store_paths() == []
    outcome = extract(world, 1.0)[0]
    assert outcome.failed == {}
    assert arrays_of(outcome.path) == inline(world, tmp_path, 1.0)[0]
    assert leftovers(world) == []


def test_a_journal_that_a_rival_removes_under_the_spool_is_begun_again(
    world, tmp_path, small_memory
):
    """A rival publishes the first store and removes its journal, where the spool is."""
    other = World(tmp_path / "other", ToyEncoder())
    shutil.copytree(world.audio, other.audio)
    finished = other.extract(1.0)[0].path

    class Overtaken(ToyEncoder):
        def embed(self, waveforms):
            final = world.layout.v1 / "toy" / finished.name
            if not final.exists():
                shutil.copytree(finished, final)
                shutil.rmtree(world.layout.work_path(final))
            return ToyEncoder.embed(self, waveforms)

    world.encoder = Overtaken()
    outcomes = extract(world, 1.0, 2.0, workers=1)
    assert all(outcome.store is not None for outcome in outcomes)
    expected = inline(world, tmp_path, 1.0, 2.0)
    assert [arrays_of(outcome.path) for outcome in outcomes] == expected


def test_a_whole_track_from_a_file_reaches_the_encoder_without_another_copy():
    seen = []

    class Watching(ToyEncoder):
        def embed(self, waveforms):
            seen.append(waveforms)
            return ToyEncoder.embed(self, waveforms)

    own = np.ones(RATE, np.float32)
    shared = np.ones(2 * RATE, np.float32)[:RATE]
    batcher = Batcher(Watching())
    batcher.run([own])
    batcher.run([shared])
    assert np.shares_memory(seen[0], own)
    assert not np.shares_memory(seen[1], shared)  # an encoder may write into what it is given
    assert [batch.shape for batch in seen] == [(1, RATE), (1, RATE)]


def test_decoders_say_what_they_took(world, small_memory):
    outcome = extract(world, 1.0)[0]
    ledger = json.loads((outcome.path / "ledger/extract.json").read_text())
    assert ledger["decode_seconds"] > 0
    assert 8 << 20 < ledger["peak_decoder_rss_bytes"] < 1 << 30
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 0 < ledger["peak_rss_bytes"] <= usage + (1 << 20)
    assert InlineDecoders().submit("a", world.audio / "e/short.wav").result().peak_rss_bytes == 0
