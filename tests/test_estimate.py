"""What `tune estimate` says, held against what `tune extract` then does."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_muq_golden as golden
import numpy as np
import pytest
from command_line import tune
from small_dataset import make_home
from world import LENGTHS, MIN_SAMPLES, RATE, ToyEncoder, World, arrays_of, toy_spec

import tune_cache
from tune_cache.cache import plan, speed
from tune_cache.cache.ahead import Ahead, Work, count_work, look_ahead, store_n_bytes
from tune_cache.cache.forecast import Batch, Measured, batch_for, forecast, together_seconds
from tune_cache.cache.plan import PlannedTrack
from tune_cache.cache.speed import Speed, measure_decoding, measure_encoding
from tune_cache.commands.estimate import doubts
from tune_cache.errors import EncoderError
from tune_cache.segments import segment_spec
from tune_cache.specs import SegmentSpec

FIELDS = {
    "seg", "found", "tracks_to_encode", "tracks_copied", "tracks_resumed", "tracks_failing",
    "segments", "segments_to_encode", "audio_hours", "x_real_time", "assumed", "encode_seconds",
    "load_seconds", "decode_x_real_time", "seconds", "device", "batch_size", "peak_bytes",
    "weights_bytes", "max_memory_bytes", "free_bytes", "store_bytes", "store",
}  # fmt: skip


@pytest.fixture
def world(tmp_path) -> World:
    return World.make(tmp_path)


def planned(world: World) -> list[PlannedTrack]:
    """The world's tracks with the lengths of their headers."""
    return [dataclasses.replace(t, seconds=t.seconds / 60) for t in world.tracks()]


def ahead_of(world: World, seconds: float | str = 1.0, **changes) -> Ahead:
    spec = toy_spec(world.encoder, seconds, **changes)
    return look_ahead(planned(world), spec, layout=world.layout, dim=world.encoder.dim)


def track(name: str, seconds: float, sha256: str = "ab" * 32) -> PlannedTrack:
    return PlannedTrack(track_id=name, path=Path(name), audio_sha256=sha256, seconds=seconds)


# -- what is left to do: pure -------------------------------------------------------------------


def slow_grid(n: int, spec: SegmentSpec) -> list[int]:
    """Lengths of the segments of n samples, by walking along the track."""
    if n < spec.min_samples:
        return []
    if spec.is_full or n <= spec.length_samples:
        return [n]
    found, covered, start = [], 0, 0
    while start < n:
        stop = min(start + spec.length_samples, n)
        is_tail = stop - start < spec.length_samples
        kept = stop - start >= max(spec.min_tail_samples, spec.min_samples)
        if not is_tail or (spec.tail != "drop" and kept and stop > covered):
            found.append(stop - start)
        covered = max(covered, stop)
        if is_tail:
            break
        start += spec.hop_samples
    return found


@pytest.mark.parametrize("tail", ["keep", "drop", "pad"])
@pytest.mark.parametrize("min_tail", [None, 0, 0.05])
def test_counts_are_those_of_walking_along_each_track(tail, min_tail):
    rng = np.random.default_rng(3)
    lengths = [*range(3, 24), *rng.integers(24, 200, 12).tolist()]
    tracks = [track(f"{n}", n / 100) for n in lengths]
    settings = {"sample_rate_hz": 100, "min_samples": 5}
    for seconds, hop in itertools.product((0.1, 0.17, 0.5, "full"), (None, 0.05, 0.1, 0.3)):
        if seconds == "full" and hop is not None:
            continue
        segments = segment_spec(
            seconds, hop_seconds=hop, tail=tail, min_tail_seconds=min_tail, **settings
        )
        spec = toy_spec(ToyEncoder(), segments=segments)
        grids = [slow_grid(n, segments) for n in lengths]
        given = sorted(
            max(n, segments.length_samples) if tail == "pad" else n for grid in grids for n in grid
        )
        work = count_work(tracks, spec, rows_copied={})
        assert work.n_segments == work.n_encode_segments == len(given)
        assert work.n_failing == sum(n < 5 for n in lengths)
        assert work.n_encode == len(lengths) - work.n_failing
        assert work.audio_seconds == pytest.approx(sum(map(sum, grids)) / 100)
        assert work.input_seconds == pytest.approx(sum(given) / 100)
        assert work.longest_samples == given[-1]
        half = [n for n in given if n <= work.typical_samples]
        assert sum(half) >= sum(given) / 2 > sum(n for n in half if n < work.typical_samples)


