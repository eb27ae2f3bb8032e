"""Comparing weights bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def bits_of(model: PreTrainedModel) -> dict[str, bytes]:
    """Every parameter and buffer, byte by byte."""
    return {name: value.detach().numpy().tobytes() for name, value in model.state_dict().items()}


def changed_names(model: PreTrainedModel, before: dict[str, bytes]) -> set[str]:
    """The parameters that are not what they were."""
    return {name for name, value in bits_of(model).items() if value != before.get(name)}
