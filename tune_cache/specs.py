"""What changes an embedding: frozen specs, their canonical text, and their hashes.

Conventions
-----------
A field stands here if and only if it can change the numbers of given audio.
Paths, devices, batch sizes, worker counts and package patch versions never do.
Lengths are integers in samples of the encoder's sample rate; 0 means "none"
(``length_samples=0`` is the whole track as one segment).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tune_cache.errors import StoreMismatchError, UsageError

__all__ = [
    "IMPORTED",
    "ChannelRule",
    "EncoderSpec",
    "GridRule",
    "SegmentSpec",
    "StoreSpec",
    "TailPolicy",
    "canonical_json",
    "collection_digest",
    "differing_fields",
    "is_imported",
    "sha256_text",
]

IMPORTED = "import:"  # begins the name of an encoder that only the importer vouches for

TailPolicy = Literal["keep", "drop", "pad"]
ChannelRule = Literal["mix", "first"]
GridRule = Literal["encoder", "file"]

TAILS = ("keep", "drop", "pad")
CHANNELS = ("mix", "first")
GRIDS = ("encoder", "file")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
POOLINGS = ("mean", "max", "std")
DTYPES = ("f2", "f4")


def canonical_json(value: object) -> str:
    """Write JSON in the one form that is hashed.

    Keys sorted, no spaces, no NaN, ASCII only.

    Examples
    --------
    >>> canonical_json({"b": 1, "a": [1.5, None]})
    '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def is_imported(encoder: str) -> bool:
    """Whether the vectors under an encoder's name were imported, and nothing here makes them.

    Examples
    --------
    >>> is_imported("import:clap"), is_imported("muq")
    (True, False)
    """
    return encoder.startswith(IMPORTED)


