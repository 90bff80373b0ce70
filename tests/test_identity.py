"""What makes another store and what does not: every option of extract stands in one table."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import typer
from command_line import tune
from world import RATE, ToyEncoder, World, arrays_of, make_old, write_track

import tune_cache
from tune_cache.audio import decode
from tune_cache.cache.extract import Circumstances, extract_stores
from tune_cache.cli import app

SPLITS = {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
LENGTHS = {"a": 12 * RATE + 2000, "b": 12 * RATE, "c": 13 * RATE + 7, "d": 14 * RATE}
SETTINGS = """
[datasets.toy]
manifests = "data/toy"
encoder = "toy"
[datasets.toy.tasks.level]
label = "level"
targets = ["arousal", "valence"]
protocol_task = "EMO"
"""


@dataclasses.dataclass(slots=True)
class Toy(ToyEncoder):
    """A toy with a precision."""

    precision: str = "fp32"

    def spec(self):
        return dataclasses.replace(ToyEncoder.spec(self), precision=self.precision)


@dataclasses.dataclass(frozen=True)
class ToyFactory:
    """Registers toys of any name; the name of their folder stands for weights."""

    name: str
    log: Path

    def describe(self, *, path=None, precision="fp32", hash_file=None):
        return self._make(path, precision).info()

    def load(self, *, path, precision, layers, poolings, **circumstances):
        return self._make(path, precision, layers=layers, poolings=poolings)

    def _make(self, path, precision, **kept):
        weights = ("" if path is None else path.name).encode().hex().rjust(64, "0")
        return Toy(
            name=self.name, log=self.log, precision=precision, weights_sha256=weights, **kept
        )


@dataclasses.dataclass(frozen=True)
class Inline:
    """Decodes in this process, as a spec says."""

    settings: dict[str, object]

    @classmethod
    @contextlib.contextmanager
    def open(cls, n_workers, spec, spool):
        yield cls({"channels": spec.channels, "slices": spec.segments.slices})

    def submit(self, track_id, path):
        future = Future()
        future.set_result(decode(path, sample_rate_hz=RATE, **self.settings))
        return future


@dataclasses.dataclass(frozen=True)
class Home:
    """A folder with a dataset, a tune.toml and a cache."""

    folder: Path

    @property
    def log(self) -> Path:
        return self.folder / "encoded.log"

    @property
    def cache(self) -> Path:
        return self.folder / "xdg/tune"

    def extract(self, *arguments: str, dataset: str = "toy") -> tuple[bool, Path]:
        """Whether an extract found its store, and where that is."""
        before = self.log.stat().st_size if self.log.exists() else 0
        inline = functools.partial(extract_stores, open_decoders=Inline.open)
        with pytest.MonkeyPatch.context() as patch:
            module = "tune_cache.commands.extract"
            patch.setattr(f"{module}.get_encoder", lambda name: ToyFactory(name, self.log))
            patch.setattr(f"{module}.extract_stores", inline)
            done = tune(self.folder, "extract", dataset, "--json", *arguments)
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)["rows"]
        was_found = row["tracks"] == "found"
        assert was_found == (self.log.stat().st_size == before), "what was found is not encoded"
        return was_found, self.folder / row["store"]

    def rewrite(self, change: Callable[[list[dict[str, object]]], object]) -> None:
        """Change the records of every manifest."""
        for path in (self.folder / "data").glob("*.jsonl"):
            records = [json.loads(line) for line in path.read_text().splitlines()]
            records = change(records) or records
            path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Home, Path]:
    """A home and its store of 1-s segments."""
    folder = tmp_path_factory.mktemp("home")
    for split, names in SPLITS.items():
        records = [
            {"audio_path": f"audio/{n}.wav", "level": [1.0, 2.0], "ori_uid": n, "duration": 14.0}
            for n in names
        ]
        for name in names:
            write_track(folder / f"data/audio/{name}.wav", LENGTHS[name], ord(name))
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"data/toy.{split}.jsonl").write_text(text)
    shutil.copytree(folder / "data/audio", folder / "copy/audio")
    (folder / "tune.toml").write_text(SETTINGS)
    home = Home(folder)
    was_found, store = home.extract("--seg", "1")
    assert not was_found
    return home, store


IDENTITY = {
    "seg": "2",
    "hop": "0.5",
    "tail": "pad",
    "min_tail": "0.1",
    "layers": "0,2",
    "pool": "mean,max",
    "precision": "bf16",
    "dtype": "f4",
    "channels": "first",
    "encoder": "toy-two",
    "encoder_path": "weights",
    "protocol": "marble-v2",
}
SAME = {  # the same meaning, in other words
    "seg": "1.0",
    "hop": "1",
    "tail": "keep",
    "min_tail": "1",
    "layers": "0,1,-1",
    "pool": "mean",
    "precision": "fp32",
    "dtype": "f2",
    "channels": "mix",
    "encoder": "toy",
    "protocol": "tune",
}
CIRCUMSTANCE = {
    "device": "cuda:7",
    "batch_size": "3",
    "max_memory": "1MB",
    "workers": "1",
    "part": "2/3",
    "rehash": None,
    "data_root": "copy",
    "cache_dir": "xdg/tune",
    "allow_outside_root": None,
}


def option(name: str, value: str | None) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is None else [flag, value]


def test_every_option_of_extract_is_identity_or_circumstance():
    (extract,) = (c for n, c in typer.main.get_command(app).commands.items() if n == "extract")
    names = {parameter.name for parameter in extract.params}
    assert names == IDENTITY.keys() | CIRCUMSTANCE.keys() | {"dataset", "json"}
    assert not IDENTITY.keys() & CIRCUMSTANCE.keys()
    assert SAME.keys() == IDENTITY.keys() - {"encoder_path"}


@pytest.mark.parametrize("name", IDENTITY)
def test_an_option_that_is_identity_makes_another_store(made, name):
    home, store = made
    base = [] if name in ("seg", "protocol") else ["--seg", "1"]  # marble-v2 decides the length
    there = set(home.cache.rglob("*.zarr"))
    was_found, other = home.extract(*base, *option(name, IDENTITY[name]))
    assert not was_found
    assert other not in there
    assert store in there
    assert home.extract(*base, *option(name, IDENTITY[name])) == (True, other)


@pytest.mark.parametrize("name", SAME)
def test_a_default_that_is_spelt_out_finds_the_store(made, name):
    home, store = made
    base = [] if name == "seg" else ["--seg", "1"]
    assert home.extract(*base, *option(name, SAME[name])) == (True, store)


@pytest.mark.parametrize("name", CIRCUMSTANCE)
def test_an_option_that_is_circumstance_finds_the_store(made, name):
    home, store = made
    assert home.extract("--seg", "1", *option(name, CIRCUMSTANCE[name])) == (True, store)


def relabel(home: Home) -> None:
    home.rewrite(lambda records: [record | {"level": [3.0, 4.0]} for record in records])


def drop_all_but_paths(home: Home) -> None:
    home.rewrite(lambda records: [{k: r[k] for k in ("audio_path", "level")} for r in records])


def forget_tasks(home: Home) -> None:
    (home.folder / "tune.toml").write_text(SETTINGS.split("[datasets.toy.tasks")[0])


def state_other_lengths(home: Home) -> None:
    home.rewrite(lambda records: [record | {"duration": 400.0} for record in records])


def exchange_splits(home: Home) -> None:
    names = ("toy.train.jsonl", "toy.test.jsonl", "aside")
    train, test, aside = (home.folder / "data" / name for name in names)
    train.rename(aside)
    test.rename(train)
    aside.rename(test)


def reverse_manifests(home: Home) -> None:
    home.rewrite(lambda records: records.reverse())


def rename_dataset(home: Home) -> None:
    for path in (home.folder / "data").glob("toy.*.jsonl"):
        path.rename(path.with_name(path.name.replace("toy", "other")))
    settings = SETTINGS.replace("datasets.toy", "datasets.other").replace("data/toy", "data/other")
    (home.folder / "tune.toml").write_text(settings)


def move_audio(home: Home) -> None:
    (home.folder / "data").rename(home.folder / "elsewhere")
    (home.folder / "tune.toml").write_text(SETTINGS.replace("data/toy", "elsewhere/toy"))


def replace_audio_by_links(home: Home) -> None:
    (home.folder / "data/real").mkdir()
    for path in (home.folder / "data/audio").iterdir():
        path.rename(home.folder / "data/real" / path.name)
        path.symlink_to(home.folder / "data/real" / path.name)


def age_audio(home: Home) -> None:
    for path in (home.folder / "data/audio").iterdir():
        make_old(path)
        path.chmod(0o400)


def move_cache(home: Home) -> None:
    (home.folder / "moved").mkdir()
    home.cache.rename(home.folder / "moved/cache")


def lose_inventory(home: Home) -> None:
    (home.cache / "v1/audio.sqlite").unlink()


CHANGES = (
    relabel,
    drop_all_but_paths,
    forget_tasks,
    state_other_lengths,
    exchange_splits,
    reverse_manifests,
    rename_dataset,
    move_audio,
    replace_audio_by_links,
    age_audio,
    move_cache,
    lose_inventory,
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_happens_around_the_audio_its_store_is_found(made, tmp_path, change):
    source, store = made
    home = Home(tmp_path / "home")
    shutil.copytree(source.folder, home.folder)
    before = arrays_of(store)
    change(home)
    dataset = "other" if change is rename_dataset else "toy"
    moved = ["--cache-dir", "moved/cache"] if change is move_cache else []
    was_found, found = home.extract("--seg", "1", *moved, dataset=dataset)
    assert was_found
    assert found.name == store.name
    assert arrays_of(found) == before


def test_another_version_of_the_package_finds_the_store(made, monkeypatch):
    home, store = made
    monkeypatch.setattr(tune_cache, "__version__", "99.9")
    assert home.extract("--seg", "1") == (True, store)


def test_no_circumstance_enters_the_name_or_the_content(tmp_path):
    changes = {"batch_size": 3, "workers": 3, "part": "1/1", "dataset": "another"}
    assert changes.keys() == {field.name for field in dataclasses.fields(Circumstances)}
    world = World.make(tmp_path / "world")
    first = world.extract()[0]
    n_encoded = world.encoder.n_encoded()
    assert world.extract(planned=world.tracks()[::-1])[0].path == first.path
    for name, value in changes.items():
        again = world.extract(**{name: value})[0]
        assert (again.hit, again.path) == (True, first.path)
        assert world.encoder.n_encoded() == n_encoded
        fresh = World(tmp_path / name, ToyEncoder())
        shutil.copytree(world.audio, fresh.audio)
        made = fresh.extract(**{name: value})[0]
        assert not made.hit
        assert made.path.name == first.path.name
        assert made.store.content_digest == first.store.content_digest
        assert arrays_of(made.path) == arrays_of(first.path)
