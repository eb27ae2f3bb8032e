"""Makes IKE's demonstration corpus, ``prompts/demonstrations/ike.jsonl``, from undisputed facts and the catalogue's wordings.

    python -m memedit.training.ike_demonstrations [OUT]

Every fact of ``ike_facts.toml`` gives one row: an edit that replaces its object by another of the relation, and what is
asked after it (Zheng et al. 2023, section 3.2): copy repeats the edit's own wording, update asks for it in another, retain
asks for something that the edit does not touch. The same facts and catalogue give the same file.
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

OBJECT = "{object}"


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
        other = chance.choice(_untouched(facts, fact, same_subject=place % 2 == 0))
        yield {
            "subject": fact.subject,
            "fact": relation.state(fact.subject, new),
            "copy": _probe(relation, fact.subject, new),
            "update": _probe(relation, fact.subject, new, chance),
            "retain": _probe(catalogue.get(other.relation), other.subject, other.object, chance),
        }


def _can_replace(one: KnownFact, fact: KnownFact) -> bool:
    return one.relation == fact.relation and one.object not in (fact.object, fact.subject)


def _untouched(facts: Sequence[KnownFact], fact: KnownFact, *, same_subject: bool) -> list[KnownFact]:
    """What the edit leaves as it was: something else about its subject where asked for, or other subjects' slots."""
    others = [one for one in facts if one.subject == fact.subject and one.relation != fact.relation]
    if same_subject and others:
        return others
    return [one for one in facts if one.relation == fact.relation and one.subject != fact.subject]


def _probe(relation: Relation, subject: str, answer: str, chance: random.Random | None = None) -> dict[str, str]:
    """A question and a sentence to complete; the canonical wordings, or with `chance` any other."""
    sentences = [text for text in map(_open_sentence, (relation.statement, *relation.statements)) if text]
    questions = [relation.question, *relation.questions]
    question, sentence = questions[0], sentences[0]
    if chance is not None:
        question = chance.choice([text for text in questions if text != question] or questions)
        sentence = chance.choice([text for text in sentences if text != sentence] or sentences)
    return {
        "question": question.replace("{subject}", subject),
        "sentence": sentence.replace("{subject}", subject),
        "answer": answer,
    }


def _open_sentence(statement: str) -> str:
    """A statement up to its object; empty where the object is not what it ends with."""
    text = statement.rstrip(".")
    return text.removesuffix(OBJECT).rstrip() if text.endswith(OBJECT) and text.count(OBJECT) == 1 else ""


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
