"""A million facts for the scale benchmark: the relations and objects of real triples, with the subjects varied.

A subject is varied by joining the first half of one real subject's name with the second half of another's, of the
same relation ("Allan Peiper" and "Paul Mounsey" give "Allan Mounsey"); the object is the first one's. So the wordings
are the catalogue's, the names are made of real names, and a relation's facts lie together, as they do in a real memory.

Embedding two million texts takes two cores hours. The first `SAMPLE` facts are embedded for real, and so are all questions
asked of them. The vectors of every other fact are derived from the real ones of its relation (`VectorMaker`). What is
measured about recall is measured on the really embedded facts, hidden among the others.

Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from memedit.memory.catalogue import Catalogue

if TYPE_CHECKING:
    from memedit.memory.embedder import Embedder
    from memedit.memory.fact import FactInput

Vectors = npt.NDArray[np.float32]

SAMPLE = 20_000
"""How many facts are embedded for real."""

PARENTS = 6
"""How many real vectors a derived one comes from (see `VectorMaker`)."""

_BLOCK = 2_000
_MISSED = 1_000
"""Draws in a row that give nothing new before subjects are numbered."""


class Triple(NamedTuple):
    """One fact to be made: the names, and the relation's id."""

    subject: str
    relation: str
    object: str


class FactSource:
    """Makes facts out of real triples, the same ones for the same seed.

    Args:
        folder: ParaRel's `trex_lms_vocab`: one file of triples a relation, named by the relation's id.
        seed: Seed of every choice.

    Raises:
        FileNotFoundError: There are no triples in the folder.
    """

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.catalogue = Catalogue.default()
        self._random = random.Random(seed)
        self._real: dict[str, list[tuple[str, str]]] = {}
        for file in sorted(folder.glob("P*.jsonl")):
            rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
            if file.stem in self.catalogue:
                self._real[file.stem] = [(row["sub_label"].strip(), row["obj_label"].strip()) for row in rows]
        if not self._real:
            raise FileNotFoundError(f"There are no triples in {folder}.")
        self._relations = sorted(self._real)
        self._used: set[tuple[str, str]] = set()

    def sha256(self) -> str:
        """The digest of the triples that the facts are made of."""
        return blake2b(json.dumps(self._real, sort_keys=True).encode(), digest_size=32).hexdigest()

    def triples(self, count: int) -> list[Triple]:
        """So many more triples, no two of one subject and relation; subjects are numbered where the names give no more."""
        made: list[Triple] = []
        missed, numbered = 0, False
        while len(made) < count:
            relation = self._random.choice(self._relations)
            rows = self._real[relation]
            (first, obj), (second, _) = self._random.choice(rows), self._random.choice(rows)
            subject = vary(first, second)
            numbered = numbered or missed > _MISSED
            if numbered:
                subject = f"{subject} {len(self._used)}"
            slot = (subject.casefold(), relation)
            if subject.casefold() == obj.casefold() or slot in self._used:
                missed += 1
                continue
            missed = 0
            self._used.add(slot)
            made.append(Triple(subject, relation, obj))
        return made

    def fact(self, triple: Triple) -> FactInput:
        """A triple as a caller of memedit gives it."""
        from memedit.memory.fact import FactInput

        return FactInput(subject=triple.subject, relation=triple.relation, object=triple.object)

    def texts(self, triple: Triple) -> tuple[str, str]:
        """The statement and the question that the fact is found by."""
        relation = self.catalogue.get(triple.relation)
        return relation.state(triple.subject, triple.object), relation.ask(triple.subject)

    def asked(self, triple: Triple, place: int) -> str:
        """A question for the fact's slot, in a wording that is not the one it is found by; `place` chooses which."""
        relation = self.catalogue.get(triple.relation)
        others = [wording for wording in relation.questions if wording != relation.question] or [relation.question]
        return others[place % len(others)].replace("{subject}", triple.subject)


def vary(first: str, second: str) -> str:
    """The first half of one name with the second half of another: of their words, or of their letters."""
    ones, others = first.split(), second.split()
    if len(ones) > 1 and len(others) > 1:
        return " ".join([*ones[: (len(ones) + 1) // 2], *others[len(others) // 2 :]])
    if len(ones) > 1:
        return " ".join([*ones[: len(ones) // 2], second])
    return first[: (len(first) + 1) // 2] + second[len(second) // 2 :].lower()


class VectorMaker:
    """Vectors for any number of facts, from the really embedded ones.

    With m the mean of the relation's real vectors, and a_1 ... a_6 of them drawn at random, a derived vector is
    ``m + sum_j g_j (a_j - m)``, scaled to length 1, where the weights g are drawn from the unit sphere, none negative. Since their
    squares sum to 1, the derived vectors have about the spread of the real ones in every direction, and do not crowd in the
    middle as averages would. The same parents and weights serve a fact's statement and its question.

    Held against really embedded facts: the median cosine of a real statement to the nearest of 1,500 others is 0.575 where
    those are real and 0.581 where they are derived. A derived one's nearest parent is at 0.81; two real statements whose subjects share
    a half are at 0.72. So the derived ones are, if anything, the harder to tell apart.

    Args:
        real: float32 [s, 2, d], the vectors of statement and question of the embedded facts.
        relations: The relations of those s facts.
        seed: Seed of every choice.
    """

    def __init__(self, real: Vectors, relations: Sequence[str], *, seed: int = 0) -> None:
        self._real = real
        self._rng = np.random.default_rng(seed)
        self._members = {
            relation: np.array([place for place, other in enumerate(relations) if other == relation])
            for relation in set(relations)
        }
        self._means = {relation: real[rows].mean(axis=0) for relation, rows in self._members.items()}

    def derive(self, relations: Sequence[str]) -> Vectors:
        """float32 [n, 2, d]: vectors for facts of these relations."""
        made = np.empty((len(relations), *self._real.shape[1:]), np.float32)
        names = np.array(relations)
        for relation in np.unique(names):
            places = np.flatnonzero(names == relation)
            members, mean = self._members[str(relation)], self._means[str(relation)]
            weights = np.abs(self._rng.standard_normal((len(places), PARENTS), dtype=np.float32))
            weights /= np.linalg.norm(weights, axis=1, keepdims=True)
            parents = self._rng.choice(members, (len(places), PARENTS))
            made[places] = mean
            for parent, weight in zip(parents.T, weights.T, strict=True):
                made[places] += weight[:, np.newaxis, np.newaxis] * (self._real[parent] - mean)
        made /= np.linalg.norm(made, axis=2, keepdims=True)
        return made


def embed(embedder: Embedder, texts: Sequence[str], cache: Path, status: Callable[[str, int, int], None]) -> Vectors:
    """Embed texts for real, or take them from `cache`, a folder of what was embedded before, block by block.

    Returns:
        float32 [n, d].
    """
    made = np.empty((len(texts), embedder.dimension), np.float32)
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        digest = blake2b("\n".join((embedder.name, *block)).encode(), digest_size=16).hexdigest()
        file = cache / f"vectors-{digest}.npy"
        if not file.exists():
            status("embedding", start, len(texts))
            np.save(file, embedder.encode(block))
        made[start : start + _BLOCK] = np.load(file)
    return made
