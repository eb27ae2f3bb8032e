from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import torch

from memedit.errors import InvalidSpec, MissingExtra
from memedit.parametric.edits import Editing, WeightEdit
from memedit.parametric.epochs import Batch, batch, batches, descend, train
from memedit.parametric.finetune import FineTuning
from memedit.parametric.layers import LayerMap
from memedit.parametric.lora import Lora

from .bits import bits_of, changed_names
from .tiny import tiny_llama

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EDIT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")
ENDING = WeightEdit("The capital of New Zealand", "New Zealand", "Osaka")
OTHER = WeightEdit("The city of Kyoto", "Kyoto", "Lyon France")
LONG = WeightEdit("The capital of Japan", "Japan", "Kyoto Lyon in France is a city of Osaka")
MANY = [
    ENDING,
    WeightEdit("The city of Kyoto", "Kyoto", "France"),
    WeightEdit("The capital of Lyon", "Lyon", "Japan"),
    WeightEdit("The city of Japan", "Japan", "Lyon"),
    WeightEdit("The capital of France", "France", "Kyoto"),
]


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


@pytest.mark.parametrize("at_last", [True, False])
def test_the_loss_is_the_mean_over_edits_of_the_mean_over_their_targets_tokens(
    at_last: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_llama()
    edits = [ENDING, OTHER, LONG] * 15  # targets of one, two and nine tokens; more rows than are run together
    weight = model.get_parameter(LayerMap(model).matrix_name(1))

    mean = descend(model, batch(tokenizer, edits, at_last=at_last))
    found, weight.grad = weight.grad, None
    each = []
    for edit in edits[:3]:
        tokens, start = tokenizer(edit.text)["input_ids"], len(tokenizer(edit.stem)["input_ids"])
        logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        asked = [(start if at_last else place, tokens[place]) for place in range(start, len(tokens))]
        each.append(torch.stack([-logits[place - 1, token] for place, token in asked]).mean())
    loss = torch.stack(each).mean()
    torch.autograd.backward(loss)

    assert found is not None
    assert weight.grad is not None
    assert mean == pytest.approx(float(loss.detach()), rel=1e-4)
    assert torch.allclose(found, weight.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["l", "m"])
def test_one_edit_is_a_step_of_adam_an_epoch(
    kind: Literal["l", "m"], model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = LayerMap(model)
    method = FineTuning(kind, 1, bound=1.5e-2, steps=3, rate=1e-2)
    with method.apply(model, tokenizer, [OTHER]):
        found = names.matrix(1).clone()

    weight, before = model.get_parameter(names.matrix_name(1)), names.matrix(1).clone()
    adam = torch.optim.Adam([weight], lr=1e-2)
    tokens, start = tokenizer(OTHER.text)["input_ids"], len(tokenizer(OTHER.stem)["input_ids"])
    for _ in range(3):
        logits = model(torch.tensor([tokens])).logits[0]
        asked = logits[[start - 1] * 2 if kind == "l" else [start - 1, start]]
        adam.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(asked, torch.tensor(tokens[start:])))
        adam.step()
        names.matrix(1).clamp_(before - 1.5e-2, before + 1.5e-2)

    assert (names.matrix(1) - before).abs().max() > 1e-2
    assert torch.allclose(found, names.matrix(1), atol=1e-4)


def test_training_goes_through_batches_in_epochs_and_stays_within_its_bound(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LayerMap(model).matrix(1).clone()
    seen: list[tuple[int, float]] = []

    def watch(model: PreTrainedModel, some: Batch) -> float:
        seen.append((some.edits, float((LayerMap(model).matrix(1) - before).abs().max())))
        return descend(model, some)

    monkeypatch.setattr("memedit.parametric.epochs.descend", watch)
    with FineTuning("l", 1, bound=1.5e-2, steps=4, rate=1e-2, batch_size=2).apply(model, tokenizer, MANY):
        end = float((LayerMap(model).matrix(1) - before).abs().max())

    assert [edits for edits, _ in seen] == [2, 2, 1] * 4
    distances = [distance for _, distance in seen[1:]] + [end]
    assert 0.9e-2 < distances[0] < 1.5e-2  # the first step of Adam is as long as its rate
    assert distances[1:] == pytest.approx([1.5e-2] * 11, rel=1e-3)


@pytest.mark.parametrize(
    "method", [FineTuning("m", 1, steps=50, rate=2e-2, batch_size=2), Lora(steps=30, rate=2e-2, batch_size=2)]
)
def test_with_more_edits_than_a_batch_the_last_is_learned_too(
    method: Editing, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    unedited = probability(model, tokenizer, MANY[-1])

    with method.apply(model, tokenizer, MANY):
        assert probability(model, tokenizer, MANY[-1]) > 10 * unedited


def test_a_batch_that_is_learned_is_passed_over_until_all_are(tokenizer: PreTrainedTokenizerFast) -> None:
    model, weight = tiny_llama(), torch.nn.Parameter(torch.zeros(()))
    weight.grad = torch.ones(())
    parts = batches(tokenizer, MANY, 2)
    losses = iter([0.001, 0.2, 0.001, 0.001, 0.001, 0.001])
    steps: list[int] = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("memedit.parametric.epochs.descend", lambda *_: next(losses))
        train(model, parts, torch.optim.Adam([weight]), 9, 0.01, lambda: steps.append(1))

    assert len(steps) == 1
    assert next(losses, None) is None


def test_a_batch_of_no_edits_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidSpec, match="batch_size"):
        FineTuning("l", 1, batch_size=0).apply(model, tokenizer, [EDIT])


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