def sha256_text(text: str) -> str:
    """Hash a text as UTF-8; 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def collection_digest(audio: Iterable[tuple[str, str]]) -> str:
    """Hash which audio a store is about, whatever its labels, order and paths.

    Parameters
    ----------
    audio
        Pairs of track id and sha256 of the audio file; an empty sha256 stands
        for a file that could not be read.
    """
    return sha256_text(canonical_json([list(pair) for pair in sorted(audio)]))


def _require(condition: bool, subject: str, found: object, expected: str) -> None:
    if not condition:
        raise UsageError(f"{subject} is {found!r}, expected {expected}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSpec:
    """How a track is cut, in samples of ``sample_rate_hz``.

    Parameters
    ----------
    sample_rate_hz
        Of the grid, which is the encoder's.
    length_samples
        Of one segment; 0 takes the whole track as one.
    hop_samples
        From start to start; 0 with ``length_samples=0``.
    tail
        What becomes of the last, shorter segment: see :mod:`tune_cache.segments`.
    min_tail_samples
        Shortest tail that ``keep`` keeps (and, under ``pad``, that is padded).
    min_samples
        Shortest input the encoder takes; a track below it fails.
    grid
        ``encoder`` resamples a track and cuts it; ``file`` cuts it at its own rate,
        drops a tail that is a smaller share of a segment than ``min_tail_samples``,
        and resamples each piece by itself (MARBLE's slices).
    """

    sample_rate_hz: int
    length_samples: int
    hop_samples: int
    tail: TailPolicy = "keep"
    min_tail_samples: int = 0
    min_samples: int = 1
    grid: GridRule = "encoder"

    def __post_init__(self) -> None:
        _require(self.grid in GRIDS, "grid", self.grid, "encoder or file")
        _require(
            self.grid == "encoder" or (not self.is_full and self.tail == "pad"),
            "grid",
            self.grid,
            "'encoder' where segments are whole tracks or not padded",
        )
        _require(self.sample_rate_hz > 0, "sample rate", self.sample_rate_hz, "a positive integer")
        _require(self.tail in TAILS, "tail", self.tail, "one of " + ", ".join(TAILS))
        _require(self.length_samples >= 0, "segment length", self.length_samples, "0 or more")
        _require(
            (self.hop_samples > 0) == (self.length_samples > 0),
            "hop",
            self.hop_samples,
            "a positive number of samples (0 for whole tracks)",
        )
        _require(self.min_tail_samples >= 0, "shortest tail", self.min_tail_samples, "0 or more")
        _require(self.min_samples >= 1, "shortest input", self.min_samples, "1 or more")

    @property
    def is_full(self) -> bool:
        """Whether a track is one segment."""
        return self.length_samples == 0

    @property
    def length_seconds(self) -> float | None:
        """Segment length in seconds, None for whole tracks."""
        return None if self.is_full else self.length_samples / self.sample_rate_hz

    @property
    def slices(self) -> tuple[float, float] | None:
        """Seconds, and least share of a tail, that a file is cut by; None if it is not."""
        if self.grid == "encoder":
            return None
        return (
            self.length_samples / self.sample_rate_hz,
            self.min_tail_samples / self.length_samples,
        )

    @property
    def label(self) -> str:
        """Short name used in store names and tables.

        Examples
        --------
        >>> SegmentSpec(sample_rate_hz=100, length_samples=3020, hop_samples=3020).label
        '30.2'
        """
        seconds = self.length_seconds
        return "full" if seconds is None else f"{seconds:.6g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Which function turns samples into vectors.

    Parameters
    ----------
    name
        Registry name, as ``muq``.
    weights_sha256
        Hash of the weights file, empty for an encoder without weights.
    config_sha256
        Hash of the configuration in canonical JSON.
    precision
        Of the computation, not of what is stored.
    algorithm
        Version number of our own code for this encoder; raised whenever its
        output changes beyond rounding.
    """

    name: str
    weights_sha256: str
    config_sha256: str
    precision: str = "fp32"
    algorithm: int = 1

    def __post_init__(self) -> None:
        _require(
            self.precision in PRECISIONS,
            "precision",
            self.precision,
            "one of " + ", ".join(PRECISIONS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """Everything that decides the vectors of given audio; its hash names a store.

    Parameters
    ----------
    layers
        Indices of the hidden states kept, ascending.
    poolings
        Frame-to-segment poolings kept, in the order of ``mean, max, std``.
    dtype
        Stored type, ``f2`` or ``f4``.
    channels
        ``mix`` averages the channels, ``first`` takes the first.
    resampler, decoder
        Family and parameters, as :data:`tune_cache.audio.RESAMPLER` and
        :data:`tune_cache.audio.DECODER`.
    normalisation
        Of the amplitude; only ``none`` exists.
    """

    encoder: EncoderSpec
    segments: SegmentSpec
    layers: tuple[int, ...]
    poolings: tuple[str, ...] = ("mean",)
    dtype: str = "f2"
    channels: ChannelRule = "mix"
    resampler: str
    decoder: str
    normalisation: str = "none"

    def __post_init__(self) -> None:
        _require(bool(self.layers), "layers", self.layers, "at least one")
        _require(
            list(self.layers) == sorted(set(self.layers)) and self.layers[0] >= 0,
            "layers",
            self.layers,
            "ascending indices, each once",
        )
        _require(
            bool(self.poolings)
            and list(self.poolings) == [name for name in POOLINGS if name in self.poolings],
            "poolings",
            self.poolings,
            "some of " + ", ".join(POOLINGS) + ", in this order",
        )
        _require(self.dtype in DTYPES, "dtype", self.dtype, "f2 or f4")
        _require(self.channels in CHANNELS, "channels", self.channels, "mix or first")
        _require(self.normalisation == "none", "normalisation", self.normalisation, "'none'")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the text of which is hashed.

        What came after the first stores stands here only where it is used, so that
        their keys stay.
        """
        fields = dataclasses.asdict(self)
        if self.segments.grid == "encoder":
            del fields["segments"]["grid"]
        return json.loads(canonical_json(fields))  # type: ignore[no-any-return]  # json is untyped

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoreSpec:
        """Read back what :meth:`to_json` wrote.

        Raises
        ------
        StoreMismatchError
            If a field is missing or unknown: the store is from another version.
        """
        fields = dict(value)
        try:
            encoder = EncoderSpec(**fields.pop("encoder"))
            segments = SegmentSpec(**fields.pop("segments"))
            layers = tuple(fields.pop("layers"))
            poolings = tuple(fields.pop("poolings"))
            return cls(
                encoder=encoder, segments=segments, layers=layers, poolings=poolings, **fields
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise StoreMismatchError(
                f"spec cannot be read: {error}",
                hint="the store was written by another version of tune_cache",
            ) from error

    @property
    def key(self) -> str:
        """The ``spec_key``: sha256 of the canonical JSON."""
        return sha256_text(canonical_json(self.to_json()))


def differing_fields(
    expected: Mapping[str, Any], found: Mapping[str, Any], prefix: str = ""
) -> list[tuple[str, Any, Any]]:
    """List the fields in which two specs differ as (dotted name, expected, found).

    Examples
    --------
    >>> differing_fields({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    [('b.c', 2, 3)]
    """
    rows: list[tuple[str, Any, Any]] = []
    for name in sorted(expected.keys() | found.keys()):
        left, right = expected.get(name), found.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            rows += differing_fields(left, right, f"{prefix}{name}.")
        elif left != right:
            rows.append((f"{prefix}{name}", left, right))
    return rows
