"""The OpenAI-compatible part: what no edit is in scope of goes through untouched, what one is gets the edit in its prompt.

The upstream model writes every answer. A whole answer that fails to carry the edit is asked for once more, then the edit's
own answer is given; one that is streamed goes through as it comes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
from fastapi import APIRouter, Request, Response

from memedit.errors import InvalidRequest, UnknownFact
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
    only_text,
    plain_answer,
    spliced,
    with_text,
)
from memedit.server.logs import log
from memedit.server.records import Role
from memedit.server.services import Services
from memedit.server.turns import Asked, edited_body, read_request
from memedit.server.upstream import Relay, is_events, whole
from memedit.strategies.base import Resolution

router = APIRouter(tags=["gateway"])

ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]
OWN_PATHS = ("/v1/memory", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json")
"""What is never passed on, whatever the method."""


class _Turn(NamedTuple):
    """An in-scope request on its way."""

    services: Services
    request: Request
    access: Access
    asked: Asked
    found: list[Resolution]
    view: MemoryView


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
    """Everything else goes to the upstream server as it is."""
    own = f"/{path}"
    if any(own == one or own.startswith(f"{one}/") for one in OWN_PATHS):
        raise UnknownFact(f"There is no {request.method} {own} here.", "See /docs for what there is.")
    access = await authorise(request, Role.READER)
    return await _pass_on(services_of(request), request, access, await request.body())


async def _complete(request: Request, *, is_chat: bool) -> Response:
    services = services_of(request)
    access = await authorise(request, Role.READER)
    body = await request.body()
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidRequest("The request's body is compressed.", "Send it without a content-encoding.")
    asked = read_request(body, is_chat=is_chat)
    if asked is None:
        services.metrics.scope("unread")
        return await _pass_on(services, request, access, body)
    with services.metrics.timed("resolve"):
        view, found = await services.resolve(asked.texts, access.namespace, asked.model, access.authorization)
    facts = [fact for one in found for fact in one.facts]
    services.metrics.scope("in" if facts else "out", [hop for one in found for hop in one.hops])
    request.state.edits = [fact.id for fact in facts]
    if services.settings.log_contents:
        log("question", logging.INFO, key=access.key, namespace=access.namespace, texts=list(asked.texts))
    if not facts:
        return await _pass_on(services, request, access, body, streams=asked.streams)
    turn = _Turn(services, request, access, asked, found, view)
    return await (_stream(turn) if asked.streams else _answer(turn))


# -- out of scope --------------------------------------------------------------------------------------------


async def _pass_on(
    services: Services, request: Request, access: Access, body: bytes, *, streams: bool = True
) -> Response:
    """Send the request upstream as it came, and the answer back as it comes.

    An answer that is no stream is read first, so that a failure in its middle is told as an error.
    """
    response = await _send(services, request, access, body)
    if streams or is_events(response):
        return Relay(services.upstream, response)
    return whole(response, await services.upstream.read(response))


async def _send(
    services: Services, request: Request, access: Access, body: bytes, *, plain: bool = False
) -> httpx.Response:
    query = request.scope["query_string"]
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    return await services.upstream.send(
        request.method,
        path + (b"?" + query if query else b""),
        request.headers.raw,
        body,
        authorization=access.authorization,
        plain=plain,
    )


# -- in scope ------------------------------------------------------------------------------------------------


async def _stream(turn: _Turn) -> Response:
    services = turn.services
    body = edited_body(turn.asked, turn.found)
    response = await _send(services, turn.request, turn.access, body, plain=True)
    if not is_events(response) or response.status_code != httpx.codes.OK:
        return Relay(services.upstream, response)
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
    question, found = asked.texts[0], turn.found[0]
    expected = None
    if len(asked.texts) == 1:
        expected = await services.work(expected_answer, question, found, turn.view)
    response, body, answer = await _ask(turn)
    text = None if answer is None else only_text(answer, is_chat=asked.is_chat)
    if answer is None:
        return whole(response, body)
    outcome: Outcome = "unchecked"
    if expected is not None and text is not None:
        outcome = "carried"
        if not await services.work(carries, text, expected, turn.view):
            outcome, (response, body, answer) = await _ask_again(turn, expected, (response, body, answer))
    services.metrics.answer(outcome)
    field = memedit_field(turn.found, outcome)
    if outcome == "given" and expected is not None and answer is not None:
        body = json.dumps(with_text(answer, plain_answer(found, expected), is_chat=asked.is_chat)).encode()
    return whole(response, spliced(body, field), [edits_header(turn.found)])


async def _ask_again(
    turn: _Turn, expected: str, first: tuple[httpx.Response, bytes, Json | None]
) -> tuple[Outcome, tuple[httpx.Response, bytes, Json | None]]:
    """The second answer where it carries the edit; else the first, to be replaced if a sentence can stand for it."""
    services, asked = turn.services, turn.asked
    response, body, answer = await _ask(turn, expected)
    text = None if answer is None else only_text(answer, is_chat=asked.is_chat)
    if text is not None and await services.work(carries, text, expected, turn.view):
        return "asked_again", (response, body, answer)
    return ("missed" if asked.is_shaped else "given"), first


async def _ask(turn: _Turn, reminder: str = "") -> tuple[httpx.Response, bytes, Json | None]:
    """Ask the upstream server with the edits in the prompt; its answer as bytes, and read where it can be."""
    services = turn.services
    body = await services.work(edited_body, turn.asked, turn.found, reminder)
    response = await _send(services, turn.request, turn.access, body, plain=True)
    data = await services.upstream.read(response)
    return response, data, None if response.status_code != httpx.codes.OK else _read(data)


def _read(body: bytes) -> Json | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None
