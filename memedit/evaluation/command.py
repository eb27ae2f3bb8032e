"""The command line that CounterFact, zsRE and KnowEdit share: options in, one JSON file, tables and a plot out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from memedit.errors import InvalidSpec, MemEditError
from memedit.evaluation.cases import Benchmark
from memedit.evaluation.environment import environment
from memedit.evaluation.figures import figures
from memedit.evaluation.method import open_method
from memedit.evaluation.options import Options
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.report import plot_shares, read_result
from memedit.evaluation.run import run
from memedit.evaluation.runs import write_json
from memedit.evaluation.show import MEASURES, scorings, tables, title


def measure(options: Options, base: RememberedModel, command: Sequence[str]) -> dict[str, object]:
    """Run a benchmark and write its result.

    Args:
        options: What to run.
        base: The unedited base model; what it said before is not asked again.
        command: The command line, for the result.

    Raises:
        MemEditError: The data, the options or the model are not as they should be; finished cases are kept.
    """
    with open_method(options.model, options.strategy, base, options.demonstrations) as method:
        finished = run(options, method, base)
    result = {
        **options.config(),
        **figures(finished),
        "records": options.records.name,
        **environment(command),
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
    try:
        if arguments.report is None:
            options = _options(benchmark, arguments)
            result = measure(options, load_base(options.model), command)
        else:
            result = read_result(arguments.report, benchmark)
        for table in tables(result):
            if arguments.markdown:
                print(table.markdown())
            else:
                table.show()
        if arguments.plot is not None:
            plot_shares(arguments.plot, title(result), scorings(result), shown(result), note=str(result["command"]))
    except MemEditError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def shown(result: dict[str, object]) -> dict[str, str]:
    """The measures that a result has, with their names in words."""
    parts = [part for _, part in scorings(result)]
    return {name: words for name, words in MEASURES.items() if any(part.get(name) is not None for part in parts)}


def positive(text: str) -> int:
    """A whole number above 0.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def edit_count(text: str) -> int | None:
    """A number of edits, or ``all``, which is None.

    >>> edit_count("all"), edit_count("100")
    (None, 100)

    Raises:
        argparse.ArgumentTypeError: It is neither.
    """
    return None if text == "all" else positive(text)


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
        "--edits", type=edit_count, default=1, metavar="1|N|all", help="edits that one memory holds (default: 1)"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="most cases, drawn by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draw and of the edits' order")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where the result goes; records lie beside it")
    parser.add_argument("--edits-as", choices=("triples", "statements"), default="triples", help="how edits are given")
    parser.add_argument("--generated-only", action="store_true", help="no teacher forcing (for servers without scores)")
    parser.add_argument("--no-fluency", action="store_true", help="write no texts to measure fluency on")
    parser.add_argument("--attributes", action="store_true", help="ask CounterFact's attribute prompts too")
    parser.add_argument(
        "--scalability", action="store_true", help="with --edits all: edit success after the first 1, 10, 100 ... too"
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with the run beside --json, or fail")
    again.add_argument("--fresh", action="store_true", help="discard the run beside --json")
    parser.add_argument("--cases-per-batch", type=positive, default=16, metavar="N", help="cases answered side by side")
    parser.add_argument("--report", type=Path, metavar="JSON", help="run nothing: show the result of an earlier run")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw the result")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    return parser


def _options(benchmark: Benchmark, arguments: argparse.Namespace) -> Options:
    if arguments.data is None or arguments.json is None:
        raise InvalidSpec("--data and --json are needed.", "Give both, or --report JSON to show an earlier run.")
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
        scalability=arguments.scalability,
        start="fresh" if arguments.fresh else "resume" if arguments.resume else "auto",
        cases_per_batch=arguments.cases_per_batch,
    )
