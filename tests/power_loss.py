"""A model of losing power: what was not synchronised may be gone.

A child process logs every step of :mod:`tune_cache.cache.disk` before it is done and is killed
at one of them. Of what it did, an entry of a folder (a new name, a rename, a removal) counts as
safe once that folder was synchronised, and content once its file was. :func:`lose` undoes any of
the rest that a coin says, newest first: names vanish or go back, content is cut or zeroed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Recorder", "lose"]


@dataclass
class Recorder:
    """Observer for the child: writes the log, keeps what is overwritten or removed, dies."""

    log: Path
    graveyard: Path
    die_at: int
    count: int = 0

    def __call__(self, operation: str, path: Path, data: bytes | None) -> bytes | None:
        self.count += 1
        grave = self.graveyard / str(self.count)
        if operation == "remove" and path.is_dir():
            shutil.copytree(path, grave)
        if operation == "rename" and path.is_file():
            shutil.copyfile(path, grave)
        line = {"operation": operation, "path": str(path), "grave": str(grave)}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return data


@dataclass
class Effect:
    """One change that was done: which folder's entry, or whose content, it is."""

    kind: str
    path: Path
    folder: Path
    source: Path = Path()
    grave: Path = Path()
    is_safe: bool = False
    moves: list[tuple[Path, Path]] = field(default_factory=list)

    @property
    def now(self) -> Path:
        """Where it is after the folders above it were renamed."""
        path = self.path
        for old, new in self.moves:
            if path.is_relative_to(old):
                path = new / path.relative_to(old)
        return path


def effects_of(log: Path) -> list[Effect]:
    """What the child did, in order; the last line of the log was not done."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()][:-1]
    effects: list[Effect] = []
    temporary = building = Path()
    for line in lines:
        operation, path = line["operation"], Path(line["path"])
        grave = Path(line["grave"])
        if operation == "create":
            temporary = path
            effects.append(Effect("create", path, path.parent))
        elif operation == "write":
            effects.append(Effect("write", path, Path("content")))
        elif operation == "sync":
            for effect in effects:
                effect.is_safe |= effect.kind == "write" and effect.path == path
        elif operation == "rename":
            for effect in effects:
                if effect.kind == "write" and effect.path == temporary:
                    effect.moves.append((temporary, path))
            effects.append(Effect("rename", path, path.parent, source=temporary, grave=grave))
        elif operation == "make-folder":
            building = path if path.name.endswith(".building") else building
            effects.append(Effect("make-folder", path, path.parent))
        elif operation == "publish":
            for effect in effects:
                effect.moves.append((building, path))
            effects.append(Effect("publish", path, path.parent, source=building))
        elif operation == "remove":
            effects.append(Effect("remove", path, path.parent, grave=grave))
        elif operation == "sync-folder":
            for effect in effects:
                folder = effect.now.parent if effect.moves else effect.folder
                effect.is_safe |= effect.kind != "write" and path in (folder, effect.folder)
        else:
            raise ValueError(f"the model does not know {operation!r}")
    return effects


def lose(log: Path, draw: random.Random) -> list[Effect]:
    """Undo what a loss of power may undo; returns what was done, safe or not."""
    effects = effects_of(log)
    chance = draw.choice([0.2, 0.5, 1.0])
    for effect in reversed(effects):
        path = effect.now
        if effect.is_safe or draw.random() >= chance:
            continue
        if effect.kind == "write" and path.is_file():
            content = path.read_bytes()
            kept = draw.choice([0, draw.randrange(len(content) + 1)])
            path.write_bytes(content[:kept] + draw.choice([b"", bytes(len(content) - kept)]))
        elif effect.kind == "create" and path.is_file():
            path.unlink()
        elif effect.kind == "rename" and path.is_file():
            if effect.grave.is_file():
                shutil.copyfile(effect.grave, path)
            else:
                path.unlink()
        elif effect.kind == "make-folder" and path.is_dir():
            shutil.rmtree(path)
        elif effect.kind == "publish" and path.is_dir():
            path.rename(effect.source)
        elif effect.kind == "remove" and effect.grave.is_dir() and not path.exists():
            shutil.copytree(effect.grave, path)
    return effects
