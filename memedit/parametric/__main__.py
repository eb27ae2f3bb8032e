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
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memedit.errors import BadDataFile, BadRow, MemEditError
from memedit.parametric.edits import WeightEdit
from memedit.parametric.model import ParametricModel, edited

if TYPE_CHECKING:
    from memedit.parametric.tracing import State

app = typer.Typer(add_completion=False, help="Edits in a model's weights, for comparison.", no_args_is_help=True)

_FIELDS = (
    *(f"requested_rewrite.{name}" for name in ("prompt", "subject", "target_new.str", "target_true.str")),
    "paraphrase_prompts",
    "neighborhood_prompts",
)

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
    rows = _rows(data)[start : start + limit]
    if not rows:
        raise BadDataFile(f"{data} has no row after the first {start}.", "Give a smaller --start.")
    held = edited(model, method)
    layer = _take_layer(held, layer)
    cases = []
    for row in rows:
        cases.append(_measure(held, row))
        figures = _figures(cases)
        print(
            f"{len(cases)}/{len(rows)} " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()),
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


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadDataFile(f"{path} cannot be read as JSON: {error}.", "Give a CounterFact file.") from error
    if not isinstance(rows, list):
        raise BadDataFile(f"{path} is no JSON array.", "Give a CounterFact file.")
    for number, row in enumerate(rows, 1):
        for field in _FIELDS:
            if not _has(row, field.split(".")):
                raise BadRow("is missing.", "Mend the row, or leave it out.", row=number, source=path.name, field=field)
    return rows


def _has(value: object, names: Sequence[str]) -> bool:
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return bool(value)


def _measure(model: ParametricModel, row: dict[str, Any]) -> dict[str, float]:
    rewrite = row["requested_rewrite"]
    subject, new, old = rewrite["subject"], rewrite["target_new"]["str"], rewrite["target_true"]["str"]
    edit = WeightEdit(rewrite["prompt"].format(subject), subject, new)
    prompts = [[edit.prompt], row["paraphrase_prompts"], row["neighborhood_prompts"]]
    model.hold([])
    before = _shares(model, prompts, new, old)
    wall, cpu = time.perf_counter(), time.process_time()
    model.hold([edit])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = _shares(model, prompts, new, old)
    unedited = {f"{name}_unedited": share for name, share in before.items()}
    return {**after, **unedited, "seconds": wall, "cpu_seconds": cpu}


def _shares(model: ParametricModel, prompts: Sequence[Sequence[str]], new: str, old: str) -> dict[str, float]:
    """ES, PS and NS of one case, from its prompts of each kind."""
    leads = iter(_leads(model, [prompt for kind in prompts for prompt in kind], new, old))
    signed = zip(("ES", "PS", "NS"), (1, 1, -1), prompts, strict=True)
    return {name: fmean(sign * next(leads) > 0 for _ in kind) for name, sign, kind in signed}


def _leads(model: ParametricModel, prompts: Sequence[str], new: str, old: str) -> list[float]:
    scores = model.score([(prompt, f" {name}") for prompt in prompts for name in (new, old)])
    means = [score.log_probability / max(score.tokens, 1) for score in scores]
    return [means[place] - means[place + 1] for place in range(0, len(means), 2)]


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
