"""`memedit demo` and `memedit doctor`: does it work, here and now?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from memedit.commands import show
from memedit.commands.session import Json, session

if TYPE_CHECKING:
    from memedit.demo import Outcome
    from memedit.doctor import Part

_COLOURS = {"works": "green", "not installed": "yellow", "broken": "red"}


def demo(context: typer.Context, as_json: Json = False) -> None:
    """Add a few facts to a temporary memory, ask questions, and check the answers.

    Shows an edit, a paraphrase of it, edits within questions of two and three hops, and questions that must not
    change. Exits with 1 where an answer is not as expected.
    """
    from memedit.demo import FACTS, demonstrate

    start = time.perf_counter()
    with show.waiting("Loading the model and asking"):
        outcomes = list(demonstrate(session(context).model))
    seconds = time.perf_counter() - start
    failed = [outcome for outcome in outcomes if outcome.problem]
    if as_json:
        rows = [
            {"shows": one.trial.shows, "problem": one.problem, "answer": show.answer_json(one.answer)}
            for one in outcomes
        ]
        show.emit({"ok": not failed, "facts": list(FACTS), "trials": rows, "seconds": round(seconds, 3)})
    else:
        _print_demo(FACTS, outcomes, seconds)
    if failed:
        raise typer.Exit(1)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Say which parts work on this machine, and how to mend those that do not.

    Exits with 0 where everything works that the given options need. Nothing is fetched; a server is asked only where
    --model names one.
    """
    from memedit.doctor import examine

    here = session(context)
    with show.waiting("Looking at every part"):
        parts = list(examine(here.memory_path, here.model))
    fine = all(part.fine for part in parts)
    if as_json:
        show.emit({"ok": fine, "parts": [part.to_dict() for part in parts]})
    else:
        _print_parts(parts)
        show.say("Everything needed works." if fine else "Something that is needed does not work.")
    if not fine:
        raise typer.Exit(1)


def _print_demo(facts: Sequence[str], outcomes: Sequence[Outcome], seconds: float) -> None:
    console = show.out()
    console.print(Text("Facts added", style="bold"))
    for number, fact in enumerate(facts, 1):
        console.print(Text(f"  #{number} {fact}"))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("question, answer and hops")
    table.add_column("where it came from", max_width=20)
    table.add_column("time", justify="right", no_wrap=True)
    for one in outcomes:
        table.add_section()
        _add_outcome(table, one)
    console.print(table)
    failed = sum(bool(one.problem) for one in outcomes)
    verdict = f"{failed} of {len(outcomes)} answers are not as expected." if failed else "All answers are as expected."
    console.print(Text(f"{verdict} {seconds:.1f} s, the loading of the model included.", style="red" if failed else ""))


def _add_outcome(table: Table, one: Outcome) -> None:
    answer = one.answer
    table.add_row(Text(one.trial.question), Text(one.trial.shows, "dim"), f"{answer.cost.seconds:.2f} s")
    table.add_row(Text(shorten(answer.text, 150), "bold"), "" if answer.in_scope else "the base model")
    for number, hop in enumerate(answer.hops, 1):
        table.add_row(Text(f"  {number}. {hop.entity} > {hop.label} > {hop.object}"), show.origin(hop))
    if one.problem:
        table.add_row(Text(f"  FAILED: {one.problem}", "red"))
    elif one.trial.answer is None:
        table.add_row(Text("  Checked: byte for byte what the base model says by itself.", "green"))


def _print_parts(parts: Sequence[Part]) -> None:
    table = show.new_table("part", "state", "detail")
    for part in parts:
        finding = part.finding
        detail = Text(finding.detail)
        if finding.mend:
            detail.append(f"\n{finding.mend}", style="dim")
        colour = _COLOURS[finding.state] if part.needed or finding.state == "works" else "dim"
        table.add_row(part.name, Text(finding.state, style=colour), detail)
    show.out().print(table)
