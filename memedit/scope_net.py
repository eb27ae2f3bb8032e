"""The scope network: a small cross-encoder that reads a text and a fact together and says how likely they belong.

The first layers of all-MiniLM-L6-v2 over its word vectors, which come from outside; what a token is to the pair (see
`memedit.scope_text.Role`) is added to its vector. Knows nothing of files or of the edit memory. Importing it imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memedit.memory.minilm import EncoderConfig, EncoderLayer, from_sentence_encoder, through
from memedit.scope_text import Encoded, Role


@dataclass(frozen=True, slots=True)
class ScopeConfig(EncoderConfig):
    """Sizes of the network, which has fewer layers than MiniLM and reads shorter texts."""

    layers: int = 4
    positions: int = 128


class ScopeNet(nn.Module):
    """Pairs to the log-odds that the text is in the fact's scope."""

    def __init__(self, config: ScopeConfig) -> None:
        super().__init__()
        self.config = config
        self.positions = nn.Embedding(config.positions, config.width)
        self.roles = nn.Embedding(len(Role), config.width)
        self.cased = nn.Embedding(2, config.width)
        self.norm = nn.LayerNorm(config.width, eps=1e-12)
        self.layers = nn.ModuleList(
            EncoderLayer(config.width, config.heads, config.inner) for _ in range(config.layers)
        )
        self.pool = nn.Linear(2 * config.width, config.width)
        self.score = nn.Linear(config.width, 1)

    def forward(self, words: Tensor, roles: Tensor, cased: Tensor, mask: Tensor) -> Tensor:
        """Log-odds of pairs.

        Args:
            words: Word vectors, [b, n, width].
            roles: `Role` of each token, [b, n].
            cased: 1 where a token is capitalised, [b, n].
            mask: True on tokens, [b, n].

        Returns:
            [b], float32.
        """
        places = self.positions(torch.arange(words.shape[1], device=words.device))
        x = self.norm(words.to(places.dtype) + places + self.roles(roles) + self.cased(cased))
        x = through(self.layers, x, mask)
        kept = mask.unsqueeze(2).to(x.dtype)
        mean = (x * kept).sum(1) / kept.sum(1)
        pooled = torch.tanh(self.pool(torch.cat([x[:, 0], mean], 1)))
        odds: Tensor = self.score(pooled).float().squeeze(1)
        return odds


def from_minilm(net: ScopeNet, weights: Mapping[str, Tensor]) -> None:
    """Start a network from the weights of all-MiniLM-L6-v2 under their BERT names; roles start out meaning nothing."""
    config = net.config
    state = from_sentence_encoder(config, weights)
    kind = state.pop("encoder.kind")
    state = {name.removeprefix("encoder."): value for name, value in state.items()}
    state["positions.weight"] = state["positions.weight"][: config.positions]
    state["roles.weight"] = kind + 0.02 * torch.randn(len(Role), config.width)
    state["cased.weight"] = torch.zeros(2, config.width)
    net.load_state_dict(state, strict=False)


def collate(pairs: Sequence[Encoded], table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs to the arguments of `ScopeNet.forward`, padded to the longest; `table` holds the word vectors [v, width]."""
    width = max(len(pair.ids) for pair in pairs)
    fields = [[getattr(pair, name) + [0] * (width - len(pair.ids)) for pair in pairs] for name in Encoded._fields]
    ids, roles, cased = (torch.tensor(rows) for rows in fields)
    lengths = torch.tensor([len(pair.ids) for pair in pairs])
    mask = torch.arange(width) < lengths.unsqueeze(1)
    return table[ids], roles, cased, mask
