"""The edit memory: assert, supersede, retract and undo facts; read them now or as they stood; find them by meaning.

`EditMemory` is the public face. A fact that is given is checked (`intake`), a write is turned into entries of the log
(`draft`), made durable (`store`), and applied to the state (`state`) and the index (`recall`); `engine` keeps these in
step. Reading for answers is `MemoryView`'s.

Knows nothing of language models or strategies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Reversible, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from memedit.errors import BadRow, InvalidFact, UnknownFact, UnknownRelation
from memedit.memory.catalogue import Catalogue
from memedit.memory.compaction import DeletionReceipt, compact, erase
from memedit.memory.draft import Draft, Outcome
from memedit.memory.embedder import Embedder
from memedit.memory.engine import Engine
from memedit.memory.fact import DEFAULT_NAMESPACE, Fact, FactInput, Receipt, Relation
from memedit.memory.intake import Prepared, aware_microseconds, prepare
from memedit.memory.recall import Progress, default_embedder
from memedit.memory.state import NamespaceState, Record
from memedit.memory.store import Transaction, Vector
from memedit.memory.view import MemoryView as MemoryView

Vectors = npt.NDArray[np.float16 | np.float32]

_LENGTH_TOLERANCE = 0.01


class EditMemory:
    """A durable memory of facts, by namespace. Safe to use from several threads and several processes.

    Args:
        path: A SQLite file (made if it is not there), ":memory:", or a SQLAlchemy URL of SQLite or PostgreSQL. The
            index's snapshot lies beside the file, as ``<file>.index``, and that of a long log's state as
            ``<file>.state``; both may be deleted, and are made again. With PostgreSQL they lie in a folder of this machine, the
            environment variable MEMEDIT_INDEXES or one in the user's cache folder.
        catalogue: The relations to begin with; what the memory's own log defines is added to it.
        embedder: Makes the vectors for `MemoryView.search`; all-MiniLM-L6-v2 by default.
        namespace: The namespace of calls that name none.
        embed_on_write: Whether writes embed their texts. If not, the first search does.
        clock: Tells the time, as an aware datetime.
        busy_timeout: Seconds to wait while another process writes.
        in_database: Namespaces whose vectors do not fit this process's memory: PostgreSQL searches them, by pgvector; "*"
            stands for all. Processes need not agree.

    Attributes:
        catalogue: The relations.
        embedder: The embedder.
        namespace: The default namespace. It may be read before anything is written to it.

    Raises:
        StoreError: The database cannot be used: it is foreign, damaged, or not writable. It is left untouched.

    Example:
        >>> memory = EditMemory(embed_on_write=False)
        >>> receipt = memory.assert_fact(FactInput(subject="France", relation="capital", object="Lyon"))
        >>> memory.view().lookup("france", "P36")[0].object
        'Lyon'
        >>> memory.close()
    """

    def __init__(
        self,
        path: str | Path = ":memory:",
        *,
        catalogue: Catalogue | None = None,
        embedder: Embedder | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        embed_on_write: bool = True,
        clock: Callable[[], datetime] | None = None,
        busy_timeout: float = 10.0,
        in_database: Collection[str] = (),
    ) -> None:
        self.catalogue = Catalogue.default() if catalogue is None else catalogue
        self.embedder = default_embedder() if embedder is None else embedder
        self.namespace = namespace
        self._embed_on_write = embed_on_write
        self._closed = False
        self._engine = Engine(
            path,
            catalogue=self.catalogue,
            embedder=self.embedder,
            namespace=namespace,
            clock=_utc_now if clock is None else clock,
            busy_timeout=busy_timeout,
            in_database=in_database,
        )

    # -- writing ---------------------------------------------------------------------------------------------

    def assert_fact(self, fact: FactInput, *, namespace: str | None = None) -> Receipt:
        """Record a fact; on disk when this returns.

        A fact that is there already changes nothing. A new object in a single-valued slot supersedes the old one for
        the new fact's valid time; what lies outside that time is kept, as new facts of the same content. A sentence
        that cannot be parsed is kept as free text, and the receipt's notice says so.

        Raises:
            InvalidFact: It cannot be recorded as it is. Times without a time zone are refused.
            UnknownRelation: Its relation looks like a Wikidata id ("P99999") that the catalogue does not have. Any
                other new name is defined on the fly.
            StoreBusy: Another process held the database longer than the timeout.
        """
        return self._assert([prepare(fact, Catalogue(parent=self.catalogue))], namespace)[0]

    def assert_facts(
        self, facts: Iterable[FactInput], *, namespace: str | None = None, progress: Progress | None = None
    ) -> list[Receipt]:
        """Record facts in one transaction: all or none. Later ones see earlier ones.

        Args:
            facts: The facts.
            namespace: The namespace; the default one if None.
            progress: Is told (done, total) of the texts while they are embedded, which is what takes long.

        Raises:
            BadRow: One of them cannot be recorded; nothing was written.
            StoreBusy: Another process held the database longer than the timeout.
        """
        prepared = self._prepared(facts)
        return self._assert(prepared, namespace, progress) if prepared else []

    def load_facts(
        self, facts: Iterable[FactInput], vectors: Vectors | None = None, *, namespace: str | None = None
    ) -> list[int]:
        """Record facts as `assert_facts` does, in a fraction of its time: with vectors given, and without receipts.

        The facts are durable and can be looked up when this returns. If a search has been made in this session they are in
        the index, too; else the next search takes them in. Load a million in parts of some 10,000.

        Args:
            facts: The facts.
            vectors: Floats [n, 2, d]: what `embedder` gives for each fact's statement and question (of free text, which has
                no question, the second is passed over). If None, the texts are embedded as those of any other write.
            namespace: The namespace; the default one if None.

        Returns:
            The id of each fact, or of the one that was there already.

        Raises:
            BadRow: One of them cannot be recorded; nothing was written.
            InvalidFact: The vectors have another shape, or are not all finite and of length 1.
            StoreBusy: Another process held the database longer than the timeout.
        """
        prepared = self._prepared(facts)
        if not prepared:
            return []
        given = None if vectors is None else _by_text(prepared, vectors, self.embedder.dimension)
        return [outcome.fact for outcome in self._record(prepared, namespace, given)]

    def retract(self, fact_id: int, *, namespace: str | None = None) -> Fact:
        """Cease to believe a fact. What it had superseded stays superseded; to get that back, undo instead.

        Returns:
            The fact, ended.

        Raises:
            UnknownFact: The namespace has no such fact.
            AlreadyRetracted: The fact is not live.
            UnknownNamespace: Nothing was ever written to the namespace.
        """
        self._engine.write(namespace, lambda draft, _: draft.retract(fact_id), existing=True)
        return self.get(fact_id, namespace=namespace)

    def undo(self, *, namespace: str | None = None) -> list[Fact]:
        """Undo the last write (a fact, a batch or a retraction) not yet undone; again, the one before it.

        Facts that it recorded are ended (`EndReason.UNDONE`); facts that it ended are live again, under their own ids.
        Both are entries of the log, so ``as_of`` still shows what was believed in between. Aliases and relations
        stay.

        Returns:
            The facts touched, in the order of their ids.

        Raises:
            NothingToUndo: There is no such write.
            UnknownNamespace: Nothing was ever written to the namespace.
        """

        def plan(draft: Draft, transaction: Transaction) -> list[int]:
            return draft.undo(transaction.entries_of(draft.to_undo()))

        touched = self._engine.write(namespace, plan, existing=True)
        return [self.get(fact_id, namespace=namespace) for fact_id in touched]

    def add_alias(self, entity: str, alias: str, *, namespace: str | None = None) -> None:
        """Make `alias` another name of an entity, for facts recorded before and after, and at all times.

        Raises:
            InvalidFact: One is no name, or `alias` is already a name of another entity.
        """
        self._engine.write(namespace, lambda draft, _: draft.add_alias(entity, alias))

    def define_relation(self, relation: Relation | str) -> Relation:
        """Add a relation to the catalogue, for good: a whole one (replacing any of its id), or one by name.

        Relations belong to the memory, not to a namespace.

        Raises:
            InvalidFact: The name is none, or a template lacks a place for subject or object.
        """
        made = Catalogue(parent=self.catalogue).define(relation)
        self._engine.write(None, lambda draft, _: draft.define([made], self._engine.known_relations()))
        return self.catalogue.get(made.id)

    # -- erasing ---------------------------------------------------------------------------------------------

    def compact(
        self, before: datetime, *, namespace: str | None = None, everywhere: bool = False, trial: bool = False
    ) -> DeletionReceipt:
        """Erase for good the facts that had ended by some time: superseded, retracted or undone.

        Reads as of earlier moments are refused from then on, and undo does not reach behind the last write that
        something was erased of. The hash chain goes on holding. Index and files are written anew, which takes its time in
        a large memory; PostgreSQL keeps readers waiting meanwhile.

        Args:
            before: The time, with a time zone.
            namespace: The namespace; the default one if None.
            everywhere: Whether to do it in every namespace instead.
            trial: Whether to erase nothing, and only tell which facts it would be.

        Raises:
            StoreBusy: Others wrote to the database for longer than the timeout.
            UnknownNamespace: Nothing was ever written to the namespace.
            InvalidFact: The time has no time zone.
        """
        moment = aware_microseconds(before, "before")
        return compact(self._engine, self._named(namespace, everywhere=everywhere), moment, trial=trial)

    def erase(
        self, subject: str, *, namespace: str | None = None, everywhere: bool = False, trial: bool = False
    ) -> DeletionReceipt:
        """Erase for good all that a namespace holds about an entity, as who is written about may ask for.

        That is: facts, live or not, with the entity at either end or named in their texts, and its aliases. Of what was
        believed in the past the rest can still be read. For what else is as with `compact`, see there.

        Args:
            subject: Any name of the entity.
            namespace: The namespace; the default one if None.
            everywhere: Whether to do it in every namespace instead.
            trial: Whether to erase nothing, and only tell which facts it would be.

        Raises:
            UnknownEntity: There is nothing about it.
            StoreBusy: Others wrote to the database for longer than the timeout.
            UnknownNamespace: Nothing was ever written to the namespace.
            InvalidFact: `subject` is no name.
        """
        return erase(self._engine, self._named(namespace, everywhere=everywhere), subject, trial=trial)

    # -- reading ---------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Sequence number of the last entry of the log that this process has taken in, its own writes included."""
        return self._engine.state.position

    def view(
        self,
        *,
        namespace: str | None = None,
        ids: Iterable[int] | None = None,
        as_of: datetime | None = None,
        valid_at: datetime | None = None,
        must_exist: bool = False,
        at_least: int | None = None,
        timeout: float = 5.0,
    ) -> MemoryView:
        """A reading of one namespace.

        Args:
            namespace: The namespace; the default one if None.
            ids: A mask: read as if only these facts had ever been asserted.
            as_of: Transaction time: read what was believed then. The names of entities are today's.
            valid_at: Valid time: read what holds then. By default `as_of`, or now.
            must_exist: Whether a namespace that nothing was written to is an error; else it reads as empty.
            at_least: A log position (`Receipt.position`, `position`) that must have been taken in: so a caller reads
                its own writes whichever process on the same database they went through.
            timeout: Seconds to wait for `at_least`.

        Raises:
            UnknownNamespace: With `must_exist`.
            PositionNotReached: The log did not come to `at_least` in time.
            InvalidFact: A time has no time zone.
            HistoryCompacted: Something that was believed at `as_of` has been erased since; a view that was made before
                that raises it when it is read.
        """
        if at_least is None:
            self._engine.follow()
        else:
            self._engine.reach(at_least, timeout)
        if must_exist:
            self._engine.space(namespace)
        name, moment = self.namespace if namespace is None else namespace, _time(as_of, "as_of")
        with self._engine.state.lock:
            self._engine.state.namespace(name).check_moment(moment)
        return MemoryView(self, name, ids, moment, _time(valid_at, "valid_at"))

    def get(self, fact_id: int, *, namespace: str | None = None) -> Fact:
        """A fact, live or not.

        Raises:
            UnknownFact: The namespace has no such fact.
            UnknownNamespace: Nothing was ever written to the namespace.
        """
        self._engine.follow()
        with self._engine.state.lock:
            space = self._engine.space(namespace)
            if fact_id not in space.facts:
                raise UnknownFact(f"The namespace {space.name!r} has no fact {fact_id}.", "List its facts to see ids.")
            return space.fact(space.facts[fact_id])

    def history(
        self, subject: str | None = None, relation: str | None = None, *, namespace: str | None = None
    ) -> list[Fact]:
        """Everything ever recorded and not erased since, live or not, oldest first.

        Args:
            subject: Only facts with this subject, under any of its names.
            relation: Only facts of this relation (id, label or alias).
            namespace: The namespace; the default one if None.

        Raises:
            UnknownNamespace: Nothing was ever written to the namespace.
            UnknownRelation: The catalogue does not have the relation.
        """
        return self.facts(subject=subject, relation=relation, live=False, namespace=namespace)

    def facts(
        self,
        *,
        subject: str | None = None,
        relation: str | None = None,
        object: str | None = None,  # noqa: A002
        text: str | None = None,
        live: bool = True,
        as_of: datetime | None = None,
        valid_at: datetime | None = None,
        limit: int | None = None,
        after: int | None = None,
        newest_first: bool = False,
        namespace: str | None = None,
    ) -> list[Fact]:
        """The recorded facts that pass every filter given, in the order of their ids.

        Unlike a view, this lists facts whatever their valid time, unless `valid_at` is given, and infers nothing.

        Args:
            subject: A name of the subject.
            relation: The relation's id, label or alias.
            object: A name of the object.
            text: Part of the statement, in any case.
            live: Whether to leave out facts that have ended.
            as_of: Transaction time; the facts are given as they stood then.
            valid_at: Valid time.
            limit: Most facts to return.
            after: Only facts that come after this id in the order; with `limit`, this pages through them.
            newest_first: Whether to turn the order round.
            namespace: The namespace; the default one if None.

        Raises:
            UnknownNamespace: Nothing was ever written to the namespace.
            UnknownRelation: The catalogue does not have the relation.
            InvalidFact: A time has no time zone, or a name is no name.
            HistoryCompacted: Something that was believed at `as_of` has been erased since.
        """
        moment, valid = _time(as_of, "as_of"), _time(valid_at, "valid_at")
        relation_id = (
            None if relation is None else (self.catalogue.resolve(relation) or self.catalogue.get(relation)).id
        )
        needle = None if text is None else " ".join(text.split()).casefold()
        self._engine.follow()
        with self._engine.state.lock:
            space = self._engine.space(namespace)
            space.check_moment(moment)
            found: list[Fact] = []
            records = _candidates(space, subject, object)
            for record in reversed(records) if newest_first else records:
                if limit is not None and len(found) >= limit:
                    break
                end = record.end_at(moment)
                if (
                    record.known_at(moment)
                    and not (live and end is not None)
                    and (relation_id is None or record.relation == relation_id)
                    and (after is None or (record.id < after if newest_first else record.id > after))
                    and (valid is None or record.holds_at(valid))
                    and (needle is None or needle in record.statement.casefold())
                ):
                    found.append(space.fact(record) if moment is None else record.fact(end))
        return found

    def count(self, namespace: str | None = None) -> int:
        """How many live facts a namespace has.

        Raises:
            UnknownNamespace: Nothing was ever written to the namespace.
        """
        self._engine.follow()
        with self._engine.state.lock:
            return self._engine.space(namespace).live_count

    def namespaces(self) -> list[str]:
        """The namespaces that were ever written to, by name."""
        self._engine.follow()
        with self._engine.state.lock:
            return sorted(self._engine.state.namespaces)

    def aliases(self, entity: str, *, namespace: str | None = None) -> tuple[str, ...]:
        """The other names of an entity, built-in ones included.

        Raises:
            UnknownNamespace: Nothing was ever written to the namespace.
            InvalidFact: `entity` is no name.
        """
        self._engine.follow()
        with self._engine.state.lock:
            return self._engine.space(namespace).entities.aliases(entity)

    # -- the index, and the end ------------------------------------------------------------------------------

    def embed_pending(self, progress: Progress | None = None) -> int:
        """Embed now what a first search would, so that it need not; `progress` is told (done, total) facts.

        Returns:
            How many facts the index has gained.
        """
        self._engine.follow()
        return self._engine.recall.embed_waiting(progress)

    def rebuild_index(self) -> None:
        """Make the index anew from the log and the vectors kept with it, and save it."""
        self._engine.follow()
        self._engine.recall.rebuild()

    def save_index(self) -> None:
        """Write the index's snapshot, so that opening the memory need not make it again; of a large memory the state's, too.

        Raises:
            ReadOnlyStore: The folder cannot be written.
        """
        self._engine.save()

    def close(self) -> None:
        """Save the index if it has grown enough to be worth it, and let go of the database. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- within the package ----------------------------------------------------------------------------------

    def _named(self, namespace: str | None, *, everywhere: bool) -> list[str]:
        return self.namespaces() if everywhere else [self.namespace if namespace is None else namespace]

    def _prepared(self, facts: Iterable[FactInput]) -> list[Prepared]:
        relations = Catalogue(parent=self.catalogue)
        prepared = []
        for row, fact in enumerate(facts, 1):
            try:
                prepared.append(prepare(fact, relations))
            except (InvalidFact, UnknownRelation) as error:
                raise BadRow(error.problem, error.mend, row=row) from error
        return prepared

    def _assert(
        self, facts: Sequence[Prepared], namespace: str | None, progress: Progress | None = None
    ) -> list[Receipt]:
        outcomes = self._record(facts, namespace, None, progress)
        with self._engine.state.lock:
            space = self._engine.space(namespace)
            return [
                Receipt(
                    fact=space.fact(space.facts[outcome.fact]),
                    status=outcome.status,
                    replaced=tuple(space.fact(space.facts[number]) for number in outcome.replaced),
                    notice=fact.notice,
                    position=self._engine.state.position,
                )
                for fact, outcome in zip(facts, outcomes, strict=True)
            ]

    def _record(
        self,
        facts: Sequence[Prepared],
        namespace: str | None,
        vectors: Mapping[str, Vector] | None,
        progress: Progress | None = None,
    ) -> list[Outcome]:
        relations = {fact.relation_id: fact.relation for fact in facts if fact.relation is not None}
        if vectors is None:
            texts = [text for fact in facts for text in (fact.statement, fact.question)]
            # Before the transaction: nobody else can write while it is open.
            vectors = self._engine.recall.embed(texts, progress) if self._embed_on_write else {}

        def plan(draft: Draft, transaction: Transaction) -> list[Outcome]:
            draft.define(relations.values(), self._engine.known_relations())
            outcomes = [draft.record(fact) for fact in facts]
            transaction.keep_vectors(self.embedder.name, vectors)
            return outcomes

        return self._engine.write(namespace, plan)


def _by_text(facts: Sequence[Prepared], vectors: Vectors, dimension: int) -> dict[str, Vector]:
    """Given vectors by the texts they belong to."""
    given = np.asarray(vectors, np.float32)
    if given.shape != (len(facts), 2, dimension):
        raise InvalidFact(
            f"The vectors of {len(facts)} facts have the shape {list(given.shape)}.",
            f"Give the statement's and the question's of each: [{len(facts)}, 2, {dimension}].",
        )
    asked = np.array([bool(fact.question) for fact in facts])
    lengths = np.linalg.norm(given, axis=2)
    lengths[~asked, 1] = 1
    if not (np.abs(lengths - 1) < _LENGTH_TOLERANCE).all():  # also where one is not a number
        raise InvalidFact("Not all vectors have length 1.", "Divide each by its length; the embedder gives them so.")
    halves = given.astype(np.float16)
    made: dict[str, Vector] = {}
    for fact, (statement, question) in zip(facts, halves, strict=True):
        made[fact.statement] = statement
        if fact.question:
            made[fact.question] = question
    return made


def _candidates(space: NamespaceState, subject: str | None, obj: str | None) -> Reversible[Record]:
    """The records that a filter by entities leaves to be looked at, in the order of ids."""
    if subject is None and obj is None:
        return space.facts.values()
    found: set[int] | None = None
    for name, into in ((subject, False), (obj, True)):
        if name is not None:
            key = space.entities.resolve(name)
            sides = [edges.into if into else edges.out for edges in (space.live, space.ended)]
            numbers = {record.id for side in sides for bag in side.get(key, {}).values() for record in bag}
            found = numbers if found is None else found & numbers
    return [space.facts[number] for number in sorted(found or ())]


def _time(moment: datetime | None, name: str) -> int | None:
    return None if moment is None else aware_microseconds(moment, name)


def _utc_now() -> datetime:
    return datetime.now(UTC)
