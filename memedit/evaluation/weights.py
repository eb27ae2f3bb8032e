"""A parametric method under test: the edits go into the weights of a copy of the model, and come out again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from memedit.answer import Cost
from memedit.errors import InvalidEdit
from memedit.evaluation.cases import Edit
from memedit.evaluation.environment import PeakMemory
from memedit.evaluation.method import Ask, Reply, Seen, Span
from memedit.models.base import Completion, Prompt, Sampling, Score
from memedit.parametric.edits import WeightEdit
from memedit.strategies.direct import BASE_TOKENS, base_prompt

if TYPE_CHECKING:
    from memedit.parametric.model import ParametricModel


class WeightsMethod:
    """A model whose weights are edited, asked like the base model: the unchanged prompt, as a chat to answer it and raw to
    score what follows.

    An edit is put into the weights when a prompt is asked that sees it, and stays there until one is asked that does not.

    Args:
        model: The copy, with no edit in it.
    """

    side_by_side = False

    def __init__(self, model: ParametricModel) -> None:
        self.edits_made = 0
        self.edit_seconds = 0.0
        self.preparation_seconds = 0.0
        self.memory = PeakMemory()
        self._model = model
        self._edits: list[WeightEdit] = []
        self._held: Span = (0, 0)

    def edit(self, edits: Sequence[Edit]) -> int:
        """See `Method.edit`. Weights know no slots, so that no edit supersedes another.

        Nothing is written to the weights yet: that is counted where a prompt first sees the edits.

        Raises:
            InvalidEdit: An edit's subject is not in its prompt, or not to be told apart in tokens; names file and row.
        """
        for edit in edits:
            try:
                made = WeightEdit(edit.prompt, edit.subject, edit.target)
                self._model.check(made)
                self._edits.append(made)
            except InvalidEdit as error:
                raise InvalidEdit(f"{edit.fact.source}, field 'subject': {error.problem}", error.mend) from None
        began = time.perf_counter()
        self._model.prepare()
        self.preparation_seconds += time.perf_counter() - began
        return 0

    def answer(self, asks: Sequence[Ask]) -> list[Reply]:
        """See `Method.answer`."""
        replies: dict[int, Reply] = {}
        for span in dict.fromkeys(ask.span for ask in asks):
            self._hold(span)
            own = {place: ask.prompt for place, ask in enumerate(asks) if ask.span == span}
            sampling = Sampling(max_tokens=BASE_TOKENS)
            said = self._model.generate([base_prompt(prompt) for prompt in own.values()], sampling)
            for (place, prompt), completion in zip(own.items(), said, strict=True):
                cost = Cost(1, completion.prompt_tokens, completion.completion_tokens)
                replies[place] = Reply(completion.text, prompt, prompt, cost=cost)
        return [replies[place] for place in range(len(asks))]

    def score(self, seen: Seen, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """See `Method.score`."""
        self._hold(seen.span)
        return self._model.score(pairs)

    def write(self, seen: Seen, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """See `Method.write`."""
        self._hold(seen.span)
        return self._model.generate(prompts, sampling)

    def _hold(self, span: Span) -> None:
        if span == self._held:
            return
        began = time.perf_counter()
        with self.memory.phase("edit"):
            self._model.hold(self._edits[slice(*span)])
        self._held = span
        self.edit_seconds += time.perf_counter() - began
        self.edits_made += span[1] - span[0]
