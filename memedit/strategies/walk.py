"""Our own strategy: weigh whole paths, walk the best one, and ask the base model only for what no edit holds.

Candidates are chains of relations from a start entity: every path through edited facts, the planner's chains, and
splices of the two (questions skip hops that edits spell out). Each whole chain is scored against the question; chains
that use an edit compete with chains that use none, and where one of the latter wins, the question goes to the base
model untouched. The winner is walked: an edit where a slot holds one, else a belief, asked for one hop at a time. A
belief may arrive at an entity that has edits of its own, so the rest of the chain is weighed again there. Where a question goes
on from an edit with no relation of the catalogue ("a famous animal of the country where ..."), the base model is asked that of
the edit's object, in the question's own words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING

from memedit.answer import Hop
from memedit.claims import rules_out
from memedit.counterfactual import left_to_ask
from memedit.memory.fact import Fact
from memedit.models.base import Sampling
from memedit.nested import find_nested, plainly, question_left
from memedit.prompts.belief import belief_claim
from memedit.prompts.plan import PLAN_TOKENS, parse_plan, plan_prompt, plan_schema
from memedit.strategies.base import (
    Plan,
    Resolution,
    Scoped,
    Step,
    Steps,
    complete,
    make_plans,
    nearest,
    rate,
    read,
    retrieve,
    score_paths,
)
from memedit.strategies.beliefs import ask_belief
from memedit.strategies.chains import MAX_HOPS, Candidate, Chain, held_hops, realise, splices, weigh
from memedit.strategies.resolved import answer_resolved, edit_hop

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

RETRIEVED = 16
"""Edits asked of the scope classifier."""
TOGETHER = 0.5
"""Sum of the log-odds of scope classifier and path scorer from which an edit counts as in scope."""
DOUBT = 0.02
"""Probability from which the scope classifier, where it does not take an edit to be in scope, is no more than in doubt."""
TOGETHER_IN_DOUBT = -2.0
"""`TOGETHER` where it is in doubt. Where it is not, it has most often seen that a name is a part of another one, which the path
scorer does not see. With 2,700 edits that the classifier was not trained on, it brings 32 more of 7,489 texts in scope, and 3 of
15,038 that should not be."""
NEAR = 8
"""Edits whose question forms the base model sees when it plans."""
CHOICES = 60
"""Most relations that it chooses among."""
TRIES = 2
"""Chains walked for a question."""
MODEL_CONFIDENCE = 0.5
"""Its plans come without a calibrated confidence: they count as even odds."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What came of walking a chain.

    Attributes:
        hops: The hops.
        facts: The edits used; none where the walk met no edit.
        doubted: Whether it met one by beliefs that the base model does not stand by.
    """

    hops: tuple[Hop, ...] = ()
    facts: tuple[Fact, ...] = ()
    doubted: bool = False


@dataclass(frozen=True, slots=True)
class Walk:
    """The path-weighing strategy.

    Chains are compared by their log-odds plus a bonus for what is known of them: of two chains that fit about
    equally, edits tell which one exists. The defaults were chosen on 200 cases of MQuAKE-CF-3k-dev that the planner
    was not trained on.

    Attributes:
        whole_bonus: For a chain whose every hop an edit holds.
        part_bonus: For a chain whose first hops edits hold.
        least_whole: Least probability of the first.
        least_part: Least probability of the second.
        least: Least probability of a chain that begins with a belief.
        belief_threshold: Least probability of the beliefs that lead to a chain's first edit (`belief_claim`). A wrong
            belief may arrive at an edit by accident. The default keeps 97 of 100 right beliefs of the embedded model and half
            of the wrong ones.
        own_threshold: Least probability of those beliefs as they were given. Where a model tells that, it is not asked
            for a belief a second time, as a claim; 64 of 100 wrong beliefs of the embedded model pass then. None: always ask.
        open_below: Probability of a chain below which a question that goes on from its first edit is asked in its own words.
        plan_below: Confidence of the best plan below which the base model is asked for one too (0: never). For models that
            plan well; `MemEditor` sets it for every model but the embedded one.
    """

    whole_bonus: float = 5.5
    part_bonus: float = 2.5
    least_whole: float = 0.003
    least_part: float = 0.1
    least: float = 0.18
    belief_threshold: float = 0.03
    own_threshold: float | None = None
    open_below: float = 0.6
    plan_below: float = 0.0

    @property
    def name(self) -> str:
        """``walk``."""
        return "walk"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        return (yield from answer_resolved(self, question, view))

    def resolve(self, question: str, view: MemoryView) -> Step[Resolution]:
        """See `memedit.strategies.base.Resolver`."""
        question = plainly(question, view)
        found = yield from self._find(question, view)
        if not found.facts:
            found = (yield from edit_inside(question, view)) or found
        left = left_to_ask(question, found.hops, view)
        if left is None:
            return found
        more = yield from self._find(left, view)  # what is asked of an edit's object may be edited as well
        return found._replace(facts=found.facts + more.facts, hops=found.hops + more.hops) if more.hops else found

    def _find(self, question: str, view: MemoryView) -> Step[Resolution]:
        """What chains and the scope classifier find of a whole question."""
        if len(view) == 0:
            return Resolution()
        scoped, plans = yield from read(view, question, RETRIEVED)
        unsure = max((plan.confidence for plan in plans), default=0.0) < self.plan_below
        if unsure and (plans or view.mentions(question)):
            plans = [*(yield from plan_with_model(question, view, plans)), *plans]
        weighed = yield from weigh(question, view, plans)
        nearest_text = free_text_in_scope(scoped)
        for best in self._choose(one_hop_by_scope(view, weighed, scoped)):
            if nearest_text is not None and len(best.chain) == 1 and nearest_text.probability > best.probability:
                return Resolution((nearest_text.fact,), (), nearest_text.probability, "scope")
            if (opened := self._open(question, view, best)) is not None:
                return opened
            walked = yield from self._follow(question, view, best)
            if walked.facts and rules_out(question, walked.hops[-1].object):
                return Resolution()
            if walked.facts:
                return Resolution(walked.facts, walked.hops, best.probability, best.planner)
            if not walked.doubted:
                break
        found = self._by_scope(question, view, scoped, frozenset(one.start.name for one in weighed))
        return found if found.facts else (yield from asked_alike(view, plans, scoped)) or found

    def _choose(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The chain to walk, and the next best one in case its beliefs are doubtful; none where a chain that no edit can
        touch fits better.
        """
        best = sorted(candidates, key=self._rank, reverse=True)[:TRIES]
        return list(takewhile(self._worth_walking, best))

    def _worth_walking(self, candidate: Candidate) -> bool:
        whole = candidate.edited == len(candidate.chain)
        least = self.least_whole if whole else self.least_part if candidate.edited else self.least
        return candidate.possible and candidate.probability >= least

    def _rank(self, candidate: Candidate) -> tuple[float, int, int]:
        weight = self._weight(candidate.probability, candidate.edited, candidate.chain)
        return (weight, candidate.edited, -len(candidate.chain))

    def _weight(self, probability: float, edited: int, chain: Chain) -> float:
        bonus = self.whole_bonus if edited == len(chain) else self.part_bonus if edited else 0.0
        return log_odds(probability) + bonus

    def _open(self, question: str, view: MemoryView, candidate: Candidate) -> Resolution | None:
        """A chain's edited first hop alone, where the words of the question say better than doubtful relations what is asked of
        the hop's object (`memedit.nested`).
        """
        if candidate.edited != 1 or len(candidate.chain) == 1 or candidate.probability >= self.open_below:
            return None
        facts = view.lookup(candidate.start.name, candidate.chain[0])
        hop = edit_hop(view, facts[-1], candidate.probability)
        if find_nested(question, hop.entity) is None or left_to_ask(question, [hop], view) is None:
            return None
        return Resolution((facts[-1],), (hop,), candidate.probability, candidate.planner)

    def _by_scope(
        self, question: str, view: MemoryView, scoped: Sequence[Scoped], started: frozenset[str]
    ) -> Resolution:
        """The likeliest fact in scope that no chain could have reached, if any.

        That is free text, or a fact about an entity that no chain started from, because the question names it otherwise than
        the memory does. What chains did start from has been weighed already.
        """
        named = {view.resolve(name) for name in started}
        for fact, probability in ((one.fact, one.probability) for one in scoped if one.in_scope):
            if fact.is_free_text:
                return Resolution((fact,), (), probability, "scope")
            subject = view.resolve(fact.subject)
            reached = subject in named and subject != view.resolve(fact.object)  # no chain turns back on itself
            if not reached and not rules_out(question, fact.object):
                return Resolution((fact,), (edit_hop(view, fact, probability),), probability, "scope")
        return Resolution(probability=1.0 - max((one.probability for one in scoped), default=0.0))

    def _follow(self, question: str, view: MemoryView, candidate: Candidate) -> Step[Walked]:
        """Walk a chain."""
        entity, rest = candidate.start.name, candidate.chain
        hops: list[Hop] = []
        used: list[Fact] = []
        own: float | None = 0.0
        while rest:
            relation, rest = rest[0], rest[1:]
            facts = view.lookup(entity, relation)
            if facts and not used and not (yield from self._believes(view, hops, own)):
                return Walked(doubted=True)
            if facts:
                used += facts
                hop = edit_hop(view, facts[-1], candidate.probability, joined=facts if not rest else ())
                hops.append(hop)
                entity = facts[-1].object
                continue
            if not used and not any(other in view.relations() for other in rest):
                return Walked()
            belief = yield from ask_belief(view, entity, relation, probability=self.own_threshold is not None)
            if not belief.name or view.resolve(belief.name) in {view.resolve(hop.entity) for hop in hops}:
                break  # it names nothing, or what the chain has come through
            own = None if own is None or belief.log_probability is None else own + belief.log_probability
            label = view.catalogue.get(relation).label
            hops.append(Hop(entity, relation, label, belief.name, "belief", probability=candidate.probability))
            entity = view.known_as(belief.name)
            if rest:
                done = tuple(hop.relation for hop in hops)
                rest = yield from self._reweigh(question, view, candidate, done, entity, rest)
        return Walked(tuple(hops), tuple(dict.fromkeys(used)))

    def _believes(self, view: MemoryView, hops: Sequence[Hop], own: float | None) -> Step[bool]:
        """Whether the base model stands by the beliefs that led to an edit; `own` is their log probability as it gave them."""
        if self.own_threshold is not None and own is not None:
            return own >= math.log(self.own_threshold)
        total = 0.0
        for hop in hops:
            score = yield from rate(*belief_claim(view.catalogue.get(hop.relation), hop.entity, hop.object))
            total += 0.0 if score is None else score.log_probability
        return total >= math.log(self.belief_threshold)

    def _reweigh(
        self, question: str, view: MemoryView, candidate: Candidate, done: Chain, entity: str, rest: Chain
    ) -> Step[Chain]:
        """What to follow from an entity that a belief arrived at: the plan's rest, or edited facts found there."""
        room = MAX_HOPS - len(done)
        paths = [path.relations for path in view.paths(entity, room)] if room > 0 else []
        options = list(dict.fromkeys([rest, *splices(paths, [rest], room)]))
        whole = realise(view, entity, rest, room)
        if len(options) == 1:
            return whole
        scores = yield from score_paths(question, candidate.start.span, [done + option for option in options])
        options[0] = whole  # what is left of the plan keeps its score when the hops it leaves out are put in
        held = [held_hops(view, entity, option) for option in options]
        weights = [self._weight(*weighed) for weighed in zip(scores, held, options, strict=True)]
        return options[weights.index(max(weights))]


