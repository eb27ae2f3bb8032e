"""The encoder of all-MiniLM-L6-v2: layers that turn a text's word vectors into vectors that know their context.

`memedit.memory.embedder` embeds with it as it was published; the trained planner and the scope classifier are made of the
same layers. Needs PyTorch and no library of models, which would take seconds to import. Importing it imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from memedit.memory.packed import can_pack, multiply, pack

_NEVER = -1e4
Pair = tuple[Tensor, Tensor]
"""Keys and values."""


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of an encoder; by default those of all-MiniLM-L6-v2.

    Attributes:
        width: Width of the vectors.
        layers: Layers.
        heads: Attention heads.
        inner: Width of the feed-forward layers.
        positions: Longest input, in tokens.
    """

    width: int = 384
    layers: int = 6
    heads: int = 12
    inner: int = 1536
    positions: int = 512

    def to_dict(self) -> dict[str, int]:
        """As plain values, for config.json."""
        return asdict(self)


class SentenceEncoder:
    """Token ids to one unit vector a text: the mean of its tokens' vectors.

    Args:
        folder: Of the published model, with model.safetensors.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        weights = load_file(folder / "model.safetensors")
        self._words = weights.pop("embeddings.word_embeddings.weight")
        config = EncoderConfig()
        # The random weights it starts with are thrown away, and must not move the caller's seed. (PyTorch's way to have none,
        # the device "meta", imports its compiler first, which takes a second.)
        with torch.random.fork_rng(devices=()):
            self._encoder = Encoder(config)
        state = {name.removeprefix("encoder."): value for name, value in from_sentence_encoder(config, weights).items()}
        self._encoder.load_state_dict(state, assign=True)
        quicken(self._encoder.eval())  # the vectors' cosine to those of float32 is 0.9999

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Unit vectors [b, width] of token ids [b, n] and mask [b, n] (True on tokens)."""
        with torch.inference_mode():
            words = F.embedding(ids, self._words).to(self._encoder.kind.dtype)
            encoded = self._encoder(words, mask).float()
            return F.normalize((encoded * mask.unsqueeze(2)).sum(1), dim=1)


class Packing:
    """The tokens of a batch without its padding, which nothing but attention needs: a fifth of the work is saved.

    Args:
        mask: True on tokens, [b, n].
        dtype: Of the attention scores.
    """

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        flat = mask.flatten()
        self._shape = mask.shape
        self._padded = not flat.all()
        self._tokens = flat.nonzero().squeeze(1)
        # Padding repeats the token before it: `bias` hides it, whatever it holds.
        self._places = (flat.cumsum(0) - 1).clamp(min=0)
        self.bias = padding_bias(mask, dtype) if self._padded else None

    def pack(self, x: Tensor) -> Tensor:
        """[b, n, d] to the tokens, [t, d]."""
        flat = x.flatten(0, 1)
        return flat.index_select(0, self._tokens) if self._padded else flat

    def pad(self, packed: Tensor) -> Tensor:
        """Tokens [t, d] to [b, n, d]."""
        spread = packed.index_select(0, self._places) if self._padded else packed
        return spread.view(*self._shape, -1)


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
        result: Tensor = self.out(self._mix(self._split(self.query(x)), memory, bias).flatten(2))
        return result

    def within(self, x: Tensor, packing: Packing) -> Tensor:
        """Attend from packed tokens [t, d] to those of the same text."""
        queries, keys, values = (self._split(packing.pad(project(x))) for project in (self.query, self.key, self.value))
        mixed = self._mix(queries, (keys, values), packing.bias)
        result: Tensor = self.out(packing.pack(mixed.flatten(2)))
        return result

    def look_at(self, memory: Tensor) -> Pair:
        """Keys and values of a memory [b, m, d], to attend to as often as needed."""
        return self._split(self.key(memory)), self._split(self.value(memory))

    def _mix(self, queries: Tensor, memory: Pair, bias: Tensor | None) -> Tensor:
        """What queries [b, h, n, e] find in a memory, [b, n, h, e]."""
        keys, values = memory
        if torch.is_inference_mode_enabled():
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias).transpose(1, 2)
        # Written out: for texts this short it trains three times faster on a CPU than the fused kernel. The softmax of
        # bfloat16 is slow there where a row is no multiple of the vector registers.
        scores = (queries * self._scale) @ keys.transpose(-1, -2)
        scores = scores if bias is None else scores + bias
        mixed: Tensor = scores.softmax(-1, dtype=torch.float32).to(values.dtype) @ values
        return mixed.transpose(1, 2)

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

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Packed tokens [t, d] to the same shape."""
        x = self.attention_norm(x + self.attention.within(x, packing))
        out: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return out


class Encoder(nn.Module):
    """MiniLM's encoder over word vectors that come from outside: they are not among its weights."""

    def __init__(self, config: EncoderConfig) -> None:
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
        return through(self.layers, x, mask)


