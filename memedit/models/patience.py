"""Sending a request to a model server: again where that may help, and every failure as one of memedit's errors.

Knows the `openai` client's exceptions and HTTP's status codes; knows nothing of prompts.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from memedit.errors import (
    BadModelResponse,
    MemEditError,
    ModelNotFound,
    ModelTimeout,
    ModelUnavailable,
    PromptTooLong,
)

if TYPE_CHECKING:
    from tenacity import RetryCallState

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        server: What errors call it: its URL.
        timeout: Seconds a request may take, its retries included.
        retries: How often it is sent again after 408, 409, 429, 5xx or a broken connection.
        secret: Cut out of every message.
    """

    server: str
    timeout: float
    retries: int
    secret: str = field(default="", repr=False)

    def send(self, request: Callable[[float], _T]) -> _T:
        """Call `request` with the seconds that are left, until it succeeds, cannot, or the time is up.

        Raises:
            ModelUnavailable, ModelTimeout, BadModelResponse, ModelNotFound, PromptTooLong: What the client's error means.
        """
        import tenacity

        deadline = time.monotonic() + self.timeout
        attempts = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.retries + 1) | tenacity.stop_before_delay(self.timeout),
            wait=_pause,
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return attempts(lambda: request(max(deadline - time.monotonic(), 0.001)))
        except Exception as error:
            raise self._translated(error) from error

    def watch(self, pieces: Iterable[_T]) -> Iterator[_T]:
        """The pieces of an answer that is streamed; raises as `send`, between pieces as well."""
        try:
            yield from pieces
        except Exception as error:
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> Exception:
        import openai

        if isinstance(error, MemEditError):
            return error
        said = _said(error).replace(self.secret, "***") if self.secret else _said(error)
        if isinstance(error, openai.APITimeoutError):
            return ModelTimeout(
                f"{self.server} did not answer within {self.timeout:g} s.",
                "Give a longer timeout, or less to do at once.",
            )
        if isinstance(error, openai.APIConnectionError):
            return ModelUnavailable(
                f"{self.server} cannot be reached: {said}", "Check that the server runs and that the URL is right."
            )
        if isinstance(error, openai.APIStatusError):
            return self._refused(error.status_code, said)
        if isinstance(error, openai.APIError | ValueError):
            return BadModelResponse(
                f"{self.server} answered something that is no completion: {said}", "See the server's log."
            )
        return error

    def _refused(self, status: int, said: str) -> Exception:
        if status in (400, 413, 422) and _TOO_LONG.search(said):
            return PromptTooLong(
                f"{self.server} finds a prompt too long: {said}", "Shorten the prompt or lower max_tokens."
            )
        if status == 404:
            return ModelNotFound(
                f"{self.server} does not have this: {said}",
                "Check the URL, which usually ends in /v1, and the model's name.",
            )
        if status in (401, 403):
            return ModelUnavailable(
                f"{self.server} refuses the API key (HTTP {status}).", "Set OPENAI_API_KEY to one that it accepts."
            )
        if status in (408, 504):
            return ModelTimeout(
                f"{self.server} did not answer in time (HTTP {status}).", "Give it less to do at once, or more time."
            )
        return ModelUnavailable(f"{self.server} refused a request (HTTP {status}): {said}", "See the server's log.")


_TOO_LONG = re.compile(r"context.length|context.window|maximum.*(tokens|length)|max_model_len|too long", re.IGNORECASE)


def _may_pass(error: BaseException) -> bool:
    import openai

    if isinstance(error, openai.APITimeoutError):
        return False  # all of the time went into it
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (408, 409, 429) or error.status_code >= 500
    return isinstance(error, openai.APIConnectionError)


def _pause(state: RetryCallState) -> float:
    """What the server asks for, else 0.25 s, doubled each time up to 8 s, less a random part of up to a half."""
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    asked = str(headers.get("retry-after", ""))
    if re.fullmatch(r"\d+(\.\d+)?", asked):
        return float(asked)
    return min(0.25 * 2.0 ** (state.attempt_number - 1), 8.0) * random.uniform(0.5, 1.0)


def _said(error: Exception) -> str:
    cause = error.__cause__ if error.__cause__ is not None and str(error) in ("", "Connection error.") else error
    return (" ".join(str(cause).split()) or type(cause).__name__)[:500]
