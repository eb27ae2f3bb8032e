"""How fast memedit is, with the target each figure has to meet.

    python -m benchmarks.speed [--facts 100000] [--json OUT] [--only NAME ...]

Fills a memory with made-up facts, then measures look-ups, writes, size, reopening, start-up and batched questions.
Most of the memory's vectors are blends of real ones (see `benchmarks.generated`), since embedding 200,000 texts takes
two cores ten minutes or more; ``--vectors embedded`` embeds every text. Everything that is timed with embedding embeds
its texts for real either way.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.speed_parts import PARTS
from benchmarks.speed_setup import Bench, Figure
from memedit.evaluation.environment import environment
from memedit.evaluation.report import Table, number

BENCHMARK = "speed"


def table(figures: Sequence[Figure], title: str = "Speed") -> Table:
    """The figures as a table."""
    rows = []
    for figure in figures:
        target = "" if figure.target is None else f"{'≥' if figure.at_least else '≤'} {number(figure.target)}"
        met = {None: "", True: "yes", False: "NO"}[figure.met]
        p99 = "" if figure.p99 is None else number(figure.p99)
        rows.append((figure.name, f"{number(figure.value)} {figure.unit}", p99, target, met))
    return Table(title, ("figure", "median", "p99", "target", "met"), tuple(rows))


def run(bench: Bench, names: Sequence[str]) -> list[Figure]:
    """Measure the parts named."""
    figures: list[Figure] = []
    for name in names:
        figures += PARTS[name](bench)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 whether or not the targets are met, which the JSON says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--facts", type=int, default=100_000, help="facts in the filled memory")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the figures")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some parts of {', '.join(PARTS)}")
    parser.add_argument("--vectors", choices=("blended", "embedded"), default="blended", help="of the filled memory")
    parser.add_argument("--folder", type=Path, help="keep the filled memory here, and use it again")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    where = environment(sys.argv)
    with (
        tempfile.TemporaryDirectory() as scratch,
        Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), transient=True) as progress,
    ):
        task = progress.add_task("", total=None)

        def status(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.facts, options.seed, options.vectors, folder, status)
        figures = run(bench, options.only or list(PARTS))
    table(figures).show()
    if options.json is not None:
        result = {
            "benchmark": BENCHMARK,
            "facts": options.facts,
            "vectors": options.vectors,
            "seed": options.seed,
            **where,
            "figures": [figure.to_dict() for figure in figures],
        }
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
