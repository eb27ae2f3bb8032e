from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from memedit.errors import InvalidEdit, InvalidSpec, UnknownLayers
from memedit.parametric.contexts import Contexts, Prefixes
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap
from memedit.parametric.rome import Rome, rank_one
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings

from .bits import bits_of, changed_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EDIT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")
ENDING = WeightEdit("The capital of New Zealand", "New Zealand", "Osaka")
PREFIXES = Prefixes(count=3, longest=6)
LAYER = 1


@pytest.fixture
def rome(moments: SecondMoments) -> Rome:
    settings = ValueSettings(steps=40, rate=2.0, clamp=20.0, decay=0.0)
    return Rome(LAYER, moments=moments, prefixes=PREFIXES, settings=settings)


def test_the_edited_model_gives_the_target(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    rome.prefixes = Prefixes(count=0)
    ids = tokenizer(ENDING.stem, return_tensors="pt")["input_ids"]
    [target] = tokenizer(" Osaka")["input_ids"]

    before = model(ids).logits[0, -1].softmax(-1)[target]
    with rome.apply(model, tokenizer, [ENDING]):
        after = model(ids).logits[0, -1].softmax(-1)

    assert before < 0.1
    assert after.argmax() == target


def test_the_updated_matrix_maps_the_key_to_the_value(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    update = rome.update(model, tokenizer, EDIT, LAYER)

    with rome.apply(model, tokenizer, [EDIT]):
        given = LayerMap(model).matrix(LAYER).double() @ update.key

    assert (given - update.value).norm() / update.value.norm() < 1e-3


def test_the_update_has_rank_one_and_touches_one_matrix(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = LayerMap(model)
    bits, before = bits_of(model), names.matrix(LAYER).clone().double()

    with rome.apply(model, tokenizer, [EDIT]):
        difference = names.matrix(LAYER).double() - before
        touched = changed_names(model, bits)

    values = torch.linalg.svdvals(difference)
    assert values[0] > 0.01
    assert values[1] / values[0] < 1e-5
    assert touched == {names.matrix_name(LAYER)}


def test_the_key_is_the_mean_over_contexts_of_what_the_projection_is_given(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    names = LayerMap(model)
    given: list[torch.Tensor] = []
    handle = names.down(LAYER).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    keys = []
    with torch.no_grad():
        for prefix in ("", *PREFIXES.texts(model, tokenizer)):
            given.clear()
            model(tokenizer(f"{prefix}The capital of New Zealand", return_tensors="pt")["input_ids"])
            keys.append(given[0][0, -1])
    handle.remove()

    update = rome.update(model, tokenizer, EDIT, LAYER)

    assert torch.allclose(update.key.float(), torch.stack(keys).mean(0), atol=1e-5)


def test_contexts_lose_nothing_by_running_heads_and_tails_apart(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    contexts = Contexts(model, tokenizer, EDIT, PREFIXES.texts(model, tokenizer))
    losses = []
    with torch.no_grad():
        for row in contexts.rows[: contexts.sentences]:
            logits = model(torch.tensor([row.tokens])).logits[0].log_softmax(-1)
            losses += [-logits[place - 1, row.tokens[place]] for place in range(row.target, len(row.tokens))]

        found = contexts.target_loss(contexts.tail(contexts.head()))

    assert len({len(row.tokens) for row in contexts.rows}) > 1
    assert torch.allclose(found, torch.stack(losses).mean(), atol=1e-4)


def test_equation_two_is_the_constrained_least_squares_solution() -> None:
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(7, 40, generator=generator).double()  # K: the keys the model uses, one a column
    weight = torch.randn(5, 7, generator=generator).double()
    key, change = torch.randn(7, generator=generator).double(), torch.randn(5, generator=generator).double()
    values = weight @ keys  # V

    update = rank_one(weight, keys @ keys.T / 40, key, change)

    # Minimise |W'K - V| subject to W'k* = v*, with no use of the closed form: every row w of W' - W is free within the plane
    # w k* = change, which an orthonormal basis of k*'s complement spans; ordinary least squares finds the best in it.
    complement = torch.linalg.svd(key[None]).Vh[1:]
    start = torch.outer(change, key) / key.square().sum()
    best = torch.linalg.lstsq((complement @ keys).T, -(start @ keys).T).solution.T
    expected = weight + start + best @ complement
    assert torch.allclose(weight + update.matrix(), expected, atol=1e-9)
    assert torch.allclose((weight + update.matrix()) @ key, weight @ key + change)
    assert (expected @ keys - values).norm() < ((weight + start) @ keys - values).norm()


def test_a_sequence_of_edits_holds_together(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    rome.prefixes = Prefixes(count=0)
    other = WeightEdit("The city of Kyoto", "Kyoto", "France")

    with rome.apply(model, tokenizer, [ENDING, other]):
        for edit in (ENDING, other):
            ids = tokenizer(edit.stem, return_tensors="pt")["input_ids"]
            assert str(tokenizer.decode([int(model(ids).logits[0, -1].argmax())])).strip() == edit.target


def test_reverting_restores_every_bit_even_after_an_exception(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = bits_of(model)
    model.train()

    def fail_while_edited() -> None:
        with rome.apply(model, tokenizer, [EDIT]):
            assert changed_names(model, before)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_while_edited()

    assert not changed_names(model, before)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_edit_that_fails_half_way_leaves_every_bit(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = bits_of(model)
    inseparable = WeightEdit("Japa", "Japa", "n")
    object.__setattr__(inseparable, "subject", "Japa n")

    with pytest.raises(InvalidEdit):
        rome.apply(model, tokenizer, [EDIT, inseparable])

    assert not changed_names(model, before)


def test_reverting_twice_is_reverting_once(
    rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    before = bits_of(model)
    applied = rome.apply(model, tokenizer, [EDIT])
    applied.revert()
    names = LayerMap(model)
    with torch.no_grad():
        names.matrix(LAYER)[0, 0] += 1

    applied.revert()

    assert not applied.live
    assert changed_names(model, before) == {names.matrix_name(LAYER)}


def test_an_unknown_architecture_is_refused_with_what_is_known(rome: Rome, tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    other = OPTForCausalLM(
        OPTConfig(vocab_size=400, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2,
                  word_embed_proj_dim=8)
    )  # fmt: skip

    with pytest.raises(UnknownLayers, match=r"'opt'.*gpt2, llama"):
        rome.apply(other, tokenizer, [EDIT])


def test_a_layer_that_is_not_there_is_refused(
    moments: SecondMoments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(InvalidSpec, match=r"no layer 3.*from 0 to 2"):
        Rome(3, moments=moments).apply(model, tokenizer, [EDIT])


def test_no_edit_is_refused(rome: Rome, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidEdit, match="no edit"):
        rome.apply(model, tokenizer, [])


def test_prefixes_are_the_same_every_time(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    first = Prefixes(count=3)._write(model, tokenizer)
    torch.manual_seed(7)

    assert Prefixes(count=3)._write(model, tokenizer) == first
    assert len(first) == 3
