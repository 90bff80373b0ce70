"""The exception tree: one class for each thing a handler would do.

Conventions
-----------
The message says subject, place, found and expected; ``hint`` is the remedy.
Every class is also the built-in that a stranger would catch. Extra fields have
defaults, so that errors pickle back from worker processes.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Self

__all__ = [
    "AudioError",
    "EncoderError",
    "ManifestError",
    "MissingExtraError",
    "StoreAmbiguousError",
    "StoreCorruptError",
    "StoreError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "TaskError",
    "TuneCacheError",
    "UsageError",
    "first_few",
    "printable",
    "quoted",
]


def printable(text: object) -> str:
    r"""Replace what could drive a terminal (control and lone surrogate characters).

    Examples
    --------
    >>> printable("a\x1b[31mb\nc")
    'a\\x1b[31mb\\nc'
    """
    return "".join(
        character
        if character.isprintable() or character == " "
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in str(text)
    )


def quoted(argument: object) -> str:
    r"""Write an argument of a command to paste; it starts nothing of its own.

    What could drive a terminal is escaped byte by byte, as bash and zsh read it
    back: it names the same file.

    Examples
    --------
    >>> quoted("a b"), quoted("$(rm x)"), quoted("plain")
    ("'a b'", "'$(rm x)'", 'plain')
    >>> print(quoted("it's\na\udce9"))
    $'it\'s\x0aa\xe9'
    """
    text = str(argument)
    if printable(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    """One character between ``$'`` and ``'``."""
    if character in "'\\":
        return f"\\{character}"
    if printable(character) == character:
        return character
    undecodable = "\udc80" <= character <= "\udcff"  # a byte of a file's name
    data = character.encode("utf-8", "surrogateescape" if undecodable else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in data)


def first_few(items: Sequence[object], limit: int = 3) -> str:
    """Quote the first few offenders and count the rest.

    Examples
    --------
    >>> first_few(["a", "b", "c", "d"], limit=2)
    "'a', 'b' and 2 more"
    """
    shown = ", ".join(repr(item) for item in items[:limit])
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


class TuneCacheError(Exception):
    """Root of the tree, caught once, in the command line.

    Parameters
    ----------
    message
        One sentence: what, where, found, expected.
    hint
        What to do next.
    """

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, dict(self.__dict__)))

    def detached(self) -> Self:
        """Itself, to be kept: without the frames that it came through, which hold stores open."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


def _rebuild(kind: type[TuneCacheError], message: str, fields: dict[str, object]) -> TuneCacheError:
    """Unpickle an error with its extra fields."""
    error = kind(message)
    error.__dict__.update(fields)
    return error


class UsageError(TuneCacheError, ValueError):
    """An argument or a setting cannot be followed as written."""


class ManifestError(TuneCacheError, ValueError):
    """A manifest, a label file or a dataset definition must be mended.

    Parameters
    ----------
    path, line
        Where; lines count from 1, 0 means the whole file.
    """

    def __init__(
        self, message: str = "", *, hint: str | None = None, path: str = "", line: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line


class AudioError(TuneCacheError, OSError):
    """One file cannot be turned into samples; it costs this track only.

    Parameters
    ----------
    track_id
        Which track.
    reason
        A short code for tables, as ``missing``, ``truncated``, ``too-short``.
    """

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        track_id: str = "",
        reason: str = "unreadable",
    ) -> None:
        super().__init__(message, hint=hint)
        self.track_id = track_id
        self.reason = reason


class EncoderError(TuneCacheError, RuntimeError):
    """Weights are absent, a setting is not supported, or output is not finite."""


class StoreError(TuneCacheError):
    """A store cannot be found, told apart, matched or trusted."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No store at hand holds what was asked for."""


class StoreAmbiguousError(StoreError, LookupError):
    """Several stores match; the hint names the flag that decides."""


class StoreMismatchError(StoreError, ValueError):
    """A store was made with other settings than those expected."""


class StoreCorruptError(StoreError, RuntimeError):
    """A file of a store is not what was written.

    Parameters
    ----------
    path
        The offending file.
    tracks
        Ids of the tracks it touches, as far as known.
    """

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        path: str = "",
        tracks: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.tracks = tracks


class TaskError(TuneCacheError, ValueError):
    """Labels or splits cannot support the probe."""


class MissingExtraError(TuneCacheError, ImportError):
    """An optional package is absent; the hint is the pip command."""
