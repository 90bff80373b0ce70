"""The page as text: what it says, what it escapes, what it draws, without a browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_world import (
    CLASSES,
    HOSTILE,
    comparison_of,
    content_of,
    hostile_content,
    map_of,
    predictions_of,
    results_of,
    run_of,
    store_of,
)

from tune_cache.reports.page import predictions, tracks
from tune_cache.reports.page.costs import cost_charts
from tune_cache.reports.page.curves import layer_curves, length_curves
from tune_cache.reports.page.maps import map_view
from tune_cache.reports.page.marks import SHAPES, Keys, marker
from tune_cache.reports.page.render import json_for_script, render_page
from tune_cache.reports.page.rows import cell_rows, glance, pareto_front, seg_order, short_titles
from tune_cache.reports.page.svg import nice_ticks, scale_of
from tune_cache.reports.page.views import cell_table, differences, published_table
from tune_cache.reports.page.words import commands_of, details, headline, summary

NAN = math.nan
FEW = {"n_groups": 8}


class Reader(HTMLParser):
    """Elements, attributes and visible text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.scripts, self._open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            self.scripts.append((self._open[-1], data))
        else:
            self.texts.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def data(self):
        return json.loads(next(text for name, text in self.scripts if '"cells"' in text[:12]))


@pytest.fixture(scope="module")
def page():
    return Reader(render_page(content_of(weights=True)))


def rows_of(*cells, **changed):
    found = results_of([[run] for run in cells], **changed)
    return cell_rows(found, {})


# --- the whole


def test_nothing_on_the_page_points_out_of_it(page):
    for tag, attrs in page.elements:
        for name, value in attrs.items():
            if name in ("href", "src", "action", "srcset", "data", "xlink:href", "poster"):
                assert value.startswith(("#", "data:,")), (tag, name, value)
            assert "url(" not in (value or ""), (tag, name)
    assert not any("url(" in text or "@import" in text for name, text in page.scripts)
    (policy,) = [a["content"] for a in page.named("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy


def test_every_drawing_has_words_and_every_table_a_caption_and_scopes(page):
    for attrs in page.named("svg"):
        assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
    n_tables = len(page.named("table"))
    assert n_tables == len(page.named("caption")) > 8
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.named("th"))
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.named("a")}
    assert targets <= set(ids)


def test_hostile_names_are_text_and_nothing_else():
    text = render_page(hostile_content())
    text.encode("utf-8")
    page = Reader(text)
    tame = Reader(render_page(content_of(9, n_tracks=42, encoders=("mel",))))
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in tame.elements} | {"h3"}
    assert len(page.named("script")) == 2
    assert len(page.named("style")) == 1
    known = {name for _, attrs in tame.elements for name in attrs}
    assert {name for _, attrs in page.elements for name in attrs} <= known
    assert HOSTILE[0] in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert page.data["maps"][0]["id"][0] == f"{HOSTILE[0]}0"
    assert not re.search(r"[\x00-\x08\x1b\u202e]", text)


@given(st.text(st.characters(), max_size=30))
def test_any_text_survives_json_in_a_script(text):
    written = str(json_for_script({"name": text}))
    assert not re.search(r"[<>&\u2028\u2029]", written)
    assert json.loads(written) == {"name": text}


@pytest.mark.parametrize(
    "content",
    [
        content_of(0, 0, stores=(), splits={}, leaks={}),
        content_of(1, 3),
        content_of(9, 40, nan=True),
        content_of(6, 30, kind="regression"),
        content_of(6, 30, kind="multilabel"),
        content_of(6, 30, stores=(), maps=(), splits={}, leaks={}, missing=("stores are gone",)),
    ],
    ids=["no results", "one cell", "undefined scores", "regression", "tags", "nothing but results"],
)
def test_every_kind_of_content_becomes_a_page(content):
    page = Reader(render_page(content))
    assert "nan" not in page.text.lower().split()
    assert "NaN" not in json.dumps(page.data)
    if not content.tasks:
        assert "There are no results here" in page.text


