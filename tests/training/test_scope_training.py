"""Training the scope classifier: it learns from a handful of edits, goes on after a kill, and reads damaged data plainly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from memedit.errors import BadDataFile
from memedit.scope_model import CrossEncoder
from memedit.scope_text import FactText
from memedit.training.scope import ScopeTraining, calibration_error, choose_threshold, fit_logistic, train_scope
from memedit.training.scope_data import Pair, Sampler
from memedit.training.scope_forms import near_name, similar_names
from memedit.training.scope_sources import PARTS, read_scope_corpus

TEMPLATES = ("The capital of {} is", "{} is a citizen of", "The author of {} is", "{} plays the instrument")
NAMES = ("Vela", "Oriel", "Tamsin", "Brock", "Caldera", "Dunmore", "Elvet", "Farrow", "Galtee", "Holm", "Ister", "Jura")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that holds a small CounterFact file and nothing else."""
    rows = [
        {
            "case_id": number,
            "prompt": template.format(f"{first} {last}"),
            "subject": f"{first} {last}",
            "target_new": "Lisbon",
            "ground_truth": "Rome",
            "rephrase_prompt": "It rained all night. " + template.format(f"{first} {last}"),
            "locality_prompt": template.format(f"{last} {first}"),
        }
        for number, (first, last) in enumerate((a, b) for a in NAMES for b in NAMES if a != b)
        for template in [TEMPLATES[number % len(TEMPLATES)]]
    ]
    folder = tmp_path / "data" / "counterfact"
    folder.mkdir(parents=True)
    (folder / "counterfact-train.json").write_text(json.dumps(rows), "utf-8")
    return tmp_path / "data"


SMALL = ScopeTraining(seed=3, edits=384, layers=1, mined=40, facts=60, held_out=60, rate=5e-4, threads=1)


@pytest.mark.slow
def test_a_tiny_set_is_learnt(data: Path, tmp_path: Path) -> None:
    report = train_scope(data, tmp_path / "out", SMALL)

    loss = report["loss"]
    assert isinstance(loss, list)
    assert loss[-1] < 0.75 * loss[0]
    pairs = [
        ("What is the capital of Brock Holm?", FactText("Brock Holm", "Lyon", "The capital of Brock Holm is Lyon.")),
        ("Write a poem about the sea.", FactText("Brock Holm", "Lyon", "The capital of Brock Holm is Lyon.")),
    ]
    about, nothing = CrossEncoder(tmp_path / "out").probabilities(pairs)
    assert about > 0.5 > nothing
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["loss"] == loss


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ScopeTraining(seed=3, edits=192, layers=1, mined=40, facts=60, held_out=5, checkpoint=1, threads=1)
    whole = train_scope(data, tmp_path / "whole", how)
    draw, drawn = Sampler.group, 0

    def killed(self: Sampler, rng: random.Random) -> list[Pair]:
        nonlocal drawn
        drawn += 1
        if drawn > 150:
            raise KeyboardInterrupt
        return draw(self, rng)

    with monkeypatch.context() as patched:
        patched.setattr(Sampler, "group", killed)
        with pytest.raises(KeyboardInterrupt):
            train_scope(data, tmp_path / "resumed", how)
    resumed = train_scope(data, tmp_path / "resumed", how)

    assert resumed["loss"] == whole["loss"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
    assert weights[0] == weights[1]


def test_a_folder_without_edits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataFile, match=r"counterfact-train\.json"):
        train_scope(tmp_path, tmp_path / "out", SMALL)


def test_the_same_chance_draws_the_same_pairs(data: Path) -> None:
    corpus = read_scope_corpus(data)
    first, second = (Sampler(corpus, "train").group(random.Random(7)) for _ in range(2))
    assert first == second
    assert {pair.label for pair in first} == {True, False}


def test_no_subject_is_both_trained_and_tested_on(data: Path) -> None:
    corpus = read_scope_corpus(data)
    parts = [{record.subject for record in corpus.part(part)} for part in PARTS]
    assert all(parts)
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]


def test_negatives_of_another_relation_leave_out_what_means_the_same(data: Path) -> None:
    wordings = read_scope_corpus(data).wordings
    assert "P36" in wordings.others("P37")
    assert not {"P22", "P25"} & set(wordings.others("P8810"))


def test_a_near_name_is_never_the_name() -> None:
    rng = random.Random(0)
    similar = similar_names(["Windows 7", "Windows 8", "Windows", "Lake Como"])
    assert set(similar["Windows 7"]) == {"Windows 8", "Windows"}
    drawn = {near_name(rng, "Windows 7", ["product"], similar["Windows 7"]) for _ in range(200)}
    assert "Windows 8" in drawn
    assert "Windows 7" not in drawn


def test_the_threshold_lets_the_stated_share_pass() -> None:
    probabilities = np.concatenate([np.linspace(0.0, 1.0, 1001), np.ones(50)])
    labels = np.concatenate([np.zeros(1001), np.ones(50)])
    threshold = choose_threshold(probabilities, labels, 0.02)
    assert threshold == pytest.approx(0.98, abs=0.002)
    assert (probabilities[:1001] >= threshold).mean() <= 0.02
    assert choose_threshold(probabilities, labels, 0.9) == 0.5


def test_calibration_turns_overconfident_odds_into_shares() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-true))).astype(float)
    slope, shift = fit_logistic(3 * true + 1, labels)

    assert slope == pytest.approx(1 / 3, abs=0.02)
    error, _ = calibration_error(1 / (1 + np.exp(-(slope * (3 * true + 1) + shift))), labels)
    raw, _ = calibration_error(1 / (1 + np.exp(-(3 * true + 1))), labels)
    assert error < 0.01 < raw
