"""The exchange formats there are, and which one a file is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tune_cache.cache import hdf5
from tune_cache.cache.exchange import npz, parquet
from tune_cache.cache.exchange.files import open_file
from tune_cache.cache.exchange.header import Content
from tune_cache.errors import StoreMismatchError, UsageError

__all__ = ["FORMATS", "Format", "format_of_content", "format_of_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One exchange format.

    Parameters
    ----------
    suffixes
        File names that choose it.
    magic
        First bytes of its files.
    write
        Writes a store into a file of this name.
    opened
        Opens such a file, checked as far as can be without reading rows.
    side_by_side
        Whether all poolings are read at once, not one after the other.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    write: Callable[[Path, Content], None]
    opened: Callable[[Path], AbstractContextManager[Content]]
    side_by_side: bool = False


FORMATS = {
    form.name: form
    for form in (
        Format(
            name="hdf5",
            suffixes=(".h5", ".hdf5"),
            magic=b"\x89HDF\r\n\x1a\n",
            write=hdf5.write,
            opened=hdf5.opened,
        ),
        Format(
            name="npz", suffixes=(".npz",), magic=b"PK\x03\x04", write=npz.write, opened=npz.opened
        ),
        Format(
            name="parquet",
            suffixes=(".parquet",),
            magic=b"PAR1",
            write=parquet.write,
            opened=parquet.opened,
            side_by_side=True,
        ),
    )
}


def format_of_name(name: str | None, path: Path) -> Format:
    """Choose the format to write: the one asked for, else by the file's suffix.

    Raises
    ------
    UsageError
        If there is none of that name, or the suffix says nothing.
    """
    if name is None:
        suffix = path.suffix.lower()
        found = [form for form in FORMATS.values() if suffix in form.suffixes]
        if not found:
            raise UsageError(
                f"file {str(path)!r} does not say which format it is to have",
                hint=f"give --format, one of {', '.join(FORMATS)}",
            )
        return found[0]
    if name not in FORMATS:
        raise UsageError(f"--format is {name!r}, expected one of {', '.join(FORMATS)}")
    return FORMATS[name]


def format_of_content(name: str | None, path: Path) -> Format:
    """Tell a file's format by its first bytes.

    Raises
    ------
    StoreMismatchError
        If it has none of ours, or another one than asked for.
    """
    with open_file(path) as (file, _):
        begins = file.read(8)
    found = [form for form in FORMATS.values() if begins.startswith(form.magic)]
    if not found:
        raise StoreMismatchError(
            f"file {str(path)!r} is none of {', '.join(FORMATS)} by its first bytes",
            hint="a folder with a .npy or .pt a track can be imported as well",
        )
    if name is not None and format_of_name(name, path) is not found[0]:
        raise StoreMismatchError(
            f"file {str(path)!r} is {found[0].name} by its first bytes, --format says {name}",
            hint="leave out --format",
        )
    return found[0]
