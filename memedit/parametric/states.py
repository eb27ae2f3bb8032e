"""Looking at what modules compute, and changing it, while a model runs. Knows nothing of edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


class Halt(Exception):
    """Ends a forward pass that has computed what was wanted."""


@contextmanager
def stop_after(module: nn.Module) -> Iterator[None]:
    """Within it, a forward pass raises `Halt` once `module` has run."""

    def halt(*_: object) -> None:
        raise Halt

    handle = module.register_forward_hook(halt)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def changed(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within it, what `module` gives (or the first of a tuple that it gives) is replaced by `change` of it.

    Args:
        module: The module.
        change: From its output, [rows, tokens, width], to what goes on in its place.
    """

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> object:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def watched(module: nn.Module, see: Callable[[torch.Tensor, torch.Tensor], None]) -> Iterator[None]:
    """Within it, `see` is called with what `module` is given and what it gives, each [rows, tokens, width]."""

    def hook(
        _module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor | tuple[torch.Tensor, ...]
    ) -> None:
        see(inputs[0] if inputs else _first(output), _first(output))

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _first(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output
