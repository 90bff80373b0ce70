"""What an encoder is, how one is found by name, and the checks that all share.

Conventions
-----------
Waveforms are (batch, n_samples) float32, mono, all of one length, at the
encoder's rate. ``embed`` returns pooling → (batch, n_layers kept, dim) float32.
Layers are indices of hidden states: 0 is the input of the first block. An
item's embedding never depends on the rest of its batch. Third parties register
a factory under the entry-point group ``tune_cache.encoders``.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tune_cache.errors import EncoderError, UsageError
from tune_cache.specs import POOLINGS, EncoderSpec

__all__ = [
    "Encoder",
    "EncoderFactory",
    "EncoderInfo",
    "Waveforms",
    "check_waveforms",
    "encoder_names",
    "get_encoder",
    "kept_layers",
    "kept_poolings",
    "parse_layers",
    "sha256_file",
]

Waveforms = np.ndarray[Any, np.dtype[np.float32]]

ENTRY_POINTS = "tune_cache.encoders"
# resolved when asked for, so that naming encoders imports none of their libraries
BUILT_IN = {
    "muq": "tune_cache.encoders.muq:ENCODER",
    "muq-nano": "tune_cache.encoders.muq:NANO",
    "mel": "tune_cache.encoders.mel:ENCODER",
}


def sha256_file(path: Path) -> str:
    """Hash a file in a stream; 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInfo:
    """What is known of an encoder without loading it.

    Parameters
    ----------
    n_layers
        Of all hidden states it has, not of those kept.
    frame_rate_hz
        Of the frames that are pooled.
    min_samples
        Shortest input.
    license_note, note, citation
        One sentence each, empty if there is nothing to say; ``note`` is what
        every table must say, as "random weights".
    """

    name: str
    sample_rate: int
    n_layers: int
    dim: int
    frame_rate_hz: float
    min_samples: int
    spec: EncoderSpec
    license_note: str = ""
    note: str = ""
    citation: str = ""


class Encoder(Protocol):
    """A loaded encoder that keeps some layers and poolings."""

    name: str
    sample_rate: int
    n_layers: int
    dim: int
    frame_rate_hz: float
    min_samples: int
    layers: tuple[int, ...]
    poolings: tuple[str, ...]

    def spec(self) -> EncoderSpec:
        """What identifies it; equal to its factory's ``describe(…).spec``."""
        ...

    def embed(self, waveforms: Waveforms) -> dict[str, np.ndarray]:
        """Encode a batch; pooling → (batch, n_layers kept, dim) float32."""
        ...


class EncoderFactory(Protocol):
    """What the registry names: describes an encoder cheaply and loads it."""

    name: str

    def describe(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        hash_file: Callable[[Path], str] = sha256_file,
    ) -> EncoderInfo:
        """Say what :meth:`load` would load, without weights in memory.

        Parameters
        ----------
        path
            Local folder of weights, for encoders that have any.
        hash_file
            Gives a weights file's sha256; a caller may remember hashes.
        """
        ...

    def load(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        device: str = "auto",
        layers: tuple[int, ...] | None = None,
        poolings: tuple[str, ...] = ("mean",),
        max_memory_bytes: int | None = None,
    ) -> Encoder:
        """Load it, keeping ``layers`` (all if None) and ``poolings``."""
        ...


def encoder_names() -> tuple[str, ...]:
    """Names that :func:`get_encoder` knows, built-in ones first."""
    others = {point.name for point in entry_points(group=ENTRY_POINTS)} - BUILT_IN.keys()
    return (*BUILT_IN, *sorted(others))


def get_encoder(name: str) -> EncoderFactory:
    """Find an encoder's factory; a built-in name cannot be taken by a plugin.

    Raises
    ------
    EncoderError
        If no encoder has this name, or its module cannot be imported.
    """
    if name in BUILT_IN:
        point = EntryPoint(name, BUILT_IN[name], ENTRY_POINTS)
    else:
        points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
        if name not in points:
            known = encoder_names()
            close = difflib.get_close_matches(name, known, n=1)
            raise EncoderError(
                f"no encoder is called {name!r}, expected one of {', '.join(known)}",
                hint=f"did you mean {close[0]!r}?"
                if close
                else f"a package registers its own under the entry-point group {ENTRY_POINTS!r}",
            )
        point = points[name]
    try:
        factory: EncoderFactory = point.load()
    except (ImportError, AttributeError) as error:
        raise EncoderError(
            f"encoder {name!r} cannot be loaded from {point.value!r}: {error}",
            hint=f"try: python -c 'import {point.module}'",
        ) from error
    return factory


