"""The relation catalogue: every relation by id, with the wordings that state it, ask for it and name its object.

`Catalogue.default()` holds the relations of ``relations.toml``, most of them Wikidata properties. It is open: `define`
adds a relation, or makes one up from a bare name, and it can be used at once. Additions live in a layer of their own,
so what one memory defines no other sees.

Knows nothing of stored facts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import NamedTuple, cast

from memedit.errors import InvalidFact, UnknownRelation
from memedit.memory.entities import normalise
from memedit.memory.fact import FREE_TEXT, Relation
from memedit.memory.naming import ObjectPattern
from memedit.memory.parsing import TemplateParser


class Triple(NamedTuple):
    """What a plain sentence says.

    Attributes:
        subject: Name of the subject as written.
        relation_id: Id of the relation.
        object: Name of the object as written.
    """

    subject: str
    relation_id: str
    object: str


class Catalogue:
    """Relations by id, label or alias.

    Args:
        parent: A catalogue to build on; it is never changed, and what is defined here wins over it.

    Examples:
        >>> catalogue = Catalogue.default()
        >>> catalogue.get("P36").ask("France")
        'What is the capital of France?'
        >>> catalogue.parse("The capital of France is Lyon.")
        Triple(subject='France', relation_id='P36', object='Lyon')
        >>> catalogue.define("favourite colour").state("Ada", "green")
        'The favourite colour of Ada is green.'
    """

    def __init__(self, parent: Catalogue | None = None) -> None:
        self._parent = parent
        self._relations: dict[str, Relation] = {}
        self._names: dict[str, str] = {}
        self._statements = TemplateParser()
        self._questions = TemplateParser(questions=True)

    @classmethod
    def default(cls) -> Catalogue:
        """The relations that ship with the package, under a new, empty layer for additions."""
        return cls(parent=_builtin())

    def get(self, relation_id: str) -> Relation:
        """The relation with this id.

        Raises:
            UnknownRelation: The catalogue does not have it; the message names the nearest.
        """
        found = self._find(relation_id)
        if found is None:
            nearest = self._nearest(relation_id)
            raise UnknownRelation(
                f"{relation_id!r} is not in the catalogue" + (f"; nearest: {nearest}." if nearest else "."),
                "Use an id or label of the catalogue, or add the relation with define().",
            )
        return found

    def resolve(self, name: str) -> Relation | None:
        """The relation with this id, label or alias, in any case ("CEO", "place_of_birth"), or None."""
        found = self._find(name)
        if found is not None or not name.strip():
            return found
        key = _name_key(name)
        layer: Catalogue | None = self
        while layer is not None:
            if (relation_id := layer._names.get(key)) is not None:
                return self._find(relation_id)
            layer = layer._parent
        return None

    def define(self, relation: Relation | str) -> Relation:
        """Add a relation, to be used at once.

        Args:
            relation: A relation, which replaces any of the same id; or a name ("favourite colour", "CEO_of",
                "works at"), which gets an id and general templates unless the catalogue knows it already.

        Returns:
            The relation as the catalogue now holds it.

        Raises:
            InvalidFact: The name is none, or a template lacks ``{subject}`` or ``{object}``.
        """
        if isinstance(relation, str):
            made = _relation_by_name(relation)
            known = self.resolve(relation) or self.resolve(made.label)
            if known is not None:
                return known
            relation = made
        _check(relation)
        self._add(relation)
        return relation

    def parse(self, sentence: str) -> Triple | None:
        """What a plain declarative sentence says, if one of the catalogue's statement templates fits it.

        A wrong reading is worse than none: anything doubtful (a clause in the place of a name, a negation, two
        relations that fit equally) gives None.
        """
        match = TemplateParser.best(sentence, [layer._statements for layer in self._layers()])
        return None if match is None else Triple(match.subject, match.relation.id, match.object)

    def parse_question(self, question: str) -> tuple[str, str] | None:
        """The subject and relation id that a single-hop question asks for, if a question template fits it."""
        match = TemplateParser.best(question, [layer._questions for layer in self._layers()])
        return None if match is None else (match.subject, match.relation.id)

    def __iter__(self) -> Iterator[Relation]:
        """Every relation, the parent's first; one that was redefined appears once, as redefined."""
        merged: dict[str, Relation] = {}
        for layer in reversed(list(self._layers())):
            merged.update(layer._relations)
        return iter(merged.values())

    def __len__(self) -> int:
        inherited = 0 if self._parent is None else len(self._parent)
        return inherited + sum(self._parent is None or key not in self._parent for key in self._relations)

    def __contains__(self, relation_id: object) -> bool:
        return isinstance(relation_id, str) and self._find(relation_id) is not None

    def _layers(self) -> Iterator[Catalogue]:
        layer: Catalogue | None = self
        while layer is not None:
            yield layer
            layer = layer._parent

    def _find(self, relation_id: str) -> Relation | None:
        for layer in self._layers():
            if (found := layer._relations.get(relation_id)) is not None:
                return found
        return None

    def _add(self, relation: Relation, aliases: tuple[str, ...] = (), pattern: ObjectPattern | None = None) -> None:
        self._relations[relation.id] = relation
        for name in (relation.id, relation.label, *aliases):
            self._names.setdefault(_name_key(name), relation.id)
        self._statements.add(relation, (relation.statement, *relation.statements), pattern)
        phrases = (relation.phrase, *relation.phrases)
        asked = [question for phrase in phrases for question in (f"What is {phrase}?", f"{phrase} is what?")]
        self._questions.add(relation, (relation.question, *relation.questions, *asked))

    def _nearest(self, name: str) -> str:
        names: dict[str, str] = {}
        for layer in self._layers():
            names = layer._names | names
        close = get_close_matches(_name_key(name), names, n=3, cutoff=0.5)
        relations = dict.fromkeys(names[key] for key in close)
        return ", ".join(f"{key} ({self.get(key).label})" for key in relations)


