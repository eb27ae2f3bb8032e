"""The trained planner: start entities, chains and path scores from one small network, on a CPU, in milliseconds.

`TrainedPlanner` is both a `Planner` and a `PathScorer` (see `memedit.planner`). Relations are known to it only by vectors
of their descriptions in the catalogue, so a relation added at run time is planned with at once. The network favours the
relations that it was trained on; the others get a bonus that makes up for it. Probabilities are
calibrated on questions that the weights were not trained on.

Knows the catalogue and its own weights; knows no facts. Torch is imported when the weights are loaded.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.errors import ModelNotFound
from memedit.memory.fact import Relation
from memedit.strategies.base import Plan, ScorePaths

if TYPE_CHECKING:
    from torch import Tensor

    from memedit.memory.catalogue import Catalogue
    from memedit.memory.memory import MemoryView
    from memedit.planner_net import Choices, PlannerNet
    from memedit.planner_words import Describer, Tokens, Vocabulary

BATCH = 64
"""Questions that are read at once."""
LIKENESS = 30.0
"""How much of a plan with an untrained relation is the likeness of its nested question: log-probability per unit of cosine."""
_KEPT = 64
"""Questions whose encoding is kept, at most some 100 KB each."""
_FEW = 3
"""Further phrases and questions of a relation that describe it besides the canonical ones."""

_LAST_ARTICLE = re.compile(r"\s(?:an?|the)$")
Chain = tuple[str, ...]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Turns the network's log-probabilities into probabilities that mean what they say.

    Attributes:
        slope: Slope on the log-odds.
        offset: Added to the log-odds.
        nothing: Least probability of "no start entity" or "not a chain" at which no plan is returned.
    """

    slope: float = 1.0
    offset: float = 0.0
    nothing: float = 0.5

    def __call__(self, log_probability: float) -> float:
        """Calibrated probability, in [0, 1]."""
        p = min(max(math.exp(min(log_probability, 0.0)), 1e-9), 1 - 1e-6)
        return 1.0 / (1.0 + math.exp(-(self.slope * math.log(p / (1 - p)) + self.offset)))


@dataclass(frozen=True, slots=True)
class _Table:
    """The catalogue as the network sees it: its relations, what the network makes of them, and whether it was trained on all."""

    relations: tuple[Relation, ...]
    index: dict[str, int]
    choices: Choices
    trained: bool

    def named(self, chain: Sequence[int]) -> Chain:
        """Relation ids of indices."""
        return tuple(self.relations[at].id for at in chain)


