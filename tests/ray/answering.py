"""What workers on the cluster answer with in tests: module-level, so that a worker can import it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.mquake_run import Options
from memedit.errors import ModelUnavailable
from memedit.evaluation.method import MemoryMethod, Method
from memedit.evaluation.options import Options as SingleHopOptions
from memedit.evaluation.ray import Worker
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.runs import Record
from memedit.memory.memory import EditMemory
from tests.benchmarks.single_hop import Named, Reader
from tests.benchmarks.test_mquake import Believer, Follow

if TYPE_CHECKING:
    from memedit.answer import Answer
    from memedit.editor import MemEditor
    from memedit.memory.memory import MemoryView
    from memedit.strategies.base import Step


@dataclass(frozen=True)
class Where:
    """Opens workers that say which node each key was worked on, and how often by that worker.

    Attributes:
        seconds: How long a batch takes.
        fails_on: The key that a worker fails at.
    """

    seconds: float = 0.0
    fails_on: str = ""

    @contextmanager
    def open(self) -> Iterator[Worker]:
        import ray

        node = ray.get_runtime_context().get_node_id()

        def work(keys: Sequence[str]) -> Mapping[str, Record]:
            time.sleep(self.seconds)
            if self.fails_on in keys:
                raise ModelUnavailable("The server is down.", "Start it.")
            return {key: {"node": node, "process": os.getpid()} for key in keys}

        yield work


@contextmanager
def read_parts(options: SingleHopOptions) -> Iterator[tuple[Method, RememberedModel]]:
    """A method and a base model that ask no network."""
    from memedit.editor import MemEditor

    base = RememberedModel(Reader())
    with (
        EditMemory(embed_on_write=False) as memory,
        MemEditor(base, memory, strategy=Named(), counterfactual="base") as editor,
    ):
        yield MemoryMethod(editor), base


class Slow(Follow):
    """Follows edits as `Follow` does, and takes its time."""

    def __call__(self, question: str, view: MemoryView) -> Step[Answer]:
        time.sleep(0.05)
        return (yield from super().__call__(question, view))


@contextmanager
def slow_editor(options: Options) -> Iterator[MemEditor]:
    """An editor that asks no network and takes its time."""
    from memedit.editor import MemEditor

    with EditMemory(embed_on_write=False) as memory, MemEditor(Believer(), memory, strategy=Slow()) as editor:
        yield editor
