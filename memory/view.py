"""Reading the memory: one namespace, now or at a past moment, whole or masked to some facts.

Every read begins at the namespace's own state, so none can see another's facts. A masked view reads as if only its
facts had ever been asserted: one that was superseded by a fact outside the mask is live in it. Where several live facts
claim a single-valued slot at the same moment (in a mask, or after an alias has joined two names) the one recorded last
holds it.

Knows nothing of SQL or of how facts are written.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from memedit.errors import InvalidFact, UnknownRelation
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import EntityTable, normalise
from memedit.memory.fact import FREE_TEXT, EndReason, Fact, Hit, Mention, Path, Relation
from memedit.memory.mentions import find_names
from memedit.memory.recall import vector_ids
from memedit.memory.state import Edges, NamespaceState, Record, in_order

if TYPE_CHECKING:
    from memedit.memory.memory import EditMemory

Vectors = npt.NDArray[np.float32]


class _Step(NamedTuple):
    """One live fact seen from its subject: as recorded, or implied by `relation` from the object's side."""

    record: Record
    relation: Relation | None
    target: str


class MemoryView:
    """A reading of one namespace; made by `EditMemory.view`, cheap to make and to drop.

    A view without `as_of` follows the memory: it sees what is written after it was made.

    Attributes:
        memory: What is read.
        namespace: The namespace.
    """

    def __init__(
        self, memory: EditMemory, namespace: str, ids: Iterable[int] | None, as_of: int | None, valid_at: int | None
    ) -> None:
        self.memory = memory
        self.namespace = namespace
        self._engine = memory._engine
        self._state = memory._engine.state
        self._ids = None if ids is None else frozenset(ids)
        self._as_of = as_of
        self._valid_at = as_of if valid_at is None else valid_at
        self._masked: tuple[int, Edges] | None = None

    @property
    def catalogue(self) -> Catalogue:
        """The memory's relations."""
        return self.memory.catalogue

    def resolve(self, name: str) -> str | None:
        """The canonical key of the entity that `name` stands for in this namespace; None if it cannot be a name."""
        with self._state.lock:
            return self._key(name)

    def known_as(self, name: str) -> str:
        """The name under which this view knows what a language model calls `name`.

        It is `name` itself, unless there are facts about what the name loosely means, and either none about anything of
        that very name or the name is that of a whole family: who plays "football" plays association football.
        """
        key = self._key(name)
        if key is None:
            return name
        with self._state.lock:
            space, moment = self._space(), self._moment()
            loosely = space.entities.loosely(name)
            if loosely is None or (not loosely.family and self._has(space, key, moment)):
                return name
            return loosely.meant if self._has(space, space.entities.resolve(loosely.meant), moment) else name

    def lookup(self, subject: str, relation: str) -> tuple[Fact, ...]:
        """The live facts of a slot.

        Explicit facts come first; a single-valued slot that none holds, and a multi-valued one in any case, also shows
        what follows from inverse and symmetric relations.

        Args:
            subject: A name of the subject.
            relation: A relation's id, label or alias.

        Returns:
            The facts in the order of their ids; empty where the slot, the subject or the relation is unknown.
        """
        key = self._key(subject)
        if key is None:
            return ()
        found = relation if relation in self.catalogue else None
        if found is None and (resolved := self.catalogue.resolve(relation)) is not None:
            found = resolved.id
        if found is None:
            return ()
        with self._state.lock:
            space, moment = self._space(), self._moment()
            steps = self._slot_steps(space, key, found, moment)
            return tuple(self._fact(space, step) for step in steps)

    def facts_about(self, subject: str) -> tuple[Fact, ...]:
        """Every live fact whose subject is `subject`: first the explicit ones, then what is implied."""
        key = self._key(subject)
        if key is None:
            return ()
        with self._state.lock:
            space, moment = self._space(), self._moment()
            steps = [*self._explicit_steps(space, key, moment), *self._implied_steps(space, key, moment)]
            return tuple(self._fact(space, step) for step in steps)

    def facts_naming(self, obj: str) -> tuple[Fact, ...]:
        """Every live explicit fact whose object is `obj`, in the order of ids."""
        key = self._key(obj)
        if key is None:
            return ()
        with self._state.lock:
            space, moment = self._space(), self._moment()
            bags = self._bags(space, key, into=True).values()
            return tuple(self._show(space, record) for record in in_order(*bags) if self._shows(space, record, moment))

    def paths(self, subject: str, max_hops: int = 4, limit: int = 256) -> list[Path]:
        """Every chain of live facts that starts at an entity and comes to none twice.

        Args:
            subject: A name of the entity.
            max_hops: Most facts in a chain.
            limit: Most chains. First come those of explicit facts alone, then those with implied facts; each kind
                by length, then by the ids of the facts: so a hub's many implied facts crowd out no explicit one.

        Returns:
            Chains of 1 to `max_hops` facts.
        """
        key = self._key(subject)
        paths: list[Path] = []
        if key is None:
            return paths
        with self._state.lock:
            space, moment = self._space(), self._moment()
            for implied in (False, True):
                for chain in self._chains(space, key, max_hops, moment, implied=implied):
                    if len(paths) >= limit:
                        return paths
                    facts = tuple(self._fact(space, step) for step in chain)
                    paths.append(Path(facts[0].subject, facts))
        return paths

    def mentions(self, text: str) -> list[Mention]:
        """The entities of this view's facts that `text` names: the longest match, from left to right.

        Subjects, objects and their aliases are found whatever their case and punctuation. A span includes neither a
        leading article nor a possessive "'s". In scripts without spaces between words (and in Korean) a name is found
        anywhere in a run of characters; elsewhere it must be whole words.
        """
        with self._state.lock:
            space, moment, builtin = self._space(), self._moment(), _builtin_aliases()
            subjects, objects, *others = self._indexes(space)

            def known(key: str) -> bool:
                # A question has a hundred spans: a generator over all the indexes would double the time.
                if key in subjects or key in objects or key in builtin:
                    return True
                return bool(others) and any(key in index for index in others)

            def entity(span: str) -> str | None:
                key = self._key(span)
                return key if key is not None and self._has(space, key, moment) else None

            found = find_names(text, known, entity, max(space.longest_name, _longest_builtin()))
            return [Mention(start, end, text[start:end], key) for (start, end), key in found]

    def search(self, queries: Vectors, k: int) -> list[list[Hit]]:
        """The facts nearest to some vectors, by their statements and questions.

        Args:
            queries: float32 [q, d], rows of length 1.
            k: How many facts to find for each, at least 1.

        Returns:
            For each query at most k hits, best first, each fact once.
        """
        index = self._engine.recall.index(self.namespace)
        with self._state.lock:
            space = self._space()
            sparse = self._ids is not None or self._as_of is not None or 8 * space.live_count < len(index)
            within = self._vector_ids(space) if sparse else None
        if within is None:
            # A fact has two vectors, and both may be near; so may be those of facts that are not shown.
            for fetch in (2 * k + 16, 8 * k + 64, 32 * k + 256):
                scores, numbers = index.search(queries, fetch)
                hits = [self._hits(*row, k) for row in zip(scores, numbers, strict=True)]
                if fetch >= len(index) or all(len(found) == k for found in hits):
                    return hits
            with self._state.lock:
                within = self._vector_ids(self._space())
        scores, numbers = index.search(queries, 2 * k, within=within)
        return [self._hits(*row, k) for row in zip(scores, numbers, strict=True)]

    def facts(self) -> list[Fact]:
        """Every live explicit fact, in the order of ids."""
        with self._state.lock:
            space = self._space()
            return [self._show(space, record) for record in self._visible(space)]

    def relations(self) -> frozenset[str]:
        """Ids of the relations that some slot of this view has a fact of, explicit or implied; not free text."""
        with self._state.lock:
            space = self._space()
            plain = self._is_plain and not space.timed
            held = set(space.relations if plain else (record.relation for record in self._visible(space)))
        held.discard(FREE_TEXT)
        return frozenset(held.union(*(self._engine.converses(relation) for relation in held)))

    def __len__(self) -> int:
        with self._state.lock:
            space = self._space()
            if self._shows_all_live(space):
                return space.live_count
            return sum(1 for _ in self._visible(space))

    def __bool__(self) -> bool:
        return len(self) > 0

    # -- which records there are: called with the state's lock held ------------------------------------------

    @property
    def _is_plain(self) -> bool:
        return self._ids is None and self._as_of is None

    def _shows_all_live(self, space: NamespaceState) -> bool:
        # An alias may have joined two slots, and a fact's valid time may be over.
        return self._is_plain and not space.timed and not space.aliases

    def _space(self) -> NamespaceState:
        space = self._state.namespace(self.namespace)
        space.check_moment(self._as_of)
        return space

    def _moment(self) -> int:
        return self._engine.now() if self._valid_at is None else self._valid_at

    def _key(self, name: str) -> str | None:
        try:
            return self._space().entities.resolve(name)
        except InvalidFact:
            return None  # what cannot be a name names nothing

    def _edges(self, space: NamespaceState, ids: frozenset[int]) -> Edges:
        """The records of the mask, live or not, by entity."""
        if self._masked is None or self._masked[0] != self._state.position:
            edges = Edges()
            for number in sorted(number for number in ids if number in space.facts):
                edges.add(space.facts[number])
            self._masked = (self._state.position, edges)
        return self._masked[1]

    def _indexes(self, space: NamespaceState) -> list[Container[str]]:
        """Where a key occurs if it is that of an entity, or of an alias that is not built in."""
        aliases = [space.aliases] if space.aliases else []
        if self._ids is not None:
            edges = self._edges(space, self._ids)
            return [edges.out, edges.into, *aliases]
        ended = [] if self._as_of is None else [space.ended.out, space.ended.into]
        return [space.live.out, space.live.into, *aliases, *ended]

    def _bags(self, space: NamespaceState, key: str, *, into: bool = False) -> dict[str, list[Record]]:
        """What there may be at an entity, by relation; each list in the order of ids."""
        if self._ids is not None:
            edges = self._edges(space, self._ids)
            return (edges.into if into else edges.out).get(key, {})
        live = (space.live.into if into else space.live.out).get(key, {})
        if self._as_of is None:
            return live
        ended = (space.ended.into if into else space.ended.out).get(key, {})
        return {relation: list(in_order(live.get(relation, ()), ended.get(relation, ()))) for relation in live | ended}

    def _winners(self, relation: str, bag: Sequence[Record], moment: int) -> list[Record]:
        """Those of a slot's records that hold at a moment, in the order of ids."""
        if self._is_plain and len(bag) == 1:
            return [record for record in bag if record.holds_at(moment)]
        single = self._single_valued(relation)
        taken: set[str] = set()
        blocked: set[str] = set()
        winners: list[Record] = []
        for record in reversed(bag):
            rivals = "" if single else record.object_key
            if rivals in taken or not record.known_at(self._as_of) or not record.holds_at(moment):
                continue
            end = record.end_at(self._as_of)
            if end is not None and (end.reason == EndReason.RETRACTED or self._has_lost(end.superseded_by)):
                blocked.add(rivals)  # what it had superseded stays superseded
            passed = end is None or (
                self._ids is not None and end.reason == EndReason.SUPERSEDED and rivals not in blocked
            )
            if passed:
                taken.add(rivals)
                winners.append(record)
        winners.reverse()
        return winners

    def _has_lost(self, superseded_by: int | None) -> bool:
        """Whether the fact that superseded another has been erased: the other stays ended, as if it were retracted."""
        return superseded_by is not None and superseded_by not in self._space().facts

    def _shows(self, space: NamespaceState, record: Record, moment: int) -> bool:
        bag: Sequence[Record] = self._bags(space, record.subject_key).get(record.relation, ())
        if len(bag) > 1 and not self._single_valued(record.relation):
            bag = [rival for rival in bag if rival.object_key == record.object_key]
        return record in self._winners(record.relation, bag, moment)

    def _visible(self, space: NamespaceState) -> Iterator[Record]:
        """The records that are shown, in the order of ids; slot by slot, so that a large slot is judged once."""
        moment = self._moment()
        if self._ids is not None:
            keys: Iterable[str] = self._edges(space, self._ids).out
        else:
            keys = space.live.out if self._as_of is None else space.live.out.keys() | space.ended.out.keys()
        return in_order(
            *(self._winners(relation, bag, moment) for key in keys for relation, bag in self._bags(space, key).items())
        )

    def _has(self, space: NamespaceState, key: str, moment: int) -> bool:
        """Whether a fact that is shown has the entity at either end."""
        return any(
            self._shows(space, record, moment)
            for into in (False, True)
            for bag in self._bags(space, key, into=into).values()
            for record in bag
        )

    def _single_valued(self, relation: str) -> bool:
        try:
            return relation != FREE_TEXT and self.catalogue.get(relation).single_valued
        except UnknownRelation:
            return False

    # -- steps from an entity: called with the state's lock held ---------------------------------------------

    def _slot_steps(self, space: NamespaceState, key: str, relation: str, moment: int) -> list[_Step]:
        bag = self._bags(space, key).get(relation, ())
        explicit = [_Step(record, None, record.object_key) for record in self._winners(relation, bag, moment)]
        converses = self._engine.converses(relation)
        if not converses or (explicit and self._single_valued(relation)):
            return explicit
        taken = {step.target for step in explicit}
        incoming = self._bags(space, key, into=True)
        implied: dict[str, _Step] = {}
        definition = self.catalogue.get(relation)
        for record in in_order(*(incoming.get(converse, ()) for converse in converses)):
            if record.subject_key not in taken and self._shows(space, record, moment):
                target = "" if definition.single_valued else record.subject_key
                implied.pop(target, None)
                implied[target] = _Step(record, definition, record.subject_key)
        return [*explicit, *implied.values()]

    def _explicit_steps(self, space: NamespaceState, key: str, moment: int) -> list[_Step]:
        bags = self._bags(space, key)
        shown = (self._winners(relation, bag, moment) for relation, bag in bags.items() if relation != FREE_TEXT)
        return [_Step(record, None, record.object_key) for record in in_order(*shown)]

    def _implied_steps(self, space: NamespaceState, key: str, moment: int) -> list[_Step]:
        incoming = self._bags(space, key, into=True)
        relations = sorted({converse for relation in incoming for converse in self._engine.converses(relation)})
        return [
            step
            for relation in relations
            for step in self._slot_steps(space, key, relation, moment)
            if step.relation is not None
        ]

    def _chains(
        self, space: NamespaceState, key: str, max_hops: int, moment: int, *, implied: bool
    ) -> Iterator[tuple[_Step, ...]]:
        """Chains of explicit steps, or those with at least one implied step; the shortest first."""
        frontier: list[tuple[tuple[_Step, ...], str, frozenset[str]]] = [((), key, frozenset([key]))]
        for _ in range(max_hops):
            reached = []
            for chain, at, seen in frontier:
                steps = self._explicit_steps(space, at, moment)
                if implied:
                    steps += self._implied_steps(space, at, moment)
                for step in steps:
                    if step.target in seen:
                        continue
                    longer = (*chain, step)
                    if not implied or any(part.relation is not None for part in longer):
                        yield longer
                    reached.append((longer, step.target, seen | {step.target}))
            frontier = reached

    # -- from records to values ------------------------------------------------------------------------------

    def _show(self, space: NamespaceState, record: Record) -> Fact:
        return space.fact(record) if self._is_plain else record.fact(None)

    def _fact(self, space: NamespaceState, step: _Step) -> Fact:
        return self._show(space, step.record) if step.relation is None else step.record.implied_fact(step.relation)

    def _vector_ids(self, space: NamespaceState) -> npt.NDArray[np.int64]:
        if self._shows_all_live(space):
            return vector_ids(space.live_ids())
        return vector_ids(record.id for record in self._visible(space))

    def _hits(self, scores: Vectors, numbers: npt.NDArray[np.int64], k: int) -> list[Hit]:
        best: dict[int, float] = {}
        for score, number in zip(scores.tolist(), numbers.tolist(), strict=True):
            if number >= 0:
                best.setdefault(number // 2, score)
        with self._state.lock:
            space, moment = self._space(), self._moment()
            records = ((space.facts.get(number), score) for number, score in best.items())
            hits = [
                Hit(self._show(space, record), score)
                for record, score in records
                if record is not None and self._shows(space, record, moment)
            ]
        return hits[:k]


@lru_cache(maxsize=1)
def _builtin_aliases() -> frozenset[str]:
    return frozenset(normalise(alias) for alias, _ in EntityTable.builtin().items())


@lru_cache(maxsize=1)
def _longest_builtin() -> int:
    return max(map(len, _builtin_aliases()), default=0)