def test_what_costs_nothing_is_not_counted_as_work():
    spec = toy_spec(ToyEncoder())
    tracks = [track("copied", 5), track("done", 3), track("new", 2), track("gone", 0, sha256="")]
    work = count_work(tracks, spec, rows_copied={"copied": 7}, done={"done"})
    assert (work.n_copied, work.n_done, work.n_encode, work.n_failing) == (1, 1, 1, 1)
    assert (work.n_segments, work.n_encode_segments) == (7 + 3 + 2, 2)
    assert work.track_seconds == work.audio_seconds == 2
    assert count_work([], spec, rows_copied={}) == Work()


# -- what is left to do: as extract then finds --------------------------------------------------


@pytest.mark.parametrize("tail", ["keep", "drop", "pad"])
def test_extract_makes_what_was_foreseen(world, tail):
    segments = [
        segment_spec(
            seconds, sample_rate_hz=RATE, min_samples=MIN_SAMPLES, hop_seconds=hop, tail=tail
        )
        for seconds, hop in ((0.5, None), (1.0, 0.3), (3.0, 5.0), ("full", None))
    ]
    specs = [toy_spec(world.encoder, segments=item) for item in segments]
    tracks = planned(world)
    foreseen = [look_ahead(tracks, s, layout=world.layout, dim=8) for s in specs]
    outcomes = world.extract_specs(specs, planned=tracks)
    for before, outcome in zip(foreseen, outcomes, strict=True):
        assert not before.found
        assert before.path == outcome.path
        assert before.work.n_encode == outcome.n_encoded == len(LENGTHS)
        assert before.work.n_segments == outcome.store.n_segments
        assert before.work.audio_seconds == pytest.approx(outcome.ledger["audio_seconds"])
        after = look_ahead(tracks, outcome.spec, layout=world.layout, dim=8)
        assert (after.found, after.path, after.to_decode) == (True, before.path, ())
        assert (after.n_bytes, after.work.n_segments) == (before.n_bytes, before.work.n_segments)
        assert after.work.n_encode == 0


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("poolings", [("mean",), ("mean", "max", "std")])
@pytest.mark.parametrize("layers", [(1,), (0, 1, 2)])
def test_bytes_of_a_store_are_those_of_its_files(world, dtype, poolings, layers):
    encoder = dataclasses.replace(world.encoder, layers=layers, poolings=poolings)
    world.encoder = encoder
    tiny = segment_spec(0.0125, sample_rate_hz=RATE, min_samples=MIN_SAMPLES)
    for changes in ({"segments": tiny}, {}):  # several shards and a part of one; one chunk
        spec = toy_spec(encoder, dtype=dtype, **changes)
        before = look_ahead(planned(world), spec, layout=world.layout, dim=encoder.dim)
        (outcome,) = world.extract_specs([spec], planned=planned(world))
        files = arrays_of(outcome.path)
        found = sum(len(data) for name, data in files.items() if not name.endswith("zarr.json"))
        assert before.n_bytes == found


def test_an_empty_store_would_have_no_embeddings():
    spec = toy_spec(ToyEncoder())
    assert store_n_bytes(spec, dim=8, n_segments=0, track_ids=[]) == 3 * (8 + 4)


