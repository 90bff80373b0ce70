"""Run the command line inside the test process: quick, and warnings are still errors."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_cache.cli import main


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def tune(folder: Path, *arguments: str) -> Done:
    """Run the command line in this process, as from a shell in a folder."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("TUNE_CACHE_DIR", raising=False)
        patch.delenv("TUNE_DATASET", raising=False)
        patch.setenv("XDG_CACHE_HOME", str(folder / "xdg"))
        patch.setattr(sys, "argv", ["tune", *arguments])
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Done(code, out.getvalue(), err.getvalue())
