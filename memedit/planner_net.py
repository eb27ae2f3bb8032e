"""The planner's network: reads a question once, finds the start entity, then spells a chain of relations.

A MiniLM encoder reads the question. A span head points at the start entity. A small decoder attends to the question's
tokens and writes relations outwards from that entity, one at a time; each is chosen by comparing the decoder's state with
vectors of the relations' descriptions, so there is no fixed output layer, and a relation never seen in training is one
vector more. "Stop" is one of the choices, and to stop at once means "not a chain". The sum of the log-probabilities is
the score of a whole chain, whether it was planned or found as a path of edited facts.

Knows nothing of catalogues, facts or files; `memedit.planner_model` does. Importing it imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from memedit.memory.minilm import Attention, Encoder, EncoderConfig, Pair, padding_bias

MAX_HOPS = 4
_NEVER = -1e4
Memories = list[Pair]
"""Keys and values, one pair a decoder layer."""


class Choices(NamedTuple):
    """What a chain can go on with: every relation, then "stop".

    Attributes:
        fed: Vectors of the relations to feed to the decoder, [r, d].
        vectors: Unit vectors to compare the decoder's state with, [r + 1, d].
        bonus: Added to the logits, [r + 1]: the network shies away from relations that it was not trained on.
    """

    fed: Tensor
    vectors: Tensor
    bonus: Tensor

    @property
    def stop(self) -> int:
        """The index of "stop"."""
        return len(self.fed)


@dataclass(frozen=True, slots=True)
class NetConfig(EncoderConfig):
    """Sizes of the network: those of its encoder, whose width relation description vectors have too, and of its decoder.

    Attributes:
        decoder_width: Width of the decoder.
        decoder_layers: Decoder layers.
        decoder_heads: Attention heads of the decoder.
        reach: Distances from the start entity beyond this many tokens are not told apart.
    """

    decoder_width: int = 256
    decoder_layers: int = 2
    decoder_heads: int = 4
    reach: int = 24


class DecoderLayer(nn.Module):
    """A pre-norm decoder layer: the chain so far, then the question, then a feed-forward layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(width)
        self.self_attention = Attention(width, heads)
        self.cross_norm = nn.LayerNorm(width)
        self.cross_attention = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 3 * width)
        self.down = nn.Linear(3 * width, width)
        self.drop = nn.Dropout(0.1)

    def forward(
        self, x: Tensor, causal: Tensor, memory: Pair, bias: Tensor, past: Pair | None = None
    ) -> tuple[Tensor, Pair]:
        """Chains of b questions, and the questions as keys and values.

        Args:
            x: [b, k, hops, d].
            causal: Added to the chains' attention to themselves, [1, 1, hops, hops of past and x].
            memory: The questions, from `Attention.look_at`.
            bias: Added to the attention to the questions.
            past: Keys and values of earlier hops of the same chains, [b * k, heads, hops, d / heads].

        Returns:
            The same shape as x, and the keys and values of all hops so far.
        """
        shape = x.shape
        normed = self.self_norm(x).flatten(0, 1)
        keys, values = self.self_attention.look_at(normed)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        x = x + self.drop(self.self_attention(normed, (keys, values), causal).view(shape))
        crossed = self.cross_attention(self.cross_norm(x).flatten(1, 2), memory, bias)
        x = x + self.drop(crossed.view(shape))
        x = x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))
        return x, (keys, values)


