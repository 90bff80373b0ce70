"""What a store cost: every second in one place, sums of units, peaks that stay peaks."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from concurrent.futures import Future
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load, save
from world import RATE, InlineDecoders, ToyEncoder, World, arrays_of, toy_spec

from tune_cache.cache import encode, extract, ledger, work
from tune_cache.cache.encode import Batcher
from tune_cache.cache.extract import extract_stores
from tune_cache.cache.journal import UnitLedger, _payload_digest, read_unit, unit_path, write_unit
from tune_cache.cache.ledger import Meter, summarise
from tune_cache.cache.plan import make_plan
from tune_cache.cache.work import Circumstances
from tune_cache.specs import canonical_json

LENGTHS = {f"t{index:02}.wav": RATE * (1 + index % 3) for index in range(12)}
LOAD, WAIT, ENCODE, WRITE, READ, DECODE = 5.0, 3.0, 2.0, 0.5, 0.25, 7.0


class Clock:
    """Moves only when told to; stands for the ``time`` module."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@dataclasses.dataclass
class Costly:
    """A world in which each step takes a known time and nothing else takes any."""

    world: World
    clock: Clock
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def spend(self, name: str, seconds: float) -> None:
        self.clock.now += seconds
        self.counts[name] = self.counts.get(name, 0) + 1

    def extract(self, *seconds, **options):
        costly = self

        class Encoder(ToyEncoder):
            def embed(self, waveforms):
                costly.spend("batches", ENCODE)
                return ToyEncoder.embed(self, waveforms)

        class Decoding(Future):
            def result(self, timeout=None):
                costly.spend("files", WAIT)
                return dataclasses.replace(
                    super().result(), seconds=DECODE, peak_rss_bytes=1000 + costly.counts["files"]
                )

        class Decoders:
            def submit(self, track_id, path):
                done = InlineDecoders().submit(track_id, path)
                future = Decoding()
                future.set_result(done.result())
                return future

            def __enter__(self):
                return self

            def __exit__(self, *_):
                pass

        def load():
            self.spend("loads", LOAD)
            return Encoder()

        return extract_stores(
            self.world.tracks(),
            [toy_spec(self.world.encoder, length) for length in seconds or (1.0,)],
            layout=self.world.layout,
            info=self.world.encoder.info(),
            load=load,
            circumstances=Circumstances(**options),
            open_decoders=lambda *_: Decoders(),
        )


@pytest.fixture
def costly(tmp_path, monkeypatch) -> Costly:
    costly = Costly(World.make(tmp_path, LENGTHS), Clock())
    for module in (encode, work, extract):
        monkeypatch.setattr(module, "time", costly.clock)
    real_write, real_read = work.write_unit, extract.read_unit

    def write(*arguments):
        costly.spend("written", WRITE)
        real_write(*arguments)

    def read(*arguments):
        costly.spend("read", READ)
        return real_read(*arguments)

    monkeypatch.setattr(work, "write_unit", write)
    monkeypatch.setattr(extract, "read_unit", read)
    return costly


def on_disk(outcome) -> dict:
    return json.loads((outcome.path / "ledger/extract.json").read_text())


def test_every_second_is_in_its_place(costly):
    (outcome,) = costly.extract(1.0)
    found, counts = on_disk(outcome), costly.counts
    n_units = len(make_plan(costly.world.tracks()))
    assert n_units > 2
    assert found["load_seconds"] == LOAD
    assert found["wait_seconds"] == WAIT * len(LENGTHS) == WAIT * counts["files"]
    assert found["encode_seconds"] == ENCODE * counts["batches"]
    assert found["first_batch_seconds"] == ENCODE
    assert found["write_seconds"] == WRITE * n_units + READ * counts["read"]
    assert found["decode_seconds"] == DECODE * len(LENGTHS)
    assert found["stage_one_seconds"] == costly.clock.now  # nothing is missing, nothing twice
    assert found["audio_seconds"] == sum(LENGTHS.values()) / RATE
    assert found["n_segments"] == outcome.store.n_segments
    assert found["x_real_time"] == found["audio_seconds"] / found["encode_seconds"]
    assert found["peak_decoder_rss_bytes"] == 1000 + len(LENGTHS)
    assert (found["n_units"], found["n_copied_tracks"], found["n_lengths"]) == (n_units, 0, 1)
    assert found["devices"] == ["cpu"]
    assert found["machine"]["versions"]["numpy"]
    assert outcome.ledger == found


def test_what_several_lengths_share_is_divided_not_repeated(costly):
    outcomes = costly.extract(1.0, 2.0, "full")
    found = [on_disk(outcome) for outcome in outcomes]

    def total(name: str) -> float:
        return sum(item[name] for item in found)

    assert total("load_seconds") == pytest.approx(LOAD)
    assert total("wait_seconds") == pytest.approx(WAIT * len(LENGTHS))
    assert total("decode_seconds") == pytest.approx(DECODE * len(LENGTHS))
    assert total("encode_seconds") == ENCODE * costly.counts["batches"]
    assert total("stage_one_seconds") == pytest.approx(costly.clock.now)
    assert [item["n_lengths"] for item in found] == [3, 3, 3]
    assert len({item["wait_seconds"] for item in found}) == 1


