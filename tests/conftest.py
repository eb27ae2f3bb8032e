"""For all tests: the quick ones come first."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run plain tests before those that load the language model, and those that take long last."""
    items.sort(key=lambda item: 2 if item.get_closest_marker("slow") else 1 if item.get_closest_marker("model") else 0)
