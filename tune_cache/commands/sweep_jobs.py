"""How many processes a sweep works in: one, where a GPU trains.

Conventions
-----------
Each process that uses a GPU takes a context of some 500 MB on it before any tensor,
and the cells of one GPU wait for each other anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tune_cache.aggregation.registry import TRAINED
from tune_cache.encoders.available import likely_device
from tune_cache.probes.models import is_trained
from tune_cache.probes.sweep import Cell
from tune_cache.probes.workers import jobs_for
from tune_cache.probes.workshop import is_joint

__all__ = ["jobs_of", "trains_on_gpu"]

logger = logging.getLogger(__name__)


def jobs_of(asked: int | None, groups: Sequence[Sequence[Cell]]) -> int:
    """Number of processes for groups of cells, as :func:`~tune_cache.probes.workers.jobs_for`."""
    on_gpu = any(trains_on_gpu(cell) for group in groups for cell in group[:1])
    if on_gpu and asked is not None and asked > 1:
        logger.warning("one process instead of %d: a GPU trains, and its cells would wait", asked)
    return 1 if on_gpu else jobs_for(asked, len(groups))


def trains_on_gpu(cell: Cell) -> bool:
    """Whether something of a cell is trained, and ``auto`` or what was asked for is a GPU."""
    joint = is_joint(cell.aggregation, cell.aggregation_options, cell.layer)
    if cell.aggregation in TRAINED or joint or is_trained(cell.probe):
        return likely_device(cell.training.device).startswith("cuda")
    return False
