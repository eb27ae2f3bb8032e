"""Made-up facts and questions for the speed benchmark: invented names under the catalogue's own relations.

The same seed gives the same facts. Knows nothing of what is measured with them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from memedit.memory.catalogue import Catalogue
from memedit.memory.embedder import Embedder
from memedit.memory.fact import FactInput, Relation

Vectors = npt.NDArray[np.float32]


def _words(text: str) -> list[str]:
    return text.split()


_GIVEN = _words(
    "Aldric Amara Anselm Berta Bruna Casimir Cyril Dalia Dorothea Edmund Emeka Farida Fiona Goran Gustav Hana Helena "
    "Ismail Ivo Jadwiga Jolanta Kenji Kofi Leonor Lucia Marek Milan Nadia Noor Octavio Petra Quentin Rosalind Sanjay "
    "Tamsin Ulrich Veronika Wen Ximena Yusuf Zelda"
)
_STEMS = _words(
    "Alder Ash Bald Beau Black Bran Bright Brook Cald Car Clay Dal Dun East Fair Free Gold Gren Hart Hazel Holm Kings "
    "Lang Lind Long Mar Mel Nor Oak Pem Quin Red Ros Sand Sher Stan Stein Strat Thorn Wal West Win Wolf York"
)
_ENDINGS = _words(
    "berg bridge bury by dale ell er field ford ham hurst land ley man mont more son ston ton well wood worth"
)
_SETTINGS = ("{}", "{}", "{}", "{} City", "New {}", "Port {}", "{} Falls", "North {}", "Lake {}")
_ADJECTIVES = _words("Silent Broken Golden Last Hidden Crimson Distant Seventh Burning Hollow Quiet Bitter")
_NOUNS = _words("River Garden Empire Mirror Winter Harbor Orchard Signal Lantern Voyage Kingdom Letter")
_FIRMS = _words("Corporation Institute University Records Airlines Motors Society Press Foundation United")
_PLACE_KINDS = frozenset({"place", "city", "country", "continent"})
_FIRM_KINDS = frozenset({"organization", "office", "product"})


class FactMaker:
    """Invents facts whose subjects and objects are shared, so that they form a graph.

    Args:
        seed: The same seed gives the same facts, in the same order.
        entities: How many names of each kind there are to draw from.
        catalogue: The relations.

    Example:
        >>> facts = FactMaker(seed=1).facts(3)
        >>> [fact.relation in Catalogue.default() for fact in facts]
        [True, True, True]
    """

    def __init__(self, *, seed: int, entities: int = 5_000, catalogue: Catalogue | None = None) -> None:
        self._random = random.Random(seed)
        self.catalogue = catalogue or Catalogue.default()
        self.relations = sorted(self.catalogue, key=lambda relation: relation.id)
        self._pools = {
            kind: [make() for _ in range(entities)]
            for kind, make in (
                ("person", self._person),
                ("place", self._place),
                ("firm", self._firm),
                ("work", self._work),
                ("thing", self._thing),
            )
        }
        self._used: set[tuple[str, str]] = set()

    @property
    def names(self) -> frozenset[str]:
        """Every name that there is to draw from."""
        return frozenset(name for pool in self._pools.values() for name in pool)

    def facts(self, count: int) -> list[FactInput]:
        """So many facts, each of a (subject, relation) that no earlier one had."""
        made: list[FactInput] = []
        while len(made) < count:
            relation = self._random.choice(self.relations)
            subject, obj = self._name(relation.subject_types), self._name(relation.object_types)
            if subject != obj and (subject, relation.id) not in self._used:
                self._used.add((subject, relation.id))
                made.append(FactInput(subject=subject, relation=relation.id, object=obj))
        return made

    def question(self, fact: FactInput) -> str:
        """A question for the fact's slot, in a wording of the catalogue other than the one it is indexed by."""
        relation = self.catalogue.get(fact.relation or "")
        return self._random.choice(relation.questions or (relation.question,)).replace("{subject}", fact.subject or "")

    def two_hop_question(self, fact: FactInput) -> str:
        """A question about what the fact leads to: a further relation of its object."""
        relation = self.catalogue.get(fact.relation or "")
        following = [then for then in self.relations if relation.object_types & then.subject_types] or self.relations
        return self._random.choice(following).ask(relation.denote(fact.subject or ""))

    def _name(self, types: frozenset[str] | frozenset[object]) -> str:
        kinds = {_pool(str(kind)) for kind in types} or set(self._pools)
        return self._random.choice(self._pools[self._random.choice(sorted(kinds))])

    def _stem(self) -> str:
        return self._random.choice(_STEMS) + self._random.choice(_ENDINGS)

    def _person(self) -> str:
        middle = self._random.choice(("", "", f" {self._random.choice(_STEMS)[0]}."))
        return f"{self._random.choice(_GIVEN)}{middle} {self._stem()}"

    def _place(self) -> str:
        return self._random.choice(_SETTINGS).format(self._stem())

    def _firm(self) -> str:
        return f"{self._stem()} {self._random.choice(_FIRMS)}"

    def _work(self) -> str:
        return f"The {self._random.choice(_ADJECTIVES)} {self._random.choice(_NOUNS)} of {self._stem()}"

    def _thing(self) -> str:
        return self._stem() + self._random.choice(("ism", "ish", "ese", " studies", " music"))


