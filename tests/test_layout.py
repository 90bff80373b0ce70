"""Where things lie, and which cache folders are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from world import ToyEncoder, toy_spec

from tune_cache.cache.layout import Layout, resolve_cache_dir
from tune_cache.errors import UsageError


def test_the_root_is_chosen_in_the_documented_order(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    everything = {"TUNE_CACHE_DIR": "/env", "XDG_CACHE_HOME": "/xdg"}
    assert resolve_cache_dir("/flag", configured="/toml", environment=everything) == Path("/flag")
    assert resolve_cache_dir(configured="/toml", environment=everything) == Path("/env")
    xdg = {"XDG_CACHE_HOME": "/xdg"}
    assert resolve_cache_dir(configured="/toml", environment=xdg) == Path("/toml")
    assert resolve_cache_dir(environment=xdg) == Path("/xdg/tune")
    assert resolve_cache_dir(environment={}) == tmp_path / ".cache/tune"


def test_a_root_that_anybody_may_write_is_refused(tmp_path):
    root = tmp_path / "cache"
    root.mkdir()
    root.chmod(0o777)
    with pytest.raises(UsageError, match="writable by everybody"):
        Layout(root).prepare()
    root.chmod(0o1777)
    Layout(root).prepare()


def test_a_root_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be created"):
        Layout(tmp_path / "file" / "cache").prepare()


def test_a_folder_that_a_rival_makes_while_it_is_looked_for_is_not_taken_for_private(
    tmp_path, monkeypatch
):
    layout = Layout(tmp_path / "cache")
    layout.prepare()
    folder = layout.v1 / "toy"
    looks = []

    def then_a_rival_makes_it(look):
        def looking(path, *arguments, **options):
            try:
                return look(path, *arguments, **options)
            finally:
                if Path(path) == folder:
                    looks.append(look)
                    if len(looks) == 1:
                        folder.mkdir()

        return looking

    monkeypatch.setattr(os, "access", then_a_rival_makes_it(os.access))
    monkeypatch.setattr(Path, "stat", then_a_rival_makes_it(Path.stat))
    layout.prepare("toy")
    assert looks
    assert folder.is_dir()


def test_store_names_say_encoder_length_and_both_hashes(tmp_path):
    spec = toy_spec(ToyEncoder(), 2.5)
    path = Layout(tmp_path).store_path(spec, "ab" * 32)
    assert path.relative_to(tmp_path) == Path(f"v1/toy/seg2.5-{spec.key[:8]}-abababab.zarr")
