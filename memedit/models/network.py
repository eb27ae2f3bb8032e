"""What the decoding loop needs of a model: to read rows of tokens side by side and to say what comes next.

The two kinds there are: `memedit.models.llama.Llama`, and any causal model of transformers (`memedit.models.transformers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

Tokens = list[int]
States = Sequence[tuple["torch.Tensor", "torch.Tensor"]]
"""Keys and values of one text in every layer, laid out as the network that made them likes it."""


class Reading(Protocol):
    """Rows of tokens being read side by side: what a network keeps of the tokens so far."""

    def read(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, keep: int) -> torch.Tensor:
        """Read further tokens of every row.

        Args:
            ids: Token ids, [rows, n].
            mask: 1 on tokens, 0 on padding: the prefix, what was read before, and these [rows, prefix + before + n].
            positions: Of these tokens in their texts, from 0, [rows, n].
            keep: For how many of the last positions logits are wanted, 1 to n.

        Returns:
            Logits, [rows, keep, vocabulary].
        """
        ...

    def select(self, rows: torch.Tensor) -> None:
        """Go on with these rows only (indices, ascending)."""
        ...

    def states(self) -> States:
        """What was read, for a reading of one row that began with nothing and had no padding."""
        ...


class Network(Protocol):
    """A causal language model: token ids to logits."""

    @property
    def device(self) -> torch.device:
        """Where its inputs go."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many logits it gives."""
        ...

    @property
    def context_length(self) -> int:
        """Longest text it reads, in tokens."""
        ...

    @property
    def is_plain(self) -> bool:
        """Whether it keeps keys and values of all tokens and nothing else, so that rows can be dropped and prefixes shared."""
        ...

    def begin(self, rows: int, prefix: States = ()) -> Reading:
        """Begin to read `rows` rows that have all read a prefix already."""
        ...
