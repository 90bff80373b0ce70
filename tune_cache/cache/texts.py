"""Texts of any length in two plain arrays: their bytes, and where each begins.

Conventions
-----------
Text i is ``data[offsets[i]:offsets[i + 1]]`` in UTF-8; lone surrogates, of names
that are not text, are kept. Arrays may be a stranger's: nothing is taken on trust.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

__all__ = ["check_offsets", "decode_texts"]

Array = np.ndarray[Any, np.dtype[Any]]


def check_offsets(name: str, offsets: Array, total: int) -> None:
    """See that offsets rise from 0 to the number of items.

    Raises
    ------
    ValueError
        If they do not.
    """
    if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name} does not rise from 0 to {total}")


def decode_texts(data: Array, offsets: Array) -> list[str]:
    """Take texts apart.

    Parameters
    ----------
    data : of shape (n_bytes,), uint8
    offsets : of shape (n_texts + 1,)

    Raises
    ------
    ValueError
        If the offsets lead elsewhere, or a text is not UTF-8.

    Examples
    --------
    >>> decode_texts(np.frombuffer(b"onetwo", np.uint8), np.array([0, 3, 6]))
    ['one', 'two']
    """
    check_offsets("an offset of texts", offsets, len(data))
    text, ends = data.tobytes(), offsets.tolist()
    return [text[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise(ends)]
