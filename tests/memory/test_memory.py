"""The edit memory: what a write does, what a read sees, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memedit.errors import (
    AlreadyRetracted,
    BadRow,
    CorruptDatabase,
    IndexRebuilt,
    InvalidFact,
    NothingToUndo,
    StoreError,
    UnknownFact,
    UnknownNamespace,
    UnknownRelation,
)
from memedit.memory.catalogue import Catalogue
from memedit.memory.embedder import SentenceEmbedder
from memedit.memory.fact import FREE_TEXT, EndReason, Fact, FactInput, Receipt, Relation
from memedit.memory.memory import EditMemory
from memedit.memory.store import Store
from tests.memory.hash_embedder import HashEmbedder

Y2020, Y2021, Y2022, Y2023 = (datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 2021, 2022, 2023))
HALF_A_YEAR = timedelta(days=180)


@pytest.fixture(params=["sqlite", "postgres"])
def memory(request: pytest.FixtureRequest) -> Iterator[EditMemory]:
    place = ":memory:" if request.param == "sqlite" else request.getfixturevalue("postgres").new_url()
    with EditMemory(place, embedder=HashEmbedder()) as opened:
        yield opened


def tell(
    memory: EditMemory,
    subject: str,
    relation: str,
    obj: str,
    *,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    namespace: str | None = None,
) -> Receipt:
    fact = FactInput(subject=subject, relation=relation, object=obj, valid_from=valid_from, valid_to=valid_to)
    return memory.assert_fact(fact, namespace=namespace)


def objects(facts: tuple[Fact, ...] | list[Fact]) -> list[str]:
    return [fact.object for fact in facts]


# -- asserting -----------------------------------------------------------------------------------------------


def test_a_fact_is_visible_at_once_with_its_statement_and_question(memory: EditMemory) -> None:
    receipt = tell(memory, "France", "capital", "Lyon")

    assert receipt.status == "added"
    assert memory.view().lookup("France", "P36") == (receipt.fact,)
    assert receipt.fact.statement == "The capital of France is Lyon."
    assert receipt.fact.question == "What is the capital of France?"
    assert receipt.fact.live


def test_a_new_object_supersedes_the_old_one_and_history_keeps_both(memory: EditMemory) -> None:
    old = tell(memory, "France", "P36", "Paris").fact
    receipt = tell(memory, "France", "P36", "Lyon")

    assert receipt.status == "superseded"
    assert objects(receipt.replaced) == ["Paris"]
    assert objects(memory.view().lookup("France", "P36")) == ["Lyon"]
    before, after = memory.history("France", "capital")
    assert (before.id, before.end_reason, before.superseded_by) == (old.id, EndReason.SUPERSEDED, after.id)
    assert before.retracted_at == after.recorded_at


def test_the_same_fact_again_changes_nothing(memory: EditMemory) -> None:
    first = tell(memory, "United States", "capital", "Lyon")
    position = memory.position

    again = tell(memory, "the USA", "P36", "LYON")

    assert again.status == "unchanged"
    assert again.fact == first.fact
    assert memory.position == position
    assert memory.count() == 1


def test_a_multi_valued_relation_accumulates(memory: EditMemory) -> None:
    for child in ("Ada", "Bea", "Ada"):
        tell(memory, "Carl", "P40", child)

    assert objects(memory.view().lookup("Carl", "child")) == ["Ada", "Bea"]


def test_a_name_with_other_spelling_is_the_same_slot(memory: EditMemory) -> None:
    tell(memory, "J. K. Rowling", "P27", "Italy")

    assert objects(memory.view().lookup("j.k. rowling", "country of citizenship")) == ["Italy"]


def test_a_new_relation_works_at_once_and_after_reopening(place: str) -> None:
    with EditMemory(place, embed_on_write=False) as memory:
        statement = tell(memory, "Ada", "favourite colour", "green").fact.statement
        tell(memory, "Ada", "favourite colour", "blue")

    with EditMemory(place, embed_on_write=False) as memory:
        assert statement == "The favourite colour of Ada is green."
        assert objects(memory.view().lookup("Ada", "favourite colour")) == ["blue"]
        assert "favourite colour" in {relation.label for relation in memory.catalogue}
        assert Catalogue.default().resolve("favourite colour") is None


def test_a_relation_of_the_callers_own_catalogue_survives_without_it(place: str) -> None:
    relations = Catalogue.default()
    relations.define(
        Relation(id="boss", label="boss", statement="{subject} obeys {object}.", question="Whom does {subject} obey?",
                 phrase="the boss of {subject}", inverse="minion")
    )  # fmt: skip
    with EditMemory(place, catalogue=relations, embed_on_write=False) as memory:
        tell(memory, "Igor", "boss", "Victor")

    with EditMemory(place, embed_on_write=False) as memory:
        assert memory.view().lookup("Igor", "boss")[0].statement == "Igor obeys Victor."


def test_a_redefined_relation_is_used_from_then_on(place: str) -> None:
    with EditMemory(place, embed_on_write=False) as memory:
        made = memory.define_relation("rival")
        memory.define_relation(made.model_copy(update={"symmetric": True, "single_valued": False}))
        tell(memory, "Oxford", "rival", "Cambridge")

        assert objects(memory.view().lookup("Cambridge", "rival")) == ["Oxford"]

    with EditMemory(place, embed_on_write=False) as memory:
        assert objects(memory.view().lookup("Cambridge", "rival")) == ["Oxford"]


def test_a_sentence_is_parsed_into_the_fact_it_states(memory: EditMemory) -> None:
    receipt = memory.assert_fact(FactInput(statement="The capital of France is Lyon."))

    assert receipt.notice is None
    assert (receipt.fact.subject, receipt.fact.relation, receipt.fact.object) == ("France", "P36", "Lyon")
    assert tell(memory, "France", "P36", "Lyon").status == "unchanged"


def test_a_sentence_that_cannot_be_parsed_is_kept_as_free_text_and_says_so(memory: EditMemory) -> None:
    sentence = "Yesterday the ministers quarrelled\nuntil dawn, or so they say."

    receipt = memory.assert_fact(FactInput(statement=sentence))
    again = memory.assert_fact(FactInput(statement=sentence.upper()))

    assert receipt.notice is not None
    assert "free text" in receipt.notice
    assert receipt.fact.relation == FREE_TEXT
    assert receipt.fact.statement == "Yesterday the ministers quarrelled until dawn, or so they say."
    assert (again.status, again.fact.id) == ("unchanged", receipt.fact.id)
    assert memory.view().facts() == [receipt.fact]
    assert memory.view().relations() == frozenset()


def test_a_statement_given_with_a_triple_replaces_the_templates(memory: EditMemory) -> None:
    fact = FactInput(subject="France", relation="P36", object="Lyon", statement="Lyon is now France's capital.")

    assert memory.assert_fact(fact).fact.statement == "Lyon is now France's capital."


# -- valid time ----------------------------------------------------------------------------------------------


def test_superseding_a_portion_keeps_the_rest_as_remnants(memory: EditMemory) -> None:
    tell(memory, "Acme", "CEO", "Ann", valid_from=Y2020)
    receipt = tell(memory, "Acme", "CEO", "Bob", valid_from=Y2021, valid_to=Y2022)

    assert objects(receipt.replaced) == ["Ann"]
    at = [objects(memory.view(valid_at=year + HALF_A_YEAR).lookup("Acme", "CEO")) for year in (Y2020, Y2021, Y2022)]
    assert at == [["Ann"], ["Bob"], ["Ann"]]
    assert objects(memory.view(valid_at=Y2020 - HALF_A_YEAR).lookup("Acme", "CEO")) == []
    assert [(fact.valid_from, fact.valid_to) for fact in memory.facts(object="Ann")] == [(Y2020, Y2021), (Y2022, None)]


def test_an_interval_includes_its_start_and_excludes_its_end(memory: EditMemory) -> None:
    tell(memory, "Acme", "CEO", "Ann", valid_from=Y2020, valid_to=Y2021)

    assert objects(memory.view(valid_at=Y2020).lookup("Acme", "CEO")) == ["Ann"]
    assert objects(memory.view(valid_at=Y2021).lookup("Acme", "CEO")) == []


def test_a_fact_that_several_together_cover_is_unchanged(memory: EditMemory) -> None:
    tell(memory, "Acme", "CEO", "Ann", valid_from=Y2020, valid_to=Y2021)
    tell(memory, "Acme", "CEO", "Ann", valid_from=Y2021, valid_to=Y2022)

    assert tell(memory, "Acme", "CEO", "Ann", valid_from=Y2020, valid_to=Y2022).status == "unchanged"
    assert tell(memory, "Acme", "CEO", "Ann", valid_from=Y2020, valid_to=Y2023).status == "superseded"


def test_a_view_without_valid_at_follows_the_clock() -> None:
    now = Y2020
    with EditMemory(embed_on_write=False, clock=lambda: now) as memory:
        tell(memory, "Acme", "CEO", "Ann", valid_from=Y2021)
        view = memory.view()

        assert view.lookup("Acme", "CEO") == ()
        assert len(view) == 0
        now = Y2022
        assert objects(view.lookup("Acme", "CEO")) == ["Ann"]
        assert len(memory.facts()) == 1


def test_times_come_back_exactly_and_in_utc(memory: EditMemory) -> None:
    moment = datetime(1066, 10, 14, 9, 0, 0, 1, tzinfo=UTC)

    fact = tell(memory, "England", "head of state", "William", valid_from=moment).fact

    assert fact.valid_from == moment
    assert memory.get(fact.id).valid_from == moment


# -- retracting and undoing ----------------------------------------------------------------------------------


def test_a_retracted_fact_is_gone_but_in_history_and_revives_nothing(memory: EditMemory) -> None:
    tell(memory, "France", "P36", "Paris")
    fact = tell(memory, "France", "P36", "Lyon").fact

    ended = memory.retract(fact.id)

    assert (ended.live, ended.end_reason) == (False, EndReason.RETRACTED)
    assert memory.view().lookup("France", "P36") == ()
    assert objects(memory.history("France")) == ["Paris", "Lyon"]
    with pytest.raises(AlreadyRetracted, match="retracted"):
        memory.retract(fact.id)
    with pytest.raises(UnknownFact, match="999"):
        memory.retract(999)


def test_undo_restores_exactly_what_was_believed_and_walks_back(memory: EditMemory) -> None:
    tell(memory, "France", "P36", "Paris")
    states = [memory.facts()]
    tell(memory, "France", "P36", "Lyon")
    states.append(memory.facts())
    memory.assert_facts(FactInput(subject="France", relation="P36", object=city) for city in ("Nice", "Lille", "Brest"))
    states.append(memory.facts())
    memory.retract(states[-1][0].id)

    assert [memory.undo() and memory.facts() for _ in range(3)] == states[::-1]
    assert objects(memory.undo()) == ["Paris"]
    assert memory.facts() == []
    with pytest.raises(NothingToUndo):
        memory.undo()
    assert {fact.end_reason for fact in memory.history()} == {EndReason.UNDONE}


def test_what_is_written_after_an_undo_can_be_undone_and_then_what_was_before_it(memory: EditMemory) -> None:
    tell(memory, "France", "P36", "Paris")
    tell(memory, "France", "P36", "Lyon")
    memory.undo()
    tell(memory, "France", "P36", "Nice")

    memory.undo()
    assert objects(memory.facts()) == ["Paris"]
    memory.undo()
    assert memory.facts() == []


def test_as_of_shows_what_was_believed_before_during_and_after_an_undo(memory: EditMemory) -> None:
    first = tell(memory, "France", "P36", "Paris").fact
    second = tell(memory, "France", "P36", "Lyon").fact
    memory.undo()
    third = tell(memory, "France", "P36", "Nice").fact
    memory.undo()

    tick = timedelta(microseconds=1)
    moments = [first.recorded_at - tick, first.recorded_at, second.recorded_at, third.recorded_at - tick]
    moments += [third.recorded_at, memory.history()[-1].retracted_at or third.recorded_at]
    read = [objects(memory.view(as_of=moment).lookup("France", "P36")) for moment in moments]

    assert read == [[], ["Paris"], ["Lyon"], ["Paris"], ["Nice"], ["Paris"]]
    assert memory.facts(as_of=second.recorded_at) == [second]
    (then,) = memory.facts(as_of=second.recorded_at, live=False, object="Paris")
    assert (then.end_reason, then.superseded_by) == (EndReason.SUPERSEDED, second.id)


def test_transaction_times_differ_even_if_the_clock_stands_still_or_goes_back() -> None:
    times = iter([Y2022, Y2022, Y2021, Y2020])
    with EditMemory(embed_on_write=False, clock=lambda: next(times)) as memory:
        facts = [tell(memory, "France", "P36", city).fact for city in ("Paris", "Lyon", "Nice", "Brest")]

        assert [fact.recorded_at for fact in facts] == sorted({fact.recorded_at for fact in facts})
        read = [memory.view(as_of=fact.recorded_at, valid_at=Y2022).lookup("France", "P36") for fact in facts]
        assert [objects(found) for found in read] == [["Paris"], ["Lyon"], ["Nice"], ["Brest"]]


def test_ids_are_not_reused_after_undo_and_reopening(place: str) -> None:
    with EditMemory(place, embed_on_write=False) as memory:
        used = tell(memory, "France", "P36", "Lyon").fact.id
        memory.undo()

    with EditMemory(place, embed_on_write=False) as memory:
        assert tell(memory, "France", "P36", "Lyon").fact.id > used


# -- namespaces ----------------------------------------------------------------------------------------------


def test_nothing_crosses_from_one_namespace_to_another(memory: EditMemory) -> None:
    theirs = tell(memory, "France", "P36", "Lyon", namespace="acme").fact
    memory.add_alias("France", "the Hexagon", namespace="acme")
    ours = tell(memory, "Spain", "P36", "Lyon", namespace="zenith").fact

    view = memory.view(namespace="zenith")
    (hits,) = view.search(memory.embedder.encode([theirs.statement]), 10)
    masked = memory.view(namespace="zenith", ids=[theirs.id, ours.id])

    assert view.lookup("France", "P36") == ()
    assert objects(view.facts_about("Lyon")) == ["Spain"]
    assert [mention.text for mention in view.mentions("France, Spain and the Hexagon")] == ["Spain"]
    assert [hit.fact.id for hit in hits] == [ours.id]
    assert masked.facts() == [ours]
    assert memory.history(namespace="zenith") == [ours]
    assert "the Hexagon" not in memory.aliases("France", namespace="zenith")
    with pytest.raises(UnknownFact):
        memory.get(theirs.id, namespace="zenith")
    with pytest.raises(UnknownFact):
        memory.retract(theirs.id, namespace="zenith")
    memory.undo(namespace="zenith")
    assert memory.facts(namespace="acme") == [theirs]


def test_an_unknown_namespace_is_named_with_the_nearest(memory: EditMemory) -> None:
    tell(memory, "France", "P36", "Lyon", namespace="acme")

    for read in (memory.history, memory.facts, memory.undo):
        with pytest.raises(UnknownNamespace, match="'acme'"):
            read(namespace="akme")
    with pytest.raises(UnknownNamespace):
        memory.view(namespace="akme", must_exist=True)
    with pytest.raises(UnknownNamespace):
        memory.count("akme")
    with pytest.raises(UnknownNamespace):
        memory.retract(1, namespace="akme")
    assert memory.view(namespace="akme").facts() == []
    assert memory.namespaces() == ["acme"]


def test_the_default_namespace_may_be_read_before_it_is_written_to(memory: EditMemory) -> None:
    assert memory.facts() == memory.history() == []
    assert memory.count() == 0
    assert not memory.view(must_exist=True)
    assert memory.view().search(memory.embedder.encode(["anything", "else"]), 3) == [[], []]
    with pytest.raises(NothingToUndo):
        memory.undo()


@pytest.mark.parametrize("name", [" ", "a\nb", "x" * 201])
def test_a_bad_name_of_a_namespace_is_refused(memory: EditMemory, name: str) -> None:
    with pytest.raises(InvalidFact, match="namespace"):
        tell(memory, "France", "P36", "Lyon", namespace=name)


# -- masks ---------------------------------------------------------------------------------------------------


def test_a_mask_reads_as_if_only_its_facts_had_been_asserted(memory: EditMemory) -> None:
    paris, lyon, nice = (tell(memory, "France", "P36", city).fact.id for city in ("Paris", "Lyon", "Nice"))

    read = {
        ids: objects(memory.view(ids=ids).lookup("France", "P36"))
        for ids in ((paris,), (lyon,), (paris, lyon), (paris, nice), ())
    }

    assert read == {(paris,): ["Paris"], (lyon,): ["Lyon"], (paris, lyon): ["Lyon"], (paris, nice): ["Nice"], (): []}
    (shown,) = memory.view(ids=[paris]).facts()
    assert shown.live


def test_a_masked_search_and_masked_mentions_see_the_mask_only(memory: EditMemory) -> None:
    paris = tell(memory, "France", "P36", "Paris").fact
    tell(memory, "France", "P36", "Lyon")
    tell(memory, "Spain", "P36", "Nice")
    view = memory.view(ids=[paris.id])

    (hits,) = view.search(memory.embedder.encode(["What is the capital of Spain?"]), 5)

    assert [hit.fact.object for hit in hits] == ["Paris"]
    assert [mention.text for mention in view.mentions("Is Paris in France or Lyon in Spain?")] == ["Paris", "France"]
    assert view.relations() >= {"P36"}


def test_retracted_and_undone_facts_are_not_in_a_mask(memory: EditMemory) -> None:
    paris = tell(memory, "France", "P36", "Paris").fact.id
    lyon = tell(memory, "France", "P36", "Lyon").fact.id
    memory.retract(lyon)
    nice = tell(memory, "France", "P36", "Nice").fact.id
    memory.undo()

    assert memory.view(ids=[paris, lyon, nice]).facts() == []
    assert objects(memory.view(ids=[paris, nice]).facts()) == ["Paris"]


# -- aliases -------------------------------------------------------------------------------------------------


def test_an_alias_joins_what_was_recorded_under_both_names(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with EditMemory(path, embed_on_write=False) as memory:
        tell(memory, "The Big Apple", "mayor", "Ann")
        tell(memory, "New York City", "country", "Canada")
        tell(memory, "Bob", "residence", "The Big Apple")
        memory.add_alias("New York City", "The Big Apple")
        read = [objects(memory.view().lookup(name, "mayor")) for name in ("Big Apple", "new york city")]

        assert read == [["Ann"], ["Ann"]]
        assert [path.relations for path in memory.view().paths("Bob")][-2:] == [("P551", "P6"), ("P551", "P17")]
        assert tell(memory, "Big Apple", "country", "Canada").status == "unchanged"
        assert memory.aliases("New York City")[-1] == "The Big Apple"

    with EditMemory(path, embed_on_write=False) as memory:
        assert objects(memory.view().lookup("The Big Apple", "country")) == ["Canada"]


def test_of_two_facts_that_an_alias_brings_to_one_slot_the_later_holds_it(memory: EditMemory) -> None:
    tell(memory, "NYC", "mayor", "Ann")
    tell(memory, "New York City", "mayor", "Bob")
    memory.add_alias("New York City", "NYC")

    assert objects(memory.view().lookup("NYC", "mayor")) == ["Bob"]
    assert len(memory.view()) == len(memory.view().facts()) == 1
    assert tell(memory, "NYC", "mayor", "Ann").status == "superseded"
    assert objects(memory.view().lookup("New York City", "mayor")) == ["Ann"]
    assert memory.count() == 1


def test_an_alias_of_another_entity_is_refused_and_nothing_changes(memory: EditMemory) -> None:
    memory.add_alias("New York City", "Gotham")
    memory.add_alias("New York City", "Gotham")
    position = memory.position

    with pytest.raises(InvalidFact, match="Gotham"):
        memory.add_alias("Chicago", "Gotham")
    assert memory.position == position == 1


def test_a_capitals_only_alias_does_not_swallow_the_word(memory: EditMemory) -> None:
    tell(memory, "US", "capital", "Boston")

    assert objects(memory.view().lookup("United States of America", "capital")) == ["Boston"]
    assert memory.view().mentions("Tell us the capital.") == []
    assert [mention.text for mention in memory.view().mentions("The capital of the US?")] == ["US"]


# -- implied facts -------------------------------------------------------------------------------------------


def test_an_inverse_relation_implies_a_fact_that_names_its_source(memory: EditMemory) -> None:
    fact = tell(memory, "France", "capital", "Lyon").fact

    (implied,) = memory.view().lookup("Lyon", "P1376")

    assert (implied.subject, implied.object, implied.implied_from, implied.id) == ("Lyon", "France", fact.id, fact.id)
    assert implied.statement == memory.catalogue.get("P1376").state("Lyon", "France")
    assert memory.facts() == [fact]
    assert memory.view().relations() == {"P36", "P1376"}


def test_a_symmetric_relation_implies_its_mirror_and_follows_supersession(memory: EditMemory) -> None:
    tell(memory, "Ann", "spouse", "Bob")
    assert objects(memory.view().lookup("Bob", "spouse")) == ["Ann"]

    tell(memory, "Ann", "spouse", "Carl")

    assert objects(memory.view().lookup("Carl", "spouse")) == ["Ann"]
    assert memory.view().lookup("Bob", "spouse") == ()


def test_an_explicit_fact_wins_the_slot(memory: EditMemory) -> None:
    tell(memory, "Ann", "spouse", "Bob")
    explicit = tell(memory, "Bob", "spouse", "Dora").fact

    assert memory.view().lookup("Bob", "spouse") == (explicit,)
    memory.retract(explicit.id)
    assert objects(memory.view().lookup("Bob", "spouse")) == ["Ann"]


def test_a_multi_valued_slot_shows_explicit_and_implied_facts_once_each(memory: EditMemory) -> None:
    tell(memory, "Ann", "sibling", "Bob")
    tell(memory, "Carl", "sibling", "Ann")
    tell(memory, "Bob", "sibling", "Ann")

    assert objects(memory.view().lookup("Ann", "sibling")) == ["Bob", "Carl"]


# -- reading -------------------------------------------------------------------------------------------------


def test_paths_are_all_acyclic_chains_shortest_first(memory: EditMemory) -> None:
    tell(memory, "Bolt", "sport", "cricket")
    tell(memory, "cricket", "country of origin", "France")
    tell(memory, "France", "capital", "Lyon")
    tell(memory, "Bolt", "citizenship", "France")
    tell(memory, "Lyon", "twinned with", "Bolt")

    paths = memory.view().paths("bolt")
    explicit = [path.relations for path in paths if all(fact.implied_from is None for fact in path.facts)]

    assert explicit == [("P641",), ("P27",), ("P641", "P495"), ("P27", "P36"), ("P641", "P495", "P36")]
    assert all(path.start == "Bolt" for path in paths)
    assert [path.end for path in paths[:5]] == ["cricket", "France", "France", "Lyon", "Lyon"]
    assert memory.view().paths("bolt", limit=2) == paths[:2]
    assert max(len(path.facts) for path in memory.view().paths("bolt", max_hops=2)) == 2
    assert memory.view().paths("nobody") == memory.view().paths("") == []


def test_a_hubs_implied_facts_do_not_crowd_out_explicit_chains(memory: EditMemory) -> None:
    memory.define_relation(
        Relation(id="citizen", label="citizen", statement="{object} is a citizen of {subject}.",
                 question="Who is a citizen of {subject}?", phrase="a citizen of {subject}", inverse="P27",
                 single_valued=False)
    )  # fmt: skip
    memory.assert_facts(FactInput(subject=f"Person {n}", relation="P27", object="France") for n in range(50))
    tell(memory, "France", "capital", "Lyon")
    tell(memory, "Lyon", "mayor", "Ann")

    paths = memory.view().paths("France", limit=10)

    assert [path.relations for path in paths[:2]] == [("P36",), ("P36", "P6")]
    assert {path.relations for path in paths[2:]} == {("citizen",)}
    assert len(memory.view().lookup("France", "citizen")) == 50


def test_facts_about_and_facts_naming_see_both_directions(memory: EditMemory) -> None:
    tell(memory, "France", "capital", "Lyon")
    tell(memory, "Lyon", "mayor", "Ann")

    view = memory.view()

    assert [(fact.relation, fact.object) for fact in view.facts_about("Lyon")] == [("P6", "Ann"), ("P1376", "France")]
    assert [(fact.subject, fact.relation) for fact in view.facts_naming("lyon")] == [("France", "P36")]


@pytest.mark.parametrize("subject", ["", " ", "x" * 100_000, "a\x00b"])
def test_what_cannot_be_a_name_has_no_facts(memory: EditMemory, subject: str) -> None:
    tell(memory, "France", "capital", "Lyon")

    assert memory.view().lookup(subject, "capital") == memory.view().facts_about(subject) == ()
    assert memory.view().lookup("France", "no such relation") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is France's capital?", [("France", "france")]),
        ("is the UNITED states of america bigger than france", ["united states of america", "france"]),
        ("When did New Harbour City's mayor leave Harbour?", ["new harbour city", "harbour"]),
        ("Did J. K. Rowling hear a-ha?", [("J. K. Rowling", "jk rowling"), ("a-ha", "a-ha")]),
        ("法国的首都是哪里?", [("法国", "法国")]),
        ("프랑스의 수도는 어디인가요?", [("프랑스", "프랑스")]),
        ("Wo liegt ZU\u0308RICH?", ["zürich"]),
        ("Who wrote It?", [("It", "it")]),
        ("Who wrote it?", []),
        ("francesca, Frances", []),
        ("", []),
    ],
)
def test_mentions_are_the_longest_names_from_left_to_right(
    memory: EditMemory, text: str, expected: list[tuple[str, str] | str]
) -> None:
    names = [
        "France",
        "the United States",
        "New Harbour City",
        "Harbour",
        "J.K. Rowling",
        "a-ha",
        "法国",
        "프랑스",
        "Zürich",
    ]
    memory.assert_facts(FactInput(subject=name, relation="capital", object="It") for name in names)

    mentions = memory.view().mentions(text)

    assert [mention.key for mention in mentions] == [pair if isinstance(pair, str) else pair[1] for pair in expected]
    assert all(text[mention.start : mention.end] == mention.text for mention in mentions)
    assert [m.text for m, pair in zip(mentions, expected, strict=True) if not isinstance(pair, str)] == [
        pair[0] for pair in expected if not isinstance(pair, str)
    ]


def test_mentions_end_with_the_last_fact_of_an_entity(memory: EditMemory) -> None:
    fact = tell(memory, "France", "capital", "Lyon").fact
    memory.retract(fact.id)

    assert memory.view().mentions("The capital of France is Lyon") == []
    assert len(memory.view(as_of=fact.recorded_at).mentions("The capital of France is Lyon")) == 2


def test_filters_narrow_the_listing_and_pages_follow_on(memory: EditMemory) -> None:
    for country, city in (("France", "Lyon"), ("Spain", "Vigo"), ("Italy", "Bari"), ("Spain", "Leon")):
        tell(memory, country, "capital", city)
    tell(memory, "Lyon", "mayor", "Ann")

    assert objects(memory.facts(relation="capital")) == ["Lyon", "Bari", "Leon"]
    assert objects(memory.facts(subject="spain", live=False)) == ["Vigo", "Leon"]
    assert objects(memory.facts(object="LYON")) == ["Lyon"]
    assert objects(memory.facts(subject="France", object="Bari")) == []
    assert objects(memory.facts(text="of  ITALY")) == ["Bari"]
    first = memory.facts(limit=2)
    assert objects(memory.facts(limit=2, after=first[-1].id)) == ["Leon", "Ann"]
    newest = memory.facts(limit=2, newest_first=True)
    assert objects(newest) == ["Ann", "Leon"]
    assert objects(memory.facts(limit=1, after=newest[-1].id, newest_first=True)) == ["Bari"]
    with pytest.raises(UnknownRelation, match="capital"):
        memory.facts(relation="capitol")


def test_progress_is_told_while_a_batch_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memedit.memory.recall._CHUNK", 3)
    told: list[tuple[int, int]] = []
    with EditMemory(embedder=HashEmbedder()) as memory:
        facts = [FactInput(subject=f"Country{n}", relation="capital", object="Rome") for n in range(4)]
        memory.assert_facts(facts, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 8), (6, 8), (8, 8)]


def test_search_finds_a_fact_by_its_meaning(tmp_path: Path) -> None:
    embedder = SentenceEmbedder()
    with EditMemory(tmp_path / "facts.db", embedder=embedder) as memory:
        fact = tell(memory, "France", "capital", "Lyon").fact
        tell(memory, "cricket", "country of origin", "Finland")
        memory.assert_fact(FactInput(statement="The ministers met in a hurry, or so they say."))

        hits = memory.view().search(embedder.encode(["Which city is the seat of the French government?", "x"]), 3)

        assert hits[0][0].fact == fact
        assert 0.4 < hits[0][0].score < 1
        assert [len({hit.fact.id for hit in found}) for found in hits] == [3, 3]


def test_search_passes_over_ended_facts_however_many_there_are(memory: EditMemory) -> None:
    for number in range(100):
        tell(memory, "France", "capital", f"City {number}")
    spain = tell(memory, "Spain", "capital", "Vigo").fact

    (hits,) = memory.view().search(memory.embedder.encode(["What is the capital of France?"]), 5)

    assert [hit.fact.object for hit in hits] == ["City 99", "Vigo"]
    assert hits[0].score == pytest.approx(1)
    assert hits[1].fact == spain


def test_search_as_of_finds_what_was_live_then(memory: EditMemory) -> None:
    old = tell(memory, "France", "capital", "Paris").fact
    tell(memory, "France", "capital", "Lyon")

    (hits,) = memory.view(as_of=old.recorded_at).search(memory.embedder.encode([old.statement]), 5)

    assert [hit.fact for hit in hits] == [old]


# -- embedding and the index ---------------------------------------------------------------------------------


def test_without_embedding_on_write_the_first_search_embeds(place: str) -> None:
    embedder = HashEmbedder()
    with EditMemory(place, embedder=embedder, embed_on_write=False) as memory:
        fact = tell(memory, "France", "capital", "Lyon").fact
        assert embedder.texts == []

        (hits,) = memory.view().search(embedder.encode([fact.question]), 1)

        assert hits[0].fact == fact


def test_nothing_is_embedded_twice(place: str) -> None:
    embedder = HashEmbedder()
    with EditMemory(place, embedder=embedder) as memory:
        tell(memory, "France", "capital", "Lyon")
        tell(memory, "France", "capital", "Lyon")
        tell(memory, "France", "capital", "Nice")
        memory.undo()
        memory.rebuild_index()

    assert len(embedder.texts) == len(set(embedder.texts)) == 3


def test_pending_facts_can_be_embedded_with_progress(place: str) -> None:
    seen: list[tuple[int, int]] = []
    with EditMemory(place, embedder=HashEmbedder(), embed_on_write=False) as memory:
        memory.assert_facts(FactInput(subject=f"S{n}", relation="capital", object="Lyon") for n in range(3))

        assert memory.embed_pending(lambda done, total: seen.append((done, total))) == 3
        assert memory.embed_pending() == 0

    assert seen == [(3, 3)]


def snapshot(place: str) -> Path:
    """Where this machine keeps the index's snapshot of a memory."""
    with Store(place) as store:
        assert store.snapshot is not None
        return store.snapshot


