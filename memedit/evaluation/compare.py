"""A grid of runs: every strategy with every number of edits, one result a cell, and one report over all of them.

A cell whose result is there already is not run again; one that was cut off goes on. The report is made from the results alone.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memedit.errors import BadDataFile, InvalidSpec, MissingExtra
from memedit.evaluation.cases import EditsAs, load, sniff
from memedit.evaluation.command import load_base, measure
from memedit.evaluation.environment import environment
from memedit.evaluation.opening import check_strategy
from memedit.evaluation.options import Options
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.report import Figures, Table, number, percent, section
from memedit.evaluation.runs import write_json
from memedit.evaluation.show import FLUENCY, MEASURES, PHASES, WORDS, peak_memory
from memedit.strategies import with_demonstrations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

BENCHMARK = "compare"
KNOWN = "portability, the rest known"
"""Heads the portability of questions whose other fact the base model knows when asked alone."""
COSTS = {
    "seconds_per_edit": "seconds an edit",
    "seconds_per_question": "seconds a question",
    "model_calls_per_question": "model calls a question",
    "prompt_tokens_per_question": "prompt tokens a question",
}


@dataclass(frozen=True, slots=True)
class Grid:
    """What is compared.

    Attributes:
        data: The benchmark's file.
        out: The folder of results and report.
        strategies: Strategies and parametric methods, in the report's order.
        edits: Edits that one memory holds, for each run; None for all.
        template: The options that all runs share.
    """

    data: Path
    out: Path
    strategies: tuple[str, ...]
    edits: tuple[int | None, ...]
    template: Options

    def cells(self, cases: int, rows: int) -> list[Options]:
        """The runs, each once, given how many cases are asked and how many rows there are to edit."""
        capped = [cases if size is None else min(size, max(rows, 1)) for size in self.edits]
        sizes = dict.fromkeys(None if size == cases > 1 else size for size in capped)
        return [
            replace(
                self.template,
                strategy=strategy,
                demonstrations=self.template.demonstrations if strategy == "ike" else None,
                edits=size,
                json=self.out / f"{strategy}-{size or 'all'}.json",
            )
            for size in sizes
            for strategy in self.strategies
        ]


def make_grid(
    data: Path,
    out: Path,
    *,
    strategies: Sequence[str],
    edits: Sequence[int | None],
    model: str = "embedded",
    demonstrations: Path | None = None,
    edits_as: EditsAs = "triples",
    limit: int | None = None,
    seed: int = 0,
    teacher_forced: bool = True,
    fluency: bool = True,
) -> Grid:
    """The grid of runs over a file.

    Raises:
        BadDataFile: The file is none of a single-hop benchmark.
        InvalidSpec: There is no strategy, or there are demonstrations and no strategy that takes them.
        BadRow: The demonstrations are not as they should be.
    """
    if not strategies:
        raise InvalidSpec("There is nothing to compare.", "Name strategies, such as --strategies base,walk.")
    if demonstrations is not None and "ike" not in strategies:
        raise InvalidSpec("No strategy here takes demonstrations.", "Leave out --demonstrations, or compare ike too.")
    with_demonstrations("ike", demonstrations)
    template = Options(
        sniff(data),
        data,
        out / "cell.json",
        model,
        demonstrations=demonstrations,
        edits_as=edits_as,
        limit=limit,
        seed=seed,
        teacher_forced=teacher_forced,
        fluency=fluency,
    )
    return Grid(data, out, tuple(dict.fromkeys(strategies)), tuple(edits), template)


def compare(
    grid: Grid,
    *,
    command: Sequence[str] | None = None,
    fresh: bool = False,
    load_model: Callable[[str], RememberedModel] = load_base,
) -> dict[str, object]:
    """Run what is missing of a grid and write its report: ``report.json``, ``report.md`` and the plots beside it.

    Args:
        grid: What to compare.
        command: The command line, for the report; by default this process's.
        fresh: Whether to run every cell anew.
        load_model: Loads the base model, when the first cell needs it.

    Raises:
        MemEditError: The data, a name or the model is not as it should be; finished cases are kept.
    """
    words = list(sys.argv if command is None else command)
    where = environment(words)
    if "weights" in [check_strategy(strategy) for strategy in grid.strategies]:
        from memedit.parametric.model import check_reach

        check_reach(grid.template.model)
    rows = len(load(grid.data, grid.template.benchmark))
    cases = rows if grid.template.limit is None else min(grid.template.limit, rows)
    cells = grid.cells(cases, rows)
    results: list[dict[str, object]] = []
    base: RememberedModel | None = None
    for options in cells:
        result = None if fresh else _finished(options)
        if result is None:
            base = base or load_model(options.model)
            options.json.parent.mkdir(parents=True, exist_ok=True)
            result = measure(replace(options, start="fresh" if fresh else "auto"), base, words)
        results.append(result)
    report: dict[str, object] = {
        "benchmark": BENCHMARK,
        **{name: value for name, value in grid.template.config().items() if name not in _OF_A_CELL},
        "compared": grid.template.benchmark,
        "data_path": str(grid.data),
        "demonstrations_path": str(grid.template.demonstrations or ""),
        "cases": cases,
        "cells": [{**result, "file": options.json.name} for options, result in zip(cells, results, strict=True)],
        **where,
    }
    write_json(grid.out / "report.json", report)
    write_report(report, grid.out)
    return report


_OF_A_CELL = ("benchmark", "strategy", "edits_per_memory")


def _finished(options: Options) -> dict[str, object] | None:
    """The result of a cell that was run before, with the same options on the same data; None where there is none."""
    if not options.json.is_file():
        return None
    try:
        result = json.loads(options.json.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadDataFile(f"{options.json}: is not JSON ({error}).", "Give another folder, or --fresh.") from error
    wanted = json.loads(json.dumps(options.config()))
    if not isinstance(result, dict) or any(result.get(name) != value for name, value in wanted.items()):
        raise BadDataFile(
            f"{options.json}: is the result of another comparison.", "Give another folder, or --fresh to run it anew."
        )
    return result


# -- the report ------------------------------------------------------------------------------------------------


def tables(report: Figures) -> list[Table]:
    """The report as tables: each scoring's measures and the loss from the fewest edits to the most; costs."""
    cells = _cells(report)
    made = [_measures(cells, scoring) for scoring in WORDS if any(section(cell, scoring) for cell in cells)]
    rows = [
        (
            *_name(cell),
            *(number(section(cell, "cost").get(name)) for name in COSTS),
            number(section(cell, "fluency").get("entropy_bits")),
            *(peak_memory(section(cell, "cost"), phase) for phase in PHASES),
        )
        for cell in cells
    ]
    peaks = (f"{words}, MiB" for words in PHASES.values())
    made.append(
        Table(
            "Cost and fluency (memory and seconds: of a process that keeps what earlier cells loaded)",
            ("strategy", "edits", *COSTS.values(), FLUENCY, *peaks),
            tuple(rows),
        )
    )
    return made


