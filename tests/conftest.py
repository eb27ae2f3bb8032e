"""For all tests: the quick ones come first, and a memory can be kept in each of the databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.postgres import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run plain tests before those that load the language model, and those that take long last."""
    items.sort(key=lambda item: 2 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("model") else 0)


@pytest.fixture(scope="session", autouse=True)
def _indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the index snapshots of memories on a server, which go to the user's cache, with the other files of tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMEDIT_INDEXES", str(tmp_path_factory.mktemp("indexes")))
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL server, started when a test first asks for it."""
    from tests.postgres import running

    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty memory can be made: a file's path, and a PostgreSQL URL."""
    if request.param == "sqlite":
        return str(tmp_path / "facts.db")
    server: Server = request.getfixturevalue("postgres")
    return server.new_url()
