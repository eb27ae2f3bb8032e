"""What the parts of the speed benchmark share: figures, the filled memory, processes measured from outside.

Knows nothing of what is measured.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.generated import BlendingEmbedder, FactMaker

if TYPE_CHECKING:
    from memedit.memory.embedder import Embedder
    from memedit.memory.fact import FactInput
    from memedit.memory.memory import EditMemory

_BATCH = 2_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    Attributes:
        name: What it is called in the JSON.
        value: The figure; a time is the median of its samples.
        unit: Its unit.
        how: How it was measured, in one sentence.
        target: What it should reach, or None where it is for information.
        at_least: Whether more is better.
        p99: The 99th percentile, where there are many samples.
        samples: How many samples `value` is the median of.
    """

    name: str
    value: float
    unit: str
    how: str
    target: float | None = None
    at_least: bool = False
    p99: float | None = None
    samples: int = 1

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {**asdict(self), "met": self.met}


def timed(name: str, unit: str, seconds: Sequence[float], how: str, target: float | None = None) -> Figure:
    """The median and 99th percentile of samples in seconds, as a figure in "µs", "ms" or "s"."""
    scaled = sorted(sample * {"µs": 1e6, "ms": 1e3, "s": 1.0}[unit] for sample in seconds)
    p99 = scaled[min(len(scaled) - 1, int(0.99 * len(scaled)))] if len(scaled) >= 50 else None
    return Figure(name, statistics.median(scaled), unit, how, target, p99=p99, samples=len(scaled))


@dataclass
class Bench:
    """What the parts share: the options, the facts, and the filled memory, made when first needed.

    Attributes:
        facts: Facts in the filled memory.
        seed: Seed of the facts and of every choice.
        vectors: "blended" or "embedded".
        folder: Where the filled memory lies; one that is there already is used again.
        status: Is told what is being done, with (done, total) where that is known.
    """

    facts: int
    seed: int
    vectors: str
    folder: Path
    status: Callable[[str, int, int], None]
    maker: FactMaker = field(init=False)
    inputs: list[FactInput] = field(init=False)

    def __post_init__(self) -> None:
        self.maker = FactMaker(seed=self.seed)
        self.inputs = self.maker.facts(self.facts)

    @property
    def path(self) -> Path:
        """The filled memory's file."""
        return self.folder / f"facts-{self.facts}-{self.seed}-{self.vectors}.db"

    def fill(self) -> None:
        """Make the filled memory, unless it is there."""
        from memedit.memory.embedder import SentenceEmbedder
        from memedit.memory.memory import EditMemory

        if self.path.exists():
            return
        self.status("embedding a sample", 0, 0)
        embedder: Embedder = SentenceEmbedder()
        if self.vectors == "blended":
            embedder = BlendingEmbedder(embedder, self.inputs[: min(self.facts, 3_000)], self.maker.catalogue)
        unfinished = self.path.with_suffix(".part")
        for leftover in self.folder.glob(unfinished.name + "*"):
            leftover.unlink()
        with EditMemory(unfinished, embedder=embedder) as memory:
            for start in range(0, self.facts, _BATCH):
                self.status(f"filling the memory ({self.vectors} vectors)", start, self.facts)
                memory.assert_facts(self.inputs[start : start + _BATCH])
            memory.save_index()
        for written in self.folder.glob(unfinished.name + "*"):
            written.rename(self.folder / written.name.replace(unfinished.name, self.path.name))

    @contextmanager
    def memory(self, embedder: Embedder | None = None) -> Iterator[EditMemory]:
        """A copy of the filled memory, its index loaded, thrown away afterwards."""
        from memedit.memory.memory import EditMemory

        self.fill()
        self.status("opening the memory", 0, 0)
        with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
            copy = Path(scratch) / self.path.name
            for file in self.folder.glob(self.path.name + "*"):
                shutil.copyfile(file, copy.with_name(file.name))
            with EditMemory(copy, embedder=embedder) as memory:
                memory.view().search(memory.embedder.encode(["warm up"]), 1)
                yield memory

    def loop(self, what: str, items: Sequence[object]) -> Iterator[int]:
        """The places of `items`, with progress shown."""
        for place in range(len(items)):
            self.status(what, place, len(items))
            yield place


def probe(program: str, *arguments: str) -> list[float]:
    """Run a program in a new process.

    Returns:
        The numbers it prints, which are separated by spaces.

    Raises:
        RuntimeError: It failed.
    """
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"a measured process failed:\n{done.stderr}")
    return [float(word) for word in done.stdout.split()]


def expect(holds: bool, otherwise: str) -> None:
    """Raise a `RuntimeError` unless `holds`: a figure of something that went wrong means nothing."""
    if not holds:
        raise RuntimeError(otherwise)
