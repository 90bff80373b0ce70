"""Read MARBLE's manifests: JSON Lines, one record a file, one manifest a split.

Conventions
-----------
A record is data from a stranger: at most 64 KiB a line, every key once, every
number finite, little nesting. Bytes that are not UTF-8 survive as lone surrogates.
Nothing is understood here: :mod:`tune_cache.datasets.tracks` does that.
The format is MARBLE v2's, https://github.com/a43992899/MARBLE.
"""

from __future__ import annotations

import json
import math
import os
import reprlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.datasets.base import SPLITS, Dataset, Problem, Task, Track
from tune_cache.errors import ManifestError

__all__ = [
    "MAX_LINE_BYTES",
    "SPLITS",
    "Dataset",
    "Record",
    "Task",
    "Track",
    "parse_line",
    "read_manifest",
]

MAX_LINE_BYTES = 64 * 1024
MAX_BAD_LINES = 100  # more than that is not a manifest
MAX_NESTING = 32  # writing or comparing a deeper value would exhaust Python's stack


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a manifest, parsed but not yet understood."""

    fields: dict[str, Any]
    path: str
    line: int

    @property
    def where(self) -> str:
        """Place as ``file:line``."""
        return f"{self.path}:{self.line}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {reprlib.repr(twice)} appears more than once")
    return fields


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number that JSON has")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {reprlib.repr(text)} is out of range")
    return value


def _int(text: str) -> int:
    if len(text) > 19:  # 10**18 is the largest that every consumer can hold as int64
        raise ValueError(f"integer {reprlib.repr(text)} is out of range")
    return int(text)


def _is_deep(value: object) -> bool:
    """Whether a value nests deeper than :data:`MAX_NESTING`, found without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_NESTING):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)


def parse_line(raw: bytes, *, path: str = "", line: int = 0) -> dict[str, Any]:
    r"""Parse one line of a manifest strictly.

    Raises
    ------
    ManifestError
        If the line is longer than 64 KiB, not one JSON object, repeats a key,
        or holds NaN, Infinity or a number outside double precision or int64.

    Examples
    --------
    >>> parse_line(b'{"audio_path": "a.wav", "label": "rock"}\n')
    {'audio_path': 'a.wav', 'label': 'rock'}
    """

    def fault(message: str, hint: str) -> ManifestError:
        return ManifestError(message, hint=hint, path=path, line=line)

    if len(raw) > MAX_LINE_BYTES:
        raise fault(f"line is longer than {MAX_LINE_BYTES} bytes", "write one JSON object a line")
    try:
        value = _DECODER.decode(raw.decode("utf-8", "surrogateescape"))
    except json.JSONDecodeError as error:
        raise fault(
            f"line is not JSON: {error.msg} at character {error.pos + 1}",
            "write one JSON object a line, in UTF-8",
        ) from error
    except ValueError as error:
        raise fault(
            f"line is refused: {error}", "write each key once, and finite numbers"
        ) from error
    except RecursionError as error:
        raise fault("line is nested too deeply", "write one flat JSON object a line") from error
    if not isinstance(value, dict):
        raise fault(
            f"line is {reprlib.repr(value)}, expected a JSON object",
            "write one JSON object a line",
        )
    if _is_deep(value):
        raise fault("line is nested too deeply", "write one flat JSON object a line")
    return value


def read_manifest(path: Path) -> tuple[list[Record], list[Problem]]:
    """Read every good line of a manifest and say what is wrong with the others.

    Blank lines and a byte-order mark are passed over. A file with more than a
    hundred bad lines is given up.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    name = str(path)
    try:
        # a FIFO would block in open() without O_NONBLOCK
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return [], [_whole_file(name, f"manifest cannot be opened: {error.strerror}")]
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return [], [_whole_file(name, "manifest is not a regular file")]
    with os.fdopen(descriptor, "rb") as file:
        line = 0
        try:
            while raw := file.readline(MAX_LINE_BYTES + 1):
                line += 1
                if line == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                if not raw.strip():
                    continue
                try:
                    records.append(Record(parse_line(raw, path=name, line=line), name, line))
                except ManifestError as error:
                    problems.append(_from_error(error))
                    if len(problems) > MAX_BAD_LINES:
                        problems.append(_whole_file(name, f"manifest is given up at line {line}"))
                        break
        except OSError as error:
            problems.append(_whole_file(name, f"manifest cannot be read: {error.strerror}"))
    return records, problems


def _whole_file(path: str, message: str) -> Problem:
    return Problem(severity="error", code="bad-manifest", message=message, path=path)


def _from_error(error: ManifestError) -> Problem:
    return Problem(
        severity="error",
        code="bad-line",
        message=error.message,
        path=error.path,
        line=error.line,
        hint=error.hint or "",
    )
