"""Making the replacement of a damaged store, through the journal that every store goes through.

Conventions
-----------
What is whole is copied from the damaged store, else from any other store at
hand; only the rest is encoded. Nothing here touches the damaged store.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cache.cache.assemble import Assembly, assemble
from tune_cache.cache.extract import gather
from tune_cache.cache.find import copy_sources
from tune_cache.cache.journal import make_work_folder
from tune_cache.cache.layout import Layout
from tune_cache.cache.ledger import machine_facts
from tune_cache.cache.locks import Claims
from tune_cache.cache.plan import PlannedTrack, make_plan
from tune_cache.cache.preflight import check_room
from tune_cache.cache.store import Store
from tune_cache.cache.verify import Verification
from tune_cache.cache.work import Job, Run, encode_all
from tune_cache.encoders.base import EncoderInfo
from tune_cache.errors import AudioError, StoreCorruptError
from tune_cache.specs import StoreSpec

__all__ = ["Making"]

logger = logging.getLogger(__name__)

KEPT_FACTS = ("frame_rate_hz", "datasets", "license_note", "encoder_note", "provenance", "repaired")
NO_ROOM = "make room: the damaged store stays until its replacement is whole; nothing was changed"


@dataclass(slots=True)
class Making:
    """A replacement in the making."""

    found: Verification
    tracks: Sequence[PlannedTrack]
    spec: StoreSpec
    wanted: Set[str]
    layout: Layout
    info: EncoderInfo
    run: Run
    staged: Path
    claims: Claims
    job: Job | None = None
    n_encoded: int = 0

    def make(self, collection: str) -> None:
        """Encode and assemble it; other stores that turn out damaged are left out."""
        distrusted = {self.found.path}
        plan = make_plan(self.tracks)
        while True:
            job = Job(
                spec=self.spec,
                final=self.staged,
                work=self.layout.work_path(self.staged),
                claims=self.claims,
                copies=self._copies(distrusted),
            )
            make_work_folder(job.work)
            try:
                check_room([job], plan, dim=self.info.dim, hint=NO_ROOM)
                try:
                    encode_all(plan, [job], self.run)
                finally:
                    self.n_encoded += job.n_encoded
                with self.claims.assembling():
                    if not self.staged.exists():
                        assembly = gather(job, plan, collection, self.info, self.run.options)
                        assemble(self.staged, self._carried(assembly, job))
                self.job = job
                return
            except StoreCorruptError as error:
                others = [path for path in self.layout.store_paths() if path not in distrusted]
                source = next((p for p in others if Path(error.path).is_relative_to(p)), None)
                if source is None:
                    raise
                logger.warning("store %s is damaged and not copied from: %s", source.name, error)
                distrusted.add(source)

    def _copies(self, distrusted: set[Path]) -> dict[str, tuple[Store, str]]:
        """Where rows come from: the store itself, else any other that has them."""
        store = self.found.store
        kept = [track for track in self.tracks if track.track_id not in self.wanted]
        missing = [track for track in self.tracks if track.track_id in self.wanted]
        copies = copy_sources(self.layout, self.spec, missing, distrusted)
        if store is not None:
            copies |= {track.track_id: (store, track.track_id) for track in kept}
        return copies

    def _carried(self, assembly: Assembly, job: Job) -> Assembly:
        """Give the replacement the attributes and the ledger of the old store, if whole."""
        if not any(outcome.n_rows for outcome in assembly.outcomes):
            raise AudioError(
                f"none of {len(assembly.outcomes)} tracks could be encoded",
                hint="nothing was replaced; look at the dataset with `tune dataset check`",
            )
        store = self.found.store
        old: dict[str, Any] = {}
        before: Mapping[str, Any] = {}
        if store is not None and self.found.is_trusted:
            before = store.ledger
            if not any(finding.file == "zarr.json" for finding in self.found.findings):
                old = {name: store.attrs[name] for name in KEPT_FACTS if name in store.attrs}
        made = {**machine_facts(), "n_encoded": self.n_encoded, "n_copied": len(job.copies)}
        cost = assembly.ledger

        def ledger() -> Mapping[str, Any]:
            now = cost() if callable(cost) else cost
            return {**before, "repairs": [*before.get("repairs", []), now]}

        facts = {**assembly.facts, **old, "repaired": [*old.get("repaired", []), made]}
        return dataclasses.replace(assembly, facts=facts, ledger=ledger)