def test_rows_of_other_stores_and_of_the_journal_are_foreseen(world, monkeypatch):
    monkeypatch.setattr(plan, "UNIT_SECONDS", 5.0)
    names, spec = sorted(LENGTHS), toy_spec(world.encoder)
    world.extract(names=names[:3])
    found = ahead_of(world)
    assert (found.found, found.work.n_copied, found.work.n_encode) == (False, 3, 5)
    assert set(found.to_decode) == set(names[3:])
    (part,) = world.extract_specs([spec], part="2/3", planned=planned(world))
    assert part.store is None
    resumed = ahead_of(world)
    assert resumed.work.n_done == part.n_encoded > 0
    assert resumed.work.n_done + resumed.work.n_encode == 5
    assert resumed.work.n_segments == found.work.n_segments
    n_before = world.encoder.n_encoded()
    (rest,) = world.extract_specs([spec], planned=planned(world))
    assert rest.n_encoded == resumed.work.n_encode > 0
    assert world.encoder.n_encoded() - n_before == resumed.work.n_encode_segments


def test_tracks_without_segments_are_foreseen(world):
    shutil.copy(world.audio / "c/min.wav", world.audio / "c/short.wav")
    tracks = [
        dataclasses.replace(t, seconds=0.001) if t.track_id == "c/short.wav" else t
        for t in [*planned(world), track("gone", 0, sha256="")]
    ]
    work = look_ahead(tracks, toy_spec(world.encoder), layout=world.layout, dim=8).work
    assert work.n_failing == 2
    assert work.n_encode == len(LENGTHS)


# -- how long: pure -----------------------------------------------------------------------------


def work_ahead(name: str, *, input_seconds: float, track_seconds: float = 0.0) -> Ahead:
    work = Work(
        n_encode=1, input_seconds=input_seconds, track_seconds=track_seconds, longest_samples=800
    )
    return Ahead(spec=toy_spec(ToyEncoder()), path=Path(name), found=False, work=work, n_bytes=0)


def test_a_run_of_several_lengths_loads_and_decodes_once():
    items = [work_ahead(name, input_seconds=600, track_seconds=500) for name in "ab"]
    speeds = {item.path: Speed(x_real_time=20, n_samples=800, n_items=1) for item in items}
    cpu = Measured(speeds=speeds, load_seconds=3, decode_x_real_time=50)
    gpu = dataclasses.replace(cpu, device="cuda:0")
    for measured, alone, both in ((cpu, 3 + 30 + 5, 3 + 60 + 5), (gpu, 3 + 30, 3 + 60)):
        rows = [forecast(item, Batch(n_items=4), measured, n_workers=2) for item in items]
        assert [(row.encode_seconds, row.seconds) for row in rows] == [(30, alone)] * 2
        assert together_seconds(rows, measured, n_workers=2) == both
    slow = dataclasses.replace(gpu, decode_x_real_time=1)
    assert forecast(items[0], Batch(n_items=4), slow, n_workers=2).seconds == 3 + 250


def test_an_assumed_speed_is_all_that_counts_and_a_hit_costs_nothing():
    measured = Measured(assumed_x_real_time=120.0)
    row = forecast(work_ahead("a", input_seconds=600), Batch(n_items=4), measured)
    assert (row.seconds, row.x_real_time, row.speed) == (5, 120, None)
    hit = forecast(work_ahead("b", input_seconds=0), None, measured)
    assert (hit.seconds, hit.x_real_time) == (0, None)
    assert together_seconds([hit], measured) == 0


def test_batch_of_an_encoder_that_does_not_know_its_memory_goes_by_length():
    info = ToyEncoder().info()
    found = batch_for(work_ahead("a", input_seconds=1), None, info, device="cpu", asked=0, free=1)
    assert found == Batch(n_items=400)  # 40 s of 0.1 s
    asked = batch_for(work_ahead("a", input_seconds=1), None, info, device="cpu", asked=7, free=1)
    assert asked == Batch(n_items=7)


# -- how fast: measured -------------------------------------------------------------------------


class Clock:
    """Time that passes only in the encoder: a cost a sample, and more in a new shape."""

    def __init__(self, cost: float, first: float = 0.0) -> None:
        self.now, self.cost, self.first = 0.0, cost, first
        self.shapes: list[tuple[int, int]] = []

    def __call__(self) -> float:
        return self.now

    def encoder(self) -> ToyEncoder:
        clock = self

        class Timed(ToyEncoder):
            def embed(self, waveforms):
                if waveforms.shape not in clock.shapes:
                    clock.now += clock.first
                clock.shapes.append(waveforms.shape)
                clock.now += clock.cost * waveforms.size
                return ToyEncoder.embed(self, waveforms)

        return Timed()