def _pool(kind: str) -> str:
    if kind in _PLACE_KINDS:
        return "place"
    if kind in _FIRM_KINDS:
        return "firm"
    return kind if kind in ("person", "work") else "thing"


class BlendingEmbedder:
    """Fills a memory quickly with vectors that lie where real ones do.

    A sample of texts gets its real vectors. Every other text gets a blend of two real vectors of texts of one
    wording (the same relation's statements, or questions), and a little noise, all chosen by the text's hash. Uniform
    random vectors would not do: they have no clusters, as vectors of texts have, and mislead the index.

    Args:
        embedder: The real one, whose name the vectors are stored under.
        facts: The sample.
        catalogue: The relations.
    """

    def __init__(self, embedder: Embedder, facts: Sequence[FactInput], catalogue: Catalogue) -> None:
        self.name = embedder.name
        self.dimension = embedder.dimension
        wordings = list(_wordings(facts, catalogue))
        texts = list(dict.fromkeys(text for wording in wordings for text in wording))
        self._real = dict(zip(texts, embedder.encode(texts), strict=True))
        self._groups = [np.stack([self._real[text] for text in wording]) for wording in wordings]
        noise = np.random.default_rng(0).standard_normal((4096, self.dimension), dtype=np.float32)
        self._noise = 0.25 * noise / np.linalg.norm(noise, axis=1, keepdims=True)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dimension], rows of length 1."""
        rows = np.stack([known if (known := self._real.get(text)) is not None else self._blend(text) for text in texts])
        vectors: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return vectors

    def _blend(self, text: str) -> Vectors:
        chance = np.frombuffer(blake2b(text.encode(), digest_size=20).digest(), np.uint32)
        group = self._groups[chance[0] % len(self._groups)]
        one, other = group[chance[1] % len(group)], group[chance[2] % len(group)]
        weight = np.float32(0.5 + 0.5 * chance[3] / 2**32)
        blend: Vectors = weight * one + (1 - weight) * other + self._noise[chance[4] % len(self._noise)]
        return blend


def _wordings(facts: Sequence[FactInput], catalogue: Catalogue) -> Iterator[list[str]]:
    """The statements of each relation's facts, and their questions."""
    by_relation: dict[str, list[FactInput]] = {}
    for fact in facts:
        by_relation.setdefault(fact.relation or "", []).append(fact)
    for relation_id, members in by_relation.items():
        relation: Relation = catalogue.get(relation_id)
        yield [relation.state(fact.subject or "", fact.object or "") for fact in members]
        yield [relation.ask(fact.subject or "") for fact in members]
