"""The OpenAI-compatible part: what no edit is in scope of goes through untouched, what one is gets the edit in its prompt.

The upstream model writes every answer. A whole answer that fails to carry the edit is asked for once more, then the edit's
own answer is given; one that is streamed goes through as it comes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

import anyio
import httpx
from fastapi import APIRouter, Request, Response

from memedit.errors import InvalidRequest, ModelError, UnknownFact
from memedit.memory.memory import MemoryView
from memedit.server.access import Access, authorise, services_of
from memedit.server.answers import (
    Events,
    Json,
    Outcome,
    carries,
    edits_header,
    expected_answer,
    memedit_field,
    plain_answer,
    spliced,
    texts_of,
    with_texts,
)
from memedit.server.logs import log
from memedit.server.paths import role_for
from memedit.server.records import Role
from memedit.server.services import Services
from memedit.server.tracing import span
from memedit.server.turns import Asked, edited_body, read_request
from memedit.server.upstream import Relay, is_events, streams_events, whole
from memedit.strategies.base import Resolution

router = APIRouter(tags=["gateway"])

ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
OWN_PATHS = ("/v1/memory", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
"""What is never passed on, whatever the method."""
_ASKING_AGAIN = 0.9
"""Share of the time that is left which asking again may take, so that the edit's own answer is still in time."""


class _Turn(NamedTuple):
    """An in-scope request on its way."""

    services: Services
    request: Request
    access: Access
    asked: Asked
    found: list[Resolution]
    view: MemoryView
    cache_salt: str | None


class _Answer(NamedTuple):
    """An answer of the upstream server, as bytes, and read where it is one."""

    response: httpx.Response
    body: bytes
    answer: Json | None


@router.post("/v1/chat/completions", summary="Chat, with the edits in scope in the prompt")
async def chat_completions(request: Request) -> Response:
    """OpenAI's chat completions. Where no edit is in scope, bytes go to the upstream server and come back untouched.

    Where one is, the header `x-memedit-edits` holds the ids of the edits, and the body (in a stream the last chunk) a field
    `memedit` with edits, hops and how the answer came to carry them.
    """
    return await _complete(request, is_chat=True)


@router.post("/v1/completions", summary="Complete, with the edits in scope in the prompt")
async def completions(request: Request) -> Response:
    """OpenAI's completions; see chat completions."""
    return await _complete(request, is_chat=False)


@router.api_route("/{path:path}", methods=ANY_METHOD, include_in_schema=False)
async def everything_else(request: Request, path: str) -> Response:
    """Everything else goes to the upstream server as it is: inference for every key, all else for an admin's."""
    own = f"/{path}"
    if any(own == one or own.startswith(f"{one}/") for one in OWN_PATHS):
        raise UnknownFact(f"There is no {request.method} {own} here.", "See /docs for what there is.")
    services = services_of(request)
    role = role_for(request.method, _raw_path(request), services.settings.reader_paths)
    access = await authorise(request, role)
    return await _pass_on(services, request, access, await request.body(), repeatable=role is Role.READER)


async def _complete(request: Request, *, is_chat: bool) -> Response:
    services = services_of(request)
    access = await authorise(request, Role.READER)
    body = await request.body()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequest("The request's body is compressed.", "Send it without a content-encoding.")
    try:
        with anyio.fail_after(services.settings.timeout):  # for all that is asked of the upstream server together
            return await _respond(services, request, access, body, is_chat=is_chat)
    except TimeoutError as error:
        raise services.upstream.failure(error) from error


async def _respond(services: Services, request: Request, access: Access, body: bytes, *, is_chat: bool) -> Response:
    asked = read_request(body, is_chat=is_chat)
    if asked is None:
        services.metrics.scope("unread")
        return await _pass_on(services, request, access, body, completes=True)
    with services.metrics.timed("resolve"), span("resolve") as recorded:
        view, found = await services.resolve(
            asked.texts, access.namespace, asked.model, access.authorization, asked.earlier
        )
        recorded.told(found)
    facts = [fact for one in found for fact in one.facts]
    services.metrics.scope("in" if facts else "out", [hop for one in found for hop in one.hops])
    request.state.edits = [fact.id for fact in facts]
    if services.settings.log_contents:
        log("question", logging.INFO, key=access.key, namespace=access.namespace, texts=list(asked.texts))
    if not facts:
        return await _pass_on(services, request, access, body, completes=True)
    salt = await services.salt(access.namespace, access.authorization, asked.payload.get("cache_salt"))
    turn = _Turn(services, request, access, asked, found, view, salt)
    return await (_stream(turn) if asked.streams else _answer(turn))


# -- out of scope --------------------------------------------------------------------------------------------


