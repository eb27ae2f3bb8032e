"""IKE: in-context knowledge editing (Zheng et al. 2023, arXiv:2305.12740).

The base model is shown k demonstrations C = {c_1, ..., c_k} of how to take a new fact, the new fact f, and the question x
(section 3, equation 2): it is to answer argmax_y P(y | x, f, C), y* where x is in the scope of f and what it
believed before where it is not. A demonstration copies the fact, updates by it a question in other words, or retains the
answer to a question that it does not touch, as 1 : 3 : 4. The k examples of the corpus nearest to f by the embedder are
taken, the nearest last: cos(c_1, f) <= ... <= cos(c_k, f).

In the paper f is the edit under test. Here it is the fact of the memory that the scope classifier finds likeliest, however
unlikely: IKE has no gate, so what no edit touches can change too. With an empty memory the base model answers.

In the paper f is the sentence that the edit was given as. A triple has many: before a sentence to complete, that wording of its
relation is taken which is most like it. The demonstrations depend on the fact alone, and only the prompt's last two lines on
what is asked: a server's prefix cache holds over all questions about an edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.answer import Answer
from memedit.memory.fact import Fact
from memedit.models.base import Sampling
from memedit.prompts.ike import (
    Demonstration,
    Example,
    demonstrations,
    drop_farthest,
    ike_prompt,
    is_question,
    naming,
    nearest_last,
    read_examples,
)
from memedit.strategies.base import Step, Steps, complete, embed, measure, retrieve
from memedit.strategies.direct import ask_base

if TYPE_CHECKING:
    from memedit.memory.catalogue import Catalogue
    from memedit.memory.embedder import Vectors
    from memedit.memory.memory import MemoryView

IKE_TOKENS = 32
"""Most tokens of an answer: demonstrations answer with names."""


@dataclass(frozen=True, slots=True)
class Ike:
    """Demonstrations, the likeliest fact, the question.

    Attributes:
        demonstrations: JSON-lines file of demonstrations (see `memedit.prompts.ike.read_examples`); None for those that
            ship with the package.
        k: How many demonstrations; the paper takes 32.
        budget: Most tokens of the prompt; None for what the model's context has room for. What exceeds it is dropped
            from the farthest demonstration on.

    Raises:
        BadDataFile, BadRow: The file of demonstrations is not as it should be.
    """

    demonstrations: str | Path | None = None
    k: int = 32
    budget: int | None = None
    _examples: list[Example] = field(init=False, repr=False, compare=False)
    _vectors: dict[str, Vectors] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_examples", read_examples(self.demonstrations))

    @property
    def name(self) -> str:
        """``ike``."""
        return "ike"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        best = None if len(view) == 0 else next(iter((yield from retrieve(view, question, k=1))), None)
        if best is None:
            return (yield from ask_base(question, self.name))
        shown = yield from self._choose(best.fact, view, as_question=is_question(question))
        prompt = yield from self._fit(shown, worded(best.fact, view.catalogue, question), question)
        completion = yield from complete(prompt, Sampling(max_tokens=IKE_TOKENS, stop=("\n",)))
        text = completion.text.strip()
        return Answer(question, text, edits=(best.fact,), probability=best.probability, strategy=self.name)

    def _choose(self, fact: Fact, view: MemoryView, *, as_question: bool) -> Step[list[Demonstration]]:
        """The k demonstrations nearest to a fact, the nearest last; none that speaks of its subject."""
        corpus = yield from self._embedded(view)
        vector = (yield from embed(view, [fact.statement]))[0]
        rows = nearest_last(corpus, vector, self.k, left_out=naming(self._examples, fact.subject))
        return demonstrations([self._examples[row] for row in rows], as_question=as_question)

    def _embedded(self, view: MemoryView) -> Step[Vectors]:
        """The vectors of the corpus; embedded once for each embedder."""
        embedder = view.memory.embedder.name
        if embedder not in self._vectors:
            self._vectors[embedder] = yield from embed(view, [example.fact for example in self._examples])
        return self._vectors[embedder]

    def _fit(self, shown: Sequence[Demonstration], fact: str, question: str) -> Step[str]:
        """The prompt with as many of the nearest demonstrations as the budget has room for."""
        while True:
            prompt = ike_prompt(shown, fact, question)
            size = yield from measure(prompt)
            budget = size.context_length - IKE_TOKENS
            if self.budget is not None:
                budget = min(budget, self.budget)
            if size.tokens <= budget or not shown:
                return prompt
            shown = drop_farthest(shown, size.tokens, budget)


def worded(fact: Fact, catalogue: Catalogue, question: str) -> str:
    """A triple in those words of its relation that are most like a sentence to complete; otherwise the fact's statement.

    How like two texts are is the share of characters in their matching blocks (`difflib.SequenceMatcher`), the object, which is
    what is asked for, left out.
    """
    if fact.is_free_text or is_question(question):
        return fact.statement
    relation = catalogue.get(fact.relation)
    matcher = SequenceMatcher(b=question, autojunk=False)

    def likeness(template: str) -> float:
        matcher.set_seq1(template.replace("{subject}", fact.subject).replace("{object}", ""))
        return matcher.ratio()

    nearest = max((relation.statement, *relation.statements), key=likeness)
    return nearest.replace("{subject}", fact.subject).replace("{object}", fact.object)