def make(place: str | Path, *, count: int = 20) -> None:
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        memory.assert_facts(FactInput(subject=f"Land {n}", relation="capital", object="Lyon") for n in range(count))


def find(place: str | Path, number: int = 7) -> str:
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        (hits,) = memory.view().search(memory.embedder.encode([f"What is the capital of Land {number}?"]), 1)
        return hits[0].fact.subject


def test_a_saved_index_is_read_and_nothing_is_embedded_or_said(place: str) -> None:
    make(place)

    assert snapshot(place).exists()
    assert find(place) == "Land 7"


def test_a_missing_index_is_rebuilt_with_a_notice(tmp_path: Path) -> None:
    make(tmp_path / "facts.db")
    (tmp_path / "facts.db.index").unlink()

    with pytest.warns(IndexRebuilt, match="missing"):
        assert find(tmp_path / "facts.db") == "Land 7"
    assert find(tmp_path / "facts.db") == "Land 7"


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_index_is_rebuilt_with_a_notice(damage: bytes | None, place: str) -> None:
    make(place)
    content = bytearray(snapshot(place).read_bytes())
    content[len(content) // 2] ^= 0xFF
    snapshot(place).write_bytes(bytes(content) if damage is None else damage)

    with pytest.warns(IndexRebuilt, match="damaged"):
        assert find(place) == "Land 7"
    assert find(place) == "Land 7"


def test_an_index_that_is_behind_the_log_catches_up_with_a_notice(place: str) -> None:
    make(place, count=5)
    behind = snapshot(place).read_bytes()
    make(place, count=20)
    snapshot(place).write_bytes(behind)

    with pytest.warns(IndexRebuilt, match="behind"):
        assert find(place, 17) == "Land 17"


def test_a_fact_whose_texts_were_embedded_before_is_in_the_saved_index(place: str) -> None:
    for _ in range(2):
        with EditMemory(place, embedder=HashEmbedder()) as memory:
            tell(memory, "Land 7", "capital", "Lyon")
            memory.retract(memory.facts()[0].id)
            tell(memory, "Land 7", "capital", "Lyon")
            memory.retract(memory.facts()[0].id)
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        tell(memory, "Land 7", "capital", "Lyon")

    assert find(place) == "Land 7"


def test_a_few_new_facts_do_not_make_a_large_index_be_written_again(place: str) -> None:
    make(place, count=100)
    before = snapshot(place).stat().st_mtime_ns
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        tell(memory, "Utopia", "capital", "Lyon")

    with EditMemory(place, embedder=HashEmbedder()) as memory:
        (hits,) = memory.view().search(memory.embedder.encode(["What is the capital of Utopia?"]), 1)
    assert hits[0].fact.subject == "Utopia"
    assert snapshot(place).stat().st_mtime_ns == before


def test_the_index_of_another_memory_is_not_used(tmp_path: Path) -> None:
    make(tmp_path / "one.db")
    make(tmp_path / "two.db", count=3)
    (tmp_path / "two.db.index").write_bytes((tmp_path / "one.db.index").read_bytes())

    with pytest.warns(IndexRebuilt, match="another"):
        assert find(tmp_path / "two.db", 2) == "Land 2"


def test_facts_written_without_an_embedder_are_no_cause_for_a_notice(place: str) -> None:
    with EditMemory(place, embedder=HashEmbedder(), embed_on_write=False) as memory:
        tell(memory, "Land 1", "capital", "Lyon")
    assert find(place, 1) == "Land 1"
    with EditMemory(place, embedder=HashEmbedder(), embed_on_write=False) as memory:
        tell(memory, "Land 2", "capital", "Lyon")

    assert find(place, 2) == "Land 2"


# -- what is refused -----------------------------------------------------------------------------------------

GOOD = {"subject": "France", "relation": "capital", "object": "Lyon"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subject": ""}, "subject .* empty"),
        ({"object": " "}, "object .* empty"),
        ({"subject": "x" * 100_000}, "subject .* 100,000 characters"),
        ({"object": "a\x07b"}, r"object .* U\+0007"),
        ({"subject": None}, "no subject"),
        ({"relation": None, "object": None}, "no relation and no object"),
        ({"relation": " "}, "relation .* empty"),
        ({"relation": "!!!"}, "letter"),
        ({"relation": FREE_TEXT}, "free-text"),
        ({"statement": " "}, "statement is empty"),
        ({"statement": "x" * 100_000}, "statement is 100,000 characters"),
        ({"statement": "a\x00b"}, r"statement .* U\+0000"),
        ({"source": "\ud800"}, r"source .* U\+D800"),
        ({"valid_from": Y2021, "valid_to": Y2020}, "valid_to .* swap"),
        ({"valid_from": Y2021, "valid_to": Y2021}, "not after"),
        ({"valid_from": datetime(2020, 1, 1)}, "valid_from .* time zone"),
        ({"subject": None, "relation": None, "object": None}, "empty"),
    ],
)
def test_a_bad_fact_is_refused_with_what_to_mend(
    memory: EditMemory, change: dict[str, str | datetime | None], message: str
) -> None:
    bad = FactInput.model_validate(GOOD | change)

    with pytest.raises(InvalidFact, match=message) as caught:
        memory.assert_fact(bad)

    assert caught.value.mend
    assert memory.position == 0


