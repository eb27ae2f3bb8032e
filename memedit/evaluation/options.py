"""What a single-hop run is: its options, and its cases each in the memory it is asked in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memedit.evaluation.cases import Benchmark, EditsAs, Expected, Kind, Problem, Question
from memedit.evaluation.environment import sha256
from memedit.evaluation.method import Span
from memedit.evaluation.runs import Start


@dataclass(frozen=True, slots=True)
class Options:
    """What is run, and how.

    Attributes:
        benchmark: Which benchmark.
        data: Its file.
        json: Where the result goes; the records go to ``<json>.cases.jsonl``.
        model: Base model, as `MemEditor` takes it.
        strategy: Name of the strategy or of the parametric method.
        demonstrations: The file that `ike` takes its demonstrations from, or None for those that ship.
        edits: Edits that one memory holds, or None for those of all cases. Where it is more than there are cases, further
            rows of the file fill the memory up.
        limit: Most cases that are asked, drawn by the seed; None for all.
        seed: Seed of the draw, of the order of the edits and of the grouping.
        edits_as: Edits are given as triples where the file has them, or as plain sentences only.
        teacher_forced: Whether to score what is expected; needs a model that tells probabilities.
        fluency: Whether to have the model write, and measure that.
        attributes: Whether to ask CounterFact's attribute prompts too.
        kinds: The kinds of prompts that are asked; None for all.
        scalability: Whether to ask each edit's prompt also with the first 1, 10, 100 ... edits alone, and with only its own.
        start: What to do with a run that is already there.
        cases_per_batch: Cases answered side by side.
        workers: Workers of a Ray cluster to answer with, 0 for one a core; None to answer in this process.
    """

    benchmark: Benchmark
    data: Path
    json: Path
    model: str = "embedded"
    strategy: str = "walk"
    demonstrations: Path | None = None
    edits: int | None = 1
    limit: int | None = None
    seed: int = 0
    edits_as: EditsAs = "triples"
    teacher_forced: bool = True
    fluency: bool = True
    attributes: bool = False
    kinds: tuple[Kind, ...] | None = None
    scalability: bool = False
    start: Start = "auto"
    cases_per_batch: int = 16
    workers: int | None = None

    def config(self) -> dict[str, object]:
        """What makes two runs comparable, so that one may go on where the other ended."""
        return {
            "benchmark": self.benchmark,
            "data": self.data.name,
            "data_sha256": sha256(self.data),
            "model": self.model,
            "strategy": self.strategy,
            "demonstrations": self.demonstrations and self.demonstrations.name,
            "demonstrations_sha256": self.demonstrations and sha256(self.demonstrations),
            "edits_per_memory": self.edits or "all",
            "limit": self.limit,
            "seed": self.seed,
            "edits_as": self.edits_as,
            "scorings": ["teacher_forced", "generated"] if self.teacher_forced else ["generated"],
            "fluency_measured": self.fluency,
            "attributes_asked": self.attributes,
            "kinds": self.kinds,
            "scalability_measured": self.scalability,
        }

    @property
    def records(self) -> Path:
        """Where the records of finished cases lie."""
        return self.json.with_name(f"{self.json.name}.cases.jsonl")


@dataclass(frozen=True, slots=True)
class Placed:
    """A problem in the order of the edits.

    Attributes:
        problem: The problem.
        place: Place of its edit, from 0.
        span: The edits that its prompts are asked with.
        is_asked: Whether it is asked; otherwise its edit only fills the memory.
    """

    problem: Problem
    place: int
    span: Span
    is_asked: bool = True

    @property
    def key(self) -> str:
        """What identifies the case in a run."""
        return str(self.problem.case.row)

    def asked(self, options: Options) -> Iterator[tuple[int, Question, Expected]]:
        """The questions that `options` asks for, each with its place and what is expected."""
        left_out = {"attribute"} if not options.attributes else set()
        left_out |= {"generation"} if not options.fluency else set()
        pairs = zip(self.problem.case.questions, self.problem.gold.expected, strict=True)
        for number, (question, expected) in enumerate(pairs):
            if question.kind not in left_out and (options.kinds is None or question.kind in options.kinds):
                yield number, question, expected


def rows_needed(edits: int | None, limit: int | None) -> int | None:
    """How many rows a run draws from its file: its cases, and what fills their last memory; None for all."""
    size = edits or 1
    return None if limit is None else -(-limit // size) * size


def place(problems: Sequence[Problem], edits: int | None, limit: int | None = None) -> list[Placed]:
    """Put each problem in the memory of its group: so many in a row, or all.

    Those beyond `limit` are not asked. They stand between those that are, so that early and late edits are asked alike.
    """
    size = edits or max(1, len(problems))
    asked = len(problems) if limit is None else min(limit, len(problems))
    places = {number * len(problems) // asked: problem for number, problem in enumerate(problems[:asked])}
    fillers = iter(problems[asked:])
    made = []
    for number in range(len(problems)):
        start = number - number % size
        span = (start, min(start + size, len(problems)))
        own = places.get(number)
        made.append(Placed(next(fillers) if own is None else own, number, span, own is not None))
    return made