def test_a_page_of_500_cells_and_5000_tracks_is_below_8_mb():
    assert len(render_page(content_of(500, 5000)).encode("utf-8")) < 8_000_000


# --- words


def test_the_summary_says_what_few_tracks_cannot():
    found = results_of([[run_of(0, val=0.9)], [run_of(1, seg="30")]])
    few = tuple(
        replace(v, comparison=comparison_of(-0.1, **FEW) if v.comparison else None,
                as_good=None if v.comparison else True)
        for v in found.verdicts
    )  # fmt: skip
    text = " ".join(summary(cell_rows(replace(found, verdicts=few), {})))
    assert "cannot be told from these tracks: fewer than 20 independent groups" in text
    assert "20 test tracks in 8 groups" in text
    assert "would show (power 0.8, one pair) is about 0.120" in text


def test_the_summary_counts_cells_that_are_as_good_and_names_the_cheapest():
    waits = {"wait_seconds": 0.0, "write_seconds": 0.0}
    dear = {**waits, "encode_seconds": 90.0, "audio_seconds": 3600.0}
    cheap = {**waits, "encode_seconds": 10.0, "audio_seconds": 3600.0}
    rows = rows_of(run_of(0, val=0.9, cost=dear), run_of(1, seg="30", test=0.8, cost=cheap))
    text = " ".join(summary(rows))
    assert "The other cell is as good: it loses less than 0.02" in text
    assert "stage one 10.0 s/h with 30 s, mean" in text
    better, worse = run_of(1, seg="30", test=0.8), run_of(2, seg="60", test=0.5)
    many = rows_of(run_of(0, val=0.9), better, worse)
    text = " ".join(summary(many))
    assert "Of the other 2 cells, 1 is as good" in text
    worse = rows_of(run_of(0, val=0.9), worse)
    assert "That the other cell is as good" in " ".join(summary(worse))


def test_random_weights_are_said_wherever_their_scores_stand():
    note = "random weights"
    rows = rows_of(run_of(0, encoder="muq-nano", note=note, val=0.9), run_of(1))
    assert note in headline(rows)[2]
    assert note in " ".join(summary(rows))
    assert note in dict(details(rows[0]))["encoder"]
    assert note in glance(rows)[0].encoder
    (column,) = [c for c in cell_table(rows).columns if c.name == "encoder"]
    assert note in column.cells[0][0]


def test_an_undefined_choice_is_said():
    text = " ".join(summary(rows_of(run_of(0, val=NAN, test=NAN))))
    assert "nothing was chosen by merit" in text
    assert "There is one cell" in text
    assert headline(rows_of(run_of(0, test=NAN)))[0] == "undefined"


def test_commands_are_as_few_as_grids_and_quote_what_a_shell_would_read():
    grid = [
        run_of(n, seg=seg, aggregation=agg, layer_asked="best", seed=seed)
        for n, (seg, agg, seed) in enumerate(
            (s, a, d) for s in ("10", "30") for a in ("mean", "max") for d in (1, 2)
        )
    ]
    cells = [grid[n : n + 2] for n in range(0, len(grid), 2)]
    rows = cell_rows(results_of(cells), {})
    lines = commands_of("my data", rows, {"key-mel-10": {"dtype": "f4"}})
    assert lines == [
        "tune extract 'my data' --encoder mel --seg 10 --dtype f4",
        "tune extract 'my data' --encoder mel --seg 30",
        "tune probe 'my data' --encoder mel --task genre --layer best --probe logistic --seed 1"
        " --seed 2 --seg 10 --seg 30 --agg mean --agg max",
    ]


# --- rows, tables


