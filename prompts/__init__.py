"""What the model is told: templates, demonstrations and the code that renders and parses them.

Knows fact types and nothing of models, memory or strategies.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: object) -> str:
    """The text of a template in ``prompts/templates``.

    Args:
        template: File name, e.g. "belief.jinja".
        **values: What the template names; a missing one raises `jinja2.UndefinedError`.
    """
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Prompts are text for a model, not markup: escaping would put entities into facts.
    return Environment(
        loader=PackageLoader("memedit.prompts", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
