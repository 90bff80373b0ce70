"""Which files of a folder are vectors, and which track each belongs to.

Conventions
-----------
A file's name is its path relative to the folder, with slashes, without its
suffix; any text, lone surrogates included. Hidden files are not looked at.
Nothing outside the folder is read: linked folders are refused, linked files
where they lead out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tune_cache.cache.exchange.vectors import SUFFIXES
from tune_cache.errors import StoreError, StoreMismatchError, StoreNotFoundError, first_few

__all__ = ["list_vectors", "match_tracks"]


def list_vectors(folder: Path) -> dict[str, tuple[str, Path]]:
    """Find every ``.npy`` and ``.pt``.

    Returns
    -------
    name to the same with its suffix and the path, links resolved, in the order of names.

    Raises
    ------
    StoreError
        If a link leads out of the folder, or two files have one name.
    StoreNotFoundError
        If there is none.
    """

    def refuse(error: OSError) -> NoReturn:
        raise StoreError(f"folder {str(folder)!r} cannot be read: {error}") from error

    root = folder.resolve()
    found: dict[str, tuple[str, Path]] = {}
    for parent, folders, files in os.walk(folder, onerror=refuse):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        linked = [name for name in folders if (here / name).is_symlink()]
        if linked:
            raise StoreError(
                f"folder {str(here / linked[0])!r} is a link, which is not followed",
                hint="import the folder that it leads to",
            )
        for file in files:
            stem, dot, suffix = file.rpartition(".")
            if file.startswith(".") or not stem or dot + suffix.lower() not in SUFFIXES:
                continue
            path = here / file
            name = (here / stem).relative_to(folder).as_posix()
            if name in found:
                raise StoreError(f"two files of {str(folder)!r} are called {name!r}")
            found[name] = f"{name}.{suffix}", _inside(path, root)
    if not found:
        raise StoreNotFoundError(
            f"folder {str(folder)!r} has no {' or '.join(SUFFIXES)} file",
            hint="one file a track; its name is the track's id, or matches one with --ids manifest",
        )
    return dict(sorted(found.items()))


def _inside(path: Path, root: Path) -> Path:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"link {str(path)!r} leads nowhere") from error
    if not target.is_relative_to(root):
        raise StoreError(
            f"link {str(path)!r} leads out of the folder", hint="copy the file it leads to"
        )
    return target


def match_tracks(names: Sequence[str], track_ids: Sequence[str]) -> dict[str, str]:
    """Say which track each file belongs to; files of none are left out.

    A name is compared with whole ids, then with ids less their suffix
    (``audio/01.npy`` is of ``audio/01.wav``), then with the last part of each.

    Raises
    ------
    StoreMismatchError
        If a name fits several tracks, or a track several files.

    Examples
    --------
    >>> match_tracks(["x/01", "02.wav", "zz"], ["audio/01.wav", "audio/02.wav"])
    {'x/01': 'audio/01.wav', '02.wav': 'audio/02.wav'}
    """

    def bare(text: str) -> str:
        head, dot, tail = text.rpartition(".")
        return head if dot and head and not head.endswith("/") and "/" not in tail else text

    def last(text: str) -> str:
        return text.rpartition("/")[2]

    keys = (
        (lambda text: text, lambda text: text),
        (lambda text: text, bare),
        (last, last),
        (last, lambda text: last(bare(text))),
    )
    matched: dict[str, str] = {}
    for of_name, of_id in keys:
        tracks: dict[str, list[str]] = {}
        for track_id in track_ids:
            tracks.setdefault(of_id(track_id), []).append(track_id)
        for name in names:
            fitting = tracks.get(of_name(name), [])
            if name in matched or not fitting:
                continue
            if len(fitting) > 1:
                raise StoreMismatchError(
                    f"file {name!r} fits {len(fitting)} tracks: {first_few(fitting)}",
                    hint="name files by the whole track id, folders too",
                )
            matched[name] = fitting[0]
    files: dict[str, list[str]] = {}
    for name, track_id in matched.items():
        files.setdefault(track_id, []).append(name)
    for track_id, several in files.items():
        if len(several) > 1:
            raise StoreMismatchError(f"track {track_id!r} has several files: {first_few(several)}")
    return {name: matched[name] for name in names if name in matched}