def test_runs_that_resume_add_up(costly):
    for share in ("1/3", "3/3", "2/3"):
        (outcome,) = costly.extract(1.0, part=share)
    found = on_disk(outcome)
    assert found["load_seconds"] == 3 * LOAD
    assert found["first_batch_seconds"] == 3 * ENCODE
    assert found["encode_seconds"] == ENCODE * costly.counts["batches"]
    assert found["audio_seconds"] == sum(LENGTHS.values()) / RATE
    # committing the last unit of a run that did not assemble is in no figure, nor its look-ahead
    assert found["write_seconds"] < WRITE * costly.counts["written"] + READ * costly.counts["read"]
    assert found["write_seconds"] >= WRITE * (costly.counts["written"] - 2)
    assert found["stage_one_seconds"] <= costly.clock.now


def test_a_store_of_copies_says_that_it_cost_nothing(costly):
    costly.extract(1.0)
    (costly.world.audio / "t00.wav").rename(costly.world.audio / "u00.wav")
    (outcome,) = costly.extract(1.0)
    found = on_disk(outcome)
    assert found["n_copied_tracks"] == len(LENGTHS)
    assert (found["encode_seconds"], found["x_real_time"], found["n_units"]) == (0, None, 0)


def test_figures_change_no_digest(costly, tmp_path):
    (outcome,) = costly.extract(1.0)
    other = World(tmp_path / "other", ToyEncoder())
    shutil.copytree(costly.world.audio, other.audio)
    plain = other.extract(1.0)[0]
    assert on_disk(outcome)["encode_seconds"] != on_disk(plain)["encode_seconds"]
    assert arrays_of(outcome.path) == arrays_of(plain.path)
    for name in ("content_digest", "collection_digest"):
        assert getattr(outcome.store, name) == getattr(plain.store, name)
    assert outcome.store.spec.key == plain.store.spec.key


def unit_with(world: World, changed):
    """Unit 0 of a journal, read with another ledger in its header."""
    spec = toy_spec(world.encoder)
    outcome = world.extract(1.0, part="1/2")[0]
    source = world.layout.work_path(outcome.path)
    data = unit_path(source, 0).read_bytes()
    length = int.from_bytes(data[:8], "little")
    record = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tune_cache"])
    header, arrays = record["header"], load(data)
    header["ledger"] = changed(header["ledger"])
    digest = _payload_digest(arrays, header)
    text = canonical_json({"header": header, "sha256": digest})
    unit_path(source, 0).write_bytes(save(arrays, {"tune_cache": text}))
    return read_unit(source, 0, spec)


OLD = (
    "encode_seconds", "wait_seconds", "audio_seconds", "n_segments", "batch_size", "n_backoffs",
    "n_fallbacks",
)  # fmt: skip


def test_a_unit_of_the_first_version_still_counts(tmp_path):
    world = World.make(tmp_path, LENGTHS)
    unit = unit_with(world, lambda now: {name: now[name] for name in OLD})
    assert unit is not None
    assert unit.ledger.n_segments > 0
    assert (unit.ledger.device, unit.ledger.decode_seconds) == ("", 0.0)
    (outcome,) = world.extract(1.0)
    assert world.encoder.n_encoded() == outcome.store.n_segments  # none twice
    found = on_disk(outcome)
    assert found["stage_one_seconds"] is None  # what was not measured is not made up
    assert found["encode_seconds"] > 0
    assert found["n_segments"] == outcome.store.n_segments


def test_a_unit_of_a_newer_version_is_encoded_again(tmp_path):
    world = World.make(tmp_path, LENGTHS)
    unit = unit_with(world, lambda now: {**now, "joules": 7.0})
    assert unit is None
    (outcome,) = world.extract(1.0)
    assert world.encoder.n_encoded() > outcome.store.n_segments


def test_sums_are_sums_and_peaks_are_maxima():
    numbers = [item for item in dataclasses.fields(UnitLedger) if item.name != "device"]
    costs = [
        UnitLedger(
            device=device, **{item.name: factor * place for place, item in enumerate(numbers)}
        )
        for device, factor in (("cuda: A", 1), ("cpu", 3), ("cuda: A", 2))
    ]
    found = summarise(costs, n_copied=4, write_seconds=0.5)
    maxima = {"batch_size", "n_threads", "n_lengths"}
    for place, item in enumerate(numbers):
        if item.name == "write_seconds":
            assert found[item.name] == 6 * place + 0.5
        elif item.name == "peak_rss_bytes":
            assert found[item.name] > 1 << 20  # of this process, which summed up
        elif item.name in maxima or item.name.startswith("peak_"):
            assert found[item.name] == 3 * place
        else:
            assert found[item.name] == 6 * place, item.name
    assert found["devices"] == ["cpu", "cuda: A"]
    assert found["n_copied_tracks"] == 4
    assert json.loads(canonical_json(found)) == found


