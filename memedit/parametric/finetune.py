"""Fine-tuning of one layer's MLP projection on the edits themselves: the baselines FT-L and FT-M.

Both train the matrix that ROME writes to, and nothing else. FT-L (Zhu et al. 2020; the "FT+L" of Meng et al. 2022) asks for
every token of the target at the prompt's last token and keeps each weight within a bound of what it was. FT-M (Zhang et
al. 2024, arXiv:2401.01286) asks for each token of the target after the ones before it, with the prompt masked out of the
loss, and has no bound.

Training goes as in ROME's reference code (`baselines/ft`): epochs over the edits in batches, each batch a step of Adam; a
batch's loss is the mean over an edit's target tokens and then over its edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

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


class Batch(NamedTuple):
    """Edits as what a step trains on; all but `edits` are [rows, tokens], padded on the right.

    Attributes:
        tokens: The sentences.
        labels: Which token should come next; -100 where the place does not count.
        shares: What a place counts for: the places of one edit make one together.
        edits: How many edits there are.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    shares: torch.Tensor
    edits: int


def batch(tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit], *, at_last: bool = False) -> Batch:
    """The edits' sentences as tokens, and what is asked for at each place.

    Args:
        tokenizer: The tokenizer.
        edits: The edits.
        at_last: Ask for every token of the target at the prompt's last token, which then has a row for each; otherwise
            for each token of the target at the token before it.
    """
    import torch

    rows: list[tuple[list[int], list[int], float]] = []
    for edit in edits:
        tokens, _, target = mark(tokenizer, edit.text, edit.subject_span, len(edit.stem))
        blank = [_ALONE] * (target - 1)
        share = 1 / (len(tokens) - target)
        if at_last:
            rows += [(tokens[:target], [*blank, token], share) for token in tokens[target:]]
        else:
            rows.append((tokens[:-1], [*blank, *tokens[target:]], share))
    width = max(len(tokens) for tokens, _, _ in rows)
    labels = torch.tensor([asked + [_ALONE] * (width - len(asked)) for _, asked, _ in rows])
    return Batch(
        torch.tensor([tokens + [0] * (width - len(tokens)) for tokens, _, _ in rows]),
        labels,
        (labels != _ALONE) * torch.tensor([[share] for _, _, share in rows]),
        len(edits),
    )


def batches(
    tokenizer: PreTrainedTokenizerBase, edits: Sequence[WeightEdit], size: int, *, at_last: bool = False
) -> list[Batch]:
    """All edits, in their order, in batches of `size`; the last may be smaller. See `batch`.

    Raises:
        InvalidSpec: The size is below one.
    """
    if size < 1:
        raise InvalidSpec(f"A batch of {size} edits trains nothing.", "Give a batch_size of 1 or more.")
    return [batch(tokenizer, edits[first : first + size], at_last=at_last) for first in range(0, len(edits), size)]


def train(
    model: PreTrainedModel,
    parts: Sequence[Batch],
    adam: torch.optim.Adam,
    epochs: int,
    enough: float,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Descend on each batch in turn, again and again.

    Args:
        model: The model.
        parts: The batches.
        adam: What makes a step; the parameters it holds are trained.
        epochs: Most times that all batches are gone through.
        enough: A batch whose loss is below this makes no step, and an epoch whose mean over edits is below it is the last.
        after_step: Called after each step.
    """
    for _ in range(epochs):
        total = 0.0
        for one in parts:
            loss = descend(model, one)
            if loss >= enough:
                adam.step()
                after_step()
            adam.zero_grad()
            total += loss * one.edits
        if total < enough * sum(one.edits for one in parts):
            break


def descend(model: PreTrainedModel, some: Batch) -> float:
    """The mean over edits of the mean cross entropy over an edit's places; its gradient is added to the parameters'."""
    import torch

    total = 0.0
    for tokens, labels, shares in zip(*(torch.split(part, _ROWS) for part in some[:3]), strict=True):
        width = int((labels != _ALONE).any(0).nonzero().max()) + 1  # what the longest of these rows needs
        places = (part[:, :width].to(model.device) for part in (tokens, labels, shares))
        with torch.enable_grad():
            loss = _loss(model, *places) / some.edits
            torch.autograd.backward(loss)
        total += float(loss.detach())
    return total


def _loss(model: PreTrainedModel, tokens: torch.Tensor, labels: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """The sum of the cross entropies over the places that count, each times its share."""
    import torch

    # Padding is on the right, where no place that counts sees it: no attention mask is needed.
    hidden = model.base_model(tokens, use_cache=False).last_hidden_state
    counts = labels != _ALONE
    losses = torch.nn.functional.cross_entropy(LayerMap(model).logits(hidden[counts]), labels[counts], reduction="none")
    return losses @ shares[counts]
