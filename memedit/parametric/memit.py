"""MEMIT (Meng et al. 2023, arXiv:2210.07229): many facts at once, their updates spread over several layers.

For every edit the state that the top layer should give at the subject's last token is optimised as in ROME. Then, from the
lowest layer up, each layer's projection is changed by the least squares solution that moves all those states a fair part
of the way that is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec
from memedit.parametric.contexts import Contexts, Prefixes
from memedit.parametric.edits import Applied, WeightEdit, check, snapshot
from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings, optimise

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAYERS = 5
"""How many layers the update is spread over where the caller does not say: as many as in the paper."""


class Memit:
    """Mass-editing memory in a transformer.

    Args:
        layers: The layers to write to, lowest first; by default the five that end with the one that causal tracing picks.
        weight: How much the keys of the sample count against those of the edits, for each input of the projection (the
            paper's lambda, 15,000 for the 16,384 inputs of GPT-J).
        moments: Estimates of C; shared between editors, they are read once.
        prefixes: The contexts that keys are averaged over and states optimised in.
        settings: How states are optimised; `clamp` counts in norms of the residual stream.
    """

    name = "memit"

    def __init__(
        self,
        layers: Sequence[int] | None = None,
        *,
        weight: float = 1.0,
        moments: SecondMoments | None = None,
        prefixes: Prefixes = Prefixes(),
        settings: ValueSettings = ValueSettings(clamp=0.75),
    ) -> None:
        if layers is not None and (not layers or list(layers) != sorted(set(layers))):
            raise InvalidSpec(f"{list(layers)} are no layers to edit.", "Name each once, the lowest first.")
        self.layers = None if layers is None else tuple(layers)
        self.weight = weight
        self.moments = moments or SecondMoments()
        self.prefixes = prefixes
        self.settings = settings

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Pick the layers, estimate C and sample the prefixes. See `memedit.parametric.edits.Editing.prepare`."""
        self.moments.get(model, tokenizer, self._chosen_layers(model, tokenizer))
        self.prefixes.texts(model, tokenizer)

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit]) -> Applied:
        """See `memedit.parametric.edits.Editing.apply`."""
        names = LayerMap(model)
        check(edits)
        layers = self._chosen_layers(model, tokenizer)
        moments = self.moments.get(model, tokenizer, layers)
        applied = snapshot(model, [names.matrix_name(layer) for layer in layers])
        try:
            with frozen(model):
                prefixes = self.prefixes.texts(model, tokenizer)
                contexts = [Contexts(model, tokenizer, edit, prefixes) for edit in edits]
                wanted = [self._wanted(names, one, layers[-1]) for one in contexts]
                for place, layer in enumerate(layers):
                    self._spread(names, contexts, wanted, layers[place:], moments[layer])
        except BaseException:
            applied.revert()
            raise
        return applied

    def _wanted(self, names: LayerMap, contexts: Contexts, top: int) -> torch.Tensor:
        """z: the state that the top layer should give at the subject's last token, [width]."""
        [(_, state)] = contexts.look(names.layer(top))
        return state + optimise(contexts, names.down(top), self.settings, scale=float(state.float().norm()))

    def _spread(
        self,
        names: LayerMap,
        contexts: Sequence[Contexts],
        wanted: Sequence[torch.Tensor],
        left: Sequence[int],
        moment: torch.Tensor,
    ) -> None:
        """Change the first of the layers that are left."""
        import torch

        layer, top = left[0], left[-1]
        seen = [one.look(names.down(layer), names.layer(top)) for one in contexts]
        keys = torch.stack([memory.given for memory, _ in seen], dim=1)
        rest = torch.stack([z - state.made for z, (_, state) in zip(wanted, seen, strict=True)], dim=1) / len(left)
        matrix = names.matrix(layer)
        change = least_squares(moment * self.weight * matrix.shape[1], keys, rest)
        with torch.no_grad():
            matrix.copy_(matrix.double() + change.to(matrix.device))

    def _chosen_layers(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
        if self.layers is not None:
            return self.layers
        from memedit.parametric.tracing import decisive_layer

        top = decisive_layer(model, tokenizer)
        return tuple(range(max(0, top - _LAYERS + 1), top + 1))


def least_squares(moment: torch.Tensor, keys: torch.Tensor, changes: torch.Tensor) -> torch.Tensor:
    """Equation 14: D = R K^T (C + K K^T)^-1, which minimises |D K - R|^2 + tr(D C D^T).

    Args:
        moment: C, already weighed against the edits; float64 [inputs, inputs], positive definite.
        keys: K, one edit's key a column, [inputs, edits].
        changes: R, what D should give for each of them, [outputs, edits].

    Returns:
        D, float64 [outputs, inputs].
    """
    import torch

    keys, changes = keys.double().cpu(), changes.double().cpu()
    factor = torch.linalg.cholesky(moment + keys @ keys.T)
    return changes @ torch.cholesky_solve(keys, factor).T
