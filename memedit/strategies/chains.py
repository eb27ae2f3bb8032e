"""The chains of relations that a question may ask for: what edits offer, what the planner proposes, and the two joined.

Questions skip hops and plans guess: "the CEO of iLife" is that of its developer, "his sport" that of the position he
plays. So a plan is also realised on the edits there are (`realise`), and spliced with the paths through them. Each whole
chain is then scored against the question. Knows nothing of beliefs or of which chain is walked; see `memedit.strategies.walk`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from memedit.memory.fact import EntityType, Fact, Relation
from memedit.memory.naming import kind_of
from memedit.scope_text import TITLES
from memedit.strategies.base import Plan, Step, score_paths

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

MAX_HOPS = 4
MAX_CHAINS = 64
"""Most chains scored from one start entity."""
BRIDGE = 0.5
"""What a plan's probability is multiplied by for each hop that the question left out and an edit supplied."""
BRIDGE_TO_BELIEF = 0.1
"""The same where the chain then goes on with beliefs: no edit bears it out."""
UNLIKELY = 0.01
"""The planner's confidence below which a chain that begins with a belief is not looked at where no other may come to an edit:
scoring it would not lift it to what `Walk` asks of one."""

Chain = tuple[str, ...]
Span = tuple[int, int]
Kinds = frozenset[EntityType]


class Start(NamedTuple):
    """An entity that the chain may start from, and where the question names it."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chain from a start entity.

    Attributes:
        start: Where it starts.
        chain: The relation ids.
        edited: Leading hops that edits hold.
        possible: Whether some hop is, or after beliefs may turn out to be, edited.
        planner: Who proposed it: edited facts (``paths``), the planner (``catalogue``) or the base model (``model``).
        probability: That the question asks for this chain, in [0, 1].
    """

    start: Start
    chain: Chain
    edited: int
    possible: bool
    planner: str
    probability: float = 0.0


class _Begun(NamedTuple):
    """The chains from one start entity: those of edits, those planned, and both with what can be spliced of them."""

    start: Start
    edited: list[Chain]
    planned: list[Chain]
    chains: list[Chain]


def weigh(question: str, view: MemoryView, plans: Sequence[Plan]) -> Step[list[Candidate]]:
    """Every candidate chain for a question with its probability; where none of them can come to an edit, it is 0."""
    begun = [one for one in (_begin(view, *each) for each in starts(question, view, plans).items()) if one.chains]
    relations = view.relations()
    by_model = {plan.relations: plan.confidence for plan in plans if plan.by == "model"}
    likely = {plan.relations for plan in plans if plan.confidence >= UNLIKELY}
    worth_scoring = any(
        held_hops(view, one.start.name, chain) != 0 or (chain in likely and _may_meet(chain, relations))
        for one in begun
        for chain in one.chains
    )
    candidates: list[Candidate] = []
    for start, edited, planned, chains in begun:
        scores = (yield from score_paths(question, start.span, chains)) if worth_scoring else [0.0] * len(chains)
        scored = dict(zip(chains, scores, strict=True))
        scored |= {chain: max(scored[chain], sure) for chain, sure in by_model.items() if chain in scored}
        weighed = dict(scored)
        made = dict.fromkeys(by_model, "model") | dict.fromkeys(edited, "paths")
        for plan in planned:
            whole = realise(view, start.name, plan)
            if whole != plan and plan in scored:
                weighed.pop(plan, None)  # it means the same, and cannot be followed as it stands
                rate = BRIDGE if held_hops(view, start.name, whole) == len(whole) else BRIDGE_TO_BELIEF
                bridged = scored[plan] * rate ** (len(whole) - len(plan))
                weighed[whole] = max(bridged, weighed.get(whole, 0.0))
                made.setdefault(whole, made.get(plan, "catalogue"))
        for chain, score in weighed.items():
            held = held_hops(view, start.name, chain)
            if held < 0:
                continue
            possible = held > 0 or _may_meet(chain, relations)
            candidates.append(Candidate(start, chain, held, possible, made.get(chain, "catalogue"), score))
    return candidates


def _begin(view: MemoryView, start: Start, planned: list[Chain]) -> _Begun:
    edited = [path.relations for path in view.paths(start.name, MAX_HOPS)]
    chains = list(dict.fromkeys([*edited, *planned, *splices(edited, planned, MAX_HOPS)]))[:MAX_CHAINS]
    return _Begun(start, edited, planned, chains)


def _may_meet(chain: Chain, relations: Collection[str]) -> bool:
    """Whether a chain that begins with a belief may come to an edit later, going by the relations that edits have."""
    return any(relation in relations for relation in chain[1:])


