"""The templates: what is constant stands first, data stays data, and a missing value is an error."""

from __future__ import annotations

import jinja2
import pytest

from memedit.answer import Hop
from memedit.memory.catalogue import Catalogue
from memedit.prompts import render
from memedit.prompts.belief import belief_prompt, parse_belief


def test_two_belief_prompts_share_everything_but_the_last_question() -> None:
    capital = Catalogue.default().get("P36")
    one, two = belief_prompt(capital, "Iceland"), belief_prompt(capital, "Uruguay")

    assert one.removesuffix("Iceland?\nA:") == two.removesuffix("Uruguay?\nA:")
    assert one.endswith("Q: What is the capital of Iceland?\nA:")


def test_a_belief_is_never_asked_with_its_own_answer_among_the_demonstrations() -> None:
    prompt = belief_prompt(Catalogue.default().get("P36"), "Kenya")

    assert "Nairobi" not in prompt


def test_a_relation_without_demonstrations_gets_a_mixture() -> None:
    relation = Catalogue.default().define("favourite colour")

    prompt = belief_prompt(relation, "Ada")

    assert prompt.count("Q: ") > 4
    assert prompt.endswith(f"Q: {relation.ask('Ada')}\nA:")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (" Paris.", "Paris"),
        (" Paris\nQ: Who?", "Paris"),
        (' "The Hague"', "The Hague"),
        (" Washington, D.C.", "Washington, D.C."),
        ("", ""),
        ("\n", ""),
    ],
)
def test_a_belief_is_the_name_on_the_first_line(written: str, name: str) -> None:
    assert parse_belief(written) == name


def test_facts_are_put_in_as_they_are_without_escaping() -> None:
    text = render("facts.jinja", statements=['The CEO of "R&D <Labs>" is O\'Neil.'], hops=[])

    assert '- The CEO of "R&D <Labs>" is O\'Neil.' in text


def test_a_chain_of_one_hop_is_not_spelt_out() -> None:
    hop = Hop("France", "P36", "capital", "Lyon", "edit", 1)

    assert "Together" not in render("facts.jinja", statements=["x"], hops=[hop])
    assert "capital of France: Lyon" in render("facts.jinja", statements=["x"], hops=[hop, hop])


def test_a_template_with_a_missing_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("facts.jinja", statements=[])
