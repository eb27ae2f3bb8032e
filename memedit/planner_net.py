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
from dataclasses import asdict, dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

MAX_HOPS = 4
_NEVER = -1e4
Pair = tuple[Tensor, Tensor]
"""Keys and values."""
Memories = list[Pair]
"""Keys and values, one pair a decoder layer."""


class Choices(NamedTuple):
    """What a chain can go on with: every relation, then "stop".

    Attributes:
        vectors: Unit vectors to compare the decoder's state with, [r + 1, d].
        bonus: Added to the logits, [r + 1].
    """

    vectors: Tensor
    bonus: Tensor


@dataclass(frozen=True, slots=True)
class NetConfig:
    """Sizes of the network.

    Attributes:
        width: Width of the encoder, and of relation description vectors.
        layers: Encoder layers.
        heads: Attention heads of the encoder.
        inner: Width of the encoder's feed-forward layers.
        positions: Longest input, in tokens.
        decoder_width: Width of the decoder.
        decoder_layers: Decoder layers.
        decoder_heads: Attention heads of the decoder.
        reach: Distances from the start entity beyond this many tokens are not told apart.
    """

    width: int = 384
    layers: int = 6
    heads: int = 12
    inner: int = 1536
    positions: int = 512
    decoder_width: int = 256
    decoder_layers: int = 2
    decoder_heads: int = 4
    reach: int = 24

    def to_dict(self) -> dict[str, int]:
        """As plain values, for config.json."""
        return asdict(self)


class Attention(nn.Module):
    """Multi-head attention of `width` over memories of the same width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self._scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Pair, bias: Tensor) -> Tensor:
        """Attend from x [b, n, d] to a memory made by `look_at`; `bias` [b or 1, 1, n or 1, m] is added to the scores."""
        # Written out: for texts this short it trains three times faster on a CPU than the fused kernel.
        keys, values = memory
        queries = self._split(self.query(x)) * self._scale
        mixed = (queries @ keys.transpose(-1, -2) + bias).softmax(-1).to(values.dtype) @ values
        result: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def look_at(self, memory: Tensor) -> Pair:
        """Keys and values of a memory [b, m, d], to attend to as often as needed."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class EncoderLayer(nn.Module):
    """A BERT layer (post-norm)."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.attention_norm = nn.LayerNorm(width, eps=1e-12)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Vectors [b, n, d] to the same shape."""
        x = self.attention_norm(x + self.attention(x, self.attention.look_at(x), bias))
        out: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return out


class Encoder(nn.Module):
    """MiniLM's encoder over word vectors that come from outside: they are not among its weights."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.positions = nn.Embedding(config.positions, config.width)
        self.kind = nn.Parameter(torch.zeros(config.width))
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.heads, config.inner) for _ in range(config.layers)
        )

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Word vectors [b, n, d] and mask [b, n] (True on tokens) to contextual vectors [b, n, d]."""
        places = self.positions(torch.arange(words.shape[1], device=words.device))
        x: Tensor = self.norm(words + places + self.kind)
        bias = padding_bias(mask, x.dtype)
        for layer in self.layers:
            x = layer(x, bias)
        return x


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

    def relations(self, described: Tensor, bonus: Tensor | None = None) -> tuple[Tensor, Choices]:
        """What the decoder needs of the relations: vectors to feed in, [r, d], and the choices at each hop.

        Args:
            described: Description vectors, [r, width].
            bonus: Added to the relations' logits, [r].
        """
        described = described.to(self.stop.dtype)
        out = self.relation_out(described)
        vectors = F.normalize(torch.cat([out, self.stop[None].to(out.dtype)]).float(), dim=-1)
        if bonus is None:
            bonus = torch.zeros(len(described))
        return self.relation_in(described), Choices(vectors, F.pad(bonus, (0, 1)))

    def next_logits(self, memories: Memories, mask: Tensor, fed: Tensor, choices: Choices) -> Tensor:
        """Logits of the next relation after every prefix of k chains for each of b questions.

        Args:
            memories: From `memories`.
            mask: Which tokens of the questions are not padding, [b, n].
            fed: Vectors of the chains' relations, from `relations`, [b, k, hops, d]; hops may be 0.
            choices: From `relations`.

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
            choices: From `relations`.
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


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask [b, n] to what is added to attention scores, [b, 1, 1, n]."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, _NEVER)[:, None, None]


def from_sentence_encoder(config: NetConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's part of a state dict from the weights of all-MiniLM-L6-v2 under their BERT names."""
    state = {
        "encoder.positions.weight": weights["embeddings.position_embeddings.weight"],
        "encoder.kind": weights["embeddings.token_type_embeddings.weight"][0],
        "encoder.norm.weight": weights["embeddings.LayerNorm.weight"],
        "encoder.norm.bias": weights["embeddings.LayerNorm.bias"],
    }
    names = {
        "attention.query": "attention.self.query", "attention.key": "attention.self.key",
        "attention.value": "attention.self.value", "attention.out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm", "up": "intermediate.dense",
        "down": "output.dense", "norm": "output.LayerNorm",
    }  # fmt: skip
    for layer in range(config.layers):
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                state[f"encoder.layers.{layer}.{ours}.{kind}"] = weights[f"encoder.layer.{layer}.{theirs}.{kind}"]
    return state
