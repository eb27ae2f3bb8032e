from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
import torch

from memedit.errors import InvalidSpec
from memedit.parametric.contexts import Contexts, Prefixes
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.memit import Memit, least_squares
from memedit.parametric.rome import Rome
from memedit.parametric.states import watched
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings, optimise

from .bits import bits_of, changed_names

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

EDIT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")
PREFIXES = Prefixes(count=2, longest=5)
SETTINGS = ValueSettings(steps=40, rate=2.0, clamp=20.0, decay=0.0)


def test_one_edit_in_one_layer_is_romes_update_as_the_samples_weight_goes_to_nothing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, moments: SecondMoments
) -> None:
    names = LayerMap(model)
    before = names.matrix(1).clone()
    # The same change to write: MEMIT counts its clamp in another norm, which neither comes near to.
    settings = ValueSettings(steps=3, rate=0.5, clamp=1e6, decay=0.0)
    with Rome(1, moments=moments, prefixes=PREFIXES, settings=settings).apply(model, tokenizer, [EDIT]):
        rome = names.matrix(1) - before

    def memit(weight: float) -> torch.Tensor:
        method = Memit([1], weight=weight, moments=moments, prefixes=PREFIXES, settings=settings)
        with method.apply(model, tokenizer, [EDIT]):
            return names.matrix(1) - before

    # Adam's rate is set by the norm that the clamp counts in, so the two changes differ in length but for a step's worth;
    # the directions in key space must agree.
    faint, strong = memit(1e-9), memit(10.0)
    right = torch.linalg.svd(rome).Vh[0]
    assert abs(float(torch.linalg.svd(faint).Vh[0] @ right)) == pytest.approx(1.0, abs=1e-3)
    assert abs(float(torch.linalg.svd(strong).Vh[0] @ right)) == pytest.approx(1.0, abs=1e-3)
    assert strong.norm() < 0.9 * faint.norm()


def test_least_squares_with_one_key_is_equation_two_of_rome() -> None:
    from memedit.parametric.rome import rank_one

    generator = torch.Generator().manual_seed(3)
    sample = torch.randn(6, 30, generator=generator).double()
    moment = sample @ sample.T
    key, change = torch.randn(6, generator=generator).double(), torch.randn(4, generator=generator).double()

    found = least_squares(moment * 1e-12, key[:, None], change[:, None])

    assert torch.allclose(found, rank_one(torch.zeros(4, 6).double(), moment, key, change).matrix(), atol=1e-6)


def test_least_squares_minimises_what_it_says() -> None:
    generator = torch.Generator().manual_seed(4)
    old = torch.randn(6, 30, generator=generator).double()
    keys, changes = torch.randn(6, 3, generator=generator).double(), torch.randn(4, 3, generator=generator).double()

    found = least_squares(old @ old.T, keys, changes)

    # |D K - R|^2 + |D K0|^2 over D is an ordinary least squares problem with the keys side by side.
    together, wanted = torch.cat([keys, old], dim=1), torch.cat([changes, torch.zeros(4, 30).double()], dim=1)
    expected = torch.linalg.lstsq(together.T, wanted.T).solution.T
    assert torch.allclose(found, expected, atol=1e-9)


def test_several_edits_over_several_layers_are_all_there(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, moments: SecondMoments
) -> None:
    edits = [
        WeightEdit("The capital of New Zealand", "New Zealand", "Osaka"),
        WeightEdit("The city of Kyoto", "Kyoto", "France"),
        WeightEdit("The capital of Lyon", "Lyon", "Japan"),
    ]
    memit = Memit([0, 1], weight=1e-4, moments=moments, prefixes=Prefixes(count=0), settings=SETTINGS)
    names, before = LayerMap(model), bits_of(model)

    with memit.apply(model, tokenizer, edits):
        touched = changed_names(model, before)
        for edit in edits:
            ids = tokenizer(edit.stem, return_tensors="pt")["input_ids"]
            assert str(tokenizer.decode([int(model(ids).logits[0, -1].argmax())])).strip() == edit.target

    assert touched == {names.matrix_name(0), names.matrix_name(1)}
    assert not changed_names(model, before)


@pytest.mark.parametrize("weight", [1e-3, 1e-1])
def test_states_of_the_top_layer_are_spread_from_the_lowest_layer_up_as_algorithm_one_says(
    weight: float, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, moments: SecondMoments
) -> None:
    edits = [
        WeightEdit("The capital of New Zealand", "New Zealand", "Osaka"),
        WeightEdit("The city of Kyoto", "Kyoto", "France"),
    ]
    names, bare, settings = LayerMap(model), Prefixes(count=0), ValueSettings(steps=4, clamp=0.75)
    memit = Memit([0, 1, 2], weight=weight, moments=moments, prefixes=bare, settings=settings)
    with memit.apply(model, tokenizer, edits):
        found = [names.matrix(layer).clone() for layer in range(3)]

    before = [names.matrix(layer).clone() for layer in range(3)]
    sample = moments.get(model, tokenizer, [0, 1, 2])
    with frozen(model):
        states = at_the_end(model, tokenizer, edits, names.layer(2))[1]
        wanted = [
            state + optimise(Contexts(model, tokenizer, edit, ()), names.down(2), settings, float(state.norm()))
            for edit, state in zip(edits, states, strict=True)
        ]
    for layer in range(3):
        keys = at_the_end(model, tokenizer, edits, names.down(layer))[0].T.double()
        states = at_the_end(model, tokenizer, edits, names.layer(2))[1]
        rest = (torch.stack(wanted) - states).T.double() / (3 - layer)
        moment = weight * keys.shape[0] * sample[layer]
        change = rest @ keys.T @ torch.linalg.inv(moment + keys @ keys.T)
        names.matrix(layer).add_(change)

    for layer in range(3):
        change, expected = found[layer] - before[layer], names.matrix(layer) - before[layer]
        assert (change - expected).norm() < 0.01 * expected.norm(), layer


def at_the_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, edits: Sequence[WeightEdit], module: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module is given and what it makes of it at the last token of each edit's prompt, each [edits, width]."""
    given: list[torch.Tensor] = []
    made: list[torch.Tensor] = []

    def see(inputs: torch.Tensor, output: torch.Tensor) -> None:
        given.append(inputs[0, -1].clone())
        made.append(output[0, -1].clone())

    with torch.no_grad(), watched(module, see):
        for edit in edits:
            model(tokenizer(edit.stem, return_tensors="pt")["input_ids"])
    return torch.stack(given), torch.stack(made)


@pytest.mark.parametrize("layers", [[], [2, 1], [1, 1]])
def test_layers_out_of_order_are_refused(layers: list[int]) -> None:
    with pytest.raises(InvalidSpec, match="lowest first"):
        Memit(layers)
