"""Fine-tuning of one layer's MLP projection on the edits themselves: the baselines FT-L and FT-M.

Both train the matrix that ROME writes to, and nothing else. FT-L (Zhu et al. 2020; the "FT+L" of Meng et al. 2022) asks for
every token of the target at the prompt's last token and keeps each weight within a bound of what it was. FT-M (Zhang et
al. 2024, arXiv:2401.01286) asks for each token of the target after the ones before it, with the prompt masked out of the
loss, and has no bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from memedit.errors import InvalidSpec
from memedit.parametric.contexts import mark
from memedit.parametric.edits import Applied, WeightEdit, check, snapshot
from memedit.parametric.layers import LayerMap, frozen

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ALONE = -100
"""The label that a cross entropy leaves out."""
_ROWS = 32
"""Most sentences run together: what training takes in memory must not grow with the number of edits."""


class FineTuning:
    """Fine-tuning of one matrix. All edits are one batch: a step follows the mean over all of them.

    Args:
        kind: ``"l"`` or ``"m"``.
        layer: The layer to train; by default the one that causal tracing picks for the model.
        bound: Most that a weight may differ from what it was; 0 for no bound. By default 5e-4 for FT-L, none for FT-M.
        steps: Most steps of Adam.
        rate: Its learning rate.
        enough: Training ends early where the loss is below this.

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
        tokens, labels = batch(tokenizer, edits, at_last=self.kind == "l")
        try:
            with frozen(model):
                self._train(model, weight, tokens.to(model.device), labels.to(model.device))
        except BaseException:
            applied.revert()
            raise
        return applied

    def _train(
        self, model: PreTrainedModel, weight: torch.nn.Parameter, tokens: torch.Tensor, labels: torch.Tensor
    ) -> None:
        import torch

        before = weight.detach().clone()
        adam = torch.optim.Adam([weight], lr=self.rate)
        weight.requires_grad_(True)
        try:
            for _ in range(self.steps):
                if descend(model, tokens, labels) < self.enough:
                    break
                adam.step()
                adam.zero_grad()
                if self.bound:
                    with torch.no_grad():
                        weight.clamp_(before - self.bound, before + self.bound)
        finally:
            weight.requires_grad_(False)
            weight.grad = None

    def _chosen_layer(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
        if self.layer is not None:
            return self.layer
        from memedit.parametric.tracing import decisive_layer

        return decisive_layer(model, tokenizer)


def batch(
    tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit], *, at_last: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The edits' sentences as tokens, and what is asked for at each place.

    Args:
        tokenizer: The tokenizer.
        edits: The edits.
        at_last: Ask for every token of the target at the prompt's last token, which then has a row for each; otherwise
            for each token of the target at the token before it.

    Returns:
        Tokens and labels, each [rows, tokens], padded on the right; a label says which token should come next, -100 that
        the place does not count.
    """
    import torch

    rows: list[tuple[list[int], list[int]]] = []
    for edit in edits:
        tokens, _, target = mark(tokenizer, edit.text, edit.subject_span, len(edit.stem))
        blank = [_ALONE] * (target - 1)
        if at_last:
            rows += [(tokens[:target], [*blank, token]) for token in tokens[target:]]
        else:
            rows.append((tokens[:-1], [*blank, *tokens[target:]]))
    width = max(len(tokens) for tokens, _ in rows)
    return (
        torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _ in rows]),
        torch.tensor([labels + [_ALONE] * (width - len(labels)) for _, labels in rows]),
    )


def descend(model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean cross entropy over all places that count; its gradient is added to that of the parameters."""
    import torch

    count, total = int((labels != _ALONE).sum()), 0.0
    for some, asked in zip(torch.split(tokens, _ROWS), torch.split(labels, _ROWS), strict=True):
        width = int((asked != _ALONE).any(0).nonzero().max()) + 1  # what the longest of these rows needs
        with torch.enable_grad():
            loss = _loss(model, some[:, :width], asked[:, :width]) / count
            torch.autograd.backward(loss)
        total += float(loss.detach())
    return total


def _loss(model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sum of the cross entropies over the places that count."""
    import torch

    # Padding is on the right, where no place that counts sees it: no attention mask is needed.
    hidden = model.base_model(tokens, use_cache=False).last_hidden_state
    counts = labels != _ALONE
    return torch.nn.functional.cross_entropy(LayerMap(model).logits(hidden[counts]), labels[counts], reduction="sum")
