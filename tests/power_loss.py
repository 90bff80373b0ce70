"""A model of losing power: what was not synchronised may be gone.

A child process logs every step of :mod:`tune_cache.cache.disk` before it is done, and every
fsync and every rename of a folder as it is done, and is killed at one of the steps. Of what it
did, an entry of a folder (a new name, a rename, a removal) counts as safe once that folder was
synchronised, and content once its file was; that a step announces it counts for nothing.
:func:`lose` undoes any of the rest that a coin says, newest first: names vanish or go back,
content is cut or zeroed, a removal is undone or half undone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from tune_cache.cache import disk

__all__ = ["Recorder", "effects_of", "lose"]


@dataclass
class Recorder:
    """Writes the log of a child, keeps what is overwritten or removed, dies."""

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
        self.note(operation, path, grave=str(grave))
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return data

    def note(self, operation: str, path: Path, **more: str) -> None:
        line = {"operation": operation, "path": str(path), **more}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def watched(self, work: Callable[[], object]) -> None:
        """Do the child's work under the model; one step more says that it came to its end."""
        with self._recorded(), disk.observed(self):
            work()
            disk.step("end", self.log)

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record what is synchronised and which folders are renamed, from the calls themselves."""
        rename, exchange = os.rename, disk._exchange

        def fsync(descriptor: int) -> None:  # the page cache outlives a killed child anyway
            self.note("fsync", Path(f"/proc/self/fd/{descriptor}").readlink())

        def renamed(source: Path, path: Path) -> None:
            rename(source, path)
            self.note("folder-renamed", path, source=str(source))

        def exchanged(new: Path, old: Path) -> bool:
            is_done = exchange(new, old)
            if is_done:
                self.note("exchanged", old, source=str(new))
            return is_done

        with (
            mock.patch.object(os, "fsync", fsync),
            mock.patch.object(os, "rename", renamed),
            mock.patch.object(disk, "_exchange", exchanged),
        ):
            yield


Move = dict[Path, Path]


@dataclass
class Effect:
    """One change that was done: what it was done to, and what it takes to be safe.

    Attributes
    ----------
    unsafe
        What must still be synchronised: the file itself, or the folders of the entry.
    move
        Names that this change gave to others, old to new.
    moves
        Those of later changes.
    """

    kind: str
    path: Path
    unsafe: set[Path]
    source: Path = Path()
    grave: Path = Path()
    move: Move = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)

    @property
    def is_safe(self) -> bool:
        return not self.unsafe

    @property
    def now(self) -> Path:
        """Where it is after the folders above it were renamed."""
        return self.moved(self.path)

    def moved(self, path: Path) -> Path:
        for move in self.moves:
            for old, new in move.items():
                if path.is_relative_to(old):
                    path = new / path.relative_to(old)
                    break
        return path

    def synchronise(self, path: Path) -> None:
        self.unsafe = {item for item in self.unsafe if self.moved(item) != path}


def effects_of(log: Path) -> list[Effect]:
    """What the child did, in order; the last line of the log was not done."""
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()][:-1]
    effects: list[Effect] = []
    temporary = Path()
    for line in lines:
        operation, path = line["operation"], Path(line["path"])
        grave, source = Path(line.get("grave", "")), Path(line.get("source", ""))
        effect = Effect(operation, path, {path.parent}, source=source, grave=grave)
        moved: list[Effect] = []
        if operation == "create":
            temporary = path
        elif operation == "write":
            effect.unsafe = {path}
        elif operation == "rename":
            effect.source, effect.move = temporary, {temporary: path}
            moved = [e for e in effects if e.kind == "write"]
        elif operation == "folder-renamed":
            effect.kind = "publish" if source.name.endswith(".building") else operation
            effect.unsafe, effect.move = {path.parent, source.parent}, {source: path}
            moved = effects
        elif operation == "exchanged":
            effect.unsafe, effect.move = {path.parent, source.parent}, {source: path, path: source}
            moved = effects
        elif operation == "fsync":
            for earlier in effects:
                earlier.synchronise(path)
            continue
        elif operation in ("sync", "sync-folder", "publish", "rename-folder", "exchange"):
            continue  # announced; what was done comes next
        elif operation not in ("make-folder", "remove"):
            raise ValueError(f"the model does not know {operation!r}")
        for earlier in moved:
            earlier.moves.append(effect.move)
        effects.append(effect)
    return effects


def lose(log: Path, draw: random.Random) -> list[Effect]:
    """Undo what a loss of power may undo; returns what was done, safe or not."""
    effects = effects_of(log)
    chance = draw.choice([0.2, 0.5, 1.0])
    for effect in reversed(effects):
        if not effect.is_safe and draw.random() < chance and _undo(effect, draw):
            for other in effects:
                other.moves = [move for move in other.moves if move is not effect.move]
    return effects


def _undo(effect: Effect, draw: random.Random) -> bool:
    """Undo one change, if what it was done to is still there; whether it was."""
    path = effect.now
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
    elif effect.kind in ("publish", "folder-renamed") and path == effect.path and path.is_dir():
        _give_back(path, effect.source)
    elif effect.kind == "exchanged" and path == effect.path:
        there = effect.moved(effect.source)  # what lay at ``path`` before, or nothing any more
        _give_back(path, held := path.with_name(f"{path.name}.held"))
        _give_back(there, path)
        _give_back(held, effect.source)
    elif effect.kind == "remove" and effect.grave.is_dir() and path.parent.is_dir():
        if path.exists():
            return False
        shutil.copytree(effect.grave, path)
        if draw.random() < 0.5:
            for file in sorted(path.rglob("*")):
                if file.is_file() and draw.random() < 0.5:
                    file.unlink()
    else:
        return False
    return True


def _give_back(path: Path, source: Path) -> None:
    """Give a folder the name it had; it is lost where the folder of that name is gone."""
    if path.is_dir() and source.parent.is_dir() and not source.exists():
        path.rename(source)
    elif path.is_dir():
        shutil.rmtree(path)
