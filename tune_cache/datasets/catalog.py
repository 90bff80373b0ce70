"""Load a dataset by name, by path, or by default.

Conventions
-----------
A name is looked up in ``tune.toml``, then ``demo``, then as a path, then in the
catalog under MARBLE's layout (``data/EMO/EMO.train.jsonl`` below the data root, the
working directory or the folder of ``tune.toml``). Nothing is downloaded.
What the catalog knows is in :mod:`tune_cache.datasets.published`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tune_cache.datasets.base import SPLITS, Dataset, Problem, Task, raise_errors
from tune_cache.datasets.config import Config, DatasetConfig, find_config
from tune_cache.datasets.labels import LabelRule
from tune_cache.datasets.published import CATALOG, DEMO
from tune_cache.datasets.sources import ManifestSet, find_set
from tune_cache.datasets.tracks import understand
from tune_cache.errors import ManifestError, UsageError

__all__ = ["CATALOG", "DEMO", "default_dataset", "load_dataset", "read_dataset"]

VARIABLE = "TUNE_DATASET"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A resolved DATASET argument."""

    name: str
    sets: tuple[ManifestSet, ...]
    configured: DatasetConfig | None = None


def default_dataset(
    config: Config, environment: Mapping[str, str] | None = None
) -> tuple[str, Path, str]:
    """Say which dataset is meant where none is given.

    Returns
    -------
    The name or path, what a relative path starts from, and who says so, for
    messages: ``TUNE_DATASET``, the path of ``tune.toml``, or ``built-in``.
    """
    variables = os.environ if environment is None else environment
    if variables.get(VARIABLE):
        return variables[VARIABLE], Path.cwd(), VARIABLE
    if config.path is not None and "dataset" in config.defaults:
        return config.defaults["dataset"], config.path.parent, str(config.path)
    return DEMO, Path.cwd(), "built-in"


def load_dataset(
    name: str | None = None,
    *,
    data_root: Path | None = None,
    config: Config | None = None,
    allow_outside_root: bool = False,
    cache_dir: Path | None = None,
) -> Dataset:
    """Load a dataset: its tracks, splits, groups, labels and tasks.

    An audio file that is missing is no error here: extraction costs that track,
    ``tune dataset check`` lists it, and stage two needs no audio.

    Parameters
    ----------
    name
        A name from ``tune.toml`` or the catalog; ``dir/NAME`` standing for
        ``dir/NAME.{train,val,test}.jsonl``; a folder with one such set; one
        ``.jsonl``. None: ``TUNE_DATASET``, else ``tune.toml``, else the demo.
    data_root
        What relative audio paths start from. None: ``tune.toml``, else searched
        from the manifests' folder upwards.
    config
        None reads the nearest ``tune.toml``.
    allow_outside_root
        Take audio files that lie outside the data root.
    cache_dir
        The cache root, below which the demo is rendered.

    Raises
    ------
    UsageError
        If the name stands for nothing, or for several datasets.
    ManifestError
        If a manifest is wrong; the first error, and the places of the next.
    """
    dataset, problems = read_dataset(
        name,
        data_root=data_root,
        config=config,
        allow_outside_root=allow_outside_root,
        cache_dir=cache_dir,
    )
    raise_errors(problems)
    if not dataset.tracks:
        raise ManifestError(
            f"dataset {dataset.name!r} has no tracks: its manifests are empty",
            hint="`tune dataset scan` makes manifests from label folders or a CSV",
        )
    return dataset


def read_dataset(
    name: str | None = None,
    *,
    data_root: Path | None = None,
    config: Config | None = None,
    allow_outside_root: bool = False,
    cache_dir: Path | None = None,
) -> tuple[Dataset, tuple[Problem, ...]]:
    """Load what can be understood of a dataset, and say what cannot.

    Parameters as for :func:`load_dataset`, which raises the problems instead.
    """
    config = find_config(Path.cwd()) if config is None else config
    base = Path.cwd()
    if name is None:
        name, base, _ = default_dataset(config)
    source = _resolve(name, base, config, data_root, cache_dir)
    configured = source.configured
    entries = [CATALOG[item.name] for item in source.sets if item.name in CATALOG]
    understood = understand(
        source.sets,
        _rules(source),
        dataset=source.name,
        data_root=data_root or (configured.data_root if configured else None),
        allow_outside_root=allow_outside_root,
    )
    encoders = {entry.encoder for entry in entries} if len(entries) == len(source.sets) else set()
    encoder = encoders.pop() if len(encoders) == 1 else "muq"
    splits = {track.split for track in understood.tracks}
    absent = [split for split in SPLITS if split not in splits]
    notes = [*understood.notes, *([f"no track in {', '.join(absent)}"] if absent else [])]
    dataset = Dataset(
        name=source.name,
        tracks=understood.tracks,
        tasks=tuple(_with_profile(task, configured) for task in understood.tasks),
        data_root=understood.data_root,
        encoder=(configured.encoder if configured else None) or encoder,
        licence="; ".join(dict.fromkeys(entry.licence for entry in entries)),
        citation="; ".join(dict.fromkeys(entry.citation for entry in entries)),
        note="; ".join(notes),
    )
    return dataset, understood.problems