@pytest.mark.parametrize("x_real_time", [0.1, 3.0, 40.0, 5000.0])
@pytest.mark.parametrize("first", [0.0, 2.0])
@pytest.mark.parametrize("seconds", [0.5, 10, 300])
def test_speed_is_that_of_the_clock_without_the_warm_up(x_real_time, first, seconds):
    clock = Clock(1 / (x_real_time * RATE), first)
    found = measure_encoding(
        clock.encoder(),
        np.ones(1000, np.float32),
        n_samples=int(seconds * RATE),
        n_items=4,
        clock=clock,
    )
    assert found.x_real_time == pytest.approx(x_real_time)
    assert clock.shapes[-1] == (found.n_items, found.n_samples)
    assert len(clock.shapes) <= 2 + 1 + speed.MOST_RUNS
    # bounded: warm-up of two shapes, two pieces, and the time for probing
    assert clock.now <= 2 * first + 2 * 2 / x_real_time + 1.5 * speed.PROBE_SECONDS
    whole = found.n_samples == int(seconds * RATE)
    assert whole == (seconds / x_real_time <= speed.PROBE_SECONDS / 2)
    if whole and 4 * seconds / x_real_time <= speed.PROBE_SECONDS / 2:
        assert found.n_items == 4


def test_a_clock_that_stands_still_divides_by_nothing():
    clock = Clock(0.0)
    found = measure_encoding(
        clock.encoder(), np.ones(9, np.float32), n_samples=800, n_items=2, clock=clock
    )
    assert 0 < found.x_real_time <= 1.001 * speed.FASTEST


def test_decoding_is_timed_on_some_tracks_that_decode(world):
    (world.audio / "a/broken.wav").write_bytes(b"no audio")
    tracks = planned(world)
    found = measure_decoding(tracks, sample_rate_hz=RATE, channels="mix")
    assert found.x_real_time > 0
    assert len(found.samples) >= min(LENGTHS.values())
    broken = [t for t in tracks if t.track_id == "a/broken.wav"]
    assert measure_decoding(broken, sample_rate_hz=RATE, channels="mix") is None
    assert measure_decoding([], sample_rate_hz=RATE, channels="mix") is None


# -- the verb -----------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch) -> None:
    """Measure for a moment instead of seconds."""
    monkeypatch.setattr(speed, "PROBE_SECONDS", 0.05)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


def rows_of(done) -> list[dict[str, object]]:
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"schema", "command", "dataset", "rows", "warnings"}
    assert (found["command"], found["dataset"]) == ("estimate", "small")
    return found["rows"]


def test_estimate_then_extract_then_nothing_is_left(home, tmp_path, brief):
    cache = ("--cache-dir", str(tmp_path / "cache"))
    lengths = ("--seg", "1", "--seg", "full", *cache)
    before = rows_of(tune(home, "estimate", *lengths, "--json"))
    made = json.loads(tune(home, "extract", *lengths, "--json").stdout)["rows"]
    after = rows_of(tune(home, "estimate", *lengths, "--json"))
    for row, done, hit in zip(before, made, after, strict=True):
        assert set(row) == set(hit) == FIELDS
        assert (row["seg"], row["store"]) == (done["seg"], done["store"])
        assert row["segments"] == row["segments_to_encode"] == done["segments"]
        assert (row["found"], row["tracks_to_encode"]) == (False, 24)
        assert row["x_real_time"] > 0
        assert row["encode_seconds"] == pytest.approx(
            3600 * row["audio_hours"] / row["x_real_time"]
        )
        assert row["seconds"] > row["encode_seconds"] + row["load_seconds"]
        assert (hit["found"], hit["tracks_to_encode"], hit["seconds"]) == (True, 0, 0)
        assert (hit["segments"], hit["store_bytes"]) == (row["segments"], row["store_bytes"])
    text = tune(home, "estimate", *lengths)
    assert "nothing to encode: tune extract would return at once" in text.stdout
    assert "dataset small: 24 tracks; encoder mel" in text.stderr


