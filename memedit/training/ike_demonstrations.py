"""Makes IKE's demonstration corpus, ``prompts/demonstrations/ike.jsonl``, from undisputed facts and the catalogue's wordings.

    python -m memedit.training.ike_demonstrations [OUT]

Every fact of ``ike_facts.toml`` gives one row: an edit that replaces its object by another of the relation, and what is
asked after it (Zheng et al. 2023, section 3.2): copy repeats the edit's own wording, update asks for it in another, retain
asks for something that the edit does not touch. The same facts and catalogue give the same file.

Edits are worded in all the ways that the catalogue has, since those that are shown later will be, and copy repeats the very words:
a small model copies what it has seen copied.
"""

from __future__ import annotations

import argparse
import json
import random
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import Relation


class KnownFact(NamedTuple):
    """A fact that nobody disputes."""

    relation: str
    subject: str
    object: str


def rows(
    known: Mapping[str, Sequence[tuple[str, str]]], catalogue: Catalogue, seed: int = 0
) -> Iterator[dict[str, object]]:
    """The rows of the corpus, as `memedit.prompts.ike.read_examples` reads them.

    Args:
        known: (subject, object) pairs by relation id; every relation needs two subjects and two objects.
        catalogue: Has the relations' wordings.
        seed: Of the choice of objects, wordings and untouched facts.
    """
    chance = random.Random(seed)
    facts = [KnownFact(relation, *pair) for relation, pairs in known.items() for pair in pairs]
    for place, fact in enumerate(facts):
        relation = catalogue.get(fact.relation)
        new = chance.choice(sorted({one.object for one in facts if _can_replace(one, fact)}))
        untouched = chance.choice(_untouched(facts, fact, same_subject=place % 2 == 0))
        wording = chance.choice(_sentences(relation, new))
        yield {
            "subject": fact.subject,
            "fact": f"{_about(fact.subject, wording)} {new}.",
            "copy": _probe(fact.subject, new, relation.question, wording),
            "update": _another(relation, fact.subject, new, chance, unlike=wording),
            "retain": _another(catalogue.get(untouched.relation), untouched.subject, untouched.object, chance),
        }


def _can_replace(one: KnownFact, fact: KnownFact) -> bool:
    return one.relation == fact.relation and one.object not in (fact.object, fact.subject)


def _untouched(facts: Sequence[KnownFact], fact: KnownFact, *, same_subject: bool) -> list[KnownFact]:
    """What the edit leaves as it was: something else about its subject where asked for, or other subjects' slots."""
    others = [one for one in facts if one.subject == fact.subject and one.relation != fact.relation]
    if same_subject and others:
        return others
    return [one for one in facts if one.relation == fact.relation and one.subject != fact.subject]


def _another(relation: Relation, subject: str, answer: str, chance: random.Random, unlike: str = "") -> dict[str, str]:
    """A question and a sentence to complete in any wording but the canonical question and the sentence `unlike`."""
    sentences = _sentences(relation, answer)
    question = chance.choice(relation.questions or [relation.question])
    sentence = chance.choice([text for text in sentences if text != unlike] or sentences)
    return _probe(subject, answer, question, sentence)


def _probe(subject: str, answer: str, question: str, sentence: str) -> dict[str, str]:
    return {"question": _about(subject, question), "sentence": _about(subject, sentence), "answer": answer}


def _about(subject: str, template: str) -> str:
    return template.replace("{subject}", subject)


def _sentences(relation: Relation, obj: str) -> list[str]:
    """The relation's statements up to their object, those that end with it and take its article."""
    statements = dict.fromkeys((relation.statement, *relation.statements))
    sentences = [text for text in map(_open_sentence, statements) if text]
    return [text for text in sentences if _takes(text, obj)] or sentences


def _takes(sentence: str, obj: str) -> bool:
    article = sentence.rsplit(" ", 1)[-1]
    if article in ("a", "an"):
        return article == ("an" if obj[0].casefold() in "aeiou" else "a")
    return article != "the" or not obj.startswith("the ")


def _open_sentence(statement: str) -> str:
    """A statement's template up to its object; empty where the object is not what it ends with.

    >>> _open_sentence("The capital of {subject} is {object}."), _open_sentence("{object} is the capital of {subject}.")
    ('The capital of {subject} is', '')
    """
    text = statement.rstrip(".")
    return text.removesuffix("{object}").rstrip() if text.endswith("{object}") and text.count("{object}") == 1 else ""


def known_facts() -> dict[str, list[tuple[str, str]]]:
    """The facts of ``ike_facts.toml``."""
    text = (files("memedit.training") / "ike_facts.toml").read_text("utf-8")
    return {relation: [(subject, obj) for subject, obj in pairs] for relation, pairs in tomllib.loads(text).items()}


def main() -> None:
    """Write the corpus."""
    default = Path(__file__).parents[2] / "prompts" / "demonstrations" / "ike.jsonl"
    parser = argparse.ArgumentParser(description="Write IKE's demonstration corpus.")
    parser.add_argument("out", type=Path, nargs="?", default=default, help="the file to write (default: %(default)s)")
    out: Path = parser.parse_args().out
    made = list(rows(known_facts(), Catalogue.default()))
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    print(f"{len(made)} demonstrations in {out}")


if __name__ == "__main__":
    main()