def slow_front(costs, scores):
    """Points that nothing beats, by looking at all pairs."""
    found = []
    for i, (cost, score) in enumerate(zip(costs, scores, strict=True)):
        if math.isnan(score):
            continue
        beaten = any(
            (c <= cost and s >= score and (c < cost or s > score))
            or (c, s, j < i) == (cost, score, True)
            for j, (c, s) in enumerate(zip(costs, scores, strict=True))
        )
        if not beaten:
            found.append(i)
    return sorted(found, key=lambda i: costs[i])


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.one_of(st.integers(-3, 3).map(float), st.just(NAN))),
        min_size=1,
        max_size=30,
    )
)
def test_the_front_is_what_no_other_point_beats(points):
    costs, scores = zip(*points, strict=True)
    assert pareto_front(costs, scores) == slow_front(costs, scores)


def test_lengths_are_ordered_as_lengths():
    assert sorted(["full", "10", "10+30", "7.5"], key=seg_order) == ["7.5", "10", "full", "10+30"]


def test_a_pair_at_a_glance_is_the_one_that_validation_chooses():
    rows = rows_of(run_of(0, layer="1", val=0.5, test=0.9), run_of(1, layer="2", val=0.6, test=0.1))
    assert glance(rows)[0].cells[0][0]["layer"] == "2"


def test_what_one_segment_makes_the_same_is_told_though_a_sweep_worked_it_out_once():
    one = {"share_one_segment": 1.0}
    cells = [run_of(0, seg="10"), run_of(1, seg="10", aggregation="max"),
             run_of(2, seg="10", aggregation="std"), run_of(3, seg="60", **one)]  # fmt: skip
    found = results_of([[run] for run in cells])
    stores = {run.context.content_digest: store_of(run) for run in cells}
    assert max(stores["content-mel-60"].seconds) < 60
    rows = cell_rows(found, stores)
    assert (rows[3]["same_aggregation"], rows[3]["same_seg"]) == (["max"], ["full"])
    assert rows[0]["same_aggregation"] == rows[0]["same_seg"] == []
    (view,) = glance(rows)
    assert view.lengths == ("10 s", "60 s", "full")
    filled = {name: [c and c["number"] for c in some]
              for name, some in zip(view.aggregations, view.cells, strict=True)}  # fmt: skip
    assert filled == {"mean": [0, 3, 3], "max": [1, 3, 3], "std": [2, None, None]}
    longer = {**stores, "content-mel-60": store_of(cells[3], seconds=(61.0,))}
    assert cell_rows(found, longer)[3]["same_seg"] == []


def test_a_cell_that_learnt_without_leaks_says_so_and_how_to_repeat_it():
    rows = rows_of(run_of(0), run_of(1, excluded={"t1": "leak: group"}))
    assert list(short_titles(rows).values()) == ["with leaks", "without leaks"]
    assert dict(details(rows[1]))["left out"]
    lines = commands_of("world", rows, {})
    assert ["--drop-leaks" in line for line in lines] == [False, False, True]


def test_options_of_trained_aggregations_are_in_the_commands():
    options = {"finetune": True, "readout": "mean"}
    rows = rows_of(run_of(0, aggregation="transformer", aggregation_options=options))
    assert "--finetune --readout mean" in commands_of("world", rows, {})[1]


def test_short_titles_leave_out_what_is_the_same():
    rows = rows_of(run_of(0, layer_asked="best"), run_of(1, seg="30", layer_asked="best"))
    assert list(short_titles(rows).values()) == ["10 s", "30 s"]
    assert short_titles(rows[:1]) == {0: "10 s, mean"}


def test_columns_without_figures_are_left_out_and_flags_explained():
    table = cell_table(rows_of(run_of(0, flags=("padded: 3%",)), run_of(1, seg="30")))
    names = [column.name for column in table.columns]
    assert "VRAM, GB" not in names
    assert "RSS, GB" in names
    assert names[0] == "aggregation"
    assert "encoder mel" in table.said
    assert "padded: 3%" in table.notes


