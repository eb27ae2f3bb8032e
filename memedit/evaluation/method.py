"""What is measured: a way of editing, behind one small interface, whether the edits go to a memory or into the weights.

Edits and prompts go in, answers come out; what would be right never does. Where probabilities are wanted, the caller asks
for those of a text after what a `Reply` says it was answered under.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from memedit.answer import Answer, Cost
from memedit.edited import edited_prompt
from memedit.evaluation.cases import Edit
from memedit.evaluation.environment import PeakMemory
from memedit.memory.fact import Fact
from memedit.models.base import Completion, LanguageModel, Prompt, Sampling, Score
from memedit.strategies.base import Complete, Resolution, Step, Steps
from memedit.strategies.direct import base_prompt

if TYPE_CHECKING:
    from memedit.editor import MemEditor
    from memedit.memory.memory import MemoryView

Span = tuple[int, int]
"""Which edits are seen: from the first place to before the second, in the order in which they were made."""


class Ask(NamedTuple):
    """A prompt, and the edits that are seen by whoever answers it."""

    span: Span
    prompt: str


class Reply(NamedTuple):
    """What an `Ask` came to.

    Attributes:
        text: The answer.
        scored_under: What the base model was sent for it, under which other answers can be scored; None where no
            model wrote the answer: then it has probability 1 and every other answer 0.
        written_under: What the base model is to continue for a longer text.
        stop: What ends such a text: a prompt of demonstrations goes on with demonstrations.
        counterfactual: Whether it was the counterfactual model that wrote the answer, not the base model.
        edits: The statements of the edits that were used.
        cost: What it cost.
    """

    text: str
    scored_under: Prompt | None
    written_under: Prompt
    stop: tuple[str, ...] = ()
    counterfactual: bool = False
    edits: tuple[str, ...] = ()
    cost: Cost = Cost()


class Seen(NamedTuple):
    """Which model is meant, where there are several.

    Attributes:
        span: The edits that are in its weights, if any are.
        counterfactual: Whether it is the counterfactual model.
    """

    span: Span
    counterfactual: bool = False


class Method(Protocol):
    """A way of editing under test.

    Attributes:
        edits_made: How many edits it has made so far.
        edit_seconds: How long that took.
        preparation_seconds: How long it took to do what is needed once, before the first edit.
        memory: The memory it used while it made edits (``edit``); whoever asks it adds phases of their own.
    """

    edits_made: int
    edit_seconds: float
    preparation_seconds: float
    memory: PeakMemory

    @property
    def side_by_side(self) -> bool:
        """Whether prompts that see different edits can be answered in one batch."""
        ...

    def edit(self, edits: Sequence[Edit]) -> int:
        """Take the edits, in order; how many of them a later one superseded. Called once, before anything is asked."""
        ...

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """Answer each prompt as a user would be answered."""
        ...

    def score(self, seen: Seen, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """How likely the model finds each text after its prompt."""
        ...

    def write(self, seen: Seen, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """Continue each prompt."""
        ...


class MemoryMethod:
    """A strategy over an edit memory.

    How its answers are scored under teacher forcing. A strategy is a policy that answers a prompt, and an answer is as
    probable as the policy makes it:

    - The strategy sent the prompt to the base model unchanged: P(o | prompt) of the base model, the prompt being raw
      text, as ROME and EasyEdit score it.
    - The base model wrote the answer to another prompt of the strategy's: P(o | that prompt).
    - The answer was read off an edit, or out of what the model wrote in several rounds: it has probability 1, every other 0.

    Args:
        editor: The editor with its strategy, over an empty memory.
    """

    side_by_side = True

    def __init__(self, editor: MemEditor) -> None:
        self.edits_made = 0
        self.edit_seconds = 0.0
        self.preparation_seconds = 0.0
        self.memory = PeakMemory()
        self._editor = editor
        self._facts: list[Fact] = []
        self._views: dict[Span, MemoryView] = {}

    def edit(self, edits: Sequence[Edit]) -> int:
        """See `Method.edit`. Every edit is one durable write; all are embedded at the end."""
        began = time.perf_counter()
        self._edit_another(edits[:1])
        self.preparation_seconds += time.perf_counter() - began
        began = time.perf_counter()
        superseded: set[int] = set()
        with self.memory.phase("edit"):
            for edit in edits:
                [receipt] = self._editor.add_facts([edit.fact])
                self._facts.append(receipt.fact)
                superseded |= {fact.id for fact in receipt.replaced}
            self._editor.memory.embed_pending()
        self.edit_seconds += time.perf_counter() - began
        self.edits_made += len(edits)
        return sum(fact.id in superseded for fact in self._facts)

    def _edit_another(self, edits: Sequence[Edit]) -> None:
        """Make edits to a memory that is thrown away: what the first of a process loads is no part of what an edit takes."""
        from memedit.memory.memory import EditMemory

        with EditMemory(embedder=self._editor.memory.embedder, embed_on_write=False) as memory:
            memory.assert_facts([edit.fact for edit in edits])
            memory.embed_pending()

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """See `Method.answer`."""
        from memedit.strategies.driver import run_each

        jobs = (_traced(self._editor.strategy(ask.prompt, self._view(ask.span))) for ask in asks)
        outcomes = sorted(run_each(jobs, self._editor.tools), key=lambda outcome: outcome.place)
        return [_reply(ask.prompt, *outcome.result, outcome.cost) for ask, outcome in zip(asks, outcomes, strict=True)]

    def score(self, seen: Seen, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """See `Method.score`."""
        return self._model(seen).score(pairs)

    def write(self, seen: Seen, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Method.write`."""
        return self._model(seen).generate(prompts, sampling)

    def _model(self, seen: Seen) -> LanguageModel:
        other = self._editor.tools.counterfactual
        return other() if seen.counterfactual and other is not None else self._editor.model

    def _view(self, span: Span) -> MemoryView:
        if span not in self._views:
            whole = span[0] == 0 and span[1] >= len(self._facts)
            ids = None if whole else [fact.id for fact in self._facts[slice(*span)]]
            self._views[span] = self._editor.memory.view(ids=ids)
        return self._views[span]


