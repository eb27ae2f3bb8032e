"""The commands that read and write the edit memory. None of them loads a model or torch."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.commands.session import AsOf, Json, parse_date, session

if TYPE_CHECKING:
    from memedit.memory.fact import Fact, FactInput, Receipt

TABLE_ROWS = 100
"""Most facts that `facts` and `history` list in a table where the caller does not say."""

Limit = Annotated[
    int | None,
    typer.Option(min=1, help=f"Most facts to list.  [default: {TABLE_ROWS} in a table, all with --json]"),
]


def add(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="SENTENCE | SUBJECT RELATION OBJECT", help="One sentence, or the three parts."),
    ] = None,
    valid_from: Annotated[
        datetime | None,
        typer.Option("--from", parser=parse_date, metavar="DATE", help="When it begins to hold (ISO date, UTC)."),
    ] = None,
    valid_to: Annotated[
        datetime | None,
        typer.Option("--to", parser=parse_date, metavar="DATE", help="When it ceases to hold, exclusive."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where it comes from, kept with the fact.")] = None,
    stdin: Annotated[
        bool,
        typer.Option(
            "--stdin", help="Read facts from stdin, one a line: a sentence, or three parts with tabs between them."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Record a fact. It takes the place of what a single-valued slot held.

    memedit add "The capital of France is Lyon."
    memedit add France capital Lyon --from 2030-01-01
    """
    lines = [line.rstrip("\r\n").split("\t") for line in sys.stdin if line.strip()] if stdin else [words or []]
    if stdin and words:
        raise typer.BadParameter("Give the facts as arguments or on stdin, not both.")
    if not stdin and len(lines[0]) not in (1, 3):
        raise typer.BadParameter("Give one sentence in quotes, or SUBJECT RELATION OBJECT.")
    facts = [_fact(parts, valid_from, valid_to, source) for parts in lines]
    from memedit.server.audit import touched

    here = session(context)
    with here.open_memory() as memory:

        def job() -> tuple[list[Receipt], list[int]]:
            if stdin:
                receipts = memory.assert_facts(facts, namespace=here.namespace)
            else:
                receipts = [memory.assert_fact(facts[0], namespace=here.namespace)]
            return receipts, touched(receipts)

        receipts = here.write("add", job)
    for receipt in receipts:
        if as_json:
            show.emit(show.receipt_json(receipt))
        else:
            show.print_receipt(receipt)


def facts(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="Only facts whose statement contains this.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only facts about this entity; aliases are resolved.")] = None,
    relation: Annotated[str | None, typer.Option(help="Only facts of this relation (id or label).")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="Only facts whose object is this entity.")] = None,
    as_of: AsOf = None,
    valid_at: Annotated[
        datetime | None,
        typer.Option("--valid-at", parser=parse_date, metavar="DATE", help="Only facts that hold in the world then."),
    ] = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """List the live facts, oldest first."""
    most = limit if limit or as_json else TABLE_ROWS
    here = session(context)
    with here.open_memory() as memory:
        found = memory.facts(
            subject=subject,
            relation=relation,
            object=object_,
            text=text,
            as_of=as_of,
            valid_at=valid_at,
            limit=None if most is None else most + 1,
            namespace=here.namespace,
        )
    _list(found, most, as_json=as_json, state=False)


def history(
    context: typer.Context,
    subject: Annotated[str | None, typer.Argument(help="Only facts about this entity.")] = None,
    relation: Annotated[str | None, typer.Argument(help="Only facts of this relation (id or label).")] = None,
    limit: Limit = None,
    as_json: Json = False,
) -> None:
    """List everything ever recorded, oldest first: live, superseded, retracted and undone facts."""
    most = limit if limit or as_json else TABLE_ROWS
    here = session(context)
    with here.open_memory() as memory:
        found = memory.history(subject, relation, namespace=here.namespace)
    _list(found, most, as_json=as_json, state=True)


def retract(
    context: typer.Context,
    fact_id: Annotated[int, typer.Argument(metavar="ID", help="The fact's number, as `memedit facts` shows it.")],
    as_json: Json = False,
) -> None:
    """Stop believing a fact. It stays in the history."""
    here = session(context)
    with here.open_memory() as memory:
        fact = here.write("retract", lambda: (memory.retract(fact_id, namespace=here.namespace), [fact_id]))
    if as_json:
        show.emit(show.fact_json(fact))
    else:
        show.say(f"Retracted #{fact.id}: {fact.statement}")


def undo(context: typer.Context, as_json: Json = False) -> None:
    """Take back the last write that was not yet undone."""
    here = session(context)
    with here.open_memory() as memory:

        def job() -> tuple[list[Fact], list[int]]:
            undone = memory.undo(namespace=here.namespace)
            return undone, [fact.id for fact in undone]

        undone = here.write("undo", job)
    _list(undone, None, as_json=as_json, state=True)


def alias(
    context: typer.Context,
    entity: Annotated[str, typer.Argument(help="An entity.")],
    other: Annotated[str | None, typer.Argument(metavar="ALIAS", help="Another name of it, to be recorded.")] = None,
    as_json: Json = False,
) -> None:
    """Record another name of an entity, or list the names it has."""
    here = session(context)
    with here.open_memory() as memory:
        if other is not None:

            def job() -> tuple[None, list[int]]:
                memory.add_alias(entity, other, namespace=here.namespace)
                return None, []

            here.write("alias", job)
        names = list(memory.aliases(entity, namespace=here.namespace))
    if as_json:
        show.emit({"entity": entity, "aliases": names})
    else:
        show.say(f"{entity}: {', '.join(names) or 'no other name'}")


def relations(
    context: typer.Context,
    text: Annotated[str | None, typer.Argument(help="Only relations whose id or label contains this.")] = None,
    as_json: Json = False,
) -> None:
    """List the relations of the catalogue, those defined in this memory included."""
    with session(context).open_memory() as memory:
        wanted = (text or "").casefold()
        found = [one for one in memory.catalogue if wanted in one.id.casefold() or wanted in one.label.casefold()]
    if as_json:
        for relation in found:
            show.emit(relation.model_dump(mode="json"))
    else:
        show.print_relations(found)


def _fact(parts: list[str], valid_from: datetime | None, valid_to: datetime | None, source: str | None) -> FactInput:
    from memedit.memory.fact import FactInput

    fact = FactInput(valid_from=valid_from, valid_to=valid_to, source=source)
    if len(parts) == 3:
        return fact.model_copy(update={"subject": parts[0], "relation": parts[1], "object": parts[2]})
    return fact.model_copy(update={"statement": "\t".join(parts)})


def _list(found: list[Fact], most: int | None, *, as_json: bool, state: bool) -> None:
    shown = found if most is None else found[:most]
    if as_json:
        for fact in shown:
            show.emit(show.fact_json(fact))
        return
    show.out().print(show.facts_table(shown, state=state))
    if len(found) > len(shown):
        show.note(f"There are more than these {len(shown)}; list more with --limit N.")
    elif not found:
        show.note("No facts.")
