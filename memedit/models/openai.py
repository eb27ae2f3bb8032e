"""Any server that speaks the OpenAI API: vLLM first of all, and whatever else has /v1/completions and /v1/chat/completions.

Raw prompts go to /v1/completions and chats to /v1/chat/completions. What only vLLM has (choices and schemas enforced by the
server, token log probabilities of a prompt, its tokenizer) is used when /v1/models says that vLLM owns the model; elsewhere
each method says what it does instead. API keys are sent to the server and put nowhere else.
"""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar, cast

from memedit.errors import BadModelResponse, InvalidQuestion, InvalidSpec
from memedit.models.base import Completion, Prompt, Sampling, Score
from memedit.models.caching import CacheUsage, cache_usage
from memedit.models.connection import Connection, Flavour, Served, mapping

_T = TypeVar("_T")
_R = TypeVar("_R")


class OpenAIModel:
    """A served model behind the `LanguageModel` protocol. Nothing is sent before the first call. Threads may share it.

    Args:
        base_url: The server, e.g. "http://localhost:8000/v1".
        model: The model's name there; by default the first that the server lists.
        api_key: By default the environment variable OPENAI_API_KEY; many servers need none.
        timeout: Seconds a request may take, its retries included.
        retries: How often a request is sent again after 408, 409, 429, 5xx or a broken connection.
        concurrency: Most requests on their way at once.
        context_length: Most tokens of prompt and completion; by default what the server says, or 4096 if it does not.
        flavour: "vllm" or "other"; found out if not given.
        cache_salt: Divides vLLM's prefix cache: prompts share it only with those of the same salt. Other servers are not
            sent it.

    Raises:
        InvalidSpec: `base_url` is no URL.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        retries: int = 4,
        concurrency: int = 32,
        context_length: int | None = None,
        flavour: Flavour | None = None,
        cache_salt: str | None = None,
    ) -> None:
        self._connection = Connection(
            base_url,
            model,
            api_key=api_key or os.environ.get("OPENAI_API_KEY"),
            timeout=timeout,
            retries=retries,
            flavour=flavour,
        )
        self._server = self._connection.server
        self._concurrency = concurrency
        self._context_length = context_length
        self._salt = cache_salt

    def __repr__(self) -> str:
        return f"OpenAIModel({self._server!r}, {self._connection.model!r})"

    @property
    def name(self) -> str:
        """The model's name at the server; asks the server if it was not given."""
        return f"openai:{self._connection.model or self._about().model}"

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together; asks the server if it was not given."""
        return self._context_length or self._about().context_length or 4096

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """Complete each prompt, many at a time; see `LanguageModel.generate`.

        `sampling.choices` is enforced by vLLM; another server answers freely and the choice nearest to its answer is taken (the
        same, else the one it begins with, else one that it contains, else the most similar). After a raw prompt that
        does not end in white space, a choice has a space before it. `sampling.json_schema` is sent as vLLM's structured
        outputs or as `response_format`.

        Raises:
            ModelUnavailable: The server is down, refuses, or is overloaded, and stays so over the retries.
            ModelTimeout: The answer did not come within the timeout.
            BadModelResponse: What came is not a completion.
            ModelNotFound: The server has no such model, or none of these endpoints.
            PromptTooLong: A prompt and `sampling.max_tokens` do not fit the model.
            InvalidQuestion: A prompt is empty.
        """
        return self._each(lambda prompt: self._complete(prompt, sampling), prompts)

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion of one prompt, in pieces as they come; raises what `generate` raises, also between pieces."""
        if sampling.choices:
            yield self._complete(prompt, sampling).text
            return
        finished = False
        chunks = cast("Iterable[object]", self._create(prompt, self._options(sampling) | {"stream": True}))
        for chunk in self._connection.patience.watch(chunks):
            for choice in _choices(chunk, self._server):  # none in the closing chunk that holds the token counts
                text = choice.get("text") if isinstance(prompt, str) else mapping(choice.get("delta")).get("content")
                finished = finished or choice.get("finish_reason") is not None
                if isinstance(text, str) and text:
                    yield text
        if not finished:
            raise BadModelResponse(f"{self._server} broke off in the middle of an answer.", "Ask again.")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log probability of each continuation after its prompt. vLLM only.

        A raw prompt and its continuation are tokenized together, and the continuation begins at the first token that the prompt
        alone does not have; after a chat the continuation is tokenized by itself.

        Raises:
            InvalidSpec: The server is not vLLM.
            ModelUnavailable, ModelTimeout, BadModelResponse, ModelNotFound, PromptTooLong, InvalidQuestion: As `generate`.
        """
        if self._about().flavour != "vllm":
            raise InvalidSpec(
                f"{self._server} does not tell the probabilities of a given text; only vLLM servers do.",
                "Use a vLLM server, an in-process model ('hf:NAME_OR_PATH'), or a strategy that needs no scores.",
            )
        return self._each(lambda pair: self._score(*pair), pairs)

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, chat template included.

        Exact on vLLM. Elsewhere an estimate on the high side: a token for every three bytes, and four more for every message.
        """
        if self._about().flavour == "vllm":
            return len(self._tokenize(prompt))
        turns = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
        return sum(len(turn.encode()) // 3 + 1 for turn in turns) + (0 if isinstance(prompt, str) else 4 * len(turns))

    def salted(self, salt: str) -> Self:
        """The same model over the same connection, with another `cache_salt`."""
        twin = copy.copy(self)
        twin._salt = salt
        return twin

    def cache_usage(self) -> CacheUsage | None:
        """How much of all its prompts, whoever sent them, vLLM found in its prefix cache; None where it is not told.

        Raises:
            ModelUnavailable, ModelTimeout, BadModelResponse, ModelNotFound: As `generate`.
        """
        if self._about().flavour != "vllm":
            return None
        client = self._connection.client()
        url = f"{self._connection.root}/metrics"
        text = self._connection.patience.send(
            lambda timeout: client.get(url, cast_to=str, options={"timeout": timeout})
        )
        return cache_usage(text)

    # -- one prompt ----------------------------------------------------------------------------------------------

    def _complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        is_free = sampling.choices and self._about().flavour != "vllm"
        lead = " " if sampling.choices and isinstance(prompt, str) and not prompt[-1:].isspace() else ""
        options = self._options(sampling, lead)
        if sampling.probability:
            options["logprobs"] = 0 if isinstance(prompt, str) else True
        response = self._create(prompt, options)
        choice = next(iter(_choices(response, self._server)), {})
        text = choice.get("text") if isinstance(prompt, str) else mapping(choice.get("message")).get("content")
        if not isinstance(text, str):
            raise BadModelResponse(
                f"{self._server} answered without a text.",
                "Check that the URL is that of an OpenAI-compatible server.",
            )
        if sampling.choices:
            text = _nearest(text, sampling.choices) if is_free else text.removeprefix(lead)
            if text not in sampling.choices:
                raise BadModelResponse(f"{self._server} answered {text!r}, which is none of the choices.", "Ask again.")
        usage = mapping(_dump(response).get("usage"))
        spent, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Completion(
            text,
            spent if isinstance(spent, int) else 0,
            written if isinstance(written, int) else 0,
            "length" if choice.get("finish_reason") == "length" and not sampling.choices else "stop",
            _log_probability(choice.get("logprobs")) if sampling.probability else None,
        )

    def _score(self, prompt: Prompt, continuation: str) -> Score:
        before = self._tokenize(prompt)
        if isinstance(prompt, str):
            tokens = self._tokenize(prompt + continuation) if continuation else before
            start = next((i for i, (a, b) in enumerate(zip(before, tokens, strict=False)) if a != b), len(before))
        else:
            tokens = before + (self._tokenize(continuation, special=False) if continuation else [])
            start = len(before)
        if start in (0, len(tokens)):
            return Score(0.0, 0, greedy=True, matched_tokens=0)
        client = self._connection.client()
        response = self._connection.patience.send(
            lambda timeout: client.completions.create(
                model=self._about().model,
                prompt=tokens,
                max_tokens=1,
                temperature=0.0,
                extra_body={"prompt_logprobs": 1, **self._salts()},
                timeout=timeout,
            )
        )
        [choice, *_] = [*_choices(response, self._server), {}]
        told = choice.get("prompt_logprobs")
        if not isinstance(told, list) or len(told) != len(tokens):
            raise BadModelResponse(f"{self._server} did not tell the probabilities of the prompt.", "Update vLLM.")
        total, matched, likeliest = 0.0, 0, list[int]()
        for token, entry in zip(tokens[start:], told[start:], strict=True):
            ranked = {name: mapping(one) for name, one in mapping(entry).items()}
            one = ranked.get(str(token), {})
            value = one.get("logprob")
            if not isinstance(value, int | float):
                raise BadModelResponse(f"{self._server} left out the probability of a token.", "Update vLLM.")
            total += value
            matched += one.get("rank") == 1
            likeliest += [int(name) for name, other in ranked.items() if other.get("rank") == 1][:1]
        count = len(tokens) - start
        return Score(total, count, matched == count, matched, tuple(likeliest) if len(likeliest) == count else ())

    def _tokenize(self, prompt: Prompt, *, special: bool = True) -> list[int]:
        body: dict[str, object] = {"model": self._about().model}
        body |= (
            {"prompt": prompt, "add_special_tokens": special} if isinstance(prompt, str) else {"messages": list(prompt)}
        )
        client = self._connection.client()
        url = f"{self._connection.root}/tokenize"
        answer = self._connection.patience.send(
            lambda timeout: client.post(url, cast_to=object, body=body, options={"timeout": timeout})
        )
        tokens = mapping(answer).get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise BadModelResponse(
                f"{url} answered no list of tokens.", "Give flavour='other' if it is no vLLM server."
            )
        return tokens

    # -- requests ------------------------------------------------------------------------------------------------

    def _options(self, sampling: Sampling, lead: str = "") -> dict[str, object]:
        options: dict[str, object] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
        if sampling.seed is not None:
            options["seed"] = sampling.seed
        if sampling.choices:
            # A token has at least one byte, so this is room enough for any of them.
            options["max_tokens"] = max(len(f"{lead}{choice}".encode()) for choice in sampling.choices) + 1
            if self._about().flavour == "vllm":
                allowed = [f"{lead}{choice}" for choice in sampling.choices]
                options["extra_body"] = {"structured_outputs": {"choice": allowed}}
            return options
        if sampling.stop:
            options["stop"] = list(sampling.stop)
        if sampling.json_schema is not None:
            schema = dict(sampling.json_schema)
            if self._about().flavour == "vllm":
                options["extra_body"] = {"structured_outputs": {"json": schema}}
            else:
                wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
                options["extra_body"] = {"response_format": wanted}
        return options

    def _create(self, prompt: Prompt, options: Mapping[str, object]) -> object:
        if not prompt:
            raise InvalidQuestion("The prompt is empty.", "Give the model some text to continue.")
        client = self._connection.client()
        if isinstance(prompt, str):
            create = cast("Callable[..., object]", client.completions.create)
            options = {"prompt": prompt, **options}
        else:
            create = cast("Callable[..., object]", client.chat.completions.create)
            options = {"messages": list(prompt), **options}
        model = self._about().model
        if salts := self._salts():
            options = {**options, "extra_body": {**mapping(options.get("extra_body")), **salts}}
        return self._connection.patience.send(lambda timeout: create(model=model, timeout=timeout, **options))

    def _salts(self) -> dict[str, object]:
        """The salt as a field of a request, where there is one and the server knows it."""
        return {"cache_salt": self._salt} if self._salt and self._about().flavour == "vllm" else {}

    def _about(self) -> Served:
        return self._connection.served()

    def _each(self, work: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
        if len(items) <= 1:
            return [work(item) for item in items]
        self._about()  # asked once, not by every thread
        pool = ThreadPoolExecutor(min(len(items), self._concurrency), thread_name_prefix="memedit-openai")
        try:
            return list(pool.map(work, items))
        finally:
            pool.shutdown(cancel_futures=True)


def _dump(response: object) -> Mapping[str, object]:
    from pydantic import BaseModel

    return response.model_dump(warnings=False) if isinstance(response, BaseModel) else mapping(response)


def _choices(response: object, where: str) -> list[Mapping[str, object]]:
    found = _dump(response).get("choices")
    if not isinstance(found, list):
        raise BadModelResponse(
            f"{where} answered something that is no completion.",
            "Check that the URL is that of an OpenAI-compatible server.",
        )
    return [mapping(choice) for choice in found]


def _log_probability(told: object) -> float | None:
    """The log probability of a choice, from either of the two shapes in which servers tell those of its tokens."""
    tokens = mapping(told)
    chat = tokens.get("content")
    values = [mapping(one).get("logprob") for one in chat] if isinstance(chat, list) else tokens.get("token_logprobs")
    if not isinstance(values, list) or not all(isinstance(one, int | float) for one in values):
        return None
    return float(sum(values))


def _nearest(text: str, choices: Sequence[str]) -> str:
    """The choice an unconstrained answer means; the longest where several fit equally."""
    answer = text.strip().strip("\"'.").casefold()
    tests: list[Callable[[str], bool]] = [
        lambda choice: choice == answer,
        lambda choice: answer.startswith(choice),
        lambda choice: choice in answer,
    ]
    for test in tests:
        fitting = [choice for choice in choices if test(choice.casefold())]
        if fitting:
            return max(fitting, key=len)
    return max(choices, key=lambda choice: difflib.SequenceMatcher(None, choice.casefold(), answer).ratio())
