"""The gateway as an ASGI application: routes, error answers, health, metrics, and its beginning and end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from memedit import __version__
from memedit.editor import MemEditor
from memedit.errors import InvalidRequest, MemEditError
from memedit.memory.memory import EditMemory
from memedit.page import put_up
from memedit.server import facts, gateway, preview
from memedit.server.logs import log
from memedit.server.metrics import CONTENT_TYPE
from memedit.server.middleware import BoundedBody, Observed, Positioned
from memedit.server.problems import body_of, error_body, headers_of, status_of
from memedit.server.records import Records
from memedit.server.services import Services
from memedit.server.settings import Settings

_ABOUT = """An OpenAI-compatible gateway that keeps a model's facts up to date, and the API of these facts.

`/v1/chat/completions` and `/v1/completions` are OpenAI's: a request that no fact is in scope of goes to the model server
and comes back byte for byte. Facts live under `/v1/memory`. Everything else goes to the model server as it is."""


def create_app(
    settings: Settings,
    memory: EditMemory,
    records: Records,
    *,
    editor: MemEditor | None = None,
    warm: bool = True,
    condition: Callable[[], Mapping[str, object]] | None = None,
    page: bool = False,
) -> FastAPI:
    """The application.

    Args:
        settings: How it runs.
        memory: The edit memory; the caller closes it.
        records: API keys and audit log; the caller closes them.
        editor: Plans and finds, over `memory`; made if None.
        warm: Whether to load the planner and the embedder at the start. `/readyz` waits for it.
        condition: Tells how the upstream server is, where memedit runs it; `/readyz` repeats it.
        page: Whether to serve the page at /ui, which needs the extra ``ui``.

    Raises:
        MissingExtra: There is to be a page, and Gradio is not installed.
    """
    services = Services(settings, memory, records, editor)
    services.condition = condition

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            if warm:
                tasks.start_soon(_warm_up, services)
            else:
                services.ready = True
            yield
            tasks.cancel_scope.cancel()
        await services.close()

    app = FastAPI(
        title="memedit",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
        telemetry={"tracing": False, "logs": False},  # they hold queries; `memedit.server.tracing` makes ours
    )
    app.state.services = services
    if page:
        put_up(app, services)
    else:
        for path in ("/ui", "/ui/{path:path}"):
            app.add_api_route(path, _no_page, include_in_schema=False)
    app.add_exception_handler(MemEditError, _own_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Positioned, memory=memory)
    app.add_middleware(BoundedBody, limit=settings.max_body)
    app.add_middleware(Observed, metrics=services.metrics)
    app.include_router(facts.router)
    app.include_router(preview.router)
    app.add_api_route("/healthz", _health, tags=["operation"], summary="Is the process alive?")
    app.add_api_route("/readyz", _ready, tags=["operation"], summary="Can it answer?")
    app.add_api_route(
        "/metrics", _metrics, tags=["operation"], summary="Figures for Prometheus", response_class=Response
    )
    app.include_router(gateway.router)
    return app


async def _warm_up(services: Services) -> None:
    try:
        await anyio.to_thread.run_sync(services.warm_up, abandon_on_cancel=True)
    except MemEditError as error:  # it shows again at the first question, which tells the client
        log("warming up failed", 40, problem=str(error))
        return
    log("ready")


async def _health() -> dict[str, str]:
    return {"status": "ok", "version": __version__}


async def _ready(request: Request) -> JSONResponse:
    services: Services = request.app.state.services
    parts = {
        "planner": services.ready,
        "memory": await services.work(_memory_answers, services),
        "upstream": await services.upstream.is_up(),
    }
    told: dict[str, object] = {"ready": all(parts.values()), **parts}
    if services.condition is not None:
        told["vllm"] = services.condition()
    return JSONResponse(told, 200 if all(parts.values()) else 503)


def _memory_answers(services: Services) -> bool:
    try:
        services.view(services.settings.namespace)
        services.records.entries(services.settings.namespace, limit=1)
    except MemEditError:
        return False
    return True


async def _no_page() -> Response:
    told = 'The page is not served here. Install it with pip install "memedit[ui]", and start memedit serve --ui.'
    return JSONResponse(error_body(404, told, "no_page"), 404)


async def _metrics(request: Request) -> Response:
    services: Services = request.app.state.services
    usage = await services.upstream.cache_usage()
    if usage is not None:
        services.metrics.prefix_cache(usage)
    return Response(services.metrics.render(), media_type=CONTENT_TYPE)


# -- errors --------------------------------------------------------------------------------------------------


async def _own_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, MemEditError)
    return JSONResponse(body_of(error), status_of(error), headers_of(error))


async def _invalid(_: Request, error: Exception) -> Response:
    """A request that does not fit its schema. The message says where; it does not repeat what was sent."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:])
    told = InvalidRequest(f"{field or 'The request'}: {first['msg']}.", "See /docs for what is expected.", field=field)
    return JSONResponse(body_of(told), status_of(told))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
    return JSONResponse(error_body(error.status_code, f"{error.detail}. See /docs.", code), error.status_code)


async def _unforeseen(_: Request, error: Exception) -> Response:
    message = "The gateway failed. The operator finds the cause in its log."
    return JSONResponse(error_body(500, message, "internal_error"), 500)