class FakeCuda:
    """As much of torch as the meter asks."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.cuda = self
        self.version = SimpleNamespace(cuda="12.4")

    def is_available(self):
        return True

    is_initialized = is_available

    def get_num_threads(self):
        return 6

    def get_device_name(self, device=None):
        return "RTX 2080 Ti"

    def reset_peak_memory_stats(self, device):
        self.asked.append(("reset", device))

    def max_memory_allocated(self, device):
        self.asked.append(("allocated", device))
        return 3_500_000_000

    def max_memory_reserved(self, device):
        return 4_100_000_000


class OnGpu(ToyEncoder):
    device = "cuda:1"


def test_memory_of_a_gpu_has_names_of_its_own(monkeypatch, tmp_path):
    torch = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(ledger, "DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text("550.54.15\n")
    meter = Meter(OnGpu())
    meter.begin()
    cost = dataclasses.replace(UnitLedger(), **meter.read())
    assert torch.asked == [("reset", "cuda:1"), ("allocated", "cuda:1")]
    assert cost.device == "cuda: RTX 2080 Ti"
    assert (cost.peak_vram_allocated_bytes, cost.peak_vram_reserved_bytes) == (
        3_500_000_000,
        4_100_000_000,
    )
    assert 0 < cost.peak_rss_bytes < 3_500_000_000
    assert cost.n_threads == 6
    machine = summarise([cost], n_copied=0)["machine"]
    assert (machine["cuda"], machine["driver"]) == ("12.4", "550.54.15")


def test_provenance_names_no_gpu_since_another_than_the_encoders_may_be_current(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", FakeCuda())
    assert "2080" not in json.dumps(ledger.machine_facts())


def test_peaks_of_a_gpu_are_of_the_batches_that_ran_not_of_one_that_did_not_fit(monkeypatch):
    torch = FakeCuda()
    torch.peak = 0
    torch.empty_cache = lambda: None
    torch.max_memory_allocated = lambda device: torch.peak
    torch.reset_peak_memory_stats = lambda device: setattr(torch, "peak", 0)
    monkeypatch.setitem(sys.modules, "torch", torch)

    class Narrow(OnGpu):
        def embed(self, waveforms):
            torch.peak = max(torch.peak, waveforms.nbytes)
            if len(waveforms) > 2:
                raise MemoryError
            return super().embed(waveforms)

    encoder = Narrow()
    meter, batcher = Meter(encoder), Batcher(encoder, batch_size=4)
    meter.begin()
    batcher.run([np.zeros(RATE, np.float32)] * 4)
    assert batcher.n_backoffs == 1
    assert meter.read()["peak_vram_allocated_bytes"] == 2 * 4 * RATE


def test_an_encoder_on_the_cpu_is_not_charged_for_somebody_elses_gpu(monkeypatch):
    torch = FakeCuda()
    monkeypatch.setitem(sys.modules, "torch", torch)
    meter = Meter(ToyEncoder())
    meter.begin()
    cost = dataclasses.replace(UnitLedger(), **meter.read())
    assert torch.asked == []
    assert (cost.device, cost.peak_vram_allocated_bytes) == ("cpu", 0)


def test_each_length_has_its_own_peak_on_a_gpu(monkeypatch, tmp_path):
    """The peak is reset before each unit of each length, or the longest would be all theirs."""
    torch = FakeCuda()
    world = World.make(tmp_path, {"a.wav": 3 * RATE})

    class Growing(OnGpu):
        def embed(self, waveforms):
            torch.peak = max(getattr(torch, "peak", 0), waveforms.nbytes)
            return ToyEncoder.embed(self, waveforms)

    def reset(device):
        torch.peak = 0

    torch.reset_peak_memory_stats = reset
    torch.max_memory_allocated = lambda device: torch.peak
    monkeypatch.setitem(sys.modules, "torch", torch)
    world.encoder = Growing()
    long, short = world.extract("full", 1.0, batch_size=1)
    assert on_disk(long)["peak_vram_allocated_bytes"] == 4 * 3 * RATE
    assert on_disk(short)["peak_vram_allocated_bytes"] == 4 * RATE


def test_a_unit_is_read_back_with_its_figures(tmp_path):
    world = World.make(tmp_path, LENGTHS)
    outcome = world.extract(1.0, part="1/2")[0]
    folder = world.layout.work_path(outcome.path)
    spec = toy_spec(world.encoder)
    unit = read_unit(folder, 0, spec)
    assert unit is not None
    figures = UnitLedger(device="cpu", load_seconds=1.5, peak_rss_bytes=7, n_lengths=2)
    write_unit(folder, 0, spec, dataclasses.replace(unit, ledger=figures))
    again = read_unit(folder, 0, spec)
    assert again is not None
    assert again.ledger == figures
