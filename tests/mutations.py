"""Take one safeguard of the cache away at a time and see that a test fails: ``make mutations``.

Every mutation is a text that must occur once in a file, what it becomes, and the tests that must
notice. The tree is copied first; there the tests must pass, and with each change one must fail:
a test that cannot even run notices nothing. Exits with 1 if a mutation survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Mutation:
    """One safeguard, and how it is taken away."""

    id: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "fsync of a file",
        "cache/disk.py",
        "        os.fsync(file.fileno())\n",
        "",
        ("tests/test_power_loss.py::test_what_was_committed_survives_a_loss_of_power",),
    ),
    Mutation(
        "fsync of a folder",
        "cache/disk.py",
        """os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
""",
        """os.O_RDONLY | os.O_DIRECTORY)
        try:
            pass
""",
        ("tests/test_power_loss.py::test_what_was_committed_survives_a_loss_of_power",),
    ),
    Mutation(
        "fsync of the folder of a file",
        "cache/disk.py",
        """    if sync_parent:
        sync_folder(path.parent)
""",
        "",
        ("tests/test_power_loss.py::test_what_was_committed_survives_a_loss_of_power",),
    ),
    Mutation(
        "fsync of a store's folders before it is published",
        "cache/disk.py",
        "        sync_folder(Path(folder))\n",
        "        pass\n",
        ("tests/test_power_loss.py::test_what_was_committed_survives_a_loss_of_power",),
    ),
    Mutation(
        "fsync of folders after a swap",
        "cache/disk.py",
        "    for folder in {old.parent, new.parent}:\n",
        "    for folder in ():\n",
        ("tests/test_repair.py::test_a_loss_of_power_leaves_the_damaged_store_or_the_new_one",),
    ),
    Mutation(
        "rename: written in place",
        "cache/disk.py",
        """            yield os.open(temporary, flags, 0o666)
            step("rename", path)
            temporary.replace(path)
""",
        """            yield os.open(path, flags & ~os.O_EXCL | os.O_TRUNC, 0o666)
            step("rename", path)
