"""Checking: every planted fault is found with its line, and nothing else is."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tune_cache.datasets.base import SPLITS, Problem, Track
from tune_cache.datasets.catalog import load_dataset
from tune_cache.datasets.check import check_dataset
from tune_cache.datasets.config import Config
from tune_cache.errors import AudioError, UsageError

SUBSET = Path(
    os.environ.get("TUNE_SUBSET")
    or Path(__file__).resolve().parents[2] / "shared" / "data" / "soundtrack-subset"
)


class World:
    """A sound dataset, to be damaged: three splits with two tracks of each class."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records: dict[str, list[Any]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            for label in ("jazz", "rock"):
                for number in range(2):
                    self.add(split, f"{split}_{label}_{number}.wav", label=label)

    def add(self, split: str, audio_path: str, **fields: Any) -> None:
        (self.folder / audio_path).write_bytes(f"audio {audio_path}".encode())
        self.records[split].append({"audio_path": audio_path, "duration": 30.0, **fields})

    def change(self, split: str, line: int, **fields: Any) -> None:
        record = self.records[split][line - 1]
        record.update(fields)
        for key in [key for key, value in record.items() if value is None]:
            del record[key]

    def relabel(self, label: Any) -> None:
        for split in SPLITS:
            for index, record in enumerate(self.records[split]):
                record["label"] = label(split, index) if callable(label) else label

    def audio(self, split: str, line: int) -> Path:
        return self.folder / self.records[split][line - 1]["audio_path"]

    def write(self) -> Path:
        for split in SPLITS:
            lines = [
                record if isinstance(record, str) else json.dumps(record)
                for record in self.records[split]
            ]
            (self.folder / f"set.{split}.jsonl").write_text("".join(f"{line}\n" for line in lines))
        return self.folder / "set"

    def check(self, **arguments: Any) -> list[Problem]:
        arguments = {"decode": decode, "config": Config()} | arguments
        return check_dataset(str(self.write()), **arguments)


def decode(track: Track, **facts: Any) -> Any:
    """Decode as if every file were 30 s of sound."""
    usual = {
        "n_frames": 30 * 22050,
        "sample_rate_hz": 22050,
        "is_silent": False,
        "n_nonfinite": 0,
        "notes": (),
    }
    return SimpleNamespace(facts=SimpleNamespace(**usual | facts))


def found(problems: list[Problem]) -> list[tuple[str, str, str]]:
    """Severity, code and place as ``train:3``; the empty place is the whole dataset."""
    return [
        (
            item.severity,
            item.code,
            f"{Path(item.path).suffixes[0][1:]}:{item.line}" if item.path else "",
        )
        for item in problems
    ]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def test_sound_dataset_has_no_problems(world):
    assert world.check() == []


def test_check_of_a_loaded_dataset_does_not_read_manifests_again(world):
    dataset = load_dataset(str(world.write()), config=Config())
    world.audio("val", 2).unlink()
    for path in world.folder.glob("*.jsonl"):
        path.unlink()
    problems = check_dataset(dataset, deep=False)
    assert found(problems) == [("error", "missing-file", "val:2")]
    assert problems[0].track_id == "val_jazz_1.wav"


def test_check_of_no_dataset_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError):
        check_dataset(str(tmp_path / "absent"), config=Config())


# --- one planted fault each


@dataclass(frozen=True)
class Fault:
    id: str
    plant: Any
    expected: list[tuple[str, str, str]]
    match: str = ""


def fifo(world: World) -> None:
    world.audio("train", 1).unlink()
    os.mkfifo(world.audio("train", 1))


def folder(world: World) -> None:
    world.audio("train", 1).unlink()
    world.audio("train", 1).mkdir()


def dangling(world: World) -> None:
    world.audio("train", 1).unlink()
    world.audio("train", 1).symlink_to(world.folder / "nothing.wav")


def copied(*places: tuple[str, int]) -> Any:
    def plant(world: World) -> None:
        for split, line in places:
            world.audio(split, line).write_bytes(b"the same audio")

    return plant


def emptied(split: str) -> Any:
    return lambda world: world.records[split].clear()


