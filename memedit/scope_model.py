"""The trained scope classifier: is this text about this edit? (SERAC, Mitchell et al. 2022, section 3.1.)

The edit memory's index and the names in the text give a shortlist; a small cross-encoder reads the text with the few facts
of it that have a chance; a logistic calibration turns its log-odds into probabilities that mean what they say; one
threshold decides. Knows the memory only through a `MemoryView`. Torch is imported when the weights are loaded.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from memedit.errors import ModelNotFound
from memedit.memory.embedder import Embedder
from memedit.memory.fact import Fact
from memedit.scope_text import Encoded, FactText, PairReader, in_longer_name, last_said, mentions, variant, words
from memedit.strategies.base import Scoped

if TYPE_CHECKING:
    from torch import Tensor

    from memedit.memory.memory import MemoryView
    from memedit.scope_net import ScopeNet

SHORTLIST = 16
"""Facts taken from the index."""
PAIRS = 6
"""Most facts of a shortlist that the cross-encoder reads with a text."""
BATCH = 32
"""Pairs that are read at once; more would only pad more."""
_LEAST = 0.75
"""Promise below which a fact is not read: it is not about the text. Of 912 texts in scope of one of 300 edits, with 10,000
in memory, none is lost for it; at 0.9 six are."""
_NAMED = 1.5
"""Promise from which the text likely names the fact's subject, and not only words of it."""
_UNNAMED = 2
"""Most facts read whose subject the text does not name."""
_UNREAD = 0.005
"""Highest probability of facts that were not worth reading."""
_VERBATIM = 0.999
"""Probability where a text is the fact's own question."""
_ABOUT = 48
"""Most facts taken of an entity that the text names."""

Odds = npt.NDArray[np.float64]
FORMAT = 1


class PairScorer(Protocol):
    """Judges pairs of a text and a fact."""

    def probabilities(self, pairs: Sequence[tuple[str, FactText]]) -> list[float]:
        """The calibrated probability of each pair that the text is in the fact's scope, in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fact of the shortlist.

    Attributes:
        fact: The fact.
        texts: The texts to read with it: the question, with the subject's name where it uses an alias, and what it says last
            where it says other things before. The likeliest counts.
        promise: How likely it looks before it is read; not calibrated.
    """

    fact: Fact
    texts: tuple[str, ...]
    promise: float


