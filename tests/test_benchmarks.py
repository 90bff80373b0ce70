"""What the benchmark scripts compute beside the clock."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def test_a_section_replaces_the_one_of_its_name_and_leaves_the_others(tmp_path: Path) -> None:
    from page import write_section

    page = tmp_path / "RESULTS.md"
    for name, body in (("One", "a"), ("Two", "b\n\n### part"), ("One", "c"), ("Two", "d")):
        write_section(name, body, page=page)
    text = page.read_text("utf-8")
    assert text.count("## One") == text.count("## Two") == 1
    assert text.startswith("# Measured")
    assert text.index("## One\n\nc\n") < text.index("## Two\n\nd\n")
    assert "part" not in text
    assert text.endswith("d\n")


def test_a_table_has_as_many_cells_in_every_line() -> None:
    from page import table

    lines = table(("name", "s"), [("x", 1), ("y", 2.5)]).splitlines()
    assert lines[1] == "| --- | ---: |"
    assert {line.count("|") for line in lines} == {3}


def test_the_count_of_operations_is_that_of_the_model_run_under_a_counter() -> None:
    import torch
    from encoder import gigaflops
    from torch.utils.flop_counter import FlopCounterMode

    # one convolution of the front end, at the shape that 10 s have there
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.conv2d(
            torch.empty(1, 512, 500, 64, device="meta"),
            torch.empty(512, 512, 3, 3, device="meta"),
            padding=1,
        )
    convolution = counter.get_total_flops() / 1e9
    front_end = gigaflops(10, n_blocks=0)
    # two of one channel, three of a quarter of the places, and the projection
    beside = convolution / 512 * 2 + convolution * 3 / 4 + 2 * 250 * 512 * 32 * 1024 / 1e9
    assert front_end == pytest.approx(convolution + beside, rel=1e-6)
    assert gigaflops(10) == pytest.approx(418, rel=0.02)  # as torch counts the package's forward


def test_every_benchmark_is_run_by_one_command() -> None:
    makefile = (FOLDER.parent / "Makefile").read_text("utf-8")
    helpers = {"page.py", "stock.py"}
    scripts = {path.name for path in FOLDER.glob("*.py")} - helpers
    assert scripts
    for script in sorted(scripts):
        assert f"benchmarks/{script}" in makefile, script


def test_probes_are_measured_at_the_sizes_of_the_published_splits() -> None:
    from probe import EMO, GTZAN

    assert (EMO.n_tracks, EMO.n_segments) == (744, 5)
    assert (GTZAN.n_tracks, GTZAN.n_segments) == (930, 3)


def test_made_up_vectors_carry_their_labels_best_at_one_layer(monkeypatch) -> None:
    import dataclasses

    import numpy as np
    import probe

    monkeypatch.setattr(probe, "DIM", 32)
    size = dataclasses.replace(probe.GTZAN, splits=(200, 50, 50), n_segments=2)
    labels = [size.label(number, np.random.default_rng(0)) for number in range(size.n_tracks)]
    values = probe.vectors(size, labels)
    assert values.shape == (300, 2, 13, 32)
    classes = np.array([int(label[5:]) for label in labels])

    def spread(layer: int) -> float:
        """Of class means, over all spread."""
        rows = values[:, :, layer].astype(float).mean(axis=1)
        means = np.array([rows[classes == k].mean(axis=0) for k in range(10)])
        return float((means.var(axis=0) / rows.var(axis=0)).mean())

    assert spread(8) > spread(0)
