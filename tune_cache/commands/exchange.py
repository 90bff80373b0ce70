"""``tune cache export`` and ``tune cache import``: stores as files, vectors of others as stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cache.cache.assemble import Assembly
from tune_cache.cache.exchange.export import content_of, export_file
from tune_cache.cache.exchange.folder import list_vectors, match_tracks
from tune_cache.cache.exchange.foreign import ForeignTrack, foreign_assembly
from tune_cache.cache.exchange.formats import FORMATS, format_of_content, format_of_name
from tune_cache.cache.exchange.header import encoder_name as checked_name
from tune_cache.cache.exchange.restore import assembly_of, publish
from tune_cache.cache.exchange.vectors import describe
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.store import Store, open_store
from tune_cache.commands.caches import cache_info
from tune_cache.commands.context import Context, Length, lengths, open_context, plan_tracks
from tune_cache.errors import StoreMismatchError, StoreNotFoundError, UsageError, first_few
from tune_cache.specs import DTYPES

__all__ = ["ExportReport", "ImportReport", "export_store", "import_store"]

STORE_FOLDER, VECTOR_FOLDER = "zarr", "vectors"
IDS = ("path", "manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What ``tune cache export`` wrote.

    Parameters
    ----------
    store
        That was exported.
    out
        The file.
    n_bytes
        Its length.
    """

    store: Store
    out: Path
    format: str
    n_bytes: int

    def row(self) -> dict[str, Any]:
        """Plain values for tables and JSON."""
        return {
            "store": f"{self.store.path.parent.name}/{self.store.name}",
            "format": self.format,
            "tracks": self.store.n_tracks,
            "segments": self.store.n_segments,
            "bytes": self.n_bytes,
            "out": str(self.out),
            "content_digest": self.store.content_digest,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What ``tune cache import`` did.

    Parameters
    ----------
    store
        In the cache.
    format
        Of what was imported: an exchange format, ``zarr`` or ``vectors``.
    hit
        Whether the store was there already.
    """

    store: Store
    format: str
    hit: bool
    warnings: tuple[str, ...] = field(default_factory=tuple)

    @property
    def failed(self) -> Mapping[str, str]:
        """Track id to why it has no rows."""
        return self.store.failed

    def row(self) -> dict[str, Any]:
        """Plain values for tables and JSON."""
        spec = self.store.spec
        return {
            "encoder": spec.encoder.name,
            "seg": spec.segments.label,
            "format": self.format,
            "was": "there already" if self.hit else "imported",
            "tracks": self.store.n_tracks,
            "failed": len(self.failed),
            "segments": self.store.n_segments,
            "layers": len(self.store.layers),
            "dim": self.store.dim,
            "dtype": spec.dtype,
            "store": str(self.store.path),
            "content_digest": self.store.content_digest,
        }


def export_store(
    store: str | Path | Store,
    out: str | Path,
    *,
    format: str | None = None,
    force: bool = False,
    cache_dir: Path | str | None = None,
) -> ExportReport:
    """Write a store into one file, checked against its content digest.

    Parameters
    ----------
    store
        A path, a name, or the beginning of one.
    out
        The file; it appears complete or not at all.
    format
        ``hdf5``, ``npz`` or ``parquet``; by the suffix of ``out`` if None.
    force
        Replace a file that is there.

    Raises
    ------
    UsageError
        If ``out`` exists, or no format can be told.
    StoreCorruptError
        If the store is damaged; nothing is written then.
    MissingExtraError
        For Parquet without pyarrow.
    """
    path = Path(out)
    form = format_of_name(format, path)
    found = store if isinstance(store, Store) else cache_info(str(store), cache_dir=cache_dir)
    n_bytes = export_file(found, path, form, force=force)
    return ExportReport(store=found, out=path, format=form.name, n_bytes=n_bytes)


def import_store(
    path: str | Path,
    *,
    format: str | None = None,
    encoder_name: str | None = None,
    seg: Length | str | None = None,
    hop: float | None = None,
    dtype: str | None = None,
    ids: str | None = None,
    dataset: str | Path | None = None,
    data_root: Path | None = None,
    allow_outside_root: bool = False,
    cache_dir: Path | str | None = None,
) -> ImportReport:
    """Bring an exported store, a store's folder, or a folder of vectors into the cache.

    Parameters
    ----------
    path
        A file that :func:`export_store` wrote; a store; or a folder with a
        ``.npy`` or ``.pt`` a track.
    format
        Of the file, told by its content if None.
    encoder_name, seg, hop
        What made the vectors of a folder, and on which grid, in seconds; ``full``
        is one vector a track.
    dtype
        ``f2`` or ``f4`` for a folder; what its files need if None.
    ids
        ``path`` takes file names as track ids; ``manifest`` finds the tracks of
        the dataset that they belong to, so that the audio is known.
    dataset
        As for :func:`~tune_cache.commands.extract.extract`; implies ``manifest``.

    Raises
    ------
    UsageError
        If a folder's encoder or segment length is not said, or a file's is.
    StoreCorruptError
        If values are not those that were exported, or a file is not what it claims.
    StoreMismatchError
        If the file is none of ours, or files contradict each other.
    """
    path = Path(path)
    context = open_context(cache_dir)
    about_vectors = {
        "--encoder-name": encoder_name,
        "--seg": seg,
        "--hop": hop,
        "--dtype": dtype,
        "--ids": ids,
        "--dataset": dataset,
    }
    is_store = path.is_dir() and ((path / "COMPLETE").exists() or path.name.endswith(".zarr"))
    if path.is_dir() and not is_store:
        _check_folder_format(format, VECTOR_FOLDER, path)
        assembly, warnings = _foreign(
            context,
            path,
            name=encoder_name,
            seg=seg,
            hop=hop,
            dtype=dtype,
            ids=ids or ("path" if dataset is None else "manifest"),
            dataset=dataset,
            data_root=data_root,
            allow_outside_root=allow_outside_root,
        )
        store, hit = publish(context.layout, assembly)
        return ImportReport(store=store, format=VECTOR_FOLDER, hit=hit, warnings=tuple(warnings))
    given = [flag for flag, value in about_vectors.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} is given, but {str(path)!r} is no folder of vectors: "
            "an exported store says what it is",
            hint=f"leave out {given[0]}",
        )
    if is_store:
        _check_folder_format(format, STORE_FOLDER, path)
        content = content_of(open_store(path))
        store, hit = publish(context.layout, assembly_of(content, str(path)))
        return ImportReport(store=store, format=STORE_FOLDER, hit=hit)
    if not path.exists():
        raise StoreNotFoundError(f"there is no file or folder {str(path)!r}")
    form = format_of_content(format, path)
    with form.opened(path) as content:
        store, hit = publish(context.layout, assembly_of(content, str(path)))
    return ImportReport(store=store, format=form.name, hit=hit)


def _check_folder_format(format: str | None, found: str, path: Path) -> None:
    known = (*FORMATS, STORE_FOLDER, VECTOR_FOLDER)
    if format is not None and format not in known:
        raise UsageError(f"--format is {format!r}, expected one of {', '.join(known)}")
    if format not in (None, found):
        raise StoreMismatchError(
            f"{str(path)!r} is a folder of {found}, --format says {format}",
            hint="leave out --format",
        )


def _foreign(
    context: Context,
    folder: Path,
    *,
    name: str | None,
    seg: Length | str | None,
    hop: float | None,
    dtype: str | None,
    ids: str,
    dataset: str | Path | None,
    data_root: Path | None,
    allow_outside_root: bool,
) -> tuple[Assembly, list[str]]:
    """Tie the files of a folder to tracks, and say what the user should know."""
    if name is None or seg is None:
        raise UsageError(
            f"folder {str(folder)!r} holds vectors, but not what made them",
            hint="say --encoder-name NAME and --seg SECONDS (or full), and --hop if they overlap",
        )
    if ids not in IDS:
        raise UsageError(f"--ids is {ids!r}, expected {' or '.join(IDS)}")
    if ids == "path" and dataset is not None:
        raise UsageError(
            "--dataset is given, but --ids path takes track ids from file names",
            hint="take --ids manifest, or leave out --dataset",
        )
    if dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    checked_name(name)
    (seconds,) = lengths([seg])
    files = list_vectors(folder)
    warnings: list[str] = []
    about = ""
    if ids == "manifest":
        loaded = context.dataset(
            dataset, data_root=data_root, allow_outside_root=allow_outside_root
        )
        about = loaded.name
        with context.inventory() as inventory:
            planned = plan_tracks(loaded.tracks, inventory)
        tracks, warnings = _matched(files, planned, about)
    else:
        tracks = [
            ForeignTrack(track_id=track_id, file=describe(path, name))
            for track_id, (name, path) in files.items()
        ]
        warnings.append(
            "which audio these vectors are of is not known: they serve only where the audio is "
            "not at hand; --ids manifest ties them to a dataset"
        )
    assembly = foreign_assembly(
        tracks, name=name, seconds=seconds, hop_seconds=hop, dtype=dtype, dataset=about
    )
    return assembly, warnings


def _matched(
    files: Mapping[str, tuple[str, Path]], planned: Sequence[PlannedTrack], dataset: str
) -> tuple[list[ForeignTrack], list[str]]:
    """Every track of a dataset with its file, and what did not fit."""
    matched = match_tracks(list(files), [track.track_id for track in planned])
    if not matched:
        raise StoreMismatchError(
            f"no file fits a track of {dataset!r}: files are called {first_few(list(files), 2)}, "
            f"tracks {first_few([track.track_id for track in planned], 2)}",
            hint="a file's path, less its suffix, must be a track id, or end like one",
        )
    file_of = {
        track_id: describe(path, name)
        for found, track_id in matched.items()
        for name, path in [files[found]]
    }
    tracks = [
        ForeignTrack(
            track_id=track.track_id,
            audio_sha256=track.audio_sha256,
            file=file_of.get(track.track_id),
        )
        for track in planned
    ]
    warnings = []
    left = [name for name in files if name not in matched]
    if left:
        warnings.append(
            f"{len(left)} of {len(files)} files fit no track of {dataset!r} and are left out: "
            f"{first_few(left)}"
        )
    silent = [t.track_id for t in tracks if t.file is not None and not t.audio_sha256]
    if silent:
        warnings.append(
            f"the audio of {len(silent)} tracks is not at hand, so it is not known which it was: "
            f"{first_few(silent)}"
        )
    return tracks, warnings
