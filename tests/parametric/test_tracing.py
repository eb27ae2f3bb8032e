from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from memedit.errors import InvalidEdit, InvalidSpec
from memedit.parametric.edits import WeightEdit
from memedit.parametric.heatmap import draw
from memedit.parametric.tracing import Noise, decisive_layer, trace

from .tiny import WORDS

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


def test_the_decisive_layer_is_the_one_above_the_lowest_with_the_largest_effect(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    facts = [WeightEdit(FACT.prompt, FACT.subject, word) for word in WORDS]
    known = [
        fact
        for fact in facts
        if (one := trace(model, tokenizer, fact, "mlp", places=[-1], noise=NOISE)).clean > 2 * one.corrupted
    ][:1]
    assert known
    [effect] = trace(model, tokenizer, known[0], "mlp", places=[-1], noise=NOISE).effect

    assert decisive_layer(model, tokenizer, known, noise=NOISE) == 1 + int(effect[1:].argmax())


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