def test_memory_of_a_gpu_and_of_a_process_never_share_a_column():
    gpu = {"peak_vram_allocated_bytes": 3e9, "peak_rss_bytes": 5e9}
    table = cell_table(rows_of(run_of(0, cost=gpu), run_of(1, seg="30")))
    cells = {column.name: [text for text, _ in column.cells] for column in table.columns}
    assert cells["VRAM, GB"] == ["3.00", "–"]
    assert cells["RSS, GB"] == ["5.00", "2.00"]
    keys = Keys.of(rows_of(run_of(0, cost=gpu)))
    charts = {c.cost.key: c for c in cost_charts(rows_of(run_of(0, cost=gpu), run_of(1)), keys)}
    assert charts["vram"].n_without == 1
    assert charts["rss"].n_without == 0


def test_published_rows_stand_beside_ours_and_say_what_they_are():
    rows = rows_of(run_of(0, dataset="GTZANGenre", test=0.81), run_of(1, seg="full", test=0.84))
    table = published_table("GTZANGenre", rows)
    cells = {column.name: [text for text, _ in column.cells] for column in table.columns}
    mean_10 = cells["aggregation"].index("mean")
    assert cells["accuracy, published"][mean_10] == "0.830"
    assert cells["accuracy, here"][mean_10] == "0.810"
    assert cells["accuracy, here"][cells["aggregation"].index("full track")] == "0.840"
    assert "another machine" in table.said
    assert "segmentation not effective" in table.said
    assert published_table("soundtrack", rows) is None


def test_differences_are_those_that_validation_likes_best():
    cells = [run_of(n, layer=str(n), layer_asked=str(n), val=n / 100, test=0.5) for n in range(60)]
    found = differences(rows_of(*cells))
    assert len(found.rows) == 40
    assert found.n_left_out == 19
    assert min(int(row["layer"]) for row, _ in found.rows) == 19
    assert found.low < -0.05 < 0.05 < found.high
    assert differences(rows_of(run_of(0))) is None


# --- drawings


def test_every_mark_of_a_cost_chart_is_a_cell():
    rows = rows_of(*(run_of(n, seg=seg) for n, seg in enumerate(("10", "30", "full"))))
    chart = next(c for c in cost_charts(rows, Keys.of(rows)) if c.cost.key == "rss")
    assert sorted(re.findall(r'data-cell="(\d+)"', chart.svg)) == ["0", "1", "2"]
    assert 'class="ring"' in chart.svg


@pytest.mark.parametrize("shape", SHAPES)
def test_marks_have_finite_paths(shape):
    assert "nan" not in marker(shape, 10.0, 20.0)


def test_curves_that_are_one_line_are_drawn_once():
    cells = [
        run_of(n, seg=seg, aggregation=agg, test=test)
        for n, (seg, agg, test) in enumerate(
            [("10", "mean", 0.6), ("full", "mean", 0.7), ("10", "max", 0.5), ("full", "max", 0.7),
             ("10", "concat", 0.5), ("full", "concat", 0.7)]
        )
    ]  # fmt: skip
    (chart,) = length_curves(rows_of(*cells))
    assert [curve.name for curve in chart.curves] == ["mean", "max = concat"]
    assert [point.x for point in chart.curves[0].points] == ["10", "full"]
    assert chart.curves[0].points[0].low == pytest.approx(0.5)


def test_a_validation_curve_has_the_range_over_seeds_as_its_band():
    curves = [(("0", 0.4), ("1", 0.6)), (("0", 0.5), ("1", 0.6))]
    cells = [[run_of(n, seed=n, layer_asked="best", layer_curve=curve)
              for n, curve in enumerate(curves)]]  # fmt: skip
    found = results_of(cells)
    (chart,) = layer_curves(found, cell_rows(found, {}))
    first, second = chart.curves[0].points
    assert (first.low, first.high, first.y) == (0.4, 0.5, pytest.approx(0.45))
    assert second.low == second.high == 0.6


