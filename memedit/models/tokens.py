"""Text to tokens and back, and chats to text, from a model's folder alone: tokenizer.json and the chat template.

Gives what transformers' tokenizers give, without importing transformers, which takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from memedit.errors import InvalidQuestion, PromptTooLong
from memedit.models.base import LanguageModel, Message, Prompt
from memedit.models.network import Tokens

if TYPE_CHECKING:
    import jinja2


class Tokenizer(Protocol):
    """What a model in this process needs of a tokenizer."""

    @property
    def end(self) -> str | None:
        """The token that ends a text or a turn."""
        ...

    @property
    def ends(self) -> frozenset[int]:
        """Ids of all tokens that end a text."""
        ...

    @property
    def definition(self) -> str | None:
        """The content of its tokenizer.json; None where it is not of that kind."""
        ...

    def encode(self, text: str, *, special: bool) -> Tokens:
        """Text to tokens; `special` adds those that begin and end a text, where the model has such."""
        ...

    def decode(self, tokens: Tokens) -> str:
        """Tokens to text, special ones left out."""
        ...

    def render(self, turns: Sequence[Message]) -> str | None:
        """A chat as the text the model answers to, special tokens included; None where it has no chat template."""
        ...


def rendered(tokenizer: Tokenizer, prompt: Prompt) -> tuple[str, bool]:
    """The text that a model sees of a prompt, and whether the tokenizer still has to add its own special tokens to it."""
    if isinstance(prompt, str):
        return prompt, True
    text = tokenizer.render(prompt)
    if text is None:
        return next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), ""), True
    return text, False


def encoded(tokenizer: Tokenizer, prompt: Prompt) -> Tokens:
    """A prompt's tokens.

    Raises:
        InvalidQuestion: There are none.
    """
    text, is_raw = rendered(tokenizer, prompt)
    tokens = tokenizer.encode(text, special=is_raw)
    if not tokens:
        raise InvalidQuestion("The prompt is empty.", "Give the model some text to continue.")
    return tokens


def joined(tokenizer: Tokenizer, prompt: Prompt, continuation: str) -> tuple[Tokens, int]:
    """A prompt and its continuation, tokenized together, and where the latter begins: at the first token that is not the prompt's.

    Raises:
        InvalidQuestion: The prompt is empty.
    """
    text, is_raw = rendered(tokenizer, prompt)
    before = encoded(tokenizer, prompt)
    tokens = tokenizer.encode(text + continuation, special=is_raw)
    start = next((i for i, (a, b) in enumerate(zip(before, tokens, strict=False)) if a != b), len(before))
    if start == 0:  # one token spans the whole prompt: nothing would be left to predict it from
        tokens, start = before + tokenizer.encode(continuation, special=False), len(before)
    return tokens, start


def check_length(model: LanguageModel, prompt_tokens: int, max_tokens: int) -> None:
    """Fail where a prompt and what is to come do not fit a model.

    Raises:
        PromptTooLong: They do not.
    """
    if prompt_tokens + max_tokens > model.context_length:
        raise PromptTooLong(
            f"A prompt of {prompt_tokens} tokens and {max_tokens} to generate do not fit the {model.context_length} "
            f"tokens that {model.name} can read.",
            "Shorten the prompt or lower max_tokens.",
        )


class FolderTokenizer:
    """The tokenizer in a folder with tokenizer.json, tokenizer_config.json and generation_config.json or config.json.

    Args:
        folder: As transformers' save_pretrained writes it.

    Raises:
        OSError, ValueError: A file is missing or is not what it should be.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._definition = (folder / "tokenizer.json").read_text(encoding="utf-8")
        self._tokenizer: Tokenizer = Tokenizer.from_str(self._definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings = _read(folder / "tokenizer_config.json")
        self._special = {name: text for name in _SPECIAL if (text := _token(settings.get(name))) is not None}
        separate = folder / "chat_template.jinja"
        template = separate.read_text(encoding="utf-8") if separate.exists() else settings.get("chat_template")
        self._template = template if isinstance(template, str) else None
        self.ends = self._ends(folder)

    @property
    def end(self) -> str | None:
        """The token that ends a text or a turn."""
        return self._special.get("eos_token")

    @property
    def definition(self) -> str:
        """The content of tokenizer.json."""
        return self._definition

    def encode(self, text: str, *, special: bool) -> Tokens:
        """Text to tokens; see `Tokenizer.encode`."""
        tokens: Tokens = self._tokenizer.encode(text, add_special_tokens=special).ids
        return tokens

    def decode(self, tokens: Tokens) -> str:
        """Tokens to text, special ones left out."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def render(self, turns: Sequence[Message]) -> str | None:
        """A chat as the text the model answers to; see `Tokenizer.render`.

        Raises:
            InvalidQuestion: The model's template refuses the chat.
        """
        if self._template is None:
            return None
        import jinja2

        options = {**self._special, "messages": list(turns), "tools": None, "documents": None}
        try:
            return self._compiled.render(add_generation_prompt=True, **options)
        except jinja2.TemplateError as error:
            raise InvalidQuestion(
                f"The model's chat template refuses the chat: {error}", "Give turns of the roles the model knows."
            ) from error

    @cached_property
    def _compiled(self) -> jinja2.Template:
        return _environment().from_string(self._template or "")

    def _ends(self, folder: Path) -> frozenset[int]:
        generation = folder / "generation_config.json"
        named = _read(generation if generation.exists() else folder / "config.json").get("eos_token_id")
        own = self._tokenizer.token_to_id(self.end) if self.end is not None else None
        found = [*named, own] if isinstance(named, list) else [named, own]
        return frozenset(number for number in found if isinstance(number, int))


_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _read(path: Path) -> Mapping[str, object]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def _token(value: object) -> str | None:
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _environment() -> jinja2.Environment:
    """Jinja as chat templates expect it: no blank lines after blocks, JSON without HTML escapes, `raise_exception`.

    Sandboxed, since a template is code that came with a model.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    def now(pattern: str) -> str:
        return datetime.now().strftime(pattern)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    helpers: dict[str, Callable[..., object]] = {"raise_exception": refuse, "strftime_now": now}
    environment.globals.update(helpers)
    return environment