def realise(view: MemoryView, start: str, plan: Chain, room: int = MAX_HOPS) -> Chain:
    """A plan with the hops that its question left out, as far as edits supply them.

    Where no edit holds the next hop, an edit on the entity may lead to what the hop is meant to start from: either the
    relation is inherited through the edit's (the sport of a player is that of the position played), or it cannot hold of
    the entity at all and does hold of such things as the edit leads to (a book speaks no language, its author does).

    Returns:
        `plan` itself where nothing was left out, or where the whole would be longer than `room`.
    """
    chain: list[str] = []
    entity, arrived = start, Kinds()
    for place, name in enumerate(plan):
        relation = view.catalogue.get(name)
        facts = view.lookup(entity, name)
        if not facts and (bridge := _bridge(view, entity, arrived, relation)):
            chain.append(bridge.relation)
            entity = bridge.object
            if bridge.relation in relation.inherited_through and kind_of(entity) in relation.object_types:
                arrived = relation.object_types
                continue  # what is in the region of Uganda is in the country of Uganda
            facts = view.lookup(entity, name)
        chain.append(name)
        if not facts:
            chain += plan[place + 1 :]
            break
        entity, arrived = facts[-1].object, relation.object_types
    return tuple(chain) if len(chain) <= room else plan


def _bridge(view: MemoryView, entity: str, arrived: Kinds, relation: Relation) -> Fact | None:
    """The edit on an entity that leads to where a relation holds; one that leads to an edit of the relation goes first."""
    own = [fact for fact in view.facts_about(entity) if fact.implied_from is None and not fact.is_free_text]
    fits = _fits(relation.subject_types, [view.catalogue.get(fact.relation) for fact in own], arrived)
    leads = [
        fact
        for fact in own
        if fact.relation in relation.inherited_through
        or (not fits and relation.subject_types & view.catalogue.get(fact.relation).object_types)
    ]
    return max(leads, key=lambda fact: bool(view.lookup(fact.object, relation.id)), default=None)


def _fits(wanted: Kinds, held: Iterable[Relation], arrived: Kinds) -> bool:
    """Whether an entity may be of a wanted kind, going by the relations that hold of it and the one that led to it."""
    said = (arrived, *(relation.subject_types for relation in held))
    known = [kinds for kinds in said if kinds and "thing" not in kinds]
    if not known or not wanted or "thing" in wanted:
        return True
    common = frozenset.intersection(*known)
    return bool(wanted & (common or frozenset.union(*known)))


def starts(question: str, view: MemoryView, plans: Sequence[Plan]) -> dict[Start, list[Chain]]:
    """The entities a chain may start from, each with the chains planned from it.

    A name that the memory knows is passed over where it is only a part of the name that the planner sees there:
    "Christianity" is none of "Who wrote Mere Christianity?".
    """
    named = [(mention.text, (mention.start, mention.end)) for mention in view.mentions(question)]
    found: dict[Start, list[Chain]] = {
        Start(name, span): []
        for name, span in named
        if not any(_is_part(question, span, plan.span) for plan in plans[:1])
    }
    for plan in plans:
        same = [start for start in found if overlap(start.span, plan.span)]
        for start in same or [Start(plan.start, plan.span)]:
            found.setdefault(start, []).append(plan.relations)
    return found


def splices(edited: Sequence[Chain], planned: Sequence[Chain], room: int) -> list[Chain]:
    """Edited paths continued by the rest of a plan that shares their last relation.

    Questions skip hops: for "the capital of the country the sport of PLAYER comes from", edits may lead from PLAYER
    over a position to the sport, and the plan's "country, capital" goes on from there.

        >>> splices([("position", "sport")], [("sport", "country", "capital")], 4)
        [('position', 'sport', 'country', 'capital')]
    """
    joined = []
    for path in edited:
        for chain in planned:
            for place, relation in enumerate(chain):
                whole = path + chain[place + 1 :]
                if relation == path[-1] and len(whole) <= room and whole not in (path, chain):
                    joined.append(whole)
    return joined


def held_hops(view: MemoryView, start: str, chain: Chain) -> int:
    """How many leading hops of a chain edits hold; -1 where they lead back to where the chain has been."""
    entity = start
    seen = {view.resolve(entity)}
    for place, relation in enumerate(chain):
        facts = view.lookup(entity, relation)
        if not facts:
            return place
        entity = facts[-1].object
        key = view.resolve(entity)
        if key in seen:
            return -1
        seen.add(key)
    return len(chain)


def _is_part(question: str, inner: Span, outer: Span) -> bool:
    """Whether the text at `outer` is a longer name than that at `inner`: it has a further name word that is no title."""
    if not (outer[0] <= inner[0] and inner[1] <= outer[1]):
        return False
    rest = f"{question[outer[0] : inner[0]]} {question[inner[1] : outer[1]]}"
    if re.search(r"[.!?;:]\s|\n", rest):  # no name goes on into the next sentence
        return False
    return any(word not in TITLES for word in re.findall(r"\b[A-Z0-9]\w*", rest))


def overlap(a: Span, b: Span) -> bool:
    """Whether two character spans share a character."""
    return a[0] < b[1] and b[0] < a[1]
