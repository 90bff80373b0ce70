"""Removing stores and leftovers, never under a reader's eyes or a worker's hands.

Conventions
-----------
A folder is renamed first and deleted then: whoever has it open goes on reading
or gets an error, whoever comes later finds nothing, and a deletion that was
interrupted is told by its name. Of a folder that is a symbolic link, only the
link is removed.
"""

from __future__ import annotations

from pathlib import Path

from tune_cache.cache.disk import remove_link, remove_tree, rename_folder, unique_suffix
from tune_cache.cache.holds import holders, sole_hold

__all__ = ["REMOVING_SUFFIX", "remove_folder", "remove_store", "said_holders"]

REMOVING_SUFFIX = ".removing"


def said_holders(path: Path) -> str:
    """Say who reads a store, as far as the system tells."""
    found = holders(path)
    who = ", ".join(f"{_command(process)} (process {process})" for process in found)
    return f"is being read by {who}" if who else "is being read by another process"


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "a program"


def remove_store(path: Path) -> str:
    """Remove a store that nobody reads.

    Returns
    -------
    empty, or why it was not removed.
    """
    with sole_hold(path) as is_free:
        if not is_free:
            return said_holders(path)
        return remove_folder(path)


def remove_folder(path: Path) -> str:
    """Rename a folder and delete it; empty, or why it is still there."""
    if path.is_symlink():
        try:
            remove_link(path)
        except OSError as error:
            return f"cannot be removed: {error.strerror or error}"
        return ""
    if path.name.endswith(REMOVING_SUFFIX):
        aside = path
    else:
        aside = path.with_name(f".{path.name.strip('.')}.{unique_suffix()}{REMOVING_SUFFIX}")
        try:
            rename_folder(path, aside)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"cannot be removed: {error.strerror or error}"
    remove_tree(aside)
    return f"is not gone: {str(aside)!r} cannot be deleted" if aside.exists() else ""