def edit_inside(question: str, view: MemoryView) -> Step[Resolution | None]:
    """An edit in whose scope a part of the question is, where no edit is in that of the whole (`memedit.nested`)."""
    for mention in view.mentions(question):
        nested = find_nested(question, mention.text)
        best = next(iter((yield from retrieve(view, nested.asked, 1))), None) if nested else None
        if best is None or not best.in_scope or view.resolve(best.fact.subject) != mention.key:
            continue
        hop = edit_hop(view, best.fact, best.probability)
        if question_left(question, hop, view):
            return Resolution((best.fact,), (hop,), best.probability, "scope")
    return None


def free_text_in_scope(scoped: Sequence[Scoped]) -> Scoped | None:
    """The likeliest fact in scope where that is free text, which no chain can reach."""
    best = next((one for one in scoped if one.in_scope), None)
    return best if best is not None and best.fact.is_free_text else None


def one_hop_by_scope(view: MemoryView, candidates: Sequence[Candidate], scoped: Sequence[Scoped]) -> list[Candidate]:
    """The candidates, those of a single edited hop only where the edit is in scope, with the classifier's probability.

    Whether a question is about one edit is what the classifier was trained for, with hard negatives; the path scorer
    compares chains and has to prefer one of them. It is heard where the classifier is in doubt and the scorer is not: their
    log-odds are added, as if they erred independently.
    """
    judged = {one.fact.id: one for one in scoped}
    kept = []
    for candidate in candidates:
        if candidate.edited == len(candidate.chain) == 1:
            facts = view.lookup(candidate.start.name, candidate.chain[0])
            likeliest = max((judged[fact.id] for fact in facts if fact.id in judged), default=None, key=_probability)
            if likeliest is None:
                continue
            together = log_odds(likeliest.probability) + log_odds(candidate.probability)
            if not likeliest.in_scope and together < _least_together(likeliest):
                continue
            candidate = replace(candidate, probability=max(likeliest.probability, 1 / (1 + math.exp(-together))))
        kept.append(candidate)
    return kept


