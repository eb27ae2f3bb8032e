"""Our own strategy: weigh whole paths, walk the best one, and ask the base model only for what no edit holds.

Candidates are chains of relations from a start entity: every path through edited facts, the planner's chains, and
splices of the two (questions skip hops that edits spell out). Each whole chain is scored against the question; chains
that use an edit compete with chains that use none, and where one of the latter wins, the question goes to the base
model untouched. The winner is walked: an edit where a slot holds one, else a belief, asked for one hop at a time. A
belief may arrive at an entity that has edits of its own, so the rest of the chain is weighed again there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from memedit.answer import Answer, Hop, HopSource
from memedit.counterfactual import answer_text
from memedit.memory.fact import Fact
from memedit.models.base import Sampling
from memedit.prompts.belief import BELIEF_STOP, BELIEF_TOKENS, belief_prompt, parse_belief
from memedit.strategies.base import (
    Plan,
    Resolution,
    Scoped,
    Step,
    Steps,
    complete,
    make_plans,
    retrieve,
    score_paths,
)
from memedit.strategies.direct import ask_base

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

MAX_HOPS = 4
MAX_CHAINS = 64
"""Most chains scored from one start entity."""

Chain = tuple[str, ...]
Span = tuple[int, int]


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
        planned: Whether the planner proposed it (otherwise edited facts did).
        probability: That the question asks for this chain, in [0, 1].
    """

    start: Start
    chain: Chain
    edited: int
    possible: bool
    planned: bool
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Walk:
    """The path-weighing strategy.

    Chains are compared by their log-odds plus a bonus for what is known of them: of two chains that fit about
    equally, edits tell which one exists. The defaults were chosen on 200 cases of MQuAKE-CF-3k-dev that the planner
    was not trained on.

    Attributes:
        whole_bonus: For a chain whose every hop an edit holds.
        part_bonus: For a chain whose first hops edits hold.
        least: Log-odds, bonus included, below which no chain is walked.
        scope_threshold: Least probability at which a fact that no chain reaches is used on the scope classifier's word.
    """

    whole_bonus: float = 4.0
    part_bonus: float = 1.5
    least: float = -1.5
    scope_threshold: float = 0.5

    @property
    def name(self) -> str:
        """``walk``."""
        return "walk"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        found = yield from self.resolve(question, view)
        if not found.facts:
            return (yield from ask_base(question, self.name, found.probability))
        text = yield from answer_text(question, found.facts, found.hops)
        return Answer(question, text, found.hops, found.facts, found.probability, self.name, found.planner)

    def resolve(self, question: str, view: MemoryView) -> Step[Resolution]:
        """See `memedit.strategies.base.Resolver`."""
        if len(view) == 0:
            return Resolution()
        scoped = yield from retrieve(view, question)
        plans = yield from make_plans(view, question)
        candidates = yield from weigh(question, view, plans)
        best = self._choose(candidates)
        if best is not None:
            hops, facts = yield from self._follow(question, view, best)
            if facts:
                return Resolution(facts, hops, best.probability, "catalogue" if best.planned else "paths")
        return self._by_scope(question, view, scoped)

    def _choose(self, candidates: Sequence[Candidate]) -> Candidate | None:
        """The chain to walk, or None where a chain that no edit can touch fits best."""
        best = max(candidates, key=self._rank, default=None)
        if best is None or not best.possible or self._weight(best.probability, best.edited, best.chain) < self.least:
            return None
        return best

    def _rank(self, candidate: Candidate) -> tuple[float, int, int]:
        weight = self._weight(candidate.probability, candidate.edited, candidate.chain)
        return (weight, candidate.edited, -len(candidate.chain))

    def _weight(self, probability: float, edited: int, chain: Chain) -> float:
        bonus = self.whole_bonus if edited == len(chain) else self.part_bonus if edited else 0.0
        return log_odds(probability) + bonus

    def _by_scope(self, question: str, view: MemoryView, scoped: Sequence[Scoped]) -> Resolution:
        """The likeliest fact in scope that no chain could have reached, if any.

        That is free text, or a fact about an entity that the question does not name as the memory knows it. Where it
        does name it, the fact has been weighed already.
        """
        named = {mention.key for mention in view.mentions(question)}
        for fact, probability in scoped:
            if probability < self.scope_threshold:
                break
            if fact.is_free_text:
                return Resolution((fact,), (), probability, "scope")
            if view.resolve(fact.subject) not in named:
                return Resolution((fact,), (edit_hop(view, fact, probability),), probability, "scope")
        return Resolution(probability=1.0 - max((one.probability for one in scoped), default=0.0))

    def _follow(
        self, question: str, view: MemoryView, candidate: Candidate
    ) -> Step[tuple[tuple[Hop, ...], tuple[Fact, ...]]]:
        """Walk a chain; its hops and the facts used. No facts where the walk met no edit."""
        entity, rest = candidate.start.name, candidate.chain
        hops: list[Hop] = []
        used: list[Fact] = []
        while rest:
            relation, rest = rest[0], rest[1:]
            facts = view.lookup(entity, relation)
            if facts:
                used += facts
                hop = edit_hop(view, facts[-1], candidate.probability, joined=facts if not rest else ())
                hops.append(hop)
                entity = facts[-1].object
                continue
            if not used and not any(other in view.relations() for other in rest):
                return (), ()
            belief = yield from ask_belief(view, entity, relation)
            if not belief:
                break
            label = view.catalogue.get(relation).label
            hops.append(Hop(entity, relation, label, belief, "belief", probability=candidate.probability))
            entity = belief
            if rest:
                done = tuple(hop.relation for hop in hops)
                rest = yield from self._reweigh(question, view, candidate, done, entity, rest)
        return tuple(hops), tuple(dict.fromkeys(used)) if used else ()

    def _reweigh(
        self, question: str, view: MemoryView, candidate: Candidate, done: Chain, entity: str, rest: Chain
    ) -> Step[Chain]:
        """What to follow from an entity that a belief arrived at: the plan's rest, or edited facts found there."""
        room = MAX_HOPS - len(done)
        paths = [path.relations for path in view.paths(entity, room)] if room > 0 else []
        options = list(dict.fromkeys([rest, *splices(paths, [rest], room)]))
        if len(options) == 1:
            return rest
        scores = yield from score_paths(question, candidate.start.span, [done + option for option in options])
        held = [held_hops(view, entity, option) for option in options]
        weights = [self._weight(*weighed) for weighed in zip(scores, held, options, strict=True)]
        return options[weights.index(max(weights))]


