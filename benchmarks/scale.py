"""How memedit behaves from a thousand facts to a million, with the targets it has to meet.

    python -m benchmarks.scale --facts 1000,10000,100000,1000000 --json OUT --plot OUT.png

For each size a memory is filled with facts whose vectors are given (`benchmarks.scale_facts` says what they are: the
first 20,000 are embedded for real, the others' vectors derived from those), then measured in processes of their own:
loading, opening, memory, slot and scope look-ups, look-ups while 100 facts a second are written, recall against comparing
with every vector, and how long readers wait while the index is made anew.

All times are of the wall clock; next to them stands the processor's time, which other programs on the machine disturb
less. A million facts need some 10 GB of disk, and most of an hour where nothing else runs on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.scale_facts import FactSource
from benchmarks.scale_parts import PARTS, Figures, Options, run
from memedit.evaluation.environment import environment
from memedit.evaluation.report import Table, number

BENCHMARK = "scale"
_DATA = Path(__file__).parents[2] / "shared" / "data" / "pararel" / "trex_lms_vocab"
_GB = 1e9


class Target(NamedTuple):
    """What one figure has to reach.

    Attributes:
        what: The figure in words.
        value: What was measured.
        limit: What is asked for.
        at_least: Whether more is better.
    """

    what: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def targets(sizes: dict[int, Figures]) -> list[Target]:
    """The targets that the sizes measured allow to judge: those of the largest, against smaller ones."""
    largest = max(sizes)
    figures = {name: float(value) for name, value in sizes[largest].items() if not isinstance(value, str)}
    found = [
        Target("resident memory, GB", figures["peak"] / _GB, 4.0),
        Target("recall of the right edit among five, of exact", figures["recall_of_right_edit"], 0.98, at_least=True),
        Target("first hit as by exact search", figures["top_one_as_exact"], 0.995, at_least=True),
        Target("open and search, s", figures["open_and_search"], 20.0),
        Target(
            "p99 over median while writing", figures["scope_while_writing_p99"] / figures["scope_while_writing"], 3.0
        ),
        Target("bulk load, facts/s", figures["load_rate"], 10_000, at_least=True),
    ]
    if "swap_pause" in figures:
        found.append(Target("longest search around a swap, ms", 1e3 * figures["longest_search_around_swap"], 50.0))
    for smaller, name, limit in ((10_000, "scope", 1.5), (1_000, "slot", 1.5)):
        if smaller in sizes and smaller < largest:
            found.append(
                Target(f"{name} look-up over that at {smaller:,}", figures[name] / float(sizes[smaller][name]), limit)
            )
    return found


def tables(sizes: dict[int, Figures]) -> list[Table]:
    """The figures by size, and the targets."""
    names = list(dict.fromkeys(name for figures in sizes.values() for name in figures))
    rows = []
    for name in names:
        cells = (figures.get(name, "") for figures in sizes.values())
        rows.append((name, *(cell if isinstance(cell, str) else number(cell) for cell in cells)))
    judged = [
        (
            target.what,
            number(target.value),
            f"{'≥' if target.at_least else '≤'} {target.limit:g}",
            "yes" if target.met else "NO",
        )
        for target in targets(sizes)
    ]
    return [
        Table("Scale (seconds, bytes)", ("figure", *(f"{size:,}" for size in sizes)), tuple(rows)),
        Table(f"Targets at {max(sizes):,} facts", ("target", "measured", "asked", "met"), tuple(judged)),
    ]


def plot(sizes: dict[int, Figures], file: Path) -> None:
    """Draw the figures over the sizes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels: dict[str, tuple[dict[str, str], float]] = {
        "Look-ups (ms)": (
            {"scope": "scope", "embedding": "of that, embedding", "scope_while_writing": "scope while writing",
             "scope_while_writing_p99": "its p99"},
            1e3,
        ),
        "Slot look-up (µs)": ({"slot": "median", "slot_p99": "p99"}, 1e6),
        "Resident memory (GB)": ({"resident": "searching", "peak": "peak", "resident_before_opening": "empty process"}, 1e-9),
        "Opening (s)": ({"open": "open, one slot", "open_and_search": "and search"}, 1.0),
        "Found, as by exact search": (
            {"recall_of_right_edit": "right edit among five", "top_one_as_exact": "first hit", "top_five_as_exact": "first five"},
            1.0,
        ),
        "Index made anew (s)": ({"index_build": "filling", "retrain": "in the background", "swap_pause": "readers kept out"}, 1.0),
    }  # fmt: skip
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    for axis, (title, (lines, scale)) in zip(axes.flat, panels.items(), strict=True):
        for name, label in lines.items():
            points = [(size, scale * float(figures[name])) for size, figures in sizes.items() if name in figures]
            axis.plot(*zip(*points, strict=True), marker="o", label=label) if points else None
        axis.set(title=title, xlabel="facts", xscale="log")
        if "Found" not in title:
            axis.set_ylim(bottom=0)
        if "anew" in title:
            axis.set_yscale("symlog", linthresh=1e-4)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 whether or not the targets are met, which the JSON says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("--facts", default="1000,10000,100000,1000000", help="sizes, separated by commas")
    parser.add_argument("--data", type=Path, default=_DATA, help="ParaRel's triples")
    parser.add_argument("--folder", type=Path, help="keep memories and embeddings here, and use them again")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the figures")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="where to draw them (a PNG)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="some parts only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)

    data = FactSource(options.data).sha256()
    sizes: dict[int, Figures] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        chosen = Options(0, str(options.data), str(folder), options.seed)
        for size in sorted({int(size) for size in options.facts.split(",")}):
            sizes[size] = {}
            for part in options.only:
                print(f"{size:,} facts: {part}", file=sys.stderr, flush=True)
                sizes[size] |= run(part, replace(chosen, facts=size))
                if options.json is not None:
                    _write(options.json, sizes, data, options.seed, complete=len(options.only) == len(PARTS))
    if len(options.only) == len(PARTS):
        for table in tables(sizes):
            table.show()
    if options.plot is not None:
        plot(sizes, options.plot)
    return 0


def _write(file: Path, sizes: dict[int, Figures], data: str, seed: int, *, complete: bool) -> None:
    """Write what there is so far: a long run that is stopped leaves what it has measured."""
    result = {
        "benchmark": BENCHMARK,
        "seed": seed,
        "data_digest": data,
        **environment(sys.argv),
        "sizes": {str(size): figures for size, figures in sizes.items()},
    }
    whole = {size: figures for size, figures in sizes.items() if "swap_pause" in figures}
    if complete and whole:
        result["targets"] = [target._asdict() | {"met": target.met} for target in targets(whole)]
    file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
