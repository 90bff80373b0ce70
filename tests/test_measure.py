from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from tune_cache.probes.measure import measured


def test_arrays_that_come_and_go_are_in_the_peak():
    with measured() as found:
        for _ in range(3):
            _ = np.ones(2**20)
    assert 8 * 2**20 <= found.peak_bytes < 17 * 2**20
    assert found.seconds > 0
    assert not tracemalloc.is_tracing()


def test_what_was_there_before_is_not_in_the_peak():
    before = np.ones(2**20)
    with measured() as found:
        _ = before[:10].copy()
    assert found.peak_bytes < 2**20


def test_somebody_else_s_tracing_is_left_alone():
    tracemalloc.start()
    try:
        with measured() as found:
            _ = np.ones(100)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
    assert math.isnan(found.peak_bytes)
    assert found.seconds > 0


def test_seconds_alone_cost_no_tracing():
    with measured(memory=False) as found:
        assert not tracemalloc.is_tracing()
    assert math.isnan(found.peak_bytes)


def test_an_error_ends_the_tracing_too():
    with pytest.raises(ZeroDivisionError), measured():
        _ = 1 / 0
    assert not tracemalloc.is_tracing()
