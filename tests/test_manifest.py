"""Manifests: the strict line reader, and records that become tracks, groups and tasks."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tune_cache.datasets.base import Dataset, Problem, Task, Track, raise_errors
from tune_cache.datasets.catalog import load_dataset, read_dataset
from tune_cache.datasets.config import Config, read_config
from tune_cache.datasets.manifest import MAX_LINE_BYTES, parse_line, read_manifest
from tune_cache.errors import ManifestError, UsageError

SUBSET = Path(
    os.environ.get("TUNE_SUBSET")
    or Path(__file__).resolve().parents[2] / "shared" / "data" / "soundtrack-subset"
)


def write_lines(path: Path, *records: dict[str, Any] | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in records]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def make(folder: Path, *labels: Any, name: str = "set", **keys: Any) -> Path:
    """One train manifest with a file for every label."""
    records = []
    for index, label in enumerate(labels):
        (folder / f"{index}.wav").write_bytes(b"audio")
        records.append({"audio_path": f"{index}.wav", "label": label, **keys})
    return write_lines(folder / f"{name}.train.jsonl", *records)


def load(path: Path, **arguments: Any) -> Dataset:
    return load_dataset(str(path), config=Config(), **arguments)


def faults(path: Path, **arguments: Any) -> list[Problem]:
    return list(read_dataset(str(path), config=Config(), **arguments)[1])


# --- lines

# shared machines: how long an example takes says nothing
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Hostile:
    id: str
    line: bytes
    match: str


HOSTILE = [
    Hostile("not JSON", b"{audio_path: 1}", "not JSON"),
    Hostile("truncated", b'{"audio_path": "a', "not JSON"),
    Hostile("two objects", b'{"a": 1} {"a": 2}', "not JSON"),
    Hostile("an array", b'["a.wav"]', "expected a JSON object"),
    Hostile("a number", b"1", "expected a JSON object"),
    Hostile("null", b"null", "expected a JSON object"),
    Hostile("NaN", b'{"label": NaN}', "NaN"),
    Hostile("Infinity", b'{"label": [-Infinity]}', "Infinity"),
    Hostile("a float beyond double", b'{"label": 1e999}', "out of range"),
    Hostile("an integer beyond int64", b'{"label": ' + b"9" * 40 + b"}", "out of range"),
    Hostile("an integer of 5000 digits", b'{"label": ' + b"9" * 5000 + b"}", "out of range"),
    Hostile("duplicate key", b'{"label": "a", "label": "b"}', "'label' appears more than once"),
    Hostile("nested duplicate key", b'{"x": {"y": 1, "y": 1}}', "'y' appears more than once"),
    Hostile("deep nesting", b'{"label": ' + b"[" * 900 + b"]" * 900 + b"}", "too deeply"),
    Hostile("deepest nesting", b'{"label": ' + b"[" * 60_000, "too deeply|not JSON"),
    Hostile("a long line", b'{"label": "' + b"x" * MAX_LINE_BYTES + b'"}', "longer than 65536"),
    Hostile("UTF-16", '{"label": "a"}'.encode("utf-16"), "not JSON"),
    Hostile("a WAV file", b"RIFF\x24\x08\x00\x00WAVEfmt ", "not JSON"),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.id)
def test_hostile_line_is_refused_with_its_place(case, tmp_path):
    good = {"audio_path": "a.wav", "label": "rock"}
    path = write_lines(tmp_path / "set.train.jsonl", good, case.line, good)
    records, problems = read_manifest(path)
    assert [record.line for record in records] == [1, 3]
    [problem] = problems
    assert (problem.path, problem.line, problem.severity) == (str(path), 2, "error")
    with pytest.raises(ManifestError, match=case.match) as caught:
        parse_line(case.line, path="p", line=7)
    assert (caught.value.path, caught.value.line) == ("p", 7)
    assert caught.value.hint
    assert len(str(caught.value)) < 300


def test_line_of_exactly_64_kib_is_read():
    frame = len(b'{"label": ""}\n')
    line = b'{"label": "' + b"x" * (MAX_LINE_BYTES - frame) + b'"}\n'
    assert len(line) == MAX_LINE_BYTES
    assert len(parse_line(line)["label"]) == MAX_LINE_BYTES - frame


def test_overlong_line_does_not_swallow_the_next(tmp_path):
    path = write_lines(
        tmp_path / "set.train.jsonl",
        b'{"label": "' + b"x" * (5 * MAX_LINE_BYTES) + b'"}',
        {"audio_path": "a.wav"},
    )
    records, problems = read_manifest(path)
    assert [(record.line, record.fields) for record in records] == [(2, {"audio_path": "a.wav"})]
    assert [problem.line for problem in problems] == [1]


def test_byte_order_mark_blank_lines_and_crlf_are_passed_over(tmp_path):
    path = tmp_path / "set.train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    records, problems = read_manifest(path)
    assert [(record.line, record.fields["a"]) for record in records] == [(1, 1), (4, 2)]
    assert not problems


def test_file_that_is_no_manifest_is_given_up(tmp_path):
    path = tmp_path / "set.train.jsonl"
    path.write_bytes(b"noise\n" * 10_000)
    records, problems = read_manifest(path)
    assert not records
    assert len(problems) < 110
    assert "given up at line 101" in problems[-1].message


def test_manifest_that_is_no_regular_file_is_refused_at_once(tmp_path):
    fifo = tmp_path / "set.train.jsonl"
    os.mkfifo(fifo)
    for path in (fifo, tmp_path, tmp_path / "absent.jsonl", tmp_path / ("x" * 300)):
        records, [problem] = read_manifest(path)
        assert not records
        assert (problem.code, problem.line) == ("bad-manifest", 0)


# low surrogates only: a high one before them would be a pair, and one character
texts = st.text(st.characters(max_codepoint=0xD7FF) | st.sampled_from("\udc80\udcff"), max_size=8)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**17), max_value=10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=12,
)


@unhurried
@given(st.dictionaries(texts, json_values, max_size=6))
def test_every_record_of_finite_values_round_trips(record):
    assert parse_line(json.dumps(record).encode("ascii") + b"\n") == record


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_manifest_error(raw):
    with contextlib.suppress(ManifestError):
        assert isinstance(parse_line(raw), dict)


@unhurried
@given(
    st.binary(min_size=1, max_size=12).filter(
        lambda raw: not set(raw) & set(b'"\\') and min(raw) >= 32
    )
)
def test_any_bytes_in_a_string_survive(raw):
    text = parse_line(b'{"label": "' + raw + b'"}')["label"]
    assert text.encode("utf-8", "surrogateescape") == raw


# --- tracks


def test_record_becomes_a_track_and_unknown_keys_are_kept(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"audio")
    record = {
        "audio_path": "a.wav",
        "label": "rock",
        "duration": 30.0,
        "sample_rate": 22050,
        "ori_uid": "song",
        "anything": {"else": [1, None]},
    }
    path = write_lines(tmp_path / "set.val.jsonl", record)
    dataset = load(tmp_path / "set")
    assert dataset.tracks == (
        Track(
            track_id="a.wav",
            path=(tmp_path / "a.wav").resolve(),
            audio_path="a.wav",
            split="val",
            group="song",
            labels={"set": "rock"},
            duration_seconds=30.0,
            manifest=str(path),
            line=1,
            extra={"sample_rate": 22050, "ori_uid": "song", "anything": {"else": [1, None]}},
        ),
    )
    assert dataset.tasks == (Task(name="set", label="label", kind="multiclass"),)
    assert dataset.split("train") == ()
    assert dataset.note == "no track in train, test"


def test_tracks_are_sorted_by_id_whatever_the_manifest_order(tmp_path):
    records = [{"audio_path": f"{name}.wav", "label": "x"} for name in ("b", "a", "ä", "Z")]
    write_lines(tmp_path / "set.train.jsonl", *records)
    ids = [track.track_id for track in load(tmp_path / "set").tracks]
    assert ids == sorted(ids) == ["Z.wav", "a.wav", "b.wav", "ä.wav"]


def test_track_id_of_the_record_wins_and_may_be_an_integer(tmp_path):
    write_lines(
        tmp_path / "set.train.jsonl",
        {"audio_path": "a.wav", "track_id": "../../etc/passwd"},
        {"audio_path": "b.wav", "track_id": 12},
        {"audio_path": "sub/../c.wav"},
    )
    ids = [track.track_id for track in load(tmp_path / "set").tracks]
    assert ids == ["../../etc/passwd", "12", "c.wav"]


def test_lone_surrogates_survive_in_ids_labels_and_paths(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(b"audio")
    write_lines(
        tmp_path / "set.train.jsonl",
        b'{"audio_path": "caf\xe9.wav", "label": "caf\xe9"}',
        {"audio_path": "b.wav", "track_id": "\ud800", "label": "x"},
    )
    first, second = load(tmp_path / "set").tracks
    assert (first.track_id, second.track_id) == (name, "\ud800")
    assert first.labels == {"set": "caf\udce9"}
    assert first.path.is_file()


@dataclass(frozen=True)
class BadRecord:
    id: str
    record: dict[str, Any]
    match: str


BAD_RECORDS = [
    BadRecord("no audio_path", {"label": "x"}, "no audio_path"),
    BadRecord("audio_path a number", {"audio_path": 3}, "has audio_path 3"),
    BadRecord("audio_path empty", {"audio_path": ""}, "is no path"),
    BadRecord("audio_path with NUL", {"audio_path": "a\0b"}, "is no path"),
    BadRecord("audio_path no file system takes", {"audio_path": "\ud800.wav"}, "is no path"),
    BadRecord("track_id empty", {"audio_path": "z.wav", "track_id": ""}, "track_id is ''"),
    BadRecord("track_id a list", {"audio_path": "z.wav", "track_id": ["z"]}, "track_id is"),
    BadRecord("track_id a boolean", {"audio_path": "z.wav", "track_id": True}, "track_id is True"),
    BadRecord("group a list", {"audio_path": "z.wav", "artist": ["a"]}, "artist is"),
    BadRecord("parent", {"audio_path": "../z.wav"}, "leaves the data root"),
    BadRecord("parent in between", {"audio_path": "a/../../z.wav"}, "leaves the data root"),
    BadRecord("absolute", {"audio_path": "/etc/passwd"}, "leaves the data root"),
    BadRecord("twice", {"audio_path": "0.wav"}, "'0.wav' appears twice"),
    BadRecord("twice by another spelling", {"audio_path": "./x/../0.wav"}, "appears twice"),
    BadRecord("an id for two files", {"audio_path": "z.wav", "track_id": "0.wav"}, "two files"),
]


@pytest.mark.parametrize("case", BAD_RECORDS, ids=lambda case: case.id)
def test_bad_record_is_an_error_with_its_line_and_costs_no_other(case, tmp_path):
    path = make(tmp_path, "x", "y")
    with path.open("ab") as file:
        file.write(json.dumps({"label": "x", **case.record}).encode() + b"\n")
    with pytest.raises(ManifestError, match=case.match) as caught:
        load(tmp_path / "set")
    assert (caught.value.path, caught.value.line) == (str(path), 3)
    dataset, [problem] = read_dataset(str(tmp_path / "set"), config=Config())
    assert {"0.wav", "1.wav"} <= {track.track_id for track in dataset.tracks}
    assert problem.line == 3


def test_all_problems_are_collected_and_the_next_places_are_named(tmp_path):
    path = make(tmp_path, "x")
    with path.open("ab") as file:
        file.write(b'nonsense\n{"label": "x"}\n{"audio_path": "../b"}\n[]\n')
    assert sorted(problem.line for problem in faults(tmp_path / "set")) == [2, 3, 4, 5]
    with pytest.raises(ManifestError, match=r"train.jsonl:2: .*also .*:5, .*:3 and 1 more"):
        load(tmp_path / "set")


def test_warnings_do_not_stop_a_load(tmp_path):
    make(tmp_path, "x", duration="long")
    assert load(tmp_path / "set").tracks[0].duration_seconds is None
    [problem] = faults(tmp_path / "set")
    assert (problem.severity, problem.code) == ("warning", "bad-duration")
    raise_errors([problem])


# --- data root


def test_marbles_paths_are_found_above_the_manifest(tmp_path):
    audio = tmp_path / "data" / "EMO" / "wav"
    audio.mkdir(parents=True)
    (audio / "1.wav").write_bytes(b"audio")
    write_lines(
        tmp_path / "data" / "EMO" / "EMO.train.jsonl",
        {"audio_path": "data/EMO/wav/1.wav", "label": [1.0, 2.0]},
        {"audio_path": "data/EMO/wav/2.wav", "label": [1.0, 2.0]},
    )
    dataset = load(tmp_path / "data" / "EMO")
    assert dataset.data_root == tmp_path
    assert dataset.tracks[0].path == (audio / "1.wav").resolve()
    assert dataset.tracks[0].track_id == "data/EMO/wav/1.wav"
    assert not dataset.tracks[1].path.exists()


def test_root_with_most_files_wins_over_a_nearer_one_with_a_stray(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "m/a/1.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"audio")
    write_lines(tmp_path / "m/s.train.jsonl", {"audio_path": "a/1.wav"}, {"audio_path": "a/2.wav"})
    assert load(tmp_path / "m/s").data_root == tmp_path


def test_given_data_root_is_not_searched(tmp_path):
    make(tmp_path, "x")
    (tmp_path / "other").mkdir()
    dataset = load(tmp_path / "set", data_root=tmp_path / "other")
    assert dataset.data_root == tmp_path / "other"
    assert dataset.tracks[0].track_id == "0.wav"
    assert not dataset.tracks[0].path.exists()


def test_dataset_without_its_audio_still_loads_with_the_same_ids(tmp_path):
    make(tmp_path, "x", "y")
    before = [track.track_id for track in load(tmp_path / "set").tracks]
    for path in tmp_path.glob("*.wav"):
        path.unlink()
    dataset = load(tmp_path / "set")
    assert [track.track_id for track in dataset.tracks] == before
    assert "--data-root" in dataset.note


def test_absolute_path_inside_the_root_has_a_relative_id(tmp_path):
    write_lines(tmp_path / "set.train.jsonl", {"audio_path": str(tmp_path / "sub" / "a.wav")})
    assert load(tmp_path / "set").tracks[0].track_id == "sub/a.wav"


def test_absolute_path_that_a_link_leads_into_the_root_has_a_relative_id(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    record = {"audio_path": str(tmp_path / "link" / "a.wav")}
    write_lines(tmp_path / "real" / "set.train.jsonl", record)
    [track] = load(tmp_path / "real" / "set", data_root=tmp_path / "real").tracks
    assert (track.track_id, track.path) == ("a.wav", tmp_path.resolve() / "real" / "a.wav")


def test_link_out_of_the_root_is_refused_unless_allowed(tmp_path):
    outside = tmp_path / "outside"
    inside = tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "a.wav").write_bytes(b"audio")
    (inside / "link.wav").symlink_to(outside / "a.wav")
    (inside / "folder").symlink_to(outside)
    write_lines(
        inside / "set.train.jsonl", {"audio_path": "link.wav"}, {"audio_path": "folder/a.wav"}
    )
    problems = faults(inside / "set")
    assert [(item.code, item.line) for item in problems] == [
        ("outside-root", 1),
        ("outside-root", 2),
    ]
    dataset = load(inside / "set", allow_outside_root=True)
    assert {track.path for track in dataset.tracks} == {(outside / "a.wav").resolve()}


def test_link_within_the_root_and_a_linked_root_are_followed(tmp_path):
    real = tmp_path / "real"
    (real / "objects").mkdir(parents=True)
    (real / "objects" / "1").write_bytes(b"audio")
    (real / "a.wav").symlink_to("objects/1")
    write_lines(real / "set.train.jsonl", {"audio_path": "a.wav"})
    (tmp_path / "link").symlink_to(real)
    for folder in (real, tmp_path / "link"):
        [track] = load(folder / "set").tracks
        assert (track.track_id, track.path) == ("a.wav", (real / "objects" / "1").resolve())


def test_linked_data_folder_of_marbles_layout_is_followed(tmp_path):
    (tmp_path / "disk" / "EMO").mkdir(parents=True)
    (tmp_path / "disk" / "EMO" / "1.wav").write_bytes(b"audio")
    write_lines(tmp_path / "disk" / "EMO" / "X.train.jsonl", {"audio_path": "data/EMO/1.wav"})
    (tmp_path / "bench" / "data").mkdir(parents=True)
    (tmp_path / "bench" / "data" / "EMO").symlink_to(tmp_path / "disk" / "EMO")
    [track] = load(tmp_path / "bench" / "data" / "EMO" / "X").tracks
    assert track.track_id == "data/EMO/1.wav"
    assert track.path.is_file()


def test_outside_file_taken_by_permission_has_its_path_as_id(tmp_path):
    (tmp_path / "a").mkdir()
    write_lines(tmp_path / "a" / "set.train.jsonl", {"audio_path": "../b/x.wav"})
    [track] = load(tmp_path / "a" / "set", allow_outside_root=True, data_root=tmp_path / "a").tracks
    assert track.track_id == "../b/x.wav"
    assert track.path == (tmp_path / "b" / "x.wav").resolve()


# --- groups and splits


def test_group_key_is_one_for_the_dataset(tmp_path):
    write_lines(
        tmp_path / "set.train.jsonl",
        {"audio_path": "a.wav", "ori_uid": 7, "artist": "A"},
        {"audio_path": "b.wav", "artist": "A"},
        {"audio_path": "c.wav", "ori_uid": None, "album": "B"},
        {"audio_path": "d.wav", "ori_uid": ""},
    )
    groups = [track.group for track in load(tmp_path / "set").tracks]
    assert groups == ["7", "b.wav", "c.wav", "d.wav"]


@pytest.mark.parametrize(
    ("keys", "group"),
    [
        ({"group": "g", "ori_uid": "o", "artist": "a", "album": "l"}, "g"),
        ({"ori_uid": "o", "artist": "a", "album": "l"}, "o"),
        ({"artist": "a", "album": "l"}, "a"),
        ({"album": "l"}, "l"),
        ({}, "0.wav"),
    ],
)
def test_group_is_the_first_key_there_is(keys, group, tmp_path):
    make(tmp_path, "x", **keys)
    assert load(tmp_path / "set").tracks[0].group == group


def test_file_in_two_splits_is_an_error_naming_both_lines(tmp_path):
    make(tmp_path, "x", "y")
    write_lines(tmp_path / "set.test.jsonl", {"audio_path": "1.wav", "label": "y"})
    with pytest.raises(ManifestError, match=r"set.test.jsonl:1: .*'test'.*'train'.*train.jsonl:2"):
        load(tmp_path / "set")


# --- merging sets


def two_sets(folder: Path, first: list[dict[str, Any]], second: list[dict[str, Any]]) -> Dataset:
    write_lines(folder / "one.train.jsonl", *first)
    write_lines(folder / "two.train.jsonl", *second)
    (folder / "tune.toml").write_text('[datasets.both]\nmanifests = ["one", "two"]\n')
    return load_dataset("both", config=read_config(folder / "tune.toml"))


def test_records_of_one_file_in_two_sets_are_one_track_with_two_labels(tmp_path):
    dataset = two_sets(
        tmp_path,
        [{"audio_path": "a.wav", "label": "rock", "x": 1}],
        [{"audio_path": "./a.wav", "label": [0.5, 1.0], "x": 2, "y": 3}, {"audio_path": "b.wav"}],
    )
    first, second = dataset.tracks
    assert first.labels == {"one": "rock", "two": (0.5, 1.0)}
    assert first.extra == {"x": 1, "y": 3}
    assert second.labels == {}
    assert [(task.name, task.kind) for task in dataset.tasks] == [
        ("one", "multiclass"),
        ("two", "regression"),
    ]


def test_merged_records_must_agree_on_the_split(tmp_path):
    write_lines(tmp_path / "one.train.jsonl", {"audio_path": "a.wav", "label": "x"})
    write_lines(tmp_path / "two.val.jsonl", {"audio_path": "b.wav"}, {"audio_path": "a.wav"})
    (tmp_path / "tune.toml").write_text('[datasets.both]\nmanifests = ["one", "two"]\n')
    with pytest.raises(ManifestError, match=r"two.val.jsonl:2: .*one.train.jsonl:1") as caught:
        load_dataset("both", config=read_config(tmp_path / "tune.toml"))
    assert caught.value.line == 2


def test_merged_records_must_agree_on_the_group(tmp_path):
    with pytest.raises(ManifestError, match=r"two.train.jsonl:1: artist .*one.train.jsonl:1"):
        two_sets(
            tmp_path,
            [{"audio_path": "a.wav", "artist": "A"}],
            [{"audio_path": "a.wav", "artist": "B"}],
        )


# --- labels


@dataclass(frozen=True)
class Labels:
    id: str
    labels: list[Any]
    kind: str
    targets: tuple[str, ...]
    read: list[Any]
    name: str = "set"


LABELS = [
    Labels("strings", ["rock", "jazz"], "multiclass", (), ["rock", "jazz"]),
    Labels("integers", [3, 1], "multiclass", (), [3, 1]),
    Labels("booleans", [True, False], "multiclass", (), [True, False]),
    Labels("floats", [0.5, 2.0], "regression", ("y0",), [(0.5,), (2.0,)]),
    Labels("integers among floats", [1, 2.5], "regression", ("y0",), [(1.0,), (2.5,)]),
    Labels("a number in a list", [[1], [2]], "regression", ("y0",), [(1.0,), (2.0,)]),
    Labels("two numbers", [[1, 2], [3.5, 4]], "regression", ("y0", "y1"), [(1.0, 2.0), (3.5, 4.0)]),
    Labels("EMO", [[1.0, 2.0]], "regression", ("arousal", "valence"), [(1.0, 2.0)], name="EMO-15s"),
    Labels("memory is not EMO", [[1.0, 2.0]], "regression", ("y0", "y1"), [(1.0, 2.0)], "memory"),
    Labels("tags", [["a", "b"], []], "multilabel", (), [("a", "b"), ()]),
    Labels("empty tags", [[], []], "multilabel", (), [(), ()]),
    Labels("a tag twice", [["b", "a", "b"]], "multilabel", (), [("b", "a")]),
]


@pytest.mark.parametrize("case", LABELS, ids=lambda case: case.id)
def test_kind_follows_from_the_labels(case, tmp_path):
    make(tmp_path, *case.labels, name=case.name)
    dataset = load(tmp_path / case.name)
    [task] = dataset.tasks
    assert (task.name, task.kind, task.targets) == (case.name, case.kind, case.targets)
    read = [track.labels[case.name] for track in dataset.tracks]
    assert repr(read) == repr(case.read)  # repr tells True from 1


@pytest.mark.parametrize(
    "odd",
    [3, 0.5, True, ["a"], [1.0], [], {"genre": "rock"}, ["a", 1], [[1.0]], [True, False]],
    ids=repr,
)
def test_label_of_another_kind_is_an_error_naming_both_lines(odd, tmp_path):
    path = make(tmp_path, "rock", "jazz", odd, "rock")
    with pytest.raises(ManifestError, match=rf"{path.name}:3: label .*{path.name}:1") as caught:
        load(tmp_path / "set")
    assert "kind" in (caught.value.hint or "")
    dataset, [problem] = read_dataset(str(tmp_path / "set"), config=Config())
    assert (problem.code, problem.line, problem.track_id) == ("label-type", 3, "2.wav")
    assert dataset.tasks[0].kind == "multiclass"
    assert "set" not in dataset.tracks[2].labels


def test_labels_of_different_lengths_are_an_error(tmp_path):
    make(tmp_path, [1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ManifestError, match="list of 3 numbers, expected a list of 2 numbers"):
        load(tmp_path / "set")


def test_labels_without_any_meaning_are_each_an_error(tmp_path):
    make(tmp_path, {"a": 1}, ["x", 1])
    assert [problem.line for problem in faults(tmp_path / "set")] == [1, 2]


def test_null_label_is_a_missing_one(tmp_path):
    make(tmp_path, None, "x")
    assert [dict(track.labels) for track in load(tmp_path / "set").tracks] == [{}, {"set": "x"}]


def test_dataset_without_labels_loads_for_extraction_and_says_which_keys_there_are(tmp_path):
    write_lines(tmp_path / "set.train.jsonl", {"audio_path": "a.wav", "genre": "rock"})
    dataset = load(tmp_path / "set")
    assert dataset.tasks == ()
    assert "no record has a label; other keys: genre" in dataset.note


# --- the values themselves


def test_unknown_task_and_split_are_named_with_those_there_are(tmp_path):
    make(tmp_path, "x")
    dataset = load(tmp_path / "set")
    assert dataset.task("set") == dataset.tasks[0]
    with pytest.raises(UsageError, match="no task 'sett'; it has 'set'") as caught:
        dataset.task("sett")
    assert caught.value.hint == "did you mean 'set'? --task takes 'set'"
    with pytest.raises(UsageError) as caught:
        dataset.task("tempo")
    assert caught.value.hint == "--task takes 'set'"
    with pytest.raises(UsageError, match="split is 'valid', expected one of train, val, test"):
        dataset.split("valid")


def test_dataset_refuses_tracks_out_of_order(tmp_path):
    track = Track(track_id="a", path=tmp_path, audio_path="a", split="train", group="a")
    with pytest.raises(ManifestError, match="not sorted by unique"):
        Dataset(name="x", tracks=(track, track), tasks=(), data_root=tmp_path)


# --- real music


@pytest.mark.subset
@pytest.mark.skipif(not SUBSET.is_dir(), reason="the real-music subset is not beside the checkout")
def test_real_subset_is_read_unchanged():
    classes = load(SUBSET / "soundtrack")
    numbers = load(SUBSET / "soundtrack_reg")
    assert [len(classes.split(split)) for split in ("train", "val", "test")] == [21, 8, 8]
    assert classes.tasks == (Task(name="soundtrack", label="label", kind="multiclass"),)
    assert numbers.tasks[0].targets == ("y0", "y1")
    assert [track.track_id for track in classes.tracks] == [
        track.track_id for track in numbers.tracks
    ]
    assert all(track.path.is_file() and track.duration_seconds == 45.0 for track in classes.tracks)
    assert all(track.group == track.track_id == track.audio_path for track in classes.tracks)
    with pytest.raises(UsageError, match="holds 2 datasets: 'soundtrack', 'soundtrack_reg'"):
        load(SUBSET)
