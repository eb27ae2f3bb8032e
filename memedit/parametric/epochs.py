"""Training on edits, for the baselines that train: as in ROME's reference code (`baselines/ft`), epochs over the edits in
batches, each batch a step of Adam. A batch's loss is the mean over an edit's target tokens, and then over its edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from memedit.errors import InvalidSpec
from memedit.parametric.contexts import mark
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_ALONE = -100
"""The label that a cross entropy leaves out."""
_ROWS = 32
"""Most sentences run together: what training takes in memory must not grow with the number of edits."""


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
