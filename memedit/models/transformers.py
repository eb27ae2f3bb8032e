"""Any causal language model of the transformers library, in this process: its network and tokenizer for `LocalModel`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from memedit.errors import InvalidSpec
from memedit.models.base import Message
from memedit.models.loading import end_tokens, load
from memedit.models.local import LocalModel
from memedit.models.network import States, Tokens

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase


class TransformersModel(LocalModel):
    """A transformers model behind the `LanguageModel` protocol; see `LocalModel`.

    Args:
        name_or_path: A folder, or a name on the Hugging Face hub (looked up in the local cache first).
        name: What reports call it; "hf:" and `name_or_path` if not given.
        dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU, elsewhere what the checkpoint holds.
        device: "cpu", "cuda", "cuda:1", ...; by default a GPU if there is one.
        batch_size: Most prompts decoded side by side.
        batch_tokens: Most tokens of a batch, padding and completions included; bounds the memory it takes.
        prefixes: How many shared prompt prefixes are kept ready (0: none).

    Raises:
        ModelNotFound: There is no such model, or the hub cannot be reached.
        InvalidSpec: `dtype` or `device` means nothing.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        name: str | None = None,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 32,
        batch_tokens: int = 16_384,
        prefixes: int = 4,
    ) -> None:
        import torch

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if dtype not in (None, "float32", "bfloat16", "float16"):
            raise InvalidSpec(f"{dtype!r} is no dtype of a model.", "Use 'float32', 'bfloat16' or 'float16'.")
        tokenizer, model = load(name_or_path, dtype or ("float32" if device == "cpu" else "auto"), device)
        super().__init__(
            _Network(model, tokenizer.model_max_length),
            HubTokenizer(tokenizer, end_tokens(model, tokenizer)),
            name=name or f"hf:{name_or_path}",
            batch_size=batch_size,
            batch_tokens=batch_tokens,
            prefixes=prefixes,
        )


class _Network:
    """A causal model in evaluation mode as `memedit.models.network.Network`."""

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self.vocabulary: int = config.vocab_size
        self.context_length = int(getattr(config, "max_position_embeddings", None) or longest)
        self.accepts = frozenset(inspect.signature(model.forward).parameters)
        self.is_plain = _is_plain(model)

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.device
        return device

    def begin(self, rows: int, prefix: States = ()) -> _Reading:
        return _Reading(self, rows, prefix)


class _Reading:
    """A transformers model and its cache as `memedit.models.network.Reading`."""

    def __init__(self, network: _Network, rows: int, prefix: States) -> None:
        from transformers import DynamicCache

        self._network = network
        self._cache: DynamicCache = DynamicCache(config=network.model.config)
        for layer, (keys, values) in enumerate(prefix):
            self._cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), layer)

    def read(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, keep: int) -> torch.Tensor:
        options = {"position_ids": positions, "logits_to_keep": keep}
        output = self._network.model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in options.items() if name in self._network.accepts},
        )
        logits: torch.Tensor = output.logits
        return logits[:, -keep:]

    def select(self, rows: torch.Tensor) -> None:
        self._cache.batch_select_indices(rows)

    def states(self) -> States:
        return [(layer.keys, layer.values) for layer in cast("list[Any]", self._cache.layers)]


class HubTokenizer:
    """A transformers tokenizer as `memedit.models.tokens.Tokenizer`.

    Args:
        tokenizer: As transformers loads it.
        ends: Ids of all tokens that end a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self.ends = ends

    @property
    def end(self) -> str | None:
        """See `Tokenizer.end`."""
        token = self.tokenizer.eos_token
        return None if token is None else str(token)

    @property
    def definition(self) -> str | None:
        """See `Tokenizer.definition`."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return None if backend is None else str(backend.to_str())

    def encode(self, text: str, *, special: bool) -> Tokens:
        """See `Tokenizer.encode`."""
        tokens: Tokens = self.tokenizer(text, add_special_tokens=special)["input_ids"]
        return tokens

    def decode(self, tokens: Tokens) -> str:
        """See `Tokenizer.decode`."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def render(self, turns: Sequence[Message]) -> str | None:
        """See `Tokenizer.render`."""
        if self.tokenizer.chat_template is None:
            return None
        plain = [{key: str(value) for key, value in turn.items()} for turn in turns]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True))


def _is_plain(model: PreTrainedModel) -> bool:
    """Whether every layer keeps keys and values of all tokens, and nothing else."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=model.config).layers
    return len(layers) == config.num_hidden_layers and all(type(layer) is DynamicLayer for layer in layers)
