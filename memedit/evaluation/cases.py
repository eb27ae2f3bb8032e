"""The problems of CounterFact, zsRE and KnowEdit in one shape: what is asked, and apart from it what is right.

Files:

- ``counterfact``: CounterFact (Meng et al. 2022) with its paraphrase, neighborhood, attribute and generation prompts, and
  EasyEdit's portability question where there is one; or EasyEdit's reduced rows (``rephrase_prompt``, ``locality_prompt``).
- ``zsre``: zsRE as MEND and EasyEdit split it (``src``, ``rephrase``, ``alt``, ``loc``), with or without ``portability``.
- ``knowedit``: KnowEdit's wiki_counterfact and wiki_recent, with portability and locality prompts by kind.

`Problem.case` is the only part of a row that a run hands to what it measures. It holds the edit, new object and all, as an
edit must; what the prompts should be answered with is in `Problem.gold`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, field_validator

from memedit.evaluation.rows import Row, parse_row, read_rows
from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import FactInput
from memedit.memory.interchange import edit_request

Benchmark = Literal["counterfact", "zsre", "knowedit"]
Kind = Literal["edit", "paraphrase", "portability", "locality", "attribute", "generation"]
"""What a prompt is for. ``locality`` holds CounterFact's neighborhood prompts too; ``attribute`` prompts ask about other
subjects that have the new object already; of ``generation`` prompts the continuation's fluency is measured."""

EditsAs = Literal["triples", "statements"]


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit as it is requested.

    Attributes:
        fact: What a memory is given.
        prompt: The words whose answer it changes; a cloze or a question, and what a parametric method is given.
        subject: Its subject, as it stands in the prompt.
        target: The new object.
    """

    fact: FactInput
    prompt: str
    subject: str
    target: str


class Question(NamedTuple):
    """A prompt.

    Attributes:
        kind: What it is for.
        prompt: The prompt.
    """

    kind: Kind
    prompt: str


@dataclass(frozen=True, slots=True)
class Case:
    """What a run may hand to what it measures.

    Attributes:
        row: 1-based number of the row in its file; what identifies the case in a run.
        edit: The edit.
        questions: The prompts, the edit's own first.
    """

    row: int
    edit: Edit
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What is right for a prompt; for scoring alone.

    Attributes:
        answers: Accepted answers, the file's own first; empty where none is right or wrong.
        against: What the answer is weighed against by ROME's measure, or None where the file gives no such object.
        group: The file's name for this sort of prompt, e.g. "Reasoning".
        recalled: What must be known beside the edit, as a (subject, relation) the base model can be asked; or None.
    """

    answers: tuple[str, ...] = ()
    against: str | None = None
    group: str = ""
    recalled: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Gold:
    """What is right for a row.

    Attributes:
        case_id: The file's own number of the case.
        expected: For each question of the case, in order.
    """

    case_id: str
    expected: tuple[Expected, ...]


class Problem(NamedTuple):
    """A row, in the part that is asked and the part that scores it."""

    case: Case
    gold: Gold


def load(
    path: str | Path,
    benchmark: Benchmark,
    *,
    edits_as: EditsAs = "triples",
    limit: int | None = None,
    seed: int | None = None,
) -> list[Problem]:
    """Read a benchmark's file. Every row is checked, also those that are not drawn.

    Args:
        path: The file, a JSON array or JSON Lines.
        benchmark: Which benchmark's it is.
        edits_as: ``triples`` gives an edit as subject, relation and object where the file tells a relation that the
            catalogue knows (zsRE: where its question is a template's), and as a sentence elsewhere; ``statements``
            always gives the sentence: the prompt and its new answer.
        limit: Most problems, from the front; None for all.
        seed: Shuffles the problems before `limit` is applied; None keeps the file's order.

    Raises:
        BadDataFile: The file is missing, unreadable or in another format.
        BadRow: A row lacks a field or has a wrong one; names file, row and field.
    """
    path = Path(path)
    name, layouts, parse = _FORMATS[benchmark]
    rows = [
        (number, raw, parse(raw, number, path.name)) for number, raw in enumerate(read_rows(path, name, *layouts), 1)
    ]
    if seed is not None:
        rows = random.Random(seed).sample(rows, len(rows))
    catalogue = Catalogue.default()
    return [
        _problem(raw, number, parsed, _fact(raw, number, parsed, path, catalogue, edits_as))
        for number, raw, parsed in rows[:limit]
    ]


