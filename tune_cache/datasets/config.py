"""Read ``tune.toml``: defaults for the long flags, and datasets by name.

Conventions
-----------
The nearest ``tune.toml`` from the working directory upwards is the only one read.
Keys of ``[defaults]`` are the long flags without dashes in front; ``min-tail`` and
``min_tail`` are the same key, and the mapping holds ``min_tail``. Repeatable flags
become tuples, ``layers`` and ``pool`` the text one would type. Relative paths are
relative to the file's folder. An unknown key or a value of the wrong type is an
error, never ignored: a swallowed ``segment = 60`` would run at 30.
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from tune_cache.datasets.base import Kind
from tune_cache.datasets.protocols import MARBLE_V2, PROTOCOLS
from tune_cache.errors import UsageError
from tune_cache.specs import CHANNELS, DTYPES, POOLINGS, PRECISIONS, TAILS

__all__ = [
    "FILE_NAME",
    "Config",
    "DatasetConfig",
    "TaskConfig",
    "find_config",
    "read_config",
]

FILE_NAME = "tune.toml"
MAX_BYTES = 1 << 20
KINDS = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """``[datasets.NAME.tasks.T]``; None and empty leave it to the data.

    Parameters
    ----------
    label
        Record keys; several make one regression task, one target each.
    protocol_task
        Whose profile ``--protocol marble-v2`` follows.
    """

    label: tuple[str, ...] = ("label",)
    kind: Kind | None = None
    targets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    protocol_task: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetConfig:
    """``[datasets.NAME]``.

    Parameters
    ----------
    manifests
        Absolute; each in any form that the DATASET argument takes as a path.
    protocol_task
        Of the tasks that do not say it themselves.
    """

    manifests: tuple[Path, ...]
    data_root: Path | None = None
    encoder: str | None = None
    protocol_task: str = ""
    tasks: Mapping[str, TaskConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A ``tune.toml``, checked; ``path`` is None where there is none."""

    path: Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, DatasetConfig] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in which file, for messages and relative paths."""

    file: Path
    table: str
    key: str = ""

    def wrong(self, value: object, expected: str) -> UsageError:
        return UsageError(
            f"{self.file}: [{self.table}] {self.key} is {value!r} "
            f"({type(value).__name__}), expected {expected}",
            hint=f"correct it in {self.file}",
        )


Reader = Callable[[Any, _Place], Any]


def _text(value: Any, place: _Place) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise place.wrong(value, "a text")
    return value


def _path(value: Any, place: _Place) -> Path:
    text = os.path.expanduser(_text(value, place))  # noqa: PTH111 - pathlib's raises RuntimeError
    return Path(os.path.abspath(place.file.parent / text))  # noqa: PTH100 - links stay as written


def _integer(value: Any, place: _Place) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise place.wrong(value, "an integer")
    return value


def _number(value: Any, place: _Place) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise place.wrong(value, "a number")
    return value


def _switch(value: Any, place: _Place) -> bool:
    if not isinstance(value, bool):
        raise place.wrong(value, "true or false")
    return value


def _either(*words: str, otherwise: Reader | None = None, expected: str = "") -> Reader:
    def read(value: Any, place: _Place) -> Any:
        if isinstance(value, str) and value in words:
            return value
        if otherwise is None or isinstance(value, str):
            raise place.wrong(value, expected or "one of " + ", ".join(words))
        return otherwise(value, place)

    return read


def _several(read: Reader) -> Reader:
    """One value or a list of them, as a tuple."""

    def read_all(value: Any, place: _Place) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        if not values:
            raise place.wrong(value, "at least one value")
        return tuple(read(item, place) for item in values)

    return read_all


def _joined(read: Reader) -> Reader:
    """One value or a list of them, as a comma-separated text."""
    return lambda value, place: ",".join(map(str, _several(read)(value, place)))


def _whole_or_text(value: Any, place: _Place) -> int | str:
    return _text(value, place) if isinstance(value, str) else _integer(value, place)


def _size(value: Any, place: _Place) -> int | str:
    if isinstance(value, float | list | dict | bool):
        raise place.wrong(value, "bytes, or a text as '4GB'")
    return _whole_or_text(value, place)


# The long flags of DESIGN's table.
FLAGS: dict[str, Reader] = {
    "dataset": _text,
    "data_root": _path,
    "task": _several(_text),
    "encoder": _text,
    "encoder_path": _path,
    "seg": _several(_either("full", otherwise=_number, expected="seconds or 'full'")),
    "hop": _number,
    "tail": _either(*TAILS),
    "min_tail": _number,
    "layers": _joined(_whole_or_text),
    "pool": _joined(_text),
    "precision": _either(*PRECISIONS),
    "dtype": _either(*DTYPES),
    "channels": _either(*CHANNELS),
    "device": _text,
    "batch_size": _either("auto", otherwise=_integer, expected="an integer or 'auto'"),
    "max_memory": _size,
    "workers": _integer,
    "protocol": _either(*PROTOCOLS),
    "agg": _several(_text),
    "layer": _several(_whole_or_text),
    "probe": _several(_text),
    "seed": _several(_integer),
    "derive": _several(_number),
    "shots": _several(_integer),
    "repeats": _integer,
    "checkpoint": _either("best-val", "last"),
    "max_segments": _integer,
    "fill": _either("draw", "mean", "zero"),
    "pretrain_epochs": _integer,
    "pretrain_on": _text,
    "finetune": _switch,
    "positions": _either("learned", "sinusoidal", "none"),
    "readout": _either("cls", "mean"),
    "strict": _switch,
    "drop_leaks": _switch,
    "preset": _text,
    "margin": _number,
    "jobs": _integer,
    "store": _path,
    "part": _text,
    "cache_dir": _path,
    "json": _switch,
    "yes": _switch,
}


def _unknown(file: Path, table: str, key: str, valid: Iterable[str]) -> UsageError:
    names, written = sorted(valid), key.replace("-", "_")
    # a word written out, or cut short, before words that only look alike
    close = [name for name in names if len(name) > 2 and written.startswith(name)]
    close = close or difflib.get_close_matches(written, names, n=1, cutoff=0.4)
    return UsageError(
        f"{file}: {'[' + table + '] ' if table else ''}has an unknown key {key!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"valid keys: {', '.join(names)}",
    )


def _table(value: Any, file: Path, table: str, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Check one table: known keys only, each once, each of its type."""
    if not isinstance(value, dict):
        raise _Place(file, table).wrong(value, "a table")
    read: dict[str, Any] = {}
    for written, item in value.items():
        key = written.replace("-", "_")
        if key not in readers:
            raise _unknown(file, table, written, readers)
        if key in read:
            raise UsageError(
                f"{file}: [{table}] has {key!r} twice, with - and with _", hint="keep one of them"
            )
        read[key] = readers[key](item, _Place(file, table, written))
    return read


