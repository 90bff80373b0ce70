"""The grid keeps its promises for any track, length, hop and tail policy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cache.errors import AudioError, UsageError
from tune_cache.segments import Segment, coverage_samples, cut, parse_seg, segment_spec, take
from tune_cache.specs import SegmentSpec

RATE = 24_000
MUQ_MINIMUM = 1025
GTZAN_SAMPLES = round(30.013 * RATE)


@st.composite
def grids(draw) -> tuple[int, SegmentSpec]:
    """A track and a grid, of lengths around each other's edges."""
    length = draw(st.integers(1, 60))
    spec = SegmentSpec(
        sample_rate_hz=1,
        length_samples=length,
        hop_samples=draw(st.integers(1, 90)),
        tail=draw(st.sampled_from(["keep", "drop", "pad"])),
        min_tail_samples=draw(st.integers(0, length)),
        min_samples=draw(st.integers(1, length)),
    )
    return draw(st.integers(spec.min_samples, 400)), spec


def slow_cut(n_samples: int, spec: SegmentSpec) -> list[tuple[int, int]]:
    """The policy in DESIGN's words, one start after another."""
    rows: list[tuple[int, int]] = []
    covered = 0
    for start in range(0, n_samples, spec.hop_samples):
        stop = min(start + spec.length_samples, n_samples)
        is_full = stop - start == spec.length_samples
        is_tail = (
            spec.tail != "drop"
            and stop > covered
            and stop - start >= max(spec.min_tail_samples, spec.min_samples)
        )
        if is_full or is_tail or not rows:
            rows.append((start, stop - start))
            covered = stop
    return rows


@given(grids())
def test_cut_equals_the_policy_written_out(grid):
    n_samples, spec = grid
    assert [(s.start_sample, s.n_samples) for s in cut(n_samples, spec)] == slow_cut(*grid)


@given(grids())
def test_segments_are_integers_inside_the_track_on_the_grid(grid):
    n_samples, spec = grid
    segments = cut(n_samples, spec)
    for index, segment in enumerate(segments):
        assert type(segment.start_sample) is int
        assert type(segment.n_samples) is int
        assert segment.start_sample == index * spec.hop_samples
        assert spec.min_samples <= segment.n_samples <= spec.length_samples
        assert segment.stop_sample <= n_samples
    assert all(segment.n_samples == spec.length_samples for segment in segments[:-1])


@given(grids())
def test_coverage_counts_every_covered_sample_once(grid):
    n_samples, spec = grid
    covered = np.zeros(n_samples, bool)
    segments = cut(n_samples, spec)
    for segment in segments:
        covered[segment.start_sample : segment.stop_sample] = True
    assert coverage_samples(segments) == coverage_samples(segments[::-1]) == covered.sum()


@given(grids())
def test_without_gaps_only_a_short_tail_is_left_out(grid):
    n_samples, spec = grid
    if spec.hop_samples > spec.length_samples:
        return
    left_out = n_samples - coverage_samples(cut(n_samples, spec))
    if spec.tail == "drop":
        assert left_out < max(spec.hop_samples, spec.length_samples)
    else:
        assert left_out < max(spec.min_tail_samples, spec.min_samples, 1)


@given(grids())
def test_every_segment_but_the_first_adds_samples(grid):
    segments = cut(*grid)
    for before, after in itertools.pairwise(segments):
        assert after.stop_sample > before.stop_sample


@given(st.integers(MUQ_MINIMUM, 10 * RATE * 60), st.sampled_from([10, 30, 60]))
def test_shortest_tail_of_zero_gives_the_studys_count(n_samples, seconds):
    spec = segment_spec(seconds, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM, min_tail_seconds=0)
    n_study = math.ceil(n_samples / (seconds * RATE))
    tail = n_samples % (seconds * RATE)
    expected = n_study - (n_study > 1 and 0 < tail < MUQ_MINIMUM)
    assert len(cut(n_samples, spec)) == expected


@pytest.mark.parametrize(
    ("tail", "min_tail", "expected"),
    [("keep", None, 3), ("keep", 0, 3), ("drop", None, 3), ("pad", None, 3)],
)
def test_gtzan_is_three_segments_of_ten_seconds(tail, min_tail, expected):
    spec = segment_spec(
        10, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM, tail=tail, min_tail_seconds=min_tail
    )
    assert len(cut(GTZAN_SAMPLES, spec)) == expected


def test_gtzan_would_have_a_fourth_segment_of_320_samples_without_a_minimum():
    spec = segment_spec(10, sample_rate_hz=RATE, min_samples=1, min_tail_seconds=0)
    assert [s.n_samples for s in cut(GTZAN_SAMPLES, spec)] == [240_000] * 3 + [312]


def test_there_is_no_drift_over_ten_hours():
    spec = segment_spec(0.1, sample_rate_hz=44_100, min_samples=1)
    last = cut(36_000 * 44_100, spec)[-1]
    assert last == Segment(359_999 * 4410, 4410)


@pytest.mark.parametrize("tail", ["keep", "drop", "pad"])
def test_a_track_shorter_than_a_segment_is_its_only_segment(tail):
    spec = segment_spec(10, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM, tail=tail)
    assert cut(MUQ_MINIMUM, spec) == (Segment(0, MUQ_MINIMUM),)