def parse_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Read a value of ``--layers``: ``all`` or indices, negative from the end.

    Returns
    -------
    ascending, each once.

    Raises
    ------
    UsageError
        If a part is no index of a layer.

    Examples
    --------
    >>> parse_layers("0,6,-1", 13)
    (0, 6, 12)
    >>> parse_layers("all", 3)
    (0, 1, 2)
    """
    if text.strip().lower() == "all":
        return tuple(range(n_layers))
    try:
        indices = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"layers are {text!r}, expected 'all' or indices with commas",
            hint="for example --layers 6 or --layers 0,6,12",
        ) from None
    for index in indices:
        if not -n_layers <= index < n_layers:
            raise UsageError(
                f"layer is {index}, expected 0 to {n_layers - 1} or -{n_layers} to -1",
                hint="0 is the input of the first block, -1 the last; --layers all keeps every one",
            )
    return tuple(sorted({index % n_layers for index in indices}))


def kept_layers(layers: Sequence[int] | None, n_layers: int) -> tuple[int, ...]:
    """Check the layers an encoder is asked to keep, all of them if None.

    Raises
    ------
    EncoderError
        If they are not ascending indices below ``n_layers``, each once.
    """
    if layers is None:
        return tuple(range(n_layers))
    kept = tuple(layers)
    if not kept or list(kept) != sorted(set(kept) & set(range(n_layers))):
        raise EncoderError(
            f"layers are {kept!r}, expected ascending indices from 0 to {n_layers - 1}, each once",
            hint="parse_layers turns what a user writes into this form",
        )
    return kept


def kept_poolings(poolings: Sequence[str]) -> tuple[str, ...]:
    """Check the poolings an encoder is asked for.

    Raises
    ------
    EncoderError
        If they are not some of ``mean, max, std`` in this order.
    """
    kept = tuple(poolings)
    if not kept or list(kept) != [name for name in POOLINGS if name in kept]:
        raise EncoderError(
            f"poolings are {kept!r}, expected some of {', '.join(POOLINGS)}, in this order",
            hint="frame-level output is not offered",
        )
    return kept


def check_waveforms(waveforms: Waveforms, encoder: Encoder) -> None:
    """Refuse a batch that would give wrong numbers; every encoder calls this.

    Raises
    ------
    EncoderError
        If shape or dtype is wrong, items are shorter than the encoder's shortest
        input, or a sample is not finite.
    """
    found = f"{type(waveforms).__name__}"
    if isinstance(waveforms, np.ndarray):
        found = f"{waveforms.dtype} of shape {waveforms.shape}"
        if waveforms.ndim == 2 and len(waveforms) and waveforms.dtype == np.float32:
            found = ""
    if found:
        raise EncoderError(
            f"{encoder.name} was given {found}, expected float32 of shape (batch, n_samples)",
            hint="one mono track is waveform[None, :].astype('float32')",
        )
    if waveforms.shape[1] < encoder.min_samples:
        raise EncoderError(
            f"{encoder.name} was given {waveforms.shape[1]} samples, expected at least "
            f"{encoder.min_samples} at {encoder.sample_rate} Hz",
            hint="cut tracks with segment_spec(…, min_samples=encoder.min_samples)",
        )
    if not np.isfinite(waveforms).all():
        bad = np.flatnonzero(~np.isfinite(waveforms).all(axis=1))
        raise EncoderError(
            f"{encoder.name} was given NaN or infinite samples in {len(bad)} of "
            f"{len(waveforms)} items, first at position {bad[0]}",
            hint="tune_cache.audio.decode refuses such files",
        )
