"""An embedder for tests of everything but the meaning of texts: quick, deterministic, and no two texts are near."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


class HashEmbedder:
    """The bits of a text's hash as a vector of plus and minus one, scaled to length 1."""

    name = "hash"
    dimension = 64

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.texts += texts
        digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
        bits = np.unpackbits(np.frombuffer(digests, np.uint8)).reshape(len(texts), self.dimension)
        signs = 2 * bits.astype(np.float32) - 1
        vectors: npt.NDArray[np.float32] = signs / np.float32(self.dimension**0.5)
        return vectors
