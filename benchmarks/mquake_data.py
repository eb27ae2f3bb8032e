"""Reads MQuAKE files into cases (what the runtime is given) and gold (what scores it), kept apart.

The official files differ a little, and all come out the same here:

- MQuAKE-CF, CF-3k, CF-3k-v2 (princeton-nlp): triples under ``orig``, targets as ``{"str", "id"}``.
- MQuAKE-T: the same with ``answer_extended``; rows without labelled triples get their labels from the single hops.
- MQuAKE-2002, MQuAKE-hard (DeepEdit): the same with ``orig.edit_triples_idx``.
- MQuAKE-Remastered: triples at the top level (``orig_triples``, ``new_triples``), targets as ``target_new_str``,
  empty alias lists as null, a ``split`` that is ignored here; a JSON array or JSON Lines.

Knows nothing of the runtime: `Problem.case` is the only part of a row that a run may hand to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from memedit.evaluation.rows import fail_row, parse_row, read_rows
from memedit.evaluation.scoring import normalise


@dataclass(frozen=True, slots=True)
class Edit:
    """One requested rewrite, without what the base model believed before.

    Attributes:
        subject: Name of the subject.
        relation: Wikidata property id, "P36".
        object: The new object.
        sentence: The edit as a plain sentence.
    """

    subject: str
    relation: str
    object: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Case:
    """What the runtime is given of a row: its edits and its questions.

    Attributes:
        row: 1-based number of the row in its file; what identifies the case in a run.
        edits: One to four edits, to be written together.
        questions: The same multi-hop question in (usually three) different words.
    """

    row: int
    edits: tuple[Edit, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoldHop:
    """One step of a gold chain.

    Attributes:
        subject: Name of the subject; empty where the file does not say.
        relation: Wikidata property id.
        object: Name of the object.
        names: Every accepted name of the object, itself included.
        edited: Whether one of the case's edits is about this subject and relation.
    """

    subject: str
    relation: str
    object: str
    names: tuple[str, ...]
    edited: bool


@dataclass(frozen=True, slots=True)
class Gold:
    """What is right for a row; for scoring alone.

    Attributes:
        case_id: The file's own number of the case.
        answers: Accepted answers after the edits.
        old_answers: Accepted answers before the edits.
        chain: The steps that lead to the answer after the edits.
        old_chain: The steps that led to the answer before them.
    """

    case_id: str
    answers: tuple[str, ...]
    old_answers: tuple[str, ...]
    chain: tuple[GoldHop, ...]
    old_chain: tuple[GoldHop, ...]

    @property
    def fully_edited(self) -> bool:
        """Whether every step of the chain is edited, so that nothing need be known beside the edits."""
        return all(hop.edited for hop in self.chain)


class Problem(NamedTuple):
    """A row, in the part that is asked and the part that scores it."""

    case: Case
    gold: Gold


def load(path: str | Path) -> list[Problem]:
    """Read an MQuAKE file.

    Args:
        path: The official file, as a JSON array or JSON Lines.

    Raises:
        BadDataFile: The file is missing, unreadable or in another format.
        BadRow: A row lacks a field or has a wrong one; names file, row and field.
    """
    path = Path(path)
    return [_problem(raw, number, path.name) for number, raw in enumerate(read_rows(path, "MQuAKE", _REQUIRED), 1)]


_REQUIRED = ("requested_rewrite", "questions", "answer", "new_answer", "single_hops", "new_single_hops")
_TRIPLE_FIELDS = ("triples", "triples_labeled", "new_triples", "new_triples_labeled")

Text = Annotated[str, Field(min_length=1)]
Aliases = Annotated[tuple[str, ...], BeforeValidator(lambda value: () if value is None else value)]
Triple = tuple[str, str, str]


class _Target(BaseModel):
    name: Text = Field(alias="str")


class _Rewrite(BaseModel):
    subject: Text
    relation_id: Text
    prompt: Text
    target_new: _Target
    question: str = ""

    @field_validator("prompt")
    @classmethod
    def _has_a_place_for_the_subject(cls, value: str) -> str:
        if "{}" not in value:
            raise ValueError("has no {} where the subject belongs")
        return value


class _Hop(BaseModel):
    answer: Text
    answer_alias: Aliases = ()
    question: str = ""


class _Orig(BaseModel):
    triples: tuple[Triple, ...]
    new_triples: tuple[Triple, ...]
    triples_labeled: tuple[Triple, ...] | None = None
    new_triples_labeled: tuple[Triple, ...] | None = None

    @model_validator(mode="after")
    def _labels_match(self) -> _Orig:
        for triples, labelled in (
            (self.triples, self.triples_labeled),
            (self.new_triples, self.new_triples_labeled),
        ):
            if labelled is not None and len(labelled) != len(triples):
                raise ValueError(f"{len(triples)} triples have {len(labelled)} labels")
        return self


class _Row(BaseModel):
    requested_rewrite: Annotated[tuple[_Rewrite, ...], Field(min_length=1)]
    questions: Annotated[tuple[Text, ...], Field(min_length=1)]
    answer: Text
    answer_alias: Aliases = ()
    answer_extended: Aliases = ()
    new_answer: Text
    new_answer_alias: Aliases = ()
    single_hops: tuple[_Hop, ...]
    new_single_hops: Annotated[tuple[_Hop, ...], Field(min_length=1)]
    orig: _Orig


def _problem(raw: Mapping[str, object], number: int, source: str) -> Problem:
    row = parse_row(_Row, _nested(raw), number, source)
    edits = tuple(_edit(rewrite) for rewrite in row.requested_rewrite)
    slots = {(normalise(edit.subject), edit.relation) for edit in edits}
    try:
        chain = _chain(row.orig.new_triples, row.orig.new_triples_labeled, row.new_single_hops, row, slots)
        old_chain = _chain(row.orig.triples, row.orig.triples_labeled, row.single_hops, row, slots)
    except _UnalignedError as error:
        fail_row(str(error), number, source, error.field)
    return Problem(
        Case(number, edits, row.questions),
        Gold(
            case_id=str(raw.get("case_id", number)),
            answers=_distinct(row.new_answer, *row.new_answer_alias),
            old_answers=_distinct(row.answer, *row.answer_alias, *row.answer_extended),
            chain=chain,
            old_chain=old_chain,
        ),
    )


def _nested(raw: Mapping[str, object]) -> dict[str, object]:
    """The row in the layout of MQuAKE-CF, whichever file it comes from."""
    row = dict(raw)
    if "orig" not in row:
        flat = {"triples": "orig_triples", "triples_labeled": "orig_triples_labeled"}
        row["orig"] = {name: row[key] for name in _TRIPLE_FIELDS if (key := flat.get(name, name)) in row}
    rewrites = row.get("requested_rewrite")
    if isinstance(rewrites, list):
        row["requested_rewrite"] = [
            {**rewrite, "target_new": {"str": rewrite["target_new_str"]}}
            if isinstance(rewrite, dict) and "target_new_str" in rewrite
            else rewrite
            for rewrite in rewrites
        ]
    return row


def _edit(rewrite: _Rewrite) -> Edit:
    target = rewrite.target_new.name
    cloze = rewrite.prompt.replace("{}", rewrite.subject)
    return Edit(rewrite.subject, rewrite.relation_id, target, f"{cloze} {target}.")


class _UnalignedError(Exception):
    """The chain's triples and the single hops do not belong together."""

    def __init__(self, problem: str, field: str) -> None:
        super().__init__(problem)
        self.field = field


