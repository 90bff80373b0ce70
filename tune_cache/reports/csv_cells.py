"""Texts as cells of CSV files that no spreadsheet runs and no terminal obeys.

Conventions
-----------
Control characters are replaced; what a spreadsheet would take for a formula gets an
apostrophe before it (OWASP, "CSV Injection"). A *name* can be read back: its
backslashes are doubled, and an apostrophe that could be ours gets another.
"""

from __future__ import annotations

import re

from tune_cache.errors import printable

__all__ = ["csv_name", "csv_text", "name_of"]

PLAIN_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
RUNS_IN_A_SPREADSHEET = tuple("=+-@＝＋－＠")
ESCAPED = re.compile(r"\\(\\|[ntr]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
SHORT = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r"}


def csv_text(value: object) -> str:
    """A text for people to read.

    Examples
    --------
    >>> csv_text("=1+1"), csv_text("-1.5"), csv_text("a")
    ("'=1+1", '-1.5', 'a')
    """
    text = printable(value)
    runs = text.lstrip().startswith(RUNS_IN_A_SPREADSHEET)
    return f"'{text}" if runs and not PLAIN_NUMBER.fullmatch(text) else text


def csv_name(name: str) -> str:
    r"""A text that :func:`name_of` gives back as it was.

    Examples
    --------
    >>> csv_name("=1+1.wav"), csv_name("'=1+1.wav"), csv_name("a\n.wav"), csv_name("a.wav")
    ("'=1+1.wav", "''=1+1.wav", 'a\\n.wav', 'a.wav')
    """
    text = printable(name.replace("\\", "\\\\"))
    return f"'{text}" if _is_marked(text) else text


def name_of(cell: str) -> str:
    r"""The name that a cell stands for.

    Examples
    --------
    >>> [name_of(csv_name(name)) for name in ("=1", "'=1", "a\\n", "\ud800\x1b")]
    ['=1', "'=1", 'a\\n', '\ud800\x1b']
    """
    text = cell[1:] if cell.startswith("'") and _is_marked(cell[1:]) else cell
    return ESCAPED.sub(lambda found: SHORT.get(found[1]) or chr(int(found[1][1:], 16)), text)


def _is_marked(text: str) -> bool:
    return text.lstrip(" '").startswith(RUNS_IN_A_SPREADSHEET)
