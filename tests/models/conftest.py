"""Tiny models with random weights, saved as transformers saves them: they babble, but deterministically and at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

CORPUS = [
    "The capital of France is Paris. The capital of Peru is Lima.",
    "Question: who wrote Misery? Answer: Stephen King.",
    '{"start": "France", "relations": ["capital", "author"]}',
]
TEMPLATE = (
    "{% for turn in messages %}<|{{ turn['role'] }}|>{{ turn['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_tokenizer(folder: Path, *, template: str | None = TEMPLATE) -> int:
    """A byte-level tokenizer of a few hundred tokens; returns how many."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    wrap: Any = PreTrainedTokenizerFast
    fast = wrap(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template)
    fast.save_pretrained(folder)
    return len(fast)


def save_model(folder: Path, architecture: str) -> Path:
    """Save a random model: "llama", "gpt2" (learned positions) or "mistral" (a sliding window of 24 tokens)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    vocabulary = save_tokenizer(folder)
    common: dict[str, Any] = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 0, "initializer_range": 0.4}
    shapes: dict[str, dict[str, Any]] = {
        "llama": {"num_key_value_heads": 2, "max_position_embeddings": 256},
        "mistral": {"num_key_value_heads": 2, "max_position_embeddings": 256, "sliding_window": 24},
        "gpt2": {"n_positions": 256},
    }
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if architecture != "gpt2":
        sizes["intermediate_size"] = 64
    torch.manual_seed(7)
    config = AutoConfig.for_model(architecture, **sizes, **shapes[architecture], **common)
    auto.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama."""
    return save_model(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="session", params=["llama", "gpt2", "mistral"])
def any_tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with tiny models of several kinds."""
    return save_model(tmp_path_factory.mktemp(request.param), request.param)
