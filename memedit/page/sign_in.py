"""Signing in to the page with an API key, and out again. Plain HTML: it works before anything else has loaded.

The key is kept in a cookie that scripts cannot read, that other sites cannot make the browser send, and that ends with the
browser's session. Every use of it is checked against the keys, so that a revoked one is of no use here either.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from memedit.errors import TooManyRequests, Unauthenticated
from memedit.page.guard import COOKIE, PATH, SIGN_IN, SIGN_OUT
from memedit.server.access import services_of

router = APIRouter(include_in_schema=False)


@router.get(SIGN_IN)
async def ask() -> HTMLResponse:
    """The form."""
    return _form()


@router.post(SIGN_IN)
async def sign_in(request: Request, key: Annotated[str, Form(max_length=1000)] = "") -> Response:
    """Take the key, if it is good."""
    services = services_of(request)
    client = request.client.host if request.client else ""
    try:
        await services.work(services.records.check_key, key.strip())
    except Unauthenticated as error:
        try:
            services.limit.take(f"address {client}")  # those who guess are slowed down
        except TooManyRequests as slower:
            return _form(str(slower), 429)
        return _form(str(error), 401)
    answer = RedirectResponse(f"{PATH}/", 303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, key.strip(), path=PATH, secure=secure, httponly=True, samesite="strict")
    return answer


@router.post(SIGN_OUT)
async def sign_out() -> RedirectResponse:
    """Forget the key."""
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")
    return answer


def _form(problem: str = "", status: int = 200) -> HTMLResponse:
    alert = f'<p id="problem" class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    described = ' aria-describedby="problem" aria-invalid="true"' if problem else ""
    text = files(__package__).joinpath("sign_in.html").read_text(encoding="utf-8")
    return HTMLResponse(text.replace("<!-- problem -->", alert).replace("data-described", described), status)
