"""Results of probes in one SQLite file, readable by any SQLite client.

Conventions
-----------
Nothing is overwritten: a repeated probe is a new run, and a report shows the
newest run of each configuration. Any number of processes may write; a
rollback journal is used, as write-ahead logs need shared memory that network
file systems lack. NaN is NULL. Texts that are not Unicode (lone surrogates in
track ids) are stored as bytes. Everything is text, numbers or JSON: nothing is
unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tune_cache.errors import StoreCorruptError, StoreError, StoreMismatchError, StoreNotFoundError
from tune_cache.probes.result import Label, Prediction, ProbeResult, without_nan
from tune_cache.reports.runs import RunContext, SavedRun, config_key
from tune_cache.specs import canonical_json

__all__ = [
    "RunContext",
    "SavedRun",
    "load_run",
    "newest_runs",
    "newest_use",
    "runs_of_cells",
    "save_result",
]

SCHEMA_VERSION = 1
BUSY_SECONDS = 60.0

SCHEMA = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, created TEXT NOT NULL, config_key TEXT NOT NULL,
    dataset TEXT NOT NULL, task TEXT NOT NULL, encoder TEXT NOT NULL, seg TEXT NOT NULL,
    aggregation TEXT NOT NULL, probe TEXT NOT NULL, layer TEXT NOT NULL, seed INTEGER NOT NULL,
    store TEXT NOT NULL, content_digest TEXT NOT NULL, context TEXT NOT NULL, result TEXT NOT NULL
);
CREATE INDEX runs_by_dataset ON runs (dataset, config_key, id);
CREATE TABLE scores (
    run_id INTEGER NOT NULL REFERENCES runs (id), split TEXT NOT NULL, metric TEXT NOT NULL,
    value REAL, low REAL, high REAL, PRIMARY KEY (run_id, split, metric)
) WITHOUT ROWID;
CREATE TABLE predictions (
    run_id INTEGER NOT NULL REFERENCES runs (id), split TEXT NOT NULL, track_id NOT NULL,
    track_group NOT NULL, truth TEXT NOT NULL, prediction TEXT NOT NULL,
    PRIMARY KEY (run_id, split, track_id)
) WITHOUT ROWID;
"""


