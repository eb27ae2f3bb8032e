from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memedit.parametric.sample import TextSample
from memedit.parametric.statistics import SecondMoments

from .tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_gpt2() if request.param == "gpt2" else tiny_llama()


@pytest.fixture
def moments(tmp_path: Path) -> SecondMoments:
    return SecondMoments(TextSample(sentences=60, written=16, length=12), folder=tmp_path)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """A model in a folder, as `edited` takes it."""
    tiny_llama().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    return f"hf:{tmp_path / 'tiny'}"