def test_an_unknown_wikidata_id_is_refused_but_a_new_name_is_not(memory: EditMemory) -> None:
    with pytest.raises(UnknownRelation, match="P99999"):
        tell(memory, "France", "P99999", "Lyon")
    assert tell(memory, "France", "national bird", "rooster").status == "added"


def test_a_batch_with_a_bad_row_writes_nothing_and_names_the_row(memory: EditMemory) -> None:
    rows = [FactInput.model_validate(GOOD), FactInput(subject="Ada", relation="favourite tea", object="Assam"),
            FactInput(subject="", relation="capital", object="Lyon")]  # fmt: skip

    with pytest.raises(BadRow, match="row 3") as caught:
        memory.assert_facts(rows)

    assert caught.value.row == 3
    assert memory.position == 0
    assert memory.facts() == []
    assert memory.catalogue.resolve("favourite tea") is None


def test_an_empty_batch_is_no_write(memory: EditMemory) -> None:
    assert memory.assert_facts([]) == []
    assert memory.position == 0


@pytest.mark.parametrize("name", ["as_of", "valid_at"])
def test_a_reading_at_a_time_without_a_zone_is_refused(memory: EditMemory, name: str) -> None:
    naive = datetime(2020, 1, 1)
    with pytest.raises(InvalidFact, match=f"{name} .* time zone"):
        memory.view(**{name: naive})  # type: ignore[arg-type]


