"""Runs a single-hop benchmark: makes the edits, examines the cases, records each finished one.

Knows nothing of how an answer is marked; that is in `memedit.evaluation.figures`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from memedit.errors import InvalidSpec
from memedit.evaluation.cases import load
from memedit.evaluation.examine import CaseRecord, Examination
from memedit.evaluation.method import Method
from memedit.evaluation.options import Options, Placed, place
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.runs import RunLog, progress


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run: everything that figures are made of.

    Attributes:
        options: What was run.
        placed: The cases in the order of their edits.
        records: By `Placed.key`, what was recorded.
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
    problems = load(options.data, options.benchmark, edits_as=options.edits_as, limit=options.limit, seed=options.seed)
    placed = place(problems, options.edits)
    with RunLog(options.records, options.config(), [case.key for case in placed], options.start) as log:
        if log.resumed:
            print(f"going on with a run: {log.resumed} cases are there already (--fresh starts over)", file=sys.stderr)
        superseded = method.edit([problem.case.edit for problem in problems])
        missing = set(log.missing(case.key for case in placed))
        with progress(f"{options.strategy}: cases", total=len(placed), done=log.resumed) as advance:
            for batch in _batches([case for case in placed if case.key in missing], options, method.side_by_side):
                with method.memory.phase("question"):
                    records = Examination(options, method, model, batch).examine()
                log.add({key: dict(record) for key, record in records.items()})
                advance(len(batch))
        records = {case.key: cast("CaseRecord", log.done[case.key]) for case in placed}
    each = method.edit_seconds / method.edits_made if method.edits_made else None
    return Finished(options, placed, records, superseded, each, method.preparation_seconds, method.memory.peaks)


def _batches(todo: Sequence[Placed], options: Options, side_by_side: bool) -> Iterator[list[Placed]]:
    """Cases to be examined together; those of one memory only, where they cannot be side by side."""
    batch: list[Placed] = []
    for case in todo:
        full = len(batch) >= options.cases_per_batch
        if batch and (full or not (side_by_side or case.span == batch[-1].span)):
            yield batch
            batch = []
        batch.append(case)
    if batch:
        yield batch
