"""Many probes at once: which cells there are, which are the same thing, and their keys.

Conventions
-----------
A *cell* is one source, aggregation, probe, layer policy, seed and number of shots.
Cells that are equal by definition are one: lengths that cut every track alike,
and aggregations that give a single segment back where no track has more. A cell's
key is a hash of all that it depends on: vectors, labels, groups, splits, tracks
left out, settings, and the code and libraries that evaluate it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tune_cache.aggregation.registry import STATISTICS
from tune_cache.devices import first_line, is_out_of_memory, release_cached_memory
from tune_cache.errors import TaskError
from tune_cache.probes.features import KEEP_BYTES, Features
from tune_cache.probes.metrics import Metric
from tune_cache.probes.models import is_trained
from tune_cache.probes.result import without_nan
from tune_cache.probes.sources import Loader, Source
from tune_cache.probes.unlabelled import Training
from tune_cache.segments import cut
from tune_cache.specs import SegmentSpec, canonical_json, sha256_text

if TYPE_CHECKING:
    from tune_cache.datasets.base import Dataset
    from tune_cache.probes.result import ProbeResult
    from tune_cache.probes.tasks import TaskData

__all__ = [
    "Cell",
    "Cut",
    "Evaluator",
    "by_seed",
    "cell_key",
    "code_digest",
    "gives_one_back",
    "merge_aggregations",
    "task_digest",
]

Array = np.ndarray[Any, np.dtype[Any]]

LIBRARIES = ("numpy", "scipy", "scikit-learn", "torch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one process works out.

    Parameters
    ----------
    layer
        An index, ``last``, ``mean``, ``mix``, ``best`` or ``all``.
    probe_options
        Of one that is trained, as ``checkpoint``.
    shots, repeats
        Training tracks a class, drawn so many times; None learns from all.
    training
        What aggregations are trained with, where they are.
    """

    source: Source
    aggregation: str
    aggregation_options: Mapping[str, Any] = field(default_factory=dict)
    probe: str
    probe_options: Mapping[str, Any] = field(default_factory=dict)
    layer: str
    seed: int
    shots: int | None = None
    repeats: int = 0
    training: Training = field(default_factory=Training)

    def settings(self) -> dict[str, Any]:
        """All but vectors and labels, which digests stand for."""
        settings = {
            name.name: getattr(self, name.name)
            for name in dataclasses.fields(self)
            if name.name not in ("source", "training")
        }
        settings |= self.training.settings()
        of = self.source
        return settings | {"task": of.task, "derive": of.derive, "leaks": list(of.leaks)}


def gives_one_back(aggregation: str) -> bool:
    """Whether a track of one segment becomes that segment.

    But for a scale that probes remove, and for columns of ``std`` that are zero
    for every track. Two statistics side by side give it twice, which a penalty
    sees.

    Examples
    --------
    >>> [name for name in ("mean", "mean+std", "std", "mean+max") if gives_one_back(name)]
    ['mean', 'mean+std']
    """
    statistics = set(aggregation.split("+")) - {"std"}
    return len(statistics) == 1 and statistics <= {"concat", *STATISTICS}


def merge_aggregations(names: Sequence[str], *, one_segment: bool) -> list[tuple[str, ...]]:
    """Group aggregations that are the same thing; the first of each group stands for it.

    Parameters
    ----------
    one_segment
        No track has more than one.

    Examples
    --------
    >>> merge_aggregations(["concat", "mean", "max"], one_segment=True)
    [('concat', 'mean', 'max')]
    """
    merged: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        same = one_segment and gives_one_back(name)
        merged.setdefault("" if same else name, []).append(name)
    return [tuple(group) for group in merged.values()]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """How tracks are cut, in the order of their ids.

    Parameters
    ----------
    offsets : of shape (n_tracks + 1,)
        Segments of track t are ``offsets[t]:offsets[t + 1]``.
    starts, n_samples : of shape (n_segments,)
        First sample of each segment, and real samples in it.
    """

    track_ids: tuple[str, ...]
    offsets: Array
    starts: Array
    n_samples: Array

    @classmethod
    def of(cls, lengths: Mapping[str, int], spec: SegmentSpec) -> Cut:
        """Cut tracks of known lengths in samples; those too short to encode are left out."""
        names = sorted(name for name, n in lengths.items() if n >= spec.min_samples)
        pieces = [cut(lengths[name], spec) for name in names]
        flat = [piece for some in pieces for piece in some]
        return cls(
            track_ids=tuple(names),
            offsets=np.cumsum([0, *map(len, pieces)]),
            starts=np.array([piece.start_sample for piece in flat]),
            n_samples=np.array([piece.n_samples for piece in flat]),
        )

    def digest(self, spec: SegmentSpec) -> str:
        """Hash what an encoder is given of each track, zeros of ``pad`` too.

        Cuts with equal digests give the same segments, so the same vectors.

        Examples
        --------
        >>> from tune_cache.segments import segment_spec
        >>> def digest(seconds, length):
        ...     spec = segment_spec(length, sample_rate_hz=100, min_samples=1)
        ...     return Cut.of({"a": seconds * 100}, spec).digest(spec)
        >>> digest(30, 60) == digest(30, "full"), digest(70, 60) == digest(70, "full")
        (True, False)
        """
        given = self.n_samples
        if spec.tail == "pad":
            given = np.maximum(given, spec.length_samples)
        digest = hashlib.sha256(canonical_json(self.track_ids).encode())
        for numbers in (self.offsets, self.starts, given):
            digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
        return digest.hexdigest()


