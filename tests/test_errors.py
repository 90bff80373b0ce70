"""The exception tree: complete, picklable, and each the built-in that a stranger catches."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess

import pytest

from tune_cache import errors
from tune_cache.errors import TuneCacheError, first_few, printable, quoted

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, TuneCacheError)
]
BUILT_IN = {
    "UsageError": ValueError,
    "ManifestError": ValueError,
    "AudioError": OSError,
    "EncoderError": RuntimeError,
    "StoreNotFoundError": FileNotFoundError,
    "StoreAmbiguousError": LookupError,
    "StoreMismatchError": ValueError,
    "StoreCorruptError": RuntimeError,
    "TaskError": ValueError,
    "MissingExtraError": ImportError,
}


def test_the_tree_is_what_the_house_style_says():
    assert {kind.__name__ for kind in TREE} == {*BUILT_IN, "TuneCacheError", "StoreError"}


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_with_every_field(kind):
    error = kind("what happened", hint="what to do")
    fields = {name: value for name, value in vars(error).items() if name not in ("message", "hint")}
    for name, value in fields.items():
        setattr(
            error,
            name,
            7 if isinstance(value, int) else type(value)(("x",)) if value == () else "x",
        )
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert str(back) == "what happened"


@pytest.mark.parametrize(("name", "built_in"), BUILT_IN.items())
def test_a_stranger_catches_the_built_in(name, built_in):
    assert issubclass(getattr(errors, name), built_in)


def test_messages_are_not_quoted_or_numbered():
    assert str(errors.StoreNotFoundError("no store")) == "no store"
    assert str(errors.AudioError("no audio")) == "no audio"


def test_control_characters_never_reach_a_terminal():
    hostile = "\x1b]0;pwned\x07 \u202eevil \udcff \n\r\t end"
    shown = printable(hostile)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert "\\udcff" in shown


def test_first_few_counts_the_rest():
    assert first_few(list("abcde")) == "'a', 'b', 'c' and 2 more"
    assert first_few(["a"]) == "'a'"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_what_is_quoted_names_the_same_when_pasted_and_drives_no_terminal(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    names = [
        "plain",
        "a b",
        "it's",
        "$(rm x)`y`",
        "a\nb",
        "\x1b[31m'\\n\x0a0",
        "pi\u00f1ata \u202e",
    ]
    names.append("caf\udce9s")
    text = " ".join(map(quoted, names))
    assert text == printable(text)
    done = subprocess.run([shell, "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout).split("\0")[:-1] == names
