"""What stands between the network and the page: who may come in, from where, and to which parts of Gradio.

Gradio's server has many routes that the page does not use (files, proxies, recordings). Only those that it does are
let through, only to visitors who have signed in, and only from pages of the same origin. Knows nothing of facts.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse, RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from memedit.errors import AccessDenied, MemEditError, Unauthenticated, UnknownFact
from memedit.page.opening import Opening
from memedit.server.access import ANYONE
from memedit.server.problems import body_of, headers_of, status_of
from memedit.server.records import ALL, Role
from memedit.server.services import Services

PATH = "/ui"
"""Where the page is."""
SIGN_IN = f"{PATH}/sign-in"
SIGN_OUT = f"{PATH}/sign-out"
COOKIE = "memedit_key"

_FOR_ALL = ("/assets/", "/static/", "/theme.css", "/sign-in", "/sign-out")
_FOR_VISITORS = (
    "/config", "/gradio_api/queue/", "/gradio_api/heartbeat/", "/gradio_api/upload", "/gradio_api/info",
    "/gradio_api/cancel", "/gradio_api/reset", "/gradio_api/startup-events",
)  # fmt: skip
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's own; what is shown is escaped
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    )
)


class Visitor(NamedTuple):
    """Who looks at the page.

    Attributes:
        key: The text of the API key; None where none is asked for.
        name: Whose key it is.
        role: What they may do.
        namespaces: Where; `ALL` in it stands for everywhere.
        client: The address they come from.
    """

    key: str | None
    name: str
    role: Role
    namespaces: tuple[str, ...]
    client: str


async def visitor_of(connection: HTTPConnection, services: Services) -> Visitor:
    """The visitor behind a request.

    Raises:
        Unauthenticated: They have not signed in, or their key is no longer good.
    """
    client = connection.client.host if connection.client else ""
    if services.settings.open:
        return Visitor(None, ANYONE, Role.ADMIN, (ALL,), client)
    text = connection.cookies.get(COOKIE, "")
    if not text:
        raise Unauthenticated("Nobody has signed in.", f"Sign in with an API key at {SIGN_IN}.")
    key = await services.work(services.records.check_key, text)
    return Visitor(text, key.name, key.role, key.namespaces, client)


class Guard:
    """Lets the page's own requests through to it, and what goes elsewhere to where it goes.

    Args:
        app: The application.
        services: Know the keys.
        page: The page.
    """

    def __init__(self, app: ASGIApp, services: Services, page: Opening) -> None:
        self._app = app
        self._services = services
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; with the application's own end comes the page's."""
        path: str = scope.get("path", "")
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._page.close()
            return
        if scope["type"] != "http" or (path != PATH and not path.startswith(f"{PATH}/")):
            await self._app(scope, receive, send)
            return
        response = await self._refusal(Request(scope), path.removeprefix(PATH))
        served = self._app if path in (SIGN_IN, SIGN_OUT) else self._page
        await (response or served)(scope, receive, _with_headers(send))

    async def _refusal(self, request: Request, path: str) -> Response | None:
        """What is answered in the page's place, if anything."""
        if not path:
            return RedirectResponse(f"{PATH}/", 307)
        try:
            self._check_origin(request)
            if path.startswith(_FOR_ALL):
                return None
            if path != "/" and not path.startswith(_FOR_VISITORS):
                raise UnknownFact(f"There is no {request.method} {PATH}{path} here.", f"The page is at {PATH}/.")
            await visitor_of(request, self._services)
        except Unauthenticated as error:
            return RedirectResponse(SIGN_IN, 303) if path == "/" else _told(error)
        except MemEditError as error:
            return _told(error)
        return None

    def _check_origin(self, request: Request) -> None:
        """A page of another origin can make a browser send requests here: it must not act in the visitor's name."""
        host = request.headers.get("host", "")
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise AccessDenied(f"The request comes from a page of {origin}.", f"Open {PATH}/ itself.")
        if self._services.settings.open and not _is_loopback(host):
            raise AccessDenied(
                f"Without API keys the page answers to this machine's own names only, not to {host!r}.",
                "Open it at http://127.0.0.1 or http://localhost, or make API keys: memedit keys create.",
            )


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["content-security-policy"] = _POLICY
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "same-origin"
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sent


def _told(error: MemEditError) -> JSONResponse:
    return JSONResponse(body_of(error), status_of(error), headers_of(error))
