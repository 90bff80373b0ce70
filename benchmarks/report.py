"""The page of 500 cells and 5,000 tracks: how long it takes to draw, how large, how fast it opens.

::

    python benchmarks/report.py FOLDER [--rounds 7]

FOLDER gets the pages, which are kept. Needs a Chromium in the path. Writes its section of
RESULTS.md.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from page import machine, table, write_section

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
SIZES = ((18, 156), (100, 1000), (500, 5000))
BOUND_SECONDS, BOUND_BYTES = 2.0, 8_000_000
# navigation to the end of the script, and until what it changed is drawn
MOMENTS = """() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => {
  const it = performance.getEntriesByType("navigation")[0];
  done([it.loadEventEnd, performance.now()]);
})))"""
# units of the drawing
DOT = "JSON.parse(document.getElementById('page-data').textContent).maps[0].points.PCA.slice(0, 2)"


def make(folder: Path, n_cells: int, n_tracks: int) -> tuple[Path, float]:
    """Draw one page; seconds are of the drawing alone."""
    from page_world import content_of

    from tune_cache.reports.page.render import render_page

    content = content_of(n_cells, n_tracks)
    started = time.perf_counter()
    text = render_page(content)
    seconds = time.perf_counter() - started
    path = folder / f"page-{n_cells}-{n_tracks}.html"
    path.write_text(text, "utf-8")
    return path, seconds


def opening(browser: Any, path: Path, width: int) -> tuple[list[float], float]:
    """Seconds to the moments of one opening in a fresh profile, and of a click on the map."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri())
    moments = [value / 1000 for value in page.evaluate(MOMENTS)]
    svg = page.locator(".map-of svg.map").first
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    x, y = page.evaluate(DOT)
    scale = box["width"] / 480
    started = time.perf_counter()
    page.mouse.click(box["x"] + x * scale, box["y"] + y * scale)
    page.locator(".found h4").wait_for()
    click = time.perf_counter() - started
    context.close()
    return moments, click


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no Chromium in the path")
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for n_cells, n_tracks in SIZES:
            path, seconds = make(arguments.folder, n_cells, n_tracks)
            opening(browser, path, 1280)  # the first reads the browser's own files
            for width in (1280, 390):
                found = [opening(browser, path, width) for _ in range(arguments.rounds)]
                moments = [statistics.median(m[i] for m, _ in found) for i in range(2)]
                worst = max(m[1] for m, _ in found)
                click = statistics.median(c for _, c in found)
                rows.append(
                    (
                        f"{n_cells} cells, {n_tracks:,} tracks, {width} px",
                        f"{path.stat().st_size / 1e6:.2f}",
                        f"{seconds:.2f}",
                        *(f"{value:.2f}" for value in (*moments, worst)),
                        f"{click:.2f}",
                    )
                )
        version = browser.version
        browser.close()
    header = (
        "page",
        f"MB (bound < {BOUND_BYTES / 1e6:g})",
        "drawn in s",
        "loaded s",
        f"usable s (bound < {BOUND_SECONDS:g})",
        "the slowest s",
        "click s",
    )
    body = [
        "`benchmarks/report.py`, `make bench-report`. Made-up results, a browser without a window.",
        machine(f"Chromium {version}", f"medians of {arguments.rounds} openings in fresh profiles"),
        "Usable is when the script has run and what it changed is drawn, from the start of the "
        "navigation; a click is from the mouse to the details of a track.",
        table(header, rows),
    ]
    write_section("The page", "\n\n".join(body))


if __name__ == "__main__":
    main()
