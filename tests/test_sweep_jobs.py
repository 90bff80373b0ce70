"""How many processes a sweep takes where there is a GPU, by what its cells train."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cache.commands import sweep_jobs
from tune_cache.commands.sweep_jobs import jobs_of
from tune_cache.probes.sources import Source
from tune_cache.probes.sweep import Cell
from tune_cache.probes.unlabelled import Training


def cell(**changed):
    source = Source(stores=(Path("s"),), task="t")
    usual = {"source": source, "aggregation": "mean", "probe": "ridge", "layer": "6", "seed": 1}
    return Cell(**usual | changed)


TRAINS = [
    {"probe": "mlp"},
    {"aggregation": "attention", "probe": "linear"},
    {"aggregation": "transformer"},
    {"layer": "mix", "probe": "linear"},
]


@pytest.mark.parametrize("changed", TRAINS, ids=str)
def test_what_is_trained_on_a_gpu_is_trained_by_one_process(monkeypatch, caplog, changed):
    groups = [[cell()], [cell(**changed)], [cell()]]
    for device, n_jobs in (("cpu", 3), ("cuda", 1)):
        assert caplog.text == ""
        monkeypatch.setattr(sweep_jobs, "likely_device", lambda name, device=device: device)
        assert jobs_of(3, [[cell()]] * 3) == 3
        assert jobs_of(None, groups) == 1
        assert jobs_of(3, groups) == n_jobs
    assert "one process instead of 3" in caplog.text


@pytest.mark.parametrize("changed", TRAINS, ids=str)
def test_the_device_that_was_asked_for_decides(monkeypatch, changed):
    monkeypatch.setattr(
        sweep_jobs, "likely_device", lambda name: "cuda:0" if name == "auto" else name
    )
    for device, n_jobs in (("auto", 1), ("cuda:1", 1), ("cpu", 3)):
        groups = [[cell(**changed, training=Training(device=device))]] * 3
        assert jobs_of(3, groups) == n_jobs


def test_without_a_driver_torch_is_not_asked(monkeypatch):
    monkeypatch.setattr("tune_cache.encoders.available._has_cuda", lambda: False)
    assert jobs_of(2, [[cell(probe="mlp")]] * 2) == 2
    asked = []
    monkeypatch.setattr(sweep_jobs, "likely_device", asked.append)
    assert jobs_of(2, [[cell()]] * 2) == 2
    assert asked == []  # nothing is trained
