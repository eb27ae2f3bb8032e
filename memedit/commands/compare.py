"""`memedit compare`: every strategy with every number of edits over one benchmark file, and one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from memedit.commands import show
from memedit.commands.session import Demonstrations, session

DEFAULT_STRATEGIES = "base,serac,ike,mello,walk,rome,memit,ft"
DEFAULT_EDITS = "1,10,100,1000"


def sizes(text: str) -> list[int | None]:
    """Numbers of edits, separated by commas; ``all`` is None.

    >>> sizes("1,10,all")
    [1, 10, None]

    Raises:
        typer.BadParameter: One is neither a positive number nor ``all``.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    wrong = [word for word in words if word != "all" and not (word.isdecimal() and int(word) > 0)]
    if wrong or not words:
        raise typer.BadParameter(f"{', '.join(wrong) or 'nothing'} is no number of edits, such as 1, 100 or all.")
    return [None if word == "all" else int(word) for word in words]


def compare(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, metavar="FILE", help="A file of CounterFact, zsRE or KnowEdit."),
    ],
    strategies: Annotated[
        str, typer.Option(metavar="NAMES", help="Strategies and parametric methods, separated by commas.")
    ] = DEFAULT_STRATEGIES,
    demonstrations: Demonstrations = None,
    edits: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help="Edits that one memory holds, separated by commas; 'all' are those of the cases; more are filled up from the file.",
        ),
    ] = DEFAULT_EDITS,
    edits_as: Annotated[
        Literal["triples", "statements"],
        typer.Option(help="Edits as triples where the file has them, or as plain sentences only."),
    ] = "triples",
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Most cases asked, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the draw and of the edits' order.")] = 0,
    out: Annotated[Path, typer.Option(file_okay=False, metavar="FOLDER", help="Where results and report go.")] = Path(
        "comparison"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Run everything anew, whatever the folder holds.")] = False,
    generated_only: Annotated[
        bool, typer.Option("--generated-only", help="No teacher forcing (for servers that tell no probabilities).")
    ] = False,
    no_fluency: Annotated[bool, typer.Option("--no-fluency", help="Write no texts to measure fluency on.")] = False,
) -> None:
    """Compare ways of editing: one table, plots of accuracy and cost, and every command. Goes on where it was cut off."""
    from memedit.evaluation.compare import compare as run_grid
    from memedit.evaluation.compare import make_grid, tables

    grid = make_grid(
        data,
        out,
        strategies=[name.strip() for name in strategies.split(",") if name.strip()],
        edits=sizes(edits),
        model=session(context).model,
        demonstrations=demonstrations,
        edits_as=edits_as,
        limit=limit,
        seed=seed,
        teacher_forced=not generated_only,
        fluency=not no_fluency,
    )
    for table in tables(run_grid(grid, fresh=fresh)):
        table.show()
    show.note(f"The report is {out / 'report.md'}.")
