"""Read a CSV of labels: a path column, and columns of classes or numbers.

Conventions
-----------
The header names a path column (``file``, ``audio_path`` or ``path``); paths are
relative to the scanned folder. ``split``, the group columns (``group``, ``ori_uid``,
``artist``, ``album``, that of ``--group``) and a record's own keys are no labels; every
other column is, unless the label columns are named. A column of numbers only is
regression; empty cells are missing labels. Lines count from 1, which is the header.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cache.datasets.tracks import GROUP_KEYS
from tune_cache.errors import ManifestError, first_few

__all__ = ["COLUMN", "LabelTable", "read_label_csv"]

PATH_COLUMNS = ("file", "audio_path", "path")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAX_CELL_CHARACTERS = 64 * 1024
COLUMN = "column:"
# keys of a record that labels may not hide
# fmt: off
RECORD_KEYS = frozenset((
    "audio_path", "track_id", "split", "duration", "sample_rate", "num_samples", "channels",
    "bit_depth", "bitrate",
))
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """A CSV of labels, checked.

    Parameters
    ----------
    rows
        Line, path as written, and the other cells by column, empty ones left out.
    texts, numbers
        Label columns that hold classes, and that hold numbers only.
    group_column
        What groups come from, if any column says.
    has_splits
        Whether there is a column ``split``.
    """

    rows: tuple[tuple[int, str, dict[str, str]], ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    group_column: str | None
    has_splits: bool


def _is_number(cell: str) -> bool:
    return NUMBER.fullmatch(cell) is not None and math.isfinite(float(cell))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield rows that are not blank, with the number of their last line."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if any(len(cell) > MAX_CELL_CHARACTERS for cell in row):
                    raise csv.Error("a cell is longer than 65536 characters")
                if any(cell.strip() for cell in row):
                    yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise ManifestError(
            f"{path}:{reader.line_num}: not CSV: {error}",
            hint="commas between cells, double quotes around cells with commas",
            path=str(path),
            line=reader.line_num,
        ) from error
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error


def read_label_csv(
    path: Path, *, label_columns: Sequence[str] = (), group: str | None = None
) -> LabelTable:
    """Read and check a CSV of labels.

    Parameters
    ----------
    label_columns
        Columns to use as labels; empty uses every column that is nothing else.
    group
        As given to ``--group``: a column, ``column:NAME``, or a pattern, which is
        left to the caller.

    Raises
    ------
    ManifestError
        If it is not CSV, a header or cell is missing or extra, a file stands
        twice, or there is no label column; with the line.
    """

    def wrong(message: str, line: int, hint: str | None = None) -> ManifestError:
        return ManifestError(f"{path}:{line}: {message}", hint=hint, path=str(path), line=line)

    lines = _lines(path)
    line, header = next(lines, (1, []))
    path_columns = [name for name in header if name in PATH_COLUMNS]
    if not path_columns:
        separators = [mark for mark in ";\t|" if any(mark in name for name in header)]
        raise wrong(
            f"header is {first_few(header, 6)}, expected a column {', '.join(PATH_COLUMNS)}",
            line,
            f"cells are separated by commas, not by {separators[0]!r}"
            if separators
            else "name the column of file paths 'file'",
        )
    twice = sorted({name for name in header if header.count(name) > 1 or not name})
    if twice:
        raise wrong(f"columns {first_few(twice)} are named twice or not at all", line)
    path_column = path_columns[0]
    others = tuple(name for name in header if name not in path_columns)
    group_column = group.removeprefix(COLUMN) if group else None
    if group and not group.startswith(COLUMN) and group not in others:
        group_column = None  # a pattern
    elif group is None:
        own = (name for name in GROUP_KEYS if name in others and name not in label_columns)
        group_column = next(own, None)
    wanted = (*label_columns, *((group_column,) if group_column else ()))
    absent = [name for name in wanted if name not in others]
    if absent:
        raise wrong(f"no column {first_few(absent)}", line, f"columns: {', '.join(others)}")
    hiding = sorted(RECORD_KEYS & set(label_columns))
    if hiding:
        raise wrong(f"column {first_few(hiding)} cannot be a label", line, "rename the column")
    rows = []
    seen: dict[str, int] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise wrong(f"{len(cells)} cells, expected {len(header)} as in the header", line)
        fields = dict(zip(header, cells, strict=True))
        file = fields[path_column]
        if not file:
            raise wrong(f"cell {path_column!r} is empty, expected a path", line)
        if file in seen:
            raise wrong(f"file {file!r} stands in line {seen[file]} already", line)
        seen[file] = line
        rows.append((line, file, {name: fields[name] for name in others if fields[name]}))
    reserved = {*RECORD_KEYS, *GROUP_KEYS, group_column}
    labels = tuple(label_columns) or tuple(name for name in others if name not in reserved)
    filled = {name: [cells[name] for _, _, cells in rows if name in cells] for name in labels}
    labels = tuple(name for name in labels if filled[name])
    if not labels:
        raise wrong("no column of labels", 1, "add a column of classes or numbers")
    numbers = tuple(name for name in labels if all(map(_is_number, filled[name])))
    for name in (name for name in labels if name not in numbers):
        odd = [cell for cell in filled[name] if not _is_number(cell)]
        if len(odd) * 10 < len(filled[name]):
            line = next(row for row, _, cells in rows if cells.get(name) == odd[0])
            raise wrong(
                f"{name!r} is {odd[0]!r} in a column of numbers",
                line,
                "leave the cell empty if the label is missing",
            )
    return LabelTable(
        rows=tuple(rows),
        texts=tuple(name for name in labels if name not in numbers),
        numbers=numbers,
        group_column=group_column,
        has_splits="split" in others,
    )
