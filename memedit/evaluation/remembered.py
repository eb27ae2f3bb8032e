"""A base model that is asked the same thing once: a model around a model, for measurements that ask it again and again.

Knows nothing of facts or benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence

from memedit.models.base import Completion, LanguageModel, Prompt, Sampling, Score


class RememberedModel:
    """Keeps greedy completions and scores by their exact request.

    Asked again, the model is not called; the completion says the same tokens as the first time, and `saved_seconds`
    grows by the time that the first time took, so that costs can be told as if it had been called.

    Args:
        base: The model.

    Attributes:
        saved_seconds: What asking again would have taken.
    """

    def __init__(self, base: LanguageModel) -> None:
        self.base = base
        self.saved_seconds = 0.0
        self._completions: dict[tuple[object, Sampling], tuple[Completion, float]] = {}
        self._scores: dict[tuple[object, str], tuple[Score, float]] = {}

    @property
    def name(self) -> str:
        """The base model's name."""
        return self.base.name

    @property
    def context_length(self) -> int:
        """See `LanguageModel.context_length`."""
        return self.base.context_length

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """See `LanguageModel.generate`."""
        if sampling.temperature > 0 or sampling.json_schema is not None:
            return self.base.generate(prompts, sampling)
        wanted = {(prompt_key(prompt), sampling): prompt for prompt in prompts}
        new = [key for key in wanted if key not in self._completions]
        if new:
            began = time.perf_counter()
            made = self.base.generate([wanted[key] for key in new], sampling)
            each = (time.perf_counter() - began) / len(new)
            self._completions.update((key, (one, each)) for key, one in zip(new, made, strict=True))
        found = [self._completions[prompt_key(prompt), sampling] for prompt in prompts]
        self._count([seconds for _, seconds in found], [self._completions[key][1] for key in new])
        return [completion for completion, _ in found]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """See `LanguageModel.stream`; nothing is kept."""
        return self.base.stream(prompt, sampling)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """See `LanguageModel.score`."""
        wanted = {(prompt_key(prompt), text): (prompt, text) for prompt, text in pairs}
        new = [key for key in wanted if key not in self._scores]
        if new:
            began = time.perf_counter()
            made = self.base.score([wanted[key] for key in new])
            each = (time.perf_counter() - began) / len(new)
            self._scores.update((key, (one, each)) for key, one in zip(new, made, strict=True))
        found = [self._scores[prompt_key(prompt), text] for prompt, text in pairs]
        self._count([seconds for _, seconds in found], [self._scores[key][1] for key in new])
        return [score for score, _ in found]

    def count_tokens(self, prompt: Prompt) -> int:
        """See `LanguageModel.count_tokens`."""
        return self.base.count_tokens(prompt)

    def _count(self, asked: Sequence[float], made: Sequence[float]) -> None:
        self.saved_seconds += max(0.0, sum(asked) - sum(made))


def prompt_key(prompt: Prompt) -> Hashable:
    """What two equal prompts have in common."""
    return prompt if isinstance(prompt, str) else tuple(tuple(sorted(message.items())) for message in prompt)