def through(layers: Iterable[nn.Module], x: Tensor, mask: Tensor) -> Tensor:
    """Token vectors [b, n, d] through `EncoderLayer`s to the same shape; what comes out at padding means nothing.

    Args:
        layers: The layers.
        x: Token vectors.
        mask: True on tokens, [b, n].
    """
    packing = Packing(mask, x.dtype)
    packed = packing.pack(x)
    for layer in layers:
        packed = layer(packed, packing)
    return packing.pad(packed)


class PackedLinear(nn.Module):
    """One or more `nn.Linear` of the same input, side by side, for inference (`memedit.memory.packed`).

    For a text of twenty tokens, arranging the weights takes half as long as the product. And oneDNN generates code for every
    number of rows that it has not met, which takes as long again: they are filled up to one of a few.

    Args:
        parts: Whose outputs are put side by side.
    """

    def __init__(self, *parts: nn.Linear) -> None:
        super().__init__()
        with torch.no_grad():
            self._weight = pack([part.weight for part in parts])
            self._bias = torch.cat([part.bias for part in parts])

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to [..., the parts' outputs together]."""
        flat = x.reshape(-1, x.shape[-1])
        count = len(flat)
        flat = F.pad(flat, (0, 0, 0, filled_up(count) - count))
        return multiply(flat, self._weight, self._bias)[:count].view(*x.shape[:-1], -1)


def filled_up(rows: int) -> int:
    """The least of a few numbers that is no less than `rows`: a tenth more, on average.

    >>> [filled_up(rows) for rows in (1, 3, 21, 64, 70, 130, 1000)]
    [1, 4, 24, 64, 80, 160, 1024]
    """
    if rows <= _STEPS[0][1]:
        return 1 << max(0, rows - 1).bit_length()
    step = next((step for step, most in _STEPS if rows <= most), _STEPS[-1][0])
    return -(-rows // step) * step


_STEPS = ((8, 16), (8, 64), (16, 128), (32, 512), (128, 2048))
"""Steps, and up to how many rows each is taken; powers of two up to the first."""


class PackedLayer(nn.Module):
    """An `EncoderLayer` for inference: the same function of packed weights, with PyTorch's fused attention."""

    def __init__(self, layer: EncoderLayer) -> None:
        super().__init__()
        own = layer.attention
        self._heads = own.heads
        self.look = PackedLinear(own.query, own.key, own.value)
        self.out = PackedLinear(own.out)
        self.attention_norm = layer.attention_norm
        self.up = PackedLinear(layer.up)
        self.down = PackedLinear(layer.down)
        self.norm = layer.norm

    def forward(self, x: Tensor, packing: Packing) -> Tensor:
        """Packed tokens [t, d] to the same shape."""
        looked = packing.pad(self.look(x))
        queries, keys, values = looked.view(*looked.shape[:2], 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=packing.bias)
        x = self.attention_norm(x + self.out(packing.pack(mixed.transpose(1, 2).flatten(2))))
        out: Tensor = self.norm(x + self.down(F.gelu(self.up(x))))
        return out


def quicken(net: nn.Module) -> None:
    """Prepare a network for inference: in bfloat16 where that takes less time than float32, its weights packed.

    It cannot be trained or saved any more.
    """
    if bfloat16_is_quick():
        net.to(torch.bfloat16)
    if can_pack(next(net.parameters())):
        _pack_parts(net)


def _pack_parts(net: nn.Module) -> None:
    for name, part in net.named_children():
        if isinstance(part, EncoderLayer):
            setattr(net, name, PackedLayer(part))
        elif isinstance(part, nn.Linear):
            setattr(net, name, PackedLinear(part))
        else:
            _pack_parts(part)


def bfloat16_is_quick() -> bool:
    """Whether this processor multiplies bfloat16 natively; elsewhere float32 is quicker."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


def padding_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask [b, n] to what is added to attention scores, [b, 1, 1, n]."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, _NEVER)[:, None, None]


def from_sentence_encoder(config: EncoderConfig, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
