"""The edit memory against a model of it in plain Python, over random sequences of writes, reads and reopenings.

The model knows no facts and no intervals: for every slot it holds the set of objects at each of four moments, one
within every interval that the bounds used here can make. Undo puts back a copy; ``as_of`` looks at an old copy; a mask
replays the writes of the masked facts alone; erasing an entity takes it out of every copy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from memedit.errors import AlreadyRetracted, BadRow, HistoryCompacted, NothingToUndo
from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import Fact, FactInput, Relation
from memedit.memory.memory import EditMemory, MemoryView
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import Server

pytestmark = pytest.mark.slow

NAMESPACES = ("acme", "zenith")
SUBJECTS = ("Ann", "Bob")
OBJECTS = ("Oslo", "Rome", "Lima")
RELATIONS = ("home", "visited")
BOUNDS = tuple(datetime(year, 1, 1, tzinfo=UTC) for year in (2001, 2002, 2003))
MOMENTS = tuple(datetime(year, 7, 1, tzinfo=UTC) for year in (2000, 2001, 2002, 2003))

Slot = tuple[str, str, str]
Held = dict[Slot, tuple[set[str], ...]]


def catalogue() -> Catalogue:
    relations = Catalogue.default()
    for name, single in zip(RELATIONS, (True, False), strict=True):
        template = f"The {name} of {{subject}} is {{object}}."
        question = f"What is the {name} of {{subject}}?"
        phrase = f"the {name} of {{subject}}"
        relations.define(
            Relation(id=name, label=name, statement=template, question=question, phrase=phrase, single_valued=single)
        )
    return relations


class Triple(NamedTuple):
    subject: str
    relation: str
    object: str
    valid_from: datetime | None
    valid_to: datetime | None

    def to_input(self) -> FactInput:
        return FactInput(**self._asdict())

    def places(self) -> list[int]:
        return [
            place
            for place, moment in enumerate(MOMENTS)
            if (self.valid_from is None or self.valid_from <= moment)
            and (self.valid_to is None or moment < self.valid_to)
        ]


class Model:
    """What each slot holds at each moment."""

    def __init__(self) -> None:
        self.held: Held = defaultdict(lambda: tuple(set() for _ in MOMENTS))

    def record(self, namespace: str, triple: Triple) -> str:
        slot = self.held[namespace, triple.subject, triple.relation]
        single = triple.relation == "home"
        now = [slot[place] for place in triple.places()]
        if all((objects == {triple.object}) if single else (triple.object in objects) for objects in now):
            return "unchanged"
        replaced = any(objects if single else triple.object in objects for objects in now)
        for objects in now:
            if single:
                objects.clear()
            objects.add(triple.object)
        return "superseded" if replaced else "added"

    def erase(self, namespace: str, name: str) -> None:
        for (space, subject, _), places in self.held.items():
            for objects in places if space == namespace else ():
                objects.difference_update(set(objects) if subject == name else {name})

    def retract(self, namespace: str, triple: Triple) -> None:
        for place in triple.places():
            self.held[namespace, triple.subject, triple.relation][place].discard(triple.object)


class Written(NamedTuple):
    namespace: str
    id: int
    triple: Triple


Step = tuple[Literal["record", "retract"], Written]


def triple_of(fact: Fact) -> Triple:
    return Triple(fact.subject, fact.relation, fact.object, fact.valid_from, fact.valid_to)


@st.composite
def triples(draw: st.DrawFn) -> Triple:
    start, stop = sorted(draw(st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True)))
    bounds = (None, *BOUNDS, None)
    return Triple(
        draw(st.sampled_from(SUBJECTS)),
        draw(st.sampled_from(RELATIONS)),
        draw(st.sampled_from(OBJECTS)),
        bounds[start],
        bounds[stop],
    )


class MemoryMachine(RuleBasedStateMachine):
    facts: Bundle[Written] = Bundle("facts")

    @initialize()
    def open(self) -> None:
        # Flushing to a real disk hundreds of times is not what is tested here.
        shared = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
        self.place = self.new_place()
        self.time = datetime(2020, 1, 1, tzinfo=UTC)
        self.model = Model()
        self.writes: dict[str, list[tuple[Model, list[Step]]]] = {name: [] for name in NAMESPACES}
        self.journal: list[Step] = []
        self.past: list[tuple[datetime, Model]] = []
        self.horizons = dict.fromkeys(NAMESPACES, self.time)
        self.memory = self.opened()

    def new_place(self) -> str:
        return str(self.folder / "facts.db")

    def opened(self) -> EditMemory:
        return EditMemory(self.place, catalogue=catalogue(), embedder=HashEmbedder(), clock=lambda: self.time)

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            self.memory.close()
            shutil.rmtree(self.folder)

    def begin(self, namespace: str) -> Model:
        """Remember the state before a write, for reads at past moments and for undoing."""
        self.past.append((self.time, deepcopy(self.model)))
        self.time += timedelta(seconds=1)
        before = Model()
        before.held.update({slot: deepcopy(held) for slot, held in self.model.held.items() if slot[0] == namespace})
        return before

    @rule(target=facts, namespace=st.sampled_from(NAMESPACES), batch=st.lists(triples(), min_size=1, max_size=3))
    def record(self, namespace: str, batch: list[Triple]) -> MultipleResults[Written]:
        before, mark = self.begin(namespace), len(self.journal)
        receipts = self.memory.assert_facts([triple.to_input() for triple in batch], namespace=namespace)

        assert [receipt.status for receipt in receipts] == [self.model.record(namespace, triple) for triple in batch]
        new = [
            Written(namespace, receipt.fact.id, triple)
            for receipt, triple in zip(receipts, batch, strict=True)
            if receipt.status != "unchanged"
        ]
        self.journal += [("record", written) for written in new]
        if new:
            self.writes[namespace].append((before, self.journal[mark:]))
        return multiple(*new)

    @rule(namespace=st.sampled_from(NAMESPACES), triple=triples())
    def record_a_bad_batch(self, namespace: str, triple: Triple) -> None:
        bad = [triple.to_input(), FactInput(subject=" ", relation="home", object="Oslo")]

        with pytest.raises(BadRow, match="row 2"):
            self.memory.assert_facts(bad, namespace=namespace)

    @rule(namespace=st.sampled_from(NAMESPACES), choice=st.integers(0, 99))
    def retract(self, namespace: str, choice: int) -> None:
        live = self.memory.facts(namespace=namespace) if namespace in self.memory.namespaces() else []
        if not live:
            return
        fact = live[choice % len(live)]
        before = self.begin(namespace)
        ended = self.memory.retract(fact.id, namespace=namespace)

        assert (ended.id, ended.live) == (fact.id, False)
        with pytest.raises(AlreadyRetracted):
            self.memory.retract(fact.id, namespace=namespace)
        self.model.retract(namespace, triple_of(fact))
        step: Step = ("retract", Written(namespace, fact.id, triple_of(fact)))
        self.journal.append(step)
        self.writes[namespace].append((before, [step]))

    @rule(namespace=st.sampled_from(NAMESPACES))
    def undo(self, namespace: str) -> None:
        if namespace not in self.memory.namespaces():
            return
        if not self.writes[namespace]:
            with pytest.raises(NothingToUndo):
                self.memory.undo(namespace=namespace)
            return
        self.begin(namespace)
        before, steps = self.writes[namespace].pop()
        touched = self.memory.undo(namespace=namespace)

        assert touched
        for slot in [slot for slot in self.model.held if slot[0] == namespace]:
            del self.model.held[slot]
        self.model.held.update(before.held)
        undone = {id(step) for step in steps}
        self.journal = [step for step in self.journal if id(step) not in undone]

    @rule(namespace=st.sampled_from(NAMESPACES), choice=st.integers(0, 99))
    def compact(self, namespace: str, choice: int) -> None:
        if namespace not in self.memory.namespaces() or not self.past:
            return
        moment, _ = self.past[choice % len(self.past)]
        history = self.memory.history(namespace=namespace)
        erased = self.memory.compact(moment, namespace=namespace).facts

        ended = [fact.id for fact in history if fact.retracted_at is not None and fact.retracted_at <= moment]
        assert list(erased) == ended
        assert self.memory.history(namespace=namespace) == [fact for fact in history if fact.id not in erased]
        if erased:
            self.horizons[namespace] = max(moment, self.horizons[namespace])
        self.forget(namespace, erased)

    @rule(namespace=st.sampled_from(NAMESPACES), name=st.sampled_from((*SUBJECTS, *OBJECTS)))
    def erase(self, namespace: str, name: str) -> None:
        history = self.memory.history(namespace=namespace) if namespace in self.memory.namespaces() else []
        about = tuple(fact.id for fact in history if name in (fact.subject, fact.object))
        if not about:
            return
        self.begin(namespace)
        assert self.memory.erase(name, namespace=namespace).facts == about

        models = [self.model, *(model for _, model in self.past), *(model for model, _ in self.writes[namespace])]
        for model in models:
            model.erase(namespace, name)
        self.forget(namespace, about)

    def forget(self, namespace: str, erased: tuple[int, ...]) -> None:
        """The journal without what was erased, and the writes that can still be undone.

        What a fact superseded stays ended when that fact is erased, as if it had been retracted then.
        """
        journal: list[Step] = []
        for step in self.journal:
            kind, written = step
            if written.id not in erased:
                journal.append(step)
            elif kind == "record":
                journal += [("retract", lost) for lost in self.superseded(namespace, written.id)]
        self.journal = journal
        left = len(self.memory._engine.state.namespace(namespace).undoable)
        self.writes[namespace] = self.writes[namespace][len(self.writes[namespace]) - left :]

    def superseded(self, namespace: str, by: int) -> list[Written]:
        """What a fact superseded, of that which has not been erased."""
        history = self.memory.history(namespace=namespace)
        return [Written(namespace, fact.id, triple_of(fact)) for fact in history if fact.superseded_by == by]

    @rule()
    def reopen(self) -> None:
        before = {name: self.memory.history(namespace=name) for name in self.memory.namespaces()}
        self.memory.close()
        self.memory = self.opened()

        assert {name: self.memory.history(namespace=name) for name in self.memory.namespaces()} == before

    @rule(choice=st.integers(0, 999))
    def read_the_past(self, choice: int) -> None:
        if self.past:
            moment, model = self.past[choice % len(self.past)]
            self.check(model, as_of=moment)

    @rule(masked=st.lists(facts, max_size=4))
    def read_masked(self, masked: list[Written]) -> None:
        ids = {written.id for written in masked}
        model = Model()
        for kind, written in self.journal:
            if written.id in ids:
                (model.record if kind == "record" else model.retract)(written.namespace, written.triple)

        self.check(model, ids=ids)

    @rule(namespace=st.sampled_from(NAMESPACES))
    def a_mask_of_everything_masks_nothing(self, namespace: str) -> None:
        if namespace in self.memory.namespaces():
            everything = [fact.id for fact in self.memory.history(namespace=namespace)]
            for moment in MOMENTS:
                masked = self.memory.view(namespace=namespace, ids=everything, valid_at=moment)
                assert masked.facts() == self.memory.view(namespace=namespace, valid_at=moment).facts()

    @precondition(lambda self: len(self.journal) > 0)
    @rule(moment=st.sampled_from(MOMENTS), namespace=st.sampled_from(NAMESPACES), choice=st.integers(0, 99))
    def search(self, moment: datetime, namespace: str, choice: int) -> None:
        _, written = self.journal[choice % len(self.journal)]
        view = self.memory.view(namespace=namespace, valid_at=moment)
        query = self.memory.embedder.encode([f"The {written.triple.relation} of {written.triple.subject} is Oslo."])

        (hits,) = view.search(query, 100)

        assert {hit.fact.id for hit in hits} == {fact.id for fact in view.facts()}

    @invariant()
    def reads_as_the_model(self) -> None:
        if hasattr(self, "memory"):
            self.check(self.model)

    def check(self, model: Model, *, as_of: datetime | None = None, ids: Iterable[int] | None = None) -> None:
        for namespace in NAMESPACES:
            if as_of is not None and as_of < self.horizons[namespace]:
                with pytest.raises(HistoryCompacted):
                    self.memory.view(namespace=namespace, as_of=as_of)
                continue
            for place, moment in enumerate(MOMENTS):
                view = self.memory.view(namespace=namespace, ids=ids, as_of=as_of, valid_at=moment)
                self.check_view(view, model, place)

    def check_view(self, view: MemoryView, model: Model, place: int) -> None:
        shown = set()
        for subject in SUBJECTS:
            for relation in RELATIONS:
                facts = view.lookup(subject, relation)
                slot = model.held.get((view.namespace, subject, relation))
                assert sorted(fact.object for fact in facts) == sorted(slot[place] if slot else ())
                assert all(fact.live and fact.namespace == view.namespace for fact in facts)
                shown |= {fact.id for fact in facts}
        assert {fact.id for fact in view.facts()} == shown
        assert len(view) == len(shown)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


class PostgresMachine(MemoryMachine):
    server: ClassVar[Server]

    def new_place(self) -> str:
        return self.server.new_url()


@pytest.fixture(autouse=True, scope="module")
def _server(postgres: Server) -> None:
    PostgresMachine.server = postgres


TestMemoryOnPostgres = PostgresMachine.TestCase
TestMemoryOnPostgres.settings = settings(
    max_examples=10, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