def _measures(cells: Sequence[Figures], scoring: str) -> Table:
    names = [name for name in MEASURES if any(section(cell, scoring).get(name) is not None for cell in cells)]
    known = any(section(section(cell, scoring), "portability_known").get("prompts") for cell in cells)
    rows = []
    for cell in cells:
        part = section(cell, scoring)
        first = min((other for other in cells if other["strategy"] == cell["strategy"]), key=_place)
        shares = [percent(part, name) for name in names] + ([_known(part)] if known else [])
        rows.append((*_name(cell), *shares, _loss(section(first, scoring), part)))
    heads = ("strategy", "edits", *(MEASURES[name] for name in names), *([KNOWN] if known else []), "loss of ES")
    return Table(f"{WORDS[scoring].capitalize()} (%, 95% interval)", heads, tuple(rows))


def _known(part: Figures) -> str:
    figure = section(part, "portability_known")
    return f"{percent(figure, 'value', interval=False)} of {number(figure.get('prompts'))}"


def _loss(first: Figures, part: Figures) -> str:
    """What edit success lost since the strategy's fewest edits, in points."""
    before, now = first.get("edit_success"), part.get("edit_success")
    if not isinstance(before, int | float) or not isinstance(now, int | float):
        return "–"
    return f"{100 * (before - now):.1f}"


def _made(cell: Figures) -> str:
    """When and with which code a cell was measured: a grid that went on later may be of several."""
    return f"{cell['started_at']}, commit {str(cell['commit'])[:10]}, load {cell.get('load_average', '–')}"


def _name(cell: Figures) -> tuple[str, str]:
    size = cell["edits_per_memory"]
    return str(cell["strategy"]), f"all {cell['edits']}" if size == "all" else str(size)


def _cells(report: Figures) -> list[Mapping[str, object]]:
    cells = report["cells"]
    return [cell for cell in cells if isinstance(cell, Mapping)] if isinstance(cells, Sequence) else []


