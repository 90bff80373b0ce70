"""Publishing a replacement of a damaged store: what is whole is copied, the rest encoded again.

Conventions
-----------
The replacement is made in a small cache of its own beside the store, through the
same journal as any store, and verified there. Then the two change places, in one
step where the system can. Until then readers have the damaged store, which gives
errors but never wrong numbers; nobody ever sees an unfinished one. Killed
anywhere, the same command goes on.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tune_cache.cache.consistency import place_of
from tune_cache.cache.disk import (
    ASIDE_SUFFIX,
    make_folders,
    make_private_folder,
    may_write_in,
    rename_folder,
    swap_folders,
    unique_suffix,
)
from tune_cache.cache.holds import is_held
from tune_cache.cache.layout import Layout, lock_path, repair_root
from tune_cache.cache.listing import removing
from tune_cache.cache.locks import Claims
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.removal import REMOVING_SUFFIX, remove_folder, remove_store
from tune_cache.cache.replacement import Making
from tune_cache.cache.store import Store, open_store
from tune_cache.cache.verify import Verification, verify_store
from tune_cache.cache.work import Run
from tune_cache.encoders.base import EncoderInfo
from tune_cache.errors import (
    StoreCorruptError,
    StoreError,
    StoreMismatchError,
    StoreNotFoundError,
)
from tune_cache.specs import StoreSpec, collection_digest

__all__ = [
    "TRANSIENT",
    "Repair",
    "check_replaceable",
    "clean_after",
    "damaged_tracks",
    "failed_for_now",
    "finish_swap",
    "move_to_its_place",
    "repair_store",
]

# a failure that may not happen again: the machine was busy, or a decoder died
TRANSIENT = frozenset({"timeout", "crashed", "memory", "changed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair came to.

    Parameters
    ----------
    store
        The one that lies there now.
    is_replaced
        False where nothing had to be, or nothing could be, made better.
    n_encoded, n_copied
        Tracks.
    failed
        Track id to what went wrong, of all failed tracks of the store.
    is_same
        Whether it holds the same values as the damaged one did, to the last bit;
        None where that cannot be told.
    kept
        Where the damaged store lies while somebody still reads it.
    left
        What of it nobody reads and is there all the same, and where: a sentence.
    """

    path: Path
    store: Store
    is_replaced: bool
    n_encoded: int = 0
    n_copied: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    is_same: bool | None = True
    kept: Path | None = None
    left: str = ""


def damaged_tracks(found: Verification) -> dict[str, str]:
    """Track id to sha256 of its audio, for the tracks whose rows are damaged."""
    return _audio_of(found, set(found.tracks))


def failed_for_now(found: Verification) -> dict[str, str]:
    """The same for tracks that failed for a reason that may have passed."""
    if found.store is None or not found.is_trusted:
        return {}
    return _audio_of(found, {n for n, code in found.store.status.items() if code in TRANSIENT})


def _audio_of(found: Verification, names: set[str]) -> dict[str, str]:
    if found.store is None or not found.is_trusted:
        return {}
    audio = dict(zip(found.store.track_ids, found.store.audio_sha256, strict=True))
    return {name: audio[name] for name in sorted(names) if audio[name]}


def check_replaceable(final: Path) -> None:
    """See that a store may be replaced by us, before anything is done for it.

    Raises
    ------
    StoreError
        If it, or the folder that holds it, may not be written.
    """
    folder, uid = final.parent, os.geteuid()
    is_sticky = folder.stat().st_mode & stat.S_ISVTX
    may_rename = not is_sticky or uid in (0, folder.stat().st_uid, final.stat().st_uid)
    # a folder that goes elsewhere is written: it is told which folder it lies in
    closed = next(filter(_is_closed, (folder, final, repair_root(final))), None)
    if closed is not None or not may_rename:
        raise StoreError(
            f"store {str(final)!r} cannot be replaced: you may not write in {str(closed)!r}"
            if closed is not None
            else f"store {str(final)!r} cannot be replaced: it belongs to another user",
            hint="its owner can repair it, or make a store of your own: --cache-dir; "
            "nothing was changed",
        )


def _is_closed(folder: Path) -> bool:
    """Whether a folder is there that may not be written in."""
    try:
        return not may_write_in(folder)
    except FileNotFoundError:
        return False


def finish_swap(final: Path) -> None:
    """Finish, or undo, a swap that was interrupted between two names; see ``swap_folders``."""
    root = repair_root(final)
    if final.exists() or not root.is_dir():
        return
    for staged in sorted(root.glob("v1/*/[!.]*.zarr")):
        if verify_store(staged).is_ok:
            rename_folder(staged, final)
            return
    for aside in sorted(root.glob(f"v1/*/*{ASIDE_SUFFIX}")):
        rename_folder(aside, final)
        return


def clean_after(final: Path) -> tuple[Path | None, str]:
    """Remove what a repair left beside a store, unless somebody still reads it.

    Returns
    -------
    what is still there, and why; None and empty where nothing is.
    """
    root = repair_root(final)
    for half_gone in sorted(final.parent.glob(f".{final.name}.*{REMOVING_SUFFIX}")):
        remove_folder(half_gone)
    for old in sorted(root.glob("v1/*/*.zarr*")):
        if old.is_symlink():
            continue  # it goes with the folder it lies in, what it points to stays
        if old.is_dir() and (old / "COMPLETE").exists():
            problem = remove_store(old)
            if problem:
                return old, problem
    problem = remove_folder(root) if root.is_dir() else ""
    return (root, problem) if problem else (None, "")