FAULTS = [
    Fault(
        "missing file",
        lambda world: world.audio("test", 3).unlink(),
        [("error", "missing-file", "test:3")],
        "'test_rock_0.wav' is missing",
    ),
    Fault("dangling link", dangling, [("error", "missing-file", "train:1")]),
    Fault("FIFO", fifo, [("error", "not-a-file", "train:1")]),
    Fault("folder", folder, [("error", "not-a-file", "train:1")]),
    Fault(
        "empty file",
        lambda world: world.audio("train", 1).write_bytes(b""),
        [("error", "empty-file", "train:1")],
    ),
    Fault(
        "a line that is no JSON",
        lambda world: world.records["train"].insert(1, "{nonsense"),
        [("error", "bad-line", "train:2")],
    ),
    Fault(
        "a path out of the root",
        lambda world: world.change("train", 2, audio_path="../../x.wav"),
        [("error", "outside-root", "train:2")],
    ),
    Fault(
        "an id twice",
        lambda world: world.change("train", 2, track_id="train_jazz_0.wav"),
        [("error", "duplicate-id", "train:2")],
        "set.train.jsonl:1",
    ),
    Fault(
        "a file in two splits",
        lambda world: world.change("test", 2, audio_path="train_jazz_0.wav"),
        [("error", "track-in-two-splits", "test:2")],
        "'test' and in 'train' .*set.train.jsonl:1",
    ),
    Fault(
        "the same audio in one split",
        copied(("train", 1), ("train", 4)),
        [("warning", "same-audio", "train:4")],
        "'train_rock_1.wav' has the same audio as 'train_jazz_0.wav' at .*train.jsonl:1$",
    ),
    Fault(
        "the same audio in two splits",
        copied(("train", 1), ("test", 1)),
        [("error", "same-audio", "train:1")],
        "test.jsonl:1, which is in 'test', not 'train'",
    ),
    Fault(
        "a group in two splits",
        lambda world: [
            world.change("train", 1, artist="A"),
            world.change("train", 2, artist="A"),
            world.change("val", 1, artist="A"),
            world.change("val", 2, artist="A"),
        ],
        [("error", "group-in-two-splits", "val:1")],
        "group 'A' is in 'val' and in 'train' at .*train.jsonl:1",
    ),
    Fault(
        "no label",
        lambda world: world.change("train", 1, label=None),
        [("warning", "missing-label", "train:1")],
    ),
    Fault(
        "a label of another type",
        lambda world: world.change("val", 1, label=3.5),
        [("error", "label-type", "val:1"), ("warning", "missing-label", "val:1")],
    ),
    Fault(
        "a class that is not trained",
        lambda world: [world.change("test", line, label="polka") for line in (3, 4)],
        [
            ("error", "label-not-in-train", "test:3"),
            ("warning", "label-not-in-split", "train:3"),
        ],
        "class 'polka' of task 'set' is in 'test' but not in 'train'",
    ),
    Fault(
        "a class of one track",
        lambda world: world.change("train", 1, label="polka"),
        [
            ("warning", "label-not-in-split", "train:1"),
            ("warning", "label-not-in-split", "train:1"),
            ("warning", "rare-label", "train:1"),
        ],
        "class 'polka' of task 'set' has no track in 'val'",
    ),
    Fault(
        "a tag that is not trained",
        lambda world: [
            world.relabel(["a"]),
            world.change("val", 1, label=["a", "b"]),
            world.change("test", 1, label=["b"]),
        ],
        [("warning", "label-not-in-train", "val:1")],
        "tag 'b'",
    ),
    Fault("one class", lambda world: world.relabel("x"), [("error", "one-class", "")], "'x' only"),
    Fault(
        "no labels at all",
        lambda world: [record.pop("label") for split in SPLITS for record in world.records[split]],
        [("warning", "no-labels", "")],
    ),
    Fault(
        "a constant target in one split",
        lambda world: world.relabel(
            lambda split, index: [float(index), 1.0 if split == "val" else index / 2]
        ),
        [("error", "constant-target", "val:1")],
        "target 'y1' of task 'set' is 1.0 for all 4 tracks of 'val'",
    ),
    Fault("an empty split", emptied("test"), [("error", "empty-split", "")], "no track is in 't"),
    Fault(
        "a duration that is no number",
        lambda world: world.change("train", 1, duration="long"),
        [("warning", "bad-duration", "train:1")],
    ),
    Fault(
        "a duration that is wrong",
        lambda world: world.change("train", 1, duration=31.0),
        [("warning", "duration-mismatch", "train:1")],
        "manifest says 31.000 s, decoded 30.000 s",
    ),
    Fault("a duration nearly right", lambda world: world.change("train", 1, duration=30.29), []),
    Fault("no duration", lambda world: world.change("train", 1, duration=None), []),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_planted_fault_is_found_with_its_line_and_nothing_else(fault, world):
    fault.plant(world)
    problems = world.check()
    assert found(problems) == fault.expected
    if fault.match:
        assert re.search(fault.match, problems[0].message), problems[0].message


def test_all_faults_at_once_are_all_found(world):
    world.audio("train", 1).unlink()
    world.records["train"].append("[")
    world.change("val", 1, label=3)
    world.change("test", 1, audio_path="../x.wav")
    codes = {problem.code for problem in world.check()}
    assert codes >= {"missing-file", "bad-line", "label-type", "outside-root"}


def test_problems_are_sorted_by_place(world):
    for split in SPLITS:
        for line in (4, 2):
            world.audio(split, line).unlink()
    places = [(problem.path, problem.line) for problem in world.check()]
    assert places == sorted(places)
    assert len(places) == 6


def test_dataset_of_one_split_is_told_by_warnings(world):
    emptied("val")(world)
    emptied("test")(world)
    assert found(world.check()) == [("warning", "empty-split", "")] * 2


def test_empty_dataset_is_one_error(world):
    for split in SPLITS:
        emptied(split)(world)
    assert found(world.check()) == [("error", "empty-dataset", "")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_is_found(world):
    world.audio("train", 1).chmod(0)
    assert found(world.check()) == [("error", "unreadable", "train:1")]


def test_only_files_of_equal_size_are_hashed(world, monkeypatch):
    hashed: list[Path] = []
    monkeypatch.setattr("tune_cache.datasets.check._sha256", lambda path: hashed.append(path) or "")
    world.audio("train", 1).write_bytes(b"unique size")
    world.check()
    assert world.audio("train", 1) not in hashed
    assert hashed


# --- decoding


def test_shallow_check_decodes_nothing(world):
    def refuse(track: Track) -> Any:
        raise AssertionError(track)

    assert world.check(deep=False, decode=refuse) == []


def test_unreadable_audio_is_an_error_with_its_reason_and_costs_one_track(world):
    def fail(track: Track) -> Any:
        if track.track_id == "val_rock_1.wav":
            raise AudioError("breaks off", hint="copy again", track_id="x", reason="truncated")
        return decode(track)

    [problem] = world.check(decode=fail)
    assert problem == Problem(
        severity="error",
        code="truncated",
        message="breaks off",
        path=str(world.folder / "set.val.jsonl"),
        line=4,
        track_id="val_rock_1.wav",
        hint="copy again",
    )


@pytest.mark.parametrize(
    ("facts", "code", "message"),
    [
        ({"is_silent": True}, "silent", "audio is silence"),
        ({"n_nonfinite": 3}, "not-finite", "audio has 3 samples that are NaN or infinite"),
        ({"notes": ("broke off",)}, "decoder-note", "broke off"),
        ({"n_frames": 22050}, "duration-mismatch", "manifest says 30.000 s, decoded 1.000 s"),
    ],
)
def test_what_decoding_showed_is_a_warning(facts, code, message, world):
    def odd(track: Track) -> Any:
        return decode(track, **facts) if track.track_id == "test_jazz_0.wav" else decode(track)

    [problem] = world.check(decode=odd)
    assert (problem.severity, problem.code, problem.message) == ("warning", code, message)
    assert (problem.line, problem.track_id) == (1, "test_jazz_0.wav")


def test_missing_files_are_not_decoded_and_progress_is_told(world):
    world.audio("train", 1).unlink()
    seen: list[tuple[int, int]] = []
    world.check(on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(index, 11) for index in range(1, 12)]


def test_files_that_are_no_audio_are_found_by_the_real_decoder(world):
    problems = world.check(decode=None)
    assert len(problems) == 12
    assert {problem.severity for problem in problems} == {"error"}


@pytest.mark.subset
@pytest.mark.skipif(not SUBSET.is_dir(), reason="the real-music subset is not beside the checkout")
@pytest.mark.parametrize(("name", "deep"), [("soundtrack", True), ("soundtrack_reg", False)])
def test_real_subset_has_no_problems(name, deep):
    assert check_dataset(str(SUBSET / name), config=Config(), deep=deep) == []