def test_estimate_says_how_long_on_what_and_that_it_is_an_estimate(home, brief):
    done = tune(home, "estimate", "--seg", "1", "--encoder", "muq-nano")
    assert done.returncode == 0, done.stderr
    assert "24 to encode" in done.stdout
    assert "on cpu" in done.stdout
    assert "its weights take 4.0 MB" in done.stdout
    assert "items together 10, mel frames 1000, frames 1024" in done.stdout
    assert "lengths of tracks are those of their headers" in done.stdout


def test_an_assumed_speed_loads_neither_encoder_nor_torch(home):
    for device in ("auto", "cuda"):
        script = (
            "import sys\n"
            "sys.argv = ['tune', 'estimate', '--seg', '1', '--encoder', 'muq-nano', '--json',\n"
            f"            '--assume-xrt', '120', '--device', {device!r}]\n"
            "from tune_cache.cli import main\n"
            "try: main()\nexcept SystemExit as stop: assert not stop.code\n"
            "assert not {'torch', 'muq', 'zarr', 'sklearn'} & sys.modules.keys()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, cwd=home
        )
        (row,) = rows_of(done)
        assert (row["x_real_time"], row["assumed"], row["load_seconds"]) == (120, True, 0)
        assert row["seconds"] == pytest.approx(3600 * row["audio_hours"] / 120)
        assert row["peak_bytes"] > 0
        assert row["weights_bytes"] > 0
    assert (row["device"], row["free_bytes"]) == ("cuda", None)


def test_a_budget_gives_batch_and_pieces_that_fit(home):
    asked = ("--encoder", "muq", "--encoder-path", str(golden.FOLDER), "--assume-xrt", "9")
    refused = tune(home, "estimate", "--seg", "full", *asked, "--max-memory", "1MB")
    least = re.search(r"allow it with --max-memory (\d+)MB", refused.stderr)
    assert least, refused.stderr
    usual, tight = (
        rows_of(tune(home, "estimate", "--seg", "full", *asked, *budget, "--json"))[0]
        for budget in ((), ("--max-memory", f"{least[1]}MB"))
    )
    assert usual["max_memory_bytes"] is None
    assert tight["peak_bytes"] <= tight["max_memory_bytes"] == int(least[1]) * 10**6
    assert tight["peak_bytes"] < usual["peak_bytes"]
    assert tight["mel_frames"] < usual["mel_frames"]


@pytest.mark.parametrize("verb", ["estimate", "extract"])
def test_a_budget_that_cannot_be_met_is_refused_before_anything_is_decoded(home, verb, monkeypatch):
    def refuse(*arguments, **keywords):
        pytest.fail("something was decoded")

    monkeypatch.setattr("tune_cache.audio.pool.DecodePool.submit", refuse)
    done = tune(home, verb, "--seg", "2", "--encoder", "muq-nano", "--max-memory", "5MB")
    assert done.returncode == 1
    assert done.stdout == ""
    needed = re.search(r"a segment of 2.0 s needs (\d+) MB above the weights", done.stderr)
    assert needed, done.stderr
    assert "expected at most 5 MB" in done.stderr
    assert f"--max-memory {needed[1]}MB" in done.stderr


