"""Pages in a browser: quiet, offline, sortable, clickable, readable by a screen reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import tune
from page_world import HOSTILE, content_of, hostile_content

from tune_cache.reports.page.render import render_page

pytestmark = pytest.mark.browser

LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
CONTENTS = {
    "hostile": hostile_content,
    "large": lambda: content_of(500, 5000),
    "undefined": lambda: content_of(9, 40, nan=True),
    "one-cell": lambda: content_of(1, 3),
    "no-results": lambda: content_of(0, 0, stores=(), splits={}, leaks={}),
    "regression": lambda: content_of(12, 80, kind="regression", weights=True),
    "tags": lambda: content_of(12, 80, kind="multilabel"),
}


@pytest.fixture(scope="session")
def texts():
    return {name: render_page(make()) for name, make in CONTENTS.items()}


@pytest.fixture(scope="session")
def real(subset, tmp_path_factory):
    """The page of the study's grid on real music, with the encoder that needs no weights."""
    folder = tmp_path_factory.mktemp("real")
    shared = [str(subset / "soundtrack"), "--cache-dir", str(folder / "cache")]
    grid = ["--preset", "tune-paper", "--encoder", "mel", "--extract-missing"]
    grid += ["--agg", "concat", "--agg", "mean", "--agg", "max"]  # nothing to be trained: minutes
    for arguments in (["sweep", *shared, *grid], ["report", *shared, "--html", "page.html"]):
        done = tune(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder / "page.html"


def axe(page):
    """What axe-core calls serious or critical."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
    page.evaluate(script)  # in the page's world, past its policy
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        (item["id"], item["nodes"][0]["html"][:200], item["nodes"][0].get("failureSummary", ""))
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
    ]


def assert_fits(page):
    """The page itself never scrolls sideways; its tables do, in boxes of their own."""
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("name", CONTENTS)
def test_a_page_is_quiet_stays_at_home_and_fits(opened, texts, name):
    seen = opened(texts[name])
    for width, scheme in LOOKS:
        seen.look(width, scheme)
        assert_fits(seen.page)
        seen.screenshot(f"{name}-{width}-{scheme}")
    seen.assert_quiet()


@pytest.mark.parametrize("name", [name for name in CONTENTS if name != "large"])
def test_axe_finds_nothing_serious(opened, texts, name):
    assert axe(opened(texts[name]).page) == []


def test_contrast_is_enough_in_the_dark_and_on_a_phone(opened, texts):
    assert axe(opened(texts["regression"], width=390, scheme="dark").page) == []


@pytest.mark.subset
def test_the_page_of_the_studys_grid_on_real_music(opened, real):
    seen = opened(real)
    for width, scheme in LOOKS:
        seen.look(width, scheme)
        assert_fits(seen.page)
        seen.screenshot(f"real-{width}-{scheme}")
    assert axe(seen.page) == []
    seen.assert_quiet()
    assert real.stat().st_size < 8_000_000


def column(page, name):
    """Texts of a column of the first table of cells, hidden rows left out."""
    heads = page.locator("#cells-0 thead th").all_inner_texts()
    place = next(n for n, text in enumerate(heads) if text.strip(" ↑↓") == name)
    rows = page.locator("#cells-0 tbody tr:not([hidden])")
    return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]


def test_headings_sort_by_figure_or_by_name_and_undefined_ones_stay_last(opened, texts):
    page = opened(texts["undefined"]).page
    head = page.locator("#cells-0 thead th", has_text="accuracy, test")
    button = head.get_by_role("button")
    button.click()
    values = column(page, "accuracy, test")
    known = [float(text.split()[0]) for text in values if text != "–"]
    assert known == sorted(known, reverse=True)
    assert values[len(known) :] == ["–"] * 3
    assert head.get_attribute("aria-sort") == "descending"
    button.focus()
    page.keyboard.press("Enter")
    again = column(page, "accuracy, test")
    assert [float(text.split()[0]) for text in again[: len(known)]] == sorted(known)
    assert again[len(known) :] == ["–"] * 3
    assert head.get_attribute("aria-sort") == "ascending"
    page.locator("#cells-0").get_by_role("button", name="segments").click()
    assert column(page, "segments") == sorted(
        column(page, "segments"), key=["10 s", "30 s", "full"].index
    )
    assert page.locator("#cells-0 [aria-sort='descending']").count() == 0


def test_rows_are_found_by_words(opened, texts):
    page = opened(texts["large"]).page
    page.get_by_label("Show rows with").fill("CONCAT 30")
    assert set(column(page, "aggregation")) == {"concat"}
    assert set(column(page, "segments")) == {"30 s"}
    shown = page.locator("#cells-0 tbody tr:not([hidden])").count()
    assert page.locator(".count").inner_text() == f"{shown} of 500"


def test_hovering_shows_the_whole_configuration_and_a_key_goes_from_cell_to_cell(opened, texts):
    seen = opened(texts["regression"])
    page = seen.page
    data = json.loads(page.locator("#page-data").inner_text() or page.evaluate(
        "document.getElementById('page-data').textContent"))  # fmt: skip
    mark = page.locator(".cost:visible [data-cell='4']")
    mark.hover(force=True)
    tip = page.locator("#tip")
    title, pairs = data["cells"][0][4]
    assert tip.locator("strong").inner_text() == title
    for name, value in pairs:
        assert name in tip.inner_text()
        assert value in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    page.locator(".view:visible .chart[data-task]").first.focus()
    page.keyboard.press("ArrowRight")
    first = tip.locator("strong").inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.locator("strong").inner_text() != first
    page.keyboard.press("ArrowLeft")
    assert tip.locator("strong").inner_text() == first


def test_another_cost_can_be_chosen(opened, texts):
    page = opened(texts["regression"]).page
    assert page.locator(".view[data-of='cost-0']:visible").count() == 1
    page.get_by_role("radio", name="peak RSS, GB").check()
    shown = page.locator(".view[data-of='cost-0']:visible")
    assert shown.count() == 1
    assert shown.get_attribute("data-view") == "rss"


def test_a_click_on_the_map_shows_the_track_its_neighbours_and_attention(opened, texts):
    page = opened(texts["regression"]).page
    data = page.evaluate("JSON.parse(document.getElementById('page-data').textContent).maps[0]")
    svg = page.locator(".map-of svg.map:visible")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    scale = box["width"] / 480
    x, y = data["points"]["PCA"][6:8]
    nearest = min(
        range(len(data["id"])),
        key=lambda n: (
            (data["points"]["PCA"][2 * n] - x) ** 2 + (data["points"]["PCA"][2 * n + 1] - y) ** 2
        ),
    )
    page.mouse.click(box["x"] + x * scale, box["y"] + y * scale)
    found = page.locator(".found")
    assert found.locator("h4").inner_text() == data["id"][nearest]
    near = [data["id"][n] for n in data["near"][nearest]]
    assert found.locator("ol button").all_inner_texts() == near
    page.get_by_label("Find a track").fill("track 00007")
    page.keyboard.press("Enter")
    assert found.locator("h4").inner_text() == "track 00007"
    assert found.locator("svg.weights rect").count() == 3
    found.locator("ol button").first.click()
    assert found.locator("h4").inner_text() == data["id"][data["near"][7][0]]
    page.locator(".map-of").get_by_role("radio", name="error").check()
    assert page.locator(".map-of svg.map:visible .picked").count() == 1
    page.get_by_label("Find a track").fill("no such track")
    page.keyboard.press("Enter")
    assert "No track has" in found.inner_text()


def test_a_key_of_the_map_brings_out_its_dots(opened, texts):
    page = opened(texts["large"]).page
    key = page.locator(".map-of .keys button:visible").first
    key.click()
    assert key.get_attribute("aria-pressed") == "true"
    paths = page.locator(".map-of svg.map:visible path[data-key]")
    assert page.locator(".map-of svg.map:visible path.dim").count() == paths.count() - 1
    key.click()
    assert page.locator("path.dim").count() == 0


def test_hostile_names_stay_names_when_they_are_shown(opened, texts):
    seen = opened(texts["hostile"])
    page = seen.page
    page.locator(".cost:visible [data-cell]").first.hover(force=True)
    page.locator("#tip strong").wait_for()
    chart = page.locator(".map-of .chart:visible").first
    chart.focus()
    shown = set()
    for _ in HOSTILE:
        page.keyboard.press("ArrowRight")
        shown.add(page.locator(".found h4").evaluate("node => node.textContent"))
    assert f"{HOSTILE[0]}0" in shown
    assert f"{HOSTILE[1]}1" in shown
    for button in page.locator("#cells-0 .sort").all():
        button.click()
    page.mouse.wheel(0, 3000)
    assert page.locator("img, iframe, object, embed, link[href^='http']").count() == 0
    seen.assert_quiet()


def test_the_policy_stops_a_script_that_got_in(opened, texts):
    text = texts["one-cell"].replace("</footer>", "<script>window.got = 1</script></footer>")
    seen = opened(text)
    assert seen.page.evaluate("window.got") is None
    assert any("Content Security Policy" in message for message in seen.errors)


def test_everything_stands_on_paper(opened, texts):
    seen = opened(texts["regression"])
    seen.page.emulate_media(media="print")
    assert seen.page.locator("nav").is_hidden()
    assert seen.page.locator(".find").first.is_hidden()
    boxes = seen.page.locator(".scroll").all()
    assert {box.evaluate("node => getComputedStyle(node).overflowY") for box in boxes} <= {
        "visible"
    }
    assert seen.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_without_the_script_tables_and_drawings_are_there(opened, texts):
    page = opened(texts["regression"], java_script_enabled=False).page
    assert page.locator("table:visible").count() > 5
    assert page.locator("svg.plot:visible").count() > 5
