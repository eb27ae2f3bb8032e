"""Puts the page together when somebody first comes: until then the gateway neither waits for Gradio nor holds it in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio.to_thread
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from memedit.server.services import Services


class Opening:
    """The page as an ASGI application that is made at its first request.

    Args:
        app: The gateway.
        services: Its parts.
    """

    def __init__(self, app: FastAPI, services: Services) -> None:
        self._app = app
        self._services = services
        self._living: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[ASGIApp] | None = None
        self._closing = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of the page."""
        page = await self._page()
        await page(scope, receive, send)

    async def close(self) -> None:
        """End what runs behind the page, if it was ever opened."""
        self._closing.set()
        if self._living is not None:
            await self._living

    async def _page(self) -> ASGIApp:
        if self._ready is None or self._living is None or self._living.done():
            self._ready = asyncio.get_running_loop().create_future()
            self._living = asyncio.create_task(self._live(self._ready))
        return await asyncio.shield(self._ready)  # a visitor who leaves does not take it from the others

    async def _live(self, ready: asyncio.Future[ASGIApp]) -> None:
        """Make the page, and keep it until the gateway closes."""
        try:
            make = await anyio.to_thread.run_sync(_load)
            page = make(self._app, self._services)
            async with page.router.lifespan_context(page):
                ready.set_result(page)
                await self._closing.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)  # told to those who wait; the next visitor tries again


def _load() -> Callable[[FastAPI, Services], FastAPI]:
    """Import what takes long."""
    from memedit.page.mount import make

    return make
