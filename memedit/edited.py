"""An edited model is a model around a model: whatever takes a `LanguageModel` takes one of these.

The base model writes every word. Where an edit is in scope of the last user turn, the edits and the resolved chain go
into its prompt; where none is, the prompt reaches it untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.answer import Hop
from memedit.conversation import Turn, self_contained
from memedit.counterfactual import settle
from memedit.errors import InvalidQuestion
from memedit.memory.fact import Fact
from memedit.models.base import Completion, LanguageModel, Message, Prompt, Sampling, Score
from memedit.prompts.data import facts_note, reminder
from memedit.strategies.driver import run_each

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView
    from memedit.strategies.base import Resolution, Resolver
    from memedit.strategies.driver import Toolbox


@dataclass(frozen=True, slots=True)
class ChatReply:
    """A reply of `MemEditor.chat`.

    Attributes:
        text: What the base model wrote.
        hops: The chain that was in its prompt; empty where no edit was in scope.
        edits: The facts that were in its prompt.
        question: What the last turn was taken to ask, where it was completed from the turns before it; else "".
    """

    text: str
    hops: tuple[Hop, ...] = ()
    edits: tuple[Fact, ...] = ()
    question: str = ""

    def __str__(self) -> str:
        return self.text


class EditedModel:
    """A base model that knows the facts of a memory.

    Args:
        base: The model that writes.
        resolver: Finds the edits in scope of a turn, and the chain they make.
        tools: Serve the resolver.
        view: Gives the reading of the memory to answer from; called anew for every prompt.
    """

    def __init__(self, base: LanguageModel, resolver: Resolver, tools: Toolbox, view: Callable[[], MemoryView]) -> None:
        self._base = base
        self._resolver = resolver
        self._tools = tools
        self._view = view

    @property
    def name(self) -> str:
        """The base model's name, marked."""
        return f"edited:{self._base.name}"

    @property
    def context_length(self) -> int:
        """See `LanguageModel.context_length`."""
        return self._base.context_length

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        """Answer a conversation, and tell what it was answered from.

        Raises:
            InvalidQuestion: The conversation does not end with a user's message.
            ModelError: The base model failed.
        """
        [(prompt, found)] = self.resolve([messages])
        return ChatReply(self._base.generate([prompt], sampling)[0].text, found.hops, found.facts, found.question)

    def resolve(self, prompts: Sequence[Prompt]) -> list[tuple[Prompt, Resolution]]:
        """For each prompt, what the base model is to be sent and what the memory says about it."""
        view = self._view()
        asked = [_asked(prompt, view) for prompt in prompts]
        jobs = (self._resolver.resolve(question, view) for question, _ in asked)
        outcomes = sorted(run_each(jobs, self._tools), key=lambda outcome: outcome.place)
        found = [
            outcome.result._replace(question=question) if completed else outcome.result
            for outcome, (question, completed) in zip(outcomes, asked, strict=True)
        ]
        return [
            (edited_prompt(prompt, one, settle(question, one.facts, one.hops, view) if one.facts else None), one)
            for prompt, one, (question, _) in zip(prompts, found, asked, strict=True)
        ]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """See `LanguageModel.generate`."""
        return self._base.generate([prompt for prompt, _ in self.resolve(prompts)], sampling)

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """See `LanguageModel.stream`."""
        return self._base.stream(self.resolve([prompt])[0][0], sampling)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """See `LanguageModel.score`."""
        edited = self.resolve([prompt for prompt, _ in pairs])
        return self._base.score([(prompt, text) for (prompt, _), (_, text) in zip(edited, pairs, strict=True)])

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of the prompt as the base model would be sent it."""
        return self._base.count_tokens(self.resolve([prompt])[0][0])


def edited_prompt(prompt: Prompt, found: Resolution, answer: str | None = None) -> Prompt:
    """The prompt with what the memory says put before the last turn's text; unchanged where it says nothing.

    Where the answer is certain, a chat's last turn ends with it; a text that is to be continued does not.

    The facts go late, into the last user turn and after everything that stays constant, so that a server's prefix
    cache holds over the conversation; a system prompt is kept as it is, and so are tool messages.
    """
    if not found.facts:
        return prompt
    note = facts_note([fact.statement for fact in found.facts], found.hops)
    if isinstance(prompt, str):
        return f"{note}\n\n{prompt}"
    place = _last_user(prompt)
    parts = (note, prompt[place]["content"], *([reminder(answer)] if answer else []))
    told: Message = {**prompt[place], "content": "\n\n".join(parts)}
    return [*prompt[:place], told, *prompt[place + 1 :]]


def check_conversation(messages: Sequence[Message]) -> None:
    """Make sure that there is a user's message to answer.

    Raises:
        InvalidQuestion: The last message is not a user's, or is empty.
    """
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
        raise InvalidQuestion("The conversation does not end with a user's message.", _MEND)


def _asked(prompt: Prompt, view: MemoryView) -> tuple[str, bool]:
    """What a prompt asks, and whether that was completed from the turns before its last."""
    if isinstance(prompt, str):
        return prompt, False
    said: Sequence[Message] = prompt[: _last_user(prompt) + 1]
    turns = [Turn("user" if one["role"] == "user" else "assistant", one["content"]) for one in said if _is_said(one)]
    question = self_contained(turns, view)
    return question, question != turns[-1].text


def _is_said(message: Message) -> bool:
    return message["role"] in ("user", "assistant")


def _last_user(messages: Sequence[Message]) -> int:
    for place in range(len(messages) - 1, -1, -1):
        if messages[place]["role"] == "user":
            return place
    raise InvalidQuestion("The conversation has no user's message.", _MEND)


_MEND = 'Pass messages like [{"role": "user", "content": "..."}].'
