"""Runs MQuAKE: puts cases in memories, writes their edits, asks their questions, records each case as it is finished.

What is handed to the editor is a `Case` and a view, never a `Gold`; only `ask_beliefs`, which asks the base model and
no editor, is given steps of the gold chain.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmarks.mquake_data import Case, GoldHop, Problem, load
from benchmarks.mquake_figures import CaseRecord, FactKey, Placed, belief_key, fact_key, figures
from memedit.answer import Answer
from memedit.errors import InvalidSpec
from memedit.evaluation.environment import sha256
from memedit.evaluation.runs import Record, RunLog, Start, progress
from memedit.memory.fact import Fact, FactInput

if TYPE_CHECKING:
    from memedit.editor import MemEditor
    from memedit.memory.memory import MemoryView

BENCHMARK = "mquake"
EditsAs = Literal["triples", "statements"]


@dataclass(frozen=True, slots=True)
class Options:
    """What is run, and how.

    Attributes:
        data: The MQuAKE file.
        json: Where the result goes; the records go to ``<json>.cases.jsonl``.
        model: Base model, as `MemEditor` takes it.
        strategy: Name of the strategy.
        edits_per_memory: Cases whose edits one memory holds, or None for all.
        limit: Most cases in memory, drawn by the seed; None for all.
        seed: Seed of the draw and of the grouping.
        edits_as: Edits are given as triples, or as plain sentences only.
        left_out: Cases that are asked but whose edits are kept out of the memory.
        ask_beliefs: Whether to ask the base model every unedited hop alone.
        start: What to do with a run that is already there.
        cases_per_batch: Cases answered side by side.
        workers: Workers of a Ray cluster to answer with, 0 for one a core; None to answer in this process.
    """

    data: Path
    json: Path
    model: str = "embedded"
    strategy: str = "walk"
    edits_per_memory: int | None = 1
    limit: int | None = None
    seed: int = 0
    edits_as: EditsAs = "triples"
    left_out: int = 0
    ask_beliefs: bool = False
    start: Start = "auto"
    cases_per_batch: int = 256
    workers: int | None = None

    def config(self) -> dict[str, object]:
        """What makes two runs comparable, so that one may go on where the other ended."""
        return {
            "benchmark": BENCHMARK,
            "data": self.data.name,
            "data_sha256": sha256(self.data),
            "model": self.model,
            "strategy": self.strategy,
            "edits_per_memory": self.edits_per_memory or "all",
            "limit": self.limit,
            "seed": self.seed,
            "edits_as": self.edits_as,
            "left_out_cases": self.left_out,
        }


def run(options: Options, editor: MemEditor) -> dict[str, object]:
    """Answer every case that the run's records do not have yet, and sum up all of them; JSON-ready.

    Args:
        options: What to run.
        editor: The editor to run it on; its memory is empty.

    Raises:
        BadDataFile, BadRow: The data file is not as it should be.
        InvalidSpec: The records beside the result are another configuration's; or more cases are to be left out
            than there are.
        ModelError: The base model failed; finished cases are kept.
    """
    placed = place(load(options.data), options)
    began = time.perf_counter()
    facts = remember(editor, [case.problem.case for case in placed if not case.left_out], options.edits_as)
    views = views_of(editor, placed, facts, options)
    hops = _unedited_hops(placed) if options.ask_beliefs else {}
    keys = [case.key for case in placed]
    with RunLog(_records_path(options.json), options.config(), [*keys, *hops], options.json, options.start) as log:
        if log.resumed:
            print(
                f"going on with a run: {log.resumed} records are there already (--fresh starts over)", file=sys.stderr
            )
        missing = set(log.missing(keys))
        if missing and options.workers is None:
            warm_up(editor)
        setup_seconds = time.perf_counter() - began
        todo = {case.key: (case.problem.case, views[case.memory]) for case in placed if case.key in missing}
        if options.workers is None:
            answer_cases(editor, todo, log, options.cases_per_batch)
        else:
            from benchmarks.mquake_ray import answer_on_ray

            answer_on_ray(options, placed, list(todo), log)
        if options.ask_beliefs:
            ask_beliefs(editor, {key: hops[key] for key in log.missing(hops)}, log)
        records = {key: cast("CaseRecord", log.done[key]) for key in keys}
        beliefs = {key: str(log.done[key]["text"]) for key in hops} if options.ask_beliefs else None
    written = {row: [_key(fact) for fact in recorded] for row, recorded in facts.items()}
    return {
        **options.config(),
        "edits": sum(len(edits) for edits in facts.values()),
        **figures(placed, written, records, beliefs),
        "setup_seconds": round(setup_seconds, 3),
        "records": _records_path(options.json).name,
    }


def place(problems: Sequence[Problem], options: Options) -> list[Placed]:
    """Draw the cases and put each in its memory, in the order in which their edits are written.

    The first cases of a seeded shuffle are kept, so that the same seed draws the same cases whether or not others
    are left out. Left-out cases come last and are dealt over the memories in turn.

    Raises:
        InvalidSpec: Fewer than one case would be left for the memory.
    """
    room = len(problems) - options.left_out
    if room < 1:
        raise InvalidSpec(
            f"--left-out {options.left_out} leaves no case of the {len(problems)} in {options.data.name}.",
            f"Leave out at most {len(problems) - 1}.",
        )
    shuffled = random.Random(options.seed).sample(list(problems), len(problems))
    kept = shuffled[: min(room, options.limit or room)]
    size = options.edits_per_memory or len(kept)
    memories = -(-len(kept) // size)
    left_out = shuffled[len(kept) : len(kept) + options.left_out]
    return [Placed(problem, place // size) for place, problem in enumerate(kept)] + [
        Placed(problem, place % memories, left_out=True) for place, problem in enumerate(left_out)
    ]


def remember(editor: MemEditor, cases: Sequence[Case], edits_as: EditsAs) -> dict[int, tuple[Fact, ...]]:
    """Write the edits of every case, one transaction a case; by row, the facts they were recorded as.

    A fact that an earlier case wrote, and that still stands, is the same fact here.
    """
    return {
        case.row: tuple(
            receipt.fact
            for receipt in editor.add_facts(
                FactInput(statement=edit.sentence)
                if edits_as == "statements"
                else FactInput(subject=edit.subject, relation=edit.relation, object=edit.object)
                for edit in case.edits
            )
        )
        for case in cases
    }


def answer_cases(
    editor: MemEditor, todo: Mapping[str, tuple[Case, MemoryView]], log: RunLog, cases_per_batch: int
) -> None:
    """Ask every question of every case over its view, many side by side; each case is recorded when it is finished.

    Args:
        editor: The editor.
        todo: By key, a case and the view of the memory it is asked in.
        log: Where the records go.
        cases_per_batch: Cases asked side by side.
    """
    keys = list(todo)
    with progress("cases", total=len(keys) + log.resumed, done=log.resumed) as advance:

        def keep(records: Mapping[str, Record]) -> None:
            log.add(records)
            advance(len(records))

        for begin in range(0, len(keys), cases_per_batch):
            answer_batch(editor, {key: todo[key] for key in keys[begin : begin + cases_per_batch]}, keep)


def answer_batch(
    editor: MemEditor,
    todo: Mapping[str, tuple[Case, MemoryView]],
    keep: Callable[[Mapping[str, Record]], None],
) -> None:
    """Ask every question of some cases side by side, each over its case's view.

    Args:
        editor: The editor.
        todo: By key, a case and the view of the memory it is asked in.
        keep: Is told the record of each case when it is finished.
    """
    laps = _laps()
    next(laps)
    asked = [(key, question, view) for key, (case, view) in todo.items() for question in case.questions]
    recorder = _recorder([key for key, _, _ in asked], keep, laps)
    editor.answer_views([(question, view) for _, question, view in asked], on_answer=recorder)


def _recorder(
    keys: Sequence[str], keep: Callable[[Mapping[str, Record]], None], laps: Iterator[float]
) -> Callable[[int, Answer], None]:
    """What is told each answer as it comes, and hands on a case's record when its last one is there.

    Args:
        keys: The case that each question of the batch belongs to.
        keep: Is told the record.
        laps: Gives the seconds since it was last asked.
    """
    expected = Counter(keys)
    answers: dict[str, dict[int, Answer]] = defaultdict(dict)

    def finish(place: int, answer: Answer) -> None:
        key = keys[place]
        answers[key][place] = answer
        if len(answers[key]) == expected[key]:
            in_order = [_answer_record(one) for _, one in sorted(answers.pop(key).items())]
            keep({key: {"answers": in_order, "seconds": next(laps)}})

    return finish


def _laps() -> Iterator[float]:
    last = time.perf_counter()
    while True:
        now = time.perf_counter()
        yield now - last
        last = now


def ask_beliefs(editor: MemEditor, hops: Mapping[str, GoldHop], log: RunLog) -> None:
    """Ask the base model each hop alone, in the words in which `walk` asks for a belief; no edit is shown to it."""
    from memedit.strategies.beliefs import ask_belief
    from memedit.strategies.driver import run_each

    keys = list(hops)
    with progress("unedited hops, asked alone", total=len(keys)) as advance:
        view = editor.memory.view()
        jobs = (ask_belief(view, hops[key].subject, hops[key].relation) for key in keys)
        for outcome in run_each(jobs, editor.tools):
            log.add({keys[outcome.place]: {"text": outcome.result.name}})
            advance(1)


def views_of(
    editor: MemEditor, placed: Sequence[Placed], facts: Mapping[int, Sequence[Fact]], options: Options
) -> dict[int, MemoryView]:
    """The view of each memory: masked to the facts of its cases, or everything where there is one memory."""
    ids: dict[int, list[int]] = {}
    for case in placed:
        ids.setdefault(case.memory, []).extend(fact.id for fact in facts.get(case.problem.case.row, ()))
    if options.edits_per_memory is None:
        return dict.fromkeys(ids, editor.memory.view())
    return {memory: editor.memory.view(ids=found) for memory, found in ids.items()}


def warm_up(editor: MemEditor) -> None:
    """Load the base model and embed the edits, so that neither counts as answering."""
    print("loading the model and embedding the edits", file=sys.stderr)
    _ = editor.model
    editor.memory.embed_pending()


def _unedited_hops(placed: Sequence[Placed]) -> dict[str, GoldHop]:
    kept = [case.problem.gold for case in placed if not case.left_out]
    return {belief_key(hop): hop for gold in kept for hop in gold.chain if hop.subject and not hop.edited}


def _answer_record(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.text,
        "hops": [
            {"entity": hop.entity, "relation": hop.relation, "object": hop.object, "source": hop.source}
            for hop in answer.hops
        ],
        "edits": [list(_key(fact)) for fact in answer.edits],
        "probability": answer.probability,
        "planner": answer.planner,
        "model_calls": answer.cost.model_calls,
        "prompt_tokens": answer.cost.prompt_tokens,
        "completion_tokens": answer.cost.completion_tokens,
    }


def _key(fact: Fact) -> FactKey:
    return fact_key(fact.subject, fact.relation, fact.object, fact.statement)


def _records_path(json_path: Path) -> Path:
    return json_path.with_name(f"{json_path.name}.cases.jsonl")
