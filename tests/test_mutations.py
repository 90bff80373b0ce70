"""The mutations that ``make mutations`` runs still fit the package and its tests."""

from __future__ import annotations

import dataclasses
import subprocess

import mutations
import pytest
from mutations import MUTATIONS, ROOT, Mutation, check_baseline, problem_of, survives


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.id)
def test_every_mutation_changes_one_place_and_names_tests_that_exist(mutation):
    assert problem_of(mutation, ROOT) == ""
    assert mutation.new != mutation.old


def test_no_two_mutations_are_the_same():
    assert len({mutation.id for mutation in MUTATIONS}) == len(MUTATIONS)
    assert len({(m.file, m.old, m.new) for m in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"old": "no such text"}, "its text occurs 0 times in cache/disk.py"),
        ({"old": "import"}, r"its text occurs \d+ times in cache/disk.py"),
        ({"tests": ("tests/test_nothing.py",)}, "there is no test tests/test_nothing.py"),
        ({"tests": ("tests/test_crash.py::test_no",)}, "there is no test tests/test_crash.py::"),
        ({"tests": ()}, "it names no test"),
    ],
)
def test_a_mutation_that_proves_nothing_ends_the_check(change, problem):
    wrong = dataclasses.replace(MUTATIONS[0], **change)
    with pytest.raises(SystemExit, match=problem):
        check_baseline([wrong], ROOT)


@pytest.fixture
def tree(tmp_path):
    """A package of one file, and a mutation of it."""
    (tmp_path / "tune_cache").mkdir()
    (tmp_path / "tune_cache" / "one.py").write_text("safe = True\n")
    (tmp_path / "test_one.py").write_text("def test_it(): ...\n")
    return tmp_path, Mutation("one", "one.py", "True", "False", ("test_one.py::test_it",))


def ran(monkeypatch, code: int, stdout: str) -> None:
    done = subprocess.CompletedProcess([], code, stdout, "")
    monkeypatch.setattr(mutations, "run_tests", lambda tests, tree: done)


def test_tests_that_fail_without_a_mutation_end_the_check(tree, monkeypatch):
    folder, mutation = tree
    ran(monkeypatch, 1, "FAILED test_one.py::test_it")
    with pytest.raises(SystemExit, match="do not pass without a mutation"):
        check_baseline([mutation], folder)


@pytest.mark.parametrize("code", [1, 2, 4, 5])
def test_tests_that_cannot_run_notice_nothing(tree, monkeypatch, code):
    folder, mutation = tree
    ran(monkeypatch, code, "ERROR test_one.py")
    with pytest.raises(SystemExit, match="its tests did not run"):
        survives(mutation, folder)
    assert (folder / "tune_cache" / "one.py").read_text() == "safe = True\n"


@pytest.mark.parametrize("is_noticed", [True, False])
def test_a_mutation_is_noticed_by_a_test_that_fails_with_it(tree, monkeypatch, is_noticed):
    folder, mutation = tree
    seen = []

    def run_tests(tests, tree):
        seen.append((tests, (tree / "tune_cache" / "one.py").read_text()))
        failed = "FAILED test_one.py::test_it" if is_noticed else ""
        return subprocess.CompletedProcess([], int(is_noticed), failed, "")

    monkeypatch.setattr(mutations, "run_tests", run_tests)
    assert survives(mutation, folder) is not is_noticed
    assert seen == [(mutation.tests, "safe = False\n")]
    assert (folder / "tune_cache" / "one.py").read_text() == "safe = True\n"
