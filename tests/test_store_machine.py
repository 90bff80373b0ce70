"""Extract, be killed, be damaged, be repaired, in any order: a cache against a dictionary.

The model knows the audio of each track, the names of published stores and which of them are
damaged. What a sound store holds is worked out without the cache, segment by segment.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import random
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from crash import AtStep, die, fork, join, run_child
from damage import CHANGES, files_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torture import repetitions
from world import RATE, ToyEncoder, World, arrays_of, inline_decoders, make_old, toy_spec
from world import write_track as write

from tune_cache.audio import decode
from tune_cache.cache.holds import is_held
from tune_cache.cache.removal import remove_store
from tune_cache.cache.repair import clean_after, damaged_tracks, repair_store
from tune_cache.cache.store import open_store
from tune_cache.cache.verify import verify_store
from tune_cache.cache.work import Circumstances, Run
from tune_cache.errors import StoreCorruptError, StoreError
from tune_cache.segments import cut, take
from tune_cache.specs import collection_digest

SECONDS = {"a.wav": 1, "b.wav": 4, "c.wav": 7, "d.wav": 3, "e.wav": 6}  # three units
VERSIONS = 2
HARMS = {name: CHANGES[name] for name in ("any byte", "truncated", "emptied", "grown", "zeros")}
SPEC = toy_spec(ToyEncoder())


@pytest.fixture(scope="module", autouse=True)
def _root(tmp_path_factory):
    Cache.root = tmp_path_factory.mktemp("machine")


@functools.cache
def library() -> Path:
    """Every version of every track, written once: the same bytes whenever one comes back."""
    folder = Cache.root / "versions"
    for place, (name, seconds) in enumerate(SECONDS.items()):
        for version in range(VERSIONS):
            write(folder / str(version) / name, RATE * (seconds + version), 10 * place + version)
    return folder


@functools.cache
def rows_of(name: str, version: int) -> np.ndarray:
    """The slow way: decode, cut and encode one segment after the other."""
    samples = decode(library() / str(version) / name, sample_rate_hz=RATE).samples
    waves = [take(samples, piece, SPEC.segments) for piece in cut(len(samples), SPEC.segments)]
    return np.stack([ToyEncoder().embed(wave[None])["mean"][0] for wave in waves]).astype("f2")


class Cache(RuleBasedStateMachine):
    """One folder of audio, one encoding; a store a collection that there ever was."""

    root: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.root))
        self.patch = pytest.MonkeyPatch()
        gc.collect()
        gc.disable()
        self.patch.setattr(os, "fsync", lambda descriptor: None)  # no loss of power here
        logging.disable(logging.WARNING)  # a captured record of an error keeps stores open
        self.world = World(self.folder, ToyEncoder())
        self.audio = dict.fromkeys(SECONDS, 0)
        for name in SECONDS:
            self._put(name)
        self.made: dict[str, dict[str, int]] = {}  # a store's name → the audio it is of
        self.arrays: dict[str, dict[str, bytes]] = {}  # as first published
        self.damaged: set[str] = set()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        self.patch.undo()
        gc.enable()
        shutil.rmtree(self.folder)

    def _put(self, name: str) -> None:
        path = self.world.audio / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library() / str(self.audio[name]) / name, path)
        make_old(path)

    def _final(self) -> Path:
        """Where the store of the audio that is there now belongs."""
        tracks = self.world.tracks()
        digest = collection_digest((track.track_id, track.audio_sha256) for track in tracks)
        return self.world.layout.store_path(SPEC, digest)

    def _extract(self) -> None:
        self.world.extract_specs([SPEC])

    @rule()
    def extract(self) -> None:
        final = self._final()
        was_there = final.exists()
        try:
            (outcome,) = self.world.extract_specs([SPEC])
        except StoreCorruptError:
            assert final.name in self.damaged
            return
        assert outcome.hit == was_there
        assert outcome.path == final
        assert not list(final.parent.glob(f".{final.name}.*[!k]")), "something was left behind"

    @rule(step=st.integers(1, 60))
    def extract_and_be_killed(self, step: int) -> None:
        final = self._final()
        code = run_child(self.world, observer=AtStep(step, die), work=self._extract)
        assert code in (0, -signal.SIGKILL) or final.name in self.damaged

    @rule(n_writers=st.integers(2, 3))
    def extract_beside_rivals(self, n_writers: int) -> None:
        final = self._final()
        codes = set(join([fork(self._extract) for _ in range(n_writers)]).values())
        assert codes == {0} or final.name in self.damaged
        assert final.exists()

    @rule(name=st.sampled_from(sorted(SECONDS)))
    def edit(self, name: str) -> None:
        self.audio[name] = (self.audio[name] + 1) % VERSIONS
        self._put(name)

    @precondition(lambda self: self.made.keys() - self.damaged)
    @rule(kind=st.sampled_from(sorted(HARMS)), seed=st.integers(0, 2**32), data=st.data())
    def corrupt(self, kind: str, seed: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.made.keys() - self.damaged)))
        store = self.world.layout.v1 / "toy" / name
        draw = random.Random(seed)
        path = store / draw.choice(
            [file for file in files_of(store) if (store / file).read_bytes()]
        )
        before = path.read_bytes()
        path.write_bytes(HARMS[kind](before, draw))
        assert path.read_bytes() != before
        self.damaged.add(name)

    @rule()
    def verify(self) -> None:
        for path in self.world.layout.store_paths():
            assert verify_store(path).is_ok == (path.name not in self.damaged), path.name

    @precondition(lambda self: self._final().name in self.damaged)
    @rule()
    def repair(self) -> None:
        final = self._final()
        found = verify_store(final)
        tracks = self.world.tracks()
        wanted = set(damaged_tracks(found))
        if not found.is_trusted:
            wanted = {track.track_id for track in tracks}
        done = repair_store(
            found,
            tracks,
            SPEC,
            wanted=wanted,
            layout=self.world.layout,
            info=self.world.encoder.info(),
            run=Run(lambda: self.world.encoder, inline_decoders, Circumstances(), lambda _: None),
        )
        assert done.is_replaced
        self.damaged.discard(final.name)
        assert verify_store(final).is_ok

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.made)))
        path = self.world.layout.v1 / "toy" / name
        assert remove_store(path) == ""
        clean_after(path)
        del self.made[name]
        self.damaged.discard(name)

    @invariant()
    def every_store_is_whole_or_an_error(self) -> None:
        """Under its name a store is complete, and is the one it first was."""
        for path in self.world.layout.store_paths():
            assert not is_held(path), "held"
        there = {path.name: path for path in self.world.layout.store_paths()}
        assert self.made.keys() <= there.keys(), "a published store is gone"
        for name, path in there.items():
            of = self.made.setdefault(name, dict(self.audio))
            if name in self.damaged:
                self._gives_no_wrong_numbers(path, of)
                continue
            store = open_store(path)
            assert store.track_ids == tuple(sorted(of))
            for track, version in of.items():
                found = store.read([track]).values
                np.testing.assert_array_equal(found, rows_of(track, version))
            assert arrays_of(path) == self.arrays.setdefault(name, arrays_of(path))

    def _gives_no_wrong_numbers(self, path: Path, of: dict[str, int]) -> None:
        for track, version in of.items():
            try:
                found = open_store(path).read([track]).values
            except StoreError:
                continue
            np.testing.assert_array_equal(found, rows_of(track, version))


Cache.TestCase.settings = settings(
    max_examples=repetitions(8, 300),
    stateful_step_count=repetitions(12, 50),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TestStoreMachine(Cache.TestCase):
    """Whatever happens to a cache, a store is whole and right, or an error."""