class _Last(NamedTuple):
    """The last thing a model was sent, and what it wrote."""

    request: Complete
    text: str


def _traced(steps: Steps) -> Step[tuple[Answer, _Last | None]]:
    """A strategy at work, with the last completion it asked for."""
    last: _Last | None = None
    result: object = None
    while True:
        try:
            request = steps.send(result)
        except StopIteration as end:
            return end.value, last
        result = yield request
        if isinstance(request, Complete) and isinstance(result, Completion):
            last = _Last(request, result.text)


def _reply(prompt: str, answer: Answer, last: _Last | None, cost: Cost) -> Reply:
    edits = tuple(fact.statement for fact in answer.edits)
    if last is None or last.text.strip() != answer.text.strip():
        told = edited_prompt(prompt, Resolution(answer.edits, answer.hops))
        return Reply(answer.text, None, told, edits=edits, cost=cost)
    if last.request.prompt == base_prompt(prompt):
        return Reply(answer.text, prompt, prompt, (), last.request.counterfactual, edits, cost)
    sent, stop = last.request.prompt, last.request.sampling.stop
    return Reply(answer.text, sent, sent, stop, last.request.counterfactual, edits, cost)


def ask_unedited(model: LanguageModel, prompts: Sequence[str]) -> list[str]:
    """What the base model answers to the unchanged prompts: what `exact_invariance` compares with."""
    from memedit.strategies.direct import BASE_TOKENS

    asked = [base_prompt(prompt) for prompt in prompts]
    return [completion.text for completion in model.generate(asked, Sampling(max_tokens=BASE_TOKENS))]
