"""Makes the page: Gradio under `PATH`, with its looks, and with nothing that comes from or goes to another server."""

from __future__ import annotations

from importlib.resources import files

import gradio as gr
from fastapi import FastAPI

from memedit.page.actions import Actions
from memedit.page.guard import PATH
from memedit.page.layout import build
from memedit.server.services import Services

_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8'"
    " fill='%230f766e'/%3E%3Cpath d='M8 22V10l8 8 8-8v12' fill='none' stroke='%23fff' stroke-width='3'"
    " stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)
_HEAD = f'<link rel="icon" href="{_ICON}"><meta name="color-scheme" content="light dark">'
_SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]


def make(app: FastAPI, services: Services) -> FastAPI:
    """The page, as an application that serves `PATH` and what is under it.

    Args:
        app: The gateway, whose API the page calls.
        services: Its parts.
    """
    page = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    gr.mount_gradio_app(
        page,
        build(Actions(app, services)),
        PATH,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=services.settings.max_body,
        theme=_theme(),
        css=files(__package__).joinpath("page.css").read_text(encoding="utf-8"),
        head=_HEAD,
    )
    return page


def _theme() -> gr.themes.Base:
    """The fonts of the visitor's own system. Colours are those of ``page.css``."""
    return gr.themes.Base(
        font=[gr.themes.Font(name) for name in _SANS], font_mono=[gr.themes.Font(name) for name in _MONO]
    )
