"""Which MuQ a folder holds: the numbers of its ``config.json`` that our forward reads.

Conventions
-----------
The file is the one that ``MuQ.save_pretrained`` writes. Keys that cannot change
a hidden state (targets, codebooks, masking, dropout) are ignored, so that two
releases of one model have one hash; a key that asks for something our forward
does not do is an error, never a guess.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tune_cache.errors import EncoderError
from tune_cache.specs import canonical_json, sha256_text

__all__ = [
    "FRAME_RATE_HZ",
    "HOP_SAMPLES",
    "MIN_SAMPLES",
    "N_FFT",
    "N_FOLD",
    "N_MELS",
    "SAMPLE_RATE",
    "MuqConfig",
    "n_frames_of",
]

SAMPLE_RATE = 24_000
N_FFT = 2048
HOP_SAMPLES = 240
N_MELS = 128
N_FOLD = 4  # mel frames per frame
FRAME_RATE_HZ = SAMPLE_RATE / HOP_SAMPLES / N_FOLD
MIN_SAMPLES = N_FFT // 2 + 1  # the shortest that can be reflected at both ends
LONGEST_CONFIG_BYTES = 1 << 20
# what MuQConfig takes for a key that is not there
DEFAULTS = {"conv_dim": 512, "encoder_dim": 1024, "encoder_depth": 12}
FIXED = {
    "label_rate": 25,
    "hop_length": HOP_SAMPLES,
    "n_mels": N_MELS,
    "features": ["melspec_2048"],
}


def n_frames_of(n_samples: int) -> int:
    """Count the frames of an input.

    Examples
    --------
    >>> n_frames_of(MIN_SAMPLES), n_frames_of(10 * SAMPLE_RATE)
    (1, 250)
    """
    return -(-(n_samples // HOP_SAMPLES) // N_FOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class MuqConfig:
    """Shape and constants of one MuQ.

    Parameters
    ----------
    conv_dim
        Channels of the front end.
    dim
        Of a hidden state.
    kernel
        Of the depthwise convolution, in frames; odd.
    norm_epsilon
        Of the norm after the last block; the others have 1e-5.
    mel_mean, mel_std
        Of the training data, in decibel.
    """

    conv_dim: int
    dim: int
    n_blocks: int
    n_heads: int
    ffn_dim: int
    kernel: int
    rotary_base: float
    norm_epsilon: float
    mel_mean: float
    mel_std: float

    @property
    def n_layers(self) -> int:
        """Hidden states: the input of the first block and each block's output."""
        return self.n_blocks + 1

    @property
    def head_dim(self) -> int:
        """Dimensions of an attention head."""
        return self.dim // self.n_heads

    @property
    def sha256(self) -> str:
        """Hash of all fields in canonical JSON."""
        return sha256_text(canonical_json(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> MuqConfig:
        """Read a ``config.json``.

        Raises
        ------
        EncoderError
            If it cannot be read, is no JSON object, or describes no MuQ that we run.
        """
        try:
            if path.stat().st_size > LONGEST_CONFIG_BYTES:
                raise ValueError("longer than a megabyte")
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise EncoderError(
                f"{str(path)!r} cannot be read as JSON: {error}",
                hint="take config.json from the folder that the weights came in",
            ) from error
        return cls.from_json(value, where=str(path))

    @classmethod
    def from_json(cls, value: object, *, where: str) -> MuqConfig:
        """Check the parsed ``config.json``; ``where`` is named in errors.

        Raises
        ------
        EncoderError
            At the first key that is missing, of a wrong type, or not supported.
        """
        top = _Section(value, where, "")
        conformer = _Section(top.get("w2v2_config"), where, "w2v2_config.")
        statistics = _Section(top.get("stat"), where, "stat.")
        for key, expected in FIXED.items():
            if top.get(key, expected) != expected:
                top.refuse(key, repr(expected))
        if conformer.get("position_embeddings_type") != "rotary":
            conformer.refuse("position_embeddings_type", "'rotary'")
        if conformer.get("hidden_act") not in ("swish", "silu"):
            conformer.refuse("hidden_act", "'swish'")
        config = cls(
            conv_dim=top.count("conv_dim"),
            dim=top.count("encoder_dim"),
            n_blocks=top.count("encoder_depth"),
            n_heads=conformer.count("num_attention_heads"),
            ffn_dim=conformer.count("intermediate_size"),
            kernel=conformer.count("conv_depthwise_kernel_size"),
            rotary_base=conformer.number("rotary_embedding_base"),
            norm_epsilon=conformer.number("layer_norm_eps"),
            mel_mean=statistics.number("melspec_2048_mean", positive=False),
            mel_std=statistics.number("melspec_2048_std"),
        )
        if config.dim % (2 * config.n_heads):
            conformer.refuse("num_attention_heads", f"a divisor of {config.dim} / 2")
        if config.kernel % 2 == 0:
            conformer.refuse("conv_depthwise_kernel_size", "an odd number")
        return config


class _Section:
    """An object of the file, with errors that name file and key."""

    def __init__(self, value: object, where: str, prefix: str) -> None:
        self.where = where
        self.prefix = prefix
        self.values: Mapping[str, Any] = {}
        if not isinstance(value, Mapping):
            self._raise(f"{prefix[:-1] or 'the file'!r} is {value!r:.40}", "an object")
        self.values = value

    def get(self, key: str, default: object = None) -> Any:
        return self.values.get(key, DEFAULTS.get(key, default))

    def refuse(self, key: str, expected: str) -> NoReturn:
        self._raise(f"{self.prefix + key!r} is {self.get(key)!r:.40}", expected)

    def count(self, key: str) -> int:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 20:
            self.refuse(key, "a positive integer")
        return value

    def number(self, key: str, *, positive: bool = True) -> float:
        value = self.get(key)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or (positive and value <= 0):
            self.refuse(key, "a positive number" if positive else "a number")
        return float(value)

    def _raise(self, found: str, expected: str) -> NoReturn:
        raise EncoderError(
            f"{self.where!r} describes no MuQ that can be run here: {found}, expected {expected}",
            hint="--encoder-path is the folder that MuQ.save_pretrained wrote, or a download of "
            "OpenMuQ/MuQ-large-msd-iter",
        )
