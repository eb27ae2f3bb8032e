"""Runs a single-hop benchmark: makes the edits, examines the cases, records each finished one.

Knows nothing of how an answer is marked; that is in `memedit.evaluation.figures`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import cast

from memedit.errors import InvalidSpec
from memedit.evaluation.cases import load
from memedit.evaluation.examine import CaseRecord, Examination
from memedit.evaluation.method import Method
from memedit.evaluation.opening import open_method
from memedit.evaluation.options import Options, Placed, place, rows_needed
from memedit.evaluation.ray import Worker, batch_size, on_ray
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.runs import Record, RunLog, progress


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: everything that figures are made of.

    Attributes:
        options: What was run.
        placed: The cases in the order of their edits, with what only fills the memory.
        records: By `Placed.key`, what was recorded of a case that is asked.
        superseded: Edits that a later one superseded, in the memory of all.
        seconds_per_edit: What making an edit took, embedding it included.
        preparation_seconds: What was needed once before the first edit took.
        peak_memory: Most memory this process used in each phase (``edit``, ``question``), in MiB, by device.
    """

    options: Options
    placed: Sequence[Placed]
    records: Mapping[str, CaseRecord]
    superseded: int
    seconds_per_edit: float | None
    preparation_seconds: float
    peak_memory: Mapping[str, Mapping[str, float]]


def run(options: Options, method: Method, model: RememberedModel) -> Finished:
    """Answer and score every case that the run's records do not have yet.

    Args:
        options: What to run.
        method: What to run it on; it has taken no edits yet.
        model: The unedited base model.

    Raises:
        BadDataFile, BadRow: The data file is not as it should be.
        InvalidSpec: The records beside the result are another configuration's, or the options do not go together.
        ModelError: The base model failed; finished cases are kept.
    """
    if options.scalability and options.edits is not None:
        raise InvalidSpec("Scalability is measured in one memory.", "Ask for all edits, or leave it out.")
    if options.scalability and options.kinds is not None and "edit" not in options.kinds:
        raise InvalidSpec("Scalability is measured on the edits' own prompts.", "Ask the kind 'edit' too.")
    rows = rows_needed(options.edits, options.limit)
    problems = load(options.data, options.benchmark, edits_as=options.edits_as, limit=rows, seed=options.seed)
    placed = place(problems, options.edits, options.limit)
    asked = [case for case in placed if case.is_asked]
    keys = [case.key for case in asked]
    with RunLog(options.records, options.config(), keys, options.json, options.start) as log:
        if log.resumed:
            print(f"going on with a run: {log.resumed} cases are there already (--fresh starts over)", file=sys.stderr)
        superseded = method.edit([case.problem.case.edit for case in placed])
        missing = set(log.missing(keys))
        with progress(f"{options.strategy}: cases", total=len(asked), done=log.resumed) as advance:
            todo = [case for case in asked if case.key in missing]
            for found in _examined(todo, placed, options, method, model):
                log.add(found)
                advance(len(found))
        records = {case.key: cast("CaseRecord", log.done[case.key]) for case in asked}
    each = method.edit_seconds / method.edits_made if method.edits_made else None
    return Finished(options, placed, records, superseded, each, method.preparation_seconds, method.memory.peaks)


@contextmanager
def open_parts(options: Options) -> Iterator[tuple[Method, RememberedModel]]:
    """The method that options name, and the unedited base model.

    Raises:
        InvalidSpec, ModelError: There is no such model or method.
    """
    from memedit.models import load_model

    base = RememberedModel(load_model(options.model))
    with open_method(options.model, options.strategy, base, options.demonstrations) as method:
        yield method, base


@dataclass(frozen=True, slots=True)
class CaseRecipe:
    """What a worker of a Ray cluster examines cases with: a method of its own, to which the same edits are made.

    Attributes:
        options: What is run.
        placed: Every case.
        parts: Opens method and base model.
    """

    options: Options
    placed: tuple[Placed, ...]
    parts: Callable[[Options], AbstractContextManager[tuple[Method, RememberedModel]]] = open_parts

    @contextmanager
    def open(self) -> Iterator[Worker]:
        """See `memedit.evaluation.ray.Recipe`."""
        cases = {case.key: case for case in self.placed}
        with self.parts(self.options) as (method, base):
            method.edit([case.problem.case.edit for case in self.placed])

            def work(keys: Sequence[str]) -> Mapping[str, Record]:
                found = Examination(self.options, method, base, [cases[key] for key in keys]).examine()
                return {key: dict(record) for key, record in found.items()}

            yield work


def _examined(
    todo: Sequence[Placed], placed: Sequence[Placed], options: Options, method: Method, model: RememberedModel
) -> Iterator[Mapping[str, Record]]:
    """The records of cases, batch by batch; answered here, or on a Ray cluster."""
    if options.workers is not None:
        size = batch_size(len(todo), options.workers, options.cases_per_batch)
        batches = _batches(todo, replace(options, cases_per_batch=size), method.side_by_side)
        keys = [[case.key for case in batch] for batch in batches]
        yield from on_ray(CaseRecipe(options, tuple(placed)), keys, options.workers)
        return
    for batch in _batches(todo, options, method.side_by_side):
        with method.memory.phase("question"):
            records = Examination(options, method, model, batch).examine()
        yield {key: dict(record) for key, record in records.items()}


def _batches(todo: Sequence[Placed], options: Options, side_by_side: bool) -> Iterator[list[Placed]]:
    """Cases to be examined together; those of one memory only, where they cannot be side by side.

    Where edits are in the weights and scalability is measured, all cases are: each batch would make most edits anew.
    """
    if options.scalability and not side_by_side:
        yield list(todo)
        return
    batch: list[Placed] = []
    for case in todo:
        full = len(batch) >= options.cases_per_batch
        if batch and (full or not (side_by_side or case.span == batch[-1].span)):
            yield batch
            batch = []
        batch.append(case)
    if batch:
        yield batch
