"""Editing the weights themselves, to compare with: ROME, MEMIT, fine-tuning and LoRA, and causal tracing.

Nothing else in memedit writes to weights. Every edit is undone exactly:

    with Rome().apply(model, tokenizer, [WeightEdit("The capital of Japan is", "Japan", "Osaka")]):
        ...  # the model says Osaka
    # every bit of its weights is what it was

Needs the extra ``rome`` for LoRA (peft) and for pictures (matplotlib). Names are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memedit.parametric.edits import Applied, Editing, WeightEdit
    from memedit.parametric.finetune import FineTuning
    from memedit.parametric.lora import Lora
    from memedit.parametric.memit import Memit
    from memedit.parametric.model import ParametricModel, edited, load_method
    from memedit.parametric.rome import Rome
    from memedit.parametric.tracing import decisive_layer, trace

__all__ = [
    "Applied",
    "Editing",
    "FineTuning",
    "Lora",
    "Memit",
    "ParametricModel",
    "Rome",
    "WeightEdit",
    "decisive_layer",
    "edited",
    "load_method",
    "trace",
]

_HOMES = {
    "Applied": "edits",
    "Editing": "edits",
    "FineTuning": "finetune",
    "Lora": "lora",
    "Memit": "memit",
    "ParametricModel": "model",
    "Rome": "rome",
    "WeightEdit": "edits",
    "decisive_layer": "tracing",
    "edited": "model",
    "load_method": "model",
    "trace": "tracing",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
