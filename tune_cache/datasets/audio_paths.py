"""Find the data root, and turn a manifest's audio paths into files and track ids.

Conventions
-----------
A path is normalised as text first, links are resolved after. Inside means: below
the data root or below a manifest's own folder (whose files are as trusted as the
manifest), links resolved. MARBLE's paths start with ``data/…``, relative to the
benchmark's root, which is some folder above the manifest.
"""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Located", "Locator", "find_data_root"]

N_TRIED = 200  # paths tried under each candidate; more would not change the choice


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_data_root(audio_paths: Sequence[str], folder: Path) -> Path | None:
    """Choose the manifest's folder or one above it: where most of the files are.

    The nearest wins among equals. The file system's root is never chosen: below
    it a manifest could point anywhere. An absolute path counts where it is below
    the candidate, whether or not the file exists.

    Returns
    -------
    None if no candidate has any of the files.
    """
    step = max(1, len(audio_paths) // N_TRIED)
    tried = audio_paths[::step]
    best, best_score = None, 0
    for candidate in (folder, *folder.parents):
        if candidate.parent == candidate and candidate != folder:
            break
        score = sum(
            _is_below(os.path.normpath(path), str(candidate))
            if path.startswith(os.sep)
            else os.path.exists(candidate / path)  # noqa: PTH110 - False for what no path can be
            for path in tried
        )
        if score > best_score:
            best, best_score = candidate, score
        if best_score == len(tried):
            break
    return best


@dataclass(frozen=True, slots=True)
class Located:
    """Where an ``audio_path`` leads."""

    path: Path
    relative: str
    is_inside: bool


class Locator:
    """Resolves the audio paths of one dataset.

    Parameters
    ----------
    data_root
        Absolute; what relative paths start from and track ids are relative to.
    manifest_folders
        Further folders that paths may lead into.
    """

    def __init__(self, data_root: Path, manifest_folders: Sequence[Path]) -> None:
        self._root = os.path.normpath(data_root)
        self._real_root = os.path.realpath(data_root)
        self._allowed = {self._real_root, *map(os.path.realpath, manifest_folders)}
        self._real_folders: dict[str, str] = {}

    def locate(self, audio_path: str) -> Located:
        """Resolve one path; the file need not exist.

        Raises
        ------
        ValueError
            If no file can have this name (a NUL, or text that the file system
            cannot encode).
        """
        if not audio_path or "\0" in audio_path:
            raise ValueError("it is empty or holds a NUL character")
        os.fsencode(audio_path)  # UnicodeEncodeError is a ValueError
        joined = os.path.normpath(os.path.join(self._root, audio_path))  # noqa: PTH118 - text only
        folder, name = os.path.split(joined)
        if folder not in self._real_folders:  # once a folder, not once a file
            self._real_folders[folder] = os.path.realpath(folder)
        real = os.path.join(self._real_folders[folder], name)  # noqa: PTH118 - text only
        if os.path.islink(real):  # noqa: PTH114 - text only
            real = os.path.realpath(real)
        if _is_below(joined, self._root):
            relative = joined[len(self._root.rstrip(os.sep)) + 1 :] or "."
        elif _is_below(real, self._real_root):
            relative = os.path.relpath(real, self._real_root)
        else:
            relative = os.path.normpath(audio_path)
        return Located(
            path=Path(real),
            relative=relative.replace(os.sep, "/"),
            is_inside=any(_is_below(real, folder) for folder in self._allowed),
        )
