"""What the scope classifier is trained on: texts about an edit, and texts that only look it.

`Sampler` turns the records of `memedit.training.scope_sources` into labelled pairs. Knows nothing of files or networks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memedit.scope_text import FactText, mentions
from memedit.training.negatives import not_a_chain
from memedit.training.scope_forms import SYMMETRIC, dress, fill, inverse_questions, near_name, respell, yes_or_no
from memedit.training.scope_sources import Part, Record, ScopeCorpus

INVENTED = 0.4
"""Share of edits that are invented, so that every relation is trained on."""


class Pair(NamedTuple):
    """A text, a fact, and whether the text is about it.

    Attributes:
        text: The text.
        fact: The fact.
        label: Whether the text asks for, or states, what the fact holds.
        kind: What sort of text it is: ``asked``, ``yes_no``, ``stated``, ``inverse`` are about the fact; ``relation``,
            ``near``, ``object``, ``chain``, ``request``, ``other`` (a text about another edit) and ``nothing`` are not.
    """

    text: str
    fact: FactText
    label: bool
    kind: str


class Sampler:
    """Turns records into labelled pairs; the same source of chance gives the same pairs.

    Args:
        corpus: What to draw from.
        part: The split whose subjects are drawn.
        apart: For a template of a record with no known relation, templates that ask something else.
        mined: For a text, the facts nearest to it that it is not about.
    """

    def __init__(
        self,
        corpus: ScopeCorpus,
        part: Part,
        *,
        apart: Mapping[str, Sequence[str]] | None = None,
        mined: Mapping[str, Sequence[FactText]] | None = None,
    ) -> None:
        self.corpus = corpus
        self.records = corpus.part(part)
        self._apart = apart or {}
        self._mined = mined or {}
        self._outsiders = (
            (self._relation, 1.0), (self._relation, 0.6), (self._near, 0.8), (self._object, 0.15), (self._chain, 0.15),
            (self._outside, 0.4), (self._request, 0.1),
        )  # fmt: skip
        self._subjects: dict[str, list[str]] = defaultdict(list)
        self._objects: dict[str, list[str]] = defaultdict(list)
        for record in self.records:
            if record.relation in corpus.wordings.forms:
                self._objects[str(record.relation)].append(record.object)
                for kind in corpus.wordings.forms[str(record.relation)].kinds:
                    self._subjects[kind].append(record.subject)
        self._minable = [text for text in corpus.nothing if text in self._mined]

    def group(self, rng: random.Random) -> list[Pair]:
        """An edit's pairs: one or two texts about it and about twice as many that are not."""
        record = self._invented(rng) if rng.random() < INVENTED else rng.choice(self.records)
        fact = self.fact(rng, record)
        pairs = [self._about(rng, record, fact)]
        if rng.random() < 0.35:
            pairs.append(self._about(rng, record, fact))
        for draw, chance in self._outsiders:
            if rng.random() < chance:
                pairs += draw(rng, record, fact)
        pairs += self._others(rng, record)
        return [pair._replace(text=dress(rng, pair.text, self.corpus.fragments)) for pair in pairs]

    def fact(self, rng: random.Random, record: Record) -> FactText:
        """The edit as the memory may hold it: any of its statements, as a triple or as free text."""
        forms = self.corpus.wordings.forms.get(record.relation or "")
        if forms and forms.statements and rng.random() < 0.5:
            statement = fill(forms.tell(rng), record.subject, record.object)
        else:
            statement = rng.choice(record.statements)
        if rng.random() < 0.2:
            return FactText("", "", statement)
        return FactText(record.subject, record.object, statement)

    def ask(self, rng: random.Random, record: Record, name: str, *, generate: float = 0.5) -> str:
        """A question or prompt for the record's slot of the entity called `name`."""
        forms = self.corpus.wordings.forms.get(record.relation or "")
        if forms and (not record.templates or rng.random() < generate):
            return fill(forms.ask(rng), respell(rng, name))
        if record.templates:
            return fill(rng.choice(record.templates), respell(rng, name))
        return rng.choice(record.asked)

    def other_question(self, rng: random.Random, record: Record, name: str) -> str | None:
        """A question or prompt for another slot of the entity called `name`; None where no other slot is known."""
        wordings = self.corpus.wordings
        if record.relation in wordings.forms:
            others = wordings.others(record.relation)
            return fill(wordings.forms[rng.choice(others)].ask(rng, clear=True), respell(rng, name)) if others else None
        for template in record.templates:
            if apart := self._apart.get(template):
                return fill(rng.choice(apart), respell(rng, name))
        return None

    def near_name(self, rng: random.Random, record: Record, name: str) -> str:
        """The name of another entity, easily taken for `name`."""
        forms = self.corpus.wordings.forms.get(record.relation or "")
        return near_name(rng, name, forms.kinds if forms else (), self.corpus.similar.get(name, ()))

    def nothing(self, rng: random.Random) -> str:
        """A text about no fact."""
        if self.corpus.nothing and rng.random() < 0.5:
            return rng.choice(self.corpus.nothing)
        return not_a_chain(rng, rng.choice(self.records).subject)

    def _invented(self, rng: random.Random) -> Record:
        """An edit that no file holds: any relation with wordings, between names that may have it."""
        forms = self.corpus.wordings.forms
        relation = rng.choice(list(forms))
        kinds = sorted(kind for kind in forms[relation].kinds if kind in self._subjects)
        subject = rng.choice(self._subjects[rng.choice(kinds)]) if kinds else rng.choice(self.records).subject
        obj = rng.choice(self._objects.get(relation) or [rng.choice(self.records).object])
        statement = fill(forms[relation].tell(rng), subject, obj)
        return Record(subject, relation, obj, [statement], [], "invented")

    def _about(self, rng: random.Random, record: Record, fact: FactText) -> Pair:
        forms = self.corpus.wordings.forms.get(record.relation or "")
        roll = rng.random()
        if forms and forms.statements and roll < 0.12:
            claimed = record.object if rng.random() < 0.5 else rng.choice(self.records).object
            return Pair(yes_or_no(rng, forms, respell(rng, record.subject), claimed), fact, True, "yes_no")
        if roll < 0.2:
            stated = fill(forms.tell(rng), record.subject, record.object) if forms and forms.statements else ""
            return Pair(stated or rng.choice(record.statements), fact, True, "stated")
        if (inverse := inverse_questions(record.relation or "")) and roll < 0.26:
            return Pair(fill(rng.choice(inverse), record.subject, record.object), fact, True, "inverse")
        if roll < 0.6 and (real := [text for text in record.asked if text not in record.statements]):
            return Pair(rng.choice(real), fact, True, "asked")
        return Pair(self.ask(rng, record, record.subject), fact, True, "asked")

    def _relation(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        text = self.other_question(rng, record, record.subject)
        return [Pair(text, fact, False, "relation")] if text else []

    def _near(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        """A text about a near name, or the same text with a fact about the near name."""
        near = self.near_name(rng, record, record.subject)
        if near.casefold() == record.subject.casefold() or not (record.templates or record.relation):
            return []
        if rng.random() < 0.65 or not fact.subject:
            return [Pair(self.ask(rng, record, near), fact, False, "near")]
        moved = FactText(near, fact.object, fact.statement.replace(record.subject, near))
        if moved.statement == fact.statement:
            return []
        return [Pair(self.ask(rng, record, record.subject), moved, False, "near")]

    def _object(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        """The same question about the object, which is another slot."""
        if record.relation in SYMMETRIC or not (record.templates or record.relation):
            return []
        return [Pair(self.ask(rng, record, record.object), fact, False, "object")]

    def _chain(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        """A question for something about the object, where only the chain leads through the fact."""
        wordings = self.corpus.wordings
        forms = wordings.forms.get(record.relation or "")
        if forms is None or not forms.phrases:
            return []
        outer = wordings.forms[rng.choice(wordings.others(record.relation or ""))]
        phrase = fill(rng.choice(forms.phrases), record.subject)
        return [Pair(fill(outer.ask(rng, clear=True), phrase), fact, False, "chain")]

    def _outside(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        if not record.outside:
            return []
        text, kind = rng.choice(record.outside)
        return [Pair(text, fact, False, kind)]

    def _request(self, rng: random.Random, record: Record, fact: FactText) -> list[Pair]:
        """A task that names the subject and does not ask for the slot."""
        text = not_a_chain(rng, record.subject)
        return [Pair(text, fact, False, "request" if mentions(text, record.subject) else "nothing")]

    def _others(self, rng: random.Random, record: Record) -> list[Pair]:
        """Texts with facts that an index takes to be near."""
        pairs: list[Pair] = []
        if (texts := [text for text in record.asked if text in self._mined]) and rng.random() < 0.6:
            text = rng.choice(texts)
            if self._mined[text]:
                pairs.append(Pair(text, rng.choice(self._mined[text]), False, "other"))
        if self._minable and rng.random() < 0.35:
            text = rng.choice(self._minable)
            if self._mined[text]:
                pairs.append(Pair(text, rng.choice(self._mined[text]), False, "nothing"))
        return pairs
