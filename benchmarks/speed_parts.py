"""The parts of the speed benchmark: each measures a few figures of one `Bench`.

Whatever depends on a process's age (imports, opening, resident size) is measured in processes of its own.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.generated import FactMaker, Vectors
from benchmarks.speed_setup import Bench, Figure, expect, probe, timed

if TYPE_CHECKING:
    from memedit.memory.embedder import Embedder
    from memedit.memory.fact import FactInput
    from memedit.memory.memory import EditMemory

_BULK = 2_000
_VECTOR_BYTES_PER_FACT = 2 * 384 * 4
_EACH = 32  # questions of each of three kinds; an evaluation has hundreds


def look_ups(bench: Bench) -> list[Figure]:
    """Slot and scope look-ups in the filled memory."""
    from memedit.memory.embedder import SentenceEmbedder
    from memedit.scope import default_scope

    chosen = random.Random(bench.seed).sample(bench.inputs, min(20_000, bench.facts))
    questions = [bench.maker.question(fact) for fact in chosen[:400]]
    first, second = questions[::2], questions[1::2]
    embedder = SentenceEmbedder(cache=0)
    classifier = default_scope(embedder)
    slots, embeddings, scopes, judged = [], [], [], []
    with bench.memory(embedder) as memory:
        view = memory.view()
        for fact in chosen:
            start = time.perf_counter()
            found = view.lookup(fact.subject or "", fact.relation or "")
            slots.append(time.perf_counter() - start)
            expect(bool(found), f"no fact in the slot of {fact}")
        for place in bench.loop("looking up questions", first):
            start = time.perf_counter()
            vector = embedder.encode([first[place]])
            middle = time.perf_counter()
            memory.view().search(vector, 5)
            embeddings.append(middle - start)
            scopes.append(time.perf_counter() - start)
        for question in second:
            start = time.perf_counter()
            classifier.retrieve([(memory.view(), question, 5)])
            judged.append(time.perf_counter() - start)
    return [
        timed("slot_lookup", "µs", slots, "view.lookup(subject, relation) of facts chosen at random.", 50),
        timed(
            "scope_lookup", "ms", scopes, "encode([question]) and view.search(vector, 5), each question a new one.", 25
        ),
        timed("scope_lookup_embedding", "ms", embeddings, "The encode([question]) in scope_lookup."),
        timed(
            "scope_classifier",
            "ms",
            judged,
            "ScopeClassifier.retrieve (the cross-encoder) of a new question, its embedding included.",
        ),
    ]


def writes(bench: Bench) -> list[Figure]:
    """Single and bulk writes into the filled memory and a fresh one, each text embedded for real."""
    from memedit.memory.embedder import SentenceEmbedder
    from memedit.memory.memory import EditMemory

    fresh = FactMaker(seed=bench.seed + 1)
    embedder = TimedEmbedder(SentenceEmbedder(cache=0))
    totals, beyond, embedding = [], [], []
    with bench.memory(embedder) as memory:
        singles = fresh.facts(200)
        for place in bench.loop("adding facts one by one", singles):
            embedder.seconds = 0.0
            start = time.perf_counter()
            memory.assert_fact(singles[place])
            total = time.perf_counter() - start
            totals.append(total)
            embedding.append(embedder.seconds)
            beyond.append(total - embedder.seconds)
        bench.status(f"adding {_BULK:,} facts at once", 0, 0)
        into_full = _rate(memory, fresh.facts(_BULK))
    with (
        tempfile.TemporaryDirectory(dir=bench.folder) as scratch,
        EditMemory(Path(scratch) / "fresh.db", embedder=embedder) as memory,
    ):
        into_fresh = _rate(memory, fresh.facts(_BULK))
        syncs = _fsyncs(Path(scratch))
    bulk = f"assert_facts of {_BULK:,} new facts in one call, embedding included, into "
    return [
        timed(
            "add_fact_beyond_embedding",
            "ms",
            beyond,
            "assert_fact of a new fact, durable on return, less the seconds spent in the embedder.",
            5,
        ),
        timed("add_fact", "ms", totals, "assert_fact of a new fact, its embedding included."),
        timed("add_fact_embedding", "ms", embedding, "The seconds of add_fact spent in the embedder."),
        timed("disk_fsync", "ms", syncs, "Appending 4 KiB to a file and fsync, on the same disk."),
        Figure("add_facts", into_full, "facts/s", bulk + "the filled memory, its index loaded.", 200, at_least=True),
        Figure("add_facts_fresh", into_fresh, "facts/s", bulk + "a fresh memory.", 200, at_least=True),
    ]


def size(bench: Bench) -> list[Figure]:
    """Bytes a fact in memory and on disk, beside its vectors."""
    bench.fill()
    bench.status("measuring the resident size", 0, 0)
    empty = probe(_RESIDENT, str(bench.folder / "empty.db"), "0")[0]
    resident = (probe(_RESIDENT, str(bench.path), "0")[0] - empty) / bench.facts - _VECTOR_BYTES_PER_FACT
    files = {file.suffix: file.stat().st_size for file in bench.folder.glob(bench.path.name + "*")}
    disk = sum(files.values()) / bench.facts - 2 * _VECTOR_BYTES_PER_FACT
    vectors = f"less the {_VECTOR_BYTES_PER_FACT:,} bytes of its two vectors"
    return [
        Figure(
            "resident_bytes_per_fact",
            resident,
            "B",
            "Resident size of a new process that has opened the filled memory, looked up a fact and searched its index, "
            f"less that of one that did so with an empty memory, divided by the facts, {vectors}.",
            3 * 1024,
        ),
        Figure(
            "disk_bytes_per_fact",
            disk,
            "B",
            f"Database and index file, divided by the facts, {vectors}, which are in both files.",
            3 * 1024,
        ),
        Figure("disk_megabytes", sum(files.values()) / 1e6, "MB", "Database and index file, vectors included."),
    ]


def reopening(bench: Bench) -> list[Figure]:
    """How long it takes until a new process can answer from the filled memory."""
    bench.fill()
    first: list[float] = []
    searched: list[float] = []
    for place in bench.loop("reopening the memory", range(3)):
        _, opened, found = probe(_RESIDENT, str(bench.path), str(place))
        first.append(opened)
        searched.append(found)
    return [
        timed("reopen", "s", searched, "EditMemory(path), one slot look-up and one search, in a new process.", 3),
        timed("reopen_first_lookup", "s", first, "EditMemory(path) and one slot look-up."),
    ]


def start_up(bench: Bench) -> list[Figure]:
    """Import and model loading, in new processes."""
    imports = [probe(_IMPORT)[0] for _ in bench.loop("importing memedit", range(5))]
    bench.status("unpacking the embedded model, where that has not been done", 0, 0)
    probe(_READY)
    ready = [probe(_READY)[0] for _ in bench.loop("loading the embedded model", range(3))]
    embedder = [probe(_EMBEDDER)[0] for _ in bench.loop("loading the embedder", range(3))]
    return [
        timed("import", "s", imports, "`import memedit` in a new process.", 0.3),
        timed(
            "embedded_model_ready",
            "s",
            ready,
            'load_model("embedded") and one generated token in a new process, torch\'s import included.',
            3,
        ),
        timed("embedder_ready", "s", embedder, "SentenceEmbedder() and one encoded text in a new process."),
    ]


def batching(bench: Bench) -> list[Figure]:
    """Questions a second, asked one at a time and together."""
    from memedit.editor import MemEditor
    from memedit.memory.embedder import SentenceEmbedder
    from memedit.memory.memory import EditMemory
    from memedit.models import load_model

    maker = FactMaker(seed=bench.seed + 2, entities=200)
    facts = maker.facts(200)
    outside = FactMaker(seed=bench.seed + 3, entities=200).facts(_EACH)
    bench.status("loading the embedded model", 0, 0)
    model = load_model("embedded")
    with EditMemory(embedder=SentenceEmbedder(cache=0)) as memory:
        memory.assert_facts(facts)

        def editor() -> MemEditor:
            return MemEditor(model, memory)

        def questions(start: int, each: int) -> list[str]:
            chosen = facts[start : start + each]
            known = [maker.question(fact) for fact in chosen]
            chains = [maker.two_hop_question(fact) for fact in chosen]
            unknown = [maker.question(fact) for fact in outside[:each]]
            return [question for group in zip(known, chains, unknown, strict=True) for question in group]

        for question in questions(100, 2):
            editor().ask(question)
        asked = questions(0, _EACH)
        alone = editor()
        start = time.perf_counter()
        for place in bench.loop("asking one at a time", asked):
            alone.ask(asked[place])
        one_by_one = len(asked) / (time.perf_counter() - start)
        bench.status("asking together", 0, 0)
        start = time.perf_counter()
        editor().ask_many(asked)
        together = len(asked) / (time.perf_counter() - start)
    mix = f"{len(asked)} questions, a third each about a fact, two hops from a fact, and about none; embedded model, "
    return [
        Figure("ask_many_speedup", together / one_by_one, "×", "ask_many over ask, in questions a second.", 3, True),
        Figure("ask_many", together, "questions/s", mix + "one call of ask_many.", at_least=True),
        Figure("ask", one_by_one, "questions/s", mix + "one call of ask after another.", at_least=True),
    ]


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {
    "lookups": look_ups,
    "writes": writes,
    "size": size,
    "reopening": reopening,
    "startup": start_up,
    "batching": batching,
}


class TimedEmbedder:
    """An embedder that adds up the seconds it spends."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.name = inner.name
        self.dimension = inner.dimension
        self.seconds = 0.0

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder.encode`."""
        start = time.perf_counter()
        try:
            return self._inner.encode(texts)
        finally:
            self.seconds += time.perf_counter() - start


def _rate(memory: EditMemory, facts: list[FactInput]) -> float:
    memory.view().search(memory.embedder.encode(["warm up"]), 1)
    start = time.perf_counter()
    memory.assert_facts(facts)
    return len(facts) / (time.perf_counter() - start)


def _fsyncs(folder: Path) -> list[float]:
    seconds = []
    with (folder / "fsync").open("wb") as file:
        for _ in range(100):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return seconds


# -- programs that are measured from outside: each prints its figures, separated by spaces ---------------------

_IMPORT = """
import time
start = time.perf_counter()
import memedit
print(time.perf_counter() - start)
"""

_READY = """
import time
start = time.perf_counter()
from memedit.models import load_model
from memedit.models.base import Sampling
load_model("embedded").generate(["The capital of France is"], Sampling(max_tokens=1))
print(time.perf_counter() - start)
"""

_EMBEDDER = """
import time
start = time.perf_counter()
from memedit.memory.embedder import SentenceEmbedder
SentenceEmbedder().encode(["The capital of France is Lyon."])
print(time.perf_counter() - start)
"""

_RESIDENT = """
import sys, time
import numpy as np
from memedit.memory.memory import EditMemory
query = np.random.default_rng(int(sys.argv[2])).standard_normal((1, 384), dtype=np.float32)
query /= np.linalg.norm(query)
start = time.perf_counter()
memory = EditMemory(sys.argv[1])
memory.view().lookup("Nadia Oakley", "P6")
opened = time.perf_counter() - start
memory.view().search(query, 5)
searched = time.perf_counter() - start
size = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
print(int(size.split()[1]) * 1024, opened, searched)
memory.close()
"""
