r"""MQuAKE: do edits reach the multi-hop questions that depend on them? (Zhong et al. 2023, arXiv:2305.14795)

    python -m benchmarks.mquake --data FILE --model SPEC --strategy walk --edits-per-memory 1|100|1000|all \
        --limit N --seed S --json OUT
    python -m benchmarks.mquake --report OUT [--plot PNG]

An example problem:

    edits      The author of The Salt Road is Mirela Toma.    Mirela Toma is a citizen of Peru.
    question   What is the capital of the country that the author of The Salt Road is a citizen of?
               (the same in two other wordings)
    chain      The Salt Road --author--> Mirela Toma --country of citizenship--> Peru --capital--> Lima
    answer     Lima

Two of the three hops are edited; that Lima is the capital of Peru must come from the base model.

The runtime is given a case's edits and its questions (`Case`) and nothing else; the answer, its aliases, the single
hops and the chains (`Gold`) meet the answers in `benchmarks.mquake_figures`, after they are recorded.

``--edits-per-memory N``: cases are shuffled by the seed and taken N at a time, and each sees the edits of its own N
cases and no others. All edits are written, and embedded, once; a group is a masked view of them. Edits of a later case
supersede those of an earlier one in the same group, as in any memory.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mquake_figures import BARS, groups, tables, title
from benchmarks.mquake_run import BENCHMARK, Options, run
from memedit.errors import InvalidSpec
from memedit.evaluation.environment import environment
from memedit.evaluation.report import plot_shares, read_result
from memedit.evaluation.runs import write_json
from memedit.evaluation.terminal import add_run_options, edit_count, exit_code, need_files, positive, show, start_of

if TYPE_CHECKING:
    from memedit.editor import MemEditor


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; the exit code."""
    command = sys.argv if argv is None else ["benchmarks.mquake", *argv]
    arguments = _parser().parse_args(argv)

    def body() -> None:
        if arguments.report is None:
            options = _options(arguments)
            with open_editor(options) as editor:
                result = run(options, editor)
            result |= environment(command)
            write_json(options.json, result)
        else:
            result = read_result(arguments.report, BENCHMARK)
        show(tables(result), markdown=arguments.markdown)
        if arguments.plot is not None:
            plot_shares(arguments.plot, title(result), groups(result), BARS, note=str(result["command"]))

    return exit_code(body, resumes=True)


@contextmanager
def open_editor(options: Options) -> Iterator[MemEditor]:
    """The editor under test, over an empty memory that embeds all edits in one batch."""
    from memedit.editor import MemEditor
    from memedit.memory.memory import EditMemory

    with (
        EditMemory(embed_on_write=False) as memory,
        MemEditor(options.model, memory, strategy=options.strategy) as editor,
    ):
        yield editor


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mquake", description="MQuAKE: multi-hop questions after knowledge edits."
    )
    parser.add_argument("--data", type=Path, help="official MQuAKE file (CF, CF-3k, CF-3k-v2, T, hard, Remastered)")
    parser.add_argument("--model", default="embedded", help="embedded, hf:NAME_OR_PATH or http://host:port/v1")
    parser.add_argument("--strategy", default="walk", help="how questions are answered (default: walk)")
    parser.add_argument(
        "--edits-per-memory",
        type=edit_count,
        default=1,
        metavar="1|100|1000|all",
        help="cases whose edits one memory holds (default: 1)",
    )
    parser.add_argument("--limit", type=positive, help="most cases in memory, drawn by the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw and of the grouping (default: 0)")
    parser.add_argument("--json", type=Path, help="where the result goes; records of finished cases lie beside it")
    parser.add_argument("--edits-as", choices=("triples", "statements"), default="triples", help="how edits are given")
    parser.add_argument(
        "--left-out", type=int, default=0, metavar="N", help="ask N more cases whose edits are not in the memory"
    )
    parser.add_argument(
        "--ask-beliefs", action="store_true", help="also ask the base model every unedited hop of a chain alone"
    )
    add_run_options(parser, cases_per_batch=256)
    return parser


def _options(arguments: argparse.Namespace) -> Options:
    need_files(arguments)
    if arguments.left_out < 0:
        raise InvalidSpec(f"--left-out {arguments.left_out} is below 0.", "Give the number of cases to leave out.")
    return Options(
        data=arguments.data,
        json=arguments.json,
        model=arguments.model,
        strategy=arguments.strategy,
        edits_per_memory=arguments.edits_per_memory,
        limit=arguments.limit,
        seed=arguments.seed,
        edits_as=arguments.edits_as,
        left_out=arguments.left_out,
        ask_beliefs=arguments.ask_beliefs,
        start=start_of(arguments),
        cases_per_batch=arguments.cases_per_batch,
        workers=arguments.workers,
    )


if __name__ == "__main__":
    sys.exit(main())
