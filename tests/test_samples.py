"""Samples in a file are the samples in memory, and a full disk is no fault of the track."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile_audio import encoded, encoded_by_ffmpeg, sound, vbr_mp3
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_cache.audio import DecodePool, Spilling, SpooledSamples, decode, mono, write_wav
from tune_cache.audio.samples import Collected, SpoolError
from tune_cache.errors import AudioError

TARGET = 24_000


def n_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=10),
    st.integers(0, 12_000),
    st.integers(0, 20_000),
    st.lists(st.tuples(st.integers(-30_000, 30_000), st.integers(-30_000, 30_000)), max_size=5),
)
def test_any_pieces_under_any_limit_come_back_as_they_were(
    tmp_path_factory, sizes, above, expected, slices
):
    folder = tmp_path_factory.mktemp("spool")
    samples = np.random.default_rng(3).standard_normal(sum(sizes)).astype(np.float32)
    collected = Collected(Spilling(folder=folder, above=above))
    at = 0
    for size in sizes:
        collected.append(samples[at : at + size], expected=expected)
        at += size
        assert list(folder.iterdir()) == []  # a process killed now leaves nothing
    found = collected.result()
    assert isinstance(found, SpooledSamples) == (len(samples) > above)
    assert len(found) == len(samples)
    np.testing.assert_array_equal(np.asarray(found), samples)
    for start, stop in slices:
        piece = found[start:stop]
        assert piece.dtype == np.float32
        np.testing.assert_array_equal(piece, samples[start:stop])


def test_where_files_must_have_a_name_it_is_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    samples = np.arange(100, dtype=np.float32)
    before = n_descriptors()
    collected = Collected(Spilling(folder=tmp_path, above=10))
    collected.append(samples, expected=100)
    assert list(tmp_path.iterdir()) == []
    found = collected.result()
    np.testing.assert_array_equal(found[5:50], samples[5:50])
    assert n_descriptors() == before + 1


CODECS = {
    "wav": lambda: encoded("WAV", "FLOAT", seconds=3),
    "flac": lambda: encoded("FLAC", seconds=3, n_channels=2),
    "ogg": lambda: encoded("OGG", "VORBIS", seconds=3),
    "chain": lambda: encoded("OGG", "VORBIS", seconds=1) + encoded("OGG", "VORBIS", 16_000),
    "opus": lambda: encoded("OGG", "OPUS", 48_000, seconds=2),
    "mp3": vbr_mp3,
    "m4a": lambda: encoded_by_ffmpeg("mp4", "aac"),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("channels", ["mix", "first"])
def test_spilled_decoding_equals_decoding_in_memory(tmp_path, name, channels):
    path = tmp_path / "a"
    path.write_bytes(CODECS[name]())
    spool = tmp_path / "spool"
    spool.mkdir()
    common = {"sample_rate_hz": TARGET, "channels": channels}
    whole = decode(path, **common)
    n_samples = len(whole.samples)
    for above in (0, 1, TARGET + 1, n_samples - 1, n_samples):
        found = decode(path, **common, spilling=Spilling(folder=spool, above=above))
        assert isinstance(found.samples, SpooledSamples) == (above < n_samples)
        assert found.facts == whole.facts
        np.testing.assert_array_equal(np.asarray(found.samples), whole.samples)
    assert list(spool.iterdir()) == []


def test_the_decoder_that_gives_more_is_kept_and_the_other_closed(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(vbr_mp3()[417:])  # without its Xing frame libsndfile stops early
    before = n_descriptors()
    whole = decode(path, sample_rate_hz=TARGET)
    assert whole.facts.decoder == "ffmpeg"
    found = decode(path, sample_rate_hz=TARGET, spilling=Spilling(folder=tmp_path, above=0))
    assert n_descriptors() == before + 1
    np.testing.assert_array_equal(np.asarray(found.samples), whole.samples)
    del found
    assert n_descriptors() == before


def test_a_slice_belongs_to_whoever_asked(tmp_path):
    write_wav(tmp_path / "a.wav", np.ones(1000, np.float32), TARGET)
    spilling = Spilling(folder=tmp_path, above=10)
    samples = decode(tmp_path / "a.wav", sample_rate_hz=TARGET, spilling=spilling).samples
    piece = samples[10:20]
    piece[:] = 7
    assert piece.base is None
    np.testing.assert_array_equal(samples[0:30], np.ones(30))
    assert np.asarray(samples, np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="step 2"):
        samples[::2]
    samples.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        samples[0:1]


def test_a_file_of_another_size_is_no_spool_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(40))
    before = n_descriptors()
    with pytest.raises(OSError, match="40 bytes for 11 samples"):
        SpooledSamples(os.open(path, os.O_RDONLY), 11)
    assert n_descriptors() == before


def test_a_spool_file_that_shrinks_is_an_error_not_zeros(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(40))
    samples = SpooledSamples(os.open(path, os.O_RDWR), 10)
    os.truncate(path, 20)
    assert len(samples[0:5]) == 5
    with pytest.raises(OSError, match="shorter than it was"):
        samples[0:6]


def test_facts_alone_are_the_same_facts(tmp_path):
    path = tmp_path / "a.flac"
    path.write_bytes(encoded("FLAC"))
    spilling = Spilling(folder=tmp_path / "none", above=0)
    found = decode(path, sample_rate_hz=TARGET, keep_samples=False, spilling=spilling)
    assert found.facts == decode(path, sample_rate_hz=TARGET).facts
    assert found.samples.shape == (0,)


@contextmanager
def files_of_at_most(n_bytes: int):
    """The disk is full beyond ``n_bytes`` a file: EFBIG from the kernel itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["flac", "mp3", "m4a"])
