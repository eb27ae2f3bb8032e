"""`memedit serve` and the page: it is served where its packages are, and asked for where they are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from typer.testing import CliRunner, Result

from memedit.cli import app
from memedit.page.guard import Guard
from memedit.server.logs import LOGGER


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """The logs go where they went before: a command's stderr is closed when it ends."""
    loggers = [logging.getLogger(name) for name in (LOGGER, "uvicorn", "uvicorn.error")]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FastAPI]:
    """The applications that would have been served."""
    applications: list[FastAPI] = []
    monkeypatch.setenv("MEMEDIT_MEMORY", str(tmp_path / "facts.db"))
    monkeypatch.setattr(uvicorn, "run", lambda application, **_: applications.append(application))
    return applications


def serve(*words: str) -> Result:
    return CliRunner().invoke(app, ["serve", "--upstream", "http://127.0.0.1:1/v1", "--open", *words])


def has_page(application: FastAPI) -> bool:
    return any(Guard.__name__ in repr(middleware) for middleware in application.user_middleware)


@pytest.mark.parametrize(("words", "served"), [((), True), (("--ui",), True), (("--no-ui",), False)])
def test_the_page_is_served_unless_it_is_not_wanted(
    started: list[FastAPI], words: tuple[str, ...], served: bool
) -> None:
    pytest.importorskip("gradio", reason="the page needs the extra ui")
    result = serve(*words)
    assert result.exit_code == 0
    assert has_page(started[0]) == served
    assert ("The page is at http://127.0.0.1:8321/ui." in result.output) == served


def test_without_its_packages_the_gateway_is_served_and_says_how_to_get_the_page(
    started: list[FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.page.is_installed", lambda: False)
    result = serve()
    assert result.exit_code == 0
    assert not has_page(started[0])
    assert 'pip install "memedit[ui]"' in " ".join(result.output.split())


def test_a_page_that_is_asked_for_and_cannot_be_is_an_error(
    started: list[FastAPI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.page.is_installed", lambda: False)
    result = serve("--ui")
    assert result.exit_code != 0
    assert started == []
    assert 'pip install "memedit[ui]"' in " ".join(result.output.split())
