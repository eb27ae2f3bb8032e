"""Models of the Llama architecture, in this process, by PyTorch alone: no library of models has to be imported first.

RMS norms, rotary positions, grouped-query attention and gated feed-forward layers, read from a folder as transformers
saves it. Knows tensors; text, batching and decoding are others' business (`memedit.models.local`, `memedit.models.decoding`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from memedit.memory.packed import can_pack, multiply, pack
from memedit.models.network import States

_ROOM = 64  # tokens by which a cache is larger than needed when it is made
_SCORES = 2**21  # most attention scores of one head computed at once (rows * queries * keys), which bounds the memory
_BUSY = 32  # rows after which laying the weights out anew, which takes a second or two, pays


@dataclass(frozen=True, slots=True)
class LlamaConfig:
    """Sizes of a model.

    Attributes:
        layers: How many layers.
        heads: Query heads.
        groups: Key and value heads; each serves heads / groups query heads.
        head_width: Width of a head.
        epsilon: Added to variances in norms.
        theta: Base of the rotary frequencies.
        context_length: Longest text, in tokens.
        tied: Whether the output matrix is that of the word vectors.
    """

    layers: int
    heads: int
    groups: int
    head_width: int
    epsilon: float
    theta: float
    context_length: int
    tied: bool

    @classmethod
    def read(cls, path: Path) -> LlamaConfig:
        """Read a config.json.

        Raises:
            OSError, KeyError: It is not there, or says too little.
            ValueError: It is not of a model that this module computes.
        """
        values = json.loads(path.read_text(encoding="utf-8"))
        rotary = values.get("rope_parameters") or values.get("rope_scaling") or {}
        unlike = {
            "model_type": values.get("model_type") != "llama",
            "hidden_act": values.get("hidden_act", "silu") != "silu",
            "rope_parameters": rotary.get("rope_type", rotary.get("type", "default")) != "default",
            "attention_bias": bool(values.get("attention_bias")),
            "mlp_bias": bool(values.get("mlp_bias")),
        }
        if any(unlike.values()):
            names = ", ".join(name for name, is_so in unlike.items() if is_so)
            raise ValueError(f"it is no plain Llama model: see {names} in {path.name}")
        heads = values["num_attention_heads"]
        return cls(
            layers=values["num_hidden_layers"],
            heads=heads,
            groups=values.get("num_key_value_heads") or heads,
            head_width=values.get("head_dim") or values["hidden_size"] // heads,
            epsilon=values["rms_norm_eps"],
            theta=rotary.get("rope_theta") or values.get("rope_theta", 10_000.0),
            context_length=values["max_position_embeddings"],
            tied=bool(values.get("tie_word_embeddings")),
        )


class Llama:
    """A network of the Llama architecture; safe to share between threads. See `memedit.models.network.Network`.

    Args:
        folder: With config.json and model.safetensors.
        device: Where to compute.
        deltas: What is added to some of its matrices, by their names in the file; only these are held in memory anew.

    Raises:
        OSError, KeyError, ValueError, SafetensorError: The folder holds no such model.
    """

    is_plain = True

    def __init__(
        self, folder: Path, device: str | torch.device = "cpu", *, deltas: Mapping[str, Tensor] | None = None
    ) -> None:
        from safetensors.torch import load_file

        self.config = LlamaConfig.read(folder / "config.json")
        self.device = torch.device(device)
        # On a CPU the weights stay in the file until they are used: it is mapped into memory, not read.
        weights = load_file(folder / "model.safetensors", device=str(self.device))
        for name, delta in (deltas or {}).items():
            weights[name] = weights[name] + delta.to(weights[name])
        self.words = weights["model.embed_tokens.weight"]
        self.layers = [_Layer.of(weights, f"model.layers.{number}.") for number in range(self.config.layers)]
        self.norm = weights["model.norm.weight"]
        self.output = Projection(self.words if self.config.tied else weights["lm_head.weight"])
        half = torch.arange(0, self.config.head_width, 2, device=self.device).float() / self.config.head_width
        self.frequencies = 1.0 / self.config.theta**half
        self._rows = 0
        self._lock = threading.Lock()

    @property
    def vocabulary(self) -> int:
        """How many logits it gives."""
        return len(self.words)

    @property
    def context_length(self) -> int:
        """Longest text it reads, in tokens."""
        return self.config.context_length

    def begin(self, rows: int, prefix: States = ()) -> LlamaReading:
        """Begin to read `rows` rows that have all read a prefix already."""
        with self._lock:
            self._rows += rows
            if self._rows >= _BUSY:
                self._lay_out()
        return LlamaReading(self, rows, prefix)

    def _lay_out(self) -> None:
        for layer in self.layers:
            for projection in (layer.queries_keys_values, layer.out, layer.gate_up, layer.down):
                projection.lay_out()
        self.output.lay_out()


class LlamaReading:
    """Rows that a `Llama` reads side by side; see `memedit.models.network.Reading`.

    The prefix is kept once, not for each row: all rows' queries meet its keys in one product.
    """

    def __init__(self, network: Llama, rows: int, prefix: States) -> None:
        self._network = network
        nothing: list[_Pair | None] = [None] * network.config.layers
        self._prefix = [_Pair(*pair) for pair in prefix] or nothing
        self._shared = prefix[0][0].shape[1] if prefix else 0
        self._own = [_Cache(network.config, rows, network.device, network.words.dtype) for _ in network.layers]

    def read(self, ids: Tensor, mask: Tensor, positions: Tensor, keep: int) -> Tensor:
        """Read further tokens of every row; see `Reading.read`."""
        rows, width = ids.shape
        before = self._own[0].length
        # In pieces, as the scores of every token with every other one would not fit into memory for long texts.
        piece = max(16, _SCORES // (rows * mask.shape[1]))
        parts = []
        for at in range(0, width, piece):
            some = slice(at, min(at + piece, width))
            seen = mask[:, self._shared : self._shared + before + some.stop]
            parts.append(self._read(ids[:, some], seen, positions[:, some]))
        network = self._network
        last = torch.cat(parts, 1)[:, -keep:].flatten(0, 1)
        [logits] = network.output(_normed(last, network.norm, network.config.epsilon))
        return logits.view(rows, keep, -1)

    def select(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for cache in self._own:
            cache.select(rows)

    def states(self) -> States:
        """Keys and values in every layer, each [groups, tokens, width of a head]."""
        filled = [cache.filled() for cache in self._own]
        return [(keys[:, 0].clone(), values[:, 0].clone()) for keys, values in filled]

    def _read(self, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
        """Last hidden states [rows, n, width] of tokens that may attend to the `seen` ones up to themselves."""
        rows, width = ids.shape
        config = self._network.config
        angles = positions[..., None, None] * self._network.frequencies
        turn = _Turn(angles.cos(), angles.sin())
        columns = torch.arange(seen.shape[1], device=ids.device)
        allowed = seen[:, None].bool() & (columns <= columns[-width:, None])
        # Finite, as a row of padding may attend to nothing at all.
        bias = torch.zeros(allowed.shape, device=ids.device, dtype=self._network.words.dtype)
        bias.masked_fill_(~allowed, torch.finfo(bias.dtype).min)
        bias = bias.repeat(1, config.heads // config.groups, 1)
        x = F.embedding(ids.flatten(), self._network.words)
        for layer, prefix, own in zip(self._network.layers, self._prefix, self._own, strict=True):
            normed = _normed(x, layer.before_attention, config.epsilon)
            x = x + _attend(layer, config, normed.view(rows, width, -1), turn, bias, prefix, own)
            gate, up = layer.gate_up(_normed(x, layer.before_feeding, config.epsilon))
            [fed] = layer.down(F.silu(gate) * up)
            x = x + fed
        return x.view(rows, width, -1)


class Projection:
    """The products of one input with several matrices.

    Args:
        matrices: [width out, width in] each.
    """

    def __init__(self, *matrices: Tensor) -> None:
        self._widths = [len(matrix) for matrix in matrices]
        self._matrices = matrices
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        """Products [n, width out] of x [n, width in] with each matrix."""
        matrices = self._matrices
        if matrices:
            return tuple(F.linear(x, matrix) for matrix in matrices)
        assert self._packed is not None
        return multiply(x, self._packed).split_with_sizes(self._widths, 1)

    def lay_out(self) -> None:
        """Copy the matrices, side by side, into the layout that PyTorch's CPU kernels like best, where there is one.

        Batches of 4 to 32 rows are then read in half to two thirds of the time, with the same result up to rounding.
        """
        matrices = self._matrices
        if not matrices or not all(matrix.dtype == torch.float32 and can_pack(matrix) for matrix in matrices):
            return
        self._packed = pack(matrices)
        self._matrices = ()


class _Turn(NamedTuple):
    """Rotary positions: cosines and sines, [rows, n, 1, half the width of a head]."""

    cosines: Tensor
    sines: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate [rows, n, heads, width]; pairs lie half a head apart."""
        first, second = x.chunk(2, -1)
        turned = (
            first * self.cosines - second * self.sines,
            second * self.cosines + first * self.sines,
        )
        return torch.cat(turned, -1)


