"""Ways to answer a question from a base model and an edit memory, selected by name.

A package adds its own under the entry point group ``memedit.strategies``: a callable without arguments that returns a
`memedit.strategies.base.Strategy`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec

if TYPE_CHECKING:
    from memedit.strategies.base import Strategy

_BUILT_IN = {
    "base": "memedit.strategies.direct:Base",
    "ike": "memedit.strategies.ike:Ike",
    "mello": "memedit.strategies.mello:Mello",
    "mello-structured": "memedit.strategies.mello:structured",
    "serac": "memedit.strategies.serac:Serac",
    "walk": "memedit.strategies.walk:Walk",
}


def strategy_names() -> list[str]:
    """The names that `load_strategy` knows, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group="memedit.strategies"))})


def with_demonstrations(name: str, path: Path | None) -> str | Strategy:
    """The strategy that takes its demonstrations from a file; the name as it is where there is none.

    Raises:
        InvalidSpec: The strategy shows no demonstrations.
        BadDataFile, BadRow: The file is not as it should be.
    """
    if path is None:
        return name
    if name != "ike":
        raise InvalidSpec(f"The strategy {name!r} takes no demonstrations.", "Leave out --demonstrations, or use ike.")
    from memedit.strategies.ike import Ike

    return Ike(path)


def load_strategy(spec: str | Strategy) -> Strategy:
    """The strategy of a name; a strategy object is returned as it is.

    Raises:
        InvalidSpec: No strategy has that name.
    """
    if not isinstance(spec, str):
        return spec
    if spec in _BUILT_IN:
        module, name = _BUILT_IN[spec].split(":")
        make: Callable[[], Strategy] = getattr(import_module(module), name)
        return make()
    for point in entry_points(group="memedit.strategies", name=spec):
        strategy: Strategy = point.load()()
        return strategy
    raise InvalidSpec(f"There is no strategy {spec!r}.", f"Choose one of: {', '.join(strategy_names())}.")
