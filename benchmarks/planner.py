"""The planner benchmark: is the first plan of a multi-hop question its gold chain, from its gold start entity?

    python -m benchmarks.planner --data MQUAKE_FILE --json OUT [--limit N] [--seed S] [--planner FOLDER]

Every multi-hop question of the file is planned; the memory is empty, so nothing but the wording helps:

- ``chain_accuracy``: questions whose first plan is the gold chain of relation ids; ``chain_accuracy_top5``: among the first five;
- ``subject_accuracy``: questions whose first plan starts from the gold entity; ``plan_accuracy``: both together;
- ``by_hops``: the same four by the number of hops of the gold chain;
- ``expected_calibration_error``: of the first plan's confidence as a forecast of its being right;
- ``milliseconds_per_question``: the median of one question at a time; ``milliseconds_per_question_batched``: a 64th of the
  median of batches of 64.

The gold chain is that of the unedited facts: the questions were written for it, and the edits change objects, not relations.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.mquake_data import Problem, load
from memedit.evaluation.environment import environment, sha256
from memedit.evaluation.report import Table, percent, section
from memedit.evaluation.runs import write_json
from memedit.evaluation.terminal import exit_code, show
from memedit.memory.catalogue import Catalogue
from memedit.training.data import Case
from memedit.training.planner_report import Figures, Judged, judge, summarise

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView
    from memedit.planner import Planner

BENCHMARK = "planner"
BATCH = 64
_TIMED = 200
"""Most questions timed alone."""
_SHARES = {
    "subject": "subject_accuracy",
    "chain": "chain_accuracy",
    "top5": "chain_accuracy_top5",
    "plan": "plan_accuracy",
}


@dataclass(frozen=True, slots=True)
class Options:
    """What is run, and how.

    Attributes:
        data: The MQuAKE file.
        json: Where the result goes.
        limit: Only so many cases, drawn by seed; None takes all.
        seed: Seed of that draw and of the questions timed.
        planner: Folder of other weights than those that ship with the package.
    """

    data: Path
    json: Path
    limit: int | None = None
    seed: int = 0
    planner: Path | None = None


def run(options: Options) -> dict[str, object]:
    """Run the benchmark; the result, JSON-ready."""
    from memedit.memory.memory import EditMemory
    from memedit.planner_model import TrainedPlanner

    cases = read(options.data, options.limit, options.seed)
    catalogue = Catalogue.default()
    planner = TrainedPlanner(catalogue, options.planner)
    with EditMemory(":memory:", catalogue=catalogue, embed_on_write=False) as memory:
        view = memory.view()
        questions = [question for case in cases for question in case.questions]
        planner.plan([(question, view) for question in questions[:BATCH]])
        began = time.perf_counter()
        judged = judge(planner, cases, view, BATCH)
        found = summarise(judged, time.perf_counter() - began)
        some = random.Random(options.seed).sample(questions, min(_TIMED, len(questions)))
        spent = {
            "milliseconds_per_question": milliseconds(planner, view, some, 1),
            "milliseconds_per_question_batched": milliseconds(planner, view, questions, BATCH),
        }
    return {
        "benchmark": BENCHMARK,
        "data": str(options.data),
        "data_sha256": sha256(options.data),
        "planner": str(options.planner) if options.planner else "shipped",
        "seed": options.seed,
        "cases": len(cases),
        **figures(found),
        **spent,
        "failures": failures(judged),
    }


def read(path: Path, limit: int | None, seed: int) -> list[Case]:
    """The cases of a file as far as planning is concerned.

    Raises:
        BadDataFile: The file is missing, unreadable or in another format.
    """
    cases = [_case(problem) for problem in load(path)]
    return random.Random(seed).sample(cases, limit) if limit is not None and limit < len(cases) else cases


def figures(found: Figures) -> dict[str, object]:
    """The figures under the names of the result."""
    return {
        "questions": found.questions,
        "subject_accuracy": found.subject_accuracy,
        "chain_accuracy": found.chain_accuracy,
        "chain_accuracy_top5": found.chain_top5,
        "plan_accuracy": found.plan_accuracy,
        "by_hops": {
            str(hops): {_SHARES.get(name, name): value for name, value in shares.items()}
            for hops, shares in found.by_hops.items()
        },
        "by_relation": found.by_relation,
        "confusions": found.confusions,
        "hop_confusions": {str(gold): planned for gold, planned in found.hop_confusions.items()},
        "expected_calibration_error": found.expected_calibration_error,
        "reliability": found.reliability,
    }


def failures(judged: Sequence[Judged]) -> list[dict[str, object]]:
    """Every question whose first plan is wrong, with what is right and what was planned."""
    return [
        {
            "question": one.question,
            "gold": {"start": one.subject, "chain": one.chain},
            "got": {"start": one.first.start, "chain": one.first.relations, "confidence": one.first.confidence},
            "in_top5": any(plan.relations == one.chain for plan in one.plans[:5]),
        }
        for one in judged
        if not one.right
    ]


def milliseconds(planner: Planner, view: MemoryView, questions: Sequence[str], batch: int) -> float:
    """Median time of a batch of questions over their number, in milliseconds; a last batch that is not full is left out."""
    spent = []
    for at in range(0, max(1, len(questions) - batch + 1), batch):
        some = questions[at : at + batch]
        began = time.perf_counter()
        planner.plan([(question, view) for question in some])
        spent.append(1000 * (time.perf_counter() - began) / max(1, len(some)))
    return statistics.median(spent)


def tables(result: dict[str, object]) -> list[Table]:
    """The figures as tables."""
    groups = [(f"{hops} hops", section(section(result, "by_hops"), hops)) for hops in section(result, "by_hops")]
    columns = ("", "questions", "start entity, %", "chain first, %", "chain in top five, %", "both, %")
    rows = [
        (label, str(shares["questions"]), *(percent(shares, name, interval=False) for name in _SHARES.values()))
        for label, shares in [("all", result), *groups]
    ]
    speed = (
        ("expected calibration error", f"{result['expected_calibration_error']:.4f}"),
        ("milliseconds a question, alone", f"{result['milliseconds_per_question']:.1f}"),
        (f"milliseconds a question, {BATCH} at once", f"{result['milliseconds_per_question_batched']:.1f}"),
    )
    return [Table("Plans", columns, tuple(rows)), Table("Confidence and speed", ("", "value"), speed)]


def _case(problem: Problem) -> Case:
    chain = problem.gold.old_chain
    hops = tuple(hop.relation for hop in chain)
    return Case(problem.case.row, chain[0].subject if chain else "", hops, problem.case.questions, ())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; the exit code."""
    command = sys.argv if argv is None else ["benchmarks.planner", *argv]
    parser = argparse.ArgumentParser(prog="benchmarks.planner", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="MQuAKE file")
    parser.add_argument("--json", type=Path, required=True, help="where the result goes")
    parser.add_argument("--limit", type=int, help="only so many cases, drawn by seed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the cases drawn and of the questions timed")
    parser.add_argument("--planner", type=Path, help="folder of other weights than the shipped ones")
    options = Options(**vars(parser.parse_args(argv)))

    def body() -> None:
        result = run(options)
        write_json(options.json, result | environment(command))
        show(tables(result))

    return exit_code(body)


if __name__ == "__main__":
    sys.exit(main())
