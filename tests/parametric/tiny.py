"""Tiny random models of both families, and a tokenizer of single bytes and a few words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast

# The weights are random, so little gets from one token to another: edits that a model is asked for end with their subject.
WORDS = ["The", "capital", "of", "is", "a", "Japan", "France", "Osaka", "Lyon", "Kyoto", "in", "city", "New", "Zealand"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Words of `WORDS`, with and without a space before them; of everything else, the bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<end>", *pre_tokenizers.ByteLevel.alphabet()]
    merges: list[tuple[str, str]] = []
    for word in [f"Ġ{name}" for name in WORDS] + WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>"
    )


def tiny_gpt2(seed: int = 0, layers: int = 3) -> GPT2LMHeadModel:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=400, n_positions=128, n_embd=32, n_layer=layers, n_head=4, initializer_range=0.2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model: GPT2LMHeadModel = GPT2LMHeadModel(config)
    model.train(False)
    return model


def tiny_llama(seed: int = 0, layers: int = 3) -> LlamaForCausalLM:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=400, max_position_embeddings=128, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model: LlamaForCausalLM = LlamaForCausalLM(config)
    model.train(False)
    return model
