"""What a fact would change: a question resolved without the fact and with it, and the fact recorded nowhere.

The fact goes into a scratch memory that lives as long as the call, beside copies of the facts that can matter to the
question: all of a small namespace; of a large one those around the entities that the question, the fact and the resolved
chains name, and those nearest in meaning. Knows nothing of servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.answer import Hop
from memedit.counterfactual import settle
from memedit.errors import UnknownNamespace
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import EntityTable
from memedit.memory.fact import Fact, FactInput
from memedit.memory.intake import Prepared, prepare
from memedit.memory.interchange import as_input
from memedit.strategies.base import Resolution, Resolver

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView
    from memedit.strategies.driver import Toolbox

WHOLE = 200
"""Facts up to which a namespace is copied as a whole."""
NEAREST = 32
"""Of a larger one, how many facts nearest in meaning to the question, and to the fact on trial, are copied."""
HOPS = 4
ROUNDS = 3
"""How often facts are fetched for entities that a resolved chain turns out to pass."""


class Outcome(NamedTuple):
    """What the memory says to a question.

    Attributes:
        hops: The chain; the step that the fact on trial makes has no `edit_id`.
        edits: The recorded facts in scope.
        uses_trial: Whether the fact on trial is in scope too.
        answer: What they come to; None where there are none, or where that is for the base model to word.
        probability: How sure the resolver is, in [0, 1].
    """

    hops: tuple[Hop, ...]
    edits: tuple[Fact, ...]
    uses_trial: bool
    answer: str | None
    probability: float


class Preview(NamedTuple):
    """What recording a fact would do.

    Attributes:
        statement: The fact as a sentence.
        status: What the receipt would say.
        replaced: The facts whose place it would take.
        notice: What the caller should know, e.g. that it would be kept as free text.
        before: What the memory says to the question as it is; None without a question.
        after: What it would say.
    """

    statement: str
    status: Literal["added", "superseded", "unchanged"]
    replaced: tuple[Fact, ...]
    notice: str | None
    before: Outcome | None = None
    after: Outcome | None = None

    @property
    def changes(self) -> bool:
        """Whether the question would be answered from other facts than it is, or by another chain."""
        if self.before is None or self.after is None:
            return False
        return self.after.uses_trial or _essence(self.before) != _essence(self.after)


def preview(question: str | None, fact: FactInput, view: MemoryView, tools: Toolbox, resolver: Resolver) -> Preview:
    """What `fact` would change, for a question if there is one. Nothing is written.

    Args:
        question: A question, or None to learn only what the fact would take the place of.
        fact: The fact on trial.
        view: The namespace as it is.
        tools: Serve the resolver; beliefs on the way to an edit are asked of their model.
        resolver: Finds the edits in scope.

    Raises:
        InvalidFact: The fact could not be recorded.
        UnknownRelation: Nor could any fact of its relation.
        ModelError: The base model failed.
    """
    from memedit.strategies.driver import run

    trial = prepare(fact, Catalogue(parent=view.catalogue))
    copied = _Excerpt(view)
    copied.take_around(trial, question)
    if question is None:
        with _Scratch(view, copied.facts.values(), fact) as scratch:
            return scratch.receipt()
    found = run(resolver.resolve(question, view), tools).result
    answer = settle(question, found.facts, found.hops, view) if found.facts else None
    before = Outcome(found.hops, found.facts, False, answer, found.probability)
    copied.explore(_passed(found))
    for _ in range(ROUNDS):
        with _Scratch(view, copied.facts.values(), fact) as scratch:
            found = run(resolver.resolve(question, scratch.view), scratch.tools(tools)).result
            told = scratch.receipt()._replace(before=before, after=scratch.outcome(question, found))
            if not copied.explore(_passed(found)):
                break
    return told


class _Excerpt:
    """The recorded facts, by id, that can matter to a question."""

    def __init__(self, view: MemoryView) -> None:
        self.facts: dict[int, Fact] = {}
        self._view = view
        self._explored: set[str] = {""}

    def take_around(self, trial: Prepared, question: str | None) -> None:
        """Take the whole namespace where it is small, else what lies around the fact on trial and the question."""
        view, memory = self._view, self._view.memory
        try:
            size = memory.count(view.namespace)
        except UnknownNamespace:
            return
        if size <= WHOLE:
            self._take(memory.facts(namespace=view.namespace))
            return
        if trial.subject:  # its slot, whatever the valid times of the facts there
            self._take(memory.facts(subject=trial.subject, relation=_known(trial, view), namespace=view.namespace))
        texts = [text for text in (question, trial.statement) if text]
        for hits in view.search(memory.embedder.encode(texts), NEAREST):
            self._take(hit.fact for hit in hits)
        self.explore({trial.subject, trial.object, *(one.text for one in view.mentions(question or ""))})

    def explore(self, names: set[str]) -> bool:
        """Take the facts on chains from entities that were not looked at yet; whether there were new ones."""
        before = len(self.facts)
        for name in names - self._explored:
            self._explored.add(name)
            for path in self._view.paths(name, HOPS):
                self._take(path.facts)
            self._take(self._view.facts_about(name))
        return len(self.facts) > before

    def _take(self, facts: Iterable[Fact]) -> None:
        for fact in facts:
            number = fact.implied_from or fact.id
            if number not in self.facts:
                implied = fact.implied_from is not None
                self.facts[number] = self._view.memory.get(number, namespace=self._view.namespace) if implied else fact


class _Scratch:
    """A memory of its own, with copies of some facts and then the fact on trial."""

    def __init__(self, view: MemoryView, facts: Iterable[Fact], fact: FactInput) -> None:
        from memedit.memory.memory import EditMemory

        kept = sorted(facts, key=lambda one: one.id)
        self._known = view.catalogue
        self._memory = EditMemory(
            catalogue=Catalogue(parent=view.catalogue), embedder=view.memory.embedder, namespace=view.namespace
        )
        for name in dict.fromkeys(name for one in kept for name in (one.subject, one.object) if name):
            for alias in _own_aliases(view, name):
                self._memory.add_alias(name, alias)
        receipts = self._memory.assert_facts([as_input(one) for one in kept])
        self._originals = {receipt.fact.id: one for receipt, one in zip(receipts, kept, strict=True)}
        self._receipt = self._memory.assert_fact(fact)
        self.view = self._memory.view()

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.close()

    def tools(self, tools: Toolbox) -> Toolbox:
        """Tools that plan with the trial's relation too, where it is a new one."""
        from memedit.planner import default_planner

        if self._receipt.fact.is_free_text or self._receipt.fact.relation in self._known:
            return tools
        planner, scorer = default_planner(self._memory.catalogue)
        return replace(tools, planner=planner, scorer=scorer)

    def receipt(self) -> Preview:
        """What became of the trial here, told in the ids of the memory."""
        receipt = self._receipt
        replaced = tuple(self._originals[one.id] for one in receipt.replaced)
        return Preview(receipt.fact.statement, receipt.status, replaced, receipt.notice)

    def outcome(self, question: str, found: Resolution) -> Outcome:
        """A resolution found here, told in the ids of the memory."""
        hops = tuple(replace(hop, edit_id=self._number(hop.edit_id)) for hop in found.hops)
        edits = tuple(edit for edit in map(self._original, found.facts) if edit is not None)
        answer = settle(question, found.facts, found.hops, self.view) if found.facts else None
        return Outcome(hops, edits, len(edits) < len(found.facts), answer, found.probability)

    def _original(self, fact: Fact) -> Fact | None:
        """The recorded fact that one found here is a copy of, or follows from; None for the trial."""
        original = self._originals.get(fact.id)
        if original is None or fact.implied_from is None:
            return original
        known = {name: getattr(original, name) for name in ("id", "recorded_at", "transaction")}
        return fact.model_copy(update={**known, "implied_from": original.id})

    def _number(self, own: int | None) -> int | None:
        original = None if own is None else self._originals.get(own)
        return None if original is None else original.id


def _known(trial: Prepared, view: MemoryView) -> str | None:
    return trial.relation_id if trial.relation_id in view.catalogue else None


def _passed(found: Resolution) -> set[str]:
    return {name for hop in found.hops for name in (hop.entity, hop.object)}


def _own_aliases(view: MemoryView, name: str) -> list[str]:
    """The names that the namespace itself has given to an entity."""
    builtin = set(EntityTable.builtin().aliases(name))
    return [alias for alias in view.memory.aliases(name, namespace=view.namespace) if alias not in builtin]


def _essence(outcome: Outcome) -> object:
    steps = [(hop.entity, hop.relation, hop.object) for hop in outcome.hops]
    return outcome.answer, steps, sorted(fact.id for fact in outcome.edits)