def test_a_log_with_missing_entries_is_refused(place: str) -> None:
    make(place, count=3)
    with Store(place) as store, store.transaction() as transaction:
        transaction.connection.exec_driver_sql("DELETE FROM memedit_log WHERE seq = 2")

    with pytest.raises(CorruptDatabase, match="entry 1 to entry 3"):
        EditMemory(place, embedder=HashEmbedder())


def test_a_log_that_makes_no_sense_is_refused(place: str) -> None:
    make(place, count=3)
    with Store(place) as store, store.transaction() as transaction:
        transaction.connection.exec_driver_sql("UPDATE memedit_log SET kind = 'end', fact = 77 WHERE seq = 3")

    with pytest.raises(CorruptDatabase, match="Entry 3"):
        EditMemory(place, embedder=HashEmbedder())


def test_a_closed_memory_says_so(place: str) -> None:
    memory = EditMemory(place, embed_on_write=False)
    memory.close()
    memory.close()

    with pytest.raises(StoreError, match="closed"):
        tell(memory, "France", "capital", "Lyon")


# -- threads -------------------------------------------------------------------------------------------------


def test_threads_may_write_retract_undo_and_read_at_once(place: str) -> None:
    errors: list[BaseException] = []
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        tell(memory, "Land 0", "capital", "Lyon")

        def write(name: str) -> None:
            for number in range(15):
                fact = tell(memory, f"{name} {number}", "capital", "Lyon").fact
                assert memory.view().lookup(fact.subject, "capital") == (fact,)
                if number % 3 == 0:
                    memory.retract(fact.id)
                tell(memory, "Land 0", "capital", f"{name} {number}", namespace=name)
                if number % 5 == 0:
                    memory.undo(namespace=name)

        def read() -> None:
            query = memory.embedder.encode(["What is the capital of Land 0?"])
            for _ in range(40):
                view = memory.view()
                (hits,) = view.search(query, 5)
                assert hits[0].fact.subject == "Land 0"
                assert len(view.lookup("Land 0", "capital")) == 1
                view.paths("Land 0")
                view.mentions("Land 0 and Lyon")

        def run(work: object) -> None:
            try:
                work()  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)

        jobs = [lambda: write("Alpha"), lambda: write("Beta"), read, read]
        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert errors == []
        assert memory.count() == 1 + 2 * 10
        assert len(memory.facts(namespace="Alpha")) == len(memory.facts(namespace="Beta")) == 1
        everything = memory.history()
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        assert memory.history() == everything


