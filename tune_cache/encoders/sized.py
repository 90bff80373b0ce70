"""What an encoder may have besides, so that its memory is known and batches are made to fit.

Conventions
-----------
Bytes, of one device. ``n_samples`` is the length of every item of a batch. An
encoder or a factory that lacks these works as well: its batches go by length
alone, and no budget can be set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["MemoryModel", "SizedEncoder", "SizedFactory"]


@runtime_checkable
class MemoryModel(Protocol):
    """Predicts what an encoder takes, without loading it."""

    @property
    def max_memory_bytes(self) -> int | None:
        """Budget above the weights, None for whatever is fastest."""
        ...

    @property
    def weights_bytes(self) -> int:
        """Of the tensors that stay loaded."""
        ...

    def peak_bytes(self, n_items: int, n_samples: int) -> int:
        """Predict what embedding a batch holds above the weights.

        A batch for which this is more than ``max_memory_bytes`` is too large.

        Raises
        ------
        EncoderError
            If no batch is small enough.
        """
        ...

    def grain(self, n_samples: int) -> int:
        """Items that share arithmetic: batches in multiples of it give the same bits."""
        ...

    def pieces(self, n_items: int, n_samples: int) -> dict[str, int]:
        """Name the sizes that a batch is taken apart into, for tables."""
        ...


@runtime_checkable
class SizedEncoder(Protocol):
    """What an encoder may have besides, so that batches are made to fit; see MemoryModel."""

    @property
    def max_memory_bytes(self) -> int | None:
        """Budget above the weights, None for whatever is fastest."""
        ...

    def peak_bytes(self, n_items: int, n_samples: int) -> int:
        """Predict what embedding a batch holds above the weights."""
        ...

    def grain(self, n_samples: int) -> int:
        """Items that share arithmetic: batches in multiples of it give the same bits."""
        ...

    def free_bytes(self) -> int | None:
        """Memory that is left on its device, None where that cannot be told."""
        ...


@runtime_checkable
class SizedFactory(Protocol):
    """What a factory may have besides, so that memory is known before loading."""

    def memory(
        self,
        *,
        path: Path | None = None,
        precision: str = "fp32",
        device: str = "cpu",
        layers: tuple[int, ...] | None = None,
        max_memory_bytes: int | None = None,
    ) -> MemoryModel:
        """Predict the memory of what :meth:`EncoderFactory.load` would load."""
        ...
