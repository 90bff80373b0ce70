"""What is loaded when: `--help` almost nothing, stage two neither torch nor muq."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "muq", "transformers", "sklearn", "scipy", "zarr", "h5py", "soundfile", "av")


def modules_after(script: str, *arguments: str, env: dict[str, str] | None = None) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded at the end of a script."""
    code = f"import json, sys\n{script}\nprint('MODULES' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.split("MODULES")[1])}


def test_help_loads_nothing_heavy():
    script = (
        "sys.argv = ['tune', '--help']\n"
        "from tune_cache.cli import main\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert modules_after(script) & {*HEAVY, "numpy", "sqlite3"} == set()


def test_importing_the_package_loads_nothing():
    assert modules_after("import tune_cache") & {*HEAVY, "numpy", "typer", "rich"} == set()


def test_every_public_name_resolves():
    import tune_cache

    for name in tune_cache.__all__:
        assert getattr(tune_cache, name) is not None
    with pytest.raises(AttributeError, match="no_such"):
        _ = tune_cache.no_such


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    """A tiny dataset with a mel store, made through the public functions."""
    from small_dataset import make_small_dataset

    import tune_cache

    folder = tmp_path_factory.mktemp("cold")
    prefix = make_small_dataset(folder / "data")
    tune_cache.extract(str(prefix), encoder="mel", seg=[1.0], cache_dir=folder / "cache")
    return folder, prefix


@pytest.mark.parametrize("agg", ["mean", "max", "concat"])
def test_stage_two_loads_neither_torch_nor_muq(probed, agg):
    folder, prefix = probed
    script = (
        "import tune_cache\n"
        f"r = tune_cache.probe(sys.argv[1], agg=[{agg!r}], encoder='mel', cache_dir=sys.argv[2])\n"
        "assert len(r.runs) == 1"
    )
    loaded = modules_after(script, str(prefix), str(folder / "cache"))
    assert loaded & {"torch", "muq", "transformers", "torchaudio", "zarr", "h5py"} == set()


def test_a_repeated_extract_loads_neither_torch_nor_zarr(probed):
    folder, prefix = probed
    script = (
        "sys.argv[:1] = ['tune', 'extract']\n"
        "sys.argv += ['--encoder', 'mel', '--seg', '1']\n"
        "from tune_cache.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code"
    )
    loaded = modules_after(script, str(prefix), "--cache-dir", str(folder / "cache"))
    assert loaded & {"torch", "muq", "transformers", "sklearn", "zarr", "av"} == set()
