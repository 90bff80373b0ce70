"""How much memory a device has left.

Conventions
-----------
Bytes, None where nothing tells. On the CPU what the system says is available,
or what the control group of this process may still take if that is less: in a
container or a job of a cluster the limit is the group's, not the machine's. On
CUDA what the driver has and what torch holds without using it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_bytes", "free_host_bytes", "likely_device"]

# what the drivers of NVIDIA, of Windows' Linux and of AMD leave behind
DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/dxg"), Path("/dev/kfd"))
UNLIMITED = 1 << 60  # cgroup v1 writes its largest number of pages for "no limit"


def likely_device(name: str) -> str:
    """Resolve ``auto`` to ``cuda`` or ``cpu``; torch is loaded only where a driver is seen."""
    if name != "auto":
        return name
    return "cuda" if _has_cuda() else "cpu"


def _has_cuda() -> bool:
    if "torch" not in sys.modules and not any(driver.exists() for driver in DRIVERS):
        return False  # not worth the seconds that torch takes to load
    import torch

    return bool(torch.cuda.is_available())


def free_bytes(device: str) -> int | None:
    """Memory left on ``cpu`` or ``cuda[:N]``; of a GPU that is not here nothing is known."""
    if not device.startswith("cuda"):
        return free_host_bytes()
    if not _has_cuda():
        return None
    import torch

    if int(device.partition(":")[2] or "0") >= torch.cuda.device_count():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free + cached)


def free_host_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process may still take.

    Parameters
    ----------
    root
        Instead of the file system's, for tests.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", _read(root / "proc/meminfo"), re.MULTILINE)
    left = [int(found[1]) * 1024] if found else []
    return min([*left, *_group_bytes(root)], default=None)


def _group_bytes(root: Path) -> Iterator[int]:
    """What each limited control group above this process has left (v2 and v1)."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)
        if len(fields) < 3:
            continue
        _, controllers, path = fields
        if controllers == "":
            mount, limit, used, cached = "", "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        top = root / "sys/fs/cgroup" / mount
        folder = top / path.lstrip("/")
        # inside a container the group's own folder is the mount itself
        for place in (folder, *folder.parents):
            if not place.is_relative_to(top):
                break
            most, taken = _read(place / limit).strip(), _read(place / used).strip()
            if most.isdecimal() and taken.isdecimal() and int(most) < UNLIMITED:
                # pages of files that were read lately are dropped when memory is short
                found = re.search(rf"^{cached} (\d+)$", _read(place / "memory.stat"), re.MULTILINE)
                yield max(0, int(most) - int(taken) + (int(found[1]) if found else 0))


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