class TrainedPlanner:
    """Plans questions and scores chains with the trained network.

    Args:
        catalogue: The relations to plan with; relations added to it later are seen.
        folder: Folder of ``planner.safetensors`` and ``config.json``; the weights that ship with the package if None.
        plans: Most plans returned for a question.

    Raises:
        ModelNotFound: If the folder holds no weights.
    """

    def __init__(self, catalogue: Catalogue, folder: str | Path | None = None, *, plans: int = 5) -> None:
        self._catalogue = catalogue
        self._folder = Path(folder) if folder is not None else shipped_weights()
        if not (self._folder / "config.json").is_file():
            raise ModelNotFound(
                f"There are no planner weights in {str(self._folder)!r}.", "Train them with: memedit train planner"
            )
        self._plans = plans
        self._lock = threading.Lock()
        self._kept: dict[str, Tensor] = {}
        self._parts: tuple[PlannerNet, Vocabulary, Describer] | None = None
        self._table: _Table | None = None
        config = json.loads((self._folder / "config.json").read_text("utf-8"))
        self._sizes: dict[str, int] = config["net"]
        self._trained = frozenset(config.get("relations", ()))
        self._unseen_bonus = float(config.get("unseen_bonus", 0.0))
        self.calibration = Calibration(**config.get("calibration", {}))

    def plan(self, questions: Sequence[tuple[str, MemoryView]]) -> list[list[Plan]]:
        """Hypotheses for each (question, view), most confident first; an empty list means "not a chain"."""
        import torch

        from memedit.planner_search import best_spans, search

        plans: list[list[Plan]] = [[] for _ in questions]
        with torch.inference_mode():
            net, table = self._ready()
            for rows, tokens in self._batches([question for question, _ in questions]):
                encoded = self._read([questions[row][0] for row in rows], tokens)
                spans = best_spans(net.span_logits(encoded, tokens.mask))
                if not spans.first.any():
                    continue
                memories = net.memories(encoded, spans.first, spans.last)
                # Where some relations were never trained on, the right chain may stand far down: see `_look_again`.
                width, keep = (4, self._plans) if table.trained else (6, 2 * self._plans)
                nothing = self.calibration.nothing
                guesses = search(net, memories, tokens.mask, table.choices, width, keep + 1, nothing=nothing)
                for at, row in enumerate(rows):
                    first, last = int(spans.first[at]), int(spans.last[at])
                    certainty = float(spans.log_probability[at])
                    offsets = tokens.offsets[at]
                    span = _trimmed(questions[row][0], (offsets[first][0], offsets[last][1]))
                    if first == 0 or any(math.exp(g.score) > nothing for g in guesses[at] if not g.chain):
                        continue
                    text = questions[row][0][slice(*span)]
                    found = [
                        Plan(text, span, table.named(guess.chain), self.calibration(guess.score + certainty))
                        for guess in guesses[at]
                        if guess.chain
                    ]
                    plans[row] = self._look_again(questions[row][0], found)[: self._plans]
        return plans

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        """For each request, the calibrated probability in [0, 1] of each of its chains.

        It is the probability that the question is about the request's span, times that of the chain from there.
        """
        import torch

        from memedit.planner_search import overlap_probability, score

        scores: list[list[float]] = [[] for _ in requests]
        with torch.inference_mode():
            net, table = self._ready()
            for rows, tokens in self._batches([request.question for request in requests]):
                ends = torch.tensor([tokens.tokens_of(at, requests[row].span) for at, row in enumerate(rows)])
                encoded = self._read([requests[row].question for row in rows], tokens)
                about = overlap_probability(net.span_logits(encoded, tokens.mask), ends[:, 0], ends[:, 1]).log()
                memories = net.memories(encoded, ends[:, 0], ends[:, 1])
                chains = [[self._indexed(table, chain) for chain in requests[row].chains] for row in rows]
                logs = score(net, memories, tokens.mask, table.choices, chains)
                for row, certainty, some in zip(rows, about.tolist(), logs, strict=True):
                    scores[row] = [self.calibration(log + certainty) for log in some]
        return scores

    def _look_again(self, question: str, plans: list[Plan]) -> list[Plan]:
        """The plans with their probability shared out anew where one has a relation that the network was not trained on.

        The sentence encoder, which knows no relations, says how near each plan's nested question is to the question.
        """
        if all(relation in self._trained for plan in plans for relation in plan.relations):
            return plans
        import torch

        _, _, describer = self._loaded()
        vectors = describer.embed([question, *(self._nested(plan) for plan in plans)])
        before = torch.tensor([plan.confidence for plan in plans], dtype=torch.float64)
        weights = before * (LIKENESS * (vectors[1:] @ vectors[0])).double().exp()
        after = (weights * (before.sum() / weights.sum())).clamp(max=1.0).tolist()
        again = [plan._replace(confidence=probability) for plan, probability in zip(plans, after, strict=True)]
        return sorted(again, key=lambda plan: -plan.confidence)

    def _nested(self, plan: Plan) -> str:
        """What a plan asks, as one question: "What is the capital of the country of Ada Lovelace?"."""
        *inner, last = (self._catalogue.get(relation) for relation in plan.relations)
        denoted = plan.start
        for relation in inner:
            denoted = relation.denote(denoted)
        return last.ask(denoted)

    def _batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tokens]]:
        """Rows of `texts` of about the same length, and their tokens."""
        _, vocabulary, _ = self._loaded()
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for at in range(0, len(order), BATCH):
            rows = order[at : at + BATCH]
            yield rows, vocabulary.tokenise([texts[row] for row in rows])

    def _read(self, texts: Sequence[str], tokens: Tokens) -> Tensor:
        """Encode a batch; a question is planned and then its chains are scored, and it is read once for both."""
        import torch
        from torch.nn.functional import pad

        known = [self._kept.get(text) for text in texts]
        width = tokens.mask.shape[1]
        if all(one is not None for one in known):
            kept = [one for one in known if one is not None]
            return torch.stack([pad(one, (0, 0, 0, width - len(one))) for one in kept])
        net, vocabulary, _ = self._loaded()
        encoded = net.read(vocabulary.look_up(tokens.ids), tokens.mask)
        read = {text: row[mask] for text, row, mask in zip(texts, encoded, tokens.mask, strict=True)}
        self._kept = dict([*self._kept.items(), *read.items()][-_KEPT:])  # whole: other threads read it meanwhile
        return encoded

    def _indexed(self, table: _Table, chain: Chain) -> tuple[int, ...]:
        return tuple(table.index[self._catalogue.get(relation).id] for relation in chain)

    def _loaded(self) -> tuple[PlannerNet, Vocabulary, Describer]:
        if self._parts is None:
            with self._lock:
                if self._parts is None:
                    self._parts = self._load()
        return self._parts

    def _load(self) -> tuple[PlannerNet, Vocabulary, Describer]:
        import torch
        from safetensors.torch import load_file

        from memedit.memory.minilm import quicken
        from memedit.planner_net import NetConfig, PlannerNet
        from memedit.planner_words import Describer, Vocabulary

        vocabulary = Vocabulary.installed()
        # Not on the device "meta": that imports PyTorch's compiler, which takes a second.
        with torch.random.fork_rng(devices=()):
            net = PlannerNet(NetConfig(**self._sizes))
        weights = load_file(self._folder / "planner.safetensors")
        net.load_state_dict({name: value.float() for name, value in weights.items()}, assign=True)
        quicken(net)
        known = self._folder / "descriptions.safetensors"
        return net.eval(), vocabulary, Describer(vocabulary, load_file(known) if known.is_file() else {})

    def _ready(self) -> tuple[PlannerNet, _Table]:
        """The network, and the table of the catalogue as it is now."""
        import torch

        net, _, describer = self._loaded()
        relations = tuple(self._catalogue)
        table = self._table
        if table is None or table.relations != relations:
            vectors = describer.describe([description(relation) for relation in relations])
            unseen = [0.0 if relation.id in self._trained else self._unseen_bonus for relation in relations]
            choices = net.choices(vectors, torch.tensor(unseen))
            index = {relation.id: at for at, relation in enumerate(relations)}
            table = _Table(relations, index, choices, trained=self._trained.issuperset(index))
            self._table = table
        return net, table


def _trimmed(text: str, span: Span) -> Span:
    """The span without an article at its end, which begins what comes after the name ("developed Windows a citizen of")."""
    article = _LAST_ARTICLE.search(text, *span)
    return span if article is None else (span[0], article.start())


def description(relation: Relation) -> tuple[str, ...]:
    """The texts that describe a relation to the network, with ``{subject}`` for the subject."""
    texts = (relation.label, relation.phrase, relation.question)
    return tuple(dict.fromkeys((*texts, *relation.phrases[:_FEW], *relation.questions[:_FEW])))


def shipped_weights() -> Path:
    """The folder of the weights that ship with the package."""
    return Path(str(files("memedit").joinpath("weights", "planner")))
