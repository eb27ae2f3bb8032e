"""A gateway with the page, in front of a scripted model; planner, scope and embedder are real. And a browser, if there is one."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memedit.memory.memory import EditMemory
from memedit.server.records import Records, Role
from memedit.server.settings import Settings
from tests.server.upstream import Sent, Upstream, scripted, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "screenshots"
UNPACKED = ROOT / "build" / "browser" / "chromium"
"""Where `make install-browser` leaves one that is not installed."""
PHONE, DESKTOP = (390, 844), (1280, 800)
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "headless_shell")
BASE_ANSWER = "The base model says Tokyo."

_numbers = itertools.count(1)


@dataclass
class House:
    """The gateway as a visitor of its page finds it.

    Attributes:
        url: Of the page.
        namespace: The test's own.
        keys: An API key for each role, bound to the namespace.
        memory: What the gateway serves.
        records: Its keys and audit log.
        upstream: The scripted model.
    """

    url: str
    namespace: str
    keys: dict[Role, str]
    memory: EditMemory
    records: Records
    upstream: Upstream


@dataclass
class Seen:
    """A page in the browser, and what went on behind it.

    Attributes:
        page: The page.
        elsewhere: Requests of it to other hosts than this one.
        errors: What its scripts complained of.
    """

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def reply(sent: Sent) -> str:
    """Says what the facts in the prompt come to, as a model that reads them would; else what it believes."""
    given = re.search(r"So what is asked for is: (.+)", sent.last)
    return f"It is {given[1]}." if given else BASE_ANSWER


@pytest.fixture(scope="session")
def _gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, EditMemory, Records, Upstream]]:
    pytest.importorskip("gradio", reason="the page needs the extra ui")
    from memedit.server.app import create_app

    folder = tmp_path_factory.mktemp("page")
    with (
        scripted() as upstream,
        EditMemory(folder / "facts.db") as memory,
        Records(folder / "keys.db") as records,
    ):
        app = create_app(Settings(f"{upstream.url}/v1", timeout=30.0, rate=0), memory, records, warm=False, page=True)
        app.state.services.warm_up()  # once for all tests, and not within the first one's time
        with served(app) as url:
            yield url, memory, records, upstream


@pytest.fixture
def house(_gateway: tuple[str, EditMemory, Records, Upstream]) -> House:
    url, memory, records, upstream = _gateway
    upstream.reset()
    upstream.reply = reply
    namespace = f"tenant-{next(_numbers)}"
    keys = {role: records.create_key(f"{role.value} of the test", role, [namespace])[1] for role in Role}
    return House(url, namespace, keys, memory, records, upstream)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium. For a module and not for the session: while Playwright runs, no other test could run an event loop."""
    pytest.importorskip("playwright", reason="needs playwright")
    from playwright.sync_api import sync_playwright

    installed = [shutil.which(name) for name in CHROMIUMS]
    named = [os.environ.get("MEMEDIT_CHROMIUM"), *installed, str(UNPACKED) if UNPACKED.exists() else None]
    found = next(filter(None, named), None)
    if found is None:
        pytest.skip("there is no Chromium: run make install-browser, or name one in MEMEDIT_CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-background-networking", "--disable-dev-shm-usage"]
        )
        yield started
        started.close()


@pytest.fixture(params=[PHONE, DESKTOP], ids=["phone", "desktop"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    width, height = request.param
    return width, height


@pytest.fixture
def seen(browser: Browser, size: tuple[int, int]) -> Iterator[Seen]:
    context = new_context(browser, size)
    yield watched(context)
    context.close()


def new_context(browser: Browser, size: tuple[int, int], *, dark: bool = False) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        device_scale_factor=2 if size == PHONE else 1,
    )
    context.set_default_timeout(60_000)
    return context


def watched(context: BrowserContext) -> Seen:
    """A new page that cannot reach other hosts."""
    seen = Seen(context.new_page())

    def local(url: str) -> bool:
        return url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))

    context.route(lambda url: not local(url), lambda route: route.abort())
    seen.page.on("request", lambda request: None if local(request.url) else seen.elsewhere.append(request.url))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    return seen


def shoot(page: Page, size: tuple[int, int], name: str) -> None:
    """Keep a picture of the whole page."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    kind = "phone" if size == PHONE else "desktop"
    page.screenshot(path=SHOTS / f"{kind}-{name}.png", full_page=True)


@pytest.fixture
def calls_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses off this machine that this process, the gateway in it, tries to reach."""
    tried: list[str] = []
    connect = socket.socket.connect

    def watching(self: socket.socket, address: object) -> None:
        is_out = isinstance(address, tuple) and not str(address[0]).startswith(("127.", "::1", "localhost"))
        if is_out and self.family in (socket.AF_INET, socket.AF_INET6):
            tried.append(str(address))
            raise ConnectionRefusedError(f"the test lets nothing out, and this was to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", watching)
    return tried
