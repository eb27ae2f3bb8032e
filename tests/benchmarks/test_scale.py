"""The scale benchmark's facts and vectors, and a whole run of it at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale_facts import FactSource, VectorMaker, vary
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


@pytest.mark.slow
def test_a_whole_run_writes_figures_for_every_size_with_targets_and_a_plot(tmp_path: Path, triples: Path) -> None:
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    arguments = ["--facts", "20,60", "--data", str(triples), "--folder", str(tmp_path), "--json", str(out)]

    assert scale.main([*arguments, "--plot", str(picture)]) == 0

    result = json.loads(out.read_text())
    assert list(result["sizes"]) == ["20", "60"]
    assert result["sizes"]["60"]["recall_of_right_edit"] == 1.0
    assert {"what", "value", "limit", "at_least", "met"} == set(result["targets"][0])
    assert picture.stat().st_size > 10_000
