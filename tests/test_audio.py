"""Decoding healthy files: exact lengths, channels, resampling, facts."""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hostile_audio import RATE, encoded, sound, vbr_mp3
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_cache.audio import decode, header_seconds, sndfile, write_flac, write_wav
from tune_cache.audio.containers import CONTAINERS, OPEN_ENDED, mpeg_samples, ogg_links
from tune_cache.audio.failures import REASONS, failure
from tune_cache.audio.mono import Mono, Reading
from tune_cache.errors import AudioError, UsageError

TARGET = 24_000


def collected(blocks, target_hz=TARGET, channels="mix") -> Mono:
    mono = Mono(target_hz, channels, Reading("test"))
    mono.drain(iter(blocks))
    return mono


def resampled(samples, rate_hz, target_hz=TARGET) -> np.ndarray:
    return collected([(rate_hz, samples[:, None])], target_hz).result("wav").samples


@settings(max_examples=60)
@given(
    st.integers(1, 20_000),
    st.sampled_from([4000, 8000, 11_025, 22_050, 24_000, 44_056, 44_100, 48_000, 192_000, 384_000]),
)
def test_number_of_samples_is_the_rounded_ratio(n_frames, rate_hz):
    n_samples = (2 * n_frames * TARGET + rate_hz) // (2 * rate_hz)
    assert len(resampled(np.ones(n_frames, np.float32), rate_hz)) == n_samples


@settings(max_examples=30)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=8), st.sampled_from([8000, 44_100]))
def test_blocks_of_any_size_give_the_same_bits(sizes, rate_hz):
    frames = sound(seconds=sum(sizes) / rate_hz, rate=rate_hz, n_channels=2).astype(np.float32)
    edges = np.cumsum([0, *sizes])
    blocks = [(rate_hz, frames[a:b]) for a, b in itertools.pairwise(edges)]
    whole = collected([(rate_hz, frames)]).result("wav")
    np.testing.assert_array_equal(collected(blocks).result("wav").samples, whole.samples)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 96_000])
def test_resampling_keeps_a_tone_where_and_as_loud_as_it_is(rate_hz):
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate_hz) / rate_hz).astype(np.float32)
    expected = np.sin(2 * np.pi * 1000 * np.arange(TARGET) / TARGET)
    inside = slice(1000, -1000)  # the filter rings at the ends
    np.testing.assert_allclose(resampled(tone, rate_hz)[inside], expected[inside], atol=1e-4)


def test_resampling_leaves_no_alias():
    tone = np.sin(2 * np.pi * 15_000 * np.arange(44_100) / 44_100).astype(np.float32)
    assert np.abs(resampled(tone, 44_100)[1000:-1000]).max() < 1e-4


