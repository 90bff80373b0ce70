"""Draw the README's figures from a real run: ``make figures``.

The subset of real music, encoded by ``mel``, one length a process so that their
memory can be told apart; where the subset is absent a sentence says so and the demo
takes its place. Scores are of eight test tracks: the figures show what a figure
looks like, and that eight tracks decide nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LENGTHS = ("10", "30", "full")
AGGREGATIONS = ("mean", "max", "mean+std", "concat")
KEPT = ("cost-seconds", "layers", "lengths", "differences")  # those that pages show
LARGEST_BYTES = 300_000


def tune(*arguments: str) -> None:
    """Run the command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "tune_cache", *arguments], check=True)


def repeated(flag: str, values: tuple[str, ...]) -> list[str]:
    """A flag once a value."""
    return [text for value in values for text in (flag, value)]


def main() -> None:
    """Make results and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subset", type=Path, help="folder with soundtrack.{train,val,test}.jsonl")
    parser.add_argument("folder", type=Path, help="where the figures go")
    given = parser.parse_args()
    if (given.subset / "soundtrack.train.jsonl").is_file():
        dataset, encoder, task = str(given.subset / "soundtrack"), "mel", ()
    else:
        print(f"no real music in {given.subset}: the figures are of the demo, by random weights")
        dataset, encoder, task = "demo", "muq-nano", ("--task", "style")
    with tempfile.TemporaryDirectory() as temporary:
        where = ["--cache-dir", f"{temporary}/cache"]
        # once for nothing, so that the first length is not the one that waits for the disk
        tune("extract", dataset, "--encoder", encoder, "--cache-dir", f"{temporary}/warm")
        for length in LENGTHS:
            tune("extract", dataset, "--encoder", encoder, "--seg", length, *where)
        axes = [*repeated("--seg", LENGTHS), *repeated("--agg", AGGREGATIONS)]
        tune("sweep", dataset, "--encoder", encoder, *axes, *task, *where)
        tune("report", dataset, *task, "--figures", f"{temporary}/figures", *where)
        given.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(temporary, "figures").iterdir()):
            if path.stem.endswith(KEPT):
                if path.stat().st_size > LARGEST_BYTES:
                    raise SystemExit(f"{path.name} has {path.stat().st_size} bytes: too many")
                shutil.copy(path, given.folder / path.name)
                print(given.folder / path.name)


if __name__ == "__main__":
    main()
