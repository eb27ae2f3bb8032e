"""The parts of the scale benchmark: filling a memory, and measuring it in a process of its own.

Every part is run as ``python -m benchmarks.scale_parts PART OPTIONS`` and prints its figures as JSON on its last line, so that
what is told of memory and of opening is told of a process that has done nothing else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.scale_facts import SAMPLE, FactSource, Triple, VectorMaker, Vectors, embed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memedit.memory.index import VectorIndex
    from memedit.memory.memory import EditMemory

Figures = dict[str, float | str]

ASKED = 1_000
"""How many of the really embedded facts are asked for."""

WRITES = 100
"""Facts written a second while look-ups are timed."""

_PART = 20_000
_LOOK_UPS = 300
_SLOTS = 5_000
_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is measured.

    Attributes:
        facts: Facts in the memory.
        data: ParaRel's triples.
        folder: Where memories and embeddings lie.
        seed: Seed of the facts.
    """

    facts: int
    data: str
    folder: str
    seed: int = 0

    @property
    def path(self) -> Path:
        """The memory's file."""
        return Path(self.folder) / f"scale-{self.facts}-{self.seed}.db"

    @property
    def done(self) -> Path:
        """The figures of filling it, there when it is whole."""
        return self.path.with_suffix(".json")


def run(part: str, options: Options) -> Figures:
    """Run a part in a new process.

    Raises:
        RuntimeError: It failed.
    """
    command = [sys.executable, "-m", "benchmarks.scale_parts", part, json.dumps(asdict(options))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {part} at {options.facts:,} facts failed")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def fill(options: Options) -> Figures:
    """Load the facts with their vectors, have the index made, and close."""
    from memedit.memory.memory import EditMemory

    if options.done.exists():
        kept: Figures = json.loads(options.done.read_text())
        return kept
    for leftover in Path(options.folder).glob(options.path.name + "*"):
        leftover.unlink()
    source = FactSource(Path(options.data), seed=options.seed)
    triples = source.triples(options.facts)
    spent = processor = 0.0
    with EditMemory(options.path) as memory:
        for start, vectors in _vectors(memory, source, triples, options):
            facts = [source.fact(triple) for triple in triples[start : start + _PART]]
            with _timed() as took:
                memory.load_facts(facts, vectors)
            spent, processor = spent + took[0], processor + took[1]
            _say(f"{start + len(facts):,} facts loaded")
        with _timed() as building:
            memory.view().search(vectors[:1, 0], 1)
        with _timed() as saving:
            memory.save_index()
        structure = _index(memory).structure
    files = {file.suffix: file.stat().st_size for file in Path(options.folder).glob(options.path.name + "*")}
    figures: Figures = {
        "load_rate": options.facts / spent,
        "load_rate_per_core": options.facts / processor,
        "index_build": building[0],
        "index_build_processor": building[1],
        "save": saving[0],
        "structure": structure,
        "disk_bytes_per_fact": sum(files.values()) / options.facts,
        "peak_while_filling": _memory("VmHWM"),
    }
    options.done.write_text(json.dumps(figures))
    return figures


def serve(options: Options) -> Figures:
    """Opening, resident memory, look-ups at rest, look-ups while facts are written."""
    from memedit.memory.embedder import SentenceEmbedder
    from memedit.memory.memory import EditMemory

    embedder = SentenceEmbedder(cache=0)
    embedder.encode(["warm up"])
    source = FactSource(Path(options.data), seed=options.seed)
    triples = source.triples(options.facts)
    questions = [source.asked(triple, place) for place, triple in enumerate(triples[:SAMPLE])]
    # Each once: a second look-up of the same fact is answered from caches, which a small memory would profit from alone.
    known = [triples[place] for place in np.random.default_rng(1).permutation(len(triples))[:_SLOTS]]
    fresh = source.triples(int(4 * _SECONDS * WRITES))
    before = _memory("VmRSS")
    del triples
    with _timed() as opened:
        memory = EditMemory(options.path, embedder=embedder)
        memory.view().lookup(known[0].subject, known[0].relation)
    with _timed() as searched:
        memory.view().search(embedder.encode([questions[0]]), 5)
    figures: Figures = {"open": opened[0], "open_and_search": opened[0] + searched[0]}
    figures |= {"open_processor": opened[1], "open_and_search_processor": opened[1] + searched[1]}
    with memory:
        slots = []
        for triple in known:
            with _timed() as took:
                memory.view().lookup(triple.subject, triple.relation)
            slots.append(took)
        figures |= _spread("slot", slots)
        order = np.random.default_rng(2).permutation(len(questions))
        picked = [questions[place] for place in order[:_LOOK_UPS]]
        embeddings, look_ups = _scope(memory, picked)
        figures |= _spread("embedding", embeddings) | _spread("scope", look_ups)
        figures |= {"resident": _memory("VmRSS"), "resident_private": _memory("RssAnon")}
        figures |= {"resident_before_opening": before}
        written, look_ups = _while_writing(memory, source, fresh, questions, options)
        figures |= {"writes_per_second": written / _SECONDS, **_spread("scope_while_writing", look_ups)}
        figures |= {"resident_after": _memory("VmRSS"), "peak": _memory("VmHWM")}
    return figures


def accuracy(options: Options) -> Figures:
    """Whether searches find what comparing with every vector finds, for really embedded facts and questions."""
    from memedit.memory.memory import EditMemory

    source = FactSource(Path(options.data), seed=options.seed)
    asked = source.triples(min(options.facts, ASKED))
    with EditMemory(options.path) as memory:
        texts = [source.asked(triple, place) for place, triple in enumerate(asked)]
        queries = embed(memory.embedder, texts, Path(options.folder), _status)
        index = _index(memory)
        view = memory.view()
        right = [view.lookup(triple.subject, triple.relation)[0].id for triple in asked]
        found = [[hit.fact.id for hit in hits] for hits in view.search(queries, 5)]
        exact = [_facts(row, 5) for row in index.exhaustive(queries, 26)[1]]
        structure = index.structure
    held = [fact in facts for fact, facts in zip(right, found, strict=True)]
    truly = [fact in facts for fact, facts in zip(right, exact, strict=True)]
    pairs = list(zip(found, exact, strict=True))
    return {
        "structure": structure,
        "asked": len(asked),
        "right_in_top_five": float(np.mean(held)),
        "right_in_top_five_exact": float(np.mean(truly)),
        "recall_of_right_edit": sum(held) / max(1, sum(truly)),
        "top_one_as_exact": float(np.mean([mine[:1] == theirs[:1] for mine, theirs in pairs])),
        "top_five_as_exact": float(np.mean([len({*mine} & {*theirs}) / 5 for mine, theirs in pairs])),
    }


def swap(options: Options) -> Figures:
    """How long a reader waits while the index is made anew in the background and swapped in."""
    from memedit.memory.memory import EditMemory

    source = FactSource(Path(options.data), seed=options.seed)
    with EditMemory(options.path) as memory:
        texts = [source.asked(triple, 0) for triple in source.triples(64)]
        queries = embed(memory.embedder, texts, Path(options.folder), _status)
        index = _index(memory)
        waits: list[tuple[float, float]] = []
        over = threading.Event()

        def read() -> None:
            for place in count():
                if over.is_set():
                    return
                start = time.perf_counter()
                index.search(queries[place % 64][None, :], 26)
                waits.append((start, time.perf_counter()))
                time.sleep(0.002)

        reader = threading.Thread(target=read)
        reader.start()
        with _timed() as built:
            index.retrain()
            index.wait()
        ended = time.perf_counter()
        time.sleep(0.2)
        over.set()
        reader.join()
        near = [stop - start for start, stop in waits if stop > ended - 0.5]
        return {
            "retrain": built[0],
            "retrain_processor": built[1],
            "swap_pause": index.swap_seconds,
            "longest_search_around_swap": max(near),
            "longest_search_while_retraining": max(stop - start for start, stop in waits),
            "median_search_while_retraining": float(np.median([stop - start for start, stop in waits])),
            "peak_while_retraining": _memory("VmHWM"),
        }


def _vectors(
    memory: EditMemory, source: FactSource, triples: Sequence[Triple], options: Options
) -> Iterator[tuple[int, Vectors]]:
    """The vectors of all facts, in parts, each with the place of its first fact."""
    sample = triples[:SAMPLE]
    texts = [text for triple in sample for text in source.texts(triple)]
    real = embed(memory.embedder, texts, Path(options.folder), _status).reshape(len(sample), 2, -1)
    maker = VectorMaker(real, [triple.relation for triple in sample], seed=options.seed)
    for start in range(0, len(triples), _PART):
        if start < len(sample):
            yield start, real[start : start + _PART]
        else:
            yield start, maker.derive([triple.relation for triple in triples[start : start + _PART]])


def _scope(memory: EditMemory, questions: Sequence[str]) -> tuple[list[list[float]], list[list[float]]]:
    """The times of embedding each question, and of that with finding five facts for it."""
    embeddings, look_ups = [], []
    for question in questions:
        with _timed() as whole:
            with _timed() as embedding:
                vector = memory.embedder.encode([question])
            memory.view().search(vector, 5)
        embeddings.append(embedding)
        look_ups.append(whole)
    return embeddings, look_ups


def _while_writing(
    memory: EditMemory, source: FactSource, fresh: Sequence[Triple], questions: Sequence[str], options: Options
) -> tuple[int, list[list[float]]]:
    """Look up questions while another thread writes `WRITES` facts a second, their vectors given."""
    sample = [source.fact(triple) for triple in fresh]
    rng = np.random.default_rng(3)
    real = np.load(next(Path(options.folder).glob("vectors-*.npy")), mmap_mode="r")
    noise = rng.standard_normal((len(sample), 2, real.shape[1]), dtype=np.float32) / np.sqrt(real.shape[1])
    vectors = real[rng.integers(0, len(real), len(sample))][:, None] + 0.5 * noise
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    over, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        start = time.perf_counter()
        while not over.is_set() and written < len(sample):
            memory.load_facts([sample[written]], vectors[written : written + 1])
            written += 1
            over.wait(max(0.0, start + written / WRITES - time.perf_counter()))

    writer = threading.Thread(target=write)
    writer.start()
    look_ups: list[list[float]] = []
    end = time.perf_counter() + _SECONDS
    for place in count():
        if time.perf_counter() > end:
            break
        look_ups += _scope(memory, [questions[(7 * place) % len(questions)]])[1]
    over.set()
    writer.join()
    return written, look_ups


def _index(memory: EditMemory) -> VectorIndex:
    """The index of a memory that keeps its own, up to date."""
    from memedit.memory.index import VectorIndex

    found = memory._engine.recall.index(memory.namespace)
    if not isinstance(found, VectorIndex):
        raise TypeError("the memory leaves its vectors to the database")
    return found


def _facts(numbers: np.ndarray[tuple[int], np.dtype[np.int64]], limit: int) -> list[int]:
    """The facts that vectors belong to, each once, the nearest first."""
    return list(dict.fromkeys(number // 2 for number in numbers.tolist() if number >= 0))[:limit]


def _spread(name: str, times: Sequence[Sequence[float]]) -> Figures:
    """Median and 99th percentile of times, in seconds; the median of the processor's seconds, too."""
    wall, processor = [took[0] for took in times], [took[1] for took in times]
    return {
        name: float(np.median(wall)),
        f"{name}_p99": float(np.percentile(wall, 99)),
        f"{name}_processor": float(np.median(processor)),
        f"{name}_samples": len(wall),
    }


@contextmanager
def _timed() -> Iterator[list[float]]:
    """A list that holds, after the block, how long it took: seconds, and seconds of the processor's."""
    took: list[float] = []
    start, processor = time.perf_counter(), time.process_time()
    yield took
    took += [time.perf_counter() - start, time.process_time() - processor]


def _memory(field: str) -> float:
    """A field of this process's memory, in bytes: VmRSS, RssAnon or VmHWM."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line for line in lines if line.startswith(field)).split()[1])


def _status(what: str, done: int, total: int) -> None:
    _say(f"{what}: {done:,} of {total:,}")


def _say(what: str) -> None:
    print(f"{time.strftime('%X')} {what}", file=sys.stderr, flush=True)


PARTS: dict[str, Callable[[Options], Figures]] = {"fill": fill, "accuracy": accuracy, "serve": serve, "swap": swap}


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    print(json.dumps(PARTS[sys.argv[1]](Options(**json.loads(sys.argv[2])))))
