"""The command line that CounterFact, zsRE and KnowEdit share: options in, one JSON file, tables and a plot out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from memedit.evaluation.cases import Benchmark, Kind
from memedit.evaluation.environment import environment
from memedit.evaluation.figures import figures
from memedit.evaluation.opening import open_method
from memedit.evaluation.options import Options
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.report import plot_shares, read_result
from memedit.evaluation.run import run
from memedit.evaluation.runs import write_json
from memedit.evaluation.show import MEASURES, scorings, tables, title
from memedit.evaluation.terminal import add_run_options, edit_count, exit_code, need_files, positive, show, start_of


def measure(options: Options, base: RememberedModel, command: Sequence[str]) -> dict[str, object]:
    """Run a benchmark and write its result.

    Args:
        options: What to run.
        base: The unedited base model; what it said before is not asked again.
        command: The command line, for the result.

    Raises:
        MemEditError: The data, the options or the model are not as they should be; finished cases are kept.
    """
    where = environment(command)
    with open_method(options.model, options.strategy, base, options.demonstrations) as method:
        finished = run(options, method, base)
    result = {
        **options.config(),
        **figures(finished),
        "records": options.records.name,
        "cases_per_batch": options.cases_per_batch,
        **where,
    }
    write_json(options.json, result)
    return result


def load_base(model: str) -> RememberedModel:
    """The unedited base model of a spec.

    Raises:
        InvalidSpec, ModelError: There is no such model.
    """
    from memedit.models import load_model

    return RememberedModel(load_model(model))


def main(benchmark: Benchmark, argv: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line; the exit code."""
    command = sys.argv if argv is None else [f"benchmarks.{benchmark}", *argv]
    arguments = _parser(benchmark).parse_args(argv)

    def body() -> None:
        if arguments.report is None:
            options = _options(benchmark, arguments)
            result = measure(options, load_base(options.model), command)
        else:
            result = read_result(arguments.report, benchmark)
        show(tables(result), markdown=arguments.markdown)
        if arguments.plot is not None:
            plot_shares(arguments.plot, title(result), scorings(result), shown(result), note=str(result["command"]))

    return exit_code(body, resumes=True)


def shown(result: dict[str, object]) -> dict[str, str]:
    """The measures that a result has, with their names in words."""
    parts = [part for _, part in scorings(result)]
    return {name: words for name, words in MEASURES.items() if any(part.get(name) is not None for part in parts)}


def _parser(benchmark: Benchmark) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark}",
        description="Single-hop edits: success, paraphrases, locality, portability, cost.",
    )
    parser.add_argument("--data", type=Path, metavar="FILE", help=f"the file of {benchmark}")
    parser.add_argument(
        "--model", default="embedded", metavar="SPEC", help="embedded, hf:NAME_OR_PATH or a server's URL"
    )
    parser.add_argument(
        "--strategy",
        default="walk",
        metavar="NAME",
        help="a strategy (walk, serac, ike, mello, mello-structured, base) or rome, memit, ft (ft-l), ft-m, lora",
    )
    parser.add_argument(
        "--demonstrations", type=Path, metavar="FILE", help="JSON Lines that ike takes its demonstrations from"
    )
    parser.add_argument(
        "--edits",
        type=edit_count,
        default=1,
        metavar="1|N|all",
        help="edits that one memory holds (default: 1); more than there are cases: filled up from the file",
    )
    parser.add_argument(
        "--limit", type=positive, metavar="N", help="most cases asked, drawn by the seed (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draw and of the edits' order")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the result goes; records lie beside it")
    parser.add_argument("--edits-as", choices=("triples", "statements"), default="triples", help="how edits are given")
    parser.add_argument("--generated-only", action="store_true", help="no teacher forcing (for servers without scores)")
    parser.add_argument("--no-fluency", action="store_true", help="write no texts to measure fluency on")
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=get_args(Kind),
        metavar="KIND",
        help=f"ask these kinds of prompts only: {', '.join(get_args(Kind))}",
    )
    parser.add_argument("--attributes", action="store_true", help="ask CounterFact's attribute prompts too")
    parser.add_argument(
        "--scalability", action="store_true", help="with --edits all: edit success after the first 1, 10, 100 ... too"
    )
    add_run_options(parser, cases_per_batch=16)
    return parser


def _options(benchmark: Benchmark, arguments: argparse.Namespace) -> Options:
    need_files(arguments)
    return Options(
        benchmark=benchmark,
        data=arguments.data,
        json=arguments.json,
        model=arguments.model,
        strategy=arguments.strategy,
        demonstrations=arguments.demonstrations,
        edits=arguments.edits,
        limit=arguments.limit,
        seed=arguments.seed,
        edits_as=arguments.edits_as,
        teacher_forced=not arguments.generated_only,
        fluency=not arguments.no_fluency,
        attributes=arguments.attributes,
        kinds=arguments.kinds and tuple(arguments.kinds),
        scalability=arguments.scalability,
        start=start_of(arguments),
        cases_per_batch=arguments.cases_per_batch,
        workers=arguments.workers,
    )
