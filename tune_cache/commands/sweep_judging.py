"""Comparisons of cells that are saved: worked out once, kept in the cache.

Conventions
-----------
A comparison is kept under the keys of its cells and of the code, in a file of
its own; losing one costs time only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune_cache.commands.memory import recall, remember
from tune_cache.errors import TuneCacheError
from tune_cache.probes.compare import Comparison, compare, score_of
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import ProbeResult
from tune_cache.probes.sweep import code_digest
from tune_cache.probes.workers import jobs_for, run_all
from tune_cache.reports.results import SavedRun, load_run
from tune_cache.specs import canonical_json, sha256_text

__all__ = ["Judge", "Runs", "judged"]

Runs = tuple[SavedRun, ...]


class Judge:
    """Compares cells by their runs; one a process.

    Parameters
    ----------
    path
        Of the results, where predictions are read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[Runs, list[ProbeResult]] | None = None

    def __call__(self, pair: tuple[Runs, Runs | None]) -> tuple[Score, Comparison | None]:
        """Score a cell, and compare it with another if there is one."""
        first, second = pair
        cell = self._results(first)
        if second is None or any(result.shots for result in cell):  # these keep no predictions
            return score_of(cell), None
        if self._last is None or self._last[0] != second:
            self._last = second, self._results(second)
        return score_of(cell), compare(cell, self._last[1])

    def _results(self, runs: Runs) -> list[ProbeResult]:
        return [
            run.result if run.result.predictions else load_run(self._path, run.run_id).result
            for run in runs
        ]


def judged(
    entries: Sequence[tuple[Runs, tuple[str, ...]]],
    reference: int,
    *,
    path: Path,
    memory: Path,
    jobs: int | None,
) -> list[tuple[Score, Comparison | None]]:
    """Score every entry of a table and compare it with the reference, or remember.

    Parameters
    ----------
    entries
        Runs and keys of the cells, one a seed each.
    path, memory
        Of the results; and the folder where comparisons are kept.
    """
    runs, keys = zip(*entries, strict=True)
    places = [
        memory / f"{_pair_key(keys[place], keys[reference])}.json" for place in range(len(entries))
    ]
    found = [_read(place) for place in places]
    pending = [place for place, item in enumerate(found) if item is None]
    items = [(runs[place], None if place == reference else runs[reference]) for place in pending]
    slow = any(run.result.kind == "multilabel" for run in runs[0])
    n_jobs = jobs_for(jobs, len(items)) if slow else 1
    for place, outcome in run_all(Judge, (path,), items, jobs=n_jobs):
        if isinstance(outcome, TuneCacheError):
            raise outcome
        found[pending[place]] = outcome
        _write(places[pending[place]], *outcome)
    return [item for item in found if item is not None]


def _pair_key(first: tuple[str, ...], second: tuple[str, ...]) -> str:
    return sha256_text(canonical_json([first, second, code_digest()]))[:32]


def _read(path: Path) -> tuple[Score, Comparison | None] | None:
    """What was written before, None where nothing can be used."""
    value = recall(path)
    try:
        score = Score(**{k: float("nan") if v is None else v for k, v in value["score"].items()})
        other = value["comparison"]
        return score, None if other is None else Comparison.from_json(other)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _write(path: Path, score: Score, comparison: Comparison | None) -> None:
    remember(
        path,
        {
            "score": {"value": score.value, "low": score.low, "high": score.high},
            "comparison": None if comparison is None else comparison.to_json(),
        },
    )
