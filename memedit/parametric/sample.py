"""The text that second moments are estimated from: a file of the user's, or sentences made here.

The papers take 100,000 passages of Wikipedia. Where no text file is given there are two sources, and each gives what the
other lacks: sentences rendered from the relation catalogue show the keys of names and of the relations that edits are
about; text that the model writes itself, each piece from a token drawn evenly from its vocabulary, shows the rest of
its key space. For the embedded model the two give a C with a condition number of about 500, so it can be inverted as it
is; the small ridge of `memedit.parametric.statistics` is for poorer samples.

Everything is seeded, so the same model gets the same text.
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from memedit.errors import BadDataFile
from memedit.parametric.layers import frozen

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_VERSION = 1  # raise it when texts are written in another way: the sentences tell by themselves that they have changed
_PIECE = 128
"""Tokens of a piece of a text file."""


@dataclass(frozen=True, slots=True)
class TextSample:
    """A sample of text.

    Attributes:
        file: A UTF-8 text file to take instead of the sentences made here; or None.
        file_tokens: At most so many tokens of it, from its beginning.
        sentences: Sentences from the catalogue's templates.
        written: Pieces of text written by the model.
        length: Tokens of each.
        seed: For both.
    """

    file: Path | None = None
    file_tokens: int = 200_000
    sentences: int = 800
    written: int = 160
    length: int = 24
    seed: int = 0

    def fingerprint(self) -> str:
        """A short name of exactly this sample.

        Raises:
            BadDataFile: The file cannot be read.
        """
        if self.file is not None:
            content = hashlib.blake2b(self._read().encode(), digest_size=6).hexdigest()
            return f"{content}-{self.file_tokens}"
        # The catalogue and the names that sentences are made from grow: a sample is the same only if its sentences are.
        sentences = "\n".join(catalogue_sentences(self.sentences, self.seed))
        content = hashlib.blake2b(sentences.encode(), digest_size=6).hexdigest()
        return f"v{_VERSION}-{self.sentences}-{self.written}x{self.length}-{self.seed}-{content}"

    def tokens(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
        """The texts, as tokens.

        Raises:
            BadDataFile: The file cannot be read.
        """
        if self.file is not None:
            tokens: list[int] = tokenizer(self._read(), verbose=False)["input_ids"][: self.file_tokens]
            return [tokens[start : start + _PIECE] for start in range(0, len(tokens), _PIECE)]
        sentences = catalogue_sentences(self.sentences, self.seed)
        texts: list[list[int]] = tokenizer(sentences)["input_ids"] if sentences else []
        return texts + written_texts(model, tokenizer, self.written, self.length, self.seed)

    def _read(self) -> str:
        assert self.file is not None
        try:
            text = self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadDataFile(f"{self.file} cannot be read as text: {error}.", "Give a UTF-8 text file.") from error
        if not text.strip():
            raise BadDataFile(f"{self.file} is empty.", "Give a text of some 100,000 words.")
        return text


def catalogue_sentences(count: int, seed: int) -> list[str]:
    """Statements of the catalogue's relations, in all their wordings, about names of the built-in alias table."""
    from memedit.memory.catalogue import Catalogue

    draw = random.Random(seed)
    templates = [wording for relation in Catalogue.default() for wording in (relation.statement, *relation.statements)]
    names = _entity_names()
    return [
        draw.choice(templates).replace("{subject}", draw.choice(names)).replace("{object}", draw.choice(names))
        for _ in range(count)
    ]


def written_texts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, length: int, seed: int
) -> list[list[int]]:
    """Texts that the model writes, each from one token drawn evenly from its vocabulary.

    Args:
        model: The model.
        tokenizer: Its tokenizer; special tokens are not drawn.
        count: How many.
        length: Tokens of each.
        seed: For what is drawn.
    """
    import torch

    special = set(tokenizer.all_special_ids)
    usable = [token for token in range(len(tokenizer)) if token not in special]
    draw = random.Random(seed)
    starts = [[draw.choice(usable)] for _ in range(count)]
    texts: list[list[int]] = []
    for first in range(0, count, _ROWS):
        texts += continued(model, torch.tensor(starts[first : first + _ROWS]), length - 1, seed + first)
    return texts


def continued(model: PreTrainedModel, starts: torch.Tensor, count: int, seed: int) -> list[list[int]]:
    """Each start and `count` tokens that the model draws after it; no text ends early.

    Args:
        model: The model.
        starts: Tokens, [texts, tokens].
        count: Tokens to draw for each.
        seed: For what is drawn.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    tokens = starts.to(model.device)
    past = None
    fed = tokens
    with frozen(model), torch.no_grad():
        for _ in range(count):
            output = model(fed, past_key_values=past, use_cache=True)
            past = output.past_key_values
            likely, which = output.logits[:, -1].float().cpu().topk(min(_TOP, output.logits.shape[-1]))
            picked = torch.multinomial(likely.softmax(-1), 1, generator=generator)
            fed = which.gather(1, picked).to(model.device)
            tokens = torch.cat([tokens, fed], dim=1)
    texts: list[list[int]] = tokens.tolist()
    return texts


_ROWS = 128
_TOP = 50  # the likeliest tokens that one is drawn from: beyond them a small model drifts into noise


def _entity_names() -> list[str]:
    from memedit.memory.fact import EntityType

    text = resources.files("memedit.memory").joinpath("aliases.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    # Only the kinds of entities: the sections beside them hold names that stand for something else.
    return sorted({name for kind in get_args(EntityType) for name in table.get(kind, ())})