def test_mix_averages_and_first_takes_the_first():
    frames = np.array([[0.5, 0.1, -0.3], [0.25, 0.5, 0.0]], np.float32)
    mixed = collected([(TARGET, frames)]).result("wav").samples
    first = collected([(TARGET, frames)], channels="first").result("wav").samples
    np.testing.assert_allclose(mixed, [0.1, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(first, [0.5, 0.25])


def test_first_channel_is_not_spoilt_by_the_others(tmp_path):
    frames = sound(n_channels=2)
    frames[:, 1] = np.nan
    soundfile.write(tmp_path / "a.wav", frames, RATE, subtype="FLOAT")
    audio = decode(tmp_path / "a.wav", sample_rate_hz=RATE, channels="first")
    np.testing.assert_array_equal(audio.samples, frames[:, 0].astype(np.float32))


def test_antiphase_is_heard_in_the_first_channel(tmp_path):
    frames = sound(n_channels=2)
    frames[:, 1] *= -1
    soundfile.write(tmp_path / "a.wav", frames, RATE, subtype="FLOAT")
    first = decode(tmp_path / "a.wav", sample_rate_hz=RATE, channels="first")
    mixed = decode(tmp_path / "a.wav", sample_rate_hz=RATE)
    assert (first.facts.is_silent, mixed.facts.is_silent) == (False, True)
    assert first.facts.notes == ()


def test_facts_say_what_was_seen(tmp_path):
    frames = sound(n_channels=2)
    frames[100] = (0.75, 0.25)
    soundfile.write(tmp_path / "a.wav", frames, RATE, subtype="FLOAT")
    facts = decode(tmp_path / "a.wav", sample_rate_hz=TARGET).facts
    assert (facts.sample_rate_hz, facts.n_channels, facts.container) == (RATE, 2, "wav")
    assert facts.n_frames == facts.header_frames == 3 * RATE
    assert facts.n_samples == 3 * TARGET
    assert facts.peak == pytest.approx(np.abs(frames.mean(axis=1)).max())
    assert (facts.decoder, facts.n_nonfinite, facts.notes) == ("libsndfile", 0, ())


@pytest.mark.parametrize(
    ("subtype", "step"), [("PCM_U8", 2**-7), ("PCM_16", 2**-15), ("PCM_24", 2**-23), ("DOUBLE", 0)]
)
def test_every_bit_depth_comes_back_within_a_step(tmp_path, subtype, step):
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV", subtype))
    samples = decode(path, sample_rate_hz=RATE).samples
    np.testing.assert_allclose(samples, sound()[:, 0], atol=step + 1e-7)


@pytest.mark.parametrize("kind", ["MP3", "OGG", "FLAC"])
def test_samples_do_not_depend_on_the_size_of_the_blocks(tmp_path, monkeypatch, kind):
    """soundfile's own block reading seeks, and an mp3 decoder forgets its state there."""
    path = tmp_path / "a"
    path.write_bytes(vbr_mp3() if kind == "MP3" else encoded(kind, seconds=9))
    whole, _ = soundfile.read(path, dtype="float32")
    expected = decode(path, sample_rate_hz=RATE).samples
    np.testing.assert_allclose(expected, whole, atol=1e-6)
    for n_frames in (1000, 1152, 1 << 20):
        monkeypatch.setattr(sndfile, "BLOCK_FRAMES", n_frames)
        np.testing.assert_array_equal(decode(path, sample_rate_hz=RATE).samples, expected)


def test_links_of_a_chain_follow_each_other_without_a_gap(tmp_path):
    links = [encoded("OGG", "VORBIS", seconds=1), encoded("OGG", "VORBIS", 16_000, seconds=2)]
    parts = []
    for index, link in enumerate(links):
        (tmp_path / str(index)).write_bytes(link)
        parts.append(decode(tmp_path / str(index), sample_rate_hz=TARGET).samples)
    (tmp_path / "chain").write_bytes(b"".join(links))
    chain = decode(tmp_path / "chain", sample_rate_hz=TARGET)
    np.testing.assert_array_equal(chain.samples, np.concatenate(parts))


def test_samples_of_an_mp3_are_counted_from_its_frames(tmp_path):
    path = tmp_path / "a.mp3"
    path.write_bytes(vbr_mp3())
    with path.open("rb") as file:
        counted = mpeg_samples(file.fileno())
    assert 0 <= counted - 9 * RATE < 4000


def test_an_ogg_file_is_one_link_from_end_to_end(tmp_path):
    path = tmp_path / "a.ogg"
    content = encoded("OGG", "VORBIS")
    path.write_bytes(content)
    with path.open("rb") as file:
        assert ogg_links(file.fileno()) == ([(0, len(content))], True)


def test_written_wav_comes_back_exactly(tmp_path):
    samples = (3 * sound()[:, 0]).astype(np.float32)
    write_wav(tmp_path / "a.wav", samples, RATE)
    np.testing.assert_array_equal(decode(tmp_path / "a.wav", sample_rate_hz=RATE).samples, samples)


def test_written_flac_comes_back_within_16_bits(tmp_path):
    samples = sound()[:, 0].astype(np.float32)
    write_flac(tmp_path / "a.flac", samples, RATE)
    audio = decode(tmp_path / "a.flac", sample_rate_hz=RATE)
    np.testing.assert_allclose(audio.samples, samples, atol=2**-15)


@pytest.mark.parametrize("peak", [1.01, np.nan, -np.inf])
def test_written_flac_is_never_clipped(tmp_path, peak):
    with pytest.raises(UsageError, match="expected at most 1"):
        write_flac(tmp_path / "a.flac", np.array([0, peak], np.float32), RATE)
    assert not (tmp_path / "a.flac").exists()


def test_header_seconds_reads_what_the_header_claims(tmp_path):
    path = tmp_path / "a"
    for content in (encoded("FLAC"), encoded("WAV"), encoded("OGG", "VORBIS"), encoded("MP3")):
        path.write_bytes(content)
        assert header_seconds(path) == pytest.approx(3, abs=0.1)
    assert header_seconds(tmp_path / "missing") is None


def test_every_reason_has_a_remedy_and_makes_an_error_that_travels():
    for reason, hint in REASONS.items():
        error = pickle.loads(pickle.dumps(failure(reason, "is odd")))
        assert isinstance(error, AudioError)
        assert (error.reason, error.hint) == (reason, hint)
        assert hint


def test_containers_without_a_length_are_containers():
    assert set(OPEN_ENDED) < set(CONTAINERS)


def test_a_file_name_is_never_taken_for_a_protocol(tmp_path):
    """FFmpeg would read 'concat:a|b' or a URL if it were given names."""
    (tmp_path / "concat:x.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(99))
    with pytest.raises(AudioError, match="cannot be decoded"):
        decode(tmp_path / "concat:x.mp4", sample_rate_hz=TARGET)


def test_importing_audio_loads_neither_torch_nor_ffmpeg():
    script = (
        "import sys, tune_cache.audio; print(sorted({'torch', 'av', 'scipy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout == b"[]\n"


@pytest.mark.subset
def test_real_music_is_decoded_to_its_full_length(subset):
    files = sorted(path for path in (subset / "audio").rglob("*") if path.is_file())
    assert len(files) == 37
    for path in files:
        facts = decode(path, sample_rate_hz=TARGET).facts
        assert facts.n_samples == 45 * TARGET, os.fspath(path)
        assert facts.notes == ()
        assert facts.decoder == "libsndfile"
