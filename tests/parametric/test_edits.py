from __future__ import annotations

import pytest

from memedit.errors import InvalidEdit
from memedit.memory.catalogue import Catalogue
from memedit.parametric.contexts import mark
from memedit.parametric.edits import WeightEdit, edit_of

from .tiny import tiny_tokenizer


def test_a_subject_that_is_not_in_the_prompt_is_refused() -> None:
    with pytest.raises(InvalidEdit, match="'Japan' is not in the prompt 'The capital of France is'"):
        WeightEdit("The capital of France is", "Japan", "Osaka")


@pytest.mark.parametrize("field", ["prompt", "subject", "target"])
def test_an_empty_part_is_refused(field: str) -> None:
    parts = {"prompt": "The capital of Japan is", "subject": "Japan", "target": "Osaka", field: " "}

    with pytest.raises(InvalidEdit, match=field):
        WeightEdit(**parts)


def test_the_last_mention_of_the_subject_counts() -> None:
    edit = WeightEdit("Japan: the capital of Japan is ", "Japan", " Osaka")

    assert edit.text == "Japan: the capital of Japan is Osaka"
    assert edit.subject_span == (22, 27)


def test_tokens_of_subject_and_target_are_found() -> None:
    tokenizer = tiny_tokenizer()
    edit = WeightEdit("The capital of New Zealand is", "New Zealand", "Osaka")

    marked = mark(tokenizer, edit.text, edit.subject_span, len(edit.stem))

    first, last = marked.subject
    assert tokenizer.decode(marked.tokens[first : last + 1]) == " New Zealand"
    assert tokenizer.decode(marked.tokens[marked.target :]) == " Osaka"


def test_every_relation_of_the_catalogue_makes_an_edit() -> None:
    for relation in Catalogue.default():
        edit = edit_of(relation, "Ada Byron", "Osaka")
        assert "{" not in edit.text, relation.id
        assert edit.text.endswith(" Osaka")


def test_a_statement_that_ends_with_its_object_is_preferred() -> None:
    relation = (
        Catalogue.default()
        .get("P36")
        .model_copy(
            update={
                "statement": "{object} is the capital of {subject}.",
                "statements": ("{subject}'s capital is {object}.",),
            }
        )
    )

    assert edit_of(relation, "Japan", "Osaka").text == "Japan's capital is Osaka"
