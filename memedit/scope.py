"""Whether a text is about an edit (SERAC's scope classifier, Mitchell et al. 2022, section 3.1).

The edit memory's index gives a shortlist; the classifier gives each fact on it the calibrated probability that the
text is in its scope. The default is the trained cross-encoder of `memedit.scope_model`. `EmbeddingScope` needs no
training: a logistic model of the similarity and of how much of the fact's subject the text names, fitted on development
data; it is the baseline, and serves embedders and languages that the cross-encoder was not trained for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from memedit.memory.embedder import Embedder
from memedit.memory.fact import Fact
from memedit.strategies.base import Scoped

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

SHORTLIST = 16
"""Facts taken from the index before they are judged."""


class ScopeClassifier(Protocol):
    """Finds the facts a text is about."""

    @property
    def threshold(self) -> float:
        """Probability from which a text counts as in scope."""
        ...

    def retrieve(self, requests: Sequence[tuple[MemoryView, str, int]]) -> list[list[Scoped]]:
        """For each (view, text, k), at most k facts with their probabilities, likeliest first."""
        ...


def default_scope(embedder: Embedder) -> ScopeClassifier:
    """The classifier that `MemEditor` uses where none is given: the trained one.

    Args:
        embedder: The embedder of the memory.
    """
    from memedit.scope_model import TrainedScope

    return TrainedScope(embedder)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log-odds of "in scope" as a linear function of two features.

    Attributes:
        bias: Constant term.
        similarity: Weight of the cosine similarity, in [-1, 1].
        named: Weight of the share of the subject's words that the text names (for free text: of the text's words that
            the statement holds), in [0, 1].
    """

    bias: float
    similarity: float
    named: float

    def probability(self, similarity: float, named: float) -> float:
        """Calibrated probability of "in scope"."""
        return 1.0 / (1.0 + math.exp(-(self.bias + self.similarity * similarity + self.named * named)))


TRIPLES = Calibration(-12.58, 12.84, 2.73)
FREE_TEXT = Calibration(-16.60, 24.16, 0.19)
"""Fitted by ``python -m benchmarks.calibrate`` on 400 of PokeMQA's edits and their nearest neighbours. On 400 others they
find 97% and 93% of the pairs, take 3% of near neighbours for the edit, and are off by 0.01 (calibration error)."""


class EmbeddingScope:
    """Scope by embedding similarity and naming of the subject, without training.

    Args:
        embedder: The embedder that the memory's index is built with.
        triples: Turns the features of a triple into a probability.
        free_text: The same for a free-text fact.
        threshold: Probability from which a text counts as in scope.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        triples: Calibration = TRIPLES,
        free_text: Calibration = FREE_TEXT,
        threshold: float = 0.5,
    ) -> None:
        self._embedder = embedder
        self._triples = triples
        self._free_text = free_text
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        """See `ScopeClassifier.threshold`."""
        return self._threshold

    def retrieve(self, requests: Sequence[tuple[MemoryView, str, int]]) -> list[list[Scoped]]:
        """See `ScopeClassifier.retrieve`."""
        vectors = self._embedder.encode([text for _, text, _ in requests])
        found: list[list[Scoped]] = []
        for vector, (view, text, k) in zip(vectors, requests, strict=True):
            words = _words(text)
            hits = view.search(vector[None, :], max(k, SHORTLIST))[0]
            judged = [Scoped(hit.fact, self._judge(hit.fact, hit.score, words)) for hit in hits]
            found.append(sorted(judged, key=lambda scoped: (-scoped.probability, scoped.fact.id))[:k])
        return found

    def _judge(self, fact: Fact, similarity: float, words: frozenset[str]) -> float:
        if fact.is_free_text:
            # It has no subject to be named; what the text and the statement share takes its place.
            return self._free_text.probability(similarity, _share(words, _words(fact.statement)))
        return self._triples.probability(similarity, _share(_words(fact.subject), words))


def _share(wanted: frozenset[str], given: frozenset[str]) -> float:
    return len(wanted & given) / len(wanted) if wanted else 0.0


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))
