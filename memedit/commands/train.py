"""`memedit train planner|scope|counterfactual`: trains what ships with the package, or your own, from public data.

Each command is repeatable by its seed, goes on where a killed run of the same settings stopped, and writes weights,
``report.json`` and plots to a folder. What is trained and how is in `memedit.training`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from memedit.commands import show
from memedit.commands.session import Json
from memedit.errors import MissingExtra

Data = Annotated[
    Path, typer.Option("--data", exists=True, file_okay=False, metavar="DIR", help="Folder of public data files.")
]
Out = Annotated[
    Path, typer.Option("--out", file_okay=False, metavar="DIR", help="Folder for weights, report and plots.")
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start",
        exists=True,
        file_okay=False,
        metavar="DIR",
        help="Folder of weights to start from; else from scratch.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Makes the run repeatable.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 leaves it to PyTorch.")]
Bfloat16 = Annotated[
    bool, typer.Option("--bfloat16", help="Compute in bfloat16: faster where the processor has the instructions.")
]
Share = Annotated[
    float, typer.Option("--held-out", min=0.0, max=0.9, help="Share that is measured on and never trained on.")
]

train = typer.Typer(no_args_is_help=True, help="Train the planner, the scope classifier or the counterfactual model.")


@train.command()
def planner(
    data: Data,
    out: Out,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 2500,
    seed: Seed = 0,
    held_out: Share = 0.2,
    left_out: Annotated[
        list[str] | None, typer.Option("--left-out", metavar="ID", help="Relation to leave out; may be repeated.")
    ] = None,
    start: Start = None,
    rate: Annotated[
        float, typer.Option("--rate", help="Highest learning rate of the encoder; a fifth of the rest's.")
    ] = 2e-4,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    as_json: Json = False,
) -> None:
    """Train the planner: question to start entity and chain of relations."""
    _need_plots()
    from memedit.training.planner import TrainConfig
    from memedit.training.planner_run import train_planner

    config = TrainConfig(steps=steps, seed=seed, threads=threads, encoder_rate=rate, decoder_rate=5 * rate)
    report = train_planner(data, out, config=config, held_out=held_out, left_out=left_out or (), start=start)
    figures = ("subject_accuracy", "chain_accuracy", "chain_top5", "plan_accuracy", "expected_calibration_error")
    _tell(report, figures, out, as_json)


@train.command()
def scope(
    data: Data,
    out: Out,
    edits: Annotated[int, typer.Option("--edits", min=1, help="Edits drawn in all.")] = 50_000,
    seed: Seed = 0,
    held_out: Annotated[
        int, typer.Option("--held-out", min=1, help="Edits drawn to calibrate on, and as many to report on.")
    ] = 2_500,
    layers: Annotated[int, typer.Option("--layers", min=1, max=6, help="Layers of the network.")] = 4,
    mined: Annotated[int, typer.Option("--mined", min=0, help="Texts for which near facts are looked up.")] = 8_000,
    facts: Annotated[int, typer.Option("--facts", min=1, help="Facts they are looked up among.")] = 12_000,
    start: Start = None,
    threads: Threads = 0,
    bfloat16: Bfloat16 = False,
    as_json: Json = False,
) -> None:
    """Train the scope classifier: is a text about an edit?"""
    _need_plots()
    from memedit.training.scope import ScopeTraining, train_scope

    how = ScopeTraining(
        seed=seed, edits=edits, held_out=held_out, layers=layers, mined=mined, facts=facts, start=str(start or ""),
        threads=threads, bfloat16=bfloat16,
    )  # fmt: skip
    report = train_scope(data, out, how)
    _plot_scope(report, out)
    _tell(report, ("in_scope", "expected_calibration_error"), out, as_json)


@train.command()
def counterfactual(
    data: Data,
    out: Out,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")] = 600,
    seed: Seed = 0,
    held_out: Share = 0.2,
    start: Start = None,
    threads: Threads = 0,
    bfloat16: Bfloat16 = False,
    as_json: Json = False,
) -> None:
    """Train the counterfactual model: an adapter that answers from an edit what is not simply its object."""
    _need_plots()
    from memedit.training.counterfactual import AdapterTraining, train_counterfactual

    how = AdapterTraining(
        seed=seed, steps=steps, held_out=held_out, start=str(start or ""), threads=threads, bfloat16=bfloat16
    )
    _tell(train_counterfactual(data, out, how), ("before", "after"), out, as_json)


def _need_plots() -> None:
    """Fail before the training and not after it where its plots cannot be drawn."""
    from memedit.training.plots import plots_are_possible

    if not plots_are_possible():
        raise MissingExtra("matplotlib", "train")


def _plot_scope(report: Mapping[str, object], out: Path) -> None:
    from memedit.training.plots import plot_calibration, plot_losses

    losses, held_out = report["loss"], report["held_out"]
    assert isinstance(losses, list)
    assert isinstance(held_out, dict)
    texts = sum(held_out["counts"].values())
    plot_losses(out / "loss.png", {"in scope or not": losses}, unit="64 edits")
    bins = [(row["predicted"], row["observed"], row["share"] * texts) for row in held_out["calibration"]]
    plot_calibration(out / "calibration.png", bins)


def _tell(report: Mapping[str, object], figures: tuple[str, ...], out: Path, as_json: bool) -> None:
    """The figures of what was held out: as JSON with the report's place, or a line each."""
    held_out = report.get("held_out")
    found = {name: held_out[name] for name in figures} if isinstance(held_out, dict) else {}
    if as_json:
        show.emit({"out": str(out), "held_out": found})
        return
    for name, value in found.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        for kind, share in parts:
            show.say(f"{' '.join((name.replace('_', ' '), str(kind))).rstrip()}: {share:.4f}")
    show.say(f"Weights, report.json and plots are in {out}.")
