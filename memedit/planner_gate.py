"""Which questions the planner need not read at all: small talk, tasks and code, told by their sentence vector alone.

A logistic regression on the vector that the scope classifier looks the memory up by anyway. It is set so that it lets
everything through that the planner makes plans of, and most of what it does not (`memedit.training.gate`). Knows nothing of plans.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.memory.embedder import MINILM
from memedit.planner_model import shipped_weights

if TYPE_CHECKING:
    from memedit.memory.embedder import Vectors
    from memedit.memory.memory import MemoryView

FILE = "gate.safetensors"
LONGEST = 300
"""Characters of the longest text that is judged: of a longer one, the vector hides the question at its end."""


class PlannerGate:
    """Tells the questions that the planner should read. Safe to share between threads.

    Args:
        folder: Folder of ``gate.safetensors``, that of a planner's weights; the one of the package if None. Without such a
            file, every question is let through.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._path = Path(folder or shipped_weights()) / FILE
        self._lock = threading.Lock()
        self._is_there = self._path.is_file()
        self._weights: tuple[Vectors, float] | None = None

    def worth_planning(self, questions: Sequence[tuple[str, MemoryView]]) -> list[bool]:
        """For each (question, view), whether the planner may make a plan of it.

        Always so where the memory's embedder is another than the one that the gate was trained with.
        """
        worth = [True] * len(questions)
        short = [
            place
            for place, (question, view) in enumerate(questions)
            if len(question) <= LONGEST and view.memory.embedder.name == MINILM
        ]
        weights = self._load() if short else None
        if weights is None:
            return worth
        weight, bias = weights
        embedder = questions[short[0]][1].memory.embedder
        vectors = embedder.encode([questions[place][0] for place in short])
        for place, odds in zip(short, vectors @ weight + bias, strict=True):
            worth[place] = bool(odds > 0)
        return worth

    def _load(self) -> tuple[Vectors, float] | None:
        with self._lock:
            if self._weights is None and self._is_there:
                from safetensors.numpy import load_file

                loaded = load_file(self._path)
                self._weights = loaded["weight"], float(loaded["bias"][0])
            return self._weights
