"""The examples in docstrings do what they say.

pytest's own collection of doctests would import `memory/` and `prompts/` a second time, under those names; here every
module is imported once, under the name it is installed by.
"""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest

PACKAGES = ("memedit", "memedit.memory", "memedit.prompts", "benchmarks")
"""`memedit.memory` and `memedit.prompts` lie in folders of their own, where a walk over `memedit` does not come."""


def _modules() -> list[str]:
    names = set(PACKAGES)
    for package in PACKAGES:
        names |= {found.name for found in walk_packages(import_module(package).__path__, f"{package}.")}
    return sorted(names)


@pytest.mark.parametrize("name", _modules())
def test_examples(name: str) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)

    assert result.failed == 0
