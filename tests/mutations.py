"""Take one safeguard of the cache away at a time and see that a test fails: ``make mutations``.

Every mutation is a text that must occur once in a file, what it becomes, and the tests that must
notice. The tree is copied first; the copy is changed and tested. Exits with 1 if one survives.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
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
        """        step("sync", temporary)
        os.fsync(file.fileno())
""",
        "",
        ("tests/test_power_loss.py",),
    ),
    Mutation(
        "fsync of a folder",
        "cache/disk.py",
        """    if sync_parent:
        sync_folder(path.parent)
""",
        "",
        ("tests/test_power_loss.py",),
    ),
    Mutation(
        "rename: written in place",
        "cache/disk.py",
        """        yield os.open(temporary, flags, 0o666)
        step("rename", path)
        temporary.replace(path)
""",
        """        yield os.open(path, flags & ~os.O_EXCL | os.O_TRUNC, 0o666)
        step("rename", path)
""",
        ("tests/test_crash.py", "tests/test_power_loss.py", "tests/test_full_disk.py"),
    ),
    Mutation(
        "rename of the store: built under its final name",
        "cache/disk.py",
        "        private.rename(final)\n",
        "        shutil.copytree(private, final)\n        shutil.rmtree(private)\n",
        ("tests/test_concurrency.py", "tests/test_crash.py", "tests/test_power_loss.py"),
    ),
    Mutation(
        "check of a unit's payload",
        "cache/journal.py",
        'record["sha256"] != _payload_digest(arrays, header)',
        "False",
        ("tests/test_journal.py",),
    ),
    Mutation(
        "check of sizes on opening",
        "cache/listing.py",
        "    for name, problem in differing_sizes(files).items():\n",
        "    for name, problem in ():\n",
        ("tests/test_store.py", "tests/test_verify.py"),
    ),
    Mutation(
        "comparison of digests on reading",
        "cache/listing.py",
        "if entry and hashlib.sha256(data).hexdigest() != entry.sha256:",
        "if False:",
        ("tests/test_store.py", "tests/test_verify.py"),
    ),
    Mutation(
        "copied rows: same audio, not same name",
        "cache/find.py",
        "{t.track_id: place[t.audio_sha256] for t in tracks if t.audio_sha256 in place}",
        "{t.track_id: next(((s, n) for s, n in place.values() if n == t.track_id), "
        "next(iter(place.values()))) for t in tracks if t.audio_sha256 and place}",
        ("tests/test_extract.py",),
    ),
    Mutation(
        "locks: every claim is granted",
        "cache/locks.py",
        "        except (BlockingIOError, PermissionError):\n            return False\n",
        "        except (BlockingIOError, PermissionError):\n            return True\n",
        ("tests/test_concurrency.py",),
    ),
)


def survives(mutation: Mutation, tree: Path) -> bool:
    """Apply it to a copy of the package and run its tests there."""
    file = tree / "tune_cache" / mutation.file
    text = file.read_text("utf-8")
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.id}: its text occurs {text.count(mutation.old)} times in {file.name}")
    file.write_text(text.replace(mutation.old, mutation.new), "utf-8")
    tests = [test for test in mutation.tests if (tree / test).exists()]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    file.write_text(text, "utf-8")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    print(
        f"{'SURVIVED' if done.returncode == 0 else 'noticed'}: {mutation.id}", *failed, sep="\n  "
    )
    return done.returncode == 0


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        for part in ("tune_cache", "tests", "docs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for part in ("pyproject.toml", "README.md", "CHANGELOG.md"):
            shutil.copyfile(ROOT / part, tree / part)
        survived = [m.id for m in MUTATIONS if survives(m, tree)]
    print(f"{len(MUTATIONS) - len(survived)} of {len(MUTATIONS)} were noticed")
    sys.exit(bool(survived))


if __name__ == "__main__":
    main()