@cache
def _builtin() -> Catalogue:
    text = resources.files(__package__).joinpath("relations.toml").read_text(encoding="utf-8")
    catalogue = Catalogue()
    for relation_id, table in tomllib.loads(text).items():
        aliases = tuple(table.pop("aliases", ()))
        pattern = cast("ObjectPattern | None", table.pop("object_pattern", None))
        for first, rest in (("statement", "statements"), ("question", "questions"), ("phrase", "phrases")):
            table[first], *others = table[rest].splitlines()
            table[rest] = tuple(others)
        wikidata = relation_id if relation_id[1:].isdigit() else None
        catalogue._add(Relation(id=relation_id, wikidata=wikidata, **table), aliases, pattern)
    return catalogue


def _name_key(name: str) -> str:
    return " ".join(re.sub(r"[_\-\s]+", " ", name).casefold().split())


def _check(relation: Relation) -> None:
    if not relation.id.strip() or relation.id == FREE_TEXT:
        raise InvalidFact(f"{relation.id!r} cannot be the id of a relation.", "Choose another id.")
    for field, templates, holes in (
        ("statement", (relation.statement, *relation.statements), ("{subject}", "{object}")),
        ("question", (relation.question, *relation.questions), ("{subject}",)),
        ("phrase", (relation.phrase, *relation.phrases), ("{subject}",)),
    ):
        for template in templates:
            if any(template.count(hole) != 1 for hole in holes):
                raise InvalidFact(
                    f"The {field} template {template!r} of relation {relation.id!r} must hold {' and '.join(holes)} once.",
                    'Write it like "The capital of {subject} is {object}."',
                )


# -- a relation from a bare name -----------------------------------------------------------------------------

_PREPOSITIONS = frozenset((
    "of", "in", "at", "to", "by", "with", "for", "from", "on", "about", "into", "under", "as", "than",
))  # fmt: skip
_COPULAS = frozenset(("is", "was", "are", "were"))
_VERBS = frozenset((
    "likes", "loves", "hates", "owns", "knows", "wants", "prefers", "uses", "eats", "drinks", "drives", "speaks",
    "teaches", "manages", "leads", "runs", "wears", "reads", "follows", "supports", "sells", "buys", "makes", "needs",
    "fears", "admires", "trusts", "enjoys", "plays", "studies", "visits", "collects", "recommends", "reports",
    "rents", "contains", "includes", "requires", "supersedes", "depends", "works", "lives", "belongs", "listens",
    "believes",
))  # fmt: skip


def _relation_by_name(name: str) -> Relation:
    normalise(name)  # refuses what cannot be a name
    spaced = re.sub(r"(?<=[a-z])[A-Z](?=[a-z])", lambda capital: f" {capital[0].lower()}", name)
    words = re.sub(r"[_\-\s]+", " ", spaced).strip().split(" ")
    if len(words) > 1 and words[0].casefold() in ("has", "have"):
        words = words[1:]
    label = " ".join(words)
    slug = re.sub(r"\W+", "_", label.casefold()).strip("_")
    if not slug:
        raise InvalidFact(f"{name!r} cannot name a relation.", "Use a name with at least one letter.")
    statement, question, phrase = _general_templates(words)
    return Relation(id=slug, label=label, statement=statement, question=question, phrase=phrase)


def _general_templates(words: list[str]) -> tuple[str, str, str]:
    """Statement, question and phrase for a name: a predicate ("lives in", "is CEO of") or a noun ("hobby")."""
    text = " ".join(words)
    first, last = words[0].casefold(), words[-1].casefold()
    if first in _COPULAS and len(words) > 1:
        rest = " ".join(words[1:])
        return f"{{subject}} {text} {{object}}.", f"What {first} {{subject}} {rest}?", f"what {{subject}} {text}"
    if first in _VERBS:
        return f"{{subject}} {text} {{object}}.", f"What is it that {{subject}} {text}?", f"what {{subject}} {text}"
    if last in _PREPOSITIONS and len(words) > 1:
        if last in ("in", "at", "to", "for", "with", "from", "on", "about") and first.endswith("s"):
            return f"{{subject}} {text} {{object}}.", f"What is it that {{subject}} {text}?", f"what {{subject}} {text}"
        verb = "was" if last == "by" else "is"
        article = "the " if last == "of" else ""
        return (
            f"{{subject}} {verb} {article}{text} {{object}}.",
            f"What {verb} {{subject}} {article}{text}?",
            f"what {{subject}} {verb} {article}{text}",
        )
    return (
        f"The {text} of {{subject}} is {{object}}.",
        f"What is the {text} of {{subject}}?",
        f"the {text} of {{subject}}",
    )
