"""The page at /ui: ask, see the chain behind an answer beside the base model's own, and keep the facts.

It is a client of the gateway's API like any other (`memedit.page.client`), so that keys, roles, namespaces and the audit log
hold for it too. Needs the extra ``ui``; Gradio is imported when somebody first opens the page.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from memedit.errors import MissingExtra

if TYPE_CHECKING:
    from fastapi import FastAPI

    from memedit.server.services import Services


def is_installed() -> bool:
    """Whether the page's packages are there."""
    return find_spec("gradio") is not None


def put_up(app: FastAPI, services: Services) -> None:
    """Serve the page at /ui; to be called before a route that takes every path.

    Raises:
        MissingExtra: Gradio is not installed.
    """
    if not is_installed():
        raise MissingExtra("gradio", "ui")
    from memedit.page import sign_in
    from memedit.page.guard import Guard
    from memedit.page.opening import Opening

    app.add_middleware(Guard, services=services, page=Opening(app, services))
    app.include_router(sign_in.router)
