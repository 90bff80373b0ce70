"""``tune demo``: the whole tool once, on music that the tool composes itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tune_cache.cache.work import Progress
from tune_cache.commands.context import Length, open_context
from tune_cache.commands.extract import ExtractReport, extract
from tune_cache.commands.probe import ProbeReport, probe
from tune_cache.commands.report import report
from tune_cache.datasets.base import Dataset
from tune_cache.datasets.demo import DemoProgress, ensure_demo
from tune_cache.encoders.base import EncoderInfo

__all__ = ["DEMO_AGGREGATIONS", "DEMO_ENCODERS", "DEMO_LENGTHS", "DemoReport", "demo"]

DEMO_ENCODERS = ("muq-nano", "mel")
DEMO_LENGTHS: tuple[Length, ...] = (10.0, 30.0, "full")
DEMO_AGGREGATIONS = ("mean", "max", "concat")
DEMO_PAGE = "demo-report.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """What the demo made.

    Parameters
    ----------
    folder
        The demo dataset.
    extracts, probes
        One an encoder.
    results
        The database with all results.
    page
        All of it in one file, to be opened in a browser.
    """

    folder: Path
    extracts: tuple[ExtractReport, ...]
    probes: tuple[ProbeReport, ...]
    results: Path
    page: Path


def demo(
    *,
    cache_dir: Path | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[Dataset, EncoderInfo | None], None] | None = None,
    on_render: Callable[[DemoProgress], None] | None = None,
) -> DemoReport:
    """Compose the demo dataset, encode it, probe it, and write a page of what was found.

    Parameters
    ----------
    on_progress, on_start
        As for :func:`~tune_cache.commands.extract.extract`.
    on_render
        Called with each track rendered.
    """
    layout = open_context(cache_dir).layout
    layout.prepare()
    folder = ensure_demo(layout.datasets, on_progress=on_render)
    extracts, probes = [], []
    for encoder in DEMO_ENCODERS:
        extracts.append(
            extract(
                "demo",
                encoder=encoder,
                seg=DEMO_LENGTHS,
                cache_dir=cache_dir,
                on_progress=on_progress,
                on_start=on_start,
            )
        )
        probes.append(
            probe(
                "demo",
                encoder=encoder,
                seg=DEMO_LENGTHS,
                agg=DEMO_AGGREGATIONS,
                cache_dir=cache_dir,
            )
        )
    page = layout.root / DEMO_PAGE
    report("demo", html=page, cache_dir=cache_dir)
    return DemoReport(
        folder=folder,
        extracts=tuple(extracts),
        probes=tuple(probes),
        results=layout.results_db,
        page=page,
    )
