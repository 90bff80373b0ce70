"""MuQ, exact and lean: the published model, and one of its kind that ships with us.

Conventions
-----------
``muq`` is the published `OpenMuQ/MuQ-large-msd-iter`, from the hub's cache or a
local folder; ``muq-nano`` is the same class at a small size, its weights random
from a fixed seed (`tests/make_muq_nano.py`). :meth:`MuqFactory.describe`
reads the configuration and hashes the weights; torch is imported by ``load``.

References
----------
H. Zhu et al., "MuQ: Self-Supervised Music Representation Learning with Mel
Residual Vector Quantization", 2025, arXiv:2501.01108.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune_cache.encoders.base import Encoder, EncoderInfo, kept_layers, sha256_file
from tune_cache.encoders.muq.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_SHA256,
    find_published,
    weights_file,
)
from tune_cache.encoders.muq.config import FRAME_RATE_HZ, MIN_SAMPLES, SAMPLE_RATE, MuqConfig
from tune_cache.encoders.muq.memory import ITEM_BYTES, Memory
from tune_cache.errors import EncoderError
from tune_cache.specs import EncoderSpec

__all__ = ["ENCODER", "NANO", "MuqFactory"]

ALGORITHM = 1
CITATION = "Zhu et al., MuQ, arXiv:2501.01108 (2025)"
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")


@dataclass(frozen=True, slots=True, kw_only=True)
class MuqFactory:
    """Describes and loads :class:`~tune_cache.encoders.muq.encoder.MuqEncoder`.

    Parameters
    ----------
    find
        Gives the folder of the weights when the caller names none.
    known_sha256
        Of the weights that ``note`` and ``license_note`` are about; empty takes
        whatever ``find`` gives as such.
    """

    name: str
    find: Callable[[], Path]
    license_note: str
    note: str = ""
    known_sha256: str = ""

    def describe(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        hash_file: Callable[[Path], str] = sha256_file,
    ) -> EncoderInfo:
        """Say what :meth:`load` would load.

        Raises
        ------
        EncoderError
            If there are no weights, or their configuration is not MuQ's.
        """
        weights, config = self._open(path)
        spec = self._spec(weights, config, precision, hash_file)
        known = path is None if not self.known_sha256 else spec.weights_sha256 == self.known_sha256
        return EncoderInfo(
            name=self.name,
            sample_rate=SAMPLE_RATE,
            n_layers=config.n_layers,
            dim=config.dim,
            frame_rate_hz=FRAME_RATE_HZ,
            min_samples=MIN_SAMPLES,
            spec=spec,
            license_note=self.license_note,
            note=self.note if known else f"weights {spec.weights_sha256[:8]}, not the known ones",
            citation=CITATION,
        )

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
        """Load the weights down to the deepest layer kept.

        Parameters
        ----------
        max_memory_bytes
            What the forward pass may hold above the weights.

        Raises
        ------
        EncoderError
            If there are no weights, they are damaged or of another model, or device
            or precision is not to be had.
        """
        from tune_cache.encoders.muq.encoder import MuqEncoder, check_precision, find_device

        weights, config = self._open(path)
        where = find_device(device)
        check_precision(precision, where)
        return MuqEncoder(
            self.name,
            weights,
            config,
            lambda: self._spec(weights, config, precision, sha256_file),
            precision=precision,
            device=where,
            layers=layers,
            poolings=poolings,
            max_memory_bytes=max_memory_bytes,
        )

    def memory(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        device: str = "cpu",
        layers: tuple[int, ...] | None = None,
        max_memory_bytes: int | None = None,
    ) -> Memory:
        """Predict what :meth:`load` and ``embed`` take; reads the configuration only."""
        _, config = self._open(path)
        return Memory(
            config=config,
            n_blocks=kept_layers(layers, config.n_layers)[-1],
            itemsize=ITEM_BYTES[precision],
            on_cpu=device == "cpu",
            max_memory_bytes=max_memory_bytes,
        )

    def _open(self, path: Path | None) -> tuple[Path, MuqConfig]:
        folder = self.find() if path is None else Path(path)
        weights = weights_file(folder)
        return weights, MuqConfig.read(folder / CONFIG_FILE)

    def _spec(
        self, weights: Path, config: MuqConfig, precision: str, hash_file: Callable[[Path], str]
    ) -> EncoderSpec:
        if precision not in PRECISIONS:
            raise EncoderError(
                f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}",
                hint="fp32 is the reference",
            )
        return EncoderSpec(
            name=self.name,
            weights_sha256=hash_file(weights),
            config_sha256=config.sha256,
            precision=precision,
            algorithm=ALGORITHM,
        )


def _shipped() -> Path:
    return Path(__file__).parent.parent / "weights" / "muq-nano"


ENCODER = MuqFactory(
    name="muq",
    find=find_published,
    license_note="MuQ's published weights are CC BY-NC 4.0: not for commercial use, credit the "
    "authors; the embeddings are made with them",
    known_sha256=WEIGHTS_SHA256,
)
NANO = MuqFactory(
    name="muq-nano",
    find=_shipped,
    license_note="muq-nano's weights are random numbers of ours, MIT like the code",
    note="random weights",
)
