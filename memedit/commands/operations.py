"""`memedit backup`, `memedit restore` and `memedit verify`: looking after a memory (see docs/operations.md)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.commands.session import Json, parse_date, session

if TYPE_CHECKING:
    from memedit.memory.maintenance import Copied

NOT_WHOLE = 4


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The copy, a SQLite file that is not there yet.")],
    as_json: Json = False,
) -> None:
    """Copy the memory to a file, while it is in use."""
    from memedit.memory.maintenance import backup as copy

    with show.waiting(f"Writing {file.name}"):
        copied = copy(session(context).memory_path, file)
    _tell(file, copied, as_json=as_json)


def restore(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="BACKUP", help="A backup, or a memory.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new memory, a file that is not there yet.")],
    position: Annotated[int | None, typer.Option(min=0, help="Stop at this log position.")] = None,
    moment: Annotated[
        datetime | None,
        typer.Option("--at", parser=parse_date, metavar="DATE", help="Stop at this time (ISO date or time, UTC)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a new memory of a backup, up to a point in time; the backup is verified on the way."""
    from memedit.memory.maintenance import restore as make

    with show.waiting(f"Writing {file.name}"):
        copied = make(source, file, position=position, moment=moment)
    _tell(file, copied, as_json=as_json)


def verify(context: typer.Context, as_json: Json = False) -> None:
    """Recompute the hash chain over the log, and hold the index against the log. Exits with 4 if either is wrong."""
    from memedit.memory.maintenance import verify as examine

    place = session(context).memory_path
    with show.waiting("Verifying"):
        report = examine(place)
    if as_json:
        show.emit({"memory": place, "whole": not report.faults, **report._asdict()})
    else:
        for fault in report.faults:
            show.say(fault)
        index = "no index yet" if report.vectors is None else f"{report.vectors:,} vectors of the index compared"
        show.say(f"{report.transactions:,} transactions up to position {report.position:,}; {index}.")
        show.say(f"Hash of the log: {report.hash or 'none, it is empty'}")
        show.say(f"{len(report.faults)} faults." if report.faults else "All is as it was written.")
    if report.faults:
        raise typer.Exit(NOT_WHOLE)


def _tell(file: Path, copied: Copied, *, as_json: bool) -> None:
    at = None if copied.at is None else copied.at.isoformat()
    if as_json:
        show.emit({"file": str(file), "position": copied.position, "at": at, "transactions": copied.transactions})
    else:
        until = f", the last of {at}" if at else ""
        show.say(f"{file}: {copied.transactions:,} transactions up to position {copied.position:,}{until}.")
