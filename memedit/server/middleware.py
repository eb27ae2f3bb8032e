"""What happens to every request before and after its route: its bytes are counted, its end is logged."""

from __future__ import annotations

import json
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memedit.errors import RequestTooLarge
from memedit.server.limits import check_size
from memedit.server.logs import log
from memedit.server.metrics import Metrics
from memedit.server.problems import body_of, status_of

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
    """Counts and logs every request.

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
        try:
            await self._app(scope, receive, sent)
        finally:
            path = scope["path"]
            route = _ROUTES.get(path) or ("memory" if path.startswith("/v1/memory") else "other")
            self._metrics.request(route, status)
            access = state.get("access")
            log(
                "request",
                method=scope["method"],
                route=route,
                path=path if route != "other" else None,
                status=status,
                seconds=round(time.perf_counter() - began, 4),
                key=access.key if access else None,
                namespace=access.namespace if access else None,
                edits=state.get("edits"),
            )


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
