"""Training the counterfactual adapter: it learns from a few triples, goes on after a kill, and its tasks are sound."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from memedit.errors import BadDataFile
from memedit.training.counterfactual_data import KINDS, TaskSampler, asked, is_right, read_triples

FIRST = ("Vela", "Oriel", "Tamsin", "Brock", "Caldera", "Dunmore")
LAST = ("Elvet", "Farrow", "Galtee", "Holm", "Ister", "Jura")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with ParaRel's triples of five relations and nothing else."""
    folder = tmp_path / "data" / "pararel" / "trex_lms_vocab"
    folder.mkdir(parents=True)
    for relation in ("P36", "P50", "P27", "P19", "P159"):
        rows = [{"sub_label": f"{a} {b}", "obj_label": f"{b} {a}"} for a in FIRST for b in LAST]
        (folder / f"{relation}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return tmp_path / "data"


@pytest.mark.model
@pytest.mark.slow
def test_a_tiny_set_is_learnt_and_what_is_written_answers(data: Path, tmp_path: Path) -> None:
    from memedit.counterfactual_adapter import load_adapted
    from memedit.models.base import Sampling
    from memedit.training.counterfactual import AdapterTraining, train_counterfactual

    out = tmp_path / "out"
    how = AdapterTraining(steps=8, batch=2, rate=3e-3, layers=2, tested=0, checkpoint=4, threads=1)
    report = train_counterfactual(data, out, how)
    again = train_counterfactual(data, out, how)

    losses = report["loss"]
    assert isinstance(losses, list)
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    assert again["loss"] == losses
    task = TaskSampler(read_triples(data, 0.2, 0)).draw(random.Random(1), "slot")
    told = load_adapted(out).generate([task.messages()], Sampling(max_tokens=4))
    assert told[0].text


def test_every_kind_of_task_is_answered_rightly_by_its_own_answer(data: Path) -> None:
    rng, sampler = random.Random(0), TaskSampler(read_triples(data, 0.2, 0))
    for kind in KINDS:
        for task in (sampler.draw(rng, kind) for _ in range(30)):
            assert is_right(task, task.answer), task
            told = " ".join(turn["content"] for turn in task.messages()).casefold()
            assert all(name.casefold() in told for name in task.must if name not in ("yes", "no"))


def test_no_relation_and_no_template_is_both_trained_and_measured_on(data: Path) -> None:
    triples = read_triples(data, 0.4, 0)
    rng = random.Random(0)
    seen = [
        {task.question for task in (TaskSampler(triples, held_out=part).draw(rng, "free_text") for _ in range(200))}
        for part in (False, True)
    ]

    assert triples.held_out
    assert not set(triples.trained) & set(triples.held_out)
    assert not seen[0] & seen[1]


def test_the_same_chance_draws_the_same_tasks(data: Path) -> None:
    sampler = TaskSampler(read_triples(data, 0.2, 0))
    assert sampler.draw(random.Random(7)) == sampler.draw(random.Random(7))


def test_an_answer_is_right_by_what_it_says_first_and_names(data: Path) -> None:
    sampler, rng = TaskSampler(read_triples(data, 0.2, 0)), random.Random(0)
    denied = next(task for task in iter(lambda: sampler.draw(rng, "claim"), None) if "no" in task.must)
    written = sampler.draw(rng, "write")

    assert not is_right(denied, "Yes.")
    assert not is_right(denied, "No.")
    assert not is_right(written, written.never[0])


def test_a_statement_becomes_a_question() -> None:
    questions = {asked(random.Random(seed), "Lyon is the capital of France.") for seed in range(40)}
    assert "Is Lyon the capital of France?" in questions
    assert all(question.endswith(("?", ".")) for question in questions)


def test_a_folder_without_triples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataFile, match="too few triples"):
        read_triples(tmp_path, 0.2, 0)
