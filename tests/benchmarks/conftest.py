"""Invented MQuAKE cases in the layouts of the official files, and a way to write them to a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Row = dict[str, object]
Step = tuple[str, str, str]

CLOZES = {"P50": "The author of {} is", "P27": "{} is a citizen of", "P36": "The capital of {} is"}
NOUNS = {"P50": "author", "P27": "country of citizenship", "P36": "capital"}
ALIASES = {"Peru": ["Republic of Peru"], "Norway": ["Kingdom of Norway"]}


def _official_row(case_id: int, old: Sequence[Step], new: Sequence[Step], edited: Sequence[int]) -> Row:
    """A row as in MQuAKE-CF; ``edited`` are the places of the edited steps in the new chain."""

    def hop(step: Step) -> Row:
        subject, relation, obj = step
        return {
            "question": f"What is the {NOUNS[relation]} of {subject}?",
            "cloze": CLOZES[relation].format(subject),
            "answer": obj,
            "answer_alias": ALIASES.get(obj, []),
        }

    def ids(step: Step) -> list[str]:
        return [f"Q-{step[0]}", step[1], f"Q-{step[2]}"]

    def labels(step: Step) -> list[str]:
        return [step[0], NOUNS[step[1]], step[2]]

    phrase = new[0][0]
    for _, relation, _ in new:
        phrase = f"the {NOUNS[relation]} of {phrase}"
    return {
        "case_id": case_id,
        "requested_rewrite": [
            {
                "prompt": CLOZES[new[place][1]],
                "relation_id": new[place][1],
                "target_new": {"str": new[place][2], "id": f"Q-{new[place][2]}"},
                "target_true": {"str": "whatever was true", "id": "Q0"},
                "subject": new[place][0],
                "question": hop(new[place])["question"],
            }
            for place in edited
        ],
        "questions": [f"What is {phrase}?", f"Name {phrase}.", f"Which is {phrase}?"],
        "answer": old[-1][2],
        "answer_alias": ALIASES.get(old[-1][2], []),
        "new_answer": new[-1][2],
        "new_answer_alias": ALIASES.get(new[-1][2], []),
        "single_hops": [hop(step) for step in old],
        "new_single_hops": [hop(step) for step in new],
        "orig": {
            "triples": [ids(step) for step in old],
            "triples_labeled": [labels(step) for step in old],
            "new_triples": [ids(step) for step in new],
            "new_triples_labeled": [labels(step) for step in new],
            "edit_triples": [ids(new[place]) for place in edited],
        },
    }


@pytest.fixture
def rows() -> list[Row]:
    """Five cases: partly edited, fully edited (two and three hops), one whose edit contradicts another, one more."""
    salt = [("The Salt Road", "P50", "Old Writer"), ("Old Writer", "P27", "Chad")]
    glass = [("Glass Harbour", "P50", "Jon Dahl"), ("Jon Dahl", "P27", "Iceland")]
    tide = [("Low Tide", "P50", "Eva Moss"), ("Eva Moss", "P27", "Malta"), ("Malta", "P36", "Valletta")]
    fern = [("Fern Hill Road", "P50", "Ana Ruiz"), ("Ana Ruiz", "P27", "Spain")]
    kite = [("Kite Season", "P50", "Lev Orlov"), ("Lev Orlov", "P27", "Latvia")]
    return [
        _official_row(11, salt, [("The Salt Road", "P50", "Mirela Toma"), ("Mirela Toma", "P27", "Peru")], [0]),
        _official_row(12, glass, [("Glass Harbour", "P50", "Ana Ruiz"), ("Ana Ruiz", "P27", "Norway")], [0, 1]),
        _official_row(
            13, tide, [("Low Tide", "P50", "Ito Kana"), ("Ito Kana", "P27", "Ghana"), ("Ghana", "P36", "Kumasi")],
            [0, 1, 2],
        ),
        _official_row(14, fern, [("Fern Hill Road", "P50", "Ana Ruiz"), ("Ana Ruiz", "P27", "Kenya")], [1]),
        _official_row(15, kite, [("Kite Season", "P50", "Rui Vaz"), ("Rui Vaz", "P27", "Angola")], [0, 1]),
    ]  # fmt: skip


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows to a JSON file, or to JSON Lines."""

    def write(rows: Sequence[object], name: str = "cases.json", *, lines: bool = False) -> Path:
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, rows)) if lines else json.dumps(rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def official_row() -> Callable[..., Row]:
    """Makes a row of MQuAKE-CF out of (subject, relation, object) steps before and after the edits."""
    return _official_row


def _as_remastered(row: Row) -> Row:
    """The row as MQuAKE-Remastered has it: flat triples and targets, a null alias list, a split."""
    orig = row["orig"]
    rewrites = row["requested_rewrite"]
    assert isinstance(orig, dict)
    assert isinstance(rewrites, list)
    flat = {key: value for key, value in row.items() if key != "orig"}
    return {
        **flat,
        "answer_alias": None,
        "requested_rewrite": [
            {
                **{key: value for key, value in rewrite.items() if not key.startswith("target_")},
                "target_new_str": rewrite["target_new"]["str"],
                "target_true_str": rewrite["target_true"]["str"],
            }
            for rewrite in rewrites
        ],
        "orig_triples": orig["triples"],
        "orig_triples_labeled": orig["triples_labeled"],
        "new_triples": orig["new_triples"],
        "new_triples_labeled": orig["new_triples_labeled"],
        "edit_triples": orig["edit_triples"],
        "split": {"100": ["edited"]},
    }


@pytest.fixture
def as_remastered() -> Callable[[Row], Row]:
    """Turns a row of MQuAKE-CF into one of MQuAKE-Remastered."""
    return _as_remastered
