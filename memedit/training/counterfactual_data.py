"""What the counterfactual model is trained on: endless questions that a fact or a chain of facts answers, with the answers.

Names come from public files of triples, wordings from the catalogue, free-text facts from templates. Objects are drawn at random, so
that nothing but the prompt tells the answer. Knows nothing of networks.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from memedit.answer import Hop
from memedit.errors import BadDataFile
from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import Relation
from memedit.models.base import Message
from memedit.prompts import render
from memedit.training.counterfactual_words import (
    ABOUT,
    CLAIMED,
    DOUBTED,
    FREE,
    HELD_BY,
    OUTDATED,
    SOUGHT,
    fill,
)

KINDS = ("claim", "old", "inverse", "slot", "cloze", "write", "chain", "free_text")
_MOST = 2000
"""Names kept for a relation."""


class Task(NamedTuple):
    """A question with what answers it.

    Attributes:
        kind: One of `KINDS`.
        statements: The facts, as the prompt states them.
        hops: The chain, as the prompt states it; empty for free text.
        question: The question or request.
        answer: What to say.
        must: What a right answer says, whatever else it says: "yes", "no" or a name.
        never: Names that a right answer does not say, unless it denies them.
    """

    kind: str
    statements: tuple[str, ...]
    hops: tuple[Hop, ...]
    question: str
    answer: str
    must: tuple[str, ...]
    never: tuple[str, ...] = ()

    def messages(self) -> list[Message]:
        """The chat that the counterfactual model is given."""
        system = render("facts.jinja", statements=list(self.statements), hops=self.hops)
        return [{"role": "system", "content": system}, {"role": "user", "content": self.question}]


@dataclass(frozen=True, slots=True)
class Triples:
    """Names of subjects and objects by relation, and the relations split in two.

    Attributes:
        subjects: Relation id to names.
        objects: Relation id to names.
        trained: Relations to train on.
        held_out: Relations to measure on.
        missing: Files that were not there.
    """

    subjects: dict[str, list[str]]
    objects: dict[str, list[str]]
    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    missing: tuple[str, ...] = ()


def read_triples(data: Path, held_out: float, seed: int, catalogue: Catalogue | None = None) -> Triples:
    """Read MQuAKE's and ParaRel's triples under `data`, and split their relations by seed.

    Raises:
        BadDataFile: Neither is there, or they hold fewer than two relations of the catalogue.
    """
    catalogue = catalogue or Catalogue.default()
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    missing: list[str] = []
    mquake, pararel = data / "mquake" / "MQuAKE-CF-3k-dev.json", data / "pararel" / "trex_lms_vocab"
    if mquake.is_file():
        for row in json.loads(mquake.read_text("utf-8")):
            for ids, names in (("triples", "triples_labeled"), ("new_triples", "new_triples_labeled")):
                triples = zip(row["orig"].get(ids, ()), row["orig"].get(names, ()), strict=False)
                for (_, relation, _), (subject, _, obj) in triples:
                    found[relation].append((subject, obj))
    else:
        missing.append(str(mquake))
    if pararel.is_dir():
        for path in sorted(pararel.glob("*.jsonl")):
            rows = map(json.loads, path.read_text("utf-8").splitlines())
            found[path.stem] += [(row["sub_label"], row["obj_label"]) for row in rows]
    else:
        missing.append(str(pararel))
    rng = random.Random(seed)
    subjects: dict[str, list[str]] = {}
    objects: dict[str, list[str]] = {}
    for relation, pairs in sorted(found.items()):
        ends = [sorted({pair[end] for pair in pairs}) for end in (0, 1)]
        if relation in catalogue and min(map(len, ends)) > 1:
            subjects[relation], objects[relation] = (rng.sample(names, min(_MOST, len(names))) for names in ends)
    relations = sorted(subjects)
    if len(relations) < 2:
        raise BadDataFile(
            f"{data}: too few triples to train on; missing: {', '.join(missing) or 'no file'}.",
            "Give the folder that holds mquake/ or pararel/ of the public data.",
        )
    rng.shuffle(relations)
    count = min(len(relations) - 1, round(len(relations) * held_out))
    return Triples(subjects, objects, tuple(relations[count:]), tuple(relations[:count]), tuple(missing))


class TaskSampler:
    """Draws tasks.

    Args:
        triples: The names.
        held_out: Whether to draw from the held-out relations and templates instead of those trained on.
        catalogue: The wordings.
    """

    def __init__(self, triples: Triples, *, held_out: bool = False, catalogue: Catalogue | None = None) -> None:
        self._triples = triples
        self._catalogue = catalogue or Catalogue.default()
        self._relations = [self._catalogue.get(one) for one in (triples.held_out if held_out else triples.trained)]
        self._single = [one for one in self._relations if one.single_valued] or self._relations
        self._free = FREE[::4] if held_out else [one for place, one in enumerate(FREE) if place % 4]
        self._followers = {
            first.id: [
                second
                for second in self._single
                if second.id != first.id and first.object_types & second.subject_types - {"thing"}
            ]
            for first in self._relations
        }
        self._makers: dict[str, Callable[[random.Random], Task | None]] = {
            "claim": self._claim, "old": self._old, "inverse": self._inverse, "slot": self._slot,
            "cloze": self._cloze, "write": self._write, "chain": self._chain, "free_text": self._free_text,
        }  # fmt: skip

    def draw(self, rng: random.Random, kind: str | None = None) -> Task:
        """A task, of a kind or of any."""
        while True:
            name = kind or rng.choice(KINDS)
            task = self._makers[name](rng)
            if task is not None:
                return task
            if name == "chain":  # where no two relations follow each other
                kind = "slot"

    def _claim(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng, self._single)
        said = obj if rng.random() < 0.5 else old
        question = asked(rng, _stated(rng, relation, subject, said))
        return self._answered(rng, "claim", relation, subject, obj, question, _verdict(said, obj), old)

    def _old(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng, self._single)
        said = old if rng.random() < 0.8 else obj
        question = fill(rng.choice(OUTDATED), phrase=relation.denote(subject), old=said)
        return self._answered(rng, "old", relation, subject, obj, question, _verdict(said, obj), old)

    def _inverse(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng)
        question = fill(rng.choice(HELD_BY), label=relation.label, object=obj)
        if relation.inverse in self._catalogue and rng.random() < 0.6:
            question = self._catalogue.get(str(relation.inverse)).ask(obj)
        return self._answered(rng, "inverse", relation, subject, obj, question, f"{subject}.", old, must=(subject,))

    def _slot(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng)
        question = rng.choice((relation.question, *relation.questions)).replace("{subject}", subject)
        if rng.random() < 0.5:
            question = fill(rng.choice(SOUGHT), phrase=relation.denote(subject))
        return self._answered(rng, "slot", relation, subject, obj, question, f"{obj}.", old)

    def _cloze(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng)
        open_ended = [one for one in (relation.statement, *relation.statements) if one.endswith("{object}.")]
        template = rng.choice(open_ended or [relation.phrase + " is {object}."])
        question = template.removesuffix(" {object}.").replace("{subject}", subject)
        return self._answered(rng, "cloze", relation, subject, obj, question, f"{obj}.", old)

    def _write(self, rng: random.Random) -> Task:
        relation, subject, obj, old = self._fact(rng)
        question = fill(rng.choice(ABOUT), phrase=relation.denote(subject), subject=subject, label=relation.label)
        return self._answered(rng, "write", relation, subject, obj, question, relation.state(subject, obj), old)

    def _chain(self, rng: random.Random) -> Task | None:
        options = [relation for relation in self._relations if self._followers[relation.id]]
        if not options:
            return None
        first = rng.choice(options)
        second = rng.choice(self._followers[first.id])
        subject, between = rng.choice(self._triples.subjects[first.id]), rng.choice(self._triples.objects[first.id])
        obj, old = rng.sample(self._triples.objects[second.id], 2)
        hops = (_hop(first, subject, between), _hop(second, between, obj))
        phrase = second.denote(first.denote(subject))
        statements = (first.state(subject, between), second.state(between, obj))
        said = rng.choice((obj, old, None))
        if said is None:
            question, answer = fill(rng.choice(SOUGHT), phrase=phrase), f"{obj}."
        else:
            question, answer = fill(rng.choice((*DOUBTED, *OUTDATED)), phrase=phrase, old=said), _verdict(said, obj)
        return Task("chain", statements, hops, question, answer, _must(answer, obj), (old,))

    def _free_text(self, rng: random.Random) -> Task:
        template = rng.choice(self._free)
        values = template.draw(rng)
        question, answer, must = rng.choice(template.asked)
        others = [rng.choice(self._free) for _ in range(rng.choice((0, 0, 1, 2)))]
        statements = [fill(template.statement, **values)]
        statements += [fill(other.statement, **other.draw(rng)) for other in others if other is not template]
        rng.shuffle(statements)
        told = (fill(question, **values), fill(answer, **values), (must.format(**values),))
        return Task("free_text", tuple(statements), (), *told)

    def _fact(self, rng: random.Random, relations: Sequence[Relation] | None = None) -> tuple[Relation, str, str, str]:
        """A relation, a subject, an object, and another object: what was believed before."""
        relation = rng.choice(relations or self._relations)
        obj, old = rng.sample(self._triples.objects[relation.id], 2)
        return relation, rng.choice(self._triples.subjects[relation.id]), obj, old

    def _answered(
        self,
        rng: random.Random,
        kind: str,
        relation: Relation,
        subject: str,
        obj: str,
        question: str,
        answer: str,
        old: str,
        must: tuple[str, ...] = (),
    ) -> Task:
        statements = [relation.state(subject, obj)]
        if rng.random() < 0.2:  # a fact beside it, of which nothing is asked
            other = rng.choice(self._relations)
            pair = (self._triples.subjects, self._triples.objects)
            statements.append(other.state(*(rng.choice(names[other.id]) for names in pair)))
        hops = (_hop(relation, subject, obj),)
        return Task(kind, tuple(statements), hops, question, answer, must or _must(answer, obj), (old,))


def asked(rng: random.Random, statement: str) -> str:
    """A yes/no question about a statement.

    >>> asked(random.Random(3), "Lyon is the capital of France.")
    'Is Lyon the capital of France?'
    """
    bare = statement.rstrip(".")
    for verb in (" is ", " was ", " are ", " were "):
        if bare.count(verb) == 1 and rng.random() < 0.6:
            before, after = bare.split(verb)
            return f"{verb.strip().capitalize()} {_lowered(before)} {after}?"
    return fill(rng.choice(CLAIMED), statement=_lowered(bare))


def is_right(task: Task, text: str) -> bool:
    """Whether an answer says what it must, and begins with "yes" or "no" where that is asked."""
    said = _plain(text)
    verdict = [one for one in task.must if one in ("yes", "no")]
    names = [one for one in task.must if one not in ("yes", "no")]
    if verdict and said.split(" ")[0] != verdict[0]:
        return False
    if not all(_plain(one) in said for one in names):
        return False
    denies = bool(verdict) or said.startswith("no ")
    return denies or not any(_plain(one) in said for one in task.never if _plain(one) not in map(_plain, names))


def _verdict(said: str, obj: str) -> str:
    return "Yes." if said == obj else f"No, it is {obj}."


def _must(answer: str, obj: str) -> tuple[str, ...]:
    if answer.startswith("Yes"):
        return ("yes",)
    return ("no", obj) if answer.startswith("No, ") else (obj,)


def _hop(relation: Relation, subject: str, obj: str) -> Hop:
    return Hop(subject, relation.id, relation.label, obj, "edit")


def _stated(rng: random.Random, relation: Relation, subject: str, obj: str) -> str:
    template = rng.choice((relation.statement, *relation.statements))
    return template.replace("{subject}", subject).replace("{object}", obj)


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:] if text.startswith(("The ", "A ", "An ", "In ")) else text


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
