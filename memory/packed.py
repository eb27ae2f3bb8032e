"""Weights that lie as oneDNN multiplies by them, which PyTorch otherwise arranges at every product.

The operators are no part of PyTorch's public interface: `can_pack` says whether they are there. Importing it imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def can_pack(weight: Tensor) -> bool:
    """Whether a weight can be packed: it lies in the main memory, and the operators of this build of PyTorch work."""
    return weight.device.type == "cpu" and _works()


@cache
def _works() -> bool:
    try:
        return tuple(multiply(torch.ones(1, 16), pack([torch.ones(16, 16)])).shape) == (1, 16)
    except (AttributeError, RuntimeError):
        return False


def pack(weights: Sequence[Tensor]) -> Tensor:
    """Weights [width out, width in] of one input, packed side by side."""
    whole = torch.cat(list(weights)) if len(weights) > 1 else weights[0]
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(whole)
    return packed


def multiply(x: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    """X [n, width in] by packed weights, and a bias added: [n, the weights' widths out together]."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product
