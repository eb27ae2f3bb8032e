"""`memedit import` and `memedit export`: facts from and to files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.commands.session import AsOf, Json, embed, session
from memedit.errors import BadRow

if TYPE_CHECKING:
    from memedit.memory.fact import FactInput, Receipt
    from memedit.memory.memory import EditMemory


class ReadFormat(StrEnum):
    """What `memedit import` reads."""

    jsonl = "jsonl"
    csv = "csv"
    mquake = "mquake"
    counterfact = "counterfact"
    zsre = "zsre"


class WriteFormat(StrEnum):
    """What `memedit export` writes."""

    jsonl = "jsonl"
    csv = "csv"


def import_facts(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            exists=True, dir_okay=False, metavar="FILE", help="JSON Lines, CSV, or an MQuAKE, CounterFact or zsRE file."
        ),
    ],
    format_: Annotated[
        ReadFormat | None, typer.Option("--format", help="The file's format; found out if not given.")
    ] = None,
    embed_now: Annotated[
        bool, typer.Option("--embed/--no-embed", help="Embed the facts now, or leave it to the next question.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Record the facts of a file: all of them, or none where a row is bad."""
    from memedit.memory.interchange import read_facts
    from memedit.server.audit import touched

    here = session(context)
    with here.open_memory() as memory:
        with show.waiting(f"Reading {file.name}"):
            facts = list(read_facts(file, format_.value if format_ else None, catalogue=memory.catalogue))
        with show.waiting(f"Recording {len(facts):,} facts"):

            def job() -> tuple[list[Receipt], list[int]]:
                receipts = _record(memory, facts, here.namespace, file)
                return receipts, touched(receipts)

            receipts = here.write("import", job)
        counts = Counter(receipt.status for receipt in receipts)
        free_text = sum(receipt.fact.is_free_text for receipt in receipts)
        if as_json:
            told = {status: counts[status] for status in ("added", "superseded", "unchanged")}
            show.emit({"file": str(file), "facts": len(receipts), **told, "free_text": free_text})
        else:
            show.say(
                f"{len(receipts):,} facts: {counts['added']:,} added, {counts['superseded']:,} in the place of others, "
                f"{counts['unchanged']:,} known already; {free_text:,} of them free text."
            )
        if embed_now:
            embed(memory)


def export_facts(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - is stdout.")],
    format_: Annotated[
        WriteFormat | None,
        typer.Option("--format", help="The format; by the file's name if not given, jsonl for stdout."),
    ] = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Write the live facts to a file, which `memedit import` reads back."""
    from memedit.memory.interchange import dump_facts, write_facts

    here = session(context)
    with here.open_memory() as memory:
        facts = memory.facts(as_of=as_of, namespace=here.namespace)
    if str(file) == "-":
        dump_facts(sys.stdout, facts, format_.value if format_ else "jsonl")
        return
    with show.waiting(f"Writing {file.name}"):
        count = write_facts(file, facts, format_.value if format_ else None)
    if as_json:
        show.emit({"file": str(file), "facts": count})
    else:
        show.say(f"{count:,} facts written to {file}.")


def _record(memory: EditMemory, facts: Sequence[FactInput], namespace: str, file: Path) -> list[Receipt]:
    try:
        return memory.assert_facts(facts, namespace=namespace)
    except BadRow as error:
        problem, mend, row, *_ = error.args
        raise BadRow(problem, mend, row=row, source=file.name) from error
