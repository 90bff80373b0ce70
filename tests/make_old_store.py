"""Make the store that every later version must read: ``python tests/make_old_store.py VERSION``.

It writes ``tests/data/old-stores/VERSION/toy/….zarr`` once; a store of a released version is
never made again. The audio is the world's, the encoder the toy one, two poolings, one failed track.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from world import ToyEncoder, World, toy_spec

FOLDER = Path(__file__).parent / "data" / "old-stores"
POOLINGS = ("mean", "max")


def make(version: str, folder: Path = FOLDER) -> Path:
    """Extract the world and copy its store."""
    with tempfile.TemporaryDirectory() as name:
        world = World.make(Path(name))
        (world.audio / "c" / "torn.wav").write_bytes(b"RIFF")
        world.encoder = ToyEncoder(poolings=POOLINGS)
        (outcome,) = world.extract_specs([toy_spec(world.encoder)])
        target = folder / version / "toy" / outcome.path.name
        shutil.copytree(outcome.path, target)
        return target


if __name__ == "__main__":
    print(make(sys.argv[1]))