def weigh(question: str, view: MemoryView, plans: Sequence[Plan]) -> Step[list[Candidate]]:
    """Every candidate chain for a question with its probability."""
    candidates: list[Candidate] = []
    for start, planned in starts(question, view, plans).items():
        edited = [path.relations for path in view.paths(start.name, MAX_HOPS)]
        chains = list(dict.fromkeys([*edited, *planned, *splices(edited, planned, MAX_HOPS)]))[:MAX_CHAINS]
        if not chains:
            continue
        scores = yield from score_paths(question, start.span, chains)
        relations = view.relations()
        for chain, score in zip(chains, scores, strict=True):
            held = held_hops(view, start.name, chain)
            possible = held > 0 or any(relation in relations for relation in chain[1:])
            candidates.append(Candidate(start, chain, held, possible, chain not in edited, score))
    return candidates


def starts(question: str, view: MemoryView, plans: Sequence[Plan]) -> dict[Start, list[Chain]]:
    """The entities a chain may start from, each with the chains planned from it."""
    found: dict[Start, list[Chain]] = {
        Start(mention.text, (mention.start, mention.end)): [] for mention in view.mentions(question)
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
    """How many leading hops of a chain edits hold."""
    entity = start
    for place, relation in enumerate(chain):
        facts = view.lookup(entity, relation)
        if not facts:
            return place
        entity = facts[-1].object
    return len(chain)


def edit_hop(view: MemoryView, fact: Fact, probability: float, *, joined: Sequence[Fact] = ()) -> Hop:
    """The hop that a fact makes; `joined` gives the objects of a slot with several."""
    objects = ", ".join(one.object for one in joined) if joined else fact.object
    label = view.catalogue.get(fact.relation).label
    source: HopSource = "edit" if fact.implied_from is None else "implied"
    return Hop(fact.subject, fact.relation, label, objects, source, fact.id, probability)


def ask_belief(view: MemoryView, entity: str, relation: str) -> Step[str]:
    """What the base model believes about a slot; empty where it names nothing."""
    prompt = belief_prompt(view.catalogue.get(relation), entity)
    completion = yield from complete(prompt, Sampling(max_tokens=BELIEF_TOKENS, stop=BELIEF_STOP))
    return parse_belief(completion.text)


def log_odds(probability: float) -> float:
    """ln(p / (1 - p)), finite at the ends."""
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))


def overlap(a: Span, b: Span) -> bool:
    """Whether two character spans share a character."""
    return a[0] < b[1] and b[0] < a[1]
