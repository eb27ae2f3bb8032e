"""The public files that the scope classifier is trained on, read into `Record`s: one an edit, split by subject.

Knows the files' layouts and nothing of pairs or networks.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from memedit.training.scope_forms import OBJECT, SUBJECT, Wordings, similar_names

Part = Literal["train", "calibration", "dev"]
PARTS: tuple[Part, ...] = ("train", "calibration", "dev")
Row = dict[str, object]
_STRAY = re.compile(r"^(.*[.;:?!]) [^.;:?!]*$", re.DOTALL)


@dataclass(slots=True)
class Record:
    """An edit and what its file says about it.

    Attributes:
        subject: Name of the subject.
        relation: Relation id, or None where it is not known.
        object: Name of the new object.
        statements: Sentences that state it.
        asked: Texts that are about it.
        templates: Those of `asked` that hold the subject's name, with a hole for it.
        outside: Texts that are not, each with its kind.
        source: The file it is from.
    """

    subject: str
    relation: str | None
    object: str
    statements: list[str]
    asked: list[str]
    source: str
    templates: list[str] = field(default_factory=list)
    outside: list[tuple[str, str]] = field(default_factory=list)

    @property
    def part(self) -> Part:
        """Which split the subject falls into: four fifths train, a tenth each calibrate and test."""
        share = zlib.crc32(self.subject.casefold().encode()) % 10
        return "dev" if share == 0 else "calibration" if share == 1 else "train"


@dataclass(slots=True)
class ScopeCorpus:
    """Everything read from the data folder.

    Attributes:
        records: The edits.
        wordings: Wordings by relation.
        nothing: Texts about no fact.
        fragments: Stray sentences that may come before a prompt.
        similar: Names by the names that resemble them.
        missing: Files that were not there.
    """

    records: list[Record]
    wordings: Wordings
    nothing: list[str]
    fragments: list[str]
    similar: dict[str, list[str]]
    missing: list[str]

    def part(self, part: Part) -> list[Record]:
        """The records of one split."""
        return [record for record in self.records if record.part == part]


def read_scope_corpus(data: Path) -> ScopeCorpus:
    """Read every source under `data`, laid out as the public files are; a file that is missing is left out and named."""
    missing: list[str] = []
    wordings = Wordings.read(data, missing)
    records: list[Record] = []
    nothing: list[str] = []
    fragments: list[str] = []
    readers: dict[str, Callable[[list[Row]], Iterator[Record]]] = {
        "counterfact/counterfact-train.json": lambda rows: _counterfact(rows, wordings, fragments),
        "zsre/zsre_mend_train_10000.json": lambda rows: _zsre(rows, nothing),
        "wikifactdiff/wfd-train.json": _wikifactdiff,
        "knowedit/wiki_counterfact/train_cf.json": _knowedit,
        "knowedit/wiki_recent/recent_train.json": _knowedit,
        "mquake/MQuAKE-CF-3k-dev.json": _mquake,
        "pokemqa/cls-filtered.json": lambda rows: _pokemqa(rows, wordings),
    }
    for name, reader in readers.items():
        records += reader(_rows(data / name, missing))
    _read_prose(data, nothing, fragments, missing)
    for record in records:
        record.templates = _templates(record)
    names = [name for record in records for name in (record.subject, record.object) if len(name) < 80]
    return ScopeCorpus(records, wordings, nothing, fragments, similar_names(names), missing)


def _templates(record: Record) -> list[str]:
    """The record's texts with a hole for the subject's name, without what comes before the last sentence."""
    found = []
    for text in record.asked:
        lead, named, rest = text.rpartition(record.subject)
        if named:
            stray = _STRAY.match(lead)
            found.append((lead[stray.end(1) + 1 :] if stray else lead) + SUBJECT + rest)
    return list(dict.fromkeys(found))


def _counterfact(rows: list[Row], wordings: Wordings, fragments: list[str]) -> Iterator[Record]:
    for row in rows:
        prompt, subject, target = str(row["prompt"]), str(row["subject"]), str(row["target_new"])
        template = prompt.replace(subject, SUBJECT)
        relation = wordings.relation_of(template)
        asked = [prompt]
        paraphrase = str(row["rephrase_prompt"])
        lead, found, _ = paraphrase.rpartition(subject)
        # Only what follows a stray sentence is a paraphrase; the others ask for something the fact merely suggests.
        if found and (stray := _STRAY.match(lead)):
            asked.append(paraphrase)
            fragments.append(stray.group(1))
        locality = str(row["locality_prompt"])
        outside = [(locality, "near")] if subject not in locality else []
        yield Record(subject, relation, target, [f"{prompt} {target}."], asked, "counterfact", outside=outside)


def _zsre(rows: list[Row], nothing: list[str]) -> Iterator[Record]:
    for row in rows:
        question, answer = str(row["src"]), str(row["alt"])
        nothing.append(str(row["loc"]).removeprefix("nq question: "))
        statements = [f"{question} {answer}", f"{question} {answer}."]
        if match := re.match(r"^What (is|was) (the .+?)\s*\?$", question):
            statements = [f"{_upper(match.group(2))} {match.group(1)} {answer}."] * 2 + statements
        yield Record(str(row["subject"]), None, answer, statements, [question, str(row["rephrase"])], "zsre")


def _wikifactdiff(rows: list[Row]) -> Iterator[Record]:
    for wrapped in rows:
        row = wrapped["en"]
        assert isinstance(row, dict)
        asked = [str(row["src"]), str(row["rephrase"])]
        outside = [(str(row["loc"]), "near")] if row["loc"] else []
        statement = f"{row['src']} {row['alt']}."
        yield Record(str(row["subject"]), None, str(row["alt"]), [statement], asked, "wikifactdiff", outside=outside)


def _knowedit(rows: list[Row]) -> Iterator[Record]:
    for row in rows:
        prompt, target = str(row["prompt"]), str(row["target_new"])
        locality = row["locality"]
        assert isinstance(locality, dict)
        outside = [(str(probe["prompt"]), "relation") for probe in locality.get("Relation_Specificity", ())]
        outside = [(text, kind) for text, kind in outside if text != prompt]
        yield Record(str(row["subject"]), None, target, [f"{prompt} {target}."], [prompt], "knowedit", outside=outside)


def _mquake(rows: list[Row]) -> Iterator[Record]:
    seen: set[tuple[str, str, str]] = set()
    for case in rows:
        triples, singles, chains = case["orig"], case["new_single_hops"], case["questions"]
        assert isinstance(triples, dict)
        assert isinstance(singles, list)
        assert isinstance(chains, list)
        relations = [str(relation) for _, relation, _ in triples["new_triples"]]
        for place, (subject, _, target) in enumerate(triples["new_triples_labeled"][: len(singles)]):
            if (subject, relations[place], target) in seen:
                continue
            seen.add((subject, relations[place], target))
            question, cloze = str(singles[place]["question"]), str(singles[place]["cloze"])
            outside = [(str(text), "chain") for text in chains] if place == 0 and len(singles) > 1 else []
            yield Record(
                subject, relations[place], target, [f"{cloze} {target}."], [question, cloze], "mquake", outside=outside
            )


def _pokemqa(rows: list[Row], wordings: Wordings) -> Iterator[Record]:
    """The relation is that of the longest wording that fits the edit; rows that none fits are left out."""
    stated = {form.rstrip("."): relation for relation, forms in wordings.forms.items() for form in forms.statements}
    patterns = [
        (
            re.compile("^" + re.escape(form).replace(r"\{s\}", "(?P<s>.+)").replace(r"\{o\}", "(?P<o>.+)") + "$"),
            relation,
        )
        for form, relation in sorted(stated.items(), key=lambda item: -len(item[0]))
        if form.endswith(OBJECT) and form.count(SUBJECT) == 1
    ]
    for row in rows:
        edit, questions = str(row["edit"]), row["questions"]
        assert isinstance(questions, list)
        for pattern, relation in patterns:
            match = pattern.match(edit)
            if match and len(asked := [str(text) for text in questions if match["s"] in text]) > 1:
                yield Record(match["s"], relation, match["o"], [edit], asked, "pokemqa")
                break


def _read_prose(data: Path, nothing: list[str], fragments: list[str], missing: list[str]) -> None:
    """Passages, chat replies and trivia questions: texts about none of the edits."""
    biographies = _rows(data / "knowedit" / "WikiBio" / "wikibio-train-all.json", missing)
    passages = [str(row["text"]).strip() for row in biographies]
    for row in _rows(data / "knowedit" / "Convsent" / "blender_val.json", missing):
        kind, unkind = row["pos"], row["neg"]
        assert isinstance(kind, list)
        assert isinstance(unkind, list)
        passages += [str(text).strip() for text in (*kind[:2], *unkind[:1])]
    sentences = (part.strip() for text in passages for part in re.split(r"(?<=[.!?]) ", text))
    fragments += [part for part in sentences if 12 < len(part) < 90]
    nothing += passages
    path = data / "knowedit" / "Sanitation" / "trivia_qa_train.json"
    if path.is_file():
        nothing += [row["question"] for rows in json.loads(path.read_text("utf-8")).values() for row in rows]
    else:
        missing.append(str(path))


def _rows(path: Path, missing: list[str]) -> list[Row]:
    if not path.is_file():
        missing.append(str(path))
        return []
    rows: list[Row] = json.loads(path.read_text("utf-8"))
    return rows


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
