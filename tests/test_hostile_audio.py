"""Every hostile file decodes right or is refused with the right reason; nothing hangs."""

from __future__ import annotations

import os
import tracemalloc

import numpy as np
import pytest
import soundfile
from hostile_audio import DECODED, RATE, REFUSED, encoded, encoded_by_ffmpeg, sound, vbr_mp3

from tune_cache.audio import REASONS, DecodePool, decode, decoding, header_seconds
from tune_cache.audio.failures import failure
from tune_cache.errors import AudioError

TARGET = 24_000
LOSSY_SLACK = 0.1  # seconds: encoders pad, decoders differ


def by_id(case):
    return case.id


@pytest.mark.parametrize("case", REFUSED, ids=by_id)
def test_file_is_refused_with_its_reason(case, tmp_path):
    path = case.make(tmp_path)
    with pytest.raises(AudioError) as caught:
        decode(path, sample_rate_hz=TARGET, track_id="t")
    assert (caught.value.reason, caught.value.track_id) == (case.reason, "t"), caught.value
    assert repr(str(path)) in caught.value.message
    assert caught.value.hint == REASONS[case.reason]


@pytest.mark.parametrize("case", DECODED, ids=by_id)
def test_file_is_decoded_whole(case, tmp_path):
    audio = decode(case.make(tmp_path), sample_rate_hz=TARGET)
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == (audio.facts.n_samples,)
    assert np.isfinite(audio.samples).all()
    assert audio.facts.n_samples / TARGET == pytest.approx(case.seconds, abs=LOSSY_SLACK)
    assert audio.facts.is_silent == case.is_silent
    if case.note:
        assert case.note in "; ".join(audio.facts.notes)
    else:
        assert audio.facts.notes == ()
    if not case.is_silent:  # no stretch of zeros stands for what was not decoded
        for start in range(0, len(audio.samples) - TARGET // 4, TARGET // 4):
            assert np.std(audio.samples[start : start + TARGET // 4]) > 1e-4


@pytest.mark.parametrize("case", [*REFUSED, *DECODED], ids=by_id)
def test_header_duration_never_raises_or_blocks(case, tmp_path):
    seconds = header_seconds(case.make(tmp_path))
    assert seconds is None or seconds >= 0


def test_every_reason_that_a_file_can_have_is_tried():
    of_processes = {"timeout", "memory", "crashed"}  # test_decode_pool
    elsewhere = {"permission", "too-short", "too-long"}  # below; test_segments; test_samples
    assert {case.reason for case in REFUSED} == set(REASONS) - of_processes - elsewhere


def test_unreadable_by_permission(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV"))
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read anything: be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(AudioError) as caught:
            decode(path, sample_rate_hz=TARGET)
    finally:
        os.seteuid(user)
    assert caught.value.reason == "permission"


@pytest.mark.parametrize(
    ("error", "reason"), [(MemoryError(), "memory"), (OSError(5, "I/O error"), "unreadable")]
)
def test_trouble_of_the_machine_is_told_from_trouble_of_the_file(
    tmp_path, monkeypatch, error, reason
):
    def fail(*_):
        raise error

    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV"))
    monkeypatch.setattr(decoding, "sndfile_blocks", fail)
    with pytest.raises(AudioError) as caught:
        decode(path, sample_rate_hz=TARGET)
    assert caught.value.reason == reason
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("ffmpeg_breaks_too", [True, False])
def test_a_lossy_stream_that_breaks_off_is_used_as_far_as_it_goes(
    tmp_path, monkeypatch, ffmpeg_breaks_too
):
    def breaking(descriptor, container, reading):
        reading.rate_hz = RATE
        yield RATE, sound().astype(np.float32)
        raise soundfile.SoundFileRuntimeError("lost sync")

    def broken(*_):
        raise failure("unreadable", "cannot be decoded either")

    path = tmp_path / "a.ogg"
    path.write_bytes(encoded("OGG", "VORBIS"))
    monkeypatch.setattr(decoding, "sndfile_blocks", breaking)
    if ffmpeg_breaks_too:
        monkeypatch.setattr(decoding, "ffmpeg_blocks", broken)
    facts = decode(path, sample_rate_hz=TARGET).facts
    assert facts.n_samples == 3 * TARGET
    assert "libsndfile broke off: lost sync" in facts.notes[0]


def test_hostile_files_leave_their_neighbours_alone(tmp_path):
    good = tmp_path / "good.flac"
    good.write_bytes(encoded("FLAC"))
    expected = decode(good, sample_rate_hz=TARGET).samples
    tracks, hostile = [], (*REFUSED, *DECODED)
    for index, case in enumerate(hostile):
        folder = tmp_path / str(index)
        folder.mkdir()
        tracks += [(case.id, case.make(folder)), ("good", good)]
    reasons = []
    with DecodePool(2, sample_rate_hz=TARGET) as pool:
        for track_id, future in pool.imap(tracks):
            if track_id == "good":
                np.testing.assert_array_equal(future.result().samples, expected)
            else:
                error = future.exception()
                reasons.append("" if error is None else error.reason)
    assert reasons == [case.reason for case in hostile]


def test_mutilated_files_are_decoded_or_refused(tmp_path):
    rng = np.random.default_rng(11)
    healthy = {
        "wav": encoded("WAV", seconds=1),
        "aiff": encoded("AIFF", seconds=1),
        "flac": encoded("FLAC", seconds=1),
        "ogg": encoded("OGG", "VORBIS", seconds=1),
        "opus": encoded("OGG", "OPUS", 48_000, seconds=1),
        "mp3": vbr_mp3(),
        "m4a": encoded_by_ffmpeg("mp4", "aac"),
        "wma": encoded_by_ffmpeg("asf", "wmav2"),
    }
    tracks = []
    for name, content in healthy.items():
        for index in range(8):
            mutilated = np.frombuffer(content, np.uint8).copy()
            head = 64 if index % 2 else len(mutilated)  # headers are the tender part
            at = rng.integers(0, head, 4)
            mutilated[at] = rng.integers(0, 256, 4)
            path = tmp_path / f"{index}.{name}"
            path.write_bytes(mutilated.tobytes()[: rng.integers(50, len(mutilated))])
            tracks.append((path.name, path))
    with DecodePool(2, sample_rate_hz=TARGET) as pool:
        for _, future in pool.imap(tracks):
            error = future.exception()
            if error is None:
                assert np.isfinite(future.result().samples).all()
            else:
                assert isinstance(error, AudioError)
                assert error.reason in set(REASONS) - {"timeout", "crashed"}


def test_an_hour_of_zeros_is_an_hour_of_zeros(tmp_path):
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        minute = np.zeros(60 * 8000, np.int16)
        for _ in range(60):
            file.write(minute)
    assert path.stat().st_size < 1 << 20
    audio = decode(path, sample_rate_hz=8000)
    assert audio.facts.n_samples == 3600 * 8000
    assert audio.facts.is_silent
    assert not audio.samples.any()


def test_twenty_minutes_are_decoded_in_little_more_than_their_own_size(tmp_path):
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 16_000, 2, "PCM_16") as file:
        minute = sound(60, 16_000, 2)
        for _ in range(20):
            file.write(minute)
    tracemalloc.start()
    try:
        audio = decode(path, sample_rate_hz=TARGET)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert audio.facts.n_samples == 1200 * TARGET
    assert peak_bytes < audio.samples.nbytes + (8 << 20)
