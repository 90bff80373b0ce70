"""Scanning: label folders and CSV files become manifests that load as they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tune_cache.datasets.base import SPLITS
from tune_cache.datasets.catalog import load_dataset
from tune_cache.datasets.config import Config, read_config
from tune_cache.datasets.scan import ScanResult, scan_folder
from tune_cache.errors import ManifestError, UsageError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"audio {name}".encode("utf-8", "surrogateescape"))
    return folder


def scan(folder: Path, **arguments: Any) -> ScanResult:
    return scan_folder(folder, **{"header_seconds": lambda path: 12.5} | arguments)


def records(result: ScanResult) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for split in SPLITS
        for line in result.files[split].read_text().splitlines()
    ]


@pytest.fixture
def music(tmp_path):
    """Two labels with ten files each, two of an artist, as artist_number.wav."""
    names = [
        f"{label}/a{index // 2}_{index}.wav" for label in ("jazz", "rock") for index in range(10)
    ]
    return touch(tmp_path / "music", *names)


# --- label folders


def test_label_folders_become_a_dataset_that_loads_as_it_is(music):
    result = scan(music)
    assert result.n_tracks == result.n_groups == {"train": 12, "val": 4, "test": 4}
    assert result.n_labels == {"label": {"jazz": 10, "rock": 10}}
    assert (result.config, result.missing, result.unlabelled, result.ungrouped) == ("", (), (), 0)
    dataset = load_dataset(str(result.prefix), config=Config())
    assert dataset.name == "music"
    assert dataset.data_root == result.data_root == music
    assert len(dataset.tracks) == 20
    for track in dataset.tracks:
        assert track.labels == {"music": track.track_id.split("/")[0]}
        assert track.path.is_file()
        assert track.duration_seconds == 12.5
    for split in SPLITS:
        assert len({track.labels["music"] for track in dataset.split(split)}) == 2


def test_records_are_marbles_and_nothing_more(music):
    assert records(scan(music))[0].keys() == {"audio_path", "label", "duration"}


def test_only_audio_files_are_taken_at_any_depth_and_in_any_case(tmp_path):
    folder = touch(
        tmp_path, "a/1.wav", "a/x/y/2.FLAC", "b/3.mp3", "b/notes.txt", "b/.4.wav", ".c/5.wav",
        "b/.hidden/6.wav", "7.ogg",
    )  # fmt: skip
    (folder / "b" / "fifo.wav").mkdir()
    os.mkfifo(folder / "b" / "pipe.wav")
    result = scan(folder, name="x")
    assert sorted(record["audio_path"] for record in records(result)) == [
        "a/1.wav",
        "a/x/y/2.FLAC",
        "b/3.mp3",
    ]
    assert result.unlabelled == ("7.ogg",)


def test_links_are_taken_only_if_they_stay_inside(tmp_path):
    folder = touch(tmp_path / "in", "a/1.wav", "a/2.wav", "b/3.wav")
    touch(tmp_path / "out", "4.wav")
    (folder / "b" / "inside.wav").symlink_to(folder / "a" / "1.wav")
    (folder / "b" / "outside.wav").symlink_to(tmp_path / "out" / "4.wav")
    (folder / "b" / "nowhere.wav").symlink_to(tmp_path / "nowhere.wav")
    (folder / "loop").symlink_to(folder)
    paths = {record["audio_path"] for record in records(scan(folder))}
    assert paths == {"a/1.wav", "a/2.wav", "b/3.wav", "b/inside.wav"}


def test_names_of_any_bytes_round_trip(tmp_path):
    odd = ["a/-rf.wav", "a/new\nline.wav", 'b/"quote".wav', "b/[bold].wav", "ü/é ü.wav",
           os.fsdecode(b"b/caf\xe9.wav")]  # fmt: skip
    folder = touch(tmp_path / "music", *odd)
    result = scan(folder)
    dataset = load_dataset(str(result.prefix), config=Config())
    assert [track.track_id for track in dataset.tracks] == sorted(odd)
    assert all(track.path.is_file() for track in dataset.tracks)


def test_scan_is_the_same_for_a_copy_and_another_for_another_seed(music, tmp_path):
    names = sorted((str(path.relative_to(music)) for path in music.rglob("*.wav")), reverse=True)
    copy = touch(tmp_path / "copy", *names)
    first, second = scan(music, name="x"), scan(copy, name="x")
    for split in SPLITS:
        assert first.files[split].read_bytes() == second.files[split].read_bytes()
    other = scan(music, name="y", seed=1)
    assert any(first.files[s].read_bytes() != other.files[s].read_bytes() for s in SPLITS)


# --- groups


def test_pattern_keeps_groups_in_one_split(music):
    result = scan(music, group=r"/(a\d+)_")
    assert sum(result.n_groups.values()) == 5
    assert result.ungrouped == 0
    dataset = load_dataset(str(result.prefix), config=Config())
    assert {track.group for track in dataset.tracks} == {f"a{index}" for index in range(5)}
    assert len({(track.group, track.split) for track in dataset.tracks}) == 5


def test_files_that_a_pattern_does_not_match_are_their_own_groups_and_counted(music):
    touch(music, "rock/live.wav")
    result = scan(music, group=r"/(a\d+)_")
    assert result.ungrouped == 1
    groups = {record["audio_path"]: record.get("group") for record in records(result)}
    assert groups["rock/live.wav"] is None


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        (r"a\d+_", "0 capture groups, expected one"),
        (r"(a)(\d+)", "2 capture groups"),
        (r"(a", "no regular expression"),
        (r"(zzz)", "matches none of 20 files"),
        ("column:artist", "no CSV was given"),
    ],
)
def test_wrong_group_rule_is_a_usage_error(pattern, match, music):
    with pytest.raises(UsageError, match=match):
        scan(music, group=pattern)
    assert not list(music.glob("*.jsonl"))


# --- what cannot be scanned


def test_flat_folder_is_an_error_with_a_remedy(tmp_path):
    folder = touch(tmp_path, "1.wav", "2.wav")
    with pytest.raises(ManifestError, match="2 audio files stand directly in") as caught:
        scan(folder)
    assert "CSV" in (caught.value.hint or "")


def test_parent_of_the_label_folders_is_an_error_naming_them(tmp_path):
    touch(tmp_path, "audio/rock/1.wav", "audio/jazz/2.wav")
    with pytest.raises(ManifestError, match="have one label, 'audio'") as caught:
        scan(tmp_path)
    assert "did you mean" in (caught.value.hint or "")
    assert "with 2 folders" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("names", "arguments", "error", "match"),
    [
        ((), {}, ManifestError, "holds no audio files"),
        (("a/x.txt",), {}, ManifestError, "holds no audio files"),
        (("a/1.wav", "a/2.wav"), {}, ManifestError, "have one label, 'a'"),
        (("a/1.wav", "b/2.wav"), {}, ManifestError, "2 tracks in 2 groups cannot fill"),
        (("a/1.wav", "b/2.wav"), {"name": "x/y"}, UsageError, "name is 'x/y'"),
        (("a/1.wav", "b/2.wav"), {"name": "-x"}, UsageError, "name is '-x'"),
    ],
)
def test_folder_that_cannot_be_scanned_is_an_error(names, arguments, error, match, tmp_path):
    touch(tmp_path, *names)
    with pytest.raises(error, match=match):
        scan(tmp_path, **arguments)


def test_absent_folder_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        scan(tmp_path / "absent")


# --- what is written


def test_other_content_is_replaced_only_by_force_and_equal_content_left_alone(music):
    result = scan(music)
    before = {split: path.stat().st_mtime_ns for split, path in result.files.items()}
    scan(music)
    assert {split: path.stat().st_mtime_ns for split, path in result.files.items()} == before
    touch(music, "rock/new.wav")
    content = [path.read_bytes() for path in result.files.values()]
    with pytest.raises(UsageError, match="exist with other content") as caught:
        scan(music)
    assert "--force" in (caught.value.hint or "")
    assert [path.read_bytes() for path in result.files.values()] == content
    assert sum(scan(music, force=True).n_tracks.values()) == 21
    assert not list(music.glob(".*"))


@pytest.mark.parametrize("where", ["music/lists", "lists", "."])
def test_manifests_elsewhere_load_without_a_data_root_and_with_the_same_ids(where, music, tmp_path):
    result = scan(music, out=tmp_path / where, name="x")
    assert result.prefix == tmp_path / where / "x"
    dataset = load_dataset(str(result.prefix), config=Config())
    assert all(track.path.is_file() for track in dataset.tracks)
    assert dataset.tracks[0].track_id == "jazz/a0_0.wav"


def test_unwritable_place_is_a_usage_error(music, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="manifests cannot be written") as caught:
        scan(music, out=tmp_path / "file" / "x")
    assert "--out" in (caught.value.hint or "")


def test_file_without_a_header_is_kept_without_a_duration_and_reported(music):
    result = scan(music, header_seconds=lambda path: None if path.name == "a0_0.wav" else 3.0)
    assert result.without_header == ("jazz/a0_0.wav", "rock/a0_0.wav")
    durations = [record.get("duration") for record in records(result)]
    assert Counter(durations) == {3.0: 18, None: 2}


def test_progress_is_told(music):
    seen: list[tuple[int, int]] = []
    scan(music, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(index, 20) for index in range(1, 21)]


def test_real_headers_are_read_by_default(tmp_path):
    import wave

    for index in range(4):
        path = tmp_path / f"label{index % 2}" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(b"\1\0" * 8000 * (index + 1))
    result = scan_folder(tmp_path, name="x")
    assert sorted(record["duration"] for record in records(result)) == [1.0, 2.0, 3.0, 4.0]


# --- CSV


def csv_scan(folder: Path, text: str | bytes, **arguments: Any) -> ScanResult:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return scan(folder, labels_csv=path, **{"name": "x"} | arguments)


@pytest.fixture
def flat(tmp_path):
    return touch(tmp_path / "flat", *(f"{index}.wav" for index in range(10)))


def rows(line: str) -> str:
    return "".join(line.format(i=i, odd=i % 2, f=i / 4, artist=i // 3) for i in range(10))


def test_column_of_classes_becomes_labels(flat):
    result = csv_scan(flat, "\ufefffile,label\r\n" + rows('"{i}.wav", c{odd} \r\n'))
    assert result.n_labels == {"label": {"c0": 5, "c1": 5}}
    [task] = load_dataset(str(result.prefix), config=Config()).tasks
    assert (task.name, task.kind) == ("x", "multiclass")


@pytest.mark.parametrize("header", ["file", "audio_path", "path"])
def test_column_of_numbers_becomes_a_regression_target(header, flat):
    result = csv_scan(flat, f"{header},tempo\n" + rows("{i}.wav,{i}\n"))
    assert result.n_labels == {"tempo": {"": 10}}
    dataset = load_dataset(str(result.prefix), config=Config())
    assert dataset.tasks[0].kind == "regression"
    assert dataset.tracks[3].labels == {"x": (3.0,)}


def test_columns_of_numbers_are_one_task_whose_targets_the_config_names(flat):
    result = csv_scan(flat, "file,arousal,valence\n" + rows("{i}.wav,{f},-1e{i}\n"))
    (flat / "tune.toml").write_text(result.config)
    [task] = load_dataset("x", config=read_config(flat / "tune.toml")).tasks
    assert (task.kind, task.targets) == ("regression", ("arousal", "valence"))
    [plain] = load_dataset(str(result.prefix), config=Config()).tasks
    assert plain.targets == ("y0", "y1")


def test_columns_of_both_kinds_are_tasks_that_the_config_names(flat):
    text = "file,style,arousal,valence\n" + rows("{i}.wav,s{odd},{f},{i}\n")
    result = csv_scan(flat, text)
    (flat / "tune.toml").write_text(result.config)
    dataset = load_dataset("x", config=read_config(flat / "tune.toml"))
    assert [(task.name, task.kind, task.targets) for task in dataset.tasks] == [
        ("style", "multiclass", ()),
        ("arousal_valence", "regression", ("arousal", "valence")),
    ]
    assert dataset.tracks[5].labels == {"style": "s1", "arousal_valence": (1.25, 5.0)}


def test_label_columns_can_be_chosen(flat):
    text = "file,style,year\n" + rows("{i}.wav,s{odd},{i}\n")
    assert csv_scan(flat, text, label_columns=["year"]).n_labels == {"year": {"": 10}}


@pytest.mark.parametrize("group", ["artist", "column:artist", None])
def test_group_column_keeps_groups_in_one_split(group, flat):
    result = csv_scan(flat, "file,label,artist\n" + rows("{i}.wav,c{odd},A{artist}\n"), group=group)
    assert result.n_labels == {"label": {"c0": 5, "c1": 5}}
    assert sum(result.n_groups.values()) == 4
    dataset = load_dataset(str(result.prefix), config=Config())
    assert len({(track.group, track.split) for track in dataset.tracks}) == 4
    assert dataset.tracks[0].group == "A0"


def test_pattern_can_group_a_csv_too(flat):
    result = csv_scan(flat, "file,label\n" + rows("{i}.wav,c{odd}\n"), group=r"([0-4])\.wav")
    assert result.ungrouped == 5


def test_given_splits_are_kept(flat):
    names = ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    lines = "".join(f"{i}.wav,c{i % 2},{name}\n" for i, name in enumerate(names))
    result = csv_scan(flat, "file,label,split\n" + lines)
    assert result.n_tracks == {"train": 5, "val": 2, "test": 3}


def test_missing_files_and_missing_labels_are_reported_and_left_out(flat):
    text = "file,label\n" + rows("{i}.wav,c{odd}\n") + "no.wav,c0\n../x.wav,c1\n"
    text += "a\0b.wav,c0\n" + "y" * 5000 + ".wav,c1\n"
    text = text.replace("3.wav,c1", "3.wav,")
    result = csv_scan(flat, text)
    assert result.missing == ("no.wav", "../x.wav", "a\0b.wav", "y" * 5000 + ".wav")
    assert result.unlabelled == ("3.wav",)
    assert len(records(result)) == 9


@dataclass(frozen=True)
class WrongCsv:
    id: str
    text: str | bytes
    match: str
    hint: str = ""


WRONG_CSV = [
    WrongCsv("empty", "", ":1: header is , expected a column file"),
    WrongCsv("no path column", "name,label\n", "header is 'name', 'label', expected"),
    WrongCsv("semicolons", "file;label\n1.wav;x\n", "header is", "not by ';'"),
    WrongCsv("tabs", "file\tlabel\n1.wav\tx\n", "header is", r"not by '\t'"),
    WrongCsv("column twice", "file,a,a\n", "columns 'a' are named twice"),
    WrongCsv("column unnamed", "file,a,\n", "columns '' are named twice or not at all"),
    WrongCsv("only paths", "file\n1.wav\n", "no column of labels"),
    WrongCsv("only empty labels", "file,label\n1.wav,\n", "no column of labels"),
    WrongCsv("too few cells", "file,label\n1.wav,x\n2.wav\n", ":3: 1 cells, expected 2"),
    WrongCsv("too many cells", "file,label\n1.wav,x,y\n", ":2: 3 cells, expected 2"),
    WrongCsv("no path", "file,label\n,x\n", ":2: cell 'file' is empty"),
    WrongCsv("file twice", "file,label\n1.wav,x\n1.wav,y\n", ":3: file '1.wav' stands in line 2"),
    WrongCsv("twice by spelling", "file,label\n1.wav,x\n./1.wav,y\n", "stands in an earlier line"),
    WrongCsv("open quote", 'file,label\n"1.wav,x\n', "not CSV"),
    WrongCsv("huge cell", "file,label\n1.wav," + "x" * 70_000 + "\n", "longer than|larger than"),
    WrongCsv("no file exists", "file,label\na.wav,x\nb.wav,y\n", "none of 2 rows.*'a.wav', 'b"),
    WrongCsv("bad split", "file,label,split\n1.wav,x,oops\n", ":2: split is 'oops'"),
    WrongCsv("no split", "file,label,split\n1.wav,x,\n", ":2: split is ''"),
    WrongCsv(
        "a word among numbers",
        "file,tempo\n" + "".join(f"{i}.wav,{i}.5\n" for i in range(10)).replace("7.5", "nan")
        + "".join(f"x{i}.wav,1\n" for i in range(5)),
        ":9: 'tempo' is 'nan' in a column of numbers",
        "leave the cell empty",
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CSV, ids=lambda case: case.id)
def test_wrong_csv_is_an_error_with_its_line(case, flat):
    with pytest.raises(ManifestError, match=case.match) as caught:
        csv_scan(flat, case.text)
    assert "labels.csv" in str(caught.value)
    assert case.hint in (caught.value.hint or "")
    assert not list(flat.glob("*.jsonl"))


def test_columns_that_are_not_there_are_named_with_those_that_are(flat):
    text = "file,label\n" + rows("{i}.wav,c{odd}\n")
    for arguments in ({"group": "column:artist"}, {"label_columns": ["artist"]}):
        with pytest.raises(ManifestError, match="no column 'artist'") as caught:
            csv_scan(flat, text, **arguments)
        assert caught.value.hint == "columns: label"
    with pytest.raises(ManifestError, match="'duration' cannot be a label"):
        csv_scan(flat, "file,duration\n1.wav,3\n", label_columns=["duration"])


def test_absent_csv_is_an_error(flat):
    with pytest.raises(ManifestError, match=r"no\.csv cannot be read"):
        scan(flat, labels_csv=flat / "no.csv")


def test_a_group_that_holds_several_labels_is_told(tmp_path):
    for label in ("blues", "jazz"):
        for album in ("disc1", "disc2", "disc3", "disc4", "disc5"):
            path = tmp_path / label / album / "a.wav"
            path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
    merged = scan(tmp_path, group="^[^/]+/([^/]+)/")
    assert merged.mixed_groups == ("disc1", "disc2", "disc3", "disc4", "disc5")
    apart = scan(tmp_path, group="^([^/]+/[^/]+)/", force=True)
    assert apart.mixed_groups == ()


def test_a_label_column_without_a_csv_is_refused(music):
    with pytest.raises(UsageError, match="no CSV was given"):
        scan(music, label_columns=["mood"])
