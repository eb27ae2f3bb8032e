"""The index under threads against a brute-force reference, through every structure it can have.

Threads change ids of their own, so that what is left when they are done does not depend on who was first; readers beside
them look for what nobody changes.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memedit.memory.index import VectorIndex
from memedit.memory.index_rows import Vectors
from tests.memory.test_index import arange, brute_force, unit

pytestmark = pytest.mark.slow

DIMENSION = 16
THREADS = 3
OWN = 60
ANCHORS = 8
FIRST = 1_000

Step = tuple[str, list[int], int]

steps = st.lists(
    st.tuples(
        st.sampled_from(("add", "add", "add", "remove")),
        st.lists(st.integers(0, OWN - 1), min_size=1, max_size=40, unique=True),
        st.integers(0, 400),
    ),
    max_size=4,
)


class UnderThreads(RuleBasedStateMachine):
    """Any writes side by side, beside readers and while structures are made, leave what a dict of vectors holds."""

    @initialize(half=st.booleans())
    def start(self, half: bool) -> None:
        self.pool = unit(1, 512, DIMENSION)
        if half:
            self.pool = self.pool.astype(np.float16).astype(np.float32)
        self.index = VectorIndex(DIMENSION, exact_limit=40, whole_limit=90, half=half)
        self.held: dict[int, Vectors] = dict(zip(range(ANCHORS), self.pool, strict=False))
        self.index.add(arange(ANCHORS), self.pool[:ANCHORS])
        self.failures: list[str] = []

    @rule(plans=st.tuples(*[steps] * THREADS), retrain=st.booleans(), fill=st.booleans())
    def burst(self, plans: tuple[list[Step], ...], retrain: bool, fill: bool) -> None:
        over = threading.Event()
        writers = [threading.Thread(target=self.write, args=plan) for plan in enumerate(plans)]
        reader = threading.Thread(target=self.read, args=(over,))
        for thread in (reader, *writers):
            thread.start()
        if retrain:
            self.index.retrain()
        if fill:
            self.index.fill([(arange(5, start=500), self.pool[500:505]), (arange(5, start=505), self.pool[505:510])])
            self.held.update(zip(range(500, 510), self.pool[500:], strict=False))
        for thread in writers:
            thread.join()
        over.set()
        reader.join()
        for own, plan in enumerate(plans):
            for kind, numbers, seed in plan:
                for place, number in enumerate(numbers):
                    if kind == "add":
                        self.held[self.name(own, number)] = self.vector(seed + place)
                    else:
                        self.held.pop(self.name(own, number), None)

    @rule()
    def reopen(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "facts.index"
            self.index.save(path, generation=1, fingerprint="f")
            half = self.index._rows.half
            self.index, _, _ = VectorIndex.load(path, exact_limit=40, whole_limit=90)
            assert self.index._rows.half == half

    @rule(seed=st.integers(0, 1000), k=st.integers(1, 6))
    def every_vector_is_where_it_should_be(self, seed: int, k: int) -> None:
        queries = unit(seed, 2, DIMENSION)

        scores, found = self.index.exhaustive(queries, k)

        for row, query in enumerate(queries):
            expected, _ = brute_force(self.held, query, k)
            np.testing.assert_allclose(scores[row], expected, atol=1e-5)
            for number, score in zip(found[row].tolist(), scores[row].tolist(), strict=True):
                assert number < 0 or abs(float(self.held[number] @ query) - score) < 1e-5

    @rule(seed=st.integers(0, 1000), mask=st.sets(st.integers(0, FIRST * THREADS + OWN), max_size=50))
    def a_masked_search_is_exact(self, seed: int, mask: set[int]) -> None:
        mask |= set(list(self.held)[::3])
        query = unit(seed, 1, DIMENSION)

        scores, _ = self.index.search(query, 4, within=np.array(sorted(mask), np.int64))

        expected, _ = brute_force({number: self.held[number] for number in mask & self.held.keys()}, query[0], 4)
        np.testing.assert_allclose(scores[0], expected, atol=1e-5)

    @rule(choice=st.integers(0, 10_000))
    def a_search_finds_a_vector_by_itself(self, choice: int) -> None:
        if not self.held:
            return
        number = sorted(self.held)[choice % len(self.held)]

        scores, found = self.index.search(self.held[number][None, :], 3)

        assert scores[0, 0] == pytest.approx(1, abs=2e-3)
        np.testing.assert_allclose(self.held[int(found[0, 0])], self.held[number], atol=1e-6)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "held"):
            assert self.failures == []
            assert len(self.index) == len(self.held)

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.wait()

    def write(self, own: int, plan: list[Step]) -> None:
        for kind, numbers, seed in plan:
            ids = np.array([self.name(own, number) for number in numbers], np.int64)
            if kind == "add":
                self.index.add(ids, np.stack([self.vector(seed + place) for place in range(len(ids))]))
            else:
                self.index.remove(ids)

    def read(self, over: threading.Event) -> None:
        anchors = self.pool[:ANCHORS]
        while not over.wait(0.001):
            scores, found = self.index.search(anchors, 1)
            wrong = [score for score in scores[:, 0].tolist() if abs(score - 1) > 2e-3]
            if wrong or (found < 0).any():
                self.failures.append(f"{found[:, 0].tolist()} {wrong}")

    def vector(self, place: int) -> Vectors:
        row: Vectors = self.pool[place % len(self.pool)]
        return row

    def name(self, own: int, number: int) -> int:
        return FIRST * (own + 1) + number


TestUnderThreads = UnderThreads.TestCase
TestUnderThreads.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
