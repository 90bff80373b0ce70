"""The demo dataset: its music, its plan, and its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from tune_cache.audio import decode
from tune_cache.datasets import demo as demo_room
from tune_cache.datasets.demo import COMPLETE, DemoSpec, ensure_demo
from tune_cache.datasets.demo_band import chord_of, onsets, voicing
from tune_cache.datasets.demo_composition import write_song
from tune_cache.datasets.demo_instruments import DRUMS, INSTRUMENTS, RATE_HZ, note
from tune_cache.datasets.demo_plan import compose_track, plan_demo, render_track
from tune_cache.datasets.demo_styles import MODES, PROGRESSIONS, STYLES
from tune_cache.datasets.demo_synthesis import Event, master, mix
from tune_cache.errors import UsageError

TINY = DemoSpec(tracks_per_style=3, shortest_seconds=3.0, longest_seconds=5.0)
PLAN = plan_demo()


@cache
def piece_of(track):
    return compose_track(track)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return ensure_demo(tmp_path_factory.mktemp("demo"), spec=TINY)


@pytest.fixture
def plans(monkeypatch):
    """Count how often anything is rendered."""
    asked = []

    def counted(spec):
        asked.append(spec)
        return plan_demo(spec)

    monkeypatch.setattr(demo_room, "plan_demo", counted)
    return asked


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def records(folder, split):
    text = (folder / f"demo.{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def nearest_neighbour_accuracy(values, labels):
    """Leave-one-out accuracy of the label of the nearest value."""
    distance = np.abs(np.subtract.outer(values, values))
    np.fill_diagonal(distance, np.inf)
    return np.mean(labels[distance.argmin(axis=1)] == labels)


# --- the plan


def test_plan_has_enough_tracks_of_six_styles_between_20_and_60_seconds():
    seconds = np.array([track.n_samples / RATE_HZ for track in PLAN])
    assert len(PLAN) == 156
    assert set(Counter(track.style for track in PLAN).values()) == {26}
    assert 20 <= seconds.min() < 21
    assert 55 < seconds.max() <= 60
    assert seconds.sum() <= 85 * 60


def test_versions_of_a_song_share_split_and_style():
    songs = defaultdict(set)
    for track in PLAN:
        songs[track.song].add((track.split, track.style))
    assert all(len(of) == 1 for of in songs.values())
    assert len({(track.song, track.version) for track in PLAN}) == len(PLAN)
    assert max(Counter(track.song for track in PLAN).values()) == 3


def test_every_style_is_split_alike():
    counts = Counter((track.style, track.split) for track in PLAN)
    for style in STYLES:
        assert [counts[style, split] for split in ("train", "val", "test")] == [16, 5, 5]


@pytest.mark.parametrize("tracks_per_style", range(3, 27))
def test_every_split_of_a_smaller_demo_holds_every_style(tracks_per_style):
    plan = plan_demo(DemoSpec(tracks_per_style=tracks_per_style))
    assert len({(track.style, track.split) for track in plan}) == 18
    assert len({track.audio_path for track in plan}) == len(plan) == 6 * tracks_per_style


@pytest.mark.parametrize("fact", ["n_samples", "loudness_db"])
def test_styles_are_dealt_the_same_lengths_and_levels(fact):
    values = np.array([getattr(track, fact) for track in PLAN], dtype=float)
    styles = np.array([track.style for track in PLAN])
    means = [values[styles == style].mean() for style in STYLES]
    assert np.ptp(means) < 0.1 * values.std()


@pytest.mark.parametrize("fact", ["n_samples", "loudness_db", "song", "audio_path"])
def test_metadata_do_not_predict_the_style(fact):
    values = [getattr(track, fact) for track in PLAN]
    if fact == "audio_path":
        values = list(range(len(PLAN)))  # the plan is sorted by path
    if fact == "song":  # one track a song: versions share number and style by design
        firsts = [track for track in PLAN if track.version == 0]
        values = [track.song for track in firsts]
    else:
        firsts = PLAN
    styles = np.array([track.style for track in firsts])
    accuracy = nearest_neighbour_accuracy(np.array(values, dtype=float), styles)
    rng = np.random.default_rng(0)
    chance = [
        nearest_neighbour_accuracy(np.array(values, dtype=float), rng.permutation(styles))
        for _ in range(200)
    ]
    assert accuracy <= np.quantile(chance, 0.99)


@pytest.mark.parametrize("fact", ["n_samples", "loudness_db"])
def test_metadata_do_not_predict_the_emotion(fact):
    values = np.array([getattr(track, fact) for track in PLAN], dtype=float)
    emotion = np.array([(p.arousal, p.valence) for p in map(piece_of, PLAN)])
    for target in emotion.T:
        assert abs(np.corrcoef(values, target)[0, 1]) < 0.21  # 1 % level at 156 tracks


def test_another_seed_is_another_demo():
    other = plan_demo(DemoSpec(seed=1))
    assert [track.n_samples for track in other] != [track.n_samples for track in PLAN]
    assert compose_track(other[0]) != piece_of(PLAN[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"tracks_per_style": 2},
        {"tracks_per_style": 27},
        {"seed": -1},
        {"shortest_seconds": 1.0},
        {"shortest_seconds": 30.0, "longest_seconds": 20.0},
        {"longest_seconds": float("nan")},
    ],
    ids=str,
)
def test_impossible_specs_are_refused(wrong):
    with pytest.raises(UsageError, match="demo"):
        DemoSpec(**wrong)


# --- the music


@pytest.mark.parametrize("style", STYLES)
def test_bars_of_a_style_fit_its_metre_and_name_what_exists(style):
    rules = STYLES[style]
    drums = [bar for kit in rules.drums for bar in kit.values()]
    bars = [*rules.rhythms, *rules.basses, *rules.comps, *drums]
    assert len({len(bar) for bar in bars}) == 1
    assert len(bars[0]) % rules.beats == 0
    assert {drum for kit in rules.drums for drum in kit} <= set(DRUMS)
    assert {*rules.leads, *rules.comps_by, *rules.basses_by} <= set(INSTRUMENTS)
    assert set(rules.modes) <= set(MODES)
    assert set(rules.modes) <= set(PROGRESSIONS)
    assert sum(rules.modes.values()) == pytest.approx(1)
    assert "o" not in "".join(rules.rhythms)


def test_styles_differ_in_metre_mode_tempo_timbre_and_register():
    for fact in ("tempo", "register", "leads", "rhythms", "brightness"):
        assert len({getattr(rules, fact) for rules in STYLES.values()}) == 6, fact
    assert len({rules.beats for rules in STYLES.values()}) >= 3
    assert len({max(r.modes, key=r.modes.__getitem__) for r in STYLES.values()}) >= 4


@pytest.mark.parametrize("track", PLAN[:40], ids=lambda track: track.audio_path)
def test_a_piece_fills_its_length_with_verse_and_chorus(track):
    piece, seconds = piece_of(track), track.n_samples / RATE_HZ
    starts = [event.start_seconds for event in piece.events]
    assert min(starts) >= 0
    assert max(starts) < seconds
    assert seconds - max(starts) < 6
    assert {"verse", "chorus"} <= {name for _, name in piece.sections}
    assert list(piece.sections) == sorted(piece.sections)
    assert all(event.duration_seconds > 0 and event.level >= 0 for event in piece.events)
    assert all((event.pitch == 0) == (event.instrument in DRUMS) for event in piece.events)
    assert all(28 <= event.pitch <= 110 for event in piece.events if event.pitch)


def test_sections_of_a_track_differ():
    def pace(piece, wanted):
        ends = [*(start for start, _ in piece.sections[1:]), piece.events[-1].start_seconds]
        spans = [
            (a, b) for (a, name), b in zip(piece.sections, ends, strict=True) if name == wanted
        ]
        notes = sum(a <= event.start_seconds < b for event in piece.events for a, b in spans)
        return notes / sum(b - a for a, b in spans)

    denser = [pace(piece, "chorus") > pace(piece, "verse") for piece in map(piece_of, PLAN)]
    assert np.mean(denser) > 0.8


def test_versions_share_the_song_and_differ_in_arrangement():
    track, other = next(
        (a, b) for a in PLAN for b in PLAN if a.song == b.song and a.version < b.version
    )
    songs = [
        write_song(version.style, np.random.default_rng([version.seed, 0, version.song]))
        for version in (track, other)
    ]
    assert songs[0] == songs[1]
    assert piece_of(track).events != piece_of(other).events


def test_emotion_is_roughly_standardised_and_more_than_the_style():
    emotion = np.array([(p.arousal, p.valence) for p in map(piece_of, PLAN)])
    styles = np.array([track.style for track in PLAN])
    np.testing.assert_allclose(emotion.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(emotion.std(axis=0), 1, atol=0.2)
    within = [emotion[styles == style].var(axis=0) for style in STYLES]
    assert (np.mean(within, axis=0) > 0.25 * emotion.var(axis=0)).all()


def test_chords_move_by_the_shortest_way():
    song = write_song("chorale", np.random.default_rng(0))
    voices = (55, 60, 64)
    for degree in (0, 3, 4, 0, 5):
        chord = chord_of(song, degree)
        after = voicing(chord, voices, 48)
        assert {pitch % 12 for pitch in after} == set(chord)
        assert sum(abs(a - b) for a, b in zip(after, voices, strict=True)) <= 12
        voices = after


def test_onsets_of_an_empty_bar_are_none():
    assert list(onsets("....")) == []


# --- the sound


@pytest.mark.parametrize("instrument", [*INSTRUMENTS, *DRUMS])
def test_every_instrument_sounds_clean_at_unit_loudness(instrument):
    for pitch, brightness in ((0, 2),) if instrument in DRUMS else ((34, 0), (69, 2), (108, 4)):
        sound = note(instrument, pitch, 8, brightness)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()
        assert abs(sound[-1]) < 0.05
        tenth = RATE_HZ // 10
        loudest = max(
            np.sum(sound[at : at + tenth] ** 2) / tenth for at in range(0, len(sound), tenth)
        )
        assert loudest == pytest.approx(1, rel=1e-3)
        with pytest.raises(ValueError, match="read-only"):
            sound[0] = 1


@pytest.mark.parametrize("instrument", INSTRUMENTS)
def test_instruments_are_in_tune(instrument):
    sound = note(instrument, 69, 20, 2)
    spectrum = np.abs(np.fft.rfft(sound, 1 << 18)) ** 2
    hertz = np.fft.rfftfreq(1 << 18, 1 / RATE_HZ)
    near = (hertz > 415) & (hertz < 466)
    assert abs(1200 * np.log2(hertz[near][spectrum[near].argmax()] / 440)) < 20


def test_noise_does_not_depend_on_what_was_rendered_before():
    first = note.__wrapped__("snare", 0, 8, 2)
    note.__wrapped__("hat", 0, 8, 2)
    np.testing.assert_array_equal(note.__wrapped__("snare", 0, 8, 2), first)


def test_mix_adds_notes_and_cuts_at_the_end():
    sound = note("piano", 60, 8, 2)
    events = [Event(0.5, 0.2, 60, 0.5, "piano"), Event(9.0, 0.2, 60, 1.0, "piano")]
    out = mix(events, RATE_HZ * 3 // 5)
    np.testing.assert_array_equal(out[:12_000], 0)
    np.testing.assert_array_equal(out[12_000:], np.float32(0.5) * sound[: len(out) - 12_000])


def test_a_dry_neutral_master_only_sets_the_level():
    rng = np.random.default_rng(0)
    dry = np.zeros(100_000, np.float32)
    dry[1000:90_000] = np.sin(np.arange(89_000) * 0.2)
    out = master(dry, rng, room=0, wet=0, tilt=0, hiss=0, loudness_db=-20)
    assert np.sqrt(np.mean(out**2)) == pytest.approx(0.1, rel=1e-3)
    np.testing.assert_allclose(out / out[5000] * dry[5000], dry, atol=1e-4)


def test_a_room_echoes_across_the_blocks_of_the_convolution():
    dry = np.zeros(120_000, np.float32)
    dry[39_990] = 1
    out = master(dry, np.random.default_rng(0), room=1, wet=0.5, tilt=0, hiss=0, loudness_db=-40)
    echo = np.abs(out[39_990 + 1000 :])
    assert echo[:3000].mean() > 3 * echo[15_000:18_000].mean() > 0
    assert np.abs(out[:39_900]).max() < 1e-4 * np.abs(out).max()


def test_rendered_level_is_the_planned_one_and_nothing_clips():
    for track in PLAN[:6]:
        samples = render_track(track, piece_of(track))
        assert samples.dtype == np.float32
        assert len(samples) == track.n_samples
        assert np.abs(samples).max() < 1
        level = 10 * np.log10(np.mean(samples**2))
        assert level == pytest.approx(track.loudness_db, abs=0.1)


# --- the folder


def test_manifests_say_what_the_files_hold(tiny):
    keys = ["audio_path", "label", "sample_rate", "num_samples", "channels", "duration"]
    keys += ["bit_depth", "ori_uid", "emotion"]
    seen = set()
    for split in ("train", "val", "test"):
        assert len(records(tiny, split)) == 6
        for record in records(tiny, split):
            assert list(record) == keys
            decoded = decode(tiny / record["audio_path"], sample_rate_hz=RATE_HZ)
            assert len(decoded.samples) == record["num_samples"]
            assert decoded.facts.sample_rate_hz == record["sample_rate"] == RATE_HZ
            assert decoded.facts.n_channels == record["channels"] == 1
            assert record["duration"] == record["num_samples"] / RATE_HZ
            assert record["label"] in STYLES
            assert all(isinstance(value, float) for value in record["emotion"])
            assert record["label"] not in record["audio_path"] + record["ori_uid"]
            seen.add(record["audio_path"])
    assert len(seen) == 18
    assert "CC0" in (tiny / "README.md").read_text("utf-8")


def test_a_whole_folder_is_returned_at_once(tiny, plans):
    assert ensure_demo(tiny.parent, spec=TINY) == tiny
    assert not plans


def test_every_process_and_any_number_of_workers_write_the_same_bytes(tiny, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tune_cache.datasets.demo import *;"
        "ensure_demo(Path(sys.argv[1]), n_workers=1, spec=DemoSpec("
        "tracks_per_style=3, shortest_seconds=3.0, longest_seconds=5.0))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    assert contents(tmp_path / TINY.folder) == contents(tiny)


def test_nothing_but_the_folder_is_left_behind(tiny):
    assert [path.name for path in tiny.parent.iterdir()] == [TINY.folder]


def damaged(folder, how):
    victim = sorted((folder / "audio").iterdir())[0]
    if how == "truncated":
        victim.write_bytes(victim.read_bytes()[:100])
    elif how == "missing":
        victim.unlink()
    elif how == "no audio folder":
        for path in (folder / "audio").iterdir():
            path.unlink()
        (folder / "audio").rmdir()
    elif how == "no marker":
        (folder / COMPLETE).unlink()
    elif how == "torn marker":
        (folder / COMPLETE).write_bytes((folder / COMPLETE).read_bytes()[:50])
    elif how == "marker of something else":
        (folder / COMPLETE).write_text('{"files": 3}')
    elif how == "edited marker":
        text = (folder / COMPLETE).read_text().replace('"README.md":', '"READ.md":')
        (folder / COMPLETE).write_text(text)


@pytest.mark.parametrize(
    "how",
    [
        "truncated", "missing", "no audio folder", "no marker", "torn marker",
        "marker of something else", "edited marker",
    ],
)  # fmt: skip
def test_a_damaged_folder_is_mended_and_other_files_are_left_alone(tiny, tmp_path, how):
    folder = tmp_path / TINY.folder
    for name, data in contents(tiny).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "notes.txt").write_text("mine")
    damaged(folder, how)
    assert ensure_demo(tmp_path, spec=TINY) == folder
    mended = contents(folder)
    assert mended.pop("notes.txt") == b"mine"
    assert mended == contents(tiny)
    assert [path.name for path in tmp_path.iterdir()] == [TINY.folder]


def test_an_empty_folder_in_the_way_is_filled(tiny, tmp_path):
    (tmp_path / TINY.folder).mkdir()
    assert contents(ensure_demo(tmp_path, spec=TINY)) == contents(tiny)


def test_a_rival_that_finishes_first_is_kept(tiny, tmp_path, monkeypatch):
    publish = demo_room._publish

    def late(work, final):
        os.rename(rival, final)  # noqa: PTH104 - clearer beside the call it precedes
        (final / "mark").touch()
        publish(work, final)

    rival = ensure_demo(tmp_path / "rival", spec=TINY)
    monkeypatch.setattr(demo_room, "_publish", late)
    folder = ensure_demo(tmp_path / "mine", spec=TINY)
    assert (folder / "mark").exists()
    assert [path.name for path in folder.parent.iterdir()] == [TINY.folder]


def test_two_processes_at_once_are_harmless(tiny, tmp_path):
    code = (
        "import sys; from pathlib import Path; from tune_cache.datasets.demo import *;"
        "ensure_demo(Path(sys.argv[1]), spec=DemoSpec("
        "tracks_per_style=3, shortest_seconds=3.0, longest_seconds=5.0))"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [TINY.folder]
    assert contents(tmp_path / TINY.folder) == contents(tiny)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, samples, sample_rate_hz):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo_room, "write_flac", full)
    with pytest.raises(OSError, match="No space"):
        ensure_demo(tmp_path, spec=TINY)
    assert list(tmp_path.iterdir()) == []


def test_what_was_killed_long_ago_is_swept_and_the_rest_is_not(tiny, tmp_path):
    for name, age in (("old", 7200), ("young", 60)):
        folder = tmp_path / f".demo-{name}"
        folder.mkdir()
        then = folder.stat().st_mtime - age
        os.utime(folder, (then, then))
    ensure_demo(tmp_path, spec=TINY)
    assert {path.name for path in tmp_path.iterdir()} == {".demo-young", TINY.folder}


def test_progress_counts_to_the_end(tmp_path):
    events = []
    ensure_demo(tmp_path, spec=TINY, on_progress=events.append)
    assert [event.n_done for event in events] == list(range(1, 19))
    assert {event.n_tracks for event in events} == {18}
    total = sum(track.n_samples for track in plan_demo(TINY)) / RATE_HZ
    assert events[-1].seconds == pytest.approx(total)


def test_only_the_default_demo_has_the_plain_name():
    assert DemoSpec().folder == "demo-1"
    assert TINY.folder.startswith("demo-1-")
    assert len({DemoSpec(seed=seed).folder for seed in range(20)}) == 20
