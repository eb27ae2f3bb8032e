"""The relation catalogue: what it holds, how it grows, and what it reads out of plain sentences and questions."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from memedit.errors import InvalidFact, UnknownRelation
from memedit.memory.catalogue import Catalogue, Triple
from memedit.memory.entities import normalise
from memedit.memory.fact import FREE_TEXT, Relation

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"

EDITING_BENCHMARKS = (
    "P17 P19 P20 P26 P27 P30 P35 P36 P37 P39 P40 P47 P50 P69 P6 P101 P103 P106 P108 P112 P127 P131 P136 P138 P140 P159 P169 "
    "P170 P175 P176 P178 P190 P264 P276 P279 P286 P361 P364 P407 P413 P449 P463 P488 P495 P530 P641 P740 P800 P937 P1001 "
    "P1037 P1303 P1308 P1376 P1412 P31 P527"
)
"""The relations of MQuAKE, CounterFact and ParaRel."""

EXAMPLES = {
    "country": "Portugal", "continent": "Africa", "language": "Danish", "religion": "Buddhism", "sport": "curling",
    "office": "governor of Ohio", "position": "goalkeeper", "occupation": "carpenter", "genre": "jazz", "city": "Lisbon",
    "person": "Grace Hopper", "organization": "NATO", "work": "Night Train", "place": "Lake Vostok", "product": "Model T",
    "thing": "piano",
}  # fmt: skip
"""A name of every kind."""

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs the public benchmark data in ../shared/data")


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue.default()


def example_of(kinds: frozenset[str]) -> str:
    return next((name for kind, name in EXAMPLES.items() if kind in kinds), "Zanzibar Sky")


# -- what it holds -------------------------------------------------------------------------------------------


def test_it_has_the_relations_of_the_editing_benchmarks(catalogue: Catalogue) -> None:
    assert [relation_id for relation_id in EDITING_BENCHMARKS.split() if relation_id not in catalogue] == []
    assert len(catalogue) == len(list(catalogue)) >= 110


def test_every_template_has_its_holes_once(catalogue: Catalogue) -> None:
    for relation in catalogue:
        for statement in (relation.statement, *relation.statements):
            assert statement.count("{subject}") == statement.count("{object}") == 1, (relation.id, statement)
            assert statement.endswith("."), (relation.id, statement)
        for text in (relation.question, *relation.questions, relation.phrase, *relation.phrases):
            assert text.count("{subject}") == 1, (relation.id, text)
            assert text.replace("{subject}", "").count("{") == 0, (relation.id, text)


def test_inverses_exist_and_fit(catalogue: Catalogue) -> None:
    for relation in catalogue:
        if relation.inverse is not None:
            inverse = catalogue.get(relation.inverse)
            assert not relation.symmetric
            for ours, theirs in (
                (relation.object_types, inverse.subject_types),
                (relation.subject_types, inverse.object_types),
            ):
                assert not ours or not theirs or ours & theirs or "thing" in ours | theirs, relation.id


@pytest.mark.parametrize("relation_id", ["P36", "P26", "P50", "P27", "P35", "P169", "P413"])
def test_a_correction_replaces_what_was_believed(catalogue: Catalogue, relation_id: str) -> None:
    assert catalogue.get(relation_id).single_valued


@pytest.mark.parametrize("relation_id", ["P40", "P47", "P161", "P166", "P463", "P3373"])
def test_a_second_child_border_or_award_does_not_replace_the_first(catalogue: Catalogue, relation_id: str) -> None:
    assert not catalogue.get(relation_id).single_valued


@pytest.mark.parametrize(
    ("name", "relation_id"),
    [
        ("P36", "P36"), ("p36", "P36"), ("Capital", "P36"), ("capital_city", "P36"), ("CEO", "P169"),
        ("place of birth", "P19"), ("birthplace", "P19"), ("nationality", "P27"), ("works_at", "P108"),
    ],
)  # fmt: skip
def test_a_relation_is_found_by_id_label_or_alias(catalogue: Catalogue, name: str, relation_id: str) -> None:
    found = catalogue.resolve(name)
    assert found is not None
    assert found.id == relation_id


@pytest.mark.parametrize("name", ["", "  ", "colour of the bicycle shed"])
def test_an_unknown_name_resolves_to_nothing(catalogue: Catalogue, name: str) -> None:
    assert catalogue.resolve(name) is None


def test_an_unknown_id_names_the_nearest(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownRelation, match=r"'captial' is not in the catalogue; nearest: P36 \(capital\)"):
        catalogue.get("captial")


# -- how it grows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "relation_id", "statement", "question", "phrase"),
    [
        ("favourite colour", "favourite_colour", "The favourite colour of A is B.", "What is the favourite colour of A?", "the favourite colour of A"),
        ("CEO_of", "ceo_of", "A is the CEO of B.", "What is A the CEO of?", "what A is the CEO of"),
        ("reports to", "reports_to", "A reports to B.", "What is it that A reports to?", "what A reports to"),
        ("is allergic to", "is_allergic_to", "A is allergic to B.", "What is A allergic to?", "what A is allergic to"),
        ("mentored_by", "mentored_by", "A was mentored by B.", "What was A mentored by?", "what A was mentored by"),
        ("hasFlavour", "flavour", "The flavour of A is B.", "What is the flavour of A?", "the flavour of A"),
    ],
)  # fmt: skip
def test_a_bare_name_becomes_a_relation_with_templates(
    catalogue: Catalogue, name: str, relation_id: str, statement: str, question: str, phrase: str
) -> None:
    relation = catalogue.define(name)

    assert relation.id == relation_id
    assert (relation.state("A", "B"), relation.ask("A"), relation.denote("A")) == (statement, question, phrase)
    assert relation.single_valued
    assert catalogue.get(relation_id) == relation


def test_a_new_relation_works_at_once(catalogue: Catalogue) -> None:
    assert catalogue.parse("The favourite colour of Ada is green.") is None
    catalogue.define("favourite colour")
    assert catalogue.parse("The favourite colour of Ada is green.") == Triple("Ada", "favourite_colour", "green")
    assert catalogue.parse_question("What was the favourite colour of Ada?") == ("Ada", "favourite_colour")


def test_a_known_name_defines_nothing(catalogue: Catalogue) -> None:
    before = len(catalogue)
    assert catalogue.define("hasCapital").id == "P36"
    assert len(catalogue) == before


def test_what_one_memory_defines_no_other_sees(catalogue: Catalogue) -> None:
    catalogue.define("shoe size")
    assert "shoe_size" in catalogue
    assert "shoe_size" not in Catalogue.default()
    assert "shoe_size" in Catalogue(parent=catalogue)


def test_a_redefinition_wins_and_counts_once(catalogue: Catalogue) -> None:
    before = len(catalogue)
    capital = catalogue.get("P36").model_copy(update={"question": "Where is {subject} governed?", "statements": ()})
    catalogue.define(capital)

    assert catalogue.get("P36").ask("Peru") == "Where is Peru governed?"
    assert len(catalogue) == len(list(catalogue)) == before
    assert Catalogue.default().get("P36").ask("Peru") == "What is the capital of Peru?"


@pytest.mark.parametrize("name", ["", "  ", "!!!", "a\nb", "x" * 1001])
def test_a_name_that_is_none_is_refused(catalogue: Catalogue, name: str) -> None:
    with pytest.raises(InvalidFact):
        catalogue.define(name)


@pytest.mark.parametrize(
    "change",
    [
        {"statement": "The hue of {subject}."},
        {"question": "What is the hue?"},
        {"phrase": "the hue"},
        {"statements": ("{object} {object} {subject}",)},
        {"id": FREE_TEXT},
        {"id": " "},
    ],
)
def test_a_relation_with_bad_templates_is_refused(catalogue: Catalogue, change: dict[str, object]) -> None:
    hue = Relation(
        id="hue", label="hue", statement="The hue of {subject} is {object}.", question="What is the hue of {subject}?",
        phrase="the hue of {subject}",
    )  # fmt: skip
    with pytest.raises(InvalidFact):
        catalogue.define(hue.model_copy(update=change))
    assert "hue" not in catalogue


# -- what it reads -------------------------------------------------------------------------------------------


def test_every_statement_template_reads_back_as_its_relation(catalogue: Catalogue) -> None:
    patterned = {"P569", "P570", "P571", "P576", "P577"}
    numbered = {"P1082", "P1971"}
    for relation in catalogue:
        subject = example_of(relation.subject_types)
        kinds = relation.object_types or frozenset({"thing"})
        objects = [name for kind, name in EXAMPLES.items() if kind in kinds]
        objects = ["4 May 1921"] if relation.id in patterned else ["42"] if relation.id in numbered else objects
        for template in (relation.statement, *relation.statements):
            readings = [catalogue.parse(template.format(subject=subject, object=name)) for name in objects]
            expected = [Triple(subject, relation.id, name) for name in objects]
            assert any(read == due for read, due in zip(readings, expected, strict=True)), (template, readings)


def test_every_question_reads_back_as_its_relation(catalogue: Catalogue) -> None:
    for relation in catalogue:
        subject = example_of(relation.subject_types)
        assert catalogue.parse_question(relation.ask(subject)) == (subject, relation.id)


@pytest.mark.parametrize(
    ("sentence", "triple"),
    [
        ("The capital of France is Lyon.", ("France", "P36", "Lyon")),
        ("the capital of france is lyon", ("france", "P36", "lyon")),
        ("France’s capital is now Lyon!", ("France", "P36", "Lyon")),
        ("Lyon is the capital of France.", ("France", "P36", "Lyon")),
        ("The name of the current capital of France is Lyon.", ("France", "P36", "Lyon")),
        ("東京 is the capital of 日本.", ("日本", "P36", "東京")),
        ("Tim Cook is the CEO of Apple Inc.", ("Apple Inc.", "P169", "Tim Cook")),
        ("Socrates' spouse is Xanthippe.", ("Socrates", "P26", "Xanthippe")),
        ("The author of Eight Is Enough is Ann Lee.", ("Eight Is Enough", "P50", "Ann Lee")),
        ('The author of "What is to be done" is Ann Lee.', ("What is to be done", "P50", "Ann Lee")),
        ("The film Titanic was directed by James Cameron.", ("Titanic", "P57", "James Cameron")),
        ("Hannah Arendt is a citizen of the United States of America.", ("Hannah Arendt", "P27", "United States of America")),
        ("The headquarters of Nokia is located in the city of Oulu.", ("Nokia", "P159", "Oulu")),
        ("Erasmus University, which is located in Chile.", ("Erasmus University", "P17", "Chile")),
        ("The univeristy where Ada Lovelace was educated is MIT.", ("Ada Lovelace", "P69", "MIT")),
        ("The governor of Ohio is Ada Lovelace.", ("governor of Ohio", "P1308", "Ada Lovelace")),
    ],
)  # fmt: skip
def test_a_plain_sentence_is_read(catalogue: Catalogue, sentence: str, triple: tuple[str, str, str]) -> None:
    assert catalogue.parse(sentence) == triple


@pytest.mark.parametrize(
    ("sentence", "relation_id"),
    [
        ("The Eiffel Tower is located in Portugal.", "P17"),
        ("The Eiffel Tower is located in Africa.", "P30"),
        ("The Eiffel Tower is located in Lisbon.", "P276"),
        ("Ada was born in 1815.", "P569"),
        ("Ada was born in Lisbon.", "P19"),
        ("Ada plays curling.", "P641"),
        ("Ada plays goalkeeper.", "P413"),
        ("Ada plays jazz.", "P136"),
        ("Ada plays the piano.", "P1303"),
        ("Ada works in the field of carpenter.", "P106"),
        ("Ada works in the field of metallurgy.", "P101"),
        ("Estonia is part of Europe.", "P30"),
        ("Estonia is part of NATO.", "P463"),
    ],
)
def test_the_kind_of_the_object_tells_relations_apart(catalogue: Catalogue, sentence: str, relation_id: str) -> None:
    read = catalogue.parse(sentence)
    assert read is not None
    assert read.relation_id == relation_id


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Lyon",
        "What is the capital of France?",
        "The capital of France is not Paris.",
        "The capital of France is beautiful.",
        "The capital of France is Lyon because the government moved.",
        "The capital of France is Lyon and its mayor is Ann Lee.",
        "The capital of France is Lyon. It was Paris.",
        "If it rains, the capital of France is Lyon.",
        "Tim Cook is no longer the CEO of Apple.",
        "The CEO of Apple is a genius.",
        "The president of France is corrupt.",
        "He was born in Lisbon.",
        "Ada was born in Lisbon in 1815.",
        "In 1815, Ada was born in Lisbon.",
        "Ada lives in Lisbon with her two cats.",
        "Ada is married to her job.",
        "Ada's child is Bob and Carol.",
        "Ada plays the fool.",
        "Ada plays with fire.",
        "Ada is a great mind.",
        "Ada died in her sleep.",
        "Lisbon is in trouble.",
        "The owner of the house is away.",
        "It is what it is.",
        "the capital of france is " + "x" * 1000,
    ],
)
def test_what_is_doubtful_is_not_read(catalogue: Catalogue, sentence: str) -> None:
    assert catalogue.parse(sentence) is None


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Which city is the capital of Peru?", ("Peru", "P36")),
        ("What was the name of the capital of Peru?", ("Peru", "P36")),
        ("The capital of Peru is what?", ("Peru", "P36")),
        ("who wrote Misery", ("Misery", "P50")),
        ("Who is the governor of Ohio?", ("governor of Ohio", "P1308")),
        ("Where did Ada Lovelace die?", ("Ada Lovelace", "P20")),
    ],
)
def test_a_single_hop_question_is_read(catalogue: Catalogue, question: str, asked: tuple[str, str]) -> None:
    assert catalogue.parse_question(question) == asked


@pytest.mark.parametrize(
    "question",
    ["", "?", "What is the capital of the home town of Ann Lee?", "Who is the most famous person?", "Tell me a joke."],
)
def test_a_question_about_something_else_is_not_read(catalogue: Catalogue, question: str) -> None:
    assert catalogue.parse_question(question) is None


# -- on real data --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases() -> list[dict[str, object]]:
    loaded: list[dict[str, object]] = json.loads((DATA / "mquake" / "MQuAKE-CF-3k-dev.json").read_text("utf-8"))
    return loaded


@pytest.mark.data
@needs_data
def test_the_edits_of_mquake_are_read_as_sentences(catalogue: Catalogue, cases: list[dict[str, object]]) -> None:
    gold = {}
    for case in cases:
        rewrites = case["requested_rewrite"]
        assert isinstance(rewrites, list)
        for rewrite in rewrites:
            target = rewrite["target_new"]["str"]
            sentence = f"{rewrite['prompt'].format(rewrite['subject'])} {target}."
            gold[sentence] = (normalise(rewrite["subject"]), rewrite["relation_id"], normalise(target))

    read = {sentence: triple for sentence in gold if (triple := catalogue.parse(sentence)) is not None}
    right = sum(
        (normalise(triple.subject), triple.relation_id, normalise(triple.object)) == gold[sentence]
        for sentence, triple in read.items()
    )

    assert len(gold) > 1000
    assert right / len(gold) >= 0.97
    assert right / len(read) >= 0.995


@pytest.mark.data
@needs_data
def test_no_chain_of_mquake_is_ruled_out_by_its_types(catalogue: Catalogue, cases: list[dict[str, object]]) -> None:
    for case in cases:
        orig = case["orig"]
        assert isinstance(orig, dict)
        for chain in (orig["triples"], orig["new_triples"]):
            for (_, first, _), (_, then, _) in pairwise(chain):
                arrives, starts = catalogue.get(first).object_types, catalogue.get(then).subject_types
                assert not arrives or not starts or arrives & starts or "thing" in arrives | starts, (first, then)