def _least_together(scoped: Scoped) -> float:
    return TOGETHER_IN_DOUBT if scoped.probability >= DOUBT else TOGETHER


def asked_alike(view: MemoryView, plans: Sequence[Plan], scoped: Sequence[Scoped]) -> Step[Resolution | None]:
    """The likeliest of the facts given as an answer to a question ("What city is Nimbus from? Lyon"), of which the scope
    classifier is in doubt, that the planner takes to answer this question too.

    Args:
        view: The memory as the question sees it.
        plans: The planner's chains for the question.
        scoped: The facts that may be in its scope, likeliest first.
    """
    for fact, probability in ((one.fact, one.probability) for one in scoped if one.probability >= DOUBT):
        own = fact.statement.partition("?")[0] + "?" if fact.is_free_text and "?" in fact.statement else ""
        same = _same_chain(view, plans, (yield from make_plans(view, own))) if own and plans else 0.0
        together = log_odds(probability) + log_odds(same)
        if same and together >= TOGETHER_IN_DOUBT:
            return Resolution((fact,), (), 1 / (1 + math.exp(-together)), "scope")
    return None


def _same_chain(view: MemoryView, ours: Sequence[Plan], theirs: Sequence[Plan]) -> float:
    """The probability that two questions ask for the same chain from the same entity, from the plans for either."""
    return sum(
        one.confidence * other.confidence
        for one in ours
        for other in theirs
        if one.relations == other.relations and view.resolve(one.start) == view.resolve(other.start)
    )


