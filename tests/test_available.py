"""Memory that is left, as files of the kernel tell it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tune_cache.encoders import available
from tune_cache.encoders.available import free_bytes, free_host_bytes, likely_device

MB = 1_000_000
ROOT = 9_223_372_036_854_771_712  # what cgroup v1 says where there is no limit


@pytest.fixture
def machine(tmp_path):
    """Write files below a root of their own."""

    def write(**files: object) -> Path:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    write(proc__meminfo=f"MemTotal: 99 kB\nMemAvailable:   {800 * MB // 1000} kB\nSwapFree: 7 kB\n")
    return lambda files, group: free_host_bytes(
        write(proc__self__cgroup=group, **{f"sys__fs__cgroup__{k}": v for k, v in files})
    )


def test_without_groups_it_is_what_the_system_has(machine):
    # kilobytes of the kernel are 1,024 bytes
    assert machine([], "") == 800 * MB // 1000 * 1024
    assert machine([], "nonsense\n0::") == 800 * MB // 1000 * 1024


def test_a_limit_of_the_group_counts_if_it_is_lower(machine):
    files = [
        ("job__memory.max", 500 * MB),
        ("job__memory.current", 450 * MB),
        ("job__memory.stat", f"anon 7\ninactive_file {20 * MB}\n"),
    ]
    assert machine(files, "0::/job\n") == 70 * MB
    assert machine([("job__memory.max", "max")], "0::/job\n") == 800 * MB // 1000 * 1024
    assert machine([("job__memory.max", 10 * MB)], "0::/job\n") == 0  # it may be over its limit


def test_a_limit_of_a_group_above_counts_as_well(machine):
    files = [
        ("slice__memory.max", 300 * MB),
        ("slice__memory.current", 100 * MB),
        ("slice__job__memory.max", "max"),
        ("slice__job__memory.current", 100 * MB),
    ]
    assert machine(files, "0::/slice/job\n") == 200 * MB


def test_the_first_version_of_groups_is_understood_too(machine):
    files = [
        ("memory__job__memory.limit_in_bytes", 400 * MB),
        ("memory__job__memory.usage_in_bytes", 100 * MB),
        ("memory__job__memory.stat", f"inactive_file 1\ntotal_inactive_file {30 * MB}\n"),
        ("memory__memory.limit_in_bytes", ROOT),
        ("memory__memory.usage_in_bytes", 100 * MB),
        ("cpu__job__memory.limit_in_bytes", 1),
    ]
    assert machine(files, "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n") == 330 * MB


def test_inside_a_container_the_mount_is_the_group(machine):
    files = [("memory.max", 60 * MB), ("memory.current", 10 * MB)]
    assert machine(files, "0::/a/name/of/the/host\n") == 50 * MB


def test_a_system_without_such_files_tells_nothing(tmp_path):
    assert free_host_bytes(tmp_path) is None


def test_this_machine_tells():
    assert free_bytes("cpu") == pytest.approx(free_host_bytes(), rel=0.5)
    assert free_bytes("cpu") > 0


def test_auto_is_the_cpu_where_there_is_no_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(available, "DRIVERS", (tmp_path / "driver",))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = set(sys.modules)
    assert [likely_device(name) for name in ("auto", "cpu", "cuda:1")] == ["cpu", "cpu", "cuda:1"]
    assert free_bytes("cuda:1") is None
    assert set(sys.modules) == before  # torch was not loaded for it


def test_torch_is_asked_where_it_is_loaded_though_no_driver_is_seen(monkeypatch, tmp_path):
    cuda = SimpleNamespace(is_available=lambda: True)
    monkeypatch.setattr(available, "DRIVERS", (tmp_path / "driver",))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert likely_device("auto") == "cuda"


def test_auto_is_a_gpu_where_torch_sees_one(monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(available, "DRIVERS", (tmp_path,))
    for seen, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda seen=seen: seen)
        assert likely_device("auto") == name
    assert free_bytes("cuda") is None
    # of what the driver has lent to torch, what no tensor uses is free as well
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert free_bytes("cuda") == free_bytes("cuda:1") == 700
    assert free_bytes("cuda:2") is None  # of another machine, for which it is estimated