def _resolve(
    name: str, base: Path, config: Config, data_root: Path | None, cache_dir: Path | None
) -> _Source:
    """Find the manifests of a DATASET argument."""
    if configured := config.datasets.get(name):
        found = []
        for prefix in configured.manifests:
            item = find_set(str(prefix), base)
            if item is None:
                raise UsageError(
                    f"{config.path}: [datasets.{name}] manifests: nothing at {str(prefix)!r}",
                    hint="a prefix dir/NAME stands for dir/NAME.{train,val,test}.jsonl",
                )
            found.append(item)
        return _Source(name=name, sets=tuple(found), configured=configured)
    if name == DEMO:
        return _Source(name=DEMO, sets=(_demo_set(cache_dir),))
    if item := find_set(name, base):
        return _Source(name=item.name, sets=(item,))
    entry = CATALOG.get(name)
    if entry is None:
        raise _unknown(name, config)
    places = [data_root, Path.cwd(), config.path.parent if config.path else None]
    for place in filter(None, places):
        if item := find_set(entry.prefix, place):
            return _Source(name=name, sets=(item,))
    folder = Path(entry.prefix).parent
    raise UsageError(
        f"dataset {name!r} is in the catalog, but its manifests "
        f"{entry.prefix}.{{train,val,test}}.jsonl are not here",
        hint=f"hf download {entry.hub} --repo-type dataset --local-dir {folder}, "
        "or give the path of its manifests"
        if entry.hub
        else "nobody publishes them: write one record a file, with "
        + ", ".join(f"{task.label!r}" for task in entry.tasks)
        + ", or give the path of manifests that you have",
    )


def _demo_set(cache_dir: Path | None) -> ManifestSet:
    if cache_dir is None:
        raise UsageError(
            "the demo dataset is rendered into the cache, and no cache folder was given",
            hint="give cache_dir",
        )
    from tune_cache.datasets.demo import ensure_demo

    folder = ensure_demo(Path(cache_dir) / "v1" / "datasets")
    item = find_set(DEMO, folder)
    if item is None:
        raise ManifestError(f"demo dataset in {str(folder)!r} has no manifests", path=str(folder))
    return item


def _unknown(name: str, config: Config) -> UsageError:
    names = [*config.datasets, *CATALOG]
    close = difflib.get_close_matches(name, names, n=1)
    return UsageError(
        f"no dataset {name!r}: neither a name nor a path prefix of manifests",
        hint=f"did you mean {close[0]!r}?"
        if close
        else f"names: {', '.join(names)}; or dir/NAME for dir/NAME.{{train,val,test}}.jsonl",
    )


def _rules(source: _Source) -> Sequence[LabelRule]:
    """Say which tasks to look for: those of tune.toml, else of the catalog, else one a set.

    A task of tune.toml that is named like a set reads only that set.
    """
    set_names = list(dict.fromkeys(item.name for item in source.sets))
    if source.configured and source.configured.tasks:
        return [
            LabelRule(
                name=name,
                keys=task.label,
                kind=task.kind,
                targets=task.targets,
                metrics=task.metrics,
                sets=(name,) if name in set_names else (),
                suggested=_suggested(name),
            )
            for name, task in source.configured.tasks.items()
        ]
    rules = []
    for set_name in set_names:
        own_name = source.name if len(set_names) == 1 else set_name
        known = CATALOG[set_name].tasks if set_name in CATALOG else ()
        rules += [
            LabelRule(
                name=task.name if len(known) > 1 else own_name,
                keys=(task.label,),
                sets=(set_name,),
                suggested=task,
                is_optional=True,
            )
            for task in known
        ] or [LabelRule(name=own_name, sets=(set_name,), is_optional=True)]
    return rules


def _with_profile(task: Task, configured: DatasetConfig | None) -> Task:
    """Say whose protocol a task follows, if tune.toml does."""
    if configured is None:
        return task
    own = configured.tasks[task.name].protocol_task if task.name in configured.tasks else ""
    return replace(task, protocol_task=own or configured.protocol_task)


def _suggested(name: str) -> Task | None:
    entry = CATALOG.get(name)
    return entry.tasks[0] if entry and len(entry.tasks) == 1 else None