def _pools(config: dict[str, Any], file: Path) -> None:
    for name in filter(None, config.get("pool", "").split(",")):
        if name not in POOLINGS:
            raise _Place(file, "defaults", "pool").wrong(name, "some of " + ", ".join(POOLINGS))


def read_config(path: Path) -> Config:
    """Read and check one ``tune.toml``.

    Raises
    ------
    UsageError
        If it cannot be read, is not TOML, or has an unknown key or a value of
        the wrong type; the message names the table and the key.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - a linked file speaks for where it stands
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UsageError(f"{path} is longer than {MAX_BYTES} bytes")
        content = tomllib.loads(raw.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(
            f"{path} cannot be read: {error}",
            hint="it is TOML in UTF-8: [defaults], [datasets.NAME]",
        ) from error
    for key in content:
        if key not in ("defaults", "datasets"):
            raise _unknown(path, "", key, ("defaults", "datasets"))
    defaults = _table(content.get("defaults", {}), path, "defaults", FLAGS)
    _pools(defaults, path)
    datasets = content.get("datasets", {})
    if not isinstance(datasets, dict):
        raise _Place(path, "datasets").wrong(datasets, "a table a dataset")
    return Config(
        path=path,
        defaults=defaults,
        datasets={name: _dataset(value, path, name) for name, value in datasets.items()},
    )


def _dataset(value: Any, file: Path, name: str) -> DatasetConfig:
    table = f"datasets.{name}"

    def tasks(value: Any, place: _Place) -> dict[str, TaskConfig]:
        if not isinstance(value, dict):
            raise place.wrong(value, "a table a task")
        return {task: _task(item, file, f"{table}.tasks.{task}") for task, item in value.items()}

    readers: dict[str, Reader] = {
        "manifests": _several(_path),
        "data_root": _path,
        "encoder": _text,
        "protocol_task": _either(*MARBLE_V2),
        "tasks": tasks,
    }
    fields = _table(value, file, table, readers)
    if "manifests" not in fields:
        raise UsageError(
            f"{file}: [{table}] lacks 'manifests'",
            hint='say where: manifests = "dir/NAME" stands for dir/NAME.{train,val,test}.jsonl',
        )
    return DatasetConfig(**fields)


def _task(value: Any, file: Path, table: str) -> TaskConfig:
    readers: dict[str, Reader] = {
        "label": _several(_text),
        "kind": _either(*KINDS),
        "targets": _several(_text),
        "metrics": _several(_text),
        "protocol_task": _either(*MARBLE_V2),
    }
    task = TaskConfig(**_table(value, file, table, readers))
    if len(task.label) > 1 and task.kind not in (None, "regression"):
        raise _Place(file, table, "kind").wrong(
            task.kind, "'regression': several label keys are one target each"
        )
    return task


def find_config(start: Path) -> Config:
    """Read the nearest ``tune.toml`` in a folder or above it; an empty Config if none."""
    folder = Path(os.path.abspath(start))  # noqa: PTH100 - the parents as the user sees them
    for candidate in (folder, *folder.parents):
        if os.path.isfile(candidate / FILE_NAME):  # noqa: PTH113 - False where one may not look
            return read_config(candidate / FILE_NAME)
    return Config()
