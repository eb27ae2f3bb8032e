"""Fine-tuning of one layer's MLP projection on the edits themselves: the baselines FT-L and FT-M.

Both train the matrix that ROME writes to, and nothing else. FT-L (Zhu et al. 2020; the "FT+L" of Meng et al. 2022) asks for
every token of the target at the prompt's last token and keeps each weight within a bound of what it was. FT-M (Zhang et
al. 2024, arXiv:2401.01286) asks for each token of the target after the ones before it, with the prompt masked out of the
loss, and has no bound.

How they are trained is in `memedit.parametric.epochs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from memedit.errors import InvalidSpec
from memedit.parametric.edits import Applied, WeightEdit, check, snapshot
from memedit.parametric.epochs import Batch, batches, train
from memedit.parametric.layers import LayerMap, frozen

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class FineTuning:
    """Fine-tuning of one matrix.

    Args:
        kind: ``"l"`` or ``"m"``.
        layer: The layer to train; by default the one that causal tracing picks for the model.
        bound: Most that a weight may differ from what it was; 0 for no bound. By default 5e-4 for FT-L, none for FT-M.
        steps: Most epochs, each with a step of Adam for every batch; with no more edits than a batch, most steps in all.
        rate: Adam's learning rate.
        enough: A batch whose loss is below this is passed over; training ends early where the mean over an epoch is.
        batch_size: Most edits of a batch; 128 as in the reference code.

    Raises:
        InvalidSpec: There is no such kind.
    """

    def __init__(
        self,
        kind: Literal["l", "m"] = "l",
        layer: int | None = None,
        *,
        bound: float | None = None,
        steps: int = 25,
        rate: float = 5e-4,
        enough: float = 0.01,
        batch_size: int = 128,
    ) -> None:
        if kind not in ("l", "m"):
            raise InvalidSpec(f"There is no fine-tuning FT-{kind}.", "Use 'l' or 'm'.")
        self.name = f"ft-{kind}"
        self.kind = kind
        self.layer = layer
        self.bound = bound if bound is not None else (5e-4 if kind == "l" else 0.0)
        self.steps = steps
        self.rate = rate
        self.enough = enough
        self.batch_size = batch_size

    def prepare(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Pick the layer. See `memedit.parametric.edits.Editing.prepare`."""
        self._chosen_layer(model, tokenizer)

    def apply(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit]) -> Applied:
        """See `memedit.parametric.edits.Editing.apply`."""
        names = LayerMap(model)
        check(edits)
        layer = self._chosen_layer(model, tokenizer)
        applied = snapshot(model, [names.matrix_name(layer)])
        weight = model.get_parameter(names.matrix_name(layer))
        parts = batches(tokenizer, edits, self.batch_size, at_last=self.kind == "l")
        try:
            with frozen(model):
                self._train(model, weight, parts)
        except BaseException:
            applied.revert()
            raise
        return applied

    def _train(self, model: PreTrainedModel, weight: torch.nn.Parameter, parts: Sequence[Batch]) -> None:
        import torch

        before = weight.detach().clone()

        def hold_back() -> None:
            if self.bound:
                with torch.no_grad():
                    weight.clamp_(before - self.bound, before + self.bound)

        weight.requires_grad_(True)
        try:
            adam = torch.optim.Adam([weight], lr=self.rate)
            train(model, parts, adam, self.steps, self.enough, hold_back)
        finally:
            weight.requires_grad_(False)
            weight.grad = None

    def _chosen_layer(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        if self.layer is not None:
            return self.layer
        from memedit.parametric.tracing import decisive_layer

        return decisive_layer(model, tokenizer)
