"""The base model alone: what every strategy falls back to where no edit is in scope, and a strategy of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.answer import Answer
from memedit.models.base import Message, Sampling
from memedit.strategies.base import Steps, complete

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

BASE_TOKENS = 64
"""Most tokens of the base model's own answer to `MemEditor.ask`."""


def base_prompt(question: str) -> list[Message]:
    """The unchanged prompt: the question as the user's only turn."""
    return [{"role": "user", "content": question}]


def ask_base(question: str, strategy: str, probability: float = 1.0) -> Steps:
    """The base model's answer to the unchanged prompt, byte for byte."""
    completion = yield from complete(base_prompt(question), Sampling(max_tokens=BASE_TOKENS))
    return Answer(question, completion.text, strategy=strategy, probability=probability)


@dataclass(frozen=True, slots=True)
class Base:
    """The unedited base model, for comparison."""

    @property
    def name(self) -> str:
        """``base``."""
        return "base"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        return (yield from ask_base(question, self.name))
