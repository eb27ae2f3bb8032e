"""MQuAKE's cases on a Ray cluster: every worker has an editor and a memory of its own, with the same edits under the same ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.mquake import open_editor
from benchmarks.mquake_figures import Placed
from benchmarks.mquake_run import Options, answer_batch, remember, views_of, warm_up
from memedit.evaluation.ray import Worker, batch_size, on_ray
from memedit.evaluation.runs import Record, RunLog, progress

if TYPE_CHECKING:
    from memedit.editor import MemEditor


@dataclass(frozen=True, slots=True)
class CaseRecipe:
    """What a worker answers cases with.

    Attributes:
        options: What is run.
        placed: Every case, in the order in which edits are written.
        editor: Opens an editor over an empty memory.
    """

    options: Options
    placed: tuple[Placed, ...]
    editor: Callable[[Options], AbstractContextManager[MemEditor]] = open_editor

    @contextmanager
    def open(self) -> Iterator[Worker]:
        """See `memedit.evaluation.ray.Recipe`."""
        with self.editor(self.options) as editor:
            kept = [case.problem.case for case in self.placed if not case.left_out]
            facts = remember(editor, kept, self.options.edits_as)
            views = views_of(editor, self.placed, facts, self.options)
            cases = {case.key: (case.problem.case, views[case.memory]) for case in self.placed}
            warm_up(editor)

            def work(keys: Sequence[str]) -> Mapping[str, Record]:
                records: dict[str, Record] = {}
                answer_batch(editor, {key: cases[key] for key in keys}, records.update)
                return records

            yield work


def answer_on_ray(
    options: Options, placed: Sequence[Placed], keys: Sequence[str], log: RunLog, recipe: CaseRecipe | None = None
) -> None:
    """Answer cases on a Ray cluster; each batch is recorded when it comes back.

    Args:
        options: What is run; `options.workers` says on how many workers.
        placed: Every case.
        keys: Those to answer.
        log: Where the records go.
        recipe: Opens the workers; made from the options if None.
    """
    workers = options.workers or 0
    size = batch_size(len(keys), workers, options.cases_per_batch)
    batches = [keys[at : at + size] for at in range(0, len(keys), size)]
    with progress("cases", total=len(keys) + log.resumed, done=log.resumed) as advance:
        for records in on_ray(recipe or CaseRecipe(options, tuple(placed)), batches, workers):
            log.add(records)
            advance(len(records))
