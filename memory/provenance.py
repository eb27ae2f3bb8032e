"""What a snapshot of the index was made from, so that one that does not belong to the log at hand is not used.

A memory's id is not enough: a database that was set back to an earlier time goes on under the same id, and gives out the
same fact ids again for other facts. So a snapshot names a log position and the hash that the chain had there, and the
last compaction that it is free of.
"""

from __future__ import annotations

import json
from typing import NamedTuple, Self


class Provenance(NamedTuple):
    """What the vectors of a snapshot were made from.

    Attributes:
        memory: The memory's id.
        embedder: The embedder's name.
        dimension: Length of a vector.
        position: Log position at which it was made.
        hash: The chain's hash at `position`, in hexadecimal; empty for an empty log.
        compacted: Sequence number of the last compaction until then; 0 if there was none.
        left_out: Namespaces whose vectors are searched elsewhere, ascending; "*" stands for all.
    """

    memory: str
    embedder: str
    dimension: int
    position: int
    hash: str
    compacted: int
    left_out: tuple[str, ...] = ()

    def covers(self, namespace: str) -> bool:
        """Whether the vectors of a namespace are in the snapshot."""
        return not {namespace, "*"} & {*self.left_out}

    def to_text(self) -> str:
        """As `VectorIndex.save` takes it."""
        return json.dumps(self._asdict())

    @classmethod
    def from_text(cls, text: str) -> Self | None:
        """As `VectorIndex.load` gives it; None if it is none."""
        try:
            made = cls(**json.loads(text))
            return made._replace(left_out=tuple(made.left_out))
        except (ValueError, TypeError):
            return None
