"""A causal language model in this process, whoever computes it: what goes around a network and a tokenizer.

Renders prompts, sorts them into batches of like length and hands those to the decoding loop; scores continuations. Knows
nothing of where a model comes from, nor of its layers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from memedit.models.base import Completion, JSONSchema, Prompt, Sampling, Score
from memedit.models.decoding import Decoder, Row
from memedit.models.grammar import Grammars
from memedit.models.network import Network, Tokens
from memedit.models.tokens import Tokenizer, check_length, encoded, joined

if TYPE_CHECKING:
    from llguidance import LLMatcher


class LocalModel:
    """A network and its tokenizer behind the `LanguageModel` protocol.

    Decoding is greedy unless a temperature is asked for. In float32 a prompt gets the same text alone and in a batch, up to
    ties: padding, batching and shared prefixes change logits by about 1e-5, which matters only where two tokens are that close.

    Chats are rendered with the model's own chat template; a model that has none gets the last user message as raw text.
    Special tokens are skipped in what it writes.

    Args:
        network: Token ids to logits.
        tokenizer: Text to token ids.
        name: What reports call the model.
        batch_size: Most prompts decoded side by side.
        batch_tokens: Most tokens of a batch, padding and completions included; bounds the memory it takes.
        prefixes: How many shared prompt prefixes are kept ready (0: none).
    """

    def __init__(
        self,
        network: Network,
        tokenizer: Tokenizer,
        *,
        name: str,
        batch_size: int = 32,
        batch_tokens: int = 16_384,
        prefixes: int = 4,
    ) -> None:
        self._name = name
        self._network = network
        self._tokenizer = tokenizer
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._decoder = Decoder(network, tokenizer.ends, keep=prefixes)
        self._grammars: Grammars | None = None
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """What reports call the model."""
        return self._name

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return self._network.context_length

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """Complete each prompt; see `LanguageModel.generate`.

        With `sampling.choices` the choice with the highest probability wins (not the mean over its tokens, which favours long
        names whose ends are easy to guess); `temperature` and `stop` do not apply. After a raw prompt that does not end in
        white space the choices are scored with a space before them, and where one choice begins another, with an end after
        them. A completion that has a schema and ends with "length" is cut off JSON: give it more tokens.

        Raises:
            PromptTooLong: A prompt and `sampling.max_tokens` do not fit `context_length`.
            InvalidQuestion: A prompt is empty.
            InvalidSpec: `sampling.json_schema` is not a schema that can be followed.
        """
        if sampling.choices:
            return self._choose(prompts, sampling.choices)
        rows = [self._row(prompt, sampling) for prompt in prompts]
        lengths = [len(row.tokens) + sampling.max_tokens for row in rows]
        for prefix, members in self._decoder.group([row.tokens for row in rows]):
            for batch in self._batches(members, lengths):
                for _ in self._decoder.run([rows[index] for index in batch], prefix):
                    pass
        return [
            Completion(row.text, len(row.tokens), len(row.generated), row.finish_reason or "length") for row in rows
        ]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion of one prompt, in pieces as they are generated; joined, they are the text of `generate`.

        Raises:
            PromptTooLong, InvalidQuestion, InvalidSpec: As `generate` does; at the call, not at the first piece.
        """
        if sampling.choices:
            return iter([self._choose([prompt], sampling.choices)[0].text])
        row = self._row(prompt, sampling)
        [(prefix, _)] = self._decoder.group([row.tokens])
        return self._pieces(row, prefix)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log probability of each continuation after its prompt.

        Prompt and continuation are tokenized together, as the model would have seen them in one text, and the
        continuation begins at the first token that the prompt alone does not have; where a token spans the boundary it counts as
        the continuation's.

        Raises:
            PromptTooLong: A prompt and its continuation do not fit `context_length`.
            InvalidQuestion: A prompt is empty.
        """
        texts = [joined(self._tokenizer, prompt, continuation) for prompt, continuation in pairs]
        for tokens, _ in texts:
            check_length(self, len(tokens), 0)
        results: list[Score] = [Score(0.0, 0, greedy=True, matched_tokens=0)] * len(texts)
        for prefix, members in self._decoder.group([tokens[:start] for tokens, start in texts]):
            for batch in self._batches(members, [len(tokens) for tokens, _ in texts]):
                scores = self._decoder.score([texts[index] for index in batch], prefix)
                for index, score in zip(batch, scores, strict=True):
                    results[index] = score
        return results

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, chat template included."""
        return len(encoded(self._tokenizer, prompt))

    # -- prompts -------------------------------------------------------------------------------------------------

    def _row(self, prompt: Prompt, sampling: Sampling) -> Row:
        import torch

        tokens = encoded(self._tokenizer, prompt)
        check_length(self, len(tokens), sampling.max_tokens)
        matcher = self._matcher(sampling.json_schema) if sampling.json_schema is not None else None
        # A generator a row, so that what is drawn for a prompt does not depend on its neighbours.
        generator = torch.Generator().manual_seed(sampling.seed) if sampling.seed is not None else None
        return Row(tokens, sampling, self._tokenizer.decode, matcher, generator)

    # -- decoding ------------------------------------------------------------------------------------------------

    def _pieces(self, row: Row, prefix: Tokens) -> Iterator[str]:
        sent = 0
        for _ in self._decoder.run([row], prefix):
            text = row.settled_text()
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)

    def _choose(self, prompts: Sequence[Prompt], choices: Sequence[str]) -> list[Completion]:
        nested = any(a != b and b.startswith(a) for a in choices for b in choices)
        pairs = []
        for prompt in prompts:
            is_raw = isinstance(prompt, str)
            before = " " if isinstance(prompt, str) and prompt and not prompt[-1].isspace() else ""
            after = ("\n" if is_raw else (self._tokenizer.end or "\n")) if nested else ""
            pairs += [(prompt, f"{before}{choice}{after}") for choice in choices]
        scores = self.score(pairs)
        completions = []
        for number, prompt in enumerate(prompts):
            own = scores[number * len(choices) : (number + 1) * len(choices)]
            best = max(range(len(choices)), key=lambda index: own[index].log_probability)
            completions.append(Completion(choices[best], self.count_tokens(prompt), own[best].tokens))
        return completions

    def _matcher(self, schema: JSONSchema) -> LLMatcher:
        with self._lock:
            if self._grammars is None:
                self._grammars = Grammars(self._tokenizer, self._network.vocabulary)
            return self._grammars.matcher(schema)

    def _batches(self, members: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
        """Longest first, so that padding is small and a batch too large for the memory fails at once."""
        batch: list[int] = []
        for index in sorted(members, key=lambda index: -lengths[index]):
            if batch and (len(batch) >= self._batch_size or (len(batch) + 1) * lengths[batch[0]] > self._batch_tokens):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch
