"""What is measured, by its name: a strategy over an empty memory, or a method that edits weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from memedit.errors import InvalidSpec
from memedit.evaluation.method import MemoryMethod, Method
from memedit.evaluation.remembered import RememberedModel
from memedit.strategies import with_demonstrations


@contextmanager
def open_method(
    model: str, strategy: str, base: RememberedModel, demonstrations: Path | None = None
) -> Iterator[Method]:
    """What a name stands for: a strategy over an empty memory, or a parametric method.

    Args:
        model: The base model's spec; a parametric method loads a copy of its own, whose weights it edits.
        strategy: Name of the strategy or of the method.
        base: The same model, unedited.
        demonstrations: The file that `ike` takes its demonstrations from, or None for those that ship.

    Raises:
        InvalidSpec: There is neither a strategy nor a method of that name, or it takes no demonstrations.
        BadDataFile, BadRow: The demonstrations are not as they should be.
        UnknownLayers: The weights of `model` cannot be edited.
    """
    where = check_strategy(strategy)
    chosen = with_demonstrations(strategy, demonstrations)
    if where == "weights":
        from memedit.evaluation.weights import WeightsMethod
        from memedit.parametric.model import edited

        yield WeightsMethod(edited(model, strategy))
        return
    from memedit.counterfactual_adapter import has_adapter
    from memedit.editor import MemEditor
    from memedit.memory.memory import EditMemory

    adapter: Literal["adapter", "base"] = "adapter" if model == "embedded" and has_adapter() else "base"
    with (
        EditMemory(embed_on_write=False) as memory,
        MemEditor(base, memory, strategy=chosen, counterfactual=adapter) as editor,
    ):
        yield MemoryMethod(editor)


def check_strategy(name: str) -> Literal["memory", "weights"]:
    """Where the edits go that a strategy or a parametric method makes.

    Raises:
        InvalidSpec: There is neither of that name.
    """
    from memedit.parametric.model import METHODS
    from memedit.strategies import strategy_names

    names = strategy_names()
    if name in names:
        return "memory"
    if name in METHODS:
        return "weights"
    known = ", ".join([*names, *METHODS])
    raise InvalidSpec(f"There is no strategy {name!r}.", f"Choose one of: {known}.")
