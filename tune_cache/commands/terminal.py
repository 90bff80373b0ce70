"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from tune_cache.cache.work import Progress
from tune_cache.datasets.demo import DemoProgress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

__all__ = ["ExtractProgress", "ReadingProgress", "render_progress", "say"]

LINE_EVERY_SECONDS = 15.0


def say(text: str) -> None:
    """Write one line for the person at the terminal, never mixed into results."""
    sys.stderr.write(text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n")
    sys.stderr.flush()


def render_progress(event: DemoProgress) -> None:
    """Tell of the rendering of the demo at its beginning and at its end."""
    if event.n_done in (1, event.n_tracks):
        say(f"composed and rendered {event.n_done} of {event.n_tracks} demo tracks")


class ExtractProgress:
    """Draws the progress of stage one; use as a context manager and call with events."""

    def __init__(self) -> None:
        self._bar: tuple[Bar, TaskID] | None = None
        self._began = time.monotonic()
        self._told = self._began

    def __enter__(self) -> ExtractProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar[0].stop()

    def __call__(self, event: Progress) -> None:
        """Show one event."""
        if event.stage != "encode" or event.total <= 0:
            return
        now = time.monotonic()
        if event.done == 0:
            self._began = now
        speed = event.done / max(now - self._began, 1e-9)
        if sys.stderr.isatty():
            self._draw(event, speed)
        elif now - self._told >= LINE_EVERY_SECONDS:
            self._told = now
            left = (event.total - event.done) / speed if speed else 0.0
            say(
                f"encoded {event.done / 60:.0f} of {event.total / 60:.0f} min of audio, "
                f"{speed:.0f} × real time, {left:.0f} s left"
            )

    def _draw(self, event: Progress, speed: float) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            bar = Bar(
                TextColumn("encoding"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TextColumn("{task.fields[speed]:.0f} × real time"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar = bar, bar.add_task("encode", total=event.total, speed=0.0)
            bar.start()
        self._bar[0].update(self._bar[1], completed=event.done, speed=speed)


class ReadingProgress:
    """Says now and then how much was read of stores; call with bytes read since."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._n_bytes = 0

    def __call__(self, n_bytes: int) -> None:
        """Count, and speak if it has been long."""
        self._n_bytes += n_bytes
        now = time.monotonic()
        if now - self._told >= LINE_EVERY_SECONDS:
            self._told = now
            speed = self._n_bytes / 1e6 / (now - self._began)
            say(f"read {self._n_bytes / 1e9:.1f} GB, {speed:.0f} MB/s")