def test_layers_probed_one_by_one_are_a_test_curve_with_intervals():
    cells = [run_of(n, layer=str(layer), layer_asked="all") for n, layer in enumerate((10, 2, 1))]
    found = results_of([[run] for run in cells])
    (chart,) = layer_curves(found, cell_rows(found, {}))
    assert [point.x for point in chart.curves[0].points] == ["1", "2", "10"]
    assert math.isfinite(chart.curves[0].points[0].low)
    assert "test" in chart.y_name


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low, width):
    ticks = nice_ticks(low, low + width)
    assert len(ticks) <= 12
    assert all(low - 1e-6 * width - 1e-9 <= t <= low + width * (1 + 1e-6) + 1e-9 for t in ticks)


def test_a_scale_without_values_or_with_one_is_a_scale():
    for values in ([], [NAN], [3.0], [0.0, 0.0]):
        scale = scale_of(values, 0, 100)
        assert all(0 <= scale(value) <= 100 for value in (0.0, 3.0))
    assert scale_of([1.0, 1000.0], 0, 100, is_log=None).is_log
    assert not scale_of([0.0, 1000.0], 0, 100, is_log=None).is_log


# --- predictions


def test_a_confusion_matrix_keeps_its_counts_and_lists_the_worst():
    run = run_of(classes=("a", "b"), confusion=((3, 1), (4, 0)))
    found = predictions.confusion_of(run.result)
    assert [name for name, _, _ in found.rows] == ["a", "b"]
    assert found.rows[0][2] == ((3, 4), (1, 2))
    assert predictions.most_confused(run.result)[0] == ("b", "a", 4, 4)
    many = tuple(f"c{n}" for n in range(50))
    matrix = tuple(tuple(int(i == j) for i in range(50)) for j in range(50))
    assert predictions.confusion_of(run_of(classes=many, confusion=matrix).result) is None


def test_two_targets_are_a_plane_with_valence_across():
    some = predictions_of(np.random.default_rng(0), [f"t{n}" for n in range(200)], "regression")
    result = run_of(kind="regression", predictions=some).result
    drawing, n_drawn, n_all = predictions.plane(result)
    assert (n_drawn, n_all) == (150, 200)
    assert drawing.index(">valence<") < drawing.index(">arousal<")
    assert [target for target, _ in predictions.predicted_against_true(result)] == [
        "arousal",
        "valence",
    ]


def test_tags_are_listed_the_worst_first():
    names = [f"t{n}" for n in range(100)]
    some = predictions_of(np.random.default_rng(0), names, "multilabel")
    found = predictions.tag_table(run_of(kind="multilabel", predictions=some).result)
    assert sorted(tag for tag, _, _ in found) == sorted(CLASSES)
    assert [auc for _, _, auc in found] == sorted(auc for _, _, auc in found)
    tag, n_true, auc = found[0]
    place = CLASSES.index(tag)
    right = [a.prediction[place] > b.prediction[place]
             for a in some for b in some if a.truth[place] > b.truth[place]]  # fmt: skip
    assert auc == pytest.approx(np.mean(right))
    assert n_true == sum(item.truth[place] for item in some)


# --- the map


@pytest.mark.parametrize("shape", [(50, 8), (8, 50), (2, 3), (5, 1)], ids=str)
def test_principal_axes_are_those_of_a_singular_value_decomposition(shape):
    rows = np.random.default_rng(1).standard_normal(shape)
    found, kept = tracks.principal_axes(rows)
    moved = rows - rows.mean(axis=0)
    _, values, right = np.linalg.svd(moved, full_matrices=False)
    expected = moved @ right[:2].T
    width = expected.shape[1]
    np.testing.assert_allclose(np.abs(found[:, :width]), np.abs(expected), atol=1e-8)
    assert kept == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())


