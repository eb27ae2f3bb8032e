"""What happens to every request before and after its route: its bytes are counted, its end is logged."""

from __future__ import annotations

import json
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memedit.errors import RequestTooLarge
from memedit.memory.memory import EditMemory
from memedit.server.limits import check_size
from memedit.server.logs import log
from memedit.server.metrics import Metrics
from memedit.server.problems import body_of, status_of
from memedit.server.tracing import request_span

_POSITION = b"x-memedit-position"
_ROUTES = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/models": "models",
    "/metrics": "metrics",
    "/healthz": "health",
    "/readyz": "health",
}


class BoundedBody:
    """Answers requests whose body is too large with an error, without keeping them in memory.

    Args:
        app: The application.
        limit: Most bytes of a body.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0
        problem: RequestTooLarge | None = None
        started = False

        async def bounded() -> Message:
            nonlocal read, problem
            message = await receive()
            read += len(message.get("body", b""))
            try:
                check_size(read, self._limit)
            except RequestTooLarge as error:
                problem = error
                raise
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            if problem is None or started:
                started = True
                await send(message)

        try:
            check_size(_declared(scope), self._limit)
            await self._app(scope, bounded, sent)
        except RequestTooLarge as error:
            problem = error
        if problem is not None and not started:
            await _refuse(problem, send)


class Observed:
    """Counts, logs and traces every request.

    Args:
        app: The application.
        metrics: Counts it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        state = scope.setdefault("state", {})
        path = scope["path"]
        route = _ROUTES.get(path) or ("memory" if path.startswith("/v1/memory") else "other")
        with request_span(scope["headers"]) as recorded:
            try:
                await self._app(scope, receive, sent)
            finally:
                self._metrics.request(route, status)
                access = state.get("access")
                key, namespace = (access.key, access.namespace) if access else (None, None)
                recorded.set(method=scope["method"], route=route, status=status, key=key, namespace=namespace)
                log(
                    "request",
                    method=scope["method"],
                    route=route,
                    path=path if route != "other" else None,
                    status=status,
                    seconds=round(time.perf_counter() - began, 4),
                    key=key,
                    namespace=namespace,
                    edits=state.get("edits"),
                )


class Positioned:
    """Tells in every answer of the facts API how far the log has been taken in, the write that is answered included.

    Args:
        app: The application.
        memory: What it serves.
    """

    def __init__(self, app: ASGIApp, memory: EditMemory) -> None:
        self._app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/memory"):
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = (_POSITION, str(self._memory.position).encode())
                message = {**message, "headers": [*message.get("headers", ()), told]}
            await send(message)

        await self._app(scope, receive, sent)


def _declared(scope: Scope) -> int:
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(length) if length.isdigit() else 0


async def _refuse(error: RequestTooLarge, send: Send) -> None:
    body = json.dumps(body_of(error)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status_of(error), "headers": headers})
    await send({"type": "http.response.body", "body": body})
