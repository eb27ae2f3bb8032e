"""A key-value cache layer with room to grow. Imported with the first decoding, as it needs torch and transformers."""

from __future__ import annotations

import torch
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values of one layer in buffers that are allocated once.

    The library's own dynamic layer copies all it holds for every token; with a long prefix and many rows that costs as much
    as the model itself.

    Args:
        capacity: Most tokens it will hold.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._capacity = capacity
        self._length = 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values [rows, heads, tokens, width]; returns all that are held."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            rows, heads, _, width = key_states.shape
            self._room = torch.empty(2, rows, heads, self._capacity, width, dtype=self.dtype, device=self.device)
            self.is_initialized = True
        begin, self._length = self._length, self._length + key_states.shape[-2]
        self._room[0, :, :, begin : self._length] = key_states
        self._room[1, :, :, begin : self._length] = value_states
        self.keys, self.values = self.held()
        return self.held()

    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values so far, each [rows, heads, tokens, width]."""
        return self._room[0, :, :, : self._length], self._room[1, :, :, : self._length]

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self._length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep only these rows."""
        self._room = self._room[:, indices]
        self.keys, self.values = self.held()