class _Pair(NamedTuple):
    keys: Tensor
    values: Tensor


class _Cache:
    """Keys and values of one layer, [groups, rows, room, width of a head] each; there is room for more than there is."""

    def __init__(self, config: LlamaConfig, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        self.length = 0
        empty = torch.empty(config.groups, rows, 0, config.head_width, device=device, dtype=dtype)
        self._pair = _Pair(empty, empty)

    def add(self, keys: Tensor, values: Tensor) -> _Pair:
        """Append [groups, rows, n, width]; returns everything so far."""
        end = self.length + keys.shape[2]
        if end > self._pair.keys.shape[2]:
            self._grow(end + max(_ROOM, self.length // 2))
        for kept, new in zip(self._pair, (keys, values), strict=True):
            kept[:, :, self.length : end] = new
        self.length = end
        return self.filled()

    def filled(self) -> _Pair:
        """Everything so far, [groups, rows, tokens, width]."""
        return _Pair(*(part[:, :, : self.length] for part in self._pair))

    def select(self, rows: Tensor) -> None:
        """Keep these rows only."""
        self._pair = _Pair(*(part.index_select(1, rows) for part in self._pair))

    def _grow(self, room: int) -> None:
        larger = []
        for part in self._pair:
            groups, rows, _, width = part.shape
            larger.append(part.new_empty(groups, rows, room, width))
            larger[-1][:, :, : self.length] = part[:, :, : self.length]
        self._pair = _Pair(*larger)


@dataclass(slots=True)
class _Layer:
    before_attention: Tensor
    queries_keys_values: Projection
    out: Projection
    before_feeding: Tensor
    gate_up: Projection
    down: Projection

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], prefix: str) -> _Layer:
        def matrices(*names: str) -> Projection:
            return Projection(*(weights[f"{prefix}{name}_proj.weight"] for name in names))

        return cls(
            before_attention=weights[f"{prefix}input_layernorm.weight"],
            queries_keys_values=matrices("self_attn.q", "self_attn.k", "self_attn.v"),
            out=matrices("self_attn.o"),
            before_feeding=weights[f"{prefix}post_attention_layernorm.weight"],
            gate_up=matrices("mlp.gate", "mlp.up"),
            down=matrices("mlp.down"),
        )


def _attend(
    layer: _Layer, config: LlamaConfig, x: Tensor, turn: _Turn, bias: Tensor, prefix: _Pair | None, own: _Cache
) -> Tensor:
    """Grouped-query attention of x [rows, n, width] to the prefix, to what was read before, and to itself.

    `bias` [rows, sharing heads * n, tokens] is added to the scores of all but the prefix. Returns [rows * n, width].
    """
    rows, width, _ = x.shape
    heads, groups, each = config.heads, config.groups, config.head_width
    queries, keys, values = layer.queries_keys_values(x.flatten(0, 1))
    queries = turn(queries.view(rows, width, heads, each)) * each**-0.5
    keys = turn(keys.view(rows, width, groups, each))
    # Groups come first, so that the queries of all rows are one matrix for the prefix and many for each row's own keys.
    queries = queries.view(rows, width, groups, -1, each).permute(2, 0, 3, 1, 4).reshape(groups, -1, each)
    known = own.add(keys.permute(2, 0, 1, 3), values.view(rows, width, groups, each).permute(2, 0, 1, 3))
    scores = queries.view(groups * rows, -1, each) @ known.keys.flatten(0, 1).transpose(1, 2)
    scores = scores.view(groups, *bias.shape).add_(bias)
    shared = 0
    if prefix is not None:
        shared = prefix.keys.shape[1]
        front = (queries @ prefix.keys.transpose(1, 2)).view(*scores.shape[:-1], shared)
        scores = torch.cat([front, scores], -1)
    weights = scores.softmax(-1)
    mixed = weights[..., shared:].flatten(0, 1) @ known.values.flatten(0, 1)
    if prefix is not None:
        mixed += (weights[..., :shared].flatten(1, 2) @ prefix.values).view(mixed.shape)
    mixed = mixed.view(groups, rows, -1, width, each).permute(1, 3, 0, 2, 4).reshape(rows * width, -1)
    [out] = layer.out(mixed)
    return out


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, epsilon)
