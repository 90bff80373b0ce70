"""Advice on planted results whose right answers are known, and on the published table."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
from cells import cell
from hypothesis import given
from hypothesis import strategies as st

from tune_cache.errors import TaskError, UsageError
from tune_cache.probes.metrics import Score
from tune_cache.probes.result import Prediction
from tune_cache.reports.advice import advise
from tune_cache.reports.candidates import published_candidates
from tune_cache.reports.cost import Costs, costs_of
from tune_cache.reports.front import Budget, Candidate, front_of
from tune_cache.reports.published import published_rows
from tune_cache.reports.recommendations import advice_rows, advice_text

GB = 1e9
N = 400


def planted(n_wrong, *, test_wrong=None, n=N, n_groups=None, labels="x", **changed):
    """A classifier that gets the first so many tracks wrong, and those of test."""
    predictions = []
    for split, wrong in (("val", n_wrong), ("test", n_wrong if test_wrong is None else test_wrong)):
        predictions += [
            Prediction(
                track_id=f"{split}{place}",
                split=split,
                group=f"{split}{place % (n_groups or n)}",
                truth=labels,
                prediction="y" if place < wrong else labels,
            )
            for place in range(n)
        ]
    scores = {
        split: {"accuracy": Score(value=1 - wrong / n, low=0.0, high=1.0)}
        for split, wrong in (
            ("val", n_wrong),
            ("test", n_wrong if test_wrong is None else test_wrong),
        )
    }
    base = cell("multiclass", ["x", "y"], ["x", "x"])
    return dataclasses.replace(
        base,
        predictions=tuple(predictions),
        scores=scores,
        n={"train": 9, "val": n, "test": n},
        **changed,
    )


def candidate(name, n_wrong, memory=None, seconds=None, disk=None, *, kind="vram", **changed):
    costs = {name: changed.pop(name) for name in ("memory_is_bound", "device") if name in changed}
    result = planted(n_wrong, **changed)
    return Candidate(
        name=name,
        value=result.scores["val"]["accuracy"].value,
        costs=Costs(
            memory_kind=kind if memory else "",
            memory_bytes=memory and memory * GB,
            seconds=seconds,
            disk_bytes=disk and disk * 1e6,
            **costs,
        ),
        results=(result,),
        about={"dataset": "d", "task": "t", "metric": "accuracy", "n_val": N, "n_test": N},
    )


# by a loss of 0, 1, 2 and 40 tracks of 400 the answers are known
FULL = candidate("full", 40, memory=7, seconds=30, disk=9)
MEAN = candidate("mean", 41, memory=3, seconds=50, disk=9)
QUICK = candidate("quick", 42, memory=5, seconds=20, disk=9)
POOR = candidate("poor", 80, memory=1, seconds=10, disk=1)
WORSE = candidate("worse", 81, memory=2, seconds=50, disk=9)
PLANTED = (FULL, MEAN, QUICK, POOR, WORSE)


def chosen(advice):
    return {role: choice.candidate.name for choice in advice.choices for role in choice.roles}


def test_planted_cells_get_the_roles_that_they_were_made_for():
    advice = advise(PLANTED, budget=Budget(memory_bytes=2 * GB))
    assert chosen(advice) == {
        "best": "full",
        "cheapest": "mean",
        "fastest": "quick",
        "within": "poor",
    }
    assert [choice.as_good for choice in advice.choices] == [True, True, True, False]
    assert [choice.fits for choice in advice.choices] == [False, False, False, True]
    assert [c.name for c in advice.front] == ["full", "mean", "quick", "poor"]
    assert any("no cell that is shown to be as good" in text for text in advice.statements)


@pytest.mark.parametrize("limit", [1, 4.9, 5, 8], ids=str)
def test_the_best_in_a_budget_is_the_best_of_what_it_admits(limit):
    advice = advise(PLANTED, budget=Budget(memory_bytes=limit * GB))
    admitted = [item for item in PLANTED if item.costs.memory_bytes <= limit * GB]
    assert chosen(advice)["within"] == max(admitted, key=lambda item: item.value).name


def test_test_scores_decide_nothing_and_are_told():
    def with_test(item, n_wrong):
        n_val = round((1 - item.value) * N)
        return dataclasses.replace(item, results=(planted(n_val, test_wrong=n_wrong),))

    others = [
        with_test(item, wrong) for item, wrong in zip(PLANTED, (90, 0, 200, 7, 0), strict=True)
    ]
    told = advise(others, budget=Budget(seconds=15.0))
    assert chosen(told) == chosen(advise(PLANTED, budget=Budget(seconds=15.0)))
    assert told.of("best").score.value == pytest.approx(1 - 90 / N)
    assert told.of("cheapest").on_test.difference == pytest.approx(90 / N)
    quick = [text for text in told.statements if text.startswith("test disagrees")]
    assert len(quick) == 1
    assert "quick is worse than the best there, by 0.275" in quick[0]


def test_a_loss_that_n_cannot_exclude_is_said_and_not_taken_for_none():
    cells = [candidate("best", 10, memory=7, n=100), candidate("near", 11, memory=1, n=100)]
    advice = advise(cells)
    assert chosen(advice) == {"best": "best", "cheapest": "best"}
    (said,) = advice.statements[:1]
    assert said.startswith("the data cannot tell of 1 cells that lose less than 0.02")
    assert "100 validation tracks" in said
    assert chosen(advise(cells, margin=0.06))["cheapest"] == "near"


def test_few_groups_cannot_tell_however_many_tracks():
    cells = [
        candidate(name, 40, memory=memory, n_groups=19) for name, memory in (("a", 7), ("b", 1))
    ]
    cells.append(candidate("c", 41, memory=0.5, n_groups=19))
    advice = advise(cells)
    assert chosen(advice)["cheapest"] == "b"  # beats a: as good a score for less
    assert advice.of("best").candidate.name == "b"
    assert advice.statements[0].startswith(
        "the data cannot tell: 400 validation tracks in 19 groups"
    )
    assert "only the best counts" in advice.statements[0]


def test_without_predictions_the_margin_rule_cannot_tell():
    cells = [dataclasses.replace(item, results=()) for item in PLANTED]
    advice = advise(cells)
    assert chosen(advice)["cheapest"] == "full"
    assert "3 of 3 cells have no predictions in common with the best" in advice.statements[0]
    assert chosen(advise(cells, rule="share"))["cheapest"] == "mean"


def test_cells_with_other_labels_are_not_compared():
    other = candidate("other", 41, memory=1, labels="z")
    advice = advise([FULL, other])
    assert chosen(advice)["cheapest"] == "full"
    assert "1 of 1 cells have no predictions in common" in advice.statements[0]


def test_unknown_costs_are_named_and_neither_in_nor_out():
    unknown = candidate("unknown", 39, seconds=30)
    advice = advise([unknown, *PLANTED], budget=Budget(memory_bytes=4 * GB))
    assert chosen(advice)["best"] == "unknown"
    assert chosen(advice)["within"] == "mean"
    assert chosen(advice)["cheapest"] == "mean"
    assert [(item.name, lacking) for item, lacking in advice.unknown] == [("unknown", ("VRAM",))]
    assert advice.of("best").fits is None
    assert any("1 of 6 cells are of unknown cost" in text for text in advice.statements)
    assert any("the memory of 1 of 6 cells is not known" in text for text in advice.statements)
    assert "not known to fit" in advice_text(advice, width=80)


def test_a_cost_over_the_budget_decides_though_another_is_unknown():
    budget = Budget(memory_bytes=GB, memory_kind="vram", seconds=10.0)
    assert budget.fits(Costs(seconds=11.0)) is False
    assert budget.fits(Costs(seconds=9.0)) is None
    assert budget.fits(Costs(memory_kind="vram", memory_bytes=GB, seconds=10.0)) is True


def test_memory_of_a_gpu_and_of_a_process_are_never_one():
    on_cpu = candidate("on cpu", 41, memory=1, seconds=99, kind="rss", device="cpu")
    on_gpu = candidate("on gpu", 40, memory=2, seconds=9, device="cuda: X")
    cells = [on_cpu, on_gpu]
    with pytest.raises(UsageError, match="could mean two things"):
        advise(cells, budget=Budget(memory_bytes=4 * GB))
    advice = advise(cells, budget=Budget(memory_bytes=4 * GB, memory_kind="rss"))
    assert chosen(advice)["within"] == "on cpu"
    assert [item.name for item, _ in advice.unknown] == ["on gpu"]
    cheapest = [c.candidate.name for c in advice.choices if "cheapest" in c.roles]
    assert cheapest == ["on gpu", "on cpu"]  # one a kind
    assert [c.name for c in front_of(cells)] == ["on gpu", "on cpu"]  # 1 GB RSS beats no VRAM
    assert any("different devices (cpu, cuda: X)" in text for text in advice.statements)
    assert any(
        "VRAM of a GPU for 1 cells and RSS of a process for 1" in t for t in advice.statements
    )


def test_a_common_peak_over_the_budget_is_not_known_to_be_this_lengths():
    shared = candidate("shared", 40, memory=4, kind="rss", memory_is_bound=True)
    assert Budget(memory_bytes=5 * GB, memory_kind="rss").fits(shared.costs) is True
    assert Budget(memory_bytes=3 * GB, memory_kind="rss").fits(shared.costs) is None
    advice = advise([shared], budget=Budget(memory_bytes=3 * GB))
    assert advice.of("within") is None
    assert "none is known to fit" in advice_text(advice, width=80)
    assert any("common peak" in text for text in advice.statements)


def test_an_undefined_score_is_never_chosen():
    undefined = dataclasses.replace(POOR, value=math.nan)
    assert "poor" not in chosen(advise([FULL, undefined])).values()
    with pytest.raises(TaskError, match="none of 1 cells has a validation score"):
        advise([undefined])


def test_one_cell_is_no_choice():
    assert "there is one cell: nothing to choose from" in advise([FULL]).statements


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"rule": "best"}, "expected margin or share"),
        ({"margin": 0}, "expected a positive number"),
        ({"share": 1.5}, "at most 1"),
    ],
    ids=["rule", "margin", "share"],
)
def test_rules_that_decide_nothing_are_refused(settings, match):
    with pytest.raises(UsageError, match=match):
        advise(PLANTED, **settings)


@pytest.mark.parametrize(
    "limits",
    [{"seconds": -1.0}, {"memory_bytes": 0}, {"disk_bytes": math.nan}, {"memory_kind": "ram"}],
    ids=str,
)
def test_a_budget_of_nothing_is_refused(limits):
    with pytest.raises(UsageError, match="expected"):
        Budget(**limits)


@pytest.mark.parametrize("dataset", ["EMO", "GTZAN"])
def test_the_published_table_gives_the_studys_guidelines(dataset):
    """Whole tracks are best and fastest if memory allows; under little memory, mean at 10 s."""
    cells = published_candidates(published_rows(dataset))
    advice = advise(cells, rule="share", share=0.98, budget=Budget(memory_bytes=3.6 * GB))
    assert chosen(advice) == {
        "best": "full track",
        "fastest": "full track",
        "cheapest": "seg 10, mean",
        "within": "seg 10, mean",
    }
    best = max(item.value for item in cells)
    as_good = {item.name for item in cells if item.value >= 0.98 * best}
    assert {"full track", "seg 10, mean", "seg 30, mean"} <= as_good
    assert not any("transformer" in name for name in as_good)
    assert "seg 10, concat" not in {item.name for item in advice.front}
    text = advice_text(advice, width=80, seconds_are="s as published")
    assert "segmentation not effective in the released code" in text
    assert "what chance can do is not looked at" in text


def test_a_share_of_a_negative_score_says_nothing():
    cells = [
        Candidate(name=name, value=value, costs=Costs(memory_kind="rss", memory_bytes=memory))
        for name, value, memory in (("a", -0.1, 2.0), ("b", -0.2, 1.0))
    ]
    advice = advise(cells, rule="share")
    assert chosen(advice)["cheapest"] == "a"
    assert any("share of it says nothing" in text for text in advice.statements)


def test_costs_are_read_of_a_ledger_and_unknown_where_it_is_silent():
    ledger = {
        "wait_seconds": 1.0, "encode_seconds": 8.0, "write_seconds": 1.0, "load_seconds": 99.0,
        "audio_seconds": 1800.0, "peak_rss_bytes": 2e9, "n_lengths": 3, "devices": ["cpu"],
    }  # fmt: skip
    costs = costs_of(ledger, disk_bytes=5.0)
    assert (costs.memory_kind, costs.memory_bytes, costs.memory_is_bound) == ("rss", 2e9, True)
    assert (costs.seconds, costs.disk_bytes, costs.device) == (20.0, 5.0, "cpu")
    on_gpu = costs_of({**ledger, "peak_vram_allocated_bytes": 3e9})
    assert (on_gpu.memory_kind, on_gpu.memory_bytes, on_gpu.memory_is_bound) == ("vram", 3e9, False)
    for name in ("wait_seconds", "audio_seconds"):
        assert (
            costs_of({key: value for key, value in ledger.items() if key != name}).seconds is None
        )
    assert costs_of({**ledger, "audio_seconds": 0.0}).seconds is None  # all rows were copied
    assert costs_of({}) == Costs()


numbers = st.one_of(st.none(), st.integers(1, 4).map(float))


@st.composite
def cells_and_limit(draw):
    n = draw(st.integers(1, 7))
    cells = [
        Candidate(
            name=f"c{place}",
            value=draw(st.sampled_from([0.1, 0.5, 0.98, 0.99, 1.0, math.nan])),
            n_features=draw(st.integers(1, 2)),
            costs=Costs(
                memory_kind=(kind := draw(st.sampled_from(["vram", "rss", ""]))),
                memory_bytes=draw(st.integers(1, 4).map(float)) if kind else None,
                memory_is_bound=draw(st.booleans()) and kind == "rss",
                seconds=draw(numbers),
                disk_bytes=draw(numbers),
            ),
        )
        for place in range(n)
    ]
    if all(math.isnan(item.value) for item in cells):
        cells[0] = dataclasses.replace(cells[0], value=0.5)
    limit = {name: draw(numbers) for name in ("memory_bytes", "seconds", "disk_bytes")}
    return cells, Budget(memory_kind="vram", **limit)


def dominates(one, other, cells):
    """The obvious definition, over costs that any cell knows."""
    pairs = [(one.value, other.value)]
    for name in ("memory_bytes", "seconds", "disk_bytes"):
        if all(getattr(c.costs, name) is None for c in cells if not math.isnan(c.value)):
            continue
        mine, theirs = getattr(one.costs, name), getattr(other.costs, name)
        if mine is None or theirs is None:
            return False
        pairs.append((-mine, -theirs))
    same_kind = one.costs.memory_kind == other.costs.memory_kind
    return same_kind and all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@given(cells_and_limit())
def test_a_dominated_cell_is_never_recommended(drawn):
    cells, budget = drawn
    for choice in advise(cells, budget=budget, rule="share").choices:
        assert not any(dominates(other, choice.candidate, cells) for other in cells)


@given(cells_and_limit(), st.sampled_from(["memory_bytes", "seconds", "disk_bytes"]), numbers)
def test_a_wider_budget_never_makes_the_best_in_it_worse(drawn, name, more):
    cells, budget = drawn
    limit = getattr(budget, name)
    wider = None if more is None or limit is None else limit + more
    narrow = advise(cells, budget=budget, rule="share").of("within")
    wide_budget = dataclasses.replace(budget, **{name: wider})
    wide = advise(cells, budget=wide_budget, rule="share").of("within")
    if narrow is not None and wide_budget.is_limited:
        assert wide.candidate.value >= narrow.candidate.value


@given(cells_and_limit(), st.randoms(use_true_random=False))
def test_the_order_of_cells_does_not_matter(drawn, random):
    cells, budget = drawn
    shuffled = list(cells)
    random.shuffle(shuffled)
    first, second = (advise(some, budget=budget, rule="share") for some in (cells, shuffled))
    assert chosen(first) == chosen(second)
    assert [c.name for c in first.front] == [c.name for c in second.front]
    assert first.statements == second.statements


def test_the_order_of_cells_does_not_matter_to_the_margin_rule():
    told = [
        advise(some, budget=Budget(seconds=25.0)) for some in itertools.permutations(PLANTED[:3])
    ]
    assert len({str(advice_rows(advice)) for advice in told}) == 1
    assert len({advice.statements for advice in told}) == 1


@pytest.mark.parametrize("width", [40, 80])
def test_the_text_fits_its_width_with_hostile_names(width):
    from rich.cells import cell_len

    names = ["東京" * 40, "[red]\x1b[31m" + "x" * 200, "a b " * 50]
    cells = [
        dataclasses.replace(item, name=name, flags=(name,), same=(name,))
        for item, name in zip(PLANTED, names, strict=False)
    ]
    text = advice_text(advise(cells, budget=Budget(memory_bytes=6 * GB)), width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert "[red]" in text.replace("\n", "").replace(" ", "")


def test_text_says_n_intervals_bounds_and_what_n_could_show():
    text = advice_text(advise(PLANTED, budget=Budget(memory_bytes=2 * GB)), width=200)
    assert "test 0.900 [0.00, 1.00] (400 tracks); validation 0.900" in text
    assert "loses 0.003 on validation, at most 0.0" in text
    assert "400 tracks could show 0.0" in text
    assert "best within 2 GB VRAM" in text
    assert "as good: loses less than 0.02 of the score, with 95 % confidence" in text


def test_rows_say_what_the_text_says():
    rows = advice_rows(advise(PLANTED, budget=Budget(memory_bytes=2 * GB)))
    by_name = {row["name"]: row for row in rows}
    assert by_name["mean"]["roles"] == ["cheapest"]
    assert by_name["mean"]["val_loss"] == pytest.approx(1 / N)
    assert 0 < by_name["mean"]["val_loss_bound"] < 0.02
    assert by_name["full"]["val_loss"] is None
    assert by_name["poor"]["fits"] is True
    assert by_name["poor"]["memory_kind"] == "vram"
    assert np.isfinite(by_name["poor"]["test_smallest"])
