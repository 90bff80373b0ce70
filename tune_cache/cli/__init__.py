"""The command line: options in, one public function a verb, results out.

Conventions
-----------
Results go to stdout, progress and messages to stderr. Exit codes: 0 done; 1
failed; 2 usage or ambiguity; 3 done, some tracks failed; 4 verification
failed; 130 interrupted. Nothing heavy is imported before a verb runs.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from typing import Annotated, NoReturn

import typer

from tune_cache.cli import groups, sweeps, verbs
from tune_cache.cli.options import DAMAGED, FAILED, INTERRUPTED, USAGE
from tune_cache.errors import (
    StoreAmbiguousError,
    StoreCorruptError,
    TuneCacheError,
    UsageError,
    first_few,
    printable,
)

__all__ = ["app", "main"]

ECHO_SECONDS = 1.0  # timeout(1) signals its command, and then the whole group

app = typer.Typer(
    help="Encode music once with a frozen encoder; probe the vectors as often as you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
verbs.register(app)
sweeps.register(app)
groups.register(app)


def _version(asked: bool) -> None:
    if asked:
        from tune_cache import __version__

        typer.echo(f"tune_cache {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it.")
    ] = False,
) -> None:
    if debug:
        os.environ["TUNE_DEBUG"] = "1"


class _Interrupted(BaseException):
    """SIGINT or SIGTERM; not KeyboardInterrupt, which typer would swallow without a word."""


_interrupted_at = -ECHO_SECONDS


def _interrupt(*_: object) -> None:
    global _interrupted_at
    now = time.monotonic()
    if now - _interrupted_at >= ECHO_SECONDS:  # an echo would end the tidying up
        _interrupted_at = now
        raise _Interrupted


def _fail(error: BaseException, code: int, hint: str | None = None) -> NoReturn:
    from tune_cache.commands.terminal import say

    if os.environ.get("TUNE_DEBUG"):
        raise error
    say(f"error: {printable(error)}")
    tracks = error.tracks if isinstance(error, StoreCorruptError) else ()
    if tracks and first_few(tracks) not in str(error):
        say(f"{len(tracks)} track(s) hit: {printable(first_few(tracks))}")
    if hint:  # of one line, or two
        say("hint: " + "\n".join(map(printable, hint.split("\n"))))
    sys.exit(code)


def main() -> None:
    """Run the command line and turn every error into a sentence and an exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # Latin-1 has no ≡: escaped, it stops nothing
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(standalone_mode=True)
    except _Interrupted:
        from tune_cache.commands.terminal import say

        say("interrupted; the same command resumes where this one stopped")
        sys.exit(INTERRUPTED)
    except (UsageError, StoreAmbiguousError) as error:
        _fail(error, USAGE, error.hint)
    except StoreCorruptError as error:
        _fail(error, DAMAGED, error.hint)
    except TuneCacheError as error:
        _fail(error, FAILED, error.hint)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as error:
        _fail(error, FAILED, "check space and permissions, then run the same command again")
    except Exception as error:  # noqa: BLE001 - the last line of defence against a traceback
        _fail(
            RuntimeError(f"unexpected {type(error).__name__}: {error}"),
            FAILED,
            "this is a defect of tune_cache: please report it with the output of `tune --debug …`",
        )
