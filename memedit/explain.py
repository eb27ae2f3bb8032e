"""What would be retrieved for a question, and why, without calling the base model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.strategies.base import Plan, Scoped, Step, make_plans, retrieve
from memedit.strategies.chains import Candidate, weigh

if TYPE_CHECKING:
    from memedit.memory.fact import Mention
    from memedit.memory.memory import MemoryView
    from memedit.strategies.driver import Toolbox

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a question would, or would not, be answered from the memory.

    Attributes:
        question: The question.
        mentions: Entities of the memory that it names.
        scoped: Facts the scope classifier finds nearest, with probabilities.
        plans: The planner's decompositions.
        candidates: The chains weighed, likeliest first.
        labels: Relation ids to labels, for the relations above.
    """

    question: str
    mentions: tuple[Mention, ...]
    scoped: tuple[Scoped, ...]
    plans: tuple[Plan, ...]
    candidates: tuple[Candidate, ...]
    labels: dict[str, str]

    def to_dict(self) -> dict[str, object]:
        """As plain values, for JSON."""
        return {
            "question": self.question,
            "mentions": [mention._asdict() for mention in self.mentions],
            "scope": [
                {"fact_id": one.fact.id, "statement": one.fact.statement, "probability": one.probability}
                for one in self.scoped
            ],
            "plans": [
                {"start": plan.start, "relations": list(plan.relations), "confidence": plan.confidence}
                for plan in self.plans
            ],
            "candidates": [
                {
                    "start": one.start.name,
                    "relations": list(one.chain),
                    "labels": [self.labels[relation] for relation in one.chain],
                    "edited_hops": one.edited,
                    "probability": one.probability,
                }
                for one in self.candidates
            ],
        }

    def __str__(self) -> str:
        lines = [f"Question: {self.question}"]
        lines += ["Facts nearest to it:"] + [
            f"  {s.probability:.2f}  #{s.fact.id} {s.fact.statement}" for s in self.scoped
        ]
        lines += ["Chains weighed (* = edits hold its first hops):"]
        for one in self.candidates[:10]:
            chain = " > ".join(self.labels[relation] for relation in one.chain)
            lines.append(f"  {one.probability:.2f} {'*' if one.edited else ' '} {one.start.name} > {chain}")
        return "\n".join(lines)


def explain(question: str, view: MemoryView, tools: Toolbox) -> Explanation:
    """Retrieve, plan and weigh for a question, and stop there."""
    from memedit.strategies.driver import run

    return run(_explain(question, view), tools).result


def _explain(question: str, view: MemoryView) -> Step[Explanation]:
    scoped = yield from retrieve(view, question)
    plans = yield from make_plans(view, question)
    candidates = yield from weigh(question, view, plans)
    candidates.sort(key=lambda one: -one.probability)
    labels = {relation: view.catalogue.get(relation).label for one in candidates for relation in one.chain}
    return Explanation(question, tuple(view.mentions(question)), tuple(scoped), tuple(plans), tuple(candidates), labels)