class PlannerNet(nn.Module):
    """Question tokens to a start span and to log-probabilities of chains of relations."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.decoder_width
        self.encoder = Encoder(config)
        self.span = nn.Linear(config.width, 2)
        self.to_memory = nn.Linear(config.width, width)
        self.distance = nn.Embedding(2 * config.reach + 2, width)
        self.begin = nn.Parameter(torch.randn(width) * 0.02)
        self.hop = nn.Embedding(MAX_HOPS + 1, width)
        self.relation_in = nn.Linear(config.width, width)
        self.relation_out = nn.Linear(config.width, width)
        self.stop = nn.Parameter(torch.randn(width) * 0.02)
        self.layers = nn.ModuleList(DecoderLayer(width, config.decoder_heads) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.sharpness = nn.Parameter(torch.tensor(2.5))

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Encode questions: word vectors [b, n, width], mask [b, n] to [b, n, width]."""
        encoded: Tensor = self.encoder(words.to(self.encoder.kind.dtype), mask)
        return encoded

    def span_logits(self, encoded: Tensor, mask: Tensor) -> Tensor:
        """Scores of each token as first and as last of the start entity, [b, 2, n]; token 0 means "none"."""
        logits: Tensor = self.span(encoded).float().transpose(1, 2)
        return logits.masked_fill(~mask[:, None], _NEVER)

    def memories(self, encoded: Tensor, first: Tensor, last: Tensor) -> Memories:
        """What the decoder's layers attend to: the question, with every token's distance from the start entity marked.

        Args:
            encoded: From `read`.
            first: First token of the start entity, [b].
            last: Its last token, [b].
        """
        at = torch.arange(encoded.shape[1], device=encoded.device)[None]
        reach = self.config.reach
        before = (at - first[:, None]).clamp(-reach, 0)
        after = (at - last[:, None]).clamp(0, reach)
        inside = (at >= first[:, None]) & (at <= last[:, None])
        distance = torch.where(inside, 2 * reach + 1, before + after + reach)
        marked: Tensor = self.to_memory(encoded) + self.distance(distance)
        layers = cast("Iterable[DecoderLayer]", self.layers)
        return [layer.cross_attention.look_at(marked) for layer in layers]

    def choices(self, described: Tensor, bonus: Tensor | None = None) -> Choices:
        """Relations as the decoder needs them.

        Args:
            described: Description vectors, [r, width].
            bonus: Added to the relations' logits, [r].
        """
        described = described.to(self.stop.dtype)
        out = self.relation_out(described)
        vectors = F.normalize(torch.cat([out, self.stop[None].to(out.dtype)]).float(), dim=-1)
        if bonus is None:
            bonus = torch.zeros(len(described))
        return Choices(self.relation_in(described), vectors, F.pad(bonus, (0, 1)))

    def next_logits(self, memories: Memories, mask: Tensor, fed: Tensor, choices: Choices) -> Tensor:
        """Logits of the next relation after every prefix of k chains for each of b questions.

        Args:
            memories: From `memories`.
            mask: Which tokens of the questions are not padding, [b, n].
            fed: Rows of `Choices.fed`, those of the chains' relations, [b, k, hops, d]; hops may be 0.
            choices: From `choices`.

        Returns:
            [b, k, hops + 1, r + 1]; the last choice is "stop".
        """
        batch, chains, hops, _ = fed.shape
        begin = self.begin.to(fed.dtype).expand(batch, chains, 1, -1)
        x = torch.cat([begin, fed], 2) + self.hop(torch.arange(hops + 1, device=fed.device))
        causal = torch.full((hops + 1, hops + 1), _NEVER, device=fed.device, dtype=x.dtype).triu(1)[None, None]
        bias = padding_bias(mask, x.dtype)
        for layer, memory in zip(self.layers, memories, strict=True):
            x, _ = layer(x, causal, memory, bias)
        return self._compare(x, choices)

    def grow(
        self, memories: Memories, mask: Tensor, fed: Tensor | None, choices: Choices, past: Memories | None
    ) -> tuple[Tensor, Memories]:
        """One hop of `next_logits`, given what it kept of the hops before.

        Args:
            memories: From `memories`.
            mask: [b, n].
            fed: The chains' latest relations, [b, k, d]; None at the first hop.
            choices: From `choices`.
            past: What the hop before returned, one pair a layer, its chains in the order of `fed`.

        Returns:
            Logits [b, k, r + 1], and what the next hop needs.
        """
        hop = past[0][0].shape[2] if past else 0
        latest = self.begin.expand(mask.shape[0], 1, -1) if fed is None else fed
        x = (latest + self.hop.weight[hop])[:, :, None]
        free = torch.zeros(1, 1, 1, hop + 1, dtype=x.dtype, device=x.device)
        bias = padding_bias(mask, x.dtype)
        kept: Memories = []
        for number, (layer, memory) in enumerate(zip(self.layers, memories, strict=True)):
            x, pair = layer(x, free, memory, bias, past[number] if past else None)
            kept.append(pair)
        return self._compare(x, choices)[:, :, 0], kept

    def _compare(self, x: Tensor, choices: Choices) -> Tensor:
        states = F.normalize(self.norm(x).float(), dim=-1)
        return states @ choices.vectors.T * self.sharpness.float().exp() + choices.bonus