def sniff(path: str | Path) -> Benchmark:
    """Which benchmark's file it is, by the fields of its first row.

    Raises:
        BadDataFile: It is none of them.
    """
    names = ", ".join(name for name, _, _ in _FORMATS.values())
    first = next(read_rows(path, names, *(fields for _, layouts, _ in _FORMATS.values() for fields in layouts)))
    if "src" in first:
        return "zsre"
    return "knowedit" if isinstance(first.get("locality"), dict) else "counterfact"


# -- formats ---------------------------------------------------------------------------------------------------


def _answers(value: object) -> object:
    """One answer, a list of answers, or lists of aliases of answers: all of them, flat."""
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, list):
        flat = (answer for part in value for answer in (part if isinstance(part, list) else [part]))
        return tuple(answer for answer in flat if answer != "")
    return value


Text = Annotated[str, Field(pattern=r"\S")]
Answers = Annotated[tuple[Text, ...], BeforeValidator(_answers), Field(min_length=1)]
Texts = tuple[Text, ...]


def recalled_fact(text: str, answers: Sequence[str]) -> tuple[str, str] | None:
    """Subject and relation of "(subject, relation, object)"; names may have commas in them, and an answer tells the object.

    >>> recalled_fact("(John Grey, 1st Duke of Kent, title, Duke of Kent)", ["Duke of Kent"])
    ('John Grey, 1st Duke of Kent', 'title')
    """
    inner = text.strip().strip("()")
    for answer in answers:
        subject, has_both, relation = inner[: -len(answer)].removesuffix(", ").rpartition(", ")
        if has_both and inner.casefold().endswith(f", {answer.casefold()}"):
            return subject, relation
    parts = inner.split(", ")
    return (parts[0], parts[1]) if len(parts) >= len("sro") else None


class _Portability(BaseModel):
    recalled: str = Field("", alias="Recalled Relation")
    question: Text = Field(alias="New Question")
    answer: Answers = Field(alias="New Answer")

    def asked(self) -> _Asked:
        return _Asked("portability", self.question, self.answer, recalled=recalled_fact(self.recalled, self.answer))


class _Target(BaseModel):
    name: Text = Field(alias="str")


class _Rewrite(BaseModel):
    prompt: Text
    subject: Text
    target_new: _Target
    target_true: _Target

    @field_validator("prompt")
    @classmethod
    def _has_a_place_for_the_subject(cls, value: str) -> str:
        if "{}" not in value:
            raise ValueError("has no {} where the subject belongs")
        return value


class _CounterFact(BaseModel):
    case_id: int | str | None = None
    requested_rewrite: _Rewrite
    paraphrase_prompts: Texts
    neighborhood_prompts: Texts
    attribute_prompts: Texts = ()
    generation_prompts: Texts = ()
    portability: _Portability | None = None


class _Reduced(BaseModel):
    case_id: int | str | None = None
    prompt: Text
    subject: Text
    target_new: Text
    ground_truth: Text
    rephrase_prompt: Text
    locality_prompt: Text
    locality_ground_truth: Text


class _ZsRE(BaseModel):
    case_id: int | str | None = None
    subject: Text
    src: Text
    rephrase: Text
    alt: Text
    loc: Text
    loc_ans: Answers
    portability: _Portability | None = None


class _Probe(BaseModel):
    prompt: Text
    ground_truth: Annotated[tuple[Text, ...], BeforeValidator(_answers)]


class _KnowEdit(BaseModel):
    case_id: int | str | None = None
    subject: Text
    prompt: Text
    target_new: Text
    ground_truth: str = ""
    rephrase: Text | None = None
    portability: dict[str, tuple[_Probe, ...]]
    locality: dict[str, tuple[_Probe, ...]]


class _Asked(NamedTuple):
    kind: Kind
    prompt: str
    answers: tuple[str, ...] = ()
    against: str | None = None
    group: str = ""
    recalled: tuple[str, str] | None = None


class _Parsed(NamedTuple):
    prompt: str
    subject: str
    target: str
    asked: Sequence[_Asked]