async def _pass_on(
    services: Services,
    request: Request,
    access: Access,
    body: bytes,
    *,
    completes: bool = False,
    repeatable: bool = True,
) -> Response:
    """Send the request upstream as it came, and the answer back as it comes.

    A completion that is no stream is read first, so that a failure in its middle, or garbage, is told as an error.
    """
    response = await _send(services, request, access, body, repeatable=repeatable)
    if not completes or streams_events(response):
        return Relay(services.upstream, response)
    return whole(response, await services.upstream.read_answer(response))


async def _send(
    services: Services,
    request: Request,
    access: Access,
    body: bytes,
    *,
    plain: bool = False,
    repeatable: bool = True,
) -> httpx.Response:
    query = request.scope["query_string"]
    return await services.upstream.send(
        request.method,
        _raw_path(request) + (b"?" + query if query else b""),
        request.headers.raw,
        body,
        authorization=access.authorization,
        plain=plain,
        repeatable=repeatable,
    )


def _raw_path(request: Request) -> bytes:
    path: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return path


# -- in scope ------------------------------------------------------------------------------------------------


async def _stream(turn: _Turn) -> Response:
    services = turn.services
    expected = await _expected(turn)
    body = edited_body(turn.asked, turn.found, expected, cache_salt=turn.cache_salt)
    response = await _send(services, turn.request, turn.access, body, plain=True)
    if not is_events(response) or response.status_code != httpx.codes.OK:
        return whole(response, await services.upstream.read_answer(response))
    services.metrics.answer("streamed")
    events = Events(memedit_field(turn.found, "streamed"))
    return Relay(services.upstream, response, _told(response, events), [edits_header(turn.found)])


async def _told(response: httpx.Response, events: Events) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_raw():
            if ready := events.feed(piece):
                yield ready
    except httpx.HTTPError:
        if left := events.break_off():
            yield left
        raise
    if left := events.end():
        yield left


async def _answer(turn: _Turn) -> Response:
    """A whole answer that carries the edit: as it is, asked for again, or the edit's own."""
    services, asked = turn.services, turn.asked
    expected = await _expected(turn)
    first = await _ask(turn, expected)
    answer = first.answer
    if answer is None:
        return whole(first.response, first.body)
    missed = await services.work(_missed, turn, answer, expected)
    outcome: Outcome = "unchecked" if missed is None else "carried"
    body = first.body
    if missed:
        second = await _ask_again(turn, expected)
        if second is not None and not await services.work(_missed, turn, second.answer or {}, expected):
            outcome, first, body = "asked_again", second, second.body
        elif asked.is_shaped:
            outcome = "missed"
        else:
            outcome = "given"
            plain = {at: plain_answer(turn.found[place], expected[place] or "") for at, place in missed.items()}
            body = json.dumps(with_texts(answer, plain, is_chat=asked.is_chat)).encode()
    services.metrics.answer(outcome)
    return whole(first.response, spliced(body, memedit_field(turn.found, outcome)), [edits_header(turn.found)])


async def _expected(turn: _Turn) -> list[str | None]:
    """For each text the answer that the edits give, where that is certain."""
    questions = [one.question or text for one, text in zip(turn.found, turn.asked.texts, strict=True)]
    return [
        await turn.services.work(expected_answer, question, one, turn.view)
        for question, one in zip(questions, turn.found, strict=True)
    ]


def _missed(turn: _Turn, answer: Json, expected: Sequence[str | None]) -> dict[int, int] | None:
    """The choices that do not say what is expected, each with the place of its text; None where none can be told.

    A server gives the choices of a text one after the other, and as many for each.
    """
    texts = texts_of(answer, is_chat=turn.asked.is_chat)
    if texts is None or len(texts) % len(expected) or all(one is None for one in expected):
        return None
    each = len(texts) // len(expected)
    pairs = [(at, at // each, expected[at // each]) for at in range(len(texts))]
    return {at: place for at, place, one in pairs if one is not None and not carries(texts[at], one, turn.view)}


async def _ask_again(turn: _Turn, expected: Sequence[str | None]) -> _Answer | None:
    """The second answer; None where there is none in time, which is not told: there is a first, and what it should have said."""
    left = anyio.current_effective_deadline() - anyio.current_time()
    try:
        with anyio.fail_after(_ASKING_AGAIN * left):
            return await _ask(turn, expected, again=True)
    except (ModelError, TimeoutError):
        return None


async def _ask(turn: _Turn, expected: Sequence[str | None], *, again: bool = False) -> _Answer:
    """Ask the upstream server with the edits in the prompt."""
    services = turn.services
    make = partial(edited_body, turn.asked, turn.found, expected, again=again, cache_salt=turn.cache_salt)
    body = await services.work(make)
    response = await _send(services, turn.request, turn.access, body, plain=True)
    data = await services.upstream.read_answer(response)
    return _Answer(response, data, None if response.status_code != httpx.codes.OK else _read(data))


def _read(body: bytes) -> Json | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