def test_a_full_disk_is_not_blamed_on_the_track(tmp_path, name):
    path = tmp_path / "a"
    path.write_bytes(CODECS[name]())
    spool = tmp_path / "spool"
    spool.mkdir()
    before = n_descriptors()
    with files_of_at_most(50_000), pytest.raises(OSError, match="File too large") as caught:
        decode(path, sample_rate_hz=TARGET, spilling=Spilling(folder=spool, above=1000))
    assert not isinstance(caught.value, AudioError)
    assert caught.value.errno == errno.EFBIG
    del caught
    assert n_descriptors() == before
    assert list(spool.iterdir()) == []


def test_a_spool_folder_that_is_gone_is_not_blamed_on_the_track(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV"))
    with pytest.raises(FileNotFoundError) as caught:
        decode(path, sample_rate_hz=TARGET, spilling=Spilling(folder=tmp_path / "x", above=0))
    assert not isinstance(caught.value, AudioError)
    assert isinstance(caught.value.__cause__, SpoolError)


@pytest.mark.parametrize("spilled", [False, True])
def test_a_track_longer_than_the_longest_is_refused(tmp_path, monkeypatch, spilled):
    monkeypatch.setattr(mono, "LONGEST_SECONDS", 2)
    spilling = Spilling(folder=tmp_path, above=TARGET) if spilled else None
    path = tmp_path / "a.wav"
    write_wav(path, np.zeros(2 * TARGET, np.float32), TARGET)
    assert len(decode(path, sample_rate_hz=TARGET, spilling=spilling).samples) == 2 * TARGET
    write_wav(path, np.zeros(2 * TARGET + 1, np.float32), TARGET)
    with pytest.raises(AudioError, match="is longer than") as caught:
        decode(path, sample_rate_hz=TARGET, spilling=spilling)
    assert caught.value.reason == "too-long"


def test_a_track_too_long_for_ffmpeg_alone_is_not_cut_short_by_libsndfile(tmp_path, monkeypatch):
    monkeypatch.setattr(mono, "LONGEST_SECONDS", 6)
    path = tmp_path / "a.mp3"
    path.write_bytes(vbr_mp3()[417:])  # libsndfile gives less than 6 s of it, FFmpeg all 9
    with pytest.raises(AudioError) as caught:
        decode(path, sample_rate_hz=TARGET)
    assert caught.value.reason == "too-long"


def test_spilled_decoding_takes_its_limit_in_memory_and_little_more(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 2, "PCM_16") as file:
        minute = sound(60, 16_000, 2)
        for _ in range(6):
            file.write(minute)
    tracemalloc.start()
    try:
        spilling = Spilling(folder=tmp_path, above=30 * TARGET)  # 3 of 35 MB
        audio = decode(path, sample_rate_hz=TARGET, spilling=spilling)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert audio.facts.n_samples == len(audio.samples) == 360 * TARGET
    assert peak_bytes < 4 * 30 * TARGET + (8 << 20)


def test_neither_process_holds_a_long_track_as_a_whole(tmp_path):
    """With the limits that users get: 25 minutes are 144 MB, of which ten minutes stay."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(25):
            file.write(np.zeros(60 * 8000, np.int16))
    with DecodePool(1, sample_rate_hz=TARGET, spool=tmp_path) as pool:
        idle = pool.submit("none", tmp_path).exception()  # a folder: the worker has started
        assert isinstance(idle, AudioError)
        tracemalloc.start()
        try:
            found = pool.submit("long", path).result()
            n_silent = sum(
                int(np.count_nonzero(found.samples[start : start + 10 * TARGET] == 0))
                for start in range(0, len(found.samples), 10 * TARGET)
            )
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert n_silent == found.facts.n_samples == 1500 * TARGET
    assert peak_bytes < 4 << 20  # here
    assert found.peak_rss_bytes < 4 * 600 * TARGET + (64 << 20)  # there, with its libraries
