"""The model server behind the gateway: requests go to it, and its answers come back, as the bytes they are.

Nothing is decoded, decompressed or written anew; only headers that belong to one connection are left out. Knows nothing
of facts.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence

import anyio
import httpx
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from memedit.errors import BadModelResponse, ModelError, ModelTimeout, ModelUnavailable
from memedit.models.caching import CacheUsage, cache_usage
from memedit.server.metrics import Metrics
from memedit.server.problems import error_event
from memedit.server.settings import Settings
from memedit.server.tracing import upstream_span

Headers = Sequence[tuple[bytes, bytes]]
EVENTS = "text/event-stream"
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")

_ONE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
_OWN_REQUEST = frozenset((b"host", b"content-length", b"authorization", b"expect"))
_OWN_ANSWER = frozenset((b"date", b"server"))  # the gateway's server writes these


class Upstream:
    """The server behind the gateway.

    Args:
        settings: Where it is, and how long it is waited for.
        metrics: Count its failures and time it.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._root = httpx.URL(settings.root)
        self._timeout = httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout))
        self._client = httpx.AsyncClient(
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256, keepalive_expiry=3.0),
            follow_redirects=False,
            trust_env=False,
        )
        self._is_vllm: bool | None = None

    async def send(
        self,
        method: str,
        path: bytes,
        headers: Headers,
        body: bytes,
        *,
        authorization: str | None,
        plain: bool = False,
        repeatable: bool = False,
    ) -> httpx.Response:
        """Send a request; the answer's headers have come when this returns, its body is yet to be read.

        Args:
            method: As it came.
            path: Path and query as they came, still encoded.
            headers: As they came; those of one connection, the client's authorization and memedit's own are left out.
            body: As it is to be sent.
            authorization: What to send as such.
            plain: Whether to ask for an answer that is not compressed.
            repeatable: Whether it does no harm if the server gets it twice.

        Raises:
            ModelUnavailable, ModelTimeout: The server does not answer.
        """
        sent = list(_request_headers(headers, plain=plain))
        if authorization:
            sent.append((b"authorization", authorization.encode("latin-1", "replace")))
        prefix = self._root.raw_path.rstrip(b"/")
        began = time.perf_counter()
        with upstream_span(method, sent) as recorded:
            request = httpx.Request(
                method,
                self._root.copy_with(raw_path=prefix + path),
                headers=sent,
                content=body if body or method in ("POST", "PUT", "PATCH") else None,
                extensions={"timeout": self._timeout.as_dict()},
            )
            try:
                response = await (self._sent(request) if repeatable else self._client.send(request, stream=True))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise self.failure(error) from error
            recorded.set(status=response.status_code)
        self._metrics.took("upstream_headers", time.perf_counter() - began)
        if response.status_code >= 500:
            self._metrics.upstream_failed("status")
        return response

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        """The answer's headers. Where a connection that was kept open breaks before they come, another is opened.

        A server closes connections that have been idle for some seconds (vLLM: five), and may do so while a request is
        on its way there. Such a request has not been read, and goes over another connection.
        """
        is_new = False

        async def note(event: str, _: object) -> None:
            nonlocal is_new
            is_new = is_new or event == "connection.connect_tcp.started"

        request.extensions = {**request.extensions, "trace": note}
        while True:
            try:
                return await self._client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                if is_new:
                    raise

    async def read(self, response: httpx.Response) -> bytes:
        """The body of an answer, as it came.

        Raises:
            ModelUnavailable, ModelTimeout, BadModelResponse: It broke off, or did not come in time.
        """
        began = time.perf_counter()
        try:
            with anyio.fail_after(self._settings.timeout):
                return b"".join([piece async for piece in response.aiter_raw()])
        except (httpx.HTTPError, TimeoutError) as error:
            raise self.failure(error) from error
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()
            self._metrics.took("upstream", time.perf_counter() - began)

    async def read_answer(self, response: httpx.Response) -> bytes:
        """The body of an answer to a completion, as it came; it is JSON, unless it is compressed or says what the client did wrong.

        Raises:
            ModelUnavailable, ModelTimeout: It did not come, or not in time.
            BadModelResponse: It broke off, or is garbage.
        """
        data = await self.read(response)
        status = response.status_code
        is_told = status == httpx.codes.OK or status >= 500
        if not is_told or response.headers.get("content-encoding", "identity") != "identity" or _is_object(data):
            return data
        self._metrics.upstream_failed("garbage")
        raise BadModelResponse(
            f"The model server gave an answer that is no JSON, with the status {status}.",
            "Ask again; the operator checks what runs there.",
        )

    async def is_up(self) -> bool:
        """Whether the server answers at all, within two seconds."""
        try:
            answer = await self._client.get(f"{self._settings.base}/models", timeout=2.0)
        except httpx.HTTPError:
            return False
        return answer.status_code < 500

    async def is_vllm(self, authorization: str | None) -> bool:
        """Whether it is vLLM, by what its /v1/models says; found out once."""
        if self._is_vllm is None:
            headers = {} if authorization is None else {"authorization": authorization}
            try:
                answer = await self._client.get(f"{self._settings.base}/models", headers=headers, timeout=2.0)
                listed = answer.raise_for_status().json()["data"]
                self._is_vllm = any(model["owned_by"] == "vllm" for model in listed)
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                return False
        return self._is_vllm

    async def cache_usage(self) -> CacheUsage | None:
        """How much of all prompts a vLLM server found in its prefix cache; None where it does not tell within two seconds."""
        try:
            answer = await self._client.get(f"{self._settings.root}/metrics", timeout=2.0)
        except httpx.HTTPError:
            return None
        return cache_usage(answer.text) if answer.status_code == httpx.codes.OK else None

    def failure(self, error: Exception) -> ModelError:
        """A client's error as one of memedit's; it is counted."""
        if isinstance(error, httpx.TimeoutException | TimeoutError) and not isinstance(error, httpx.ConnectTimeout):
            self._metrics.upstream_failed("timeout")
            return ModelTimeout(
                f"The model server did not answer within {self._settings.timeout:g} s.",
                "Ask for less at once, or have the operator raise --timeout.",
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            self._metrics.upstream_failed("unreachable")
            return ModelUnavailable(
                "The model server cannot be reached.", "Try again soon; the operator checks that it runs."
            )
        self._metrics.upstream_failed("broke_off")
        return BadModelResponse("The model server broke off in the middle of an answer.", "Ask again.")

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


class Relay(StreamingResponse):
    """An answer of the upstream server on its way through, piece by piece as they come.

    Args:
        upstream: Names failures.
        response: The answer.
        pieces: What is sent in place of the answer's own bytes, made from them; None for these.
        extra: Headers to add.
    """

    def __init__(
        self,
        upstream: Upstream,
        response: httpx.Response,
        pieces: AsyncIterator[bytes] | None = None,
        extra: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self._upstream = upstream
        self._response = response
        self._is_plain_events = is_events(response)
        super().__init__(self._watched(pieces or response.aiter_raw()), status_code=response.status_code)
        kept = answer_headers(response, sized=pieces is None)
        self.raw_headers = [*kept, *extra]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; whatever happens, the connection to the server is let go of."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._response.aclose()

    async def _watched(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces; of a stream of events only whole events, so that an error can follow the last one."""
        rest = b""
        try:
            async for piece in pieces:
                if not self._is_plain_events:
                    yield piece
                    continue
                ready, rest = whole_events(rest + piece)
                if ready:
                    yield ready
            if rest:
                yield rest
        except httpx.HTTPError as error:
            failure = self._upstream.failure(error)
            if not self._is_plain_events:
                raise failure from error  # the connection is closed before the answer's end, which the client sees
            yield error_event(failure)


def whole_events(data: bytes) -> tuple[bytes, bytes]:
    r"""The events that have come wholly, and what there is of the next.

    >>> whole_events(b"data: 1\n\ndata: 2\r\n\r\ndat")
    (b'data: 1\n\ndata: 2\r\n\r\n', b'dat')
    """
    end = max(data.rfind(mark) + len(mark) if mark in data else 0 for mark in _EVENT_ENDS)
    return data[:end], data[end:]


def whole(response: httpx.Response, body: bytes, extra: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """An answer of the upstream server whose body has been read, and perhaps changed."""
    answer = Response(body, status_code=response.status_code)
    length = (b"content-length", str(len(body)).encode())
    answer.raw_headers = [*answer_headers(response, sized=False), length, *extra]
    return answer


def is_events(response: httpx.Response) -> bool:
    """Whether an answer is a stream of server-sent events that may be read."""
    encoding: str = response.headers.get("content-encoding", "identity")
    return streams_events(response) and encoding == "identity"


def streams_events(response: httpx.Response) -> bool:
    """Whether an answer is a stream of server-sent events, which may be compressed."""
    content: str = response.headers.get("content-type", "")
    return content.startswith(EVENTS)


def answer_headers(response: httpx.Response, *, sized: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that are passed on, repeated ones included; the length only if `sized`."""
    left_out = _ONE_CONNECTION | _OWN_ANSWER | (frozenset() if sized else frozenset((b"content-length",)))
    return [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in left_out]


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data), dict)
    except (ValueError, RecursionError):
        return False


def _request_headers(headers: Headers, *, plain: bool) -> Iterable[tuple[bytes, bytes]]:
    named = {
        word.strip().lower() for name, value in headers if name.lower() == b"connection" for word in value.split(b",")
    }
    has_encoding = False
    for name, value in headers:
        key = name.lower()
        if key in _ONE_CONNECTION | _OWN_REQUEST or key in named or key.startswith(b"x-memedit-"):
            continue
        if key == b"accept-encoding":
            has_encoding = True
            if plain:
                value = b"identity"
        yield key, value
    if not has_encoding:  # without one a server may choose any; the client did not ask for that
        yield b"accept-encoding", b"identity"
