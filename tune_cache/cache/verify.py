"""Whether every byte of a store is what was written, and which tracks are hit where not.

Conventions
-----------
Nothing here changes a store. ``COMPLETE`` vouches for ``files.json``, which
vouches for every file; where those two are damaged, the content digest can vouch
for all arrays at once. A shard is hashed as a file, one ahead, and decoded chunk
by chunk, so that damage is told by its rows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tune_cache.cache.consistency import (
    MAY_BE_EMPTY,
    expected_files,
    inconsistencies,
    is_shard,
    misplacement,
    place_of,
    scope_of,
)
from tune_cache.cache.findings import UNREADABLE, Finding, Scope, Verification, with_tracks
from tune_cache.cache.holds import hold_store
from tune_cache.cache.listing import (
    LARGEST_JSON_BYTES,
    Files,
    parse_listing,
    parse_object,
    problem_of,
)
from tune_cache.cache.salvage import SMALL, Salvage
from tune_cache.cache.values import DIFFERS, Values, predicate_of
from tune_cache.errors import StoreCorruptError, StoreMismatchError
from tune_cache.specs import canonical_json

__all__ = ["Finding", "Verification", "verify_store"]

VOUCHERS = ("COMPLETE", "files.json")
GROUPS = {"embeddings/zarr.json", "segments/zarr.json", "tracks/zarr.json"}


def verify_store(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> Verification:
    """Read every byte of a store and compare it with what was written.

    Parameters
    ----------
    path
        The store; in a cache folder its place must fit its content.
    on_bytes
        Called with the number of bytes of each piece read.

    Raises
    ------
    StoreNotFoundError
        If there is no folder.
    StoreError
        If a file of it may not be read.
    StoreMismatchError
        If it is whole, but of a version that this one cannot read.
    """
    began = time.perf_counter()
    look = _Look(Files(hold=hold_store(path)), on_bytes or (lambda n_bytes: None))
    look.read_vouchers()
    store = look.read_attributes()
    look.compare_tree(store)
    look.compare_files()
    digest = look.read_values(store)
    if store is not None:
        digest = look.settle(store, digest)
    look.judge_vouchers(store)
    return Verification(
        path=path,
        inode=look.files.hold.inode,
        findings=with_tracks(look.findings.values(), store),
        store=store,
        content_digest=digest,
        n_files=look.n_files,
        n_bytes=look.n_bytes,
        seconds=time.perf_counter() - began,
    )


@dataclass(slots=True)
class _Look:
    """A verification in the making."""

    files: Files
    on_bytes: Callable[[int], None]
    vouched: str = ""  # the digest that COMPLETE states
    listing: bytes = b""
    is_list_wrong: bool = False
    findings: dict[str, Finding] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)  # files that are as listed
    n_files: int = 0
    n_bytes: int = 0

    @property
    def path(self) -> Path:
        return self.files.hold.path

    @property
    def is_vouched(self) -> bool:
        return bool(self.listing) and hashlib.sha256(self.listing).hexdigest() == self.vouched

    def add(
        self, file: str, problem: str, scope: Scope | None = None, tracks: tuple[str, ...] = ()
    ) -> None:
        """Report a file once, by the first thing that is wrong with it."""
        scope = scope or ("tracks" if tracks else scope_of(file))
        finding = Finding(file=file, problem=problem, scope=scope, tracks=tracks)
        self.findings.setdefault(file, finding)

    def caught(self, error: StoreCorruptError) -> None:
        """Report what reading an array ran into."""
        name = self.files.name(Path(error.path))
        if name in self.whole:  # so it is not the file that is wrong
            self.add("zarr.json", f"states a shape that {name!r} has not", "store")
        else:
            self.add(name, predicate_of(error))

    def count(self, n_bytes: int) -> None:
        self.n_bytes += n_bytes
        self.on_bytes(n_bytes)

    def read_vouchers(self) -> None:
        """Read ``COMPLETE`` and ``files.json``; a list serves even where it is not vouched for."""
        hold = self.files.hold
        try:
            data = hold.read("COMPLETE", LARGEST_JSON_BYTES)
            self.vouched = str(parse_object(self.path / "COMPLETE", data).get("files_sha256"))
        except (OSError, StoreCorruptError) as error:
            self.add("COMPLETE", predicate_of(error))
        try:
            data = hold.read("files.json", LARGEST_JSON_BYTES)
            self.files = Files(hold=hold, **parse_listing(self.path / "files.json", data))
            self.listing = data
        except (OSError, StoreCorruptError) as error:
            self.add("files.json", predicate_of(error))

    def read_attributes(self) -> Salvage | None:
        """Read ``zarr.json``; damaged, it serves if the spec in it has the key in the name."""
        name = "zarr.json"
        entry = self.files.listed.get(name)
        try:
            data = self.files.hold.read(name, LARGEST_JSON_BYTES)
            is_whole = entry is None or hashlib.sha256(data).hexdigest() == entry.sha256
            attributes = parse_object(self.path / name, data).get("attributes")
        except (OSError, StoreCorruptError) as error:
            self.add(name, predicate_of(error))
            return None
        try:
            store = Salvage(self.path, attributes or {}, self.files)
        except UNREADABLE as error:
            if isinstance(error, StoreMismatchError) and self.is_vouched and is_whole:
                raise  # so it was written, by another version
            why = f"it has no attribute {error}" if isinstance(error, KeyError) else str(error)
            self.add(name, f"cannot be read: {why}")
            return None
        if not is_whole:
            is_named = f"-{store.spec.key[:8]}-" in self.path.name
            self.add(name, DIFFERS, "none" if is_named else "store")
        return store

    def compare_tree(self, store: Salvage | None) -> None:
        """Report what lies in the folder and is not listed, and what is not listed but should."""
        expected = set(expected_files(store)) if store else set()
        if self.listing:
            for name in sorted(expected - self.files.listed.keys() - MAY_BE_EMPTY):
                self.add(name, "is not listed in files.json", "store")
        known = {*self.files.listed, *self.files.ledger, *VOUCHERS}
        if not self.is_vouched:
            known |= expected
        if not self.files.ledger:  # older stores do not list it
            known.add("ledger/extract.json")
        folders = {str(parent) for name in known for parent in PurePosixPath(name).parents}
        is_told = bool(self.listing) or store is not None  # what belongs to it
        for top, below, names in os.walk(self.path):
            place = Path(top).relative_to(self.path)
            for name in sorted(below):
                folder = (place / name).as_posix()
                if is_told and folder not in folders:
                    self.add(folder, "is a folder that no store has", "none")
                    below.remove(name)
                elif problem := problem_of(self.files.hold, folder, None):
                    self.add(folder, problem, scope_of(folder))
            for name in sorted(names):
                file = (place / name).as_posix()
                if is_told and file not in known:
                    self.add(file, "is a file that does not belong to the store", "none")

    def compare_files(self) -> None:
        """Compare length and sha256 of every file but shards, which are read with their rows."""
        for name, entry in {**self.files.listed, **self.files.ledger}.items():
            self.n_files += 1
            problem = problem_of(self.files.hold, name, entry.n_bytes)
            if problem:
                self.add(name, problem)
            elif not is_shard(name):
                try:
                    self.files.read(self.path / name)
                    self.whole.add(name)
                except StoreCorruptError:
                    self.add(name, DIFFERS)
                except OSError as error:
                    self.add(name, predicate_of(error))
                self.count(entry.n_bytes)

    def read_values(self, store: Salvage | None) -> str:
        """Decode all values; their content digest, empty where some cannot be read."""
        values = Values(self.files, self.count)
        shards = sorted(filter(is_shard, self.files.listed))
        if store is None:
            for name in shards:
                problem = values.problem_of_hash(name)
                if problem:
                    self.add(name, problem)
            return ""
        arrays = values.read_small(store)
        for error in values.errors:
            self.caught(error)
        for error in values.misdescribed(store, arrays):
            self.add(self.files.name(Path(error.path)), predicate_of(error))
        known = {name: item.problem for name, item in self.findings.items() if is_shard(name)}
        for finding in values.read_rows(store, known):
            self.findings[finding.file] = finding
        if len(arrays) == len(SMALL):
            try:
                wrong = inconsistencies(store, arrays)
            except UNREADABLE as error:
                wrong = [
                    Finding(file="zarr.json", problem=f"makes no sense: {error}", scope="store")
                ]
            for finding in wrong:
                self.findings.setdefault(finding.file, finding)
        return values.content_digest(store, arrays)

    def settle(self, store: Salvage, digest: str) -> str:
        """Let the content digest decide where ``files.json`` cannot be relied on."""
        stated = store.attrs.get("content_digest")
        accused = {*expected_files(store), *self.files.listed} & self.findings.keys()
        if not self.is_vouched and (accused or digest != stated):
            plain = Salvage(self.path, store.attrs, Files(hold=self.files.hold))
            plain.is_described = True
            values = Values(plain.files, self.count)
            arrays = values.read_small(plain)
            if not list(values.read_rows(plain, {})):
                digest = values.content_digest(plain, arrays)
            if digest == stated:  # so it is the list that is wrong, not what it lists
                # it says nothing of groups, and of messages their own checksums have to do
                kept = {name for name in accused & GROUPS if not self._is_group(name)}
                for name in accused - kept:
                    del self.findings[name]
                self.is_list_wrong = bool(accused - kept)
                store.files = plain.files
                if self.is_list_wrong:
                    self._keep_ledger()
        if not self.listing and digest != stated:
            problem = "cannot be read, and the content digest does not vouch for the rest"
            self.findings["files.json"] = Finding(file="files.json", problem=problem, scope="store")
        elif digest and digest != stated:
            problem = f"states another content digest than that of its values, {digest}"
            self.add("zarr.json", problem, "store")
        place = place_of(store)
        problem = misplacement(self.path, place) if place else ""
        if problem:
            self.add("", problem, "none")
        return digest

    def _keep_ledger(self) -> None:
        """Believe a ledger that reads as one, where the list that accuses it is wrong."""
        for name in self.files.ledger.keys() & self.findings.keys():
            with contextlib.suppress(OSError, StoreCorruptError):
                parse_object(self.path / name, self.files.hold.read(name, LARGEST_JSON_BYTES))
                del self.findings[name]

    def _is_group(self, name: str) -> bool:
        """Whether the metadata of a group says that it is one, and nothing else."""
        try:
            data = self.files.hold.read(name, LARGEST_JSON_BYTES)
            value = parse_object(self.path / name, data)
        except (OSError, StoreCorruptError):
            return False
        return value == {"attributes": {}, "zarr_format": 3, "node_type": "group"}

    def judge_vouchers(self, store: Salvage | None) -> None:
        """Find the damaged one of ``COMPLETE`` and ``files.json``, if they do not agree."""
        if store is None and not self.is_vouched:  # then nothing vouches for a vector
            for name in self.findings.keys() & set(VOUCHERS):
                self.findings[name] = dataclasses.replace(self.findings[name], scope="store")
        if self.vouched and self.listing and not self.is_vouched:
            wrong = self.findings.keys() & {*self.files.listed, *self.files.ledger}
            name = "files.json" if wrong or self.is_list_wrong else "COMPLETE"
            self.add(name, "COMPLETE and files.json do not belong together")
        elif self.is_list_wrong:
            self.add("files.json", "is no list of these files")
        if self.is_vouched and store is not None and "zarr.json" not in self.findings:
            written = {"files_sha256": self.vouched, "format": store.attrs.get("format")}
            data = self.files.hold.read("COMPLETE", LARGEST_JSON_BYTES)
            if data != canonical_json(written).encode():
                self.add("COMPLETE", DIFFERS)
