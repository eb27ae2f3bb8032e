from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from memedit.errors import InvalidEdit, InvalidSpec
from memedit.parametric.edits import WeightEdit
from memedit.parametric.heatmap import draw
from memedit.parametric.layers import LayerMap
from memedit.parametric.states import changed, watched
from memedit.parametric.tracing import Noise, State, Trace, decisive_layer, trace

from .tiny import WORDS, tiny_gpt2, tiny_llama

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

FACT = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")
NOISE = Noise(samples=4)


@pytest.mark.parametrize("state", ["hidden", "mlp", "attention"])
def test_a_trace_has_an_effect_for_every_token_and_layer(
    state: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = trace(model, tokenizer, FACT, state, noise=NOISE)  # type: ignore[arg-type]

    assert found.restored.shape == (len(found.tokens), 3)
    assert "".join(found.tokens) == FACT.stem
    assert found.clean != pytest.approx(found.corrupted, rel=1e-3)
    assert torch.equal(found.effect, found.restored - found.corrupted)


def test_restoring_the_last_tokens_last_state_restores_the_answer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = trace(model, tokenizer, FACT, "hidden", noise=NOISE)

    assert float(found.restored[-1, -1]) == pytest.approx(found.clean, rel=1e-4)


def test_restoring_what_the_noise_does_not_reach_changes_nothing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    found = trace(model, tokenizer, FACT, "hidden", noise=NOISE)

    for place in range(found.subject[0]):
        assert torch.allclose(found.effect[place], torch.zeros(3), atol=1e-6)


def test_places_can_be_counted_from_the_subjects_last_token(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    whole = trace(model, tokenizer, FACT, "mlp", noise=NOISE)

    part = trace(model, tokenizer, FACT, "mlp", places=[-1], noise=NOISE)

    assert part.places == (whole.subject[1],)
    assert torch.allclose(part.restored[0], whole.restored[whole.subject[1]], atol=1e-5)


def test_tracing_leaves_the_model_as_it_was(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer(FACT.stem, return_tensors="pt")["input_ids"]
    before = model(ids).logits

    trace(model, tokenizer, FACT, "attention", noise=NOISE)

    assert torch.equal(model(ids).logits, before)


@pytest.mark.parametrize(("window", "around"), [(1, (0, 0)), (2, (-1, 0)), (3, (-1, 1)), (9, (-4, 4))])
@pytest.mark.parametrize("state", ["mlp", "attention"])
def test_a_window_of_layers_is_put_back_together(
    state: State, window: int, around: tuple[int, int], model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    noise = Noise(samples=1)
    found = trace(model, tokenizer, FACT, state, window=window, places=[-1], noise=noise)

    for layer in range(3):
        together = [other for other in range(3) if around[0] <= other - layer <= around[1]]
        assert float(found.restored[0, layer]) == pytest.approx(recalled(model, tokenizer, state, together), rel=1e-3)


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_llama])
def test_by_default_the_window_is_a_fifth_of_the_layers(
    make: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make(layers=10)
    usual, one, fifth = (
        trace(model, tokenizer, FACT, "mlp", window=window, places=[-1], noise=NOISE).restored
        for window in (None, 1, 2)
    )

    assert torch.equal(usual, fifth)
    assert not torch.allclose(usual, one, rtol=1e-2)


def recalled(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, state: State, layers: Sequence[int]) -> float:
    """The answer's probability under one draw of noise, with these layers' clean states put back at the subject's end."""
    names = LayerMap(model)
    modules = [(names.mlp if state == "mlp" else names.attention)(layer) for layer in layers]
    stem = tokenizer(FACT.stem, return_tensors="pt")["input_ids"]
    [answer] = tokenizer(" Osaka")["input_ids"]
    first, last = 3, 4  # " New Zealand", after "The capital of"
    assert tokenizer.decode(stem[0, first : last + 1]) == " New Zealand"
    [embeddings] = (weight.detach() for weight in names.embeddings().parameters())
    drawn = torch.randn(1, 2, embeddings.shape[1], generator=torch.Generator().manual_seed(0)) * 3 * embeddings.std()

    def spoil(embedded: torch.Tensor) -> torch.Tensor:
        return torch.cat([embedded[:, :first], embedded[:, first : last + 1] + drawn, embedded[:, last + 1 :]], dim=1)

    def restore(clean: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return torch.cat([output[:, :last], clean[:, last : last + 1], output[:, last + 1 :]], dim=1)

    clean: list[torch.Tensor] = []
    with torch.no_grad():
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(watched(module, lambda _, made: clean.append(made.clone())))
            model(stem)
        with ExitStack() as stack:
            stack.enter_context(changed(names.embeddings(), spoil))
            for module, output in zip(modules, clean, strict=True):
                stack.enter_context(changed(module, partial(restore, output)))
            return float(model(stem).logits[0, -1].softmax(-1)[answer])


@pytest.fixture
def known(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> list[tuple[WeightEdit, torch.Tensor]]:
    """What this random model happens to know, and how much of it each layer's MLP gives back."""
    facts = [
        WeightEdit(f"The {noun} of {subject} is", subject, word)
        for noun in ("capital", "city")
        for subject in ("New Zealand", "Lyon Japan")
        for word in WORDS
    ]
    traces = [trace(model, tokenizer, fact, "mlp", places=[-1], noise=NOISE) for fact in facts]
    return [(one.fact, one.effect[0] / (one.clean - one.corrupted)) for one in traces if one.clean > 2 * one.corrupted]


def test_the_decisive_layer_is_the_one_above_the_lowest_with_the_largest_effect(
    known: list[tuple[WeightEdit, torch.Tensor]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    fact, effect = known[0]

    assert decisive_layer(model, tokenizer, [fact], noise=NOISE, folder=tmp_path) == 1 + int(effect[1:].argmax())


def test_every_fact_has_a_say_in_the_decisive_layer(
    known: list[tuple[WeightEdit, torch.Tensor]],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    together = 1 + int(torch.stack([effect for _, effect in known]).sum(0)[1:].argmax())
    # First a fact that alone would have another layer picked.
    facts = [fact for fact, effect in sorted(known, key=lambda one: 1 + int(one[1][1:].argmax()) == together)]

    assert decisive_layer(model, tokenizer, facts[:1], noise=NOISE, folder=tmp_path) != together
    assert decisive_layer(model, tokenizer, facts, noise=NOISE, folder=tmp_path) == together


def test_a_choice_is_kept_by_all_that_it_hangs_on(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, other, strong = tiny_gpt2(), tmp_path / "other", Noise(strength=99)
    facts = [WeightEdit(FACT.prompt, FACT.subject, word) for word in WORDS]
    traced: list[Noise] = []

    def watch(*given: Any, noise: Noise, **others: Any) -> Trace:
        traced.append(noise)
        return trace(*given, noise=noise, **others)

    monkeypatch.setattr("memedit.parametric.tracing.trace", watch)

    def times(model: PreTrainedModel, facts: Sequence[WeightEdit], noise: Noise, folder: Path) -> int:
        traced.clear()
        decisive_layer(model, tokenizer, facts, noise=noise, folder=folder)
        assert set(traced) <= {noise}
        return len(traced)

    assert times(model, facts, NOISE, tmp_path) == len(facts)
    assert times(model, facts, NOISE, tmp_path) == 0
    assert times(tiny_gpt2(), facts, NOISE, tmp_path) == 0  # the same weights, loaded again
    assert times(model, facts, strong, tmp_path) == len(facts)
    assert times(model, facts[1:], NOISE, tmp_path) == len(facts) - 1
    assert times(model, facts, NOISE, other) == len(facts)
    assert len(list(other.rglob("decisive-*.json"))) == 1
    monkeypatch.setattr("memedit.parametric.tracing._window", lambda _: 3)
    assert times(model, facts, NOISE, tmp_path) == len(facts)


def test_a_model_that_knows_nothing_is_told_to_be_given_a_layer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "memedit.parametric.tracing.trace", lambda *a, **k: trace(*a, **{**k, "noise": Noise(strength=0.0, samples=1)})
    )

    with pytest.raises(InvalidEdit, match="Name the layer"):
        decisive_layer(model, tokenizer, folder=tmp_path)


def test_an_unknown_state_is_refused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InvalidSpec, match="'hidden', 'mlp' or 'attention'"):
        trace(model, tokenizer, FACT, "thoughts")  # type: ignore[arg-type]


def test_the_heat_map_is_a_png_that_grows_with_the_prompt(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    from PIL import Image

    whole = draw(trace(model, tokenizer, FACT, noise=NOISE), tmp_path / "new" / "whole.png")
    part = draw(trace(model, tokenizer, FACT, places=[-1], noise=NOISE), tmp_path / "part.png")

    with Image.open(whole) as large, Image.open(part) as small:
        assert large.format == "PNG"
        assert large.height > small.height
        assert len(set(large.convert("RGB").getdata())) > 20
