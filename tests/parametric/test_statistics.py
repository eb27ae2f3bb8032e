from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from memedit.errors import BadDataFile
from memedit.parametric.layers import LayerMap
from memedit.parametric.sample import TextSample, _entity_names
from memedit.parametric.statistics import RIDGE, SecondMoments, estimate, weights_hash

from .tiny import tiny_gpt2, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TEXTS = [[300, 5, 9, 301, 77], [12, 13, 14], [310, 44, 45, 46, 47, 48, 49]]


def test_the_estimate_is_the_mean_outer_product_of_the_keys(model: PreTrainedModel) -> None:
    given: list[torch.Tensor] = []
    handle = LayerMap(model).down(2).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0][0, 1:]))
    with torch.no_grad():
        for text in TEXTS:
            model(torch.tensor([text]))
    handle.remove()
    keys = torch.cat(given).double()

    found = estimate(model, TEXTS, [0, 2])

    assert torch.allclose(found[2], keys.T @ keys / len(keys), atol=1e-6)
    assert set(found) == {0, 2}


def test_estimates_are_kept_by_weights_and_layer(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = TextSample(sentences=20, written=4, length=8)
    first = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]
    other = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(seed=1), tokenizer, [1])[1]
    monkeypatch.setattr("memedit.parametric.statistics.estimate", None)

    again = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]

    assert torch.allclose(again, first, rtol=1e-5)
    assert not torch.allclose(other, first, rtol=1e-2)
    assert len(list(tmp_path.rglob("layer-1-*.safetensors"))) == 2


def test_a_damaged_estimate_is_made_again(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    sample = TextSample(sentences=20, written=4, length=8)
    first = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]
    [file] = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])

    again = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]

    assert torch.equal(again, first)


def test_edits_made_later_still_count_against_the_unedited_model(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_gpt2()
    moments = SecondMoments(TextSample(sentences=20, written=4, length=8), folder=tmp_path)
    before = moments.get(model, tokenizer, [1])[1]
    with torch.no_grad():
        LayerMap(model).matrix(0).add_(1.0)

    assert torch.equal(moments.get(model, tokenizer, [1])[1], before)


def test_the_ridge_makes_a_poor_sample_invertible(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    text = tmp_path / "short.txt"
    text.write_text("The capital of Japan is Osaka.", encoding="utf-8")
    moments = SecondMoments(TextSample(file=text), folder=tmp_path)

    moment = moments.get(tiny_gpt2(), tokenizer, [1])[1]

    values = torch.linalg.eigvalsh(moment)
    assert values[0] > 0.5 * RIDGE * float(moment.diagonal().mean())


def test_another_sample_has_another_fingerprint() -> None:
    sample = TextSample(sentences=20, written=4, length=8)

    assert TextSample(sentences=20, written=4, length=8).fingerprint() == sample.fingerprint()
    others = [
        TextSample(sentences=21, written=4, length=8),
        TextSample(sentences=20, written=5, length=8),
        TextSample(sentences=20, written=4, length=9),
        TextSample(sentences=20, written=4, length=8, seed=1),
    ]
    assert len({one.fingerprint() for one in (sample, *others)}) == 5


def test_other_names_in_the_sentences_are_another_sample(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = TextSample(sentences=20, written=4, length=8)
    before = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]
    monkeypatch.setattr("memedit.parametric.sample._entity_names", lambda: ["Japan", "Osaka"])

    after = SecondMoments(sample, folder=tmp_path).get(tiny_gpt2(), tokenizer, [1])[1]

    assert not torch.allclose(after, before, rtol=1e-2)
    assert len(list(tmp_path.rglob("layer-1-*.safetensors"))) == 2


def test_sentences_are_about_names_of_entities_and_none_that_loosely_means_one() -> None:
    table = tomllib.loads(resources.files("memedit.memory").joinpath("aliases.toml").read_text(encoding="utf-8"))
    loosely = set(table.pop("loose")) | set(table.pop("families"))
    entities = {name for kind in table.values() if isinstance(kind, dict) for name in kind}

    names = _entity_names()

    assert loosely - entities
    assert set(names) == entities


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\xfa"])
def test_a_text_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "sample.txt"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(BadDataFile, match=r"sample\.txt"):
        TextSample(file=file).fingerprint()


def test_the_hash_sees_a_single_bit() -> None:
    model = tiny_gpt2()
    before = weights_hash(model)
    with torch.no_grad():
        model.lm_head.weight[7, 3] += 1e-4

    assert weights_hash(model) != before
    assert weights_hash(tiny_gpt2()) == before


def test_the_default_sample_is_seeded_and_reads_like_text() -> None:
    model, tokenizer = tiny_gpt2(), tiny_tokenizer()
    sample = TextSample(sentences=30, written=5, length=6)

    texts = sample.tokens(model, tokenizer)

    assert texts == sample.tokens(model, tokenizer)
    assert len(texts) == 35
    assert [len(text) for text in texts[30:]] == [6] * 5
    assert all("{" not in tokenizer.decode(text) for text in texts[:30])