def test_full_takes_any_track_as_one():
    spec = segment_spec("full", sample_rate_hz=RATE, min_samples=MUQ_MINIMUM)
    assert cut(123_456_789, spec) == (Segment(0, 123_456_789),)
    assert spec.is_full


@pytest.mark.parametrize("seconds", [10, "full"])
def test_a_track_below_the_encoders_minimum_fails_with_its_length(seconds):
    spec = segment_spec(seconds, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM)
    with pytest.raises(AudioError, match=r"'a/b' has 1024 samples .* at least the 1025") as caught:
        cut(MUQ_MINIMUM - 1, spec, track_id="a/b")
    assert (caught.value.reason, caught.value.track_id) == ("too-short", "a/b")


def test_a_tail_inside_the_last_full_segment_is_no_segment():
    spec = SegmentSpec(sample_rate_hz=1, length_samples=10, hop_samples=3)
    assert [s.start_sample for s in cut(16, spec)] == [0, 3, 6]
    assert [s.start_sample for s in cut(17, spec)] == [0, 3, 6, 9]


def test_a_long_hop_leaves_gaps_that_coverage_shows():
    spec = segment_spec(1, sample_rate_hz=10, min_samples=1, hop_seconds=5)
    segments = cut(100, spec)
    assert [s.start_sample for s in segments] == [0, 50]
    assert coverage_samples(segments) == 20


def test_take_is_a_view_except_under_pad():
    samples = np.arange(25, dtype=np.float32)
    keep = SegmentSpec(sample_rate_hz=1, length_samples=10, hop_samples=10)
    pad = SegmentSpec(sample_rate_hz=1, length_samples=10, hop_samples=10, tail="pad")
    *_, tail = cut(25, keep)
    assert np.shares_memory(take(samples, tail, keep), samples)
    assert take(samples, tail, keep).tolist() == [20, 21, 22, 23, 24]
    padded = take(samples, tail, pad)
    assert padded.tolist() == [20, 21, 22, 23, 24, 0, 0, 0, 0, 0]
    assert padded.dtype == np.float32
    assert np.shares_memory(take(samples, cut(25, pad)[0], pad), samples)


def test_settings_that_change_no_cut_change_no_spec():
    common = {"sample_rate_hz": RATE, "min_samples": 1}
    assert segment_spec("full", tail="pad", **common) == segment_spec("full", **common)
    assert segment_spec(10, tail="drop", min_tail_seconds=3, **common) == segment_spec(
        10, tail="drop", **common
    )
    assert segment_spec(10, hop_seconds=10, **common) == segment_spec(10, **common)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(5, 1.0), (10, 1.0), (30, 3.0), (60, 6.0), (0.5, 0.5)]
)
def test_shortest_tail_is_a_second_or_a_tenth(seconds, expected):
    spec = segment_spec(seconds, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM)
    assert spec.min_tail_samples == expected * RATE


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seconds": 10_000.0}, r"10000\.0 s is longer than an hour: milliseconds\?"),
        ({"seconds": 0.0}, r"segment length is 0\.0 s, expected a positive"),
        ({"seconds": -1.0}, "expected a positive"),
        ({"seconds": math.nan}, "expected a positive"),
        ({"seconds": math.inf}, "expected a positive"),
        ({"seconds": 0.01}, "at least the 1025 samples"),
        ({"seconds": 10, "hop_seconds": 5000.0}, "hop of 5000.0 s .* milliseconds"),
        ({"seconds": 10, "hop_seconds": 0.0}, "hop is 0.0 s"),
        ({"seconds": "full", "hop_seconds": 5.0}, "whole tracks have none"),
        ({"seconds": 10, "min_tail_seconds": 1000.0}, "milliseconds"),
        ({"seconds": 10, "min_tail_seconds": 10.1}, "0 to the segment length 10 s"),
        ({"seconds": 10, "min_tail_seconds": -0.1}, "0 to the segment length"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_an_implausible_setting_is_refused_with_a_suspicion(arguments, said):
    with pytest.raises(UsageError, match=said) as caught:
        segment_spec(**arguments, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("seconds", "advised"),
    [(10_000.0, "as 10;"), (3.6e6, "as 3600;"), (3.7e6, "as 10;"), (1e9, "as 10;")],
)
def test_what_is_advised_for_too_long_a_segment_is_not_too_long(seconds, advised):
    with pytest.raises(UsageError, match="longer than an hour") as caught:
        segment_spec(seconds, sample_rate_hz=RATE, min_samples=MUQ_MINIMUM)
    assert advised in caught.value.hint
    assert ("milliseconds" in str(caught.value)) == (seconds <= 3.6e6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("30", 30.0), ("0.5", 0.5), (" 10 ", 10.0), ("full", "full"), ("FULL", "full")],
)
def test_seg_reads_seconds_and_full(text, expected):
    assert parse_seg(text) == expected


@pytest.mark.parametrize("text", ["", "ten", "10s", "nan", "inf", "-5", "30000"])
def test_seg_refuses_what_is_neither(text):
    with pytest.raises(UsageError):
        parse_seg(text)
