"""The registry, the layer syntax, and the checks all encoders share."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_cache.encoders import base
from tune_cache.encoders.base import (
    encoder_names,
    get_encoder,
    kept_layers,
    parse_layers,
    sha256_file,
)
from tune_cache.errors import EncoderError, UsageError


@pytest.fixture
def plugins(monkeypatch):
    """Entry points as installed packages would register them."""

    def register(**values: str) -> None:
        points = [EntryPoint(name, value, base.ENTRY_POINTS) for name, value in values.items()]
        monkeypatch.setattr(base, "entry_points", lambda group: points)

    return register


@pytest.mark.parametrize("name", ["muq", "muq-nano", "mel"])
def test_built_in_encoders_are_found_by_name(name):
    assert get_encoder(name).name == name


def test_a_name_close_to_one_is_suggested():
    with pytest.raises(EncoderError, match="no encoder is called 'muk'") as caught:
        get_encoder("muk")
    assert caught.value.hint == "did you mean 'muq'?"


def test_a_name_close_to_none_names_the_entry_points():
    with pytest.raises(EncoderError, match="expected one of muq, muq-nano, mel") as caught:
        get_encoder("zzzzzzzz")
    assert base.ENTRY_POINTS in caught.value.hint


def test_a_package_can_register_an_encoder(plugins):
    plugins(theirs="tune_cache.encoders.mel:ENCODER")
    assert get_encoder("theirs").describe().n_layers == 4
    assert encoder_names() == ("muq", "muq-nano", "mel", "theirs")


def test_a_package_cannot_take_a_built_in_name(plugins):
    plugins(mel="os:path")
    assert get_encoder("mel").name == "mel"
    assert encoder_names() == ("muq", "muq-nano", "mel")


@pytest.mark.parametrize("value", ["no_such_module:ENCODER", "os:no_such_name"])
def test_a_broken_registration_says_where(plugins, value):
    plugins(broken=value)
    with pytest.raises(EncoderError, match=f"'broken' cannot be loaded from '{value}'"):
        get_encoder("broken")


def test_naming_encoders_imports_none():
    script = """
import sys
from tune_cache.encoders.base import encoder_names
encoder_names()
print(sorted({"torch", "muq", "transformers", "tune_cache.encoders.mel"} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout == b"[]\n"


@given(st.lists(st.integers(-13, 12), min_size=1))
def test_layers_are_read_ascending_and_once(indices):
    layers = parse_layers(",".join(map(str, indices)), 13)
    assert layers == tuple(sorted({range(13)[index] for index in indices}))
    assert kept_layers(layers, 13) == layers


def test_all_layers_are_all():
    assert parse_layers(" All ", 3) == kept_layers(None, 3) == (0, 1, 2)


@pytest.mark.parametrize("text", ["", "x", "1,", "1-3", "1.5", "13", "-14", "0,99"])
def test_layers_that_are_none_are_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_layers(text, 13)
    assert caught.value.hint


def test_file_is_hashed_as_a_whole(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "weights").write_bytes(content)
    assert sha256_file(tmp_path / "weights") == hashlib.sha256(content).hexdigest()
