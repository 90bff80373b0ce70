"""tune.toml: found upwards, checked to the last key, paths relative to the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_cache.datasets.config import (
    FLAGS,
    Config,
    DatasetConfig,
    TaskConfig,
    find_config,
    read_config,
)
from tune_cache.errors import UsageError


def write(folder: Path, text: str) -> Path:
    path = folder / "tune.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_everything_that_can_be_said_is_read(tmp_path):
    path = write(
        tmp_path,
        """
        [defaults]
        dataset = "mine"
        data-root = "../audio"
        task = ["style", "emotion"]
        encoder = "muq"
        encoder_path = "weights"
        seg = [10, 30.5, "full"]
        hop = 5
        tail = "pad"
        min-tail = 0
        layers = [0, 6, 12]
        pool = ["mean", "max"]
        precision = "bf16"
        dtype = "f4"
        channels = "first"
        device = "cuda:1"
        batch_size = "auto"
        max_memory = "4GB"
        workers = 2
        protocol = "marble-v2"
        agg = "mean"
        layer = ["best", 6]
        probe = ["ridge", "mlp"]
        seed = [1, 2]
        derive = 30
        shots = [1, 5]
        repeats = 20
        checkpoint = "last"
        max-segments = 12
        fill = "mean"
        pretrain-epochs = 20
        pretrain-on = "more"
        finetune = true
        positions = "learned"
        readout = "cls"
        strict = true
        drop-leaks = false
        preset = "tune-paper"
        margin = 0.05
        jobs = 4
        store = "some.zarr"
        part = "1/4"
        cache_dir = "/cache"
        json = true
        yes = false

        [datasets.mine]
        manifests = ["lists/one", "/abs/two"]
        data_root = "."
        encoder = "mel"
        protocol_task = "GTZANGenre"
        [datasets.mine.tasks.style]
        [datasets.mine.tasks.mood]
        label = ["arousal", "valence"]
        kind = "regression"
        targets = ["a", "v"]
        metrics = "r2"
        protocol_task = "EMO"
        """,
    )
    config = read_config(path)
    assert config.path == path
    assert config.defaults == {
        "dataset": "mine",
        "data_root": tmp_path.parent / "audio",
        "task": ("style", "emotion"),
        "encoder": "muq",
        "encoder_path": tmp_path / "weights",
        "seg": (10, 30.5, "full"),
        "hop": 5,
        "tail": "pad",
        "min_tail": 0,
        "layers": "0,6,12",
        "pool": "mean,max",
        "precision": "bf16",
        "dtype": "f4",
        "channels": "first",
        "device": "cuda:1",
        "batch_size": "auto",
        "max_memory": "4GB",
        "workers": 2,
        "protocol": "marble-v2",
        "agg": ("mean",),
        "layer": ("best", 6),
        "probe": ("ridge", "mlp"),
        "seed": (1, 2),
        "derive": (30,),
        "shots": (1, 5),
        "repeats": 20,
        "checkpoint": "last",
        "max_segments": 12,
        "fill": "mean",
        "pretrain_epochs": 20,
        "pretrain_on": "more",
        "finetune": True,
        "positions": "learned",
        "readout": "cls",
        "strict": True,
        "drop_leaks": False,
        "preset": "tune-paper",
        "margin": 0.05,
        "jobs": 4,
        "store": tmp_path / "some.zarr",
        "part": "1/4",
        "cache_dir": Path("/cache"),
        "json": True,
        "yes": False,
    }
    assert config.defaults.keys() == FLAGS.keys(), "a flag without a line in this test"
    assert config.datasets == {
        "mine": DatasetConfig(
            manifests=(tmp_path / "lists" / "one", Path("/abs/two")),
            data_root=tmp_path,
            encoder="mel",
            protocol_task="GTZANGenre",
            tasks={
                "style": TaskConfig(),
                "mood": TaskConfig(
                    label=("arousal", "valence"),
                    kind="regression",
                    targets=("a", "v"),
                    metrics=("r2",),
                    protocol_task="EMO",
                ),
            },
        )
    }


@dataclass(frozen=True)
class Wrong:
    id: str
    text: str
    match: str
    hint: str = ""


WRONG = [
    Wrong("unknown table", "[default]\nseg = 10", "unknown key 'default'", "'defaults'"),
    Wrong("key outside tables", "seg = 10", "unknown key 'seg'", "datasets, defaults"),
    Wrong(
        "a near miss", "[defaults]\nsegs = 10", r"\[defaults\] has an unknown key 'segs'", "'seg'"
    ),
    Wrong("a dashed near miss", "[defaults]\ncache-dirs = 'x'", "'cache-dirs'", "'cache_dir'"),
    Wrong("far from any", "[defaults]\nzzz = 10", "unknown key 'zzz'", "valid keys: agg, batch"),
    Wrong("both spellings", "[defaults]\nmin-tail = 1\nmin_tail = 2", "twice, with - and with _"),
    Wrong("text for a number", "[defaults]\nhop = '10'", r"hop is '10' \(str\), expected a number"),
    Wrong("nan", "[defaults]\nhop = nan", "hop is nan"),
    Wrong("boolean for an integer", "[defaults]\nworkers = true", "expected an integer"),
    Wrong("float for an integer", "[defaults]\nseed = 1.5", "expected an integer"),
    Wrong("number for a text", "[defaults]\nencoder = 3", "expected a text"),
    Wrong("empty text", "[defaults]\nencoder = ''", "expected a text"),
    Wrong("number for a switch", "[defaults]\njson = 1", "expected true or false"),
    Wrong("unknown word", "[defaults]\ntail = 'trim'", "expected one of keep, drop, pad"),
    Wrong("list for one value", "[defaults]\ntail = ['keep']", "expected one of"),
    Wrong("empty list", "[defaults]\nseg = []", "at least one value"),
    Wrong("one wrong of many", "[defaults]\nseg = [10, 'all']", "seg is 'all' .*seconds or 'full'"),
    Wrong("unknown pooling", "[defaults]\npool = 'mean,median'", "'median'.*mean, max, std"),
    Wrong("size a float", "[defaults]\nmax_memory = 1.5", "bytes, or a text as '4GB'"),
    Wrong("defaults no table", "defaults = 3", r"\[defaults\].*expected a table"),
    Wrong("datasets no table", "datasets = 3", "expected a table"),
    Wrong("a dataset no table", "[datasets]\nx = 3", r"\[datasets.x\].*expected a table"),
    Wrong(
        "no manifests",
        "[datasets.x]\nencoder = 'mel'",
        r"\[datasets.x\] lacks 'manifests'",
        "dir/NAME",
    ),
    Wrong(
        "a dataset's near miss",
        "[datasets.x]\nmanifest = 'a'",
        r"\[datasets.x\] has an unknown key 'manifest'",
        "'manifests'",
    ),
    Wrong(
        "a task's near miss",
        "[datasets.x]\nmanifests = 'a'\n[datasets.x.tasks.y]\nlabels = 'z'",
        r"\[datasets.x.tasks.y\] has an unknown key 'labels'",
        "'label'",
    ),
    Wrong(
        "an unknown kind",
        "[datasets.x]\nmanifests = 'a'\n[datasets.x.tasks.y]\nkind = 'classification'",
        "expected one of multiclass, multilabel, regression",
    ),
    Wrong(
        "several keys for a class",
        "[datasets.x]\nmanifests = 'a'\n"
        "[datasets.x.tasks.y]\nlabel = ['a', 'b']\nkind = 'multiclass'",
        "one target each",
    ),
    Wrong("tasks no table", "[datasets.x]\nmanifests = 'a'\ntasks = 3", "a table a task"),
    Wrong("no TOML", "[defaults\n", "cannot be read.*line 1", "TOML"),
    Wrong("a key twice", "[defaults]\nhop = 1\nhop = 2", "cannot be read"),
    Wrong("too deep", "x = " + "[" * 5000, "cannot be read"),
    Wrong("too long", "#" * (1 << 20) + "#", "longer than"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.id)
def test_wrong_config_is_an_error_that_names_file_table_and_key(case, tmp_path):
    path = write(tmp_path, case.text)
    with pytest.raises(UsageError, match=case.match) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert case.hint in (caught.value.hint or "")


def test_config_that_is_not_utf8_is_an_error(tmp_path):
    path = tmp_path / "tune.toml"
    path.write_bytes(b"[defaults]\nencoder = '\xff'")
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(path)


def test_nearest_config_upwards_is_the_only_one(tmp_path):
    write(tmp_path, "[defaults]\nhop = 1")
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert find_config(inner).defaults == {"hop": 1}
    nearest = write(tmp_path / "a", "[defaults]\nseed = 2")
    assert find_config(inner) == find_config(tmp_path / "a")
    assert find_config(inner).path == nearest
    assert find_config(inner).defaults == {"seed": (2,)}


def test_no_config_is_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tune_cache.datasets.config.FILE_NAME", "no-such-file.toml")
    assert find_config(tmp_path) == Config(path=None, defaults={}, datasets={})


def test_home_is_expanded_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = write(tmp_path, "[defaults]\ncache_dir = '~/cache'")
    assert read_config(path).defaults["cache_dir"] == tmp_path / "home" / "cache"
