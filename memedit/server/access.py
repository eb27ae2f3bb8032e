"""Who calls, what they may do, and where: the API key of a request, its role, and the namespace it works in.

A key comes as ``Authorization: Bearer mk_...``, as OpenAI's clients send it, or in ``x-memedit-key``, which leaves the
other header to the upstream server. No key of ours is ever sent there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple
from urllib.parse import unquote

from fastapi import Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from memedit.errors import AccessDenied, InvalidRequest, Unauthenticated
from memedit.memory.intake import check_namespace
from memedit.server.records import ALL, ApiKey, Role
from memedit.server.services import Services

KEY_HEADER = "x-memedit-key"
NAMESPACE_HEADER = "x-memedit-namespace"
POSITION_HEADER = "x-memedit-position"
"""In an answer of the facts API: how far the log has been taken in here, the write that is answered included. In a
request: how far it must have been, so that a client reads its own writes through any gateway on the same database."""
ANYONE = "anyone"
"""What logs call a caller without a key, where none is asked for."""

_bearer = HTTPBearer(auto_error=False, description="An API key of memedit, `mk_...`.")


class Access(NamedTuple):
    """A caller who may do what the route needs.

    Attributes:
        key: Id of the API key; `ANYONE` where none is asked for.
        client: The address.
        namespace: Where the request works.
        authorization: What the upstream server is sent as authorization, if anything.
        bound: The namespaces that the caller reaches; `ALL` in it stands for all.
    """

    key: str
    client: str
    namespace: str
    authorization: str | None
    bound: tuple[str, ...] = (ALL,)


def services_of(request: Request) -> Services:
    """The services of the application."""
    services: Services = request.app.state.services
    return services


async def authorise(request: Request, role: Role) -> Access:
    """Who calls, if they may do what `role` may, in the namespace they name; the log is as far as they ask for.

    Raises:
        Unauthenticated: There is no key, or it is not good.
        AccessDenied: Its role is not enough, or it is not bound to the namespace.
        TooManyRequests: It has used up what it may send for now.
        InvalidFact: The namespace is no name.
        InvalidRequest: The position is none.
        PositionNotReached: The log did not come to the position in time.
    """
    access = await _who(request, role)
    asked = request.headers.get(POSITION_HEADER)
    if asked is not None:
        if not (asked.isascii() and asked.isdigit() and len(asked) < 19):
            raise InvalidRequest(
                f"The header {POSITION_HEADER} holds no log position.", "Send back the one that an answer held."
            )
        await services_of(request).reach(int(asked))
    return access


async def _who(request: Request, role: Role) -> Access:
    services = services_of(request)
    settings = services.settings
    client = request.client.host if request.client else ""
    asked = request.headers.get(NAMESPACE_HEADER)
    namespace = None if asked is None else check_namespace(unquote(asked))
    given = request.headers.get("authorization")
    own = None if settings.upstream_key is None else f"Bearer {settings.upstream_key}"
    if settings.open:
        services.limit.take(f"address {client}")
        return _noted(request, Access(ANYONE, client, namespace or settings.namespace, own or given))
    sent = request.headers.get(KEY_HEADER)
    key = await _check(services, sent or _bearer_of(given), client)
    services.limit.take(f"key {key.id}")
    if not key.role.covers(role):
        raise AccessDenied(
            f"The API key {key.id} has the role {key.role.value!r}, and this needs {role.value!r}.",
            "Use a key with that role; an operator makes one with: memedit keys create.",
        )
    namespace = namespace or _default(key, settings.namespace)
    access = Access(key.id, client, namespace, own or (given if sent else None), key.namespaces)
    if not key.reaches(access.namespace):
        raise AccessDenied(
            f"The API key {key.id} is not bound to the namespace {access.namespace!r}.",
            f"Name one of its own in the header {NAMESPACE_HEADER}, or use another key.",
        )
    return _noted(request, access)


def needs(role: Role) -> Callable[..., Awaitable[Access]]:
    """A dependency of a route: its caller, who may do what `role` may."""

    async def dependency(
        request: Request,
        _key: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
        _namespace: Annotated[
            str | None,
            Header(
                alias=NAMESPACE_HEADER,
                description="The namespace to work in, percent-encoded where it is not ASCII; by default the key's own.",
            ),
        ] = None,
        _position: Annotated[
            str | None,
            Header(
                alias=POSITION_HEADER,
                description="The log position to be at least at, e.g. of a write through another gateway; see the answers.",
            ),
        ] = None,
    ) -> Access:
        return await authorise(request, role)

    return dependency


async def _check(services: Services, text: str, client: str) -> ApiKey:
    try:
        if not text:
            raise Unauthenticated(
                "The request has no API key.",
                "Send one as 'Authorization: Bearer mk_...' (api_key in OpenAI's client).",
            )
        return await services.work(services.records.check_key, text)
    except Unauthenticated:
        services.limit.take(f"address {client}")  # those who guess are slowed down
        raise


def _bearer_of(header: str | None) -> str:
    kind, _, text = (header or "").partition(" ")
    return text.strip() if kind.lower() == "bearer" else ""


def _default(key: ApiKey, namespace: str) -> str:
    return namespace if key.reaches(namespace) else next(one for one in key.namespaces if one != ALL)


def _noted(request: Request, access: Access) -> Access:
    """Leave it where the log of requests finds it."""
    request.state.access = access
    return access
