"""`memedit backup | restore | verify | compact`: looking after a memory (see docs/operations.md)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.commands.session import Json, parse_date, parse_span, session

if TYPE_CHECKING:
    from memedit.memory.compaction import DeletionReceipt
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


def compact(
    context: typer.Context,
    keep: Annotated[
        timedelta | None,
        typer.Option(parser=parse_span, metavar="TIME", help="Erase what ended longer ago than this: 90d, 12h, 4w."),
    ] = None,
    before: Annotated[
        datetime | None,
        typer.Option(parser=parse_date, metavar="DATE", help="Erase what had ended by then (ISO date or time, UTC)."),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="NAME", help="Erase all about this entity, live facts and aliases too.")
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", help="In every namespace, not in one.")] = False,
    trial: Annotated[bool, typer.Option("--trial", help="Only tell what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Erase facts for good: from the log, the vectors, the index and the files. Prints a deletion receipt.

    Without --subject: facts that were superseded, retracted or undone. Exits with 4 if something still holds some of it.

    memedit compact --keep 90d
    memedit compact --subject "Ann Example" --all-namespaces
    """
    if sum(option is not None for option in (keep, before, subject)) != 1:
        raise typer.BadParameter("Give one of --keep, --before and --subject.")
    here = session(context)
    if keep is not None:
        before = datetime.now(UTC) - keep
    with here.open_memory() as memory:

        def erased(*, trial: bool) -> DeletionReceipt:
            if subject is not None:
                return memory.erase(subject, namespace=here.namespace, everywhere=everywhere, trial=trial)
            assert before is not None
            return memory.compact(before, namespace=here.namespace, everywhere=everywhere, trial=trial)

        planned = erased(trial=True)
        if not trial:
            if planned.namespaces and not yes:
                _confirm(planned)
            with show.waiting("Erasing"):
                planned = here.write("erase", lambda: _with_ids(erased(trial=False)), namespaces=planned.namespaces)
    _tell_receipt(planned, as_json=as_json, trial=trial)
    if planned.left:
        raise typer.Exit(NOT_WHOLE)


def _with_ids(receipt: DeletionReceipt) -> tuple[DeletionReceipt, tuple[int, ...]]:
    """The receipt, and the facts that the audit log names."""
    return receipt, receipt.facts


def _confirm(planned: DeletionReceipt) -> None:
    names = ", ".join(map(repr, planned.namespaces))
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"{len(planned.facts):,} facts of {names} would be erased for good: say --yes.")
    typer.confirm(f"Erase {len(planned.facts):,} facts of {names} for good?", abort=True, err=True)


def _tell_receipt(receipt: DeletionReceipt, *, as_json: bool, trial: bool) -> None:
    if as_json:
        times = {
            name: None if at is None else at.isoformat()
            for name, at in (("at", receipt.at), ("horizon", receipt.horizon))
        }
        erased = [erasure._asdict() for erasure in receipt.erased]
        show.emit({**receipt._asdict(), **times, "erased": erased, "trial": trial})
        return
    names = ", ".join(map(repr, receipt.namespaces)) or "no namespace"
    show.say(f"{len(receipt.facts):,} facts of {names} {'would be' if trial else 'were'} erased.")
    if trial:
        return
    if receipt.position is not None and receipt.at is not None:
        show.say(f"Recorded at position {receipt.position:,} of the log, {receipt.at:%Y-%m-%d %H:%M:%S} UTC.")
    for place, what, number in receipt.erased:
        show.say(f"  {place}: {what} ({number:,})")
    for one in receipt.left:
        show.say(f"Not done yet: {one}")
    for one in receipt.not_touched:
        show.say(f"Not touched: {one}")


def _tell(file: Path, copied: Copied, *, as_json: bool) -> None:
    at = None if copied.at is None else copied.at.isoformat()
    if as_json:
        show.emit({"file": str(file), "position": copied.position, "at": at, "transactions": copied.transactions})
    else:
        until = f", the last of {at}" if at else ""
        show.say(f"{file}: {copied.transactions:,} transactions up to position {copied.position:,}{until}.")
