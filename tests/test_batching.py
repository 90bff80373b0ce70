"""How many segments go together: what is worth it, what fits, and no bit of it in the vectors."""

from __future__ import annotations

import dataclasses
import itertools
import logging

import numpy as np
import pytest
from world import RATE, ToyEncoder, World, toy_spec

from tune_cache.cache.batching import (
    FREE_SHARE,
    batch_size_for,
    choose_batch_size,
    fitting_batch,
    longest_segment,
    wanted_items,
)
from tune_cache.cache.encode import Batcher
from tune_cache.cache.extract import extract_stores
from tune_cache.encoders.muq import NANO
from tune_cache.errors import EncoderError
from tune_cache.segments import cut, segment_spec


@dataclasses.dataclass
class Sized(ToyEncoder):
    """A toy that takes 1,000 bytes for each item, and knows it."""

    max_memory_bytes: int | None = None
    free: int | None = None
    together: int = 1

    def peak_bytes(self, n_items: int, n_samples: int) -> int:
        return 1000 * n_items

    def grain(self, n_samples: int) -> int:
        return self.together

    def free_bytes(self) -> int | None:
        return self.free


def halves(count: int) -> list[int]:
    return [count] if count == 1 else [count, *halves(-(-count // 2))]


def test_choice_is_the_largest_half_that_fits():
    grid = itertools.product(range(1, 34), (1, 2, 5), (None, *range(500, 35_000, 1700)))
    for units, grain, limit in grid:
        wanted = units * grain
        sizes = [n * grain for n in halves(units)]
        fits = [n for n in sizes if limit is None or 1000 * n <= limit]
        # the budget of the user goes below the grain, and is an error in the end
        allowed = {"grain": grain, "allowed_bytes": limit}
        below = [n for n in halves(grain) if limit is None or 1000 * n <= limit]
        if not fits and not below:
            with pytest.raises(EncoderError, match="one segment alone needs 0 MB") as error:
                choose_batch_size(wanted, lambda n: 1000 * n, **allowed)
            assert "--max-memory" in error.value.hint
        else:
            found = choose_batch_size(wanted, lambda n: 1000 * n, **allowed)
            assert found == max(fits or below)
        # free memory never does
        free = None if limit is None else int(limit / FREE_SHARE) + 1
        found = choose_batch_size(wanted, lambda n: 1000 * n, grain=grain, free_bytes=free)
        assert found == max(fits or [grain])


def test_the_stricter_of_budget_and_free_memory_decides():
    for allowed, free, size in ((8000, 99_000, 8), (99_000, 10_000, 8), (3000, 10_000, 2)):
        found = choose_batch_size(16, lambda n: 1000 * n, allowed_bytes=allowed, free_bytes=free)
        assert found == size
    # 1,000 bytes are free, which costs the encoder its batch but not the run
    assert choose_batch_size(16, lambda n: 1000 * n, grain=4, free_bytes=1000) == 4
    found = choose_batch_size(
        16, lambda n: 1000 * n, grain=4, free_bytes=1000, allowed_bytes=50_000
    )
    assert found == 4


@pytest.mark.parametrize("n_samples", [2400, 72_000, 240_000, 720_000, 7_200_000])
@pytest.mark.parametrize("grain", [1, 3, 10])
def test_what_is_worth_it_is_seconds_of_audio_in_multiples_of_the_grain(n_samples, grain):
    for on_cuda, seconds in ((False, 40), (True, 160)):
        found = wanted_items(n_samples=n_samples, sample_rate=24_000, on_cuda=on_cuda, grain=grain)
        assert found % grain == 0
        assert found == grain or found * n_samples <= seconds * 24_000
        assert (found + grain) * n_samples > seconds * 24_000


def test_a_gpu_takes_more_only_where_its_memory_is_known():
    size = {"n_samples": RATE, "sample_rate": RATE}
    for device, free, expected in (("cpu", 10**9, 40), ("cuda:1", 10**9, 160), ("cuda", None, 40)):
        assert fitting_batch(Sized(), **size, device=device, free_bytes=free) == expected
    assert fitting_batch(Sized(), **size, device="cuda", free_bytes=30_000) == 20
    assert fitting_batch(Sized(), **size, asked=33, free_bytes=10) == 33
    assert fitting_batch(Sized(max_memory_bytes=9000), **size, asked=33) == 9
    assert fitting_batch(None, **size, device="cuda", free_bytes=10**9) == 40


def test_longest_segment_is_that_of_the_grid():
    tracks = [0.004, 0.3, 1.0, 2.55]
    for seconds, tail in itertools.product((0.2, 0.7, 2, 9, "full"), ("keep", "drop", "pad")):
        spec = segment_spec(seconds, sample_rate_hz=1000, min_samples=50, tail=tail)
        grids = [cut(round(1000 * s), spec) for s in tracks if 1000 * s >= 50]
        longest = max(segment.n_samples for grid in grids for segment in grid)
        if tail == "pad":
            longest = max(longest, spec.length_samples)
        assert longest_segment(tracks, spec) == longest
    assert longest_segment([], spec) == longest_segment([0.004], spec) == 50


# -- the batcher --------------------------------------------------------------------------------


class Watched(Sized):
    """Remembers the batches it was given."""

    def embed(self, waveforms):
        self.seen = [*getattr(self, "seen", []), len(waveforms)]
        return super().embed(waveforms)


def test_batches_fit_the_budget():
    for budget, asked, sizes in (
        (None, 0, [40, 10]),
        (12_000, 0, [10] * 5),
        (12_000, 18, [9] * 5 + [5]),
        (12_000, 4, [4] * 12 + [2]),
    ):
        encoder = Watched(max_memory_bytes=budget)
        Batcher(encoder, asked).run([np.ones(RATE, np.float32)] * 50)
        assert encoder.seen == sizes


def test_free_memory_is_looked_at_once_a_length():
    encoder = Watched(free=12_500)
    batcher = Batcher(encoder)
    assert batcher.size_for(RATE) == 10
    encoder.free = 2000  # of which batches already made have taken some
    assert batcher.size_for(RATE) == 10
    assert batcher.size_for(2 * RATE) == 1


def test_running_out_of_memory_still_halves_what_was_chosen():
    class Full(Watched):
        def embed(self, waveforms):
            if len(waveforms) > 3:
                raise MemoryError
            return super().embed(waveforms)

    encoder = Full(max_memory_bytes=12_000)
    batcher = Batcher(encoder)
    batcher.run([np.ones(RATE, np.float32)] * 11)  # ten fit by the prediction, five do not either
    assert (encoder.seen, batcher.n_backoffs) == ([2] * 5 + [1], 2)


def test_too_little_free_memory_is_a_warning_not_the_end(caplog):
    with caplog.at_level(logging.WARNING):
        assert batch_size_for(Sized(free=900, together=4), RATE) == 4
    assert "consider --max-memory" in caplog.text
    caplog.clear()
    batch_size_for(Sized(free=10**9), RATE)
    assert not caplog.text


def test_free_memory_changes_no_bit_of_short_segments_on_the_cpu(monkeypatch):
    nano = NANO.load(device="cpu")
    n_samples = 48_000  # five share a matrix product
    assert nano.grain(n_samples) == 5
    rng = np.random.default_rng(1)
    waveforms = list(rng.normal(0, 0.1, (23, n_samples)).astype(np.float32))
    sizes, results = [], []
    for free in (None, 1 << 40, 15_000_000, 1):
        monkeypatch.setattr(nano, "free_bytes", lambda free=free: free)
        batcher = Batcher(nano)
        sizes.append(batcher.size_for(n_samples))
        results.append(batcher.run(waveforms)["mean"])
    assert sizes == [20, 20, 5, 5]
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_a_budget_too_small_is_refused_before_anything_is_decoded(tmp_path):
    world = World.make(tmp_path)
    encoder = Sized(max_memory_bytes=999)

    def open_decoders(*arguments):
        pytest.fail("decoders were opened")

    with pytest.raises(EncoderError, match="one segment alone needs"):
        extract_stores(
            world.tracks(),
            [toy_spec(encoder)],
            layout=world.layout,
            info=encoder.info(),
            load=lambda: encoder,
            open_decoders=open_decoders,
        )
    # what is there already needs no memory
    world.extract()
    (hit,) = extract_stores(
        world.tracks(),
        [toy_spec(encoder)],
        layout=world.layout,
        info=encoder.info(),
        load=lambda: pytest.fail("loaded"),
        open_decoders=open_decoders,
    )
    assert hit.hit
