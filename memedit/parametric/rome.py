"""ROME (Meng et al. 2022, arXiv:2202.05262): one fact, one rank-one update of one MLP's last projection.

The projection W is read as a memory that maps keys to values. The subject's last token gives the key k*, optimisation
gives the value v*, and the update is the smallest, weighed by the keys the model uses, that makes W k* = v*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from memedit.parametric.contexts import Contexts, Prefixes
from memedit.parametric.edits import Applied, WeightEdit, check, snapshot
from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings, optimise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class RankOne(NamedTuple):
    """An update of W, [outputs, inputs], by the outer product of two vectors; float64.

    Attributes:
        left: Lambda of equation 2, [outputs].
        right: C^-1 k*, [inputs].
        key: k*, [inputs].
        value: What the updated W gives for the key, W k* + change, [outputs]; a bias comes on top.
    """

    left: torch.Tensor
    right: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor

    def matrix(self) -> torch.Tensor:
        """What is added to W."""
        import torch

        return torch.outer(self.left, self.right)


class Rome:
    """Rank-one model editing. Several edits are made one after the other, each on what the ones before left.

    Args:
        layer: The layer to write to; by default the one that causal tracing picks for the model.
        moments: Estimates of C; shared between editors, they are read once.
        prefixes: The contexts that the key is averaged over and the value optimised in. By default 6, fewer than the
            paper's 50, for the time they take; ``Prefixes(count=20)`` is what its code takes.
        settings: How the value is optimised.
    """

    name = "rome"

    def __init__(
        self,
        layer: int | None = None,
        *,
        moments: SecondMoments | None = None,
        prefixes: Prefixes = Prefixes(),
        settings: ValueSettings = ValueSettings(),
    ) -> None:
        self.layer = layer
        self.moments = moments or SecondMoments()
        self.prefixes = prefixes
        self.settings = settings

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Pick the layer, estimate C and sample the prefixes. See `memedit.parametric.edits.Editing.prepare`."""
        self.moments.get(model, tokenizer, [self.chosen_layer(model, tokenizer)])
        self.prefixes.texts(model, tokenizer)

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit]) -> Applied:
        """See `memedit.parametric.edits.Editing.apply`."""
        import torch

        names = LayerMap(model)
        check(edits)
        layer = self.chosen_layer(model, tokenizer)
        applied = snapshot(model, [names.matrix_name(layer)])
        try:
            for edit in edits:
                update = self.update(model, tokenizer, edit, layer)
                with torch.no_grad():
                    matrix = names.matrix(layer)
                    matrix.copy_(matrix.double() + update.matrix())
        except BaseException:
            applied.revert()
            raise
        return applied

    def update(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edit: WeightEdit, layer: int
    ) -> RankOne:
        """The update that writes one edit into the weights as they are now; they are left as they are."""
        names = LayerMap(model)
        moment = self.moments.get(model, tokenizer, [layer])[layer]
        with frozen(model):
            contexts = Contexts(model, tokenizer, edit, self.prefixes.texts(model, tokenizer))
            change = optimise(contexts, names.down(layer), self.settings)
            [seen] = contexts.look(names.down(layer))
        return rank_one(names.matrix(layer), moment, seen.given, change)

    def chosen_layer(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        """The layer given, or the one that causal tracing picks."""
        if self.layer is not None:
            return self.layer
        from memedit.parametric.tracing import decisive_layer

        return decisive_layer(model, tokenizer)


def rank_one(weight: torch.Tensor, moment: torch.Tensor, key: torch.Tensor, change: torch.Tensor) -> RankOne:
    """Equation 2: W' = W + Lambda (C^-1 k*)^T with Lambda = (v* - W k*) / ((C^-1 k*)^T k*).

    Of all W' with W' k* = v*, this is the one that minimises the sum of |W' k - W k|^2 over the keys that C was
    estimated from.

    Args:
        weight: W, [outputs, inputs].
        moment: C, float64 [inputs, inputs], positive definite.
        key: k*, [inputs].
        change: v* - W k*, [outputs].
    """
    import torch

    key, change = key.double().cpu(), change.double().cpu()
    right = torch.cholesky_solve(key[:, None], torch.linalg.cholesky(moment))[:, 0]
    value = weight.double().cpu() @ key + change
    parts = (change / (right @ key), right, key, value)
    return RankOne(*(part.to(weight.device) for part in parts))
