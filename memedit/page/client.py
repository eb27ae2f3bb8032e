"""The gateway's own API as the page calls it: in this process, as the visitor, by the same routes as everyone else.

So roles, namespaces, limits and the audit log hold for the page because they hold for the API; nothing is decided here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from starlette.types import ASGIApp, Receive, Scope, Send

from memedit.errors import BadModelResponse, MemEditError
from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.page.guard import Visitor
from memedit.server.access import KEY_HEADER, NAMESPACE_HEADER
from memedit.server.preview import Previewed
from memedit.server.schemas import FactPage, FoundList, Imported, Namespaces
from memedit.server.services import Services

ANSWER_TOKENS = 256
"""Most tokens of an answer."""
Message = dict[str, str]
_M = TypeVar("_M", bound=BaseModel)


class Refused(Exception):
    """The API said no; the text says what is wrong and how to mend it."""


class UsedEdit(BaseModel):
    """An edit that an answer was given from."""

    id: int
    statement: str


class UsedHop(BaseModel):
    """A step of the chain behind an answer."""

    entity: str
    relation: str
    object: str
    source: Literal["edit", "implied", "belief"]
    edit: int | None = None
    probability: float = 1.0


class Used(BaseModel):
    """What a response says about the edits behind it: its field ``memedit``; `question` is a follow-up as it was understood."""

    edits: list[UsedEdit]
    hops: list[UsedHop]
    probability: float
    answer: str
    question: str | None = None


class Reply(BaseModel):
    """An answer.

    Attributes:
        text: What it says.
        used: The edits behind it; None where none was in scope.
    """

    text: str
    used: Used | None = None


class Gateway:
    """The API for one visitor in one namespace.

    Args:
        app: The gateway.
        services: Its upstream server, for the base model's own answers.
        visitor: Whose key is used.
        namespace: Where; the key's own if None.
    """

    def __init__(self, app: ASGIApp, services: Services, visitor: Visitor, namespace: str | None = None) -> None:
        self._app = app
        self._services = services
        self._client = visitor.client
        self._headers = {KEY_HEADER: visitor.key} if visitor.key is not None else {}
        if namespace:
            self._headers[NAMESPACE_HEADER] = quote(namespace)

    # -- facts -----------------------------------------------------------------------------------------------

    async def facts(self, *, text: str = "", live: bool = True, after: int = 0, limit: int = 50) -> FactPage:
        """A page of the facts that contain a text, the newest first."""
        query = {"live": str(live).lower(), "newest_first": "true", "after": str(after), "limit": str(limit)}
        if text.strip():
            query["text"] = text
        return await self._get(FactPage, "/v1/memory/facts", query)

    async def search(self, text: str, limit: int = 20) -> FoundList:
        """The live facts nearest in meaning."""
        return await self._get(FoundList, "/v1/memory/search", {"q": text, "k": str(limit)})

    async def fact(self, number: int) -> Fact:
        """A fact, live or not."""
        return await self._get(Fact, f"/v1/memory/facts/{number}")

    async def history(self, subject: str, relation: str) -> FactPage:
        """Everything ever recorded of a subject and relation, oldest first."""
        return await self._get(
            FactPage, "/v1/memory/history", {"subject": subject, "relation": relation, "limit": "1000"}
        )

    async def namespaces(self) -> list[str]:
        """The namespaces that the visitor reaches and that hold something."""
        return (await self._get(Namespaces, "/v1/memory/namespaces")).data

    async def add(self, fact: FactInput) -> Receipt:
        """Record a fact."""
        return Receipt.model_validate_json(await self._call("POST", "/v1/memory/facts", json=_given(fact)))

    async def preview(self, fact: FactInput, question: str) -> Previewed:
        """What recording a fact would change."""
        body: dict[str, object] = {"fact": _given(fact)}
        if question.strip():
            body["question"] = question
        return Previewed.model_validate_json(await self._call("POST", "/v1/memory/preview", json=body))

    async def retract(self, number: int) -> Fact:
        """Retract a fact."""
        return Fact.model_validate_json(await self._call("DELETE", f"/v1/memory/facts/{number}"))

    async def undo(self) -> list[Fact]:
        """Undo the last write; the facts that it touched."""
        return FactPage.model_validate_json(await self._call("POST", "/v1/memory/undo")).data

    async def import_file(self, file: Path, progress: Callable[[int, int], None]) -> Imported:
        """Record the facts of a file; `progress` is told (done, total) of the texts that are embedded."""
        with file.open("rb") as opened:
            body = await self._call("POST", "/v1/memory/import", files={"file": (file.name, opened)}, progress=progress)
        return Imported.model_validate_json(body)

    # -- answers ---------------------------------------------------------------------------------------------

    async def models(self) -> list[str]:
        """The names of the upstream server's models."""
        try:
            listed = json.loads(await self._call("GET", "/v1/models"))
            return [one["id"] for one in listed["data"]]
        except (ValueError, LookupError, TypeError) as error:
            raise Refused(
                "The model server's list of models cannot be read. Check what --upstream points at."
            ) from error

    async def answer(self, messages: Sequence[Message], model: str) -> Reply:
        """The answer that clients of the gateway get."""
        return _reply(await self._call("POST", "/v1/chat/completions", json=_chat(messages, model)))

    async def base_answer(self, messages: Sequence[Message], model: str) -> Reply:
        """The base model's own answer, with no fact in its prompt."""
        settings, upstream = self._services.settings, self._services.upstream
        key = None if settings.upstream_key is None else f"Bearer {settings.upstream_key}"
        body = json.dumps(_chat(messages, model)).encode()
        headers = [(b"content-type", b"application/json"), (b"accept", b"application/json")]
        try:
            response = await upstream.send(
                "POST", b"/v1/chat/completions", headers, body, authorization=key, plain=True
            )
            data = await upstream.read(response)
        except MemEditError as error:
            raise Refused(str(error)) from error
        if response.status_code >= httpx.codes.BAD_REQUEST:
            raise Refused(_problem(data, response.status_code))
        return _reply(data)

    # -- calls -----------------------------------------------------------------------------------------------

    async def _get(self, kind: type[_M], path: str, query: Mapping[str, str] | None = None) -> _M:
        return kind.model_validate_json(await self._call("GET", path, params=query))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: object = None,
        files: Mapping[str, tuple[str, object]] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> bytes:
        transport = httpx.ASGITransport(
            _InProcess(self._app, progress), raise_app_exceptions=False, client=(self._client, 0)
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://memedit", headers=self._headers) as client:
            request = client.build_request(method, path, params=params, json=json, files=files, timeout=None)  # type: ignore[arg-type]
            response = await client.send(request)
        if response.status_code >= httpx.codes.BAD_REQUEST:
            raise Refused(_problem(response.content, response.status_code))
        return response.content


class _InProcess:
    """The application, with what only a caller in this process can hand to a route."""

    def __init__(self, app: ASGIApp, progress: Callable[[int, int], None] | None) -> None:
        self._app = app
        self._progress = progress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._progress is not None:
            scope.setdefault("state", {})["progress"] = self._progress
        await self._app(scope, receive, send)


def _given(fact: FactInput) -> dict[str, object]:
    given: dict[str, object] = fact.model_dump(mode="json", exclude_none=True)
    return given


def _chat(messages: Sequence[Message], model: str) -> dict[str, object]:
    return {"model": model, "messages": list(messages), "temperature": 0, "max_tokens": ANSWER_TOKENS}


def _reply(body: bytes) -> Reply:
    try:
        answer = json.loads(body)
        text = answer["choices"][0]["message"].get("content") or ""
        used = answer.get("memedit")
        return Reply(text=text.strip(), used=None if not used else Used.model_validate(used))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = BadModelResponse(
            "The model server's answer is no chat completion.", "Check what --upstream points at."
        )
        raise Refused(str(problem)) from error


def _problem(body: bytes, status: int) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return f"The server refused with status {status}. The operator finds the cause in its log."
    return str(message)
