"""Units of an unfinished store: each a self-checking file, done when it checks.

Conventions
-----------
A unit holds the rows of consecutive tracks, in plan order: per pooling an array
(rows, layers, dim) in the stored dtype, the grid (``start_sample``,
``n_samples``), and per track what happened to it. Whoever made it, a unit that
checks is done; writing one twice is harmless because units are deterministic.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tune_cache.cache.disk import make_private_folder, may_write_in, write_durably
from tune_cache.cache.plan import PlannedTrack
from tune_cache.errors import StoreError
from tune_cache.specs import StoreSpec, canonical_json

__all__ = [
    "JournalUnit",
    "TrackOutcome",
    "UnitLedger",
    "check_rows",
    "make_work_folder",
    "read_unit",
    "write_unit",
]

UNIT_FORMAT = 1
LARGEST_HEADER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackOutcome:
    """What became of one track.

    Parameters
    ----------
    status
        ``ok`` or a short reason code.
    message
        The sentence that goes with a failure, or notes on a success.
    n_samples, sample_rate_hz
        Decoded length at the encoder's rate; rate of the file itself. 0 where it failed.
    n_rows
        Segments it contributed; 0 where it failed.
    covered_samples
        Distinct samples inside its segments.
    """

    track_id: str
    audio_sha256: str
    status: str
    message: str = ""
    n_samples: int = 0
    sample_rate_hz: int = 0
    n_rows: int = 0
    covered_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitLedger:
    """What a unit cost; outside every hash of identity.

    Seconds are wall-clock. What is spent once for several lengths (decoding,
    waiting, loading) is divided equally among them. What is known only after a
    unit is on disk (writing it), or comes before the first (loading), is carried
    by the next unit of the same run. Work that a kill undid is in no figure.

    Parameters
    ----------
    load_seconds
        Loading the encoder.
    wait_seconds
        The encoder waited for decoders.
    encode_seconds, first_batch_seconds
        In the encoder; and of these in the first batch of a run, which is
        warm-up and work in one.
    write_seconds
        Committing units.
    decode_seconds
        In decoders, which run beside the encoder: summed over the files that
        could be decoded, each by its own clock.
    audio_seconds
        In segments: an overlap counts as often as it was encoded, padding never.
    peak_vram_allocated_bytes, peak_vram_reserved_bytes
        Highest on the GPU while this unit was encoded: in tensors, and held by
        torch's allocator, which keeps what earlier batches needed. 0 without CUDA.
    peak_rss_bytes, peak_decoder_rss_bytes
        Highest resident memory since its start of this process, and of the
        largest decoder. 0 where it is not known.
    device
        That encoded, as ``cuda: NAME`` or ``cpu``.
    n_threads
        That torch may use; 0 without it.
    n_lengths
        Segment lengths made together in one process, which share its memory.
    """

    load_seconds: float = 0.0
    wait_seconds: float = 0.0
    encode_seconds: float = 0.0
    first_batch_seconds: float = 0.0
    write_seconds: float = 0.0
    decode_seconds: float = 0.0
    audio_seconds: float = 0.0
    n_segments: int = 0
    batch_size: int = 0
    n_backoffs: int = 0
    n_fallbacks: int = 0
    peak_vram_allocated_bytes: int = 0
    peak_vram_reserved_bytes: int = 0
    peak_rss_bytes: int = 0
    peak_decoder_rss_bytes: int = 0
    device: str = ""
    n_threads: int = 0
    n_lengths: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalUnit:
    """The rows of one unit and the fate of its tracks."""

    outcomes: tuple[TrackOutcome, ...]
    embeddings: Mapping[str, npt.NDArray[Any]]
    start_sample: npt.NDArray[np.int64]
    n_samples: npt.NDArray[np.int32]
    ledger: UnitLedger = field(default_factory=UnitLedger)

    def covers(self, tracks: Sequence[PlannedTrack]) -> bool:
        """Whether every track asked for is here, with the same audio."""
        here = {outcome.track_id: outcome.audio_sha256 for outcome in self.outcomes}
        return all(here.get(track.track_id) == track.audio_sha256 for track in tracks)


def make_work_folder(work: Path) -> None:
    """Create the journal's folder, or see that the one that is there is ours alone.

    Raises
    ------
    StoreError
        If it is a link, another user's, or others may write in it: what they
        plant there would be written through, or published as vectors.
    FileNotFoundError
        If a rival removes it meanwhile, as it has published the store.
    """
    for folder in (work, work / "units"):
        make_private_folder(folder, exist_ok=True)
        found = folder.lstat()
        others_write = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if not stat.S_ISDIR(found.st_mode) or others_write or not may_write_in(folder):
            raise StoreError(
                f"the journal {str(folder)!r} is not yours alone "
                f"(mode {stat.filemode(found.st_mode)}, uid {found.st_uid})",
                hint="another user may be at work on this store: wait for it, or extract "
                "elsewhere with --cache-dir; what nobody is at work on may be removed",
            )


def unit_path(work: Path, index: int) -> Path:
    """Name of unit ``index`` in a work folder."""
    return work / "units" / f"{index}.safetensors"


def _payload_digest(arrays: Mapping[str, npt.NDArray[Any]], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(canonical_json(header).encode("ascii"))
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(canonical_json([name, list(array.shape), array.dtype.str]).encode("ascii"))
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def check_rows(name: str, values: npt.NDArray[np.float32], dtype: str) -> npt.NDArray[Any]:
    """Convert rows to the stored dtype, or say why they do not fit.

    Raises
    ------
    ValueError
        If a value is not finite, or outside the range of the stored dtype.
    """
    if not np.isfinite(values).all():
        raise ValueError(f"{name} embedding is not finite")
    with np.errstate(over="ignore"):
        stored = values.astype("<" + dtype)
    if not np.isfinite(stored).all():
        largest = float(np.abs(values).max())
        raise ValueError(
            f"{name} embedding reaches {largest:g}, beyond float16 (65504): use --dtype f4"
        )
    return stored


def write_unit(work: Path, index: int, spec: StoreSpec, unit: JournalUnit) -> None:
    """Write a unit durably; when this returns, it survives a loss of power."""
    from safetensors.numpy import save

    header: dict[str, Any] = {
        "format": UNIT_FORMAT,
        "spec_key": spec.key,
        "unit": index,
        "tracks": [dataclasses.asdict(outcome) for outcome in unit.outcomes],
        "ledger": dataclasses.asdict(unit.ledger),
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        f"embeddings.{name}": np.ascontiguousarray(rows) for name, rows in unit.embeddings.items()
    }
    arrays["segments.start_sample"] = np.asarray(unit.start_sample, "<i8")
    arrays["segments.n_samples"] = np.asarray(unit.n_samples, "<i4")
    digest = _payload_digest(arrays, header)
    # one metadata key: safetensors does not keep the order of several
    metadata = {"tune_cache": canonical_json({"header": header, "sha256": digest})}
    write_durably(unit_path(work, index), save(arrays, metadata))


def read_unit(work: Path, index: int, spec: StoreSpec) -> JournalUnit | None:
    """Read a unit; None unless it is there, whole, and of this spec."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = unit_path(work, index)
    try:
        if path.is_symlink():
            return None
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        if length > min(LARGEST_HEADER_BYTES, len(data)):
            return None
        outer = json.loads(data[8 : 8 + length])["__metadata__"]["tune_cache"]
        record = json.loads(outer)
        header = record["header"]
        arrays = load(data)
        if (
            record["sha256"] != _payload_digest(arrays, header)
            or header["format"] != UNIT_FORMAT
            or header["spec_key"] != spec.key
            or header["unit"] != index
        ):
            return None
        unit = JournalUnit(
            outcomes=tuple(TrackOutcome(**outcome) for outcome in header["tracks"]),
            embeddings={name: arrays[f"embeddings.{name}"] for name in spec.poolings},
            start_sample=arrays["segments.start_sample"],
            n_samples=arrays["segments.n_samples"],
            ledger=UnitLedger(**header["ledger"]),
        )
    except (OSError, ValueError, KeyError, TypeError, struct.error, SafetensorError):
        return None  # absent, torn or foreign: it will be encoded again
    return unit
