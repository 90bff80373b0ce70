"""The page that every benchmark writes its section of, and the machine it ran on.

Conventions
-----------
A section is all that a script measured in one run: figures of two sections were
measured at different times and are not divided by one another.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["PAGE", "Server", "machine", "table", "write_section"]

PAGE = Path(__file__).parent / "RESULTS.md"
TITLE = """# Measured

Each section is written by the script it names, from one run of it; ratios are of minima over
interleaved rounds. Run a `make bench-…` target to replace a section by your machine's.
"""
PACKAGES = ("torch", "transformers", "muq", "zarr", "numpy", "scikit-learn", "h5py", "soundfile")


def write_section(name: str, body: str, *, page: Path = PAGE) -> None:
    """Put a section in the place of the one of that name, or at the end.

    Parameters
    ----------
    name
        Its heading, and what it is found by.
    body
        Markdown without a heading of the second level.
    """
    text = page.read_text("utf-8") if page.exists() else TITLE
    section = f"## {name}\n\n{body.strip()}\n"
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    for index, part in enumerate(parts):
        if part.startswith(f"## {name}\n"):
            parts[index] = section + "\n"
            break
    else:
        parts[-1] = parts[-1].rstrip("\n") + "\n\n"
        parts.append(section)
    page.write_text("".join(parts).rstrip("\n") + "\n", "utf-8")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out a Markdown table; text to the left, the rest to the right."""
    lines = [list(map(str, row)) for row in rows]
    left = [index == 0 for index in range(len(header))]
    rule = ["---" if is_left else "---:" for is_left in left]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (list(header), rule, *lines))


def machine(*extra: str) -> str:
    """Say where and when, in a paragraph."""
    model = platform.processor() or platform.machine()
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text("utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            if key.strip() == "flags":
                flags = set(value.split())
    matrix = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    facts = [
        f"{os.cpu_count()} cores of {model} ({', '.join(matrix)}), {memory_gib:.0f} GiB",
        "no GPU" if not Path("/proc/driver/nvidia").exists() else "with a GPU",
        f"Python {platform.python_version()}, {', '.join(found)}",
        *extra,
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
    ]
    return "Measured on " + "; ".join(facts) + "."


class Server:
    """A process that says ``ready``, then answers JSON lines: two programs can take turns."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        while self._line().strip() != "ready":  # libraries chat on the way
            pass

    def ask(self, **request: Any) -> Any:
        """Send a request and wait for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args!r} ended with {self._process.wait()}")
        return line
