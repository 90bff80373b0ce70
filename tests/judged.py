"""Judged cells made by hand, for tests of figures and tables."""

from __future__ import annotations

import math

from test_advice import planted

from tune_cache.reports.cost import Costs
from tune_cache.reports.front import Candidate
from tune_cache.reports.series import JudgedCell

NAN = math.nan


def judged(
    name="mean", seg="10", test=0.5, *, val=None, costs=None, curve=(), others=(), **changed
):
    """One cell; what is not given is plain."""
    low, high = (test - 0.1, test + 0.1) if "test_low" not in changed else (NAN, NAN)
    row = {
        "dataset": "data", "task": "task", "encoder": "mel", "note": "", "seg": seg, "same_seg": [],
        "aggregation": name, "same_aggregation": [], "aggregation_options": {}, "probe": "ridge",
        "layer": "6", "layer_asked": "best", "seeds": [1234], "metric": "accuracy", "test": test,
        "test_low": low, "test_high": high, "val": test if val is None else val, "n_test": 100,
        "is_reference": False, "as_good": False, "margin": 0.02, "difference": -0.1,
        "difference_low": -0.2, "difference_high": 0.0, "flags": [], "warnings": [],
        "share_one_segment": 0.0,
    }  # fmt: skip
    result = planted(3, layer_curve=tuple(curve))
    scores = {**result.scores["test"], **dict(others)}
    result = type(result)(
        **{f: getattr(result, f) for f in result.__dataclass_fields__}
        | {"scores": {**result.scores, "test": scores}}
    )
    row |= changed
    if row["is_reference"]:
        row |= dict.fromkeys(("difference", "difference_low", "difference_high"))
    cell = Candidate(
        name=f"{seg} {name}",
        value=row["val"],
        costs=costs or Costs(memory_kind="vram", memory_bytes=1e9, seconds=9.0, disk_bytes=1e6),
        results=(result,),
    )
    return JudgedCell(cell=cell, row=row)