@pytest.mark.parametrize(
    "text", ["a-\nha is a band", "a-ha\x00 is a band", "man-in-\nthe-middle\tattacks", "a-" + "x" * 2_000]
)
def test_a_text_may_hold_what_no_name_may(memory: EditMemory, text: str) -> None:
    memory.assert_fact(FactInput(subject="a-ha", relation="P495", object="Norway"))
    memory.assert_fact(FactInput(subject="x" * 900, relation="P495", object="Norway"))

    assert [mention.key for mention in memory.view().mentions(text)] in ([], ["a ha"], ["ha"], ["a-ha"])


def test_a_loose_name_stands_for_what_it_mostly_means_until_something_bears_it(memory: EditMemory) -> None:
    assert memory.view().known_as("Holland") == "Holland"

    memory.assert_fact(FactInput(subject="Netherlands", relation="P36", object="Utrecht"))
    assert memory.view().known_as("Holland") == "Netherlands"

    memory.assert_fact(FactInput(subject="Holland", relation="P36", object="Gouda"))
    assert memory.view().known_as("Holland") == "Holland"
    assert memory.view().known_as("\0") == "\0"


def test_who_plays_football_plays_association_football(memory: EditMemory) -> None:
    memory.assert_fact(FactInput(subject="football", relation="P495", object="Turkey"))
    assert memory.view().known_as("football") == "football"

    memory.assert_fact(FactInput(subject="association football", relation="P495", object="Hong Kong"))
    assert memory.view().known_as("Football") == "association football"
