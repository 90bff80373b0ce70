"""What an export or an import did, as text for people and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_cache.cache.store import Store
from tune_cache.commands.exchange import ExportReport, ImportReport
from tune_cache.commands.show import table, warn
from tune_cache.commands.terminal import say
from tune_cache.errors import printable
from tune_cache.reports.tables import json_table

__all__ = ["exported", "imported"]

FAILED_SHOWN = 10


def exported(report: ExportReport, *, as_json: bool) -> str:
    """The file that was written."""
    return _shown(report.row(), "cache export", report.store, as_json=as_json)


def imported(report: ImportReport, *, as_json: bool) -> str:
    """The store that is in the cache now, and every track without rows."""
    failed = [f"{name}: {text}" for name, text in report.failed.items()]
    if not as_json:
        warn(report.warnings)
        if failed:
            say(f"{len(failed)} tracks have no vectors:")
            for line in failed[:FAILED_SHOWN]:
                say(f"  {printable(line)}")
            if len(failed) > FAILED_SHOWN:
                say(f"  and {len(failed) - FAILED_SHOWN} more (--json lists all)")
    warnings = [*report.warnings, *failed]
    return _shown(report.row(), "cache import", report.store, as_json=as_json, warnings=warnings)


def _shown(
    row: Mapping[str, Any],
    command: str,
    store: Store,
    *,
    as_json: bool,
    warnings: Sequence[str] = (),
) -> str:
    if as_json:
        return json_table([row], command=command, dataset=None, warnings=warnings)
    note = str(store.attrs.get("license_note", ""))
    if note:
        say(printable(note))
    path = row.get("out", row["store"])
    short = {name: value for name, value in row.items() if name not in ("out", "content_digest")}
    short.pop("store")
    return f"{table([short], command=command, as_json=False)}\n{printable(path)}"