def save_result(path: Path, result: ProbeResult, context: RunContext) -> int:
    """Add a run, all of it or nothing; the file is made if it is not there.

    Returns
    -------
    the number of the run

    Raises
    ------
    StoreError
        If the file is locked too long, damaged, or from a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "config_key": config_key(result, context),
        "dataset": _text(context.dataset),
        "task": _text(result.task),
        "encoder": context.encoder,
        "seg": context.seg,
        "aggregation": result.aggregation,
        "probe": result.probe,
        "layer": result.layer,
        "seed": result.seed,
        "store": _text(context.store),
        "content_digest": context.content_digest,
        "context": canonical_json(without_nan(dataclasses.asdict(context))),
        "result": canonical_json(result.to_json()),
    }
    with _connection(path, write=True) as database:
        columns = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        run_id = database.execute(f"INSERT INTO runs ({columns}) VALUES ({marks})", row).lastrowid
        database.executemany(
            "INSERT INTO scores VALUES (?, ?, ?, ?, ?, ?)",
            [
                (run_id, split, metric, *map(_null, (score.value, score.low, score.high)))
                for split, scores in result.scores.items()
                for metric, score in scores.items()
            ],
        )
        database.executemany(
            "INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    run_id,
                    item.split,
                    _text(item.track_id),
                    _text(item.group),
                    json.dumps(without_nan(item.truth)),
                    json.dumps(without_nan(item.prediction)),
                )
                for item in result.predictions
            ],
        )
    return int(run_id or 0)


def newest_runs(path: Path, dataset: str | None = None, task: str | None = None) -> list[SavedRun]:
    """Read the newest run of each configuration, oldest first, without predictions.

    Parameters
    ----------
    dataset, task
        Only these; None takes all.
    """
    if not path.exists():
        return []
    with _connection(path) as database:
        rows = database.execute(
            "SELECT id, created, context, result FROM runs WHERE id IN"
            " (SELECT MAX(id) FROM runs GROUP BY dataset, config_key)"
            " AND (:dataset IS NULL OR dataset = :dataset)"
            " AND (:task IS NULL OR task = :task) ORDER BY id",
            {"dataset": _text(dataset), "task": _text(task)},
        ).fetchall()
    return [_saved(row) for row in rows]


def runs_of_cells(path: Path, dataset: str, keys: Iterable[str]) -> list[SavedRun]:
    """Read the newest run of each cell of a sweep, without predictions.

    Whatever was probed since: a cell's key says that nothing has changed.
    """
    if not path.exists():
        return []
    with _connection(path) as database:
        newest = dict(
            database.execute(
                "SELECT json_extract(context, '$.cell_key') AS cell, MAX(id) FROM runs"
                " WHERE dataset = ? GROUP BY cell",
                (_text(dataset),),
            ).fetchall()
        )
        rows = [
            database.execute(
                "SELECT id, created, context, result FROM runs WHERE id = ?", (newest[key],)
            ).fetchone()
            for key in dict.fromkeys(keys)
            if key in newest
        ]
    return [_saved(row) for row in rows]


def newest_use(path: Path) -> dict[str, str]:
    """Content digest of each store that a run used to the time of the newest one (UTC)."""
    if not path.exists():
        return {}
    with _connection(path) as database:
        query = "SELECT content_digest, MAX(created) FROM runs GROUP BY content_digest"
        return dict(database.execute(query).fetchall())


def load_run(path: Path, run_id: int) -> SavedRun:
    """Read one run with its predictions.

    Raises
    ------
    StoreNotFoundError
        If there is no such run.
    """
    rows, found = [], None
    if path.exists():
        with _connection(path) as database:
            found = database.execute(
                "SELECT id, created, context, result FROM runs WHERE id = ?", (run_id,)
            ).fetchone()
            rows = database.execute(
                "SELECT track_id, split, track_group, truth, prediction FROM predictions"
                " WHERE run_id = ? ORDER BY split DESC, track_id",
                (run_id,),
            ).fetchall()
    if found is None:
        raise StoreNotFoundError(
            f"there is no run {run_id!r} in {str(path)!r}",
            hint="`tune report --json` lists the runs there are",
        )
    predictions = tuple(
        Prediction(
            track_id=_from_text(track_id),
            split=split,
            group=_from_text(group),
            truth=_label(truth),
            prediction=_label(prediction),
        )
        for track_id, split, group, truth, prediction in rows
    )
    return _saved(found, predictions)


def _saved(row: tuple[Any, ...], predictions: tuple[Prediction, ...] = ()) -> SavedRun:
    run_id, created, context, result = row
    try:
        where = RunContext(**json.loads(context))
        fields = json.loads(result)
    except (TypeError, ValueError) as error:
        raise StoreMismatchError(
            f"run {run_id} cannot be read: {error}",
            hint="it was written by another version of tune_cache; probe again",
        ) from error
    return SavedRun(
        run_id=run_id,
        created=created,
        context=where,
        result=ProbeResult.from_json(fields, predictions),
    )


@contextmanager
def _connection(path: Path, *, write: bool = False) -> Iterator[sqlite3.Connection]:
    """One transaction on the file; SQLite's errors become ours."""
    try:
        database = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            _check_schema(database, path, write=write)
            yield database
            database.execute("COMMIT")
        finally:
            database.close()  # without a commit: rolled back
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"results {str(path)!r} cannot be used: {error}",
            hint="wait for other runs to end, and check space and permissions of the folder",
        ) from error
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(
            f"results {str(path)!r} are damaged or not a results file: {error}",
            hint="move the file away; probing again takes seconds",
            path=str(path),
        ) from error


def _check_schema(database: sqlite3.Connection, path: Path, *, write: bool) -> None:
    """Make the tables in a new file; refuse what a newer version wrote."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreMismatchError(
            f"results {str(path)!r} have schema {version}, expected at most {SCHEMA_VERSION}",
            hint="update tune_cache, or use another --cache-dir",
        )
    if version == 0:
        if database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise StoreMismatchError(
                f"{str(path)!r} is an SQLite file of something else",
                hint="use another --cache-dir",
            )
        for statement in SCHEMA.split(";"):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _text(value: str | None) -> str | bytes | None:
    """Text as it is, or its bytes if it is not Unicode."""
    try:
        (value or "").encode("utf-8")
    except UnicodeEncodeError:
        return (value or "").encode("utf-8", "surrogatepass")
    return value


def _from_text(value: str | bytes) -> str:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def _label(text: str) -> Label:
    value = json.loads(text)
    return tuple(value) if isinstance(value, list) else str(value)
