"""A language model that says what it was told to say. For tests, where the model's words are not what is tested.

model = ScriptedModel({"Who wrote Misery?": "Stephen King", re.compile("capital"): "Rome"}, default="I do not know.")
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from memedit.errors import BadModelResponse, PromptTooLong
from memedit.models.base import Completion, Prompt, Sampling, Score

Pattern: TypeAlias = str | re.Pattern[str] | Callable[[str], bool]
Reply: TypeAlias = str | Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Call:
    """A prompt the model was given, as text, and how it was to be decoded."""

    prompt: str
    sampling: Sampling


class ScriptedModel:
    """Replies by a script, and remembers what it was asked.

    A chat is matched as one text: a line "role: content" for each message. Patterns are tried in order: a string matches the whole
    prompt, or the last message of a chat; a regular expression is searched for; a function says whether it matches.
    A token is a word.

    Args:
        script: Pattern to reply. A reply may be a function of the prompt.
        default: The reply where no pattern matches; without one that is an error.
        name: What reports call it.
        context_length: Most words of prompt and completion together.

    Attributes:
        calls: Every prompt, in order; one entry a prompt, also of a batch.
        batches: How many prompts each call of `generate` had.
    """

    def __init__(
        self,
        script: Mapping[Pattern, Reply] | Reply = "",
        *,
        default: Reply | None = None,
        name: str = "scripted",
        context_length: int = 1_000_000,
    ) -> None:
        self._script = dict(script) if isinstance(script, Mapping) else {}
        self._default = default if isinstance(script, Mapping) else script
        self._name = name
        self._context_length = context_length
        self.calls: list[Call] = []
        self.batches: list[int] = []

    @property
    def name(self) -> str:
        """What reports call it."""
        return self._name

    @property
    def context_length(self) -> int:
        """Most words of prompt and completion together."""
        return self._context_length

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """The scripted replies, cut at stop strings and after `sampling.max_tokens` words.

        Raises:
            BadModelResponse: The script has no reply, or it is none of `sampling.choices`.
            PromptTooLong: A prompt and `sampling.max_tokens` do not fit `context_length`.
        """
        self.batches.append(len(prompts))
        return [self._complete(prompt, sampling) for prompt in prompts]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The reply, word by word."""
        text = self.generate([prompt], sampling)[0].text
        yield from re.findall(r"\s*\S+|\s+$", text)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log probability 0 where the continuation is the scripted reply, else -1 for every word of it; words are its tokens."""
        scores = []
        for prompt, continuation in pairs:
            words, reply = continuation.split(), self._reply(prompt)
            greedy = reply.strip() == continuation.strip()
            said = [*reply.split(), *[""] * len(words)][: len(words)]
            matched = sum(word == expected for word, expected in zip(said, words, strict=True))
            likeliest = tuple(zlib.crc32(word.encode()) for word in said)
            scores.append(Score(0.0 if greedy else -float(len(words)), len(words), greedy, matched, likeliest))
        return scores

    def count_tokens(self, prompt: Prompt) -> int:
        """Words of the prompt."""
        return len(_as_text(prompt).split())

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.calls.append(Call(_as_text(prompt), sampling))
        tokens = self.count_tokens(prompt)
        if tokens + sampling.max_tokens > self._context_length:
            raise PromptTooLong(
                f"{tokens} words and {sampling.max_tokens} to come are too many.", "Shorten the prompt."
            )
        text = self._reply(prompt)
        if sampling.choices:
            if text not in sampling.choices:
                raise BadModelResponse(
                    f"The scripted reply {text!r} is none of {sampling.choices}.", "Mend the script."
                )
            return Completion(text, tokens, len(text.split()))
        cuts = [at for at in (text.find(stop) for stop in sampling.stop) if at >= 0]
        text = text[: min(cuts)] if cuts else text
        words = list(re.finditer(r"\S+", text))
        if len(words) > sampling.max_tokens:
            end = words[sampling.max_tokens - 1].end() if sampling.max_tokens > 0 else 0
            return Completion(text[:end], tokens, sampling.max_tokens, "length")
        return Completion(text, tokens, len(words))

    def _reply(self, prompt: Prompt) -> str:
        text = _as_text(prompt)
        last = text if isinstance(prompt, str) else prompt[-1]["content"]
        for pattern, reply in self._script.items():
            if _matches(pattern, text, last):
                return reply if isinstance(reply, str) else reply(text)
        if self._default is None:
            raise BadModelResponse(f"The script has no reply to {last!r}.", "Add one, or give a default.")
        return self._default if isinstance(self._default, str) else self._default(text)


def _as_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)


def _matches(pattern: Pattern, text: str, last: str) -> bool:
    if isinstance(pattern, str):
        return pattern in (text, last)
    if isinstance(pattern, re.Pattern):
        return pattern.search(text) is not None
    return pattern(text)
