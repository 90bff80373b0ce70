"""Whether the parts of a store agree with each other, whatever their checksums say.

Conventions
-----------
Pure: arrays in, findings out. What fails here was written so, or forged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.findings import Finding, Scope
from tune_cache.cache.layout import Layout, cache_of
from tune_cache.cache.salvage import ORIGINALS, SMALL, Salvage
from tune_cache.cache.shards import SHARD_ROWS, shard_name
from tune_cache.cache.store import STATUS_FAILED, STATUS_OK, Store
from tune_cache.errors import AudioError, first_few
from tune_cache.segments import coverage_samples
from tune_cache.specs import collection_digest

__all__ = [
    "MAY_BE_EMPTY",
    "expected_files",
    "inconsistencies",
    "is_shard",
    "misplacement",
    "place_of",
    "scope_of",
]

MAY_BE_EMPTY = {"tracks/id_utf8/c/0", "tracks/message_utf8/c/0"}
MOST_SHARDS = 1 << 17  # attributes may lie; their files.json could not be read


def inconsistencies(store: Salvage, arrays: Mapping[str, npt.NDArray[Any]]) -> list[Finding]:
    """Compare the arrays of a store with its attributes and with each other.

    Parameters
    ----------
    store
        Computes what follows from lengths and spec.
    arrays
        Name to values as stored, of all small arrays.
    """
    try:
        found = list(_disagreements(store, arrays))
    except AudioError as error:
        found = [("tracks/n_samples", f"has a track that cannot be cut: {error}")]
    return [Finding(file=file, problem=problem, scope="store") for file, problem in found]


def _disagreements(
    store: Salvage, arrays: Mapping[str, npt.NDArray[Any]]
) -> Iterator[tuple[str, str]]:
    """File and predicate of each contradiction."""
    attributes, spec = store.attrs, store.spec
    stated = {
        "layers": list(spec.layers),
        "n_layers": len(spec.layers),
        "dtype": spec.dtype,
    }
    for name, expected in stated.items():
        if attributes.get(name) != expected:
            yield "zarr.json", f"states {name} {attributes.get(name)!r}, the spec {expected!r}"
    ids = store.track_ids
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        yield "tracks/id_utf8", f"has ids more than once: {first_few(twice)}"
    elif list(ids) != sorted(ids):
        yield "tracks/id_utf8", "has ids that are not sorted"
    codes = arrays["tracks/status"]
    if not np.isin(codes, (STATUS_OK, STATUS_FAILED)).all():
        yield "tracks/status", "has a code that is neither ok nor failed"
    for name, values in (
        ("tracks/offset", store.offset),
        ("segments/track", store.segment_track),
        ("segments/start_sample", store.segment_start),
        ("segments/n_samples", store.segment_n_samples),
    ):
        if not np.array_equal(arrays[name], values):
            yield name, "is not how the spec cuts tracks of these lengths"
    if store.offset[-1] != store.n_segments:
        yield "zarr.json", f"states {store.n_segments} segments of {store.offset[-1]}"
    digest = collection_digest(zip(ids, store.audio_sha256, strict=True))
    if digest != attributes.get("collection_digest"):
        yield "zarr.json", f"states another collection than the tracks' {digest}"
    coverage = attributes.get("coverage")
    expected_coverage = _coverage(store)
    if coverage != expected_coverage:
        yield "zarr.json", f"states coverage {coverage!r}, the tracks have {expected_coverage!r}"


def _coverage(store: Salvage) -> dict[str, Any]:
    """What the attributes must state, from the tracks."""
    rate = store.spec.segments.sample_rate_hz
    reasons = [code for code in store.status.values() if code != "ok"]
    covered = sum(coverage_samples(grid) for grid in store.grids)
    return {
        "ok": store.n_tracks - len(reasons),
        "failed": dict(Counter(reasons)),
        "seconds_present": int(store.n_samples.sum()) / rate,
        "seconds_encoded": covered / rate,
    }


def misplacement(path: Path, spec_path: Path) -> str:
    """Say how a store in a cache folder lies where its content does not belong.

    Examples
    --------
    >>> misplacement(Path("/c/v1/mel/seg10-a-b.zarr"), Path("/c/v1/muq/seg10-a-b.zarr"))
    "lies at 'mel/seg10-a-b.zarr', and its content belongs at 'muq/seg10-a-b.zarr'"
    """
    if path == spec_path:
        return ""
    here, there = (str(Path(place.parent.name, place.name)) for place in (path, spec_path))
    return f"lies at {here!r}, and its content belongs at {there!r}"


def place_of(store: Store) -> Path | None:
    """Where the content of a store belongs; None outside cache folders, where names are free."""
    root = cache_of(store.path)
    if root is None:
        return None
    return Layout(root).store_path(store.spec, str(store.attrs.get("collection_digest")))


def is_shard(name: str) -> bool:
    """Whether a file of a store holds rows."""
    return name.startswith("embeddings/") and "/c/" in name


def scope_of(file: str) -> Scope:
    """Whose vectors a damaged file puts in doubt, by its name."""
    if is_shard(file):
        return "tracks"
    is_original = file.startswith(tuple(f"{name}/c/" for name in ORIGINALS))
    return "store" if file == "zarr.json" or is_original else "none"


def expected_files(store: Salvage) -> Iterator[str]:
    """Names of the files that a store with these attributes has, beside its vouchers."""
    yield "zarr.json"
    yield from (f"{group}/zarr.json" for group in ("embeddings", "segments", "tracks"))
    yield from (f"{name}/zarr.json" for name in SMALL)
    for name in SMALL:
        yield f"{name}/c/0/0" if name == "tracks/audio_sha256" else f"{name}/c/0"
    n_shards = min(MOST_SHARDS, -(-store.n_segments // SHARD_ROWS))
    for pooling in store.poolings:
        yield f"embeddings/{pooling}/zarr.json"
        yield from (f"embeddings/{pooling}/{shard_name(index)}" for index in range(n_shards))