def test_a_damaged_store_stops_estimate_as_it_stops_extract(home, tmp_path):
    common = ("--seg", "3", "--cache-dir", str(tmp_path / "cache"))
    assert tune(home, "extract", *common).returncode == 0
    (shard,) = (tmp_path / "cache/v1/mel").glob("seg3-*/embeddings/mean/c/0/0/0")
    shard.write_bytes(b"")
    for verb in ("extract", "estimate"):
        done = tune(home, verb, *common)
        assert done.returncode == 4, done.stderr
        assert "embeddings/mean/c/0/0/0" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (["--assume-xrt", "0"], "--assume-xrt is 0.0", "120 is 120 ×"),
        (["--assume-xrt", "-3"], "--assume-xrt is -3.0", "120 is 120 ×"),
        (["--assume-xrt", "nan"], "--assume-xrt is nan", "120 is 120 ×"),
        (["--assume-xrt", "inf"], "--assume-xrt is inf", "120 is 120 ×"),
        (["--max-memory", "lots"], "'lots'", "4GB"),
        (["--batch-size", "0.5"], "'0.5'", ""),
        (["--precision", "fp64"], "'fp64'", ""),
        (["--seg", "10000"], "longer than an hour", "milliseconds"),
        (["--seg", "full", "--hop", "5"], "--hop", "leave out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_a_sentence_and_a_remedy(home, arguments, error, hint):
    done = tune(home, "estimate", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert error in done.stderr
    assert hint in done.stderr


def test_what_the_figures_leave_open_is_said(home, brief, monkeypatch):
    monkeypatch.setattr("tune_cache.commands.estimate.free_bytes", lambda device: 5_000_000)
    done = tune(home, "estimate", "--seg", "3", "--encoder", "muq-nano", "--json")
    warnings = json.loads(done.stdout)["warnings"]
    assert any("MB above the weights, but 1 MB are left on cpu" in text for text in warnings)
    budget = tune(home, "estimate", "--max-memory", "1GB", "--assume-xrt", "5")
    assert "encoder mel does not know its memory: --max-memory is not obeyed" in budget.stderr


def test_a_segment_too_long_to_be_timed_is_said_to_be_slower():
    found = work_ahead("a", input_seconds=600)
    long = dataclasses.replace(found.work, typical_samples=100 * RATE)
    row = forecast(
        dataclasses.replace(found, work=long),
        Batch(n_items=1),
        Measured(speeds={Path("a"): Speed(x_real_time=2, n_samples=6 * RATE, n_items=1)}),
    )
    (said,) = doubts([row], ToyEncoder().info(), device="cpu", budget=None, free=None)
    assert said == (
        "seg 1: speed was measured on 6 s at a time, segments have 100 s and are slower"
    )


class Sized(ToyEncoder):
    """A toy that knows its memory: a megabyte an item, as a plugin might bring it."""

    max_memory_bytes: int | None = None

    def peak_bytes(self, n_items, n_samples):
        return n_items * 1_000_000

    def grain(self, n_samples):
        return 1

    def free_bytes(self):
        return 10_000_000


class SizedToyFactory:
    """Registers the sized toy; its factory knows nothing of memory before loading."""

    name = "toy"

    def describe(self, *, path=None, precision="fp32", hash_file=None):
        return ToyEncoder().info()

    def load(self, *, layers, max_memory_bytes, **circumstances):
        encoder = Sized(layers=layers)
        encoder.max_memory_bytes = max_memory_bytes
        return encoder


def test_an_encoder_of_others_that_knows_its_memory_gets_the_batch_of_extract(
    tmp_path, monkeypatch, brief
):
    world = World.make(tmp_path / "world")
    lines = [json.dumps({"audio_path": name, "label": "x"}) + "\n" for name in LENGTHS]
    (world.audio / "toy.train.jsonl").write_text("".join(lines))
    monkeypatch.setattr("tune_cache.commands.estimate.get_encoder", lambda name: SizedToyFactory())
    monkeypatch.setattr("tune_cache.commands.extract.get_encoder", lambda name: SizedToyFactory())
    common = {"encoder": "toy", "seg": 1, "cache_dir": tmp_path / "cache"}
    # of 40 s, or halves of that: within 80 % of what is free, within the budget
    for budget, size in ((None, 5), ("3MB", 3)):
        found = tune_cache.estimate(
            world.audio / "toy", max_memory=budget, **(common | {"dtype": "f4"})
        )
        (row,) = found.rows
        assert (row.batch.n_items, row.batch.peak_bytes) == (size, size * 1_000_000)
    made = tune_cache.extract(world.audio / "toy", max_memory="3MB", **common)
    assert made.outcomes[0].ledger["batch_size"] == row.batch.n_items
    with pytest.raises(EncoderError, match="one segment alone needs 1 MB above the weights"):
        tune_cache.estimate(
            world.audio / "toy", max_memory="900kB", **(common | {"channels": "first"})
        )