def task_digest(data: TaskData) -> str:
    """Hash labels, groups and splits of the tracks that are used, and why others are not."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, Metric):
            add(value.name)
        elif dataclasses.is_dataclass(value):
            for item in dataclasses.fields(value):
                add(item.name)
                add(getattr(value, item.name))
        elif isinstance(value, Mapping):
            add([[name, value[name]] for name in sorted(value)])
        elif isinstance(value, list | tuple):
            digest.update(f"[{len(value)}]".encode())
            for item in value:
                add(item)
        else:
            digest.update((canonical_json(value) + ",").encode())

    add(data)
    return digest.hexdigest()


@cache
def code_digest() -> str:
    """Hash the code of stage two, and the versions of what it computes with."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    files = [path for room in ("aggregation", "probes") for path in (package / room).rglob("*.py")]
    for path in sorted(files):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(path.read_bytes())
    digest.update(canonical_json([_version(name) for name in LIBRARIES]).encode())
    return digest.hexdigest()


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:  # then nothing computes with it
        return ""


def cell_key(cell: Cell, *, spec_key: str, content_digest: str, task: str) -> str:
    """Hash all that a cell's result depends on.

    Parameters
    ----------
    spec_key, content_digest
        Of the store, or of all stores.
    task
        The :func:`task_digest`.
    """
    parts = {
        "spec_key": spec_key,
        "content_digest": content_digest,
        "task": task,
        "settings": without_nan(cell.settings()),
        "code": code_digest(),
    }
    return sha256_text(canonical_json(parts))


def by_seed(cells: Sequence[Cell]) -> list[list[int]]:
    """Group the places of cells that are worked out together: trained, and alike but for seeds.

    Examples
    --------
    >>> from dataclasses import replace
    >>> source = Source(stores=(Path("s"),), task="t")
    >>> cell = Cell(source=source, aggregation="mean", probe="mlp", layer="6", seed=1)
    >>> by_seed([cell, replace(cell, probe="ridge"), replace(cell, seed=2)])
    [[0, 2], [1]]
    """
    groups: dict[tuple[Source, str], list[int]] = {}
    for place, cell in enumerate(cells):
        alike = {**cell.settings(), "seed": None} if is_trained(cell.probe) else place
        groups.setdefault((cell.source, canonical_json(without_nan(alike))), []).append(place)
    return list(groups.values())


class Evaluator:
    """Fits, chooses and scores cells; one a process.

    Labels and vectors are kept between cells of one source, so these had better
    follow one another.

    Parameters
    ----------
    jobs
        Processes that share the memory for vectors.
    """

    def __init__(self, dataset: Dataset, jobs: int = 1, *, loader: Loader | None = None) -> None:
        self._loader = loader or Loader(dataset, keep_bytes=KEEP_BYTES // jobs)

    def __call__(self, cells: Sequence[Cell]) -> tuple[ProbeResult, ...]:
        """Evaluate cells that differ in their seeds only; under ``all`` each has one a layer.

        Raises
        ------
        TaskError
            If labels, splits or memory cannot support it.
        """
        data, features = self._loader.load(cells[0].source)
        try:
            return self._evaluated(cells, data, features)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        release_cached_memory()  # only now are the frames of the error gone, with their tensors
        raise TaskError(
            f"this cell does not fit into memory: {reason}",
            hint="end what else uses the GPU, take fewer --seed at once, or --device cpu",
        )

    def _evaluated(
        self, cells: Sequence[Cell], data: TaskData, features: Features
    ) -> tuple[ProbeResult, ...]:
        from tune_cache.probes.evaluate import N_REPEATS, run_probe
        from tune_cache.probes.mlp import mlp_options

        cell = cells[0]
        found = run_probe(
            features,
            data,
            aggregation=cell.aggregation,
            aggregation_options=cell.aggregation_options,
            probe=cell.probe,
            probe_options=mlp_options({**cell.probe_options, "device": cell.training.device})
            if is_trained(cell.probe)
            else None,
            probe_label=f"{cell.probe} last"
            if cell.probe_options.get("checkpoint") == "last"
            else None,
            layer=cell.layer,
            seed=[one.seed for one in cells],
            shots=cell.shots,
            repeats=cell.repeats or N_REPEATS,
            workshop=cell.training.workshop(),
        )
        told = (*cell.source.leaks, *cell.training.warnings())
        return tuple(dataclasses.replace(one, warnings=(*one.warnings, *told)) for one in found)
