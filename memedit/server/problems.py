"""Every failure as an HTTP answer in the shape of OpenAI's errors: what, why, and how to mend it."""

from __future__ import annotations

import json
import math

from memedit import errors
from memedit.errors import MemEditError

_STATUS: tuple[tuple[type[MemEditError], int], ...] = (
    (errors.Unauthenticated, 401),
    (errors.AccessDenied, 403),
    (errors.RequestTooLarge, 413),
    (errors.TooManyRequests, 429),
    (errors.UnknownFact, 404),
    (errors.UnknownEntity, 404),
    (errors.UnknownNamespace, 404),
    (errors.HistoryCompacted, 410),
    (errors.NothingToUndo, 409),
    (errors.AlreadyRetracted, 409),
    (errors.UnknownRelation, 400),
    (errors.StoreBusy, 503),
    (errors.PositionNotReached, 503),
    (errors.StoreUnavailable, 503),
    (errors.StoreError, 500),
    (errors.ModelNotFound, 404),
    (errors.ModelUnavailable, 502),
    (errors.ModelTimeout, 504),
    (errors.BadModelResponse, 502),
    (errors.PromptTooLong, 400),
    (errors.ModelError, 502),
    (errors.MissingExtra, 501),
)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    501: "not_implemented_error",
    502: "upstream_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
Body = dict[str, dict[str, object]]


def status_of(error: MemEditError) -> int:
    """The HTTP status of an error; what a caller passed in is a 400 where nothing fits better.

    >>> status_of(errors.UnknownFact("There is no fact 7."))
    404
    """
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 400)


def error_body(status: int, message: str, code: str, field: str | None = None) -> Body:
    """The JSON body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def body_of(error: MemEditError) -> Body:
    """The JSON body of one of memedit's errors; its code is the error's name.

    >>> body_of(errors.UnknownFact("There is no fact 7.", "List the facts."))["error"]["code"]
    'unknown_fact'
    """
    field = getattr(error, "field", "") or None
    return error_body(status_of(error), str(error), _snake(type(error).__name__), field)


def headers_of(error: MemEditError) -> dict[str, str]:
    """What else an error says: when to try again, and how to authenticate."""
    if isinstance(error, errors.TooManyRequests):
        return {"retry-after": str(max(1, math.ceil(error.wait)))}
    if isinstance(error, errors.StoreBusy | errors.PositionNotReached | errors.StoreUnavailable):
        return {"retry-after": "1"}
    return {"www-authenticate": "Bearer"} if isinstance(error, errors.Unauthenticated) else {}


def error_event(error: MemEditError) -> bytes:
    """An error as an event of a stream that has begun already; OpenAI's clients raise it."""
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
