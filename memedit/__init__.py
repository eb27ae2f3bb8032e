"""memedit: edit what a language model knows without touching its weights.

    >>> from memedit import MemEditor
    >>> with MemEditor() as editor:  # doctest: +SKIP
    ...     editor.add_fact("The capital of France is Lyon.")
    ...     print(editor.ask("Which city is the capital of the country that Provence lies in?"))

The names below load on first use, so that importing memedit is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memedit.answer import Answer as Answer
    from memedit.answer import Hop as Hop
    from memedit.editor import MemEditor as MemEditor
    from memedit.errors import MemEditError as MemEditError
    from memedit.memory.fact import Fact as Fact
    from memedit.memory.fact import FactInput as FactInput
    from memedit.memory.fact import Relation as Relation
    from memedit.memory.memory import EditMemory as EditMemory

__version__ = "0.1.0"

_HOMES = {
    "Answer": "memedit.answer",
    "Hop": "memedit.answer",
    "MemEditor": "memedit.editor",
    "MemEditError": "memedit.errors",
    "Fact": "memedit.memory.fact",
    "FactInput": "memedit.memory.fact",
    "Relation": "memedit.memory.fact",
    "EditMemory": "memedit.memory.memory",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'memedit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
