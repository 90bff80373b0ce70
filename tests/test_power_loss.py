"""Power is lost at any step: what was committed is there, and the rest is made again."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from crash import check_resumed, published, run_child
from power_loss import Recorder, effects_of, lose
from torture import repetitions
from world import ToyEncoder, World, toy_spec

from tune_cache.cache.journal import read_unit

N_STATES = repetitions(20, 300)


def committed(effects, kind: str, suffix: str, then: tuple[str, ...]) -> list[Path]:
    """What took its name before the program went on to something else: it counts on it."""
    found = []
    for number, effect in enumerate(effects):
        went_on = any(later.kind in then for later in effects[number + 1 :])
        if effect.kind == kind and effect.path.name.endswith(suffix) and went_on:
            found.append(effect.path)
    return found


def test_what_was_committed_survives_a_loss_of_power(pristine, n_steps, tmp_path):
    source, expected = pristine
    n_undone = 0
    for seed in range(N_STATES):
        draw = random.Random(seed)
        folder = tmp_path / str(seed)
        world = World(folder, ToyEncoder())
        shutil.copytree(source.audio, world.audio)
        (folder / "graves").mkdir()
        recorder = Recorder(folder / "log", folder / "graves", draw.randint(2, n_steps))
        assert run_child(world, observer=recorder) == -signal.SIGKILL
        effects = lose(recorder.log, draw)
        n_undone += any(not effect.is_safe for effect in effects)

        stores = published(world)
        for path in committed(effects, "publish", ".zarr", ("remove", "create")):
            assert path.name in stores, f"seed {seed}: a published store is gone"
        specs = [toy_spec(world.encoder, seconds) for seconds in (1.0, "full")]
        for path in committed(effects, "rename", ".safetensors", ("create",)):
            work = path.parents[1]
            name = work.name.removeprefix(".").removesuffix(".work")
            if name not in stores:
                spec = next(spec for spec in specs if spec.key[:8] in name)
                assert read_unit(work, int(path.stem), spec), (
                    f"seed {seed}: unit {path.stem} is gone"
                )
        check_resumed(world, expected)
        shutil.rmtree(folder)
    assert n_undone > N_STATES / 2, "the model has nothing to undo: it sees no steps"


def test_the_model_undoes_what_is_not_synchronised(tmp_path):
    log = tmp_path / "log"
    final, temporary = tmp_path / "a", tmp_path / ".a.tmp"
    record = Recorder(log, tmp_path / "graves", 0)
    for operation, path in (
        ("create", temporary),
        ("write", temporary),
        ("rename", final),
        ("sync-folder", tmp_path),
        ("create", tmp_path / "next"),
    ):
        record(operation, path, None)
    final.write_bytes(b"content")
    write = next(effect for effect in effects_of(log) if effect.kind == "write")
    assert (write.is_safe, write.now) == (False, final)
    contents = set()
    for seed in range(20):
        final.write_bytes(b"content")
        lose(log, random.Random(seed))
        contents.add(final.read_bytes())
    assert b"content" in contents
    assert len(contents) > 2  # cut, or zeroed, under the name that is safe
