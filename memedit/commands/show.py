"""How facts, answers and errors look: rich tables for people, JSON for scripts, messages on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from memedit.answer import Answer, Hop
    from memedit.errors import MemEditError
    from memedit.memory.fact import Fact, Receipt, Relation


def out() -> Console:
    """The console for results."""
    return Console(highlight=False)


def err() -> Console:
    """The console for messages."""
    return Console(stderr=True, highlight=False)


def note(message: str) -> None:
    """A message for people, on stderr."""
    err().print(Text(message), soft_wrap=True)


def print_error(problem: MemEditError) -> None:
    """What went wrong and how to mend it, on stderr."""
    text = Text.assemble((f"{type(problem).__name__}: ", "bold red"), _problem(problem))
    if problem.mend:
        text.append(f"\n{problem.mend}")
    err().print(text, soft_wrap=True)


def say(message: str) -> None:
    """A plain result, on stdout."""
    out().print(Text(message), soft_wrap=True)


def emit(document: Mapping[str, object]) -> None:
    """One JSON document on one line of stdout."""
    print(json.dumps(document, ensure_ascii=False))


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """A spinner on stderr while something of unknown length runs; silent where stderr is no terminal."""
    console = err()
    if not console.is_terminal:
        yield
        return
    with console.status(message):
        yield


@contextmanager
def elapsed(message: str) -> Iterator[None]:
    """A line on stderr with the time that something takes, while it takes it; silent where stderr is no terminal."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = err()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        line.add_task(message, total=None)
        yield


@contextmanager
def progress(message: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is told (done, total); silent where stderr is no terminal."""
    from rich.progress import Progress

    console = err()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(message, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fact_json(fact: Fact) -> dict[str, object]:
    """A fact as plain values."""
    return fact.model_dump(mode="json")


def receipt_json(receipt: Receipt) -> dict[str, object]:
    """A receipt as plain values."""
    return receipt.model_dump(mode="json")


def origin_json(hops: Iterable[Hop], edits: Iterable[Fact]) -> dict[str, object]:
    """What an answer came from, as plain values."""
    return {"hops": [asdict(hop) for hop in hops], "edits": [fact_json(fact) for fact in edits]}


def answer_json(answer: Answer) -> dict[str, object]:
    """An answer as plain values."""
    return {
        "question": answer.question,
        "text": answer.text,
        "in_scope": answer.in_scope,
        "strategy": answer.strategy,
        "planner": answer.planner,
        "probability": answer.probability,
        **origin_json(answer.hops, answer.edits),
        "cost": asdict(answer.cost),
        "notice": answer.notice,
    }


def new_table(*columns: str) -> Table:
    """An empty table in the house style."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name)
    return table


def facts_table(facts: Iterable[Fact], *, state: bool = False) -> Table:
    """Facts, one a row.

    Args:
        facts: The facts.
        state: Show whether each is still believed, and if not, why.
    """
    table = new_table("#", "fact", "holds", "recorded", *(["state"] if state else []))
    for fact in facts:
        row = [str(fact.id), fact.statement, _period(fact.valid_from, fact.valid_to), _minute(fact.recorded_at)]
        table.add_row(*map(Text, [*row, _state(fact)] if state else row))
    return table


def hops_table(hops: Iterable[Hop]) -> Table:
    """The steps of an answer, one a row."""
    table = new_table("hop", "entity", "relation", "object", "where it came from", "p")
    for number, hop in enumerate(hops, 1):
        cells = (str(number), hop.entity, hop.label, hop.object, origin(hop), f"{hop.probability:.2f}")
        table.add_row(*map(Text, cells))
    return table


def origin(hop: Hop) -> str:
    """Where a step came from, in words."""
    if hop.source == "belief":
        return "the base model"
    return f"edit #{hop.edit_id}" if hop.source == "edit" else f"implied by edit #{hop.edit_id}"


def print_answer(answer: Answer) -> None:
    """An answer for people: its text on the first line, then how it came about."""
    console = out()
    console.print(Text(answer.text, style="bold"), soft_wrap=True)
    print_origin(answer.hops, answer.edits, answer.notice)
    cost = answer.cost
    tokens = f"{cost.prompt_tokens} + {cost.completion_tokens} tokens"
    line = f"{answer.strategy}: {cost.model_calls} model calls, {tokens}, {cost.seconds:.2f} s"
    console.print(Text(line, style="dim"))


def print_origin(hops: Sequence[Hop], edits: Sequence[Fact], notice: str = "") -> None:
    """The steps behind an answer, or the facts; then the notice; where there is nothing of all that, that."""
    console = out()
    if hops:
        console.print(hops_table(hops))
    elif edits:
        console.print(facts_table(edits))
    if notice:
        console.print(Text(notice, style="dim"), soft_wrap=True)
    elif not hops and not edits:
        console.print(Text("No edit is in scope: the base model's own answer.", style="dim"))


def print_relations(relations: Iterable[Relation]) -> None:
    """Relations, one a row."""
    table = new_table("id", "label", "statement", "holds", "inverse")
    for one in relations:
        table.add_row(
            *map(Text, (one.id, one.label, one.statement, "one" if one.single_valued else "many", one.inverse or ""))
        )
    out().print(table)


def print_receipt(receipt: Receipt) -> None:
    """What a write did, in a line or two."""
    told = {"added": "Added", "superseded": "Added", "unchanged": "Already known:"}[receipt.status]
    line = f"{told} #{receipt.fact.id}: {receipt.fact.statement}"
    for old in receipt.replaced:
        line += f"\n  takes the place of #{old.id}: {old.statement}"
    out().print(Text(line), soft_wrap=True)
    if receipt.notice:
        note(receipt.notice)


def _problem(problem: MemEditError) -> str:
    return str(problem).removesuffix(problem.mend).rstrip()


def _state(fact: Fact) -> str:
    if fact.retracted_at is None:
        return "live"
    reason = fact.end_reason.value if fact.end_reason else "ended"
    by = f" by #{fact.superseded_by}" if fact.superseded_by else ""
    return f"{reason}{by}, {_minute(fact.retracted_at)}"


def _period(start: datetime | None, end: datetime | None) -> str:
    parts = [f"from {_day(start)}"] if start else []
    parts += [f"to {_day(end)}"] if end else []
    return " ".join(parts) or "always"


def _day(moment: datetime) -> str:
    text = moment.isoformat(timespec="minutes")
    return text.removesuffix("T00:00+00:00")


def _minute(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M")
