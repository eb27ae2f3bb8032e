"""What the benchmarks' command lines share: options of runs that can be resumed, how results are shown, exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from memedit.errors import InvalidSpec, MemEditError
from memedit.evaluation.ray import worker_count
from memedit.evaluation.report import Table
from memedit.evaluation.runs import Start


def exit_code(body: Callable[[], None], *, resumes: bool = False) -> int:
    """Run a command line's work; the exit code.

    Args:
        body: The work. A `MemEditError` is told in a line, and the exit code is 2.
        resumes: Whether an interrupted run goes on when it is started again; an interruption is then told, too, and the exit
            code is 130.
    """
    try:
        body()
    except MemEditError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if not resumes:
            raise
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def show(tables: Iterable[Table], *, markdown: bool = False) -> None:
    """Print tables, for a terminal or in Markdown."""
    for table in tables:
        if markdown:
            print(table.markdown())
        else:
            table.show()


def add_run_options(parser: argparse.ArgumentParser, *, cases_per_batch: int) -> None:
    """The options of a benchmark whose runs can be resumed, and shown again.

    Args:
        parser: Gets them.
        cases_per_batch: The default of that option.
    """
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run beside --json, or fail")
    again.add_argument("--fresh", action="store_true", help="discard the run beside --json")
    parser.add_argument(
        "--cases-per-batch", type=positive, default=cases_per_batch, metavar="N", help="cases answered side by side"
    )
    parser.add_argument(
        "--workers",
        type=workers,
        metavar="1|ray|ray:N",
        help="answer in this process (default), or on a Ray cluster with a worker a core, or N",
    )
    parser.add_argument("--report", type=Path, metavar="JSON", help="run nothing: show the result of an earlier run")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the result")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")


def start_of(arguments: argparse.Namespace) -> Start:
    """What `add_run_options` was told to do with a run that is already there."""
    return "fresh" if arguments.fresh else "resume" if arguments.resume else "auto"


def need_files(arguments: argparse.Namespace) -> None:
    """Fail unless there is both data to read and a place for the result.

    Raises:
        InvalidSpec: One of them is missing.
    """
    if arguments.data is None or arguments.json is None:
        raise InvalidSpec("--data and --json are needed.", "Give both, or --report JSON to show an earlier run.")


def workers(text: str) -> int | None:
    """What ``--workers`` means, see `memedit.evaluation.ray.worker_count`.

    Raises:
        argparse.ArgumentTypeError: It means nothing.
    """
    try:
        return worker_count(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def edit_count(text: str) -> int | None:
    """A number of edits, or ``all``, which is None.

    >>> edit_count("all"), edit_count("100")
    (None, 100)

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    return None if text == "all" else positive(text)
