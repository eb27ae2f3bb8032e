"""From a question to hypotheses: where its chain of hops starts and which relations it follows.

Two interfaces, and one implementation of each that needs no training: `CataloguePlanner` searches the chains that the
catalogue's types allow for the one whose rendering is nearest to the question, and `EmbeddingScorer` compares whole
chains with the question. Both replace the start entity by a placeholder, so that a chain is embedded once and serves
every question. A plan is a hypothesis: `memedit.strategies.walk` weighs it against the paths that edits offer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from memedit.memory.catalogue import Catalogue
from memedit.memory.embedder import Embedder
from memedit.strategies.base import Plan, ScorePaths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from memedit.memory.memory import MemoryView

MAX_HOPS = 4
PLACEHOLDER = "something"
"""Stands for the start entity in questions and chains. Chosen among five words on MQuAKE-CF-3k-dev."""

Chain = tuple[str, ...]
Span = tuple[int, int]


class Planner(Protocol):
    """Decomposes questions."""

    def plan(self, questions: Sequence[tuple[str, MemoryView]]) -> list[list[Plan]]:
        """Hypotheses for each (question, view), most confident first; an empty list means "not a chain"."""
        ...


class PathScorer(Protocol):
    """Judges whether a question asks for a chain of relations."""

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        """For each request, the calibrated probability in [0, 1] of each of its chains."""
        ...


def render_chain(catalogue: Catalogue, chain: Iterable[str], start: str = PLACEHOLDER) -> str:
    """The nested noun phrase of a chain: "the capital of the country of origin of something"."""
    text = start
    for relation in chain:
        text = catalogue.get(relation).denote(text)
    return text


def mask(question: str, span: Span, placeholder: str = PLACEHOLDER) -> str:
    """The question with its start entity, and quotation marks around it, replaced by the placeholder."""
    before, after = question[: span[0]], question[span[1] :]
    if before[-1:] in _OPENING and after[:1] in _CLOSING:
        before, after = before[:-1], after[1:]
    return f"{before}{placeholder}{after}"


_OPENING = ('"', "“", "'", "‘", "«")
_CLOSING = ('"', "”", "'", "’", "»")


class EmbeddingScorer:
    """Scores chains by the similarity of their rendering to the question, without training.

    Args:
        embedder: Embeds questions and chains.
        catalogue: Renders chains.
        scale: Logistic slope from cosine similarity to probability.
        middle: Cosine similarity that means even odds. The defaults are fitted on MQuAKE-CF-3k-dev's edited paths
            by ``python -m benchmarks.calibrate``.
    """

    def __init__(self, embedder: Embedder, catalogue: Catalogue, *, scale: float = 18.0, middle: float = 0.62) -> None:
        self._embedder = embedder
        self._catalogue = catalogue
        self._scale = scale
        self._middle = middle
        self._chain_vectors: dict[str, NDArray[np.float32]] = {}

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        """See `PathScorer.score`."""
        similarities = self.similarities([(mask(r.question, r.span), r.chains) for r in requests])
        return [[self.probability(similarity) for similarity in row] for row in similarities]

    def probability(self, similarity: float) -> float:
        """Calibrated probability for a cosine similarity."""
        return 1.0 / (1.0 + math.exp(-self._scale * (similarity - self._middle)))

    def similarities(self, masked: Sequence[tuple[str, Sequence[Chain]]]) -> list[list[float]]:
        """Cosine similarity of each masked question to each of its chains."""
        import numpy as np

        texts = [[f"What is {render_chain(self._catalogue, chain)}?" for chain in chains] for _, chains in masked]
        self._embed_chains({text for row in texts for text in row})
        questions = self._embedder.encode([question for question, _ in masked])
        rows: list[list[float]] = []
        for vector, row in zip(questions, texts, strict=True):
            matrix = np.array([self._chain_vectors[text] for text in row]).reshape(len(row), -1)
            rows.append([float(value) for value in matrix @ vector] if row else [])
        return rows

    def _embed_chains(self, texts: set[str]) -> None:
        new = sorted(texts - self._chain_vectors.keys())
        if new:
            self._chain_vectors.update(zip(new, self._embedder.encode(new), strict=True))


class CataloguePlanner:
    """Plans by beam search over the chains that the catalogue's types allow, without training.

    Args:
        scorer: Compares chains with questions.
        catalogue: The relations to plan with.
        beam: Chains kept at each length.
        plans: Most plans returned.
    """

    def __init__(self, scorer: EmbeddingScorer, catalogue: Catalogue, *, beam: int = 12, plans: int = 5) -> None:
        self._scorer = scorer
        self._catalogue = catalogue
        self._beam = beam
        self._plans = plans

    def plan(self, questions: Sequence[tuple[str, MemoryView]]) -> list[list[Plan]]:
        """See `Planner.plan`."""
        spans = [find_start(question, view) for question, view in questions]
        found = [place for place, span in enumerate(spans) if span is not None]
        masked = [mask(questions[place][0], span) for place in found if (span := spans[place]) is not None]
        plans: list[list[Plan]] = [[] for _ in questions]
        for place, ranked in zip(found, self._search(masked), strict=True):
            span = spans[place]
            assert span is not None
            start = questions[place][0][span[0] : span[1]]
            plans[place] = [Plan(start, span, chain, p) for chain, p in ranked[: self._plans]]
        return plans

    def _search(self, masked: Sequence[str]) -> list[list[tuple[Chain, float]]]:
        """For each masked question, its best chains with their probabilities, likeliest first."""
        best: list[dict[Chain, float]] = [{} for _ in masked]
        frontier: list[list[Chain]] = [[(relation,) for relation in self._relations()] for _ in masked]
        for _ in range(MAX_HOPS):
            scores = self._scorer.similarities(list(zip(masked, frontier, strict=True)))
            for number, (chains, row) in enumerate(zip(frontier, scores, strict=True)):
                best[number].update(zip(chains, row, strict=True))
                kept = sorted(zip(row, chains, strict=True), reverse=True)[: self._beam]
                frontier[number] = [(*chain, successor) for _, chain in kept for successor in self._after(chain[-1])]
        return [
            [
                (chain, self._scorer.probability(s))
                for s, chain in sorted(((s, c) for c, s in row.items()), reverse=True)
            ]
            for row in best
        ]

    def _relations(self) -> list[str]:
        return sorted(relation.id for relation in self._catalogue)

    def _after(self, relation: str) -> Sequence[str]:
        return successors(self._catalogue, relation, len(self._catalogue))


@lru_cache(maxsize=4096)
def successors(catalogue: Catalogue, relation: str, size: int) -> tuple[str, ...]:
    """Relations whose subject can be what `relation` arrives at. `size` renews the cache when relations are added."""
    arrives = catalogue.get(relation).object_types
    return tuple(
        sorted(
            other.id
            for other in catalogue
            if other.id != relation and (not arrives or not other.subject_types or arrives & other.subject_types)
        )
    )


_QUOTED = re.compile(r'"([^"]{2,})"|“([^”]{2,})”|«([^»]{2,})»')
_NAME = re.compile(
    r"\b[^\W\d_a-z][\w.'’&-]*(?:[ ,:]+(?:(?:of|the|and|de|van|von|der|la|le|du|in|for|to|da|di|al|bin)\s+)*[^\W_a-z][\w.'’&-]*)*"
)
_QUESTION_WORD = re.compile(
    r"^(?:(?:who|whom|whose|what|which|where|when|why|how|in|on|at|to|from|of|by|for|is|are|was|were|does|do|did|can|could|name|the)\b[\s']*)+",
    re.IGNORECASE,
)


def find_start(question: str, view: MemoryView) -> Span | None:
    """Where the start entity most likely stands: a quoted title, an entity of the memory, or the longest name."""
    if quoted := _QUOTED.search(question):
        group = next(number for number in (1, 2, 3) if quoted.group(number))
        return quoted.span(group)
    mentions = [(mention.start, mention.end) for mention in view.mentions(question)]
    names = [span for match in _NAME.finditer(question) if (span := _trim(question, match.span())) is not None]
    spans = mentions + [span for span in names if not any(_overlap(span, mention) for mention in mentions)]
    return max(spans, key=lambda span: (span[1] - span[0], -span[0]), default=None)


def _trim(question: str, span: Span) -> Span | None:
    """A capitalised run without the question words it may begin with and the possessive it may end with."""
    start, end = span
    if lead := _QUESTION_WORD.match(question[start:end]):
        start += lead.end()
    text = question[start:end]
    stripped = re.sub(r"(?:['’]s?|[.,:-])+$", "", text)
    return (start, start + len(stripped)) if stripped.strip() else None


def _overlap(a: Span, b: Span) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def default_planner(catalogue: Catalogue) -> tuple[Planner, PathScorer]:
    """The planner and path scorer that `MemEditor` uses when it is given none: the trained ones."""
    from memedit.planner_model import TrainedPlanner

    trained = TrainedPlanner(catalogue)
    return trained, trained
