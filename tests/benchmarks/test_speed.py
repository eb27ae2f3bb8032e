"""The speed benchmark: its made-up facts, its figures, and one whole run at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.generated import BlendingEmbedder, FactMaker
from benchmarks.speed import main, table
from benchmarks.speed_setup import Figure, timed
from memedit.evaluation.environment import environment, sha256
from memedit.memory.embedder import SentenceEmbedder
from memedit.memory.memory import EditMemory


def test_the_same_seed_gives_the_same_facts_and_another_seed_others() -> None:
    first, again, other = (FactMaker(seed=seed).facts(200) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_made_up_facts_are_all_recorded_and_supersede_nothing() -> None:
    facts = FactMaker(seed=1, entities=100).facts(500)

    with EditMemory(embed_on_write=False) as memory:
        receipts = memory.assert_facts(facts)

    assert {receipt.status for receipt in receipts} == {"added"}


def test_a_made_up_question_names_the_subject_of_its_fact() -> None:
    maker = FactMaker(seed=3)

    for fact in maker.facts(100):
        assert fact.subject is not None
        assert fact.subject in maker.question(fact)
        assert fact.subject in maker.two_hop_question(fact)


def test_vectors_of_the_sample_are_real_and_the_others_are_unit_blends_by_text_alone() -> None:
    maker, real = FactMaker(seed=1), SentenceEmbedder()
    facts = maker.facts(8)
    relation = maker.catalogue.get(facts[0].relation or "")
    statement = relation.state(facts[0].subject or "", facts[0].object or "")
    blending = BlendingEmbedder(real, facts, maker.catalogue)

    vectors = blending.encode([statement, "one", "two"])

    np.testing.assert_allclose(vectors[:1], real.encode([statement]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(blending.encode(["two"])[0], vectors[2])
    assert vectors[1] @ vectors[2] < 0.999


@pytest.mark.parametrize(
    ("value", "target", "at_least", "met"),
    [
        (1.0, None, False, None),
        (1.0, 2.0, False, True),
        (3.0, 2.0, False, False),
        (3.0, 2.0, True, True),
        (1.0, 2.0, True, False),
    ],
)
def test_a_figure_says_whether_its_target_is_met(
    value: float, target: float | None, at_least: bool, met: bool | None
) -> None:
    figure = Figure("name", value, "s", "how", target, at_least)

    assert figure.met is met
    assert figure.to_dict()["met"] is met


def test_a_time_is_the_median_of_its_samples_in_the_unit_asked_for() -> None:
    figure = timed("name", "ms", [0.001, 0.009, 0.002], "how")

    assert (figure.value, figure.p99, figure.samples) == (2.0, None, 3)
    assert timed("name", "ms", [0.001] * 98 + [0.5] * 2, "how").p99 == 500.0


def test_a_run_writes_figures_targets_and_where_it_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"

    code = main(["--facts", "120", "--only", "lookups", "size", "reopening", "--json", str(out), "--seed", "5"])

    result = json.loads(out.read_text(encoding="utf-8"))
    figures = {figure["name"]: figure for figure in result["figures"]}
    assert code == 0
    assert (result["benchmark"], result["facts"], result["seed"], result["vectors"]) == ("speed", 120, 5, "blended")
    assert {"slot_lookup", "scope_lookup", "scope_classifier", "resident_bytes_per_fact", "reopen"} <= set(figures)
    assert all(figure["value"] > 0 for name, figure in figures.items() if "bytes" not in name)
    assert figures["slot_lookup"]["target"] == 50
    assert {"name", "value", "unit", "target", "met", "how"} <= set(figures["slot_lookup"])
    assert "slot_lookup" in capsys.readouterr().out


def test_a_memory_kept_in_a_folder_is_filled_once(tmp_path: Path) -> None:
    arguments = ["--facts", "60", "--only", "reopening", "--folder", str(tmp_path)]
    main(arguments)
    filled = sorted((file.name, file.stat().st_ino) for file in tmp_path.glob("facts-60-*"))

    main(arguments)

    assert sorted((file.name, file.stat().st_ino) for file in tmp_path.glob("facts-60-*")) == filled


def test_the_table_marks_what_misses_its_target() -> None:
    rows = table([Figure("good", 1, "s", "", 2), Figure("bad", 3, "s", "", 2), Figure("plain", 3, "s", "")]).rows

    assert [row[-1] for row in rows] == ["yes", "NO", ""]


def test_the_environment_is_json_and_names_the_command(tmp_path: Path) -> None:
    found = environment(["tool.py", "--limit", "3", "a b"])

    assert json.loads(json.dumps(found)) == found
    assert str(found["command"]).endswith("--limit 3 'a b'")
    assert environment(["/usr/bin/memedit", "compare", "--seed", "1"])["command"] == "memedit compare --seed 1"
    assert {"python", "cpu", "cores", "versions", "commit"} <= set(found)


def test_sha256_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"abc")

    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
