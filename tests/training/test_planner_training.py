"""Training the planner on a tiny set: it learns, goes on where it stopped, and what it writes can be planned with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from memedit.errors import BadDataFile
from memedit.memory.catalogue import Catalogue
from memedit.planner_model import TrainedPlanner
from memedit.planner_net import NetConfig
from memedit.strategies.base import ScorePaths
from memedit.training.data import Corpus, Example, read_corpus
from memedit.training.phrasing import Phrasebook
from memedit.training.planner import TrainConfig, Trainer, export
from memedit.training.planner_report import calibration_error, fit_calibration, same_name, write_report
from memedit.training.planner_run import MQUAKE, train_planner

FEW = ("P26", "P36", "P50")
SMALL = NetConfig(layers=2)
NAMES = ("Ada Quill", "Bo Marsh", "Cleo Finch", "Dan Moor")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    whole = read_corpus(tmp_path, [])
    book = Phrasebook({key: whole.phrasebook.wordings[key] for key in FEW}, {})
    templates = {"P26": "Who is {} married to?", "P36": "What is the capital of {}?", "P50": "Who wrote {}?"}
    single = [
        Example(text.format(name), (text.index("{"), text.index("{") + len(name)), (relation,), "hops")
        for relation, text in templates.items()
        for name in NAMES
    ]
    return Corpus([], single, [], {relation: list(NAMES) for relation in FEW}, book)


def catalogue_of(*relations: str) -> Catalogue:
    catalogue = Catalogue()
    for relation in relations:
        catalogue.define(Catalogue.default().get(relation))
    return catalogue


def train(corpus: Corpus, out: Path, steps: int, until: int | None = None) -> Trainer:
    config = TrainConfig(
        steps=steps, batch=8, open_batch=0, encoder_rate=3e-4, decoder_rate=3e-3, average=0.8, half=False
    )
    trainer = Trainer(corpus, config, out, net=SMALL)
    trainer.resume()
    trainer.train(until)
    return trainer


def test_it_learns_a_tiny_set(corpus: Corpus, tmp_path: Path) -> None:
    trainer = train(corpus, tmp_path, steps=60)
    export(trainer.average, SMALL, tmp_path / "weights")
    write_report(tmp_path, {"held_out": {"reliability": [(0.9, 0.8, 5)]}}, trainer.losses)
    planner = TrainedPlanner(catalogue_of(*FEW), tmp_path / "weights")

    scores = planner.score([ScorePaths("Who is Ada Quill married to?", (7, 16), (("P26",), ("P36",), ("P50",)))])[0]

    first, last = trainer.losses[:5], trainer.losses[-5:]
    assert sum(chain for _, chain in last) < 0.4 * sum(chain for _, chain in first)
    assert sum(span for span, _ in last) < 0.4 * sum(span for span, _ in first)
    assert scores[0] == max(scores)
    assert json.loads((tmp_path / "report.json").read_text())["held_out"]


def test_it_goes_on_where_it_stopped(corpus: Corpus, tmp_path: Path) -> None:
    whole = train(corpus, tmp_path / "whole", steps=6)
    train(corpus, tmp_path / "parts", steps=6, until=3)
    parts = train(corpus, tmp_path / "parts", steps=6)

    assert parts.step == 6
    assert [sum(pair) for pair in parts.losses] == pytest.approx([sum(pair) for pair in whole.losses])
    assert all(torch.equal(value, parts.average[name]) for name, value in whole.average.items())


def test_a_checkpoint_of_other_settings_is_not_resumed(corpus: Corpus, tmp_path: Path) -> None:
    train(corpus, tmp_path, steps=2)

    assert train(corpus, tmp_path, steps=3, until=0).step == 0


def test_calibration_pulls_overconfidence_back() -> None:
    said = [0.95] * 100 + [0.3] * 100
    was = [True] * 60 + [False] * 40 + [True] * 10 + [False] * 90

    calibration = fit_calibration(said, was)
    before, _ = calibration_error(list(zip(said, was, strict=True)))
    after, _ = calibration_error([(calibration(_log(p)), right) for p, right in zip(said, was, strict=True)])

    assert after < before / 2


def test_names_are_the_same_whatever_their_case_and_article() -> None:
    assert same_name('"The Beatles"', "beatles")
    assert not same_name("The Beatles", "The Rolling Stones")


def _log(probability: float) -> float:
    return float(torch.log(torch.tensor(probability)))


def test_the_command_writes_weights_that_plan_and_a_report(tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    (data / "mquake").mkdir(parents=True)
    (data / MQUAKE).write_text(json.dumps([mquake_case(number) for number in range(4)]))
    config = TrainConfig(steps=2, batch=4, open_batch=0)

    def run() -> dict[str, object]:
        catalogue = catalogue_of("P50", "P27")
        return train_planner(
            data, out, config=config, held_out=0.25, catalogue=catalogue, gate_texts=20, progress=False
        )

    report, again = run(), run()

    assert (report["cases"], report["held_out_cases"]) == (3, 1)
    assert (report["resumed"], again["resumed"]) == (False, True)
    assert json.loads((out / "report.json").read_text())["held_out"]["questions"] == 1
    assert set(json.loads((out / "weights" / "config.json").read_text())["calibration"]) == {
        "slope",
        "offset",
        "nothing",
    }


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataFile, match="mquake"):
        train_planner(tmp_path, tmp_path / "out", progress=False)


def mquake_case(number: int) -> dict[str, object]:
    work, author = f"Book {number}", f"Writer {number}"
    triples = [[work, "author", author], [author, "country of citizenship", "Norway"]]
    hops = [{"question": f"Who wrote {work}?"}, {"question": f"Of which country is {author} a citizen?"}]
    return {
        "case_id": number,
        "questions": [f"Of which country is the author of {work} a citizen?"],
        "orig": {
            "triples": [["Q1", "P50", "Q2"], ["Q2", "P27", "Q3"]],
            "triples_labeled": triples,
            "new_triples_labeled": triples,
        },
        "single_hops": hops,
        "new_single_hops": hops,
    }
