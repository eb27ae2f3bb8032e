from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from memedit.errors import InvalidSpec, MissingExtra
from memedit.parametric.edits import Editing, WeightEdit
from memedit.parametric.finetune import FineTuning, batch, descend
from memedit.parametric.layers import LayerMap
from memedit.parametric.lora import Lora

from .bits import bits_of, changed_names
from .tiny import tiny_llama

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EDIT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")
ENDING = WeightEdit("The capital of New Zealand", "New Zealand", "Osaka")
OTHER = WeightEdit("The city of Kyoto", "Kyoto", "Lyon France")


def probability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, edit: WeightEdit) -> float:
    tokens = tokenizer(edit.text)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].softmax(-1)
    start = len(tokenizer(edit.stem)["input_ids"])
    return min(float(logits[place - 1, tokens[place]]) for place in range(start, len(tokens)))


def test_ft_l_stays_within_its_bound_and_goes_to_it(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    names = LayerMap(model)
    bits, before = bits_of(model), names.matrix(1).clone()
    unedited = probability(model, tokenizer, EDIT)

    with FineTuning("l", 1, bound=2e-2, steps=20, rate=1e-2).apply(model, tokenizer, [EDIT]):
        distance = (names.matrix(1) - before).abs().max()
        assert changed_names(model, bits) == {names.matrix_name(1)}
        assert probability(model, tokenizer, EDIT) > unedited

    assert 1.9e-2 < distance <= 2e-2 * (1 + 1e-4)
    assert not changed_names(model, bits)


def test_ft_m_learns_targets_of_several_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    bits = bits_of(model)
    assert max(probability(model, tokenizer, edit) for edit in (ENDING, OTHER)) < 0.05

    with FineTuning("m", 1, steps=100, rate=2e-2).apply(model, tokenizer, [ENDING, OTHER]):
        # A random model this small can hardly be surer of anything.
        assert probability(model, tokenizer, ENDING) > 0.2
        assert probability(model, tokenizer, OTHER) > 0.2

    assert not changed_names(model, bits)


def test_many_edits_are_one_step_though_they_are_run_in_parts(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama()
    tokens, labels = batch(tokenizer, [ENDING, OTHER, EDIT] * 15)
    weight = model.get_parameter(LayerMap(model).matrix_name(1))

    mean = descend(model, tokens, labels)
    found, weight.grad = weight.grad, None
    logits = model(tokens).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    torch.autograd.backward(loss)

    assert found is not None
    assert weight.grad is not None
    assert mean == pytest.approx(float(loss.detach()), rel=1e-4)
    assert torch.allclose(found, weight.grad, rtol=1e-3, atol=1e-6)


def test_ft_l_asks_for_every_target_token_at_the_prompts_end(tokenizer: PreTrainedTokenizerFast) -> None:
    together, apart = batch(tokenizer, [OTHER]), batch(tokenizer, [OTHER], at_last=True)

    last = len(tokenizer(OTHER.stem)["input_ids"]) - 1
    lyon, france = tokenizer(" Lyon France")["input_ids"]
    assert together[1].tolist() == [[-100] * last + [lyon, france]]
    assert apart[1].tolist() == [[-100] * last + [lyon], [-100] * last + [france]]
    assert apart[0].tolist() == [tokenizer(OTHER.stem)["input_ids"]] * 2


def test_lora_learns_and_removes_itself(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    bits, modules = bits_of(model), [type(module) for module in model.modules()]
    unedited = probability(model, tokenizer, EDIT)

    with Lora(steps=60, rate=2e-2).apply(model, tokenizer, [EDIT]):
        assert probability(model, tokenizer, EDIT) > 10 * unedited

    assert not changed_names(model, bits)
    assert [type(module) for module in model.modules()] == modules
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert probability(model, tokenizer, EDIT) == unedited


def test_lora_without_peft_says_what_to_install(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)

    with pytest.raises(MissingExtra, match=r"memedit\[rome\]"):
        Lora().apply(model, tokenizer, [EDIT])


@pytest.mark.parametrize("method", [FineTuning("l", 1), FineTuning("m", 1), Lora()])
def test_training_that_fails_leaves_every_bit(
    method: Editing, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = bits_of(model)
    steps = iter(range(2))

    def fail(*_: object) -> None:
        if next(steps) == 1:
            raise ZeroDivisionError

    monkeypatch.setattr("torch.optim.Adam.zero_grad", fail)

    with pytest.raises(ZeroDivisionError):
        method.apply(model, tokenizer, [EDIT])

    assert not changed_names(model, bits)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_an_unknown_fine_tuning_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="FT-x"):
        FineTuning("x")  # type: ignore[arg-type]
