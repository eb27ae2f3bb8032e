"""What counts as right, and how sure a figure is: small functions shared by every benchmark.

Exact match after normalisation, never "contains". Knows nothing of data files, models or reports; every function takes
plain strings, booleans and sets.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

Z_95 = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution: two-sided 95%."""

_DROPPED = re.compile(r"['’ʼ`.]")
_ARTICLE = re.compile(r"^(?:(?:the|an|a) )+(?=.)")


def normalise(text: str) -> str:
    """The form in which two answers are compared.

    NFKC and case folded; apostrophes and full stops dropped ("U.S." = "US"), other punctuation read as a space
    ("Rock-n-roll" = "rock n roll"), white space collapsed, leading English articles dropped. A text of nothing but
    punctuation stays as it is. Accents and symbols are kept: they tell names apart.

    >>> normalise(" The  Beatles.")
    'beatles'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    spaced = "".join(
        " " if unicodedata.category(character).startswith("P") else character for character in _DROPPED.sub("", folded)
    )
    return _ARTICLE.sub("", " ".join(unicodedata.normalize("NFKC", spaced).split())) or folded.strip()


def matches(text: str, accepted: Iterable[str]) -> bool:
    """Whether `text` is one of the `accepted` names, by normalised exact match.

    >>> matches("the UK", ["United Kingdom", "U.K."])
    True
    >>> matches("It is in the UK", ["United Kingdom", "U.K."])
    False
    """
    said = normalise(text)
    return any(said == normalise(name) for name in accepted)


def chain_right(objects: Sequence[str], chain: Sequence[Collection[str]]) -> bool:
    """Whether an answer's hops are the gold chain, as PokeMQA's hop-wise accuracy has it (Gu et al. 2024).

    right  <=>  len(objects) = len(chain)  and  for all i: objects[i] in chain[i]

    where membership is normalised exact match. Neither a hop more nor a hop less will do, nor the right answer by
    another way. (PokeMQA also asks for the final answer to be right; so does `Marks.chain`.)

    Args:
        objects: Where each hop of the answer arrived, in order.
        chain: The accepted names of each gold hop's object, in order.
    """
    return len(objects) == len(chain) and all(
        matches(found, names) for found, names in zip(objects, chain, strict=True)
    )


def edits_right(used: Set[object], required: Set[object], allowed: Set[object]) -> bool:
    """Whether an answer used every edit it had to, and none it had not to.

    right  <=>  required ⊆ used ⊆ required ∪ allowed

    Args:
        used: The edits the answer says it used.
        required: The case's own edits.
        allowed: Edits of other cases that state a step of the same gold chain.
    """
    return required <= used <= required | allowed


@dataclass(frozen=True, slots=True)
class Marks:
    """How one answer was marked.

    Attributes:
        answer: The answer is an accepted one.
        chain: The answer is an accepted one and its hops are the gold chain.
        edits: The edits it used are the right ones.
    """

    answer: bool
    chain: bool
    edits: bool


class Share(NamedTuple):
    """A proportion of `total`; None where there was nothing to count.

    >>> Share(9, 10).value
    0.9
    """

    hits: float
    total: int

    @property
    def value(self) -> float | None:
        """The share itself."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% Wilson score interval (Wilson 1927), which stays in [0, 1] and does not collapse at 0 or 1.

        (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)

        It takes the counted things as independent; the three questions of one case are not, so that an interval over
        questions is somewhat too narrow.
        """
        if not self.total:
            return None
        n, p, z2 = self.total, self.hits / self.total, Z_95**2
        centre = p + z2 / (2 * n)
        spread = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        low, high = (centre - spread) / (1 + z2 / n), (centre + spread) / (1 + z2 / n)
        return max(0.0, low), min(1.0, high)


def share(marks: Iterable[bool]) -> Share:
    """How many of `marks` are true, of how many.

    >>> share([True, False, True])
    Share(hits=2, total=3)
    """
    marks = list(marks)
    return Share(sum(marks), len(marks))


def case_share(cases: Iterable[Sequence[bool]]) -> Share:
    """The share of cases of which any question is marked true: MQuAKE's multi-hop accuracy (Zhong et al. 2023).

    (1/|C|) Σ_{c in C} [ ∃ q in c: mark(q) ]

    >>> case_share([[False, True, False], [False, False, False]])
    Share(hits=1, total=2)
    """
    return share(any(questions) for questions in cases)


def question_share(cases: Iterable[Sequence[bool]]) -> Share:
    """The share of all questions that are marked true, whichever case they belong to.

    >>> question_share([[False, True, False], [False, False, False]])
    Share(hits=1, total=6)
    """
    return share(mark for questions in cases for mark in questions)


def multi_hop_figures(cases: Sequence[Sequence[Marks]]) -> dict[str, object]:
    """The accuracies of a set of multi-hop cases, each with its 95% interval.

    Args:
        cases: For each case the marks of its questions.

    Returns:
        JSON-ready: ``cases``, ``questions``, and ``multi_hop_accuracy``, ``hop_wise_accuracy`` and
        ``edit_wise_accuracy`` (a case counts when any of its questions is right) with ``..._per_question`` beside
        each, and ``intervals`` by the same names. A figure over nothing is None.
    """
    shares: dict[str, Share] = {}
    for name, marks in (
        ("multi_hop_accuracy", [[question.answer for question in case] for case in cases]),
        ("hop_wise_accuracy", [[question.chain for question in case] for case in cases]),
        ("edit_wise_accuracy", [[question.edits for question in case] for case in cases]),
    ):
        shares[name] = case_share(marks)
        shares[f"{name}_per_question"] = question_share(marks)
    return {
        "cases": len(cases),
        "questions": sum(len(case) for case in cases),
        **with_intervals(shares),
    }


def with_intervals(shares: dict[str, Share]) -> dict[str, object]:
    """The values of `shares` by name, and their ``intervals`` by the same names; JSON-ready."""
    values: dict[str, object] = {name: part.value for name, part in shares.items()}
    return {**values, "intervals": {name: part.interval for name, part in shares.items()}}
