"""A light load on an OpenAI-compatible server: many clients, one connection each, every answer timed.

It shares the cores with what it measures, so it does little: HTTP/1.1 on asyncio's streams and one JSON parse an event.
Knows nothing of gateways.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

Json = dict[str, object]
CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Reply:
    """An answer and when it came; times are those of `time.perf_counter`.

    Attributes:
        sent: When the request was sent.
        status: HTTP status; 0 where the connection broke before one came.
        headers: By lower-case name.
        first: When the first text came; for whole answers, when the body did.
        ended: When the last byte came.
        tokens: Output tokens, as the server's usage says.
        text: The answer's text.
        body: A whole answer's bytes, or those of an error.
        error: What a stream's error event said, or how the connection broke; "" where neither happened.
        memedit: The ``memedit`` field, if any.
    """

    sent: float
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    first: float = 0.0
    ended: float = 0.0
    tokens: int = 0
    text: str = ""
    body: bytes = b""
    error: str = ""
    memedit: Json | None = None

    @property
    def ok(self) -> bool:
        """Whether a whole answer came."""
        return 200 <= self.status < 300 and not self.error

    @property
    def seconds(self) -> float:
        """From the request to the last byte."""
        return self.ended - self.sent

    @property
    def wait(self) -> float:
        """Seconds to the first text."""
        return self.first - self.sent

    @property
    def edits(self) -> tuple[int, ...]:
        """Ids of the facts that the gateway says it used."""
        return tuple(int(one) for one in self.headers.get("x-memedit-edits", "").split(",") if one)

    @property
    def json(self) -> Json:
        """A whole answer, read; empty where it is no JSON object."""
        with suppress(ValueError):
            read = json.loads(self.body)
            if isinstance(read, dict):
                return read
        return {}


class Client:
    """One client with one connection, opened when needed.

    Args:
        url: The server's root, e.g. "http://127.0.0.1:8000".
        timeout: Seconds an answer may take.
    """

    def __init__(self, url: str, timeout: float = 300.0) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self, method: str, path: str, payload: object = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Send a request and read its answer; failures are in the reply."""
        body = b"" if payload is None else json.dumps(payload).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n{extra}"
        reply = Reply(time.perf_counter())
        try:
            async with asyncio.timeout(self._timeout):
                if self._streams is None:
                    self._streams = await asyncio.open_connection(self._host, self._port, limit=2**22)
                reader, writer = self._streams
                reply.sent = time.perf_counter()
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
                await _read(reader, reply)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as error:
            reply.error = reply.error or type(error).__name__
            reply.first = reply.first or time.perf_counter()
        reply.ended = time.perf_counter()
        if reply.error or reply.headers.get("connection") == "close":
            await self.close()
        return reply

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Load:
    """What a load of requests came to.

    Attributes:
        replies: Every answer, client by client.
        seconds: From the first request to the last byte.
    """

    replies: list[Reply]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Output tokens of good answers a second."""
        return sum(reply.tokens for reply in self.replies if reply.ok) / self.seconds

    @property
    def failed(self) -> int:
        """Answers that were not good."""
        return sum(not reply.ok for reply in self.replies)


async def load(url: str, payloads: Sequence[Json], clients: int, *, path: str = CHAT) -> Load:
    """Send every payload once; each of `clients` clients sends its next one when it has its answer.

    Args:
        url: The server's root.
        payloads: The requests' bodies.
        clients: How many at once.
        path: Where they go.
    """
    waiting = iter(payloads)
    replies: list[Reply] = []

    async def work(client: Client) -> None:
        replies.extend([await client.send("POST", path, payload) for payload in waiting])

    began = time.perf_counter()
    await each(url, clients, work)
    return Load(replies, time.perf_counter() - began)


async def each(url: str, clients: int, work: Callable[[Client], Awaitable[None]]) -> None:
    """Run `work` for so many clients side by side, and close them."""
    opened = [Client(url) for _ in range(clients)]
    try:
        async with asyncio.TaskGroup() as tasks:
            for client in opened:
                tasks.create_task(_run(work, client))
    finally:
        for client in opened:
            await client.close()


def run_load(url: str, payloads: Iterable[Json], clients: int = 1, *, path: str = CHAT) -> Load:
    """`load`, for a caller that is not asynchronous."""
    return asyncio.run(load(url, list(payloads), clients, path=path))


def fetch(url: str, method: str, path: str, payload: object = None) -> Reply:
    """One request of a client of its own."""

    async def once() -> Reply:
        client = Client(url)
        try:
            return await client.send(method, path, payload)
        finally:
            await client.close()

    return asyncio.run(once())


async def _run(work: Callable[[Client], Awaitable[None]], client: Client) -> None:
    await work(client)


async def _read(reader: asyncio.StreamReader, reply: Reply) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    reply.status = int(first.split(" ")[1])
    reply.headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if reply.status == 200 and reply.headers.get("content-type", "").startswith("text/event-stream"):
        await _read_events(_pieces(reader, reply.headers), reply)
        return
    reply.body = b"".join([piece async for piece in _pieces(reader, reply.headers)])
    reply.first = time.perf_counter()
    _take(reply.json, reply)


async def _pieces(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
    """The body, piece by piece as it comes."""
    if headers.get("transfer-encoding") != "chunked":
        if length := int(headers.get("content-length", "0")):
            yield await reader.readexactly(length)
        return
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


async def _read_events(pieces: AsyncIterator[bytes], reply: Reply) -> None:
    rest = b""
    done = False
    async for piece in pieces:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                done = True
            elif event.startswith(b"data: "):
                _take(json.loads(event[6:]), reply)
    reply.first = reply.first or time.perf_counter()
    if not done and not reply.error:
        reply.error = "the stream ended too early"


def _take(chunk: Json, reply: Reply) -> None:
    """Note what a whole answer, or a chunk of one, holds."""
    usage, choices, told, error = (chunk.get(name) for name in ("usage", "choices", "memedit", "error"))
    if isinstance(usage, dict):
        reply.tokens = int(usage.get("completion_tokens") or 0)
    if isinstance(told, dict):
        reply.memedit = told
    if isinstance(error, dict):
        reply.error = str(error.get("message") or "an error without a message")
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("delta") or choice.get("message") or choice
        text = message.get("content") or message.get("text")
        if text:
            reply.first = reply.first or time.perf_counter()
            reply.text += text
