from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from memedit.parametric.contexts import Contexts
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.states import changed
from memedit.parametric.value import ValueSettings, optimise

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EDIT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka Lyon")
ESSENCE = "New Zealand is a"
LAYER = 1
FREE = 1e6
"""A clamp that nothing comes near to."""


@pytest.mark.parametrize(("essence", "decay"), [(3.0, 0.0), (0.5, 0.0), (0.0, 2.0)])
def test_the_value_is_what_adam_finds_for_equation_four(
    essence: float, decay: float, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    settings = ValueSettings(steps=4, rate=1.0, essence=essence, decay=decay, clamp=FREE, enough=0.0)
    module = LayerMap(model).down(LAYER)

    with frozen(model):
        found = optimise(Contexts(model, tokenizer, EDIT, ()), module, settings)

        assert torch.allclose(found, by_hand(model, tokenizer, settings), atol=1e-3 * float(found.abs().max()))


def by_hand(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, settings: ValueSettings) -> torch.Tensor:
    """Equation 4 with one context, term for term, each sentence run as a whole."""
    sentence, about = tokenizer(EDIT.text)["input_ids"], tokenizer(ESSENCE)["input_ids"]
    before, begin = len(tokenizer("The capital of New Zealand")["input_ids"]), len(tokenizer(EDIT.stem)["input_ids"])
    asked, target = list(range(begin - 1, len(sentence) - 1)), sentence[begin:]
    module = LayerMap(model).down(LAYER)
    given: list[torch.Tensor] = []

    def logs(tokens: list[int], place: int, change: torch.Tensor) -> torch.Tensor:
        def put(output: torch.Tensor) -> torch.Tensor:
            given.append(output[0, place].detach())
            here = torch.arange(len(tokens))[:, None] == place
            return output + here * change

        with torch.enable_grad(), changed(module, put):
            found: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
            return found

    change = torch.zeros(32, requires_grad=True)
    essence = len(tokenizer("New Zealand")["input_ids"]) - 1
    unedited = logs(about, essence, change)[-1].detach()
    logs(sentence, before - 1, change)
    norm = float(given[-1].norm())
    adam = torch.optim.Adam([change], lr=settings.rate * norm / 32**0.5)
    for _ in range(settings.steps):
        wanted = -logs(sentence, before - 1, change)[asked, target].mean()
        now = logs(about, essence, change)[-1]
        drift = (now.exp() * (now - unedited)).sum()  # KL(edited || unedited)
        decay = change.square().sum() / norm**2
        adam.zero_grad()
        torch.autograd.backward(wanted + settings.essence * drift + settings.decay * decay)
        adam.step()
    return change.detach()


def test_a_heavier_essence_keeps_more_of_what_the_subject_is(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    about = torch.tensor([tokenizer(ESSENCE)["input_ids"]])
    place = len(tokenizer("New Zealand")["input_ids"]) - 1
    module = LayerMap(model).down(LAYER)
    with torch.no_grad():
        before = model(about).logits[0, -1].log_softmax(-1)

    def drift(essence: float) -> float:
        settings = ValueSettings(steps=20, rate=0.5, essence=essence, decay=0.0, clamp=FREE)
        with frozen(model):
            change = optimise(Contexts(model, tokenizer, EDIT, ()), module, settings)

        def put(output: torch.Tensor) -> torch.Tensor:
            return torch.cat([output[:, :place], output[:, place : place + 1] + change, output[:, place + 1 :]], dim=1)

        with torch.no_grad(), changed(module, put):
            after = model(about).logits[0, -1].log_softmax(-1)
        return float((after.exp() * (after - before)).sum())

    assert drift(10.0) < 0.5 * drift(0.0)


def test_the_change_is_no_longer_than_its_clamp(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    module = LayerMap(model).down(LAYER)

    def length(clamp: float, scale: float | None = None) -> float:
        settings = ValueSettings(steps=5, rate=1.0, decay=0.0, clamp=clamp)
        with frozen(model):
            return float(optimise(Contexts(model, tokenizer, EDIT, ()), module, settings, scale).norm())

    with frozen(model):
        [(_, made)] = Contexts(model, tokenizer, EDIT, ()).look(module)
    norm = float(made.norm())
    assert length(FREE) > 0.6 * norm
    assert length(0.5) == pytest.approx(0.5 * norm, rel=1e-4)
    assert length(0.5, scale=2.0) == pytest.approx(1.0, rel=1e-4)