def test_equal_vectors_have_no_axes_and_do_no_harm():
    found, kept = tracks.principal_axes(np.ones((4, 3)))
    assert not found.any()
    assert kept == 0
    assert len(tracks.nearest(np.zeros((3, 2)))[0]) == 2
    assert tracks.nearest(np.ones((1, 2))) == [()]


def test_neighbours_are_those_of_all_pairs(monkeypatch):
    monkeypatch.setattr(tracks, "ROWS_AT_ONCE", 7)
    rows = np.random.default_rng(2).standard_normal((40, 6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T - 2 * np.eye(40)
    for place, found in enumerate(tracks.nearest(rows)):
        assert [n for n, _ in found] == np.argsort(-cosine[place])[:5].tolist()
        assert found[0][1] == pytest.approx(cosine[place].max(), abs=1e-5)


def test_dimensions_are_scaled_by_training_tracks_only():
    rows = np.array([[0.0, 5.0], [2.0, 5.0], [100.0, 6.0]])
    found = tracks.scaled(rows, np.array([True, True, False]))
    np.testing.assert_allclose(found[:, 0], [-1, 1, 99])
    np.testing.assert_array_equal(found[:, 1], 0)


def test_attention_is_shown_for_tracks_with_as_many_weights_as_segments():
    weights = {"a": [0.2, 0.8], "b": [1.0], "c": [NAN, 1.0]}
    assert tracks.fitting_weights(weights, "a", 2) == (0.2, 0.8)
    for name in ("b", "c", "d"):
        assert tracks.fitting_weights(weights, name, 2) == ()
    rng = np.random.default_rng(0)
    names = [f"t{n}" for n in range(9)]
    assert "weights" not in map_view(map_of(rng, names)).data
    assert map_view(map_of(rng, names, weights=True)).data["weights"][1] == [0.2, 0.5, 0.3]


def test_every_track_is_a_dot_in_every_colouring():
    names = [f"t{n}" for n in range(300)]
    view = map_view(map_of(np.random.default_rng(0), names))
    assert [key for key, _ in view.colourings] == ["label", "error", "split"]
    for drawing in view.drawings:
        assert sum(key.count for key in drawing.keys) == 300
        assert len(re.findall(r"h0", drawing.svg)) == 300
    assert len(view.data["points"]["PCA"]) == 600


def test_labels_beyond_two_shapes_of_eight_colours_are_grey():
    many = tuple(f"c{n:02}" for n in range(30))
    names = [f"t{n}" for n in range(600)]
    found = map_of(np.random.default_rng(0), names, classes=many)
    drawing = next(d for d in map_view(found).drawings if d.colouring == "label")
    assert len(drawing.keys) == 17
    assert drawing.keys[-1].name == "other labels"
    assert len({key.class_ for key in drawing.keys}) == 17


# --- data and time


def test_the_page_tells_failed_files_leaks_and_where_the_time_went():
    content = content_of(3, 30)
    failed = {"broken.mp3": "unreadable: no frame"}
    stores = tuple(replace(store, failed=failed) for store in content.stores)
    leaks = {("world", "genre"): ("3 of 20 test tracks share a group with train tracks",)}
    page = Reader(render_page(replace(content, stores=stores, leaks=leaks)))
    for text in ("broken.mp3", "unreadable: no frame", "share a group with train", "decode, beside",
                 "scores may be too good", "content-mel-10", "torch"):  # fmt: skip
        assert text in page.text, text


def test_a_store_that_is_gone_leaves_what_results_remember():
    run = run_of(0)
    gone = replace(
        store_of(run), n_bytes=None, n_tracks=None, n_segments=None, seconds=(), coverage=None,
        n_segments_by_track=(), provenance={},
    )  # fmt: skip
    page = Reader(render_page(content_of(3, 0, stores=(gone,), maps=())))
    assert "16.0" in page.text
    assert "disk, MB" not in page.text
