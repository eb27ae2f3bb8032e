"""The scale benchmark's facts and vectors, and a whole run of it at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale_facts import FactSource, VectorMaker, vary
from benchmarks.scale_parts import Figures
from memedit.memory.catalogue import Catalogue

NAMES = ("Allan Peiper", "Paul Mounsey", "Oslo", "Henry Heras", "Superpitcher", "Cocteau Twins", "Emmanuelle Arsan")


@pytest.fixture
def triples(tmp_path: Path) -> Path:
    folder = tmp_path / "triples"
    folder.mkdir()
    for relation, objects in (("P19", ("Rome", "Lima")), ("P103", ("French", "Thai"))):
        rows = [{"sub_label": name, "obj_label": objects[place % 2]} for place, name in enumerate(NAMES)]
        (folder / f"{relation}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("first", "second", "varied"),
    [
        ("Allan Peiper", "Paul Mounsey", "Allan Mounsey"),
        ("Jean de La Fontaine", "Paul Mounsey", "Jean de Mounsey"),
        ("Allan Peiper", "Oslo", "Allan Oslo"),
        ("Oslo", "Superpitcher", "Ositcher"),
    ],
)
def test_a_subject_is_varied_by_halves_of_real_names(first: str, second: str, varied: str) -> None:
    assert vary(first, second) == varied


def test_facts_are_of_real_relations_and_objects_and_each_has_a_slot_of_its_own(triples: Path) -> None:
    source = FactSource(triples, seed=3)

    made = source.triples(40)

    assert len({(triple.subject.casefold(), triple.relation) for triple in made}) == 40
    assert {triple.object for triple in made} == {"Rome", "Lima", "French", "Thai"}
    assert made == FactSource(triples, seed=3).triples(40)
    relation = Catalogue.default().get(made[0].relation)
    assert source.texts(made[0])[1] == relation.ask(made[0].subject)
    assert source.asked(made[0], 0) != relation.ask(made[0].subject)
    assert made[0].subject in source.asked(made[0], 0)


def test_few_names_give_as_many_facts_as_are_wanted(triples: Path) -> None:
    made = FactSource(triples).triples(500)

    assert len({(triple.subject.casefold(), triple.relation) for triple in made}) == 500


def test_no_triples_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no triples"):
        FactSource(tmp_path)


def test_derived_vectors_are_as_spread_as_the_real_ones_and_differ_from_them() -> None:
    rng = np.random.default_rng(0)
    real = rng.standard_normal((400, 2, 48)) * np.linspace(0.2, 2, 48) + 3 * rng.standard_normal(48)
    real = (real / np.linalg.norm(real, axis=2, keepdims=True)).astype(np.float32)

    derived = VectorMaker(real, ["P19"] * 400).derive(["P19"] * 2_000)

    np.testing.assert_allclose(np.linalg.norm(derived, axis=2), 1, atol=1e-5)
    for side in (0, 1):
        ours, theirs = derived[:, side], real[:, side]
        assert ours.mean(axis=0) @ theirs.mean(axis=0) == pytest.approx(
            theirs.mean(axis=0) @ theirs.mean(axis=0), rel=0.05
        )
        assert np.trace(np.cov(ours.T)) == pytest.approx(np.trace(np.cov(theirs.T)), rel=0.25)
        assert (ours @ theirs.T).max() < 0.9999


def figures(*, peak: float = 3e9, recall: float = 0.99) -> Figures:
    return {
        "structure": "compressed",
        "peak": peak,
        "recall_of_right_edit": recall,
        "top_one_as_exact": 0.996,
        "open_and_search": 12.0,
        "scope": 0.012,
        "scope_while_writing": 0.02,
        "scope_while_writing_p99": 0.05,
        "slot": 2e-5,
        "load_rate": 12_000.0,
        "swap_pause": 1e-6,
        "longest_search_around_swap": 0.01,
    }


def test_the_largest_size_is_judged_and_a_target_that_is_missed_is_told() -> None:
    sizes = {1_000: figures(), 10_000: figures(), 1_000_000: figures(peak=5e9, recall=0.97)}

    missed = [target.what for target in scale.targets(sizes) if not target.met]

    assert missed == ["resident memory, GB", "recall of the right edit among five, of exact"]
    assert len(scale.targets(sizes)) == 9


def test_figures_are_drawn(tmp_path: Path) -> None:
    scale.plot({1_000: figures(), 1_000_000: figures()}, tmp_path / "out.png")

    assert (tmp_path / "out.png").stat().st_size > 10_000