def _probability(scoped: Scoped) -> float:
    return scoped.probability


def plan_with_model(question: str, view: MemoryView, plans: Sequence[Plan]) -> Step[list[Plan]]:
    """The base model's own decomposition of a question, under a JSON schema; empty where it finds no chain.

    It chooses among the relations of the nearest edits and of the planner's guesses, and sees the question forms of those
    edits.
    """
    near = [hit.fact for hit in (yield from nearest(view, question, NEAR)) if not hit.fact.is_free_text]
    named = [relation for plan in plans for relation in plan.relations]
    ids = list(dict.fromkeys([*(fact.relation for fact in near), *named, *sorted(view.relations())]))[:CHOICES]
    relations = [view.catalogue.get(relation) for relation in ids]
    if not relations:
        return []
    asked = [view.catalogue.get(fact.relation).ask(fact.subject) for fact in near]
    sampling = Sampling(max_tokens=PLAN_TOKENS, json_schema=plan_schema(relations))
    completion = yield from complete([{"role": "user", "content": plan_prompt(question, relations, asked)}], sampling)
    found = parse_plan(completion.text, question, relations)
    if found is None:
        return []
    at = question.index(found.start)
    return [Plan(found.start, (at, at + len(found.start)), found.relations, MODEL_CONFIDENCE, "model")]


def log_odds(probability: float) -> float:
    """ln(p / (1 - p)), finite at the ends."""
    bounded = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(bounded / (1 - bounded))
