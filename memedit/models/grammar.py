"""Output that follows a JSON schema: which tokens may come next, by llguidance. Knows tokens, no models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec
from memedit.models.base import JSONSchema
from memedit.models.tokens import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher


class Grammars:
    """The schemas seen so far, compiled for one tokenizer.

    The JSON has one space after commas and colons and no other white space: where a grammar leaves white space open, small
    models lose themselves in it.

    Args:
        tokenizer: One that has a `definition`.
        vocabulary: How many logits the model has.

    Raises:
        InvalidSpec: The tokenizer has none.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        import llguidance

        definition = tokenizer.definition
        if definition is None:
            raise InvalidSpec(
                "Output by a JSON schema needs a fast tokenizer, and the model's is none.",
                "Save the model with a tokenizer.json, or use a strategy that needs no schema.",
            )
        self._tokenizer = llguidance.LLTokenizer(definition, n_vocab=vocabulary, eos_token=sorted(tokenizer.ends))
        self._compiled: dict[str, LLMatcher] = {}

    def matcher(self, schema: JSONSchema) -> LLMatcher:
        """A matcher at the beginning of an output.

        Raises:
            InvalidSpec: The schema uses what cannot be followed token by token, or is none.
        """
        import llguidance

        text = json.dumps(schema)  # the order of properties is the order they are written in
        if text not in self._compiled:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                text, defaults={"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
            )
            matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise InvalidSpec(
                    f"The JSON schema cannot be followed: {matcher.get_error().splitlines()[0]}",
                    "See the keywords that llguidance supports: https://github.com/guidance-ai/llguidance.",
                )
            self._compiled[text] = matcher
        return self._compiled[text].deep_copy()
