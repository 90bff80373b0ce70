"""Decoding in processes: whatever befalls one file, the others do not notice."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import subprocess
import sys
import weakref
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile_audio import encoded
from world import RATE, ToyEncoder, toy_spec

from tune_cache.audio import DecodePool, SpooledSamples, decode, pool, process
from tune_cache.audio.memory import peak_rss_bytes
from tune_cache.audio.process import PACE, Patience
from tune_cache.cache.work import open_pool
from tune_cache.errors import AudioError, StoreError, StoreNotFoundError, TuneCacheError

TARGET = 24_000

# a worker whose decoder is as bad as a file's name says
VILE_STARTER = """
import json, os, resource, signal, sys
sys.path[:] = json.loads(sys.argv[1])
from tune_cache.audio import worker
decode = worker.decode
def vile(path, **settings):
    if "segv" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in path.name:
        os._exit(7)
    if "hang" in path.name:
        signal.pause()
    if "killed" in path.name:
        with open(f"{path}.tries", "ab", 0) as tries:
            tries.write(b".")
            if tries.tell() <= int(path.stem.split("-")[1]):
                os.kill(os.getpid(), signal.SIGKILL)
    if "bug" in path.name:
        raise ValueError("what is this")
    if "full" in path.name:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    if "stall" in path.name:
        settings["on_progress"](30 * 24000)
        signal.pause()
    try:
        return decode(path, **settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
worker.decode = vile
worker.HEARTBEAT_SECONDS = 0  # a sign of life after every block
worker.main(**json.loads(sys.argv[2]))
"""


@pytest.fixture
def vile(monkeypatch):
    monkeypatch.setattr(process, "_STARTER", VILE_STARTER)


@pytest.fixture
def good(tmp_path) -> Path:
    path = tmp_path / "good.flac"
    path.write_bytes(encoded("FLAC", seconds=1))
    return path


def named(tmp_path, name: str) -> Path:
    path = tmp_path / name
    path.write_bytes(encoded("WAV", seconds=1))
    return path


def worker_ids() -> set[int]:
    """Decoders that this process has started; other tests may leave it children of other kinds."""
    return {
        int(entry)
        for thread in Path("/proc/self/task").iterdir()
        for entry in (thread / "children").read_text().split()
        if b"tune_cache.audio" in Path(f"/proc/{entry}/cmdline").read_bytes()
    }


def n_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("n_workers", [1, 3])
def test_pool_equals_decoding_here(tmp_path, n_workers):
    paths = []
    for index, kind in enumerate(["WAV", "FLAC", "OGG", "MP3", "AIFF"]):
        paths.append(tmp_path / os.fsdecode(b"\xff%d" % index))
        paths[-1].write_bytes(encoded(kind, seconds=index + 1))
    with DecodePool(n_workers, sample_rate_hz=TARGET, channels="first") as decoders:
        for path, (track_id, future) in zip(
            paths, decoders.imap((str(path), path) for path in paths), strict=True
        ):
            expected = decode(path, sample_rate_hz=TARGET, channels="first")
            assert track_id == str(path)
            assert future.result().facts == expected.facts
            np.testing.assert_array_equal(future.result().samples, expected.samples)
            assert future.result().samples.flags.writeable == expected.samples.flags.writeable


def test_errors_come_back_as_they_are_raised_here(tmp_path):
    path = tmp_path / "missing.wav"
    with pytest.raises(AudioError) as here:
        decode(path, sample_rate_hz=TARGET, track_id="t")
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        there = decoders.submit("t", path).exception()
    assert isinstance(there, AudioError)
    for field in ("message", "hint", "track_id", "reason"):
        assert getattr(there, field) == getattr(here.value, field)


def test_an_empty_result_travels(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(1), 192_000)  # an eighth of a sample at 24 kHz
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        assert decoders.submit("t", path).result().samples.shape == (0,)


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("segv.wav", "crashed", "SIGSEGV"),
        ("exit.wav", "crashed", "exit code 7"),
        ("bug.wav", "crashed", "what is this"),
        ("hang.wav", "timeout", "not decoded within 0.5 s"),
        ("stall.wav", "timeout", "stops after 30 s of audio: no more in 0.5 s"),
    ],
)
def test_a_fatal_file_costs_itself_only(vile, tmp_path, good, name, reason, said):
    bad = named(tmp_path, name)
    with DecodePool(1, sample_rate_hz=TARGET, timeout_seconds=0.5) as decoders:
        before, fatal, after = (decoders.submit(path.name, path) for path in (good, bad, good))
        error = fatal.exception()
        assert isinstance(error, AudioError)
        assert (error.reason, error.track_id) == (reason, name)
        assert said in error.message
        assert repr(str(bad)) in error.message
        np.testing.assert_array_equal(before.result().samples, after.result().samples)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_spooled_equals_decoding_here(vile, monkeypatch, tmp_path, n_workers):
    monkeypatch.setattr(pool, "SPILL_SECONDS", 2)
    spool = tmp_path / "spool"
    spool.mkdir()
    tracks = []
    for index, kind in enumerate(["WAV", "FLAC", "OGG", "MP3", "AIFF"]):
        tracks.append((str(index), tmp_path / str(index)))
        tracks[-1][1].write_bytes(encoded(kind, seconds=index + 1))
    before = n_descriptors()
    with DecodePool(n_workers, sample_rate_hz=TARGET, spool=spool) as decoders:
        futures = [decoders.submit(*track) for track in tracks]
        for (_, path), future in zip(tracks, futures, strict=True):
            expected = decode(path, sample_rate_hz=TARGET)
            found = future.result()
            assert found.facts == expected.facts
            assert isinstance(found.samples, SpooledSamples) == (len(expected.samples) > 2 * TARGET)
            np.testing.assert_array_equal(np.asarray(found.samples), expected.samples)
            if isinstance(found.samples, SpooledSamples):
                assert not os.get_inheritable(found.samples.descriptor)
        assert list(spool.iterdir()) == []
    long = futures[-1].result().samples
    np.testing.assert_array_equal(long[:100], expected.samples[:100])  # outlives the pool
    del futures, future, found, long
    assert n_descriptors() == before


def test_samples_in_memory_are_bounded_whatever_is_submitted(monkeypatch, tmp_path, good):
    monkeypatch.setattr(pool, "HELD_SECONDS", 3)
    monkeypatch.setattr(pool, "SPILL_SECONDS", 1)
    with DecodePool(2, sample_rate_hz=TARGET, spool=tmp_path) as decoders:
        futures = [decoders.submit(str(index), good) for index in range(12)]
        samples = [future.result().samples for future in futures]
        arrays = [array for array in samples if isinstance(array, np.ndarray)]
        assert 3 <= len(arrays) <= 3 + 2  # a second each: what is held, and one a worker
        for spooled in samples:
            np.testing.assert_array_equal(np.asarray(spooled), np.asarray(samples[0]))
        del futures, samples, arrays, spooled
        assert isinstance(decoders.submit("next", good).result().samples, np.ndarray)


def test_an_idle_worker_holds_no_result(good):
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        reference = weakref.ref(decoders.submit("a", good).result().samples)
        decoders.submit("b", good).result()
        assert reference() is None


def test_a_full_spool_ends_the_run_and_no_track(vile, monkeypatch, tmp_path, good):
    monkeypatch.setattr(pool, "SPILL_SECONDS", 0)
    full = named(tmp_path, "full.wav")
    with DecodePool(1, sample_rate_hz=TARGET, spool=tmp_path) as decoders:
        decoders.submit("a", good).result()
        (worker,) = worker_ids()
        error = decoders.submit("b", full).exception()
        assert isinstance(error, StoreError)
        assert not isinstance(error, AudioError)
        assert "File too large" in error.message
        assert "make room" in (error.hint or "")
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.EFBIG
        np.testing.assert_array_equal(
            np.asarray(decoders.submit("c", good).result().samples),
            decode(good, sample_rate_hz=TARGET).samples,
        )
        assert worker_ids() == {worker}, "a worker was blamed for the disk"


def test_a_spool_folder_that_was_removed_is_not_found(monkeypatch, tmp_path, good):
    monkeypatch.setattr(pool, "SPILL_SECONDS", 0)
    with DecodePool(1, sample_rate_hz=TARGET, spool=tmp_path / "gone") as decoders:
        error = decoders.submit("a", good).exception()
    assert isinstance(error, StoreNotFoundError)
    assert repr(str(tmp_path / "gone")) in error.message


def test_facts_alone_travel_without_samples(good):
    with DecodePool(1, sample_rate_hz=TARGET, keep_samples=False) as decoders:
        found = decoders.submit("a", good).result()
    assert found.facts == decode(good, sample_rate_hz=TARGET).facts
    assert found.samples.shape == (0,)


def test_time_and_memory_of_a_decoder_are_its_own(good):
    ballast = np.ones(64 << 20, np.uint8)  # in this process only
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        first, second = (decoders.submit(name, good).result() for name in "ab")
    assert 0 < second.seconds < 60
    assert 8 << 20 < first.peak_rss_bytes <= second.peak_rss_bytes
    assert second.peak_rss_bytes < peak_rss_bytes() - len(ballast) // 2
    assert decode(good, sample_rate_hz=TARGET).peak_rss_bytes == 0


def test_patience_grows_with_what_was_decoded_and_ends_with_the_last_sign():
    patience = Patience(30, TARGET)
    hour = 3600 * TARGET
    assert patience.until(100, 100, 0) == 130  # nothing heard
    assert patience.until(100, 120, hour) == 150  # a hang after progress
    assert patience.until(100, 1000, hour) == 100 + 30 + 3600 / PACE  # too slow altogether
    assert "was not decoded within 30 s" in patience.complaint(100, 100, 0)
    assert "stops after 3600 s of audio: no more in 30 s" in patience.complaint(100, 120, hour)
    slow = patience.complaint(100, 1000, hour)
    assert f"gave 3600 s of audio in 900 s, expected {PACE} × as much" in slow


def test_a_worker_that_died_idle_costs_no_track(good):
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        decoders.submit("a", good).result()
        (worker,) = worker_ids()
        os.kill(worker, signal.SIGKILL)
        assert decoders.submit("b", good).result().facts.n_samples == TARGET


@pytest.fixture(params=["fresh", "used"])
def one_decoder(request, vile, good):
    """A pool of one worker that has decoded nothing, or something."""
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        if request.param == "used":
            decoders.submit("good", good).result()
        yield decoders


def test_a_worker_that_somebody_kills_costs_no_track(one_decoder, tmp_path):
    unlucky = named(tmp_path, "killed-1.wav")
    found = one_decoder.submit("unlucky", unlucky).result()
    np.testing.assert_array_equal(found.samples, decode(unlucky, sample_rate_hz=TARGET).samples)


def test_a_file_of_which_two_workers_are_killed_costs_itself_only(one_decoder, tmp_path, good):
    fatal = named(tmp_path, "killed-99.wav")
    error = one_decoder.submit("fatal", fatal).exception()
    assert isinstance(error, AudioError)
    assert (error.reason, error.track_id) == ("crashed", "fatal")
    assert "SIGKILL" in error.message
    assert one_decoder.submit("good", good).result().facts.n_samples == TARGET
    assert (tmp_path / "killed-99.wav.tries").read_bytes() == b".."


@pytest.mark.parametrize("n_kills", [1, 2])
def test_a_worker_killed_before_it_is_ready_is_started_once_more(
    monkeypatch, tmp_path, good, n_kills
):
    tries = tmp_path / "tries"
    fatal = (
        f"import os; tries = open({str(tries)!r}, 'ab', 0); tries.write(b'.'); "
        f"tries.tell() <= {n_kills} and os.kill(os.getpid(), 9); "
    )
    monkeypatch.setattr(process, "_STARTER", fatal + process._STARTER)
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        error = decoders.submit("a", good).exception()
        assert (error is None) == (n_kills == 1)
        if error is not None:  # it is nobody's fault, and the pool goes on
            assert not isinstance(error, AudioError)
            assert "ended before it began: SIGKILL" in str(error)
        assert decoders.submit("b", good).result().facts.n_samples == TARGET
    assert len(tries.read_bytes()) == n_kills + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_a_process_group_never_reaches_a_worker(monkeypatch, good, number):
    told = f"import os; os.kill(os.getpid(), {int(number)}); "  # before anything is imported
    monkeypatch.setattr(process, "_STARTER", told + process._STARTER)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        decoders.submit("a", good).result()
        (worker,) = worker_ids()
        os.kill(worker, number)
        assert decoders.submit("b", good).result().facts.n_samples == TARGET
        assert worker_ids() == {worker}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_a_file_that_outgrows_its_memory_costs_itself_only(tmp_path, good):
    long = tmp_path / "long.flac"
    with soundfile.SoundFile(long, "w", 8000, 1, "PCM_16") as file:
        for _ in range(20):
            file.write(np.zeros(60 * 8000, np.int16))  # 115 MB at 24 kHz
    with DecodePool(1, sample_rate_hz=TARGET, memory_bytes=64 << 20) as decoders:
        fatal, after = decoders.submit("long", long), decoders.submit("good", good)
        error = fatal.exception()
        assert isinstance(error, AudioError)
        assert error.reason == "memory"
        assert after.result().facts.n_samples == TARGET


def test_a_pool_that_cannot_start_blames_no_file(monkeypatch, good):
    monkeypatch.setattr(process, "_STARTER", "import sys; sys.exit(3)")
    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        error = decoders.submit("t", good).exception()
    assert isinstance(error, TuneCacheError)
    assert not isinstance(error, AudioError)
    assert "exit code 3" in str(error)


def test_imap_reads_no_further_ahead_than_it_is_told(good):
    taken = []

    def tracks():
        for index in range(9):
            taken.append(index)
            yield str(index), good

    with DecodePool(1, sample_rate_hz=TARGET) as decoders:
        for index, (track_id, _) in enumerate(decoders.imap(tracks(), n_ahead=3)):
            assert track_id == str(index)
            assert len(taken) <= index + 4
    assert len(taken) == 9


def test_imap_left_early_leaves_nothing_queued(vile, tmp_path, good):
    hang = named(tmp_path, "hang.wav")
    with DecodePool(1, sample_rate_hz=TARGET, timeout_seconds=0.5) as decoders:
        rows = decoders.imap([("a", good), ("b", hang), ("c", hang)], n_ahead=3)
        next(rows)
        rows.close()
        assert decoders.submit("d", good).result().facts.n_samples == TARGET


def test_close_ends_what_hangs_and_leaves_nothing_behind(vile, tmp_path, good):
    hang = named(tmp_path, "hang.wav")
    before = n_descriptors()
    with DecodePool(2, sample_rate_hz=TARGET, timeout_seconds=600) as decoders:
        decoders.submit("a", good).result()
        running = [decoders.submit("b", hang) for _ in range(4)]
    assert all(isinstance(_outcome(future), CancelledError) for future in running)
    assert worker_ids() == set()
    assert n_descriptors() == before
    with pytest.raises(RuntimeError, match="closed"):
        decoders.submit("c", good)


def test_a_closed_pool_starts_no_other_worker(vile, monkeypatch, tmp_path):
    started = []

    class Counted(process.DecoderProcess):
        def __init__(self, settings):
            started.append(self)
            super().__init__(settings)

    monkeypatch.setattr(pool, "DecoderProcess", Counted)
    with DecodePool(1, sample_rate_hz=TARGET, timeout_seconds=600) as decoders:
        running = decoders.submit("a", named(tmp_path, "hang.wav"))
        while not running.running():
            pass
    assert isinstance(_outcome(running), CancelledError)
    assert len(started) == 1


def _outcome(future):
    try:
        return future.exception()
    except CancelledError as error:
        return error


def test_workers_end_with_a_killed_parent_even_in_the_middle_of_a_file(tmp_path):
    hang = named(tmp_path, "hang.wav")
    script = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from tune_cache.audio import DecodePool, process
process._STARTER = {VILE_STARTER!r}
decoders = DecodePool(1, sample_rate_hz=24000)
decoders.submit("a", Path("missing")).exception()
decoders.submit("b", Path({str(hang)!r}))
(worker,) = decoders._workers
print(worker._process.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            ended, _, _ = select.select([worker], [], [], 30)
        finally:
            os.close(worker)
    assert ended, "the worker outlived its parent"


def test_users_get_decoders_of_half_a_minute_and_a_gigabyte(monkeypatch, tmp_path, good):
    given = {}

    class Told(process.DecoderProcess):
        def __init__(self, settings):
            given["memory_bytes"] = settings["memory_bytes"]
            super().__init__(settings)

        def decode(self, track_id, path, spill_above, patience):
            given["patience"] = patience
            proc = Path(f"/proc/{self._process.pid}")
            (limit,) = re.findall(r"Max address space +(\d+) ", (proc / "limits").read_text())
            (taken,) = re.findall(r"VmPeak:\s+(\d+) kB", (proc / "status").read_text())
            given["extra_bytes"] = int(limit) - 1024 * int(taken)
            return super().decode(track_id, path, spill_above, patience)

    monkeypatch.setattr(pool, "DecoderProcess", Told)
    with open_pool(1, toy_spec(ToyEncoder()), tmp_path) as decoders:
        decoders.submit("a", good).result()
    assert given["patience"] == Patience(30, RATE)
    assert given["memory_bytes"] == 1 << 30
    assert 0 < given["extra_bytes"] <= 1 << 30  # of what it had taken when it began


def test_the_worker_is_light():
    script = """
import sys, tune_cache.audio.worker
print(sorted({"torch", "av", "scipy", "zarr", "sklearn", "multiprocessing"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout == b"[]\n"
