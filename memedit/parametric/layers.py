"""Which modules of a transformer are its layers, and the matrices that parametric edits change.

GPT-2-style and Llama-style models are known by their configuration's `model_type`. Knows nothing of edits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec, UnknownLayers

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Architecture:
    """Where a family of models keeps its parts; paths from the model, or from one of its layers.

    Attributes:
        layers: The list of layers.
        embeddings: The token embeddings.
        attention: A layer's attention; its output is added to the residual stream.
        mlp: A layer's MLP; its output is added to the residual stream.
        down: The MLP's last projection, the associative memory that ROME writes to: it maps a key to a value.
        transposed: Whether its weight is laid out [inputs, outputs] (GPT-2's Conv1D) instead of [outputs, inputs].
    """

    layers: str
    embeddings: str
    attention: str
    mlp: str
    down: str
    transposed: bool


_GPT2 = Architecture("transformer.h", "transformer.wte", "attn", "mlp", "mlp.c_proj", transposed=True)
_LLAMA = Architecture("model.layers", "model.embed_tokens", "self_attn", "mlp", "mlp.down_proj", transposed=False)
ARCHITECTURES = {"gpt2": _GPT2, "llama": _LLAMA, "mistral": _LLAMA, "qwen2": _LLAMA, "qwen3": _LLAMA}
"""The architectures that are known, by the `model_type` of a configuration."""


class LayerMap:
    """Names the modules of one model.

    Args:
        model: A causal language model of transformers.

    Raises:
        UnknownLayers: Its architecture is none of `ARCHITECTURES`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        kind = str(model.config.model_type)
        if kind not in ARCHITECTURES:
            raise UnknownLayers(
                f"The layers of a {kind!r} model are not known, so its weights cannot be edited.",
                f"Known are: {', '.join(ARCHITECTURES)}. Facts can be edited in any model without touching weights.",
            )
        self.model = model
        self._names = ARCHITECTURES[kind]

    def __len__(self) -> int:
        """The number of layers."""
        return int(self.model.config.num_hidden_layers)

    def layer(self, number: int) -> nn.Module:
        """A layer; its output is the residual stream after it.

        Args:
            number: From 0, the lowest.

        Raises:
            InvalidSpec: There is no such layer.
        """
        return self.model.get_submodule(self._path(number))

    def attention(self, number: int) -> nn.Module:
        """A layer's attention."""
        return self.layer(number).get_submodule(self._names.attention)

    def mlp(self, number: int) -> nn.Module:
        """A layer's MLP."""
        return self.layer(number).get_submodule(self._names.mlp)

    def down(self, number: int) -> nn.Module:
        """The last projection of a layer's MLP: its input is the key k, its output W k (and a bias, if there is one)."""
        return self.layer(number).get_submodule(self._names.down)

    def embeddings(self) -> nn.Module:
        """The token embeddings."""
        return self.model.get_submodule(self._names.embeddings)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """What the last hidden states, [..., width], say of the next token; float32 [..., vocabulary]."""
        head: nn.Module = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        logits: torch.Tensor = head(hidden)
        return logits.float()

    def matrix(self, number: int) -> torch.Tensor:
        """W of `down(number)`, [outputs, inputs]: a view, so that writing to it in place writes to the model."""
        matrix = self.model.get_parameter(self.matrix_name(number)).detach()
        return matrix.T if self.is_transposed else matrix

    def matrix_name(self, number: int) -> str:
        """The parameter's name in the model, as `named_parameters` gives it."""
        return f"{self._path(number)}.{self._names.down}.weight"

    @property
    def is_transposed(self) -> bool:
        """Whether the model's projections are laid out [inputs, outputs]."""
        return self._names.transposed

    def _path(self, number: int) -> str:
        if not 0 <= number < len(self):
            raise InvalidSpec(
                f"There is no layer {number}: the model has {len(self)}.", f"Name one from 0 to {len(self) - 1}."
            )
        return f"{self._names.layers}.{number}"


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """The model in evaluation mode with no parameter that takes gradients; as it was, afterwards."""
    module: nn.Module = model
    was_training = module.training
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    module.eval()
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        module.train(was_training)