class TrainedScope:
    """Scope by a trained cross-encoder over a shortlist. Safe to share between threads.

    Args:
        embedder: The embedder that the memory's index is built with.
        weights: Folder with ``model.safetensors`` and ``config.json``; None for the weights of the package.
        threshold: Probability from which a text counts as in scope; None for the one chosen in training.
        pairs: Most facts read with a text.
        scorer: Replaces the cross-encoder.

    Raises:
        ModelNotFound: The folder holds no weights of this format.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        weights: Path | None = None,
        threshold: float | None = None,
        pairs: int = PAIRS,
        scorer: PairScorer | None = None,
    ) -> None:
        self._embedder = embedder
        network = scorer or CrossEncoder(weights)
        self._scorer = network
        self._pairs = pairs
        default = network.threshold if isinstance(network, CrossEncoder) else 0.5
        self._threshold = default if threshold is None else threshold

    @property
    def threshold(self) -> float:
        """See `ScopeClassifier.threshold`."""
        return self._threshold

    def retrieve(self, requests: Sequence[tuple[MemoryView, str, int]]) -> list[list[Scoped]]:
        """See `ScopeClassifier.retrieve`.

        Facts that were not worth reading come after those that were, by their promise, with a probability of at most
        0.005.
        """
        shortlists = self._shortlists(requests)
        read = [_worth_reading(found, self._pairs) for found in shortlists]
        pairs = [(text, fact_text(one.fact)) for found in read for one in found for text in one.texts]
        judged = iter(self._scorer.probabilities(pairs))
        results = []
        for (_, text, k), found, chosen in zip(requests, shortlists, read, strict=True):
            scoped = []
            for one in chosen:
                probability = max(next(judged) for _ in one.texts)
                scoped.append(Scoped(one.fact, max(probability, _VERBATIM if is_own(text, one.fact) else 0.0)))
            unread = found[len(chosen) :]  # the first ones are those that were read
            scoped += [Scoped(one.fact, _UNREAD * min(1.0, max(0.0, one.promise / 2))) for one in unread]
            results.append(_best(scoped, k))
        return results

    def _shortlists(self, requests: Sequence[tuple[MemoryView, str, int]]) -> list[list[Candidate]]:
        """For each request its candidates, the most promising first."""
        if not requests:
            return []
        vectors = self._embedder.encode([text for _, text, _ in requests])
        rows: dict[int, list[int]] = {}
        for row, (view, _, _) in enumerate(requests):
            rows.setdefault(id(view), []).append(row)
        found: list[list[Candidate]] = [[] for _ in requests]
        for own in rows.values():
            view = requests[own[0]][0]
            k = max(SHORTLIST, *(requests[row][2] for row in own))
            for row, hits in zip(own, view.search(vectors[own], k), strict=True):
                found[row] = shortlist(view, requests[row][1], [(hit.fact, hit.score) for hit in hits])
        return found


def shortlist(view: MemoryView, text: str, hits: Sequence[tuple[Fact, float]]) -> list[Candidate]:
    """Facts that a text may be about: those that the index found, and those about entities that it names.

    Args:
        view: The memory as the question sees it.
        text: The text.
        hits: Facts with their cosine similarity to the text.

    Returns:
        Candidates, the most promising first.
    """
    named = view.mentions(text)
    scores = {_key(fact): (fact, score) for fact, score in hits}
    lowest = min((score for _, score in hits), default=0.0)
    spans: dict[tuple[int, str, str], tuple[int, int]] = {}
    for mention in named:
        for fact in view.facts_about(mention.text)[:_ABOUT]:
            scores.setdefault(_key(fact), (fact, lowest))
            spans.setdefault(_key(fact), (mention.start, mention.end))
    said = set(words(text))
    longest = [(mention.start, mention.end) for mention in named]
    candidates = []
    for key, (fact, score) in scores.items():
        literal = mentions(text, fact.subject) if fact.subject else []
        span = spans.get(key)
        if span is None and not literal and fact.subject:
            span = variant(text, fact.subject)
        if span is None and literal and all(_inside(one, longest) for one in literal):
            continue  # what the text names is another, longer-named entity of the memory
        read, place = text, literal[0] if literal else span
        if span is not None and not literal:
            read = text[: span[0]] + fact.subject + text[span[1] :]
            place = (span[0], span[0] + len(fact.subject))
        last = last_said(read, place) if place else None
        own = set(words(fact.subject or fact.statement))
        share = 1.0 if place is not None else len(own & said) / max(1, len(own))
        texts = (read,) if last is None else (read, last)
        whole = any(not in_longer_name(text, one) for one in [span, *literal] if one is not None)
        candidates.append(Candidate(fact, texts, score + 0.5 * share + (0.5 if whole else 0.0)))
    return sorted(candidates, key=lambda one: (-one.promise, one.fact.id))


def is_own(text: str, fact: Fact) -> bool:
    """Whether a text is the very question that a fact answers."""
    said, asked = words(text), words(fact.question or fact.statement.partition("?")[0])
    return said == asked and text.rstrip().endswith("?") and (bool(fact.question) or "?" in fact.statement)


def fact_text(fact: Fact) -> FactText:
    """A fact as the cross-encoder reads it."""
    return FactText(fact.subject, fact.object, fact.statement)


class CrossEncoder:
    """The network with its weights, calibration and threshold; loaded at the first use.

    Args:
        folder: Folder with ``model.safetensors`` and ``config.json``; None for the weights of the package.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(str(files("memedit").joinpath("weights", "scope")))
        try:
            config = json.loads((self._folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelNotFound(
                f"There are no scope weights in {self._folder}: {error}.",
                "Train some with `memedit train scope`, or reinstall memedit.",
            ) from error
        if config.get("format") != FORMAT:
            raise ModelNotFound(
                f"The scope weights in {self._folder} are of format {config.get('format')}, not {FORMAT}.",
                "Train them again with `memedit train scope`.",
            )
        self._network: dict[str, int] = config["network"]
        self._slope, self._shift = float(config["slope"]), float(config["shift"])
        self.threshold = float(config["threshold"])
        self._lock = threading.Lock()
        self._loaded: tuple[PairReader, Tensor, ScopeNet] | None = None

    def probabilities(self, pairs: Sequence[tuple[str, FactText]]) -> list[float]:
        """See `PairScorer.probabilities`."""
        if not pairs:
            return []
        odds = self.log_odds(pairs)
        return [float(one) for one in 1.0 / (1.0 + np.exp(-np.clip(self._slope * odds + self._shift, -40.0, 40.0)))]

    def log_odds(self, pairs: Sequence[tuple[str, FactText]]) -> Odds:
        """The network's own log-odds, before calibration, [len(pairs)]."""
        import torch

        from memedit.scope_net import collate

        reader, table, net = self._load()
        encoded: list[Encoded] = [reader.encode(text, fact) for text, fact in pairs]
        order = sorted(range(len(pairs)), key=lambda place: len(encoded[place].ids))
        odds = np.empty(len(pairs))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            with torch.inference_mode():
                odds[rows] = net(*collate([encoded[row] for row in rows], table)).numpy()
        return odds

    def _load(self) -> tuple[PairReader, Tensor, ScopeNet]:
        with self._lock:
            if self._loaded is None:
                from safetensors.torch import load_file

                from memedit.memory.minilm import quicken
                from memedit.planner_words import Vocabulary
                from memedit.scope_net import ScopeConfig, ScopeNet

                path = self._folder / "model.safetensors"
                if not path.is_file():
                    raise ModelNotFound(f"There is no {path}.", "Train it with `memedit train scope`.")
                net = ScopeNet(ScopeConfig(**self._network))
                net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
                quicken(net)
                vocabulary = Vocabulary.installed()
                self._loaded = (PairReader(vocabulary.folder), vocabulary.vectors, net.eval())
            return self._loaded


def _worth_reading(found: Sequence[Candidate], most: int) -> list[Candidate]:
    """The first of a shortlist, which is sorted by promise."""
    named = sum(one.promise >= _NAMED for one in found)
    return [one for one in found[: min(most, named + _UNNAMED)] if one.promise >= _LEAST]


def _key(fact: Fact) -> tuple[int, str, str]:
    """An implied fact has the id of the one it comes from, but another subject and relation."""
    return fact.id, fact.subject, fact.relation


def _inside(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    """Whether a span lies within a longer one."""
    return any(start <= span[0] and span[1] <= end and (start, end) != span for start, end in others)


def _best(scoped: Sequence[Scoped], k: int) -> list[Scoped]:
    """The k likeliest, each id once."""
    ranked = sorted(scoped, key=lambda one: (-one.probability, one.fact.id))
    first: dict[int, Scoped] = {}
    for one in ranked:
        first.setdefault(one.fact.id, one)
    return list(first.values())[:k]
