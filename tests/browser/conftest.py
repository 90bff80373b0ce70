"""A browser for the page: Debian's Chromium, driven by Playwright, which downloads none here.

Without a Chromium in the path (``TUNE_CHROMIUM`` names another) these tests skip and say so.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome")
TALLEST = 8000  # that Chromium draws in one picture


@pytest.fixture(scope="session")
def chromium():
    """A running browser."""
    found = os.environ.get("TUNE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: `apt-get install chromium`, or set TUNE_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # root has no sandbox in a container; the pages are our own
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=flags)
        yield browser
        browser.close()


@dataclass
class Seen:
    """An opened page, and what happened that should not."""

    page: object
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def assert_quiet(self):
        """No error on the console, no request but for the file itself."""
        assert self.errors == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []
        assert sum(url.startswith("file:") for url in self.requests) == 1

    def look(self, width, scheme):
        """The same page on another screen."""
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme=scheme)

    def screenshot(self, name):
        """Keep pictures of the whole page in the ignored folder, in pieces of what can be drawn."""
        SCREENSHOTS.mkdir(exist_ok=True)
        size = self.page.viewport_size
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for number, top in enumerate(range(0, height, TALLEST)):
            piece = {"x": 0, "y": top, "width": size["width"], "height": min(TALLEST, height - top)}
            self.page.screenshot(
                path=SCREENSHOTS / f"{name}-{number}.png", clip=piece, full_page=True
            )


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens a page's text, or a file, and listens."""
    contexts = []

    def open_it(source, *, width=1280, scheme="light", **settings):
        path = source
        if not isinstance(source, Path):
            path = tmp_path / f"page{len(contexts)}.html"
            path.write_text(source, "utf-8")
        context = chromium.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            offline=True,
            **settings,
        )
        contexts.append(context)
        seen = Seen(context.new_page())
        seen.page.on("console", lambda message: message.type in ("error", "warning")
                     and seen.errors.append(message.text))  # fmt: skip
        seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
        seen.page.on("dialog", lambda dialog: seen.errors.append(dialog.message))
        seen.page.on("request", lambda request: seen.requests.append(request.url))
        seen.page.goto(path.as_uri())
        return seen

    yield open_it
    for context in contexts:
        context.close()
