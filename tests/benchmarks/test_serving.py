"""The serving benchmark, small and against its scripted model server: what it counts is what happened."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.generated import FactMaker
from benchmarks.serving import main
from benchmarks.serving_faults import Ledger, _pairs
from benchmarks.serving_load import Reply, fetch, run_load
from benchmarks.serving_parts import in_turn
from benchmarks.serving_prompts import chats, outside, payload
from benchmarks.serving_setup import Server, started
from tests.server.upstream import Sent, completion, make_upstream, served, stream

Figures = dict[str, dict[str, Any]]


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Server]:
    """The scripted model server."""
    with started([sys.executable, "-m", "benchmarks.serving_upstream"], "/v1/models", tmp_path) as server:
        yield server


def test_the_load_counts_every_token_and_times_every_answer(scripted: Server) -> None:
    bodies = [payload(f"Say number {number}", 12) for number in range(9)]

    load = run_load(scripted.url, bodies, clients=3)

    assert load.failed == 0
    assert sorted(reply.text for reply in load.replies) == sorted(f"Say number {n} " * 4 for n in range(9))
    assert [reply.tokens for reply in load.replies] == [12] * 9
    assert all(reply.sent < reply.first <= reply.ended for reply in load.replies)
    assert load.tokens_per_second == pytest.approx(9 * 12 / load.seconds)
    assert scripted.answered() == 9


def test_whole_answers_and_listed_models_are_read_too(scripted: Server) -> None:
    [reply] = run_load(scripted.url, [payload("Say it", 2, stream=False)]).replies

    assert (reply.text, reply.tokens, reply.ok) == ("Say it ", 2, True)
    assert scripted.model() == "scripted"


def test_broken_streams_and_errors_are_no_answers() -> None:
    app, state = make_upstream()

    def answer(sent: Sent) -> Any:
        if sent.json.get("stream"):
            return stream([b'data: {"choices": [{"delta": {"content": "half"}}]}\n\n'], break_off=True)
        return completion(sent, "x", choices=[])

    state.answer = answer
    with served(app) as url:
        broken, empty = run_load(url, [payload("a", 3), payload("a", 3, stream=False)]).replies
        missing = fetch(url, "GET", "/v1/abort")
    nowhere = fetch("http://127.0.0.1:9", "GET", "/")

    assert (broken.text, bool(broken.error), broken.ok) == ("half", True, False)
    assert (empty.text, empty.ok) == ("", True)
    assert not missing.ok
    assert (nowhere.status, nowhere.ok) == (0, False)


def test_no_prompt_comes_twice_and_a_seed_gives_the_same_ones() -> None:
    known = FactMaker(seed=0, entities=200)

    prompts = list(islice(outside(1, known), 400))

    assert len(set(prompts)) == 400
    assert prompts == list(islice(outside(1, known), 400))
    assert next(chats(1)) != next(chats(2))


def test_bare_and_gateway_come_first_in_turn() -> None:
    bare, gate = Server("http://bare"), Server("http://gate")

    assert list(in_turn(bare, gate, 2)) == [bare, gate, gate, bare]


def test_an_answer_from_a_fact_whose_end_was_acknowledged_is_stale() -> None:
    ledger = Ledger(ended={5: 10.0, 6: 20.0})

    before, after = (Reply(sent, headers={"x-memedit-edits": "5,6,7"}) for sent in (9.0, 15.0))

    assert ledger.stale(before) == []
    assert ledger.stale(after) == [5]


def test_writers_share_the_writes_and_no_slot() -> None:
    mine, others = (list(_pairs(101, writer)) for writer in (0, 1))

    assert len(mine) + len(others) == 101
    assert not {subject for subject, _ in mine} & {subject for subject, _ in others}
    assert len(set(mine)) == len(mine)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_benchmark_on_a_small_memory(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    size = ["--facts", "60", "--clients", "1,3", "--tokens", "48", "--rounds", "1", "--samples", "3"]
    mix = ["--requests", "60", "--writes", "12", "--pace", "0.002"]

    code = main(["--scripted", *size, *mix, "--json", str(out), "--seed", str(random.Random(0).randrange(9))])

    result = json.loads(out.read_text("utf-8"))
    figures: Figures = {figure["name"]: figure for figure in result["figures"]}
    nothing = ("outside_failed_1", "outside_failed_3", "mix_failed", "mix_stale_answers", "mix_lost_writes",
               "killed_gateway_lost_writes", "broken_upstream_unshaped", "multi_hop_calls_over")  # fmt: skip
    assert code == 0
    assert {name: figures[name]["value"] for name in nothing} == dict.fromkeys(nothing, 0)
    assert figures["outside_wrongly_in_scope_3"]["value"] == 0
    assert figures["single_hop_in_scope_streamed"]["value"] > 0.5
    assert figures["killed_gateway_lost_writes"]["samples"] > 12
    assert figures["slow_upstream_told_after"]["met"]
    assert result["model_server"]["model"] == "scripted"
    assert str(tmp_path) not in json.dumps({name: value for name, value in result.items() if name != "command"})
