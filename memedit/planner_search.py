"""Beam search over chains of relations, and scoring of given chains, with a `PlannerNet`. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memedit.planner_net import MAX_HOPS, Choices, Memories, PlannerNet

LONGEST = 32
"""No start entity is longer, in tokens."""
LEAST = 5e-4
"""Probability below which a chain is not gone on with; calibrated, less than a strategy asks of any chain."""
_NEVER = -1e9


class Guess(NamedTuple):
    """A chain and its log-probability.

    Attributes:
        chain: Indices of relations; empty for "not a chain".
        score: Log-probability, at most 0.
    """

    chain: tuple[int, ...]
    score: float


class Spans(NamedTuple):
    """Where start entities stand, in tokens.

    Attributes:
        first: First token, [b]; 0 where there is no start entity.
        last: Last token, [b].
        log_probability: Log-probability of the span, [b].
    """

    first: Tensor
    last: Tensor
    log_probability: Tensor


def search(
    net: PlannerNet,
    memories: Memories,
    mask: Tensor,
    choices: Choices,
    width: int = 4,
    keep: int = 6,
    *,
    nothing: float = 1.0,
) -> list[list[Guess]]:
    """The most probable chains of each question, best first.

    Args:
        net: The network.
        memories: From `PlannerNet.memories`, for b questions.
        mask: [b, n], True on tokens.
        choices: The relations to plan with, from `PlannerNet.choices`.
        width: Beams that go on at each hop.
        keep: Chains to return for each question.
        nothing: Probability of "not a chain" from which a question's chains do not matter. Where every question
            comes to it, only "not a chain" is returned: the first hop is a quarter of the work.
    """
    batch, stop = mask.shape[0], choices.stop
    beams = torch.zeros(batch, 1, 0, dtype=torch.long)
    scores = torch.zeros(batch, 1)
    done: list[list[Guess]] = [[] for _ in range(batch)]
    past: Memories | None = None
    for hop in range(MAX_HOPS):
        fed = choices.fed[beams[:, :, -1]] if hop else None
        logits, past = net.grow(memories, mask, fed, choices, past)
        grown = scores[:, :, None] + logits.log_softmax(-1)
        _collect(done, beams, grown[:, :, stop])
        if not hop and bool((grown[:, 0, stop].exp() > nothing).all()):
            return done
        flat = grown[:, :, :stop].flatten(1)
        scores, at = flat.topk(min(width, flat.shape[1]), dim=1)
        if float(scores.max()) < math.log(LEAST):
            break
        parents = at // stop
        past = [(_follow(keys, parents), _follow(values, parents)) for keys, values in past]
        beams = torch.cat([beams.gather(1, parents[:, :, None].expand(-1, -1, hop)), (at % stop)[:, :, None]], 2)
    else:
        _collect(done, beams, scores)
    return [sorted(guesses, key=lambda guess: -guess.score)[:keep] for guesses in done]


def _collect(done: list[list[Guess]], beams: Tensor, scores: Tensor) -> None:
    for guesses, chains, totals in zip(done, beams.tolist(), scores.tolist(), strict=True):
        guesses += [Guess(tuple(chain), total) for chain, total in zip(chains, totals, strict=True)]


def _follow(kept: Tensor, parents: Tensor) -> Tensor:
    """What was kept of the beams that `parents` [b, k] names, from [b * beams, heads, hops, d]."""
    batch = parents.shape[0]
    rows = torch.arange(batch)[:, None] * (kept.shape[0] // batch) + parents
    return kept[rows.flatten()]


def score(
    net: PlannerNet,
    memories: Memories,
    mask: Tensor,
    choices: Choices,
    chains: Sequence[Sequence[tuple[int, ...]]],
) -> list[list[float]]:
    """Log-probabilities of given chains (indices of relations, at most four), for each of b questions."""
    batch, stop = mask.shape[0], choices.stop
    most = max((len(row) for row in chains), default=0)
    if not most:
        return [[] for _ in range(batch)]
    target = torch.full((batch, most, MAX_HOPS + 1), -1)
    for at, row in enumerate(chains):
        for number, chain in enumerate(row):
            target[at, number, : len(chain) + 1] = torch.tensor([*chain, stop])
    fed = choices.fed[target[:, :, :MAX_HOPS].clamp(0, stop - 1)]
    logs = net.next_logits(memories, mask, fed, choices).log_softmax(-1)
    steps = logs.gather(-1, target.clamp(0)[..., None])[..., 0]
    counted = target >= 0
    counted[:, :, MAX_HOPS] = False
    totals = (steps * counted).sum(-1)
    return [totals[at, : len(row)].tolist() for at, row in enumerate(chains)]


def best_spans(logits: Tensor) -> Spans:
    """The most probable start entity of each question, from `PlannerNet.span_logits`, [b, 2, n]."""
    pairs = _span_logs(logits)
    best, flat = pairs.flatten(1).max(1)
    length = pairs.shape[-1]
    return Spans(flat // length, flat % length, best)


def overlap_probability(logits: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """How probably the start entity shares a token with a span, [b].

    What a memory calls an entity may be a word longer or shorter than what the question does, so the probability of
    all spans that touch it counts.

    Args:
        logits: From `PlannerNet.span_logits`, [b, 2, n].
        first: First token of the span, [b].
        last: Its last token, [b].
    """
    pairs = _span_logs(logits)
    at = torch.arange(pairs.shape[-1])
    begins = at[None, :, None] <= last[:, None, None]
    ends = at[None, None, :] >= first[:, None, None]
    somewhere = (at > 0)[None, :, None]
    return pairs.exp().masked_fill(~(begins & ends & somewhere), 0.0).sum((1, 2)).clamp(1e-9, 1.0)


def _span_logs(logits: Tensor) -> Tensor:
    """Log-probability of every (first, last) token, [b, n, n]; (0, 0) means "none"."""
    pairs = logits[:, 0, :, None] + logits[:, 1, None, :]
    at = torch.arange(logits.shape[-1])
    allowed = (at[None] >= at[:, None]) & (at[None] - at[:, None] < LONGEST)
    allowed[0, 1:] = False
    return pairs.masked_fill(~allowed[None], _NEVER).flatten(1).log_softmax(-1).view_as(pairs)