""",
        ("tests/test_crash.py::test_a_file_that_is_replaced_is_the_old_one_or_the_new_one",),
    ),
    Mutation(
        "rename of the store: built under its final name",
        "cache/disk.py",
        "        private.rename(final)\n",
        "        shutil.copytree(private, final)\n        shutil.rmtree(private)\n",
        (
            "tests/test_concurrency.py"
            "::test_readers_never_see_a_store_that_is_unfinished_or_changes",
        ),
    ),
    Mutation(
        "check of a unit's payload",
        "cache/journal.py",
        'record["sha256"] != _payload_digest(arrays, header)',
        "False",
        ("tests/test_journal.py::test_a_unit_with_any_flipped_bit_is_no_unit",),
    ),
    Mutation(
        "check of sizes on opening",
        "cache/listing.py",
        "    for name, problem in differing_sizes(files).items():\n",
        "    for name, problem in ():\n",
        ("tests/test_store.py::test_every_file_whose_size_changed_is_noticed_on_open",),
    ),
    Mutation(
        "comparison of digests on reading",
        "cache/listing.py",
        "if entry and hashlib.sha256(data).hexdigest() != entry.sha256:",
        "if False:",
        ("tests/test_store.py::test_a_flipped_bit_in_the_attributes_is_a_store_error",),
    ),
    Mutation(
        "copied rows: same audio, not same name",
        "cache/find.py",
        "{t.track_id: place[t.audio_sha256] for t in tracks if t.audio_sha256 in place}",
        "{t.track_id: next(((s, n) for s, n in place.values() if n == t.track_id), "
        "next(iter(place.values()))) for t in tracks if t.audio_sha256 and place}",
        ("tests/test_extract.py::test_only_the_changed_track_is_encoded_again",),
    ),
    Mutation(
        "copied rows: same spec, not same name",
        "cache/find.py",
        "            if store.spec == spec:\n                for name",
        "            if store.spec:\n                for name",
        ("tests/test_extract.py::test_a_store_under_another_specs_name_is_not_copied_from",),
    ),
    Mutation(
        "a damaged unit is encoded again",
        "cache/work.py",
        "            if found is None or not found.covers(wanted):\n",
        "            if not (self.work / 'units' / f'{index}.safetensors').exists():\n",
        ("tests/test_crash.py::test_a_torn_unit_is_never_taken_for_a_unit",),
    ),
    Mutation(
        "what is unfinished when the disk is full is removed",
        "cache/assemble.py",
        "    except BaseException:\n        remove_tree(private)\n        raise\n",
        "    except BaseException:\n        raise\n",
        ("tests/test_full_disk.py::test_a_disk_error_at_any_operation_is_a_pause",),
    ),
    Mutation(
        "a file's name in an error of the disk",
        "cache/disk.py",
        "            error.filename = str(path)\n",
        "            pass\n",
        ("tests/test_full_disk.py::test_a_full_disk_is_a_sentence_that_names_the_file",),
    ),
    Mutation(
        "room for a store",
        "cache/extract.py",
        "        check_room(jobs, plan, dim=info.dim)\n",
        "",
        (
            "tests/test_preflight.py"
            "::test_a_disk_without_room_is_refused_before_anything_is_encoded",
        ),
    ),
    Mutation(
        "room for a replacement",
        "cache/replacement.py",
        "                check_room([job], plan, dim=self.info.dim, hint=NO_ROOM)\n",
        "",
        ("tests/test_repair.py::test_a_repair_without_room_is_refused_before_anything_is_encoded",),
    ),
    Mutation(
        "locks: every claim is granted",
        "cache/locks.py",
        "        except (BlockingIOError, PermissionError):\n            return False\n",
        "        except (BlockingIOError, PermissionError):\n            return True\n",
        (
            "tests/test_concurrency.py::test_of_any_number_of_writers_half_are_killed_and_nothing_is_harmed",
        ),
    ),
)


def run_tests(tests: Collection[str], tree: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    return subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def check_baseline(mutations: Sequence[Mutation], tree: Path) -> None:
    """See that every text and every test is there, and that the tests pass without a mutation."""
    for mutation in mutations:
        if problem := problem_of(mutation, tree):
            sys.exit(f"{mutation.id}: {problem}")
    done = run_tests(dict.fromkeys(test for m in mutations for test in m.tests), tree)
    if done.returncode:
        sys.exit(f"the tests do not pass without a mutation:\n{done.stdout}{done.stderr}")


def problem_of(mutation: Mutation, tree: Path) -> str:
    """Why a mutation would prove nothing; empty if it may."""
    count = (tree / "tune_cache" / mutation.file).read_text("utf-8").count(mutation.old)
    if count != 1:
        return f"its text occurs {count} times in {mutation.file}"
    for test in mutation.tests:
        name, _, function = test.partition("::")
        file = tree / name
        sought = f"def {function}(" if function else "def test_"
        if not file.is_file() or sought not in file.read_text("utf-8"):
            return f"there is no test {test}"
    return "" if mutation.tests else "it names no test"


def survives(mutation: Mutation, tree: Path) -> bool:
    """Apply it to a copy of the package and run its tests there."""
    file = tree / "tune_cache" / mutation.file
    text = file.read_text("utf-8")
    file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    done = run_tests(mutation.tests, tree)
    file.write_text(text, "utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode and not (done.returncode == 1 and failed):
        sys.exit(f"{mutation.id}: its tests did not run:\n{done.stdout}{done.stderr}")
    print(f"{'noticed' if failed else 'SURVIVED'}: {mutation.id}", *failed, sep="\n  ", flush=True)
    return not failed


def main() -> None:
    """Check them all, or those whose ids contain one of the arguments."""
    asked = sys.argv[1:] or [""]
    mutations = [m for m in MUTATIONS if any(text in m.id for text in asked)]
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        for part in ("tune_cache", "tests", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copyfile(ROOT / part, tree / part)
        check_baseline(mutations, tree)
        survived = [m.id for m in mutations if survives(m, tree)]
    print(f"{len(mutations) - len(survived)} of {len(mutations)} were noticed")
    sys.exit(bool(survived) or not mutations)


if __name__ == "__main__":
    main()
