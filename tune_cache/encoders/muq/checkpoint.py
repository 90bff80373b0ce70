"""Finds MuQ's weights and reads them: safetensors only, nothing is unpickled.

Conventions
-----------
A checkpoint is a folder with ``config.json`` and ``model.safetensors``, as
``MuQ.save_pretrained`` writes and the hub serves. Tensor names are those of the
``muq`` package. Every tensor that is read must exist, have the expected shape
and be finite: ``MuQ.from_pretrained`` fills what is missing with random numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cache.errors import EncoderError, first_few

if TYPE_CHECKING:
    import torch

__all__ = [
    "CONFIG_FILE",
    "HUB_NAME",
    "REVISION",
    "WEIGHTS_FILE",
    "WEIGHTS_SHA256",
    "Tensors",
    "find_published",
    "open_tensors",
    "weights_file",
]

HUB_NAME = "OpenMuQ/MuQ-large-msd-iter"
# Revision and hash as several public projects pin them; not downloaded where this was written.
REVISION = "0562a57814f6f8bbd9fdea0a25921a2fce1a841a"
WEIGHTS_SHA256 = "273febab2be02872c37d2c37e48a9d6c52c1c9392f3eeeabd498efa281ccb7a6"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
PATIENCE_SECONDS = 2.0
REMEDY = (
    f"download them once (hf download {HUB_NAME} --revision {REVISION}), set HF_HOME to where "
    "they are, or name their folder with --encoder-path; --encoder muq-nano needs no download"
)


def find_published() -> Path:
    """Find the published weights in the hub's local cache, else download them.

    The cache is asked first, for the pinned revision and then for whatever its
    ``main`` is; identity is the hash of the file either way. The network is
    tried only if the hub answers within two seconds and ``HF_HUB_OFFLINE`` is
    not set.

    Raises
    ------
    EncoderError
        If they are neither in the cache nor to be had.
    """
    try:
        from huggingface_hub import constants, snapshot_download, try_to_load_from_cache
    except ImportError as error:  # pragma: no cover  # a dependency of ours
        raise EncoderError(f"MuQ's weights cannot be looked up: {error}", hint=REMEDY) from error

    for revision in (REVISION, "main"):
        found = [
            try_to_load_from_cache(HUB_NAME, name, revision=revision)
            for name in (CONFIG_FILE, WEIGHTS_FILE)
        ]
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_hub_is_silent()
    if not reason:
        try:
            return Path(
                snapshot_download(
                    HUB_NAME, revision=REVISION, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE]
                )
            )
        except Exception as error:  # noqa: BLE001  # the hub's errors differ between its releases
            reason = _one_line(error)
    raise EncoderError(
        f"the weights of MuQ ({HUB_NAME!r}) are not in {str(constants.HF_HUB_CACHE)!r} "
        f"and cannot be downloaded: {reason}",
        hint=REMEDY,
    )


def _why_hub_is_silent() -> str:
    """Ask the hub for the file's size, once; empty if it answers, else the reason."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    outcome = [f"no answer within {PATIENCE_SECONDS:g} s"]

    def ask() -> None:
        try:
            url = hf_hub_url(HUB_NAME, WEIGHTS_FILE, revision=REVISION)
            get_hf_file_metadata(url, timeout=PATIENCE_SECONDS)
            outcome[0] = ""
        except Exception as error:  # noqa: BLE001  # whatever goes wrong, there is no network
            outcome[0] = _one_line(error)

    # a thread, because looking up a name has no time limit of its own
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return outcome[0]


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def weights_file(folder: Path) -> Path:
    """Name the weights in a local folder.

    Raises
    ------
    EncoderError
        If it is no folder, or holds no ``model.safetensors``.
    """
    path = folder / WEIGHTS_FILE
    if path.is_file():
        return path
    if not folder.is_dir():
        kind = "is no folder" if folder.exists() else "does not exist"
        raise EncoderError(
            f"{str(folder)!r} {kind}, expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint="--encoder-path is the folder that MuQ.save_pretrained wrote",
        )
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise EncoderError(
            f"{str(folder)!r} has weights only as pickles ({first_few(pickles)}), "
            f"expected {WEIGHTS_FILE}; a pickle can run any code",
            hint="load it where it is trusted, then MuQ.save_pretrained(folder) writes safetensors",
        )
    raise EncoderError(
        f"{str(folder)!r} holds no {WEIGHTS_FILE}, expected {CONFIG_FILE} and {WEIGHTS_FILE}",
        hint="--encoder-path is the folder that MuQ.save_pretrained wrote",
    )


class Tensors:
    """Reads tensors by name from an open file, as float32 on the CPU."""

    def __init__(self, file: Any, path: Path) -> None:
        self.file = file
        self.path = path
        self.names = frozenset(file.keys())

    def __contains__(self, name: str) -> bool:
        return f"model.{name}" in self.names

    def __call__(self, name: str, *shape: int) -> torch.Tensor:
        """Read one tensor of exactly this shape."""
        import torch

        if name not in self:
            raise self.error(f"has no tensor {'model.' + name!r}")
        tensor: torch.Tensor = self.file.get_tensor(f"model.{name}")
        if tuple(tensor.shape) != shape:
            raise self.error(
                f"has {'model.' + name!r} of shape {tuple(tensor.shape)}, "
                f"expected {shape} from {CONFIG_FILE}"
            )
        # a copy: a tensor that is still the file's keeps all of it mapped in memory
        tensor = tensor.to(torch.float32, copy=True)
        # a NaN is both least and greatest; half the time of looking at every element
        if not all(bool(torch.isfinite(extreme)) for extreme in tensor.aminmax()):
            raise self.error(f"has NaN or infinite values in {'model.' + name!r}")
        return tensor

    def norm(self, prefix: str, size: int, epsilon: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Read a batch normalisation as the scale and shift it is in evaluation mode."""
        import torch

        weight, bias, mean, variance = (
            self(prefix + name, size).to(torch.float64)
            for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / torch.sqrt(variance + epsilon)
        shift = bias - mean * scale
        if not bool(torch.isfinite(scale).all() and torch.isfinite(shift).all()):
            raise self.error(f"has a negative variance in {'model.' + prefix!r}")
        return scale.to(torch.float32), shift.to(torch.float32)

    def error(self, found: str) -> EncoderError:
        return EncoderError(
            f"{str(self.path)!r} {found}",
            hint="the file is damaged or of another model: download it again",
        )


@contextmanager
def open_tensors(path: Path) -> Iterator[Tensors]:
    """Open a safetensors file; tensors are read from it one at a time.

    Raises
    ------
    EncoderError
        If the file cannot be read, or is cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield Tensors(file, path)
    except (SafetensorError, OSError) as error:
        raise EncoderError(
            f"{str(path)!r} cannot be read as safetensors: {error}",
            hint="the file is damaged or of another kind: download it again",
        ) from error
