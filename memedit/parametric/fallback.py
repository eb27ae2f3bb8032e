"""What an edited copy of the weights says where no edit of the memory is in scope, for comparison.

`MemEditor(fallback="rome")` uses it. The base model stays as it is; every answer that comes from the copy says so and gives
the base model's own beside it, and the first one warns.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memedit.errors import UnknownLayers, WeightsEdited
from memedit.memory.fact import FREE_TEXT, Fact
from memedit.parametric.edits import Editing, WeightEdit, edit_of
from memedit.parametric.model import ParametricModel, edited, load_method

if TYPE_CHECKING:
    from memedit.answer import Answer
    from memedit.memory.catalogue import Catalogue
    from memedit.memory.memory import MemoryView
    from memedit.models.base import LanguageModel


class Fallback:
    """Asks an edited copy of the base model.

    Args:
        model: The base model, as `MemEditor` is given it; it must be a spec, so that a copy can be loaded.
        method: How to edit: a name of `memedit.parametric.model.METHODS`, or an `Editing`.

    Raises:
        UnknownLayers: The model is an object or a server.
        InvalidSpec: There is no such method.
    """

    def __init__(self, model: str | LanguageModel, method: str | Editing) -> None:
        if not isinstance(model, str) or not (model == "embedded" or model.startswith("hf:")):
            raise UnknownLayers(
                "The base model's weights are out of reach, so no edited copy of it can be made.",
                "Name a model that runs in this process ('embedded' or 'hf:NAME_OR_PATH'), or leave out fallback.",
            )
        self._spec = model
        self._method = load_method(method)
        self._copy: ParametricModel | None = None
        self._lock = threading.Lock()

    def answer(
        self,
        answers: Sequence[Answer],
        views: Sequence[MemoryView],
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """What `second` makes of each answer.

        Args:
            answers: A strategy's answers.
            views: What each was answered from.
            on_answer: Called with (place, answer) as each is finished.
        """
        finished = []
        for place, (answer, view) in enumerate(zip(answers, views, strict=True)):
            finished.append(self.second(answer, view))
            if on_answer is not None:
                on_answer(place, finished[-1])
        return finished

    def second(self, answer: Answer, view: MemoryView) -> Answer:
        """The answer as it is where an edit was used for it; otherwise the edited copy's.

        The copy holds every live fact of the view that has a subject. Its answer says in `notice` that the weights were
        edited and what the strategy answers without that.

        Args:
            answer: The answer of a strategy.
            view: What it was answered from.

        Raises:
            UnknownLayers: The base model's architecture is not known.
        """
        if answer.in_scope:
            return answer
        edits = weight_edits(view.facts(), view.catalogue)
        if not edits:
            return answer
        from memedit.models.base import Sampling
        from memedit.strategies.direct import BASE_TOKENS, base_prompt

        name = self._method.name
        with self._lock:
            if self._copy is None:
                warnings.warn(
                    f"Questions with no edit in scope are answered by a copy of {self._spec} whose weights {name} edits; "
                    "the base model is unchanged, and the answer without these edits stands in each answer's notice.",
                    WeightsEdited,
                    stacklevel=2,
                )
                self._copy = edited(self._spec, self._method)
            self._copy.hold(edits)
            [said] = self._copy.generate([base_prompt(answer.question)], Sampling(max_tokens=BASE_TOKENS))
        notice = (
            f"From a copy of the weights with {len(edits)} facts written in by {name}, for comparison: no edit was in scope. "
            f"Without them, {answer.strategy} answers: {answer.text}"
        )
        return replace(answer, text=said.text, strategy=f"{answer.strategy}+{name}", notice=notice)


def weight_edits(facts: Iterable[Fact], catalogue: Catalogue) -> list[WeightEdit]:
    """Facts as weight edits, in their order; free text has no subject and is left out."""
    return [
        edit_of(catalogue.get(fact.relation), fact.subject, fact.object) for fact in facts if fact.relation != FREE_TEXT
    ]
