"""Tables and plots made from a benchmark's JSON alone, in the terminal, in Markdown and as PNG.

Knows nothing of any one benchmark: each says which figures stand in which table, and this draws them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from memedit.errors import BadDataFile, MissingExtra

Figures = Mapping[str, object]
"""A JSON object of a result: figures by name, their intervals by the same names under ``intervals``."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text.

    Attributes:
        title: What it shows.
        columns: Heads of the columns; the first column names the rows.
        rows: As many cells each as there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in GitHub's Markdown, figures to the right."""
        rule = ("---", *("---:" for _ in self.columns[1:]))
        lines = ("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in (self.columns, rule, *self.rows))
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n"

    def show(self) -> None:
        """Print the table to standard output."""
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if index else "left")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        console = Console()
        if not console.is_terminal:
            unlimited = console.options.update(width=1000)
            console.width = max(console.width, console.measure(table, options=unlimited).maximum)
        console.print(table)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def read_result(path: str | Path, benchmark: str) -> dict[str, object]:
    """Read the JSON that a benchmark wrote.

    Args:
        path: The file.
        benchmark: Which benchmark's it must be, as under its key ``benchmark``.

    Raises:
        BadDataFile: The file is missing, is no JSON, or is not that benchmark's.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadDataFile(
            f"{path}: cannot be read ({error.strerror}).", "Give the --json of a finished run."
        ) from error
    except ValueError as error:
        raise BadDataFile(f"{path}: is not JSON ({error}).", "Give the --json of a finished run.") from error
    if not isinstance(result, dict) or result.get("benchmark") != benchmark:
        raise BadDataFile(
            f"{path}: is not a result of the benchmark {benchmark!r}.", "Give the --json of a finished run."
        )
    return result


def percent(figures: Figures, name: str, *, interval: bool = True) -> str:
    """A share as a percentage with its 95% interval, e.g. "97.3 [95.1, 98.6]"; a dash where nothing was counted."""
    value = figures.get(name)
    if not isinstance(value, int | float):
        return "–"
    bounds = _bounds(figures, name) if interval else None
    return f"{100 * value:.1f}" + (f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]" if bounds else "")


def number(value: object) -> str:
    """A count or a measure as text: integers grouped by thousands, others to three figures; a dash for None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def section(result: Figures, name: str) -> dict[str, object]:
    """The object under `name`; empty where the result has none."""
    value = result.get(name)
    return dict(value) if isinstance(value, Mapping) else {}


def named_sections(result: Figures, name: str, label: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects in the object under `name`, each labelled ``label.format(key)``."""
    parts = section(result, name)
    for key in parts:
        yield label.format(key), section(parts, key)


def plot_shares(
    path: str | Path, title: str, groups: Sequence[tuple[str, Figures]], series: Mapping[str, str], note: str = ""
) -> None:
    """Draw shares as grouped bars with their 95% intervals.

    Args:
        path: The image to write; its ending says the format.
        title: Title of the plot.
        groups: Label and figures of each group of bars, left to right.
        series: For each bar of a group the figure's name and its label in the legend.
        note: A line under the plot, e.g. the command.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingExtra("matplotlib", "bench") from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(max(6.4, 1.0 * len(groups) + 2), 4.8), layout="constrained")
    width = 0.8 / len(series)
    for index, (name, label) in enumerate(series.items()):
        places = [place + (index - (len(series) - 1) / 2) * width for place in range(len(groups))]
        values = [100 * _share(figures, name) for _, figures in groups]
        bounds = [
            _bounds(figures, name) or (value / 100,) * 2 for (_, figures), value in zip(groups, values, strict=True)
        ]
        errors = [
            [max(0.0, value - 100 * low) for value, (low, _) in zip(values, bounds, strict=True)],
            [max(0.0, 100 * high - value) for value, (_, high) in zip(values, bounds, strict=True)],
        ]
        axes.bar(places, values, width, yerr=errors, label=label, capsize=2, error_kw={"linewidth": 0.8})
    axes.set_xticks(range(len(groups)), [fill(label, 12) for label, _ in groups])
    axes.set_ylim(0, 105)
    axes.set_ylabel("% right (95% interval)")
    axes.set_title(title, loc="left")
    figure.legend(loc="outside upper right", ncols=len(series), fontsize=8)
    if note:
        figure.supxlabel(note, fontsize=7, wrap=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _share(figures: Figures, name: str) -> float:
    value = figures.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _bounds(figures: Figures, name: str) -> tuple[float, float] | None:
    bounds = section(figures, "intervals").get(name)
    if not isinstance(bounds, Sequence) or isinstance(bounds, str) or len(bounds) != 2:
        return None
    return float(bounds[0]), float(bounds[1])
