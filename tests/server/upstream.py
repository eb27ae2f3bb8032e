"""A model server by script: it remembers what it was sent, byte for byte, and answers what a test tells it to.

Unless told otherwise it answers a chat with "base: " and the last message, and beliefs by `BELIEFS`. The other paths
(``/v1/odd``, ``/v1/slow``, ...) are for what a gateway must pass on without understanding it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

BELIEFS = {"Mount Fuji": " Japan\n", "Windows": " Microsoft\n"}
MODEL = "scripted-1"

SSE = (
    (
        b': hello\n\ndata: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted-1","choices":'
        b'[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"odd":1.50}\n\n'
    ),
    b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted-1","choices":[{"index":0,"delta":{"content":"Osa',
    b"ka \xe2\x82",
    (
        b'\xac"},"finish_reason":null}]}\n\ndata: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted-1","choices":'
        b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    ),
    (
        b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"scripted-1","choices":[],"usage":'
        b'{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}\n\n'
    ),
    b"data: [DONE]\n\n",
)
"""A stream in pieces that break off in the middle of events and of characters."""


@dataclass
class Sent:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def last(self) -> str:
        """The text of the last message, or the prompt."""
        payload = self.json
        if "prompt" in payload:
            return str(payload["prompt"])
        return str(payload["messages"][-1]["content"])


@dataclass
class Upstream:
    """The server's script and what it was sent.

    Attributes:
        reply: Gives the text of a chat's or completion's answer, from the request.
        answer: Gives a whole answer instead, if set.
        sent: Every request to a completion endpoint or an unknown path, in order.
        metrics: What /metrics answers.
    """

    url: str = ""
    reply: Callable[[Sent], str] = lambda sent: f"base: {sent.last}"
    answer: Callable[[Sent], Response] | None = None
    sent: list[Sent] = field(default_factory=list)
    metrics: str = ""

    def reset(self) -> None:
        self.reply = lambda sent: f"base: {sent.last}"
        self.answer = None
        self.sent.clear()

    @property
    def completions(self) -> list[Sent]:
        """The chats and prompts that were not questions for beliefs."""
        return [one for one in self.sent if not is_belief(one)]


def is_belief(sent: Sent) -> bool:
    try:
        return sent.path == "/v1/completions" and sent.last.rstrip().endswith("A:")
    except (ValueError, LookupError, TypeError):  # it is no completion that can be read
        return False


def make_upstream(owner: str = "script") -> tuple[FastAPI, Upstream]:
    """The server and its script; `owner` is whose models /v1/models says that it serves."""
    app, state = FastAPI(openapi_url=None, docs_url=None), Upstream()

    @app.get("/v1/models")
    async def models() -> Response:
        body = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 1, "owned_by": owner}]}
        return Response(json.dumps(body, indent=1), media_type="application/json")

    @app.post("/v1/chat/completions")
    @app.post("/v1/completions")
    async def complete(request: Request) -> Response:
        sent = await keep(request)
        if is_belief(sent):
            known = [text for name, text in BELIEFS.items() if name in sent.last.rsplit("Q:", 1)[-1]]
            return completion(sent, known[0] if known else " nobody\n")
        if state.answer is not None:
            return state.answer(sent)
        return completion(sent, state.reply(sent))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(state.metrics, media_type="text/plain")

    @app.get("/v1/abort")
    async def abort() -> Response:
        return StreamingResponse(broken([b"half of "]), media_type="text/plain")

    @app.get("/v1/slow")
    async def slow() -> Response:
        await asyncio.sleep(2)
        return Response(b"late")

    @app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE", "PATCH"])
    async def odd(request: Request) -> Response:
        sent = await keep(request)
        body = gzip.compress(b"odd " + sent.body, mtime=0)
        headers = {"content-encoding": "gzip", "x-odd": "yes", "content-type": "application/x-odd"}
        answer = Response(body, 207, headers)
        answer.raw_headers += [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        return answer

    async def keep(request: Request) -> Sent:
        body = await request.body()
        sent = Sent(request.method, request.url.path, request.url.query, dict(request.headers), body)
        state.sent.append(sent)
        return sent

    return app, state


def completion(sent: Sent, text: str, **more: Any) -> Response:
    """An answer as OpenAI's API has it, streamed if asked for, with spaces and a number that a JSON library would change."""
    payload = sent.json
    chat = "messages" in payload
    if payload.get("stream"):
        return stream(text_chunks(text, chat=chat))
    choice = {"index": 0, "finish_reason": "stop", "logprobs": None}
    choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    body = {"id": "c1", "object": kind, "created": 1, "model": payload.get("model", MODEL), "choices": [choice],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, "odd": {"x": 1.5}, **more}  # fmt: skip
    return Response(json.dumps(body, indent=1).replace("1.5", "1.50"), media_type="application/json")


def text_chunks(text: str, *, chat: bool) -> list[bytes]:
    words = [f"{word} " for word in text.split()]
    chunks = []
    for at, word in enumerate([*words, ""]):
        choice: dict[str, Any] = {"index": 0, "finish_reason": None if at < len(words) else "stop"}
        choice |= {"delta": {"content": word}} if chat else {"text": word}
        body = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [choice]}
        chunks.append(b"data: " + json.dumps(body).encode() + b"\n\n")
    return [*chunks, b"data: [DONE]\n\n"]


def stream(chunks: list[bytes] | tuple[bytes, ...], *, break_off: bool = False) -> Response:
    pieces = broken(chunks) if break_off else paced(chunks)
    return StreamingResponse(pieces, media_type="text/event-stream; charset=utf-8", headers={"x-odd": "yes"})


async def paced(chunks: list[bytes] | tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0.005)


async def broken(chunks: list[bytes] | tuple[bytes, ...]) -> AsyncIterator[bytes]:
    async for chunk in paced(chunks):
        yield chunk
    raise ConnectionResetError("the test breaks the stream off")


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """Serve an application on a free port of the loopback, from a thread; gives its URL."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1, server_header=True
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        for _ in range(500):
            if server.started:
                break
            threading.Event().wait(0.01)
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def scripted() -> Iterator[Upstream]:
    """A scripted model server at work; gives what it was sent and what it is to say."""
    app, state = make_upstream()
    with served(app) as url:
        state.url = url
        yield state
