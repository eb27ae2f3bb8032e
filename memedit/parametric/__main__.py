"""`python -m memedit.parametric`: measures single weight edits, and draws causal traces.

    python -m memedit.parametric measure --data counterfact-full-dev.json --method rome --limit 100 --json OUT
    python -m memedit.parametric trace "The capital of France is" France Paris --png heat.png

Measures one edit at a time, by teacher forcing; `benchmarks/` measures many edits together and free generation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.errors import BadDataFile, MemEditError
from memedit.evaluation.cases import Problem, load
from memedit.evaluation.measures import preferred
from memedit.evaluation.rows import fail_row
from memedit.parametric.edits import WeightEdit
from memedit.parametric.model import ParametricModel, edited

if TYPE_CHECKING:
    from memedit.parametric.tracing import State

app = typer.Typer(add_completion=False, help="Edits in a model's weights, for comparison.", no_args_is_help=True)

_FIELDS = {"paraphrase": "paraphrase_prompts", "locality": "neighborhood_prompts"}
"""The fields that a row may leave empty, and must not here, by the kind of their prompts."""

Model = Annotated[str, typer.Option(help="'embedded' or 'hf:NAME_OR_PATH'.")]


@app.command()
def measure(
    data: Annotated[Path, typer.Option(help="CounterFact with paraphrase and neighborhood prompts, as JSON.")],
    method: Annotated[str, typer.Option(help="rome, memit, ft-l, ft-m or lora.")] = "rome",
    model: Model = "embedded",
    layer: Annotated[int | None, typer.Option(help="The layer to edit; by default causal tracing picks it.")] = None,
    start: Annotated[int, typer.Option(min=0, help="The first row to take.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="How many rows, from there.")] = 100,
    out: Annotated[Path | None, typer.Option("--json", help="Where to write the figures.")] = None,
) -> None:
    """Make each edit alone, and see what the model finds likelier: the new object or the old one.

    Edit success ES and paraphrase success PS: the share of prompts where P(new) > P(old). Neighborhood success NS: the
    share of prompts about other subjects where P(old) > P(new). P is the mean log probability of the tokens, as in Meng et
    al. 2022; a case's prompts are averaged first.
    """
    problems = _problems(data)[start : start + limit]
    if not problems:
        raise BadDataFile(f"{data} has no row after the first {start}.", "Give a smaller --start.")
    held = edited(model, method)
    layer = _take_layer(held, layer)
    cases = []
    for problem in problems:
        cases.append(_measure(held, problem))
        figures = _figures(cases)
        print(
            f"{len(cases)}/{len(problems)} " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()),
            file=sys.stderr,
        )
        if out is not None:  # after every case, so that a run that is ended early leaves what it found
            found = {"command": sys.argv, "data": data.name, "method": method, "layer": layer, "threads": _threads()}
            out.write_text(json.dumps({**found, "figures": figures, "cases": cases}, indent=1), encoding="utf-8")


@app.command()
def trace(
    prompt: Annotated[str, typer.Argument(help="The beginning of a sentence that the model can end.")],
    subject: Annotated[str, typer.Argument(help="Its subject, as it stands in the prompt.")],
    answer: Annotated[str, typer.Argument(help="How it ends.")],
    png: Annotated[Path, typer.Option(help="Where to draw the heat map.")],
    state: Annotated[str, typer.Option(help="What is put back: hidden, mlp or attention.")] = "hidden",
    model: Model = "embedded",
) -> None:
    """Corrupt the subject, restore one state at a time, and draw how much of the answer's probability comes back."""
    from memedit.parametric import tracing
    from memedit.parametric.heatmap import draw

    held = edited(model)
    kind: State = state  # type: ignore[assignment]  # trace() refuses what is none
    found = tracing.trace(held.weights, held.vocabulary, WeightEdit(prompt, subject, answer), kind)
    print(f"{draw(found, png)}: {found.clean:.3f} clean, {found.corrupted:.3f} corrupted")


def _take_layer(model: ParametricModel, layer: int | None) -> int | None:
    """Have the method edit a layer, or the one that causal tracing picks; None where it edits all."""
    method = model.method
    if not (hasattr(method, "layers") or hasattr(method, "layer")):
        return None
    if layer is None:
        from memedit.parametric.tracing import decisive_layer

        layer = decisive_layer(model.weights, model.vocabulary)
    if hasattr(method, "layers"):
        method.layers = tuple(range(max(0, layer - 4), layer + 1))
    elif hasattr(method, "layer"):
        method.layer = layer
    return layer


def _problems(path: Path) -> list[Problem]:
    problems = load(path, "counterfact")
    for problem in problems:
        for kind, field in _FIELDS.items():
            if all(question.kind != kind for question in problem.case.questions):
                fail_row("is empty.", problem.case.row, path.name, field)
    return problems


def _measure(model: ParametricModel, problem: Problem) -> dict[str, float]:
    made = problem.case.edit
    edit = WeightEdit(made.prompt, made.subject, made.target)
    model.hold([])
    before = _shares(model, problem)
    wall, cpu = time.perf_counter(), time.process_time()
    model.hold([edit])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = _shares(model, problem)
    unedited = {f"{name}_unedited": share for name, share in before.items()}
    return {**after, **unedited, "seconds": wall, "cpu_seconds": cpu}


def _shares(model: ParametricModel, problem: Problem) -> dict[str, float]:
    """ES, PS and NS of one case, from its prompts of each kind."""
    kinds = {"edit": "ES", "paraphrase": "PS", "locality": "NS"}
    pairs = zip(problem.case.questions, problem.gold.expected, strict=True)
    asked = [(question, expected) for question, expected in pairs if question.kind in kinds]
    names = [
        (question.prompt, f" {name}")
        for question, expected in asked
        for name in (expected.answers[0], expected.against)
    ]
    scores = iter(model.score(names))
    found: dict[str, list[bool]] = {name: [] for name in kinds.values()}
    for question, _ in asked:
        found[kinds[question.kind]].append(preferred(next(scores), next(scores)))
    return {name: fmean(marks) for name, marks in found.items()}


def _figures(cases: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: fmean(case[name] for case in cases) for name in cases[0]}


def _threads() -> int:
    import torch

    return min(torch.get_num_threads(), os.cpu_count() or 1)


if __name__ == "__main__":
    try:
        app()
    except MemEditError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