def write_report(report: Figures, out: Path) -> None:
    """Write ``report.md`` and, where matplotlib is installed, ``accuracy.png`` and ``cost.png``, from a report alone."""
    versions = section(report, "versions")
    paths = (str(report["data_path"]), str(report["demonstrations_path"]))
    lines = [f"# {report['compared']}: {report['data']}, {report['cases']} cases, {report['model']}", ""]
    lines += [table.markdown() for table in tables(report)]
    try:
        _plot(report, out)
        lines += ["![Accuracy](accuracy.png)", "", "![Cost](cost.png)", ""]
    except MissingExtra as error:
        lines += [f"No plots: {error}", ""]
    lines += [
        f"- command: `{report['command']}`",
        *(f"- {cell['file']}, {_made(cell)}: `{cell_command(cell, *paths, folder=out)}`" for cell in _cells(report)),
        f"- machine: {report['cpu']}, {report['cores']} cores, {report['memory_gib']} GiB, {report['platform']}",
        f"- versions: python {report['python']}, {', '.join(f'{name} {value}' for name, value in versions.items())}",
        f"- commit: {report['commit']}; started {report['started_at']}; data SHA-256 {report['data_sha256']}",
    ]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cell_command(cell: Figures, data: str, demonstrations: str = "", *, folder: Path = Path()) -> str:
    """The command that measures one cell alone, given where its data, its demonstrations and its result lie."""
    words = [
        "python",
        "-m",
        f"benchmarks.{cell['benchmark']}",
        "--data",
        data,
        "--model",
        str(cell["model"]),
    ]
    words += ["--strategy", str(cell["strategy"]), "--edits", str(cell["edits_per_memory"])]
    words += [] if cell["limit"] is None else ["--limit", str(cell["limit"])]
    words += ["--seed", str(cell["seed"]), "--json", str(folder / str(cell["file"]))]
    words += [] if cell["edits_as"] == "triples" else ["--edits-as", str(cell["edits_as"])]
    words += [] if cell.get("demonstrations") is None else ["--demonstrations", demonstrations]
    words += [] if section(cell, "teacher_forced") else ["--generated-only"]
    words += [] if cell["fluency_measured"] else ["--no-fluency"]
    return shlex.join(words)


def _plot(report: Figures, out: Path) -> None:
    """Accuracy and cost against the number of edits, a line a strategy."""
    cells = _cells(report)
    scored = [scoring for scoring in WORDS if any(section(cell, scoring) for cell in cells)]
    accuracy = {
        f"{words}\n{WORDS[scoring]} (%)": [
            _Point(_place(cell), section(cell, scoring).get(name), cell) for cell in cells
        ]
        for name, words in MEASURES.items()
        for scoring in scored
        if any(section(cell, one).get(name) is not None for cell in cells for one in scored)
    }
    _lines(out / "accuracy.png", accuracy, columns=len(scored), shares=True)
    cost = {
        words: [_Point(_place(cell), section(cell, "cost").get(name), cell) for cell in cells]
        for name, words in COSTS.items()
    }
    _lines(out / "cost.png", cost, columns=2)


class _Point(NamedTuple):
    edits: int
    value: object
    cell: Figures


def _place(cell: Figures) -> int:
    size, edits = cell["edits_per_memory"], cell["edits"]
    return size if isinstance(size, int) else edits if isinstance(edits, int) else 1


def _lines(path: Path, panels: Mapping[str, Sequence[_Point]], *, columns: int, shares: bool = False) -> None:
    """Draw panels of lines over the number of edits; `shares` are in [0, 1] and drawn in percent."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("matplotlib", "bench") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4.2 * columns, 2.4 * rows), layout="constrained", squeeze=False)
    handles: dict[str, Line2D] = {}
    for axes, (words, points) in zip(grid.flat, panels.items(), strict=False):
        axes.set_title(words, fontsize=8, loc="left")
        handles |= _panel(axes, points, shares=shares)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("edits in memory", fontsize=8)
    figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=8, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(axes: Axes, points: Sequence[_Point], *, shares: bool) -> dict[str, Line2D]:
    """Draw one panel; its lines by strategy."""
    known = [(one, (100 if shares else 1) * one.value) for one in points if isinstance(one.value, int | float)]
    lines = {}
    for place, strategy in enumerate(dict.fromkeys(str(one.cell["strategy"]) for one in points)):
        own = sorted((one.edits, value) for one, value in known if one.cell["strategy"] == strategy)
        # Lines often coincide: each has a marker of its own, and the later ones are smaller.
        marker, size = _MARKERS[place % len(_MARKERS)], max(3, 8 - 0.6 * place)
        edits, values = [edits for edits, _ in own], [value for _, value in own]
        [lines[strategy]] = axes.plot(edits, values, marker=marker, ms=size, lw=1.2, alpha=0.85)
    ticks = sorted({one.edits for one in points})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks], fontsize=7)
    axes.set_xticks([], minor=True)
    axes.tick_params(axis="y", labelsize=7)
    axes.grid(alpha=0.3)
    drawn = [value for _, value in known]
    if shares:
        axes.set_ylim(-4, 104)
    elif drawn and min(drawn) > 0 and max(drawn) > _FAR * min(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    return lines


_MARKERS = "osD^vPX*"
_FAR = 20
"""From which ratio of the largest to the smallest cost on its axis is logarithmic."""
