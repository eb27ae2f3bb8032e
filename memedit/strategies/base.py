"""What a strategy is: a generator that yields what it needs and returns an `Answer`.

A strategy never calls a model, an embedder or an index. It yields a request, is sent the result, and goes on; a
driver (`memedit.strategies.driver`) serves the requests, for one question or for hundreds side by side. Exact look-ups
in a `MemoryView` are reads of in-process state and are made directly.

Use the helper functions with ``yield from``; they give each request its result type:

    completion = yield from complete(prompt)
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from memedit.answer import Answer, Hop
from memedit.memory.fact import Fact, Hit
from memedit.models.base import Completion, Prompt, Sampling, Score

if TYPE_CHECKING:
    from memedit.memory.embedder import Vectors
    from memedit.memory.memory import MemoryView


class Scoped(NamedTuple):
    """A fact and how probably a text is about it.

    Attributes:
        fact: The fact.
        probability: Calibrated probability that the text is in the fact's scope, in [0, 1].
        in_scope: Whether the probability reaches the classifier's own threshold. The driver fills it in.
    """

    fact: Fact
    probability: float
    in_scope: bool = False


class Size(NamedTuple):
    """How long a prompt is.

    Attributes:
        tokens: Its tokens; from servers that do not tell them, an estimate on the high side.
        context_length: Most tokens of prompt and completion that the base model takes.
    """

    tokens: int
    context_length: int


class Plan(NamedTuple):
    """A decomposition of a question: a hypothesis, not an order.

    Attributes:
        start: The start entity, as the question names it.
        span: Where it stands in the question (start, end), in characters.
        relations: The chain of relation ids to follow from it, one to four.
        confidence: Calibrated probability that this is the question's chain, in [0, 1].
        by: Who made it: the trained planner, or the base model under a schema.
    """

    start: str
    span: tuple[int, int]
    relations: tuple[str, ...]
    confidence: float
    by: Literal["catalogue", "model"] = "catalogue"


@dataclass(frozen=True, slots=True)
class Complete:
    """Ask the base model. Result: `Completion`.

    Attributes:
        prompt: The prompt.
        sampling: How to decode.
        counterfactual: Whether to ask the counterfactual model instead, which may be the base model.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    counterfactual: bool = False


@dataclass(frozen=True, slots=True)
class Rate:
    """Ask the base model how likely it finds a continuation. Result: `Score`, or None where the model cannot tell."""

    prompt: Prompt
    continuation: str


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Ask the scope classifier which facts a text is about. Result: list of `Scoped`, likeliest first, at most k."""

    view: MemoryView
    text: str
    k: int = 5


@dataclass(frozen=True, slots=True)
class Nearest:
    """Ask for the facts most similar to a text, whatever its scope. Result: list of `Hit`, best first, at most k."""

    view: MemoryView
    text: str
    k: int = 1


@dataclass(frozen=True, slots=True)
class Embed:
    """Ask the embedder of the view's memory. Result: float32 [len(texts), dimension], rows of length 1."""

    view: MemoryView
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Measure:
    """Ask how many tokens a prompt has. Result: `Size`."""

    prompt: Prompt


@dataclass(frozen=True, slots=True)
class MakePlans:
    """Ask the planner for decompositions of a question. Result: list of `Plan`, most confident first."""

    view: MemoryView
    question: str


@dataclass(frozen=True, slots=True)
class Read:
    """Ask the scope classifier and the planner about a question, neither of which needs the other.

    Result: what `Retrieve` and what `MakePlans` give for it, as a pair.
    """

    view: MemoryView
    question: str
    k: int = 5


@dataclass(frozen=True, slots=True)
class ScorePaths:
    """Ask the path scorer how well chains of relations fit a question. Result: list of float, one a chain.

    Attributes:
        question: The question.
        span: The start entity's place in it (start, end), in characters.
        chains: Chains of relation ids from that entity.
    """

    question: str
    span: tuple[int, int]
    chains: tuple[tuple[str, ...], ...]


Request = Complete | Rate | Retrieve | Nearest | Embed | Measure | MakePlans | Read | ScorePaths

T = TypeVar("T")
Step = Generator[Request, Any, T]
"""A part of a strategy that comes to a T; used with ``yield from``."""

Steps = Step[Answer]
"""A whole strategy at work on one question."""


class Resolution(NamedTuple):
    """What the memory has to say about a question.

    Attributes:
        facts: The edits in scope; empty where there are none.
        hops: The chain they make with the base model's beliefs; empty for free-text facts.
        probability: How sure the strategy is of `facts`, in [0, 1].
        planner: Who planned the hops: ``paths`` (edited facts), ``catalogue``, ``scope``, ``model``, or "".
        question: In a conversation, the question that was resolved where it was completed from the turns before it; else "".
    """

    facts: tuple[Fact, ...] = ()
    hops: tuple[Hop, ...] = ()
    probability: float = 1.0
    planner: str = ""
    question: str = ""


class Strategy(Protocol):
    """A way to answer questions from a base model and an edit memory."""

    @property
    def name(self) -> str:
        """The name it is selected by."""
        ...

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """Answer `question` from what `view` shows of the memory."""
        ...


def complete(prompt: Prompt, sampling: Sampling = Sampling(), *, counterfactual: bool = False) -> Step[Completion]:
    """``completion = yield from complete(prompt)``."""
    result: Completion = yield Complete(prompt, sampling, counterfactual)
    return result


def rate(prompt: Prompt, continuation: str) -> Step[Score | None]:
    """``score = yield from rate(prompt, continuation)``."""
    result: Score | None = yield Rate(prompt, continuation)
    return result


def retrieve(view: MemoryView, text: str, k: int = 5) -> Step[Sequence[Scoped]]:
    """``scoped = yield from retrieve(view, text, k)``."""
    result: Sequence[Scoped] = yield Retrieve(view, text, k)
    return result


def nearest(view: MemoryView, text: str, k: int = 1) -> Step[Sequence[Hit]]:
    """``hits = yield from nearest(view, text, k)``."""
    result: Sequence[Hit] = yield Nearest(view, text, k)
    return result


def embed(view: MemoryView, texts: Sequence[str]) -> Step[Vectors]:
    """``vectors = yield from embed(view, texts)``."""
    result: Vectors = yield Embed(view, tuple(texts))
    return result


def measure(prompt: Prompt) -> Step[Size]:
    """``size = yield from measure(prompt)``."""
    result: Size = yield Measure(prompt)
    return result


def read(view: MemoryView, question: str, k: int = 5) -> Step[tuple[list[Scoped], list[Plan]]]:
    """``scoped, plans = yield from read(view, question)``."""
    result: tuple[list[Scoped], list[Plan]] = yield Read(view, question, k)
    return result


def make_plans(view: MemoryView, question: str) -> Step[Sequence[Plan]]:
    """``plans = yield from make_plans(view, question)``."""
    result: Sequence[Plan] = yield MakePlans(view, question)
    return result


def score_paths(question: str, span: tuple[int, int], chains: Sequence[tuple[str, ...]]) -> Step[Sequence[float]]:
    """``scores = yield from score_paths(question, span, chains)``."""
    result: Sequence[float] = yield ScorePaths(question, span, tuple(chains))
    return result


@runtime_checkable
class Resolver(Protocol):
    """A strategy that can tell the edits and hops behind a question apart from wording the answer."""

    @property
    def name(self) -> str:
        """See `Strategy.name`."""
        ...

    def resolve(self, question: str, view: MemoryView) -> Step[Resolution]:
        """The edits in scope of `question` and the chain they make."""
        ...
