"""Figures: the same bytes each time, fonts inside, hostile names harmless."""

from __future__ import annotations

import re
import struct
import sys
import xml.etree.ElementTree as ET

import matplotlib as mpl
import pytest
from judged import NAN, judged

from tune_cache.commands.figures import write_figures
from tune_cache.commands.judged_cells import JudgedTask
from tune_cache.errors import MissingExtraError, UsageError
from tune_cache.reports.cost import Costs
from tune_cache.reports.figures.drawn import draw_figures
from tune_cache.reports.figures.panels import MOST_LINES
from tune_cache.reports.figures.style import COLOURS, MARKERS

HOSTILE = [
    "$\\frac{1}{",
    "a$b$c",
    "東京" * 20,
    "x" * 300,
    "a\nb\x1b[31m",
    "<script>&",
    "%s {0} \\",
    "",
]
FORMS = ("svg", "pdf", "png")
CURVE = (("0", 0.2), ("1", 0.5), ("2", 0.4))


def cells():
    return [
        judged("mean", "10", 0.6, is_reference=True, curve=CURVE, costs=costs(1)),
        judged("max", "10", 0.5, curve=CURVE, costs=costs(1), as_good=None),
        judged("mean", "full", 0.7, costs=costs(40), as_good=True, difference=0.1),
        judged("max", "full", NAN, test_low=NAN, test_high=NAN, difference=NAN, costs=costs(3)),
    ]


def few():
    """Enough for a curve over layers and one difference, and for nothing else."""
    return [
        judged("mean", is_reference=True, curve=CURVE, costs=Costs()),
        judged("max", curve=CURVE, costs=Costs()),
    ]


def costs(times):
    return Costs(memory_kind="rss", memory_bytes=times * 1e9, seconds=9.0 * times, disk_bytes=1e6)


def drawn(some, **settings):
    return {(d.name, d.form): d for d in draw_figures(some, title="data", **settings)}


@pytest.fixture(scope="module")
def figures():
    return drawn(cells()) | drawn(few(), forms=("pdf", "png"))


def test_what_the_cells_support_is_drawn(figures):
    names = {name for name, _ in figures}
    assert names == {"cost-rss", "cost-seconds", "cost-disk", "layers", "lengths", "differences"}
    assert drawn([]) == {}
    assert drawn([judged(is_reference=True, costs=Costs())]) == {}


def test_the_same_results_give_the_same_bytes():
    first, second = (drawn(few(), forms=FORMS) for _ in range(2))
    assert {name for name, _ in first} == {"layers", "differences"}
    assert {key: one.data for key, one in first.items()} == {k: d.data for k, d in second.items()}


def test_no_file_tells_when_or_by_what_it_was_made(figures):
    for (_, form), one in figures.items():
        found = re.findall(
            rb"CreationDate|ModDate|dc:date|Producer|Creator|Software|Matplotlib v", one.data
        )
        assert found == [], form


def test_every_figure_is_as_wide_as_asked():
    for width in (3.4, 7.0):
        for (_, form), one in drawn(few(), forms=("svg", "png"), width_inches=width).items():
            if form == "png":
                assert struct.unpack(">I", one.data[16:20])[0] == round(width * 300)
            else:
                root = ET.fromstring(one.data)
                assert float(root.get("width").removesuffix("pt")) == pytest.approx(72 * width)


def test_fonts_are_embedded(figures):
    for (_, form), one in figures.items():
        if form == "pdf":
            assert b"/FontFile2" in one.data
            assert b"/Type3" not in one.data
        if form == "svg":
            assert b"<text" not in one.data  # outlines


def test_hostile_names_are_drawn_as_they_are_or_as_boxes():
    some = [
        judged(
            name,
            name or "full",
            0.1 * place,
            curve=CURVE,
            costs=costs(place + 1),
            metric=HOSTILE[0],
        )
        for place, name in enumerate(HOSTILE)
    ]
    for one in draw_figures(some, title=HOSTILE[0], forms=("svg",)):
        ET.fromstring(one.data)


def test_lines_and_bars_that_are_too_many_are_left_out_and_said():
    many = [judged(f"a{n:02}", curve=CURVE, val=n / 50, costs=Costs()) for n in range(30)]
    notes = {one.name: one.note for one in draw_figures(many, title="data")}
    assert notes["layers"] == f"{30 - MOST_LINES} lines with lower scores are left out"
    assert notes["differences"] == "6 cells with lower differences are left out"


def test_lines_differ_in_shape_as_in_colour():
    assert len(set(COLOURS)) >= MOST_LINES
    assert len(set(MARKERS)) >= MOST_LINES


def test_settings_of_the_caller_are_put_back():
    before = dict(mpl.rcParams)
    drawn(few())
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"forms": ("gif",)}, "figure format is 'gif', expected one of svg, pdf, png"),
        ({"width_inches": 340}, "figures 340 in wide, expected 2 to 12"),
        ({"width_inches": NAN}, "figures nan in wide"),
    ],
    ids=["format", "points", "nan"],
)
def test_a_mistake_is_told(settings, match):
    with pytest.raises(UsageError, match=match) as caught:
        drawn(cells(), **settings)
    assert caught.value.hint


def test_without_matplotlib_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="need matplotlib") as caught:
        drawn(cells())
    assert caught.value.hint == "pip install 'tune-cache[figures]'"


def task_of(dataset, task="task"):
    return JudgedTask(
        dataset=dataset,
        task=task,
        cells=(judged(is_reference=True, costs=Costs()), judged("max", costs=Costs())),
    )


def test_files_have_safe_names_that_differ(tmp_path):
    tasks = [
        task_of("../../a b"),
        task_of("a/b"),
        task_of("a b"),
        task_of("同", "同"),
        task_of("x"),
    ]
    files, notes = write_figures(tmp_path / "new" / "folder", tasks, forms=("svg",))
    assert notes == []
    assert {path.parent for path in files} == {tmp_path / "new" / "folder"}
    assert len({path.name for path in files}) == len(files)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+\.svg", path.name) for path in files)
    assert {"a-b-task-differences.svg", "a-b-task-2-differences.svg"} <= {
        path.name for path in files
    }


def test_a_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        write_figures(tmp_path / "file", [task_of("x")])
    assert "--figures" in caught.value.hint
