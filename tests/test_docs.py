"""What is written is true: every verb has help and stands in the README, whose commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from command_line import tune
from small_dataset import make_small_dataset

import tune_cache
from tune_cache.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def verbs(group=app, prefix: str = "") -> list[str]:
    """Every command of the program, groups unfolded."""
    from typer.main import get_command

    command = get_command(group)
    found = []
    for name, sub in command.commands.items():
        if hasattr(sub, "commands"):
            found += [f"{prefix}{name} {inner}" for inner in sub.commands]
        else:
            found.append(prefix + name)
    return found


def test_the_verbs_are_those_that_this_test_knows():
    assert sorted(verbs()) == [
        "cache diff", "cache du", "cache export", "cache import", "cache info", "cache ls",
        "cache prune", "cache repair", "cache rm", "cache status", "cache verify",
        "compare", "dataset check", "dataset info", "dataset ls", "dataset scan",
        "demo", "estimate", "extract", "probe", "recommend", "report", "sweep",
    ]  # fmt: skip


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_stands_in_the_readme_and_is_a_function(verb, tmp_path):
    done = tune(tmp_path, *verb.split(), "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) > 5
    assert f"tune {verb}" in README
    # import is a word of Python's
    other = {"cache export": "export_store", "cache import": "import_store"}
    assert callable(getattr(tune_cache, other.get(verb, verb.replace(" ", "_"))))


def readme_commands() -> list[list[str]]:
    """Lines that begin with `$ tune` in the console blocks of the README."""
    blocks = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
    lines = re.findall(r"^\$ (tune .*(?:\\\n.*)*)", "\n".join(blocks), flags=re.MULTILINE)
    return [shlex.split(line.replace("\\\n", " "))[1:] for line in lines]


def test_the_commands_of_the_readme_run(tmp_path):
    prefix = make_small_dataset(tmp_path / "soundtrack-subset", "soundtrack")
    for split in ("train", "val", "test"):
        text = Path(f"{prefix}.{split}.jsonl").read_text()
        other = text.replace('"label"', '"kind"').replace('"level"', '"label"')
        Path(f"{prefix}_reg.{split}.jsonl").write_text(other)
    commands = readme_commands()
    assert len(commands) >= 5
    for arguments in commands:
        done = tune(tmp_path, *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def test_every_file_that_the_docs_name_exists():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_no_path_of_a_machine_and_no_registry_is_named():
    pattern = re.compile(r"/(work|root|farm)/|pypi\.org|pythonhosted|npmjs")
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part != ".ci" for part in inside)
        if hidden or path == Path(__file__) or path.suffix not in {".py", ".md", ".toml", ""}:
            continue
        if path.is_file() and inside[0] != "demo-output":
            found = pattern.search(path.read_text("utf-8", errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)} has {found[0] if found else ''}"


def test_the_changelog_and_the_package_agree():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.fullmatch(r"\d+\.\d+\.\d+", tune_cache.__version__)