def _chain(
    triples: Sequence[Triple],
    labelled: Sequence[Triple] | None,
    hops: Sequence[_Hop],
    row: _Row,
    slots: set[tuple[str, str]],
) -> tuple[GoldHop, ...]:
    """One gold chain; ``triples`` has the relation ids, ``labelled`` the names, ``hops`` aliases and questions."""
    if labelled is None and len(triples) != len(hops):
        field = "new_single_hops" if hops is row.new_single_hops else "single_hops"
        raise _UnalignedError(f"{len(hops)} hops stand beside {len(triples)} triples without labels.", field)
    by_answer = {hop.answer: hop for hop in hops}
    chain: list[GoldHop] = []
    for index, (_, relation, _) in enumerate(triples):
        if labelled is None:
            hop = hops[index]
            subject, end = chain[-1].object if chain else _subject_of(hop, row), hop.answer
        else:
            subject, _, end = labelled[index]
            hop = hops[index] if len(triples) == len(hops) else by_answer.get(end, _Hop(answer=end))
        names = _distinct(end, hop.answer, *hop.answer_alias)
        edited = (normalise(subject), relation) in slots
        chain.append(GoldHop(subject, relation, end, names, edited))
    return tuple(chain)


def _subject_of(hop: _Hop, row: _Row) -> str:
    """The subject of a first hop that has no label: that of the edit asking the same question."""
    return next((edit.subject for edit in row.requested_rewrite if edit.question and edit.question == hop.question), "")


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name.strip()))
