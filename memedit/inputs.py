"""The shapes in which a caller may give facts, and the one they are turned into. Knows nothing of what is recorded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from memedit.errors import BadRow
from memedit.memory.fact import FactInput

FactLike = FactInput | Mapping[str, object] | tuple[str, str, str] | str
"""A fact as a value, a mapping of `FactInput`'s fields, a (subject, relation, object) triple, or a plain sentence."""


def fact_inputs(facts: Iterable[FactLike]) -> Iterator[FactInput]:
    """The facts as values; a row of another shape is named."""
    for row, fact in enumerate(facts, 1):
        if isinstance(fact, FactInput):
            yield fact
        elif isinstance(fact, str):
            yield FactInput(statement=fact)
        elif isinstance(fact, Mapping):
            try:
                yield FactInput.model_validate(fact)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"])
                raise BadRow(f"{first['msg']}.", _ROW_MEND, row=row, field=field) from None
        elif isinstance(fact, tuple) and len(fact) == _TRIPLE:
            yield FactInput(subject=fact[0], relation=fact[1], object=fact[2])
        else:
            raise BadRow(f"{fact!r} is no fact.", _ROW_MEND, row=row)


_TRIPLE = 3
_ROW_MEND = "Give a sentence, a (subject, relation, object) triple, or a mapping with FactInput's fields."