def repair_store(
    found: Verification,
    tracks: Sequence[PlannedTrack],
    spec: StoreSpec,
    *,
    wanted: Set[str],
    layout: Layout,
    info: EncoderInfo,
    run: Run,
) -> Repair:
    """Replace a store by one in which some tracks are encoded again.

    Parameters
    ----------
    found
        What is wrong with it.
    tracks
        All of it, with the paths of those wanted.
    spec
        Of the store.
    wanted
        Ids of the tracks that are not copied from it.
    layout
        Of the cache, whose other stores serve as sources.
    info, run
        Of the encoder; it is loaded only if something is to be encoded.

    Raises
    ------
    StoreCorruptError
        If the replacement does not verify: the disk or the memory is not sound.
    StoreError
        If the disk has no room for a second copy.
    AudioError
        If no track at all could be encoded.
    """
    final, root = found.path, repair_root(found.path)
    with contextlib.suppress(FileExistsError):
        make_private_folder(root)
    collection = collection_digest((track.track_id, track.audio_sha256) for track in tracks)
    staged = Layout(root).store_path(spec, collection)
    with Claims(lock_path(final)) as claims:
        making = Making(found, tracks, spec, wanted, layout, info, run, staged, claims)
        try:
            make_folders(staged.parent)
            if not _is_replacement(staged, found):
                _set_aside(staged)
                making.make(collection)
            with claims.assembling():
                return _put_in_place(found, staged, making)
        except (FileNotFoundError, StoreNotFoundError, StoreCorruptError):
            if _is_at(final, found.inode):
                raise
            return _by_a_rival(final)  # whose hands were in the replacement as well


def _n_repairs(store: Store | None) -> int:
    return len(store.attrs.get("repaired", [])) if store is not None else 0


def _is_replacement(staged: Path, found: Verification) -> bool:
    """Whether an earlier run made the replacement, and did not yet put it into its place."""
    if not staged.exists():
        return False
    new = verify_store(staged)
    return new.is_ok and _n_repairs(new.store) > _n_repairs(found.store)


def _set_aside(staged: Path) -> None:
    """Make room for the replacement where a store lies that was replaced."""
    if staged.exists() and remove_store(staged):
        rename_folder(staged, staged.with_name(f".{staged.name}.{unique_suffix()}.replaced"))


def _swap(staged: Path, final: Path, inode: int) -> None:
    """Put the replacement into its place; where locks lie, a rival may put it back: again then."""
    while not _is_at(final, inode):
        swap_folders(staged, final)
        if not _is_at(final, inode) and not _is_at(staged, inode):
            raise FileNotFoundError(f"{str(staged)!r} was moved away")


def _is_at(path: Path, inode: int) -> bool:
    """Whether a folder has this name."""
    try:
        return path.stat().st_ino == inode
    except OSError:
        return False


def _by_a_rival(final: Path) -> Repair:
    store = open_store(final)
    return Repair(path=final, store=store, is_replaced=True, failed=store.failed, is_same=None)


def _put_in_place(found: Verification, staged: Path, making: Making) -> Repair:
    """Verify the replacement, let it and the damaged store change places, remove the latter."""
    final = found.path
    if not _is_at(final, found.inode):
        return _by_a_rival(final)
    new = verify_store(staged)
    if new.store is None or not new.is_ok:
        raise StoreCorruptError(
            f"the replacement of {str(final)!r} does not verify: "
            + "; ".join(f"{item.file!r} {item.problem}" for item in new.findings[:3]),
            hint="nothing was replaced; check the disk and the memory of this machine",
            path=str(staged),
        )
    is_same = None
    if found.store is not None and all(item.file != "zarr.json" for item in found.findings):
        is_same = found.store.attrs.get("content_digest") == new.content_digest
    is_better = bool(found.findings) or not is_same
    for held in (found.store, new.store):  # a removal asks who still reads
        if held is not None:
            held.files.hold.close()
    left = ""
    if is_better:
        if final.is_symlink():
            folder = os.path.realpath(final)
            left = f"the damaged store was a link; its folder is left at {folder!r}"
        _swap(staged, final, new.inode)
    kept, problem = clean_after(final)
    if kept and not is_held(kept):
        left = f"what was replaced is left at {str(kept)!r}: it {problem}"
        kept = None
    store = open_store(final)
    return Repair(
        path=final,
        store=store,
        is_replaced=is_better,
        n_encoded=making.n_encoded,
        n_copied=len(making.job.copies) if making.job else store.n_tracks,
        failed=store.failed,
        is_same=is_same,
        kept=kept,
        left=left,
    )


def right_place(found: Verification) -> Path:
    """Where a store belongs by its content, if that can be relied on; else where it lies."""
    if found.store is None or not found.is_trusted:
        return found.path
    if any(item.file == "zarr.json" for item in found.findings):
        return found.path
    return place_of(found.store) or found.path


def move_to_its_place(found: Verification) -> Path:
    """Rename a store that lies under another's name.

    Raises
    ------
    StoreMismatchError
        If a store has that name already.
    """
    place = right_place(found)
    if place != found.path:
        if place.exists():
            raise StoreMismatchError(
                f"store {str(found.path)!r} belongs at {str(place)!r}, where a store lies already",
                hint=f"remove it: {removing(found.path)}",
            )
        make_folders(place.parent)
        rename_folder(found.path, place)
    return place
