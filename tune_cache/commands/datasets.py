"""``tune dataset``: make, check, list and describe datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tune_cache.audio import DecodePool
from tune_cache.commands.context import open_context
from tune_cache.datasets.base import SPLITS, Dataset, Problem, Track
from tune_cache.datasets.check import check_dataset
from tune_cache.datasets.scan import scan_folder

__all__ = ["dataset_check", "dataset_info", "dataset_ls", "dataset_scan"]

CHECK_RATE_HZ = 24_000

dataset_scan = scan_folder


def dataset_check(
    dataset: str | None = None,
    *,
    deep: bool = True,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Problem]:
    """List everything that is wrong with a dataset.

    Parameters
    ----------
    deep
        Decode every file, in processes of their own.
    """
    context = open_context(cache_dir)
    root = context.setting("data_root", data_root)
    with DecodePool(1, sample_rate_hz=CHECK_RATE_HZ, keep_samples=False) as pool:

        def decode(track: Track) -> Any:
            return pool.submit(track.track_id, track.path).result()

        return check_dataset(
            dataset,
            deep=deep,
            decode=decode,
            data_root=root,
            config=context.config,
            allow_outside_root=allow_outside_root,
            cache_dir=context.layout.root,
            on_progress=on_progress,
        )


def dataset_info(
    dataset: str | None = None,
    *,
    data_root: Path | None = None,
    cache_dir: Path | str | None = None,
    allow_outside_root: bool = False,
) -> Dataset:
    """Load a dataset to be described."""
    return open_context(cache_dir).dataset(
        dataset, data_root=data_root, allow_outside_root=allow_outside_root
    )


def dataset_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """One row a task: splits, groups, classes."""
    rows = []
    for task in dataset.tasks:
        labelled = [track for track in dataset.tracks if task.name in track.labels]
        row: dict[str, Any] = {"task": task.name, "kind": task.kind}
        for split in SPLITS:
            row[split] = sum(track.split == split for track in labelled)
        row["groups"] = len({track.group for track in labelled})
        if task.kind == "regression":
            row["targets"] = ", ".join(task.targets)
        else:
            counts: Counter[str] = Counter()
            for track in labelled:
                label = track.labels[task.name]
                counts.update(map(str, label) if isinstance(label, tuple) else [str(label)])
            row["classes"] = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
        rows.append(row)
    return rows


def dataset_ls(*, cache_dir: Path | str | None = None) -> list[dict[str, Any]]:
    """List the datasets that have a name here: those of ``tune.toml``, and the demo."""
    config = open_context(cache_dir).config
    rows: list[dict[str, Any]] = [
        {
            "dataset": name,
            "from": str(config.path),
            "manifests": ", ".join(map(str, entry.manifests)),
        }
        for name, entry in config.datasets.items()
    ]
    if "demo" not in config.datasets:
        rows.append({"dataset": "demo", "from": "built in", "manifests": "rendered when used"})
    return rows