def _counterfact(raw: Row, number: int, source: str) -> _Parsed:
    if "requested_rewrite" not in raw and "prompt" in raw:
        return _reduced(raw, number, source)
    row = parse_row(_CounterFact, raw, number, source)
    rewrite = row.requested_rewrite
    new, old = rewrite.target_new.name, rewrite.target_true.name
    prompt = rewrite.prompt.replace("{}", rewrite.subject)
    asked = [
        _Asked("edit", prompt, (new,), old),
        *(_Asked("paraphrase", text, (new,), old) for text in row.paraphrase_prompts),
        *(_Asked("locality", text, (old,), new, "neighborhood") for text in row.neighborhood_prompts),
        *(_Asked("attribute", text, (new,), old) for text in row.attribute_prompts),
        *(_Asked("generation", text) for text in row.generation_prompts[:1]),
    ]
    if row.portability is not None:
        asked.append(row.portability.asked())
    return _Parsed(prompt, rewrite.subject, new, asked)


def _reduced(raw: Row, number: int, source: str) -> _Parsed:
    row = parse_row(_Reduced, raw, number, source)
    asked = [
        _Asked("edit", row.prompt, (row.target_new,), row.ground_truth),
        _Asked("paraphrase", row.rephrase_prompt, (row.target_new,), row.ground_truth),
        _Asked("locality", row.locality_prompt, (row.locality_ground_truth,), row.target_new, "neighborhood"),
        _Asked("generation", row.prompt),
    ]
    return _Parsed(row.prompt, row.subject, row.target_new, asked)


def _zsre(raw: Row, number: int, source: str) -> _Parsed:
    row = parse_row(_ZsRE, raw, number, source)
    asked = [
        _Asked("edit", row.src, (row.alt,)),
        _Asked("paraphrase", row.rephrase, (row.alt,)),
        _Asked("locality", row.loc, row.loc_ans),
        _Asked("generation", row.src),
    ]
    if row.portability is not None:
        asked.append(row.portability.asked())
    return _Parsed(row.src, row.subject, row.alt, asked)


def _knowedit(raw: Row, number: int, source: str) -> _Parsed:
    row = parse_row(_KnowEdit, raw, number, source)
    asked = [_Asked("edit", row.prompt, (row.target_new,)), _Asked("generation", row.prompt)]
    if row.rephrase is not None:
        asked.append(_Asked("paraphrase", row.rephrase, (row.target_new,)))
    asked += [
        _Asked("portability", probe.prompt, probe.ground_truth, group=group)
        for group, probes in row.portability.items()
        for probe in probes
        if probe.ground_truth
    ]
    asked += [
        _Asked("locality", probe.prompt, probe.ground_truth, group=group)
        for group, probes in row.locality.items()
        for probe in probes
    ]
    return _Parsed(row.prompt, row.subject, row.target_new, asked)


def _fact(raw: Row, number: int, parsed: _Parsed, path: Path, catalogue: Catalogue, edits_as: EditsAs) -> FactInput:
    form: Literal["counterfact", "zsre"] = "zsre" if "src" in raw else "counterfact"
    given = edit_request(raw, form, catalogue=catalogue, file=path, row=number)
    if given.subject is None or (given.relation in catalogue and edits_as == "triples"):
        return given
    prompt, target = parsed.prompt.strip(), parsed.target
    end = "" if prompt.endswith("?") or target.endswith(".") else "."
    return FactInput(statement=f"{prompt} {target}{end}", source=given.source)


def _problem(raw: Row, number: int, parsed: _Parsed, fact: FactInput) -> Problem:
    return Problem(
        Case(
            number,
            Edit(fact, parsed.prompt.strip(), parsed.subject, parsed.target),
            tuple(Question(one.kind, one.prompt.strip()) for one in parsed.asked),
        ),
        Gold(
            str(raw.get("case_id", number)),
            tuple(Expected(one.answers, one.against, one.group, one.recalled) for one in parsed.asked),
        ),
    )


_Layouts = tuple[tuple[str, ...], ...]
_FORMATS: dict[Benchmark, tuple[str, _Layouts, Callable[[Row, int, str], _Parsed]]] = {
    "counterfact": (
        "CounterFact",
        (
            ("requested_rewrite", "paraphrase_prompts", "neighborhood_prompts"),
            ("rephrase_prompt", "locality_prompt", "locality_ground_truth"),
        ),
        _counterfact,
    ),
    "zsre": ("zsRE", (("subject", "src", "rephrase", "alt", "loc", "loc_ans"),), _zsre),
    "knowedit": ("KnowEdit", (("subject", "prompt", "target_new", "portability", "locality"),), _knowedit),
}
