"""What a language model is to memedit: four verbs, batched. Knows nothing of facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable

JSONSchema = Mapping[str, object]


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: NotRequired[str]


Prompt = str | Sequence[Message]
"""Raw text to be continued, or a chat to be answered (rendered with the model's own chat template)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to decode.

    Attributes:
        max_tokens: Most tokens to generate.
        temperature: 0 is greedy.
        stop: Generation ends before the first of these strings.
        choices: If given, the output is one of these strings exactly (the likeliest).
        json_schema: If given, the output is JSON that validates against it.
        seed: For temperatures above 0.
        probability: Whether to tell how probable the completion was, where the model can do so at no cost.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: JSONSchema | None = None
    seed: int | None = None
    probability: bool = False


class Completion(NamedTuple):
    """What a model wrote.

    Attributes:
        text: The text, without the stop string.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated.
        finish_reason: Why it ended.
        log_probability: Natural log of the probability of its tokens, where that was asked for and the model tells.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: Literal["stop", "length"] = "stop"
    log_probability: float | None = None


class Score(NamedTuple):
    """How likely a model finds a continuation.

    Attributes:
        log_probability: Natural log of the continuation's probability given the prompt.
        tokens: Tokens of the continuation.
        greedy: Whether greedy decoding would have produced exactly it.
        matched_tokens: How many of its tokens are the likeliest ones, each after the prompt and the continuation's own tokens
            before it; None where the model does not tell.
        likeliest: The ids of the tokens that are likeliest at the continuation's places; empty where the model does not tell.
    """

    log_probability: float
    tokens: int
    greedy: bool
    matched_tokens: int | None = None
    likeliest: tuple[int, ...] = ()


@runtime_checkable
class LanguageModel(Protocol):
    """Anything that completes text. An edited model is one of these around another of these."""

    @property
    def name(self) -> str:
        """What to call the model in reports, e.g. "embedded:smollm2-135m-instruct"."""
        ...

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        ...

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """Complete each prompt; same order, same length as `prompts`.

        Raises:
            PromptTooLong: A prompt and `sampling.max_tokens` do not fit `context_length`.
            ModelUnavailable, ModelTimeout, BadModelResponse: The server failed.
        """
        ...

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion of one prompt, in pieces as they are generated."""
        ...

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log probability of each continuation after its prompt."""
        ...

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, chat template included."""
        ...
