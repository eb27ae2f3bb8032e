"""Capacity: the simulation agrees with queueing theory where there is any, and plans follow from what was measured."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from benchmarks.capacity import main
from benchmarks.capacity_model import Curve, Line, Work, needed, share, simulate, think


def work(**changes: Any) -> Work:
    """Questions that take a gateway 20 ms alone and 80 ms sixteen together, and a model server that writes 1,000 tokens/s."""
    usual: dict[str, Any] = {
        "thinking": Curve.through({1: 0.02, 16: 0.08}),
        "relay_request": 0.001,
        "relay_token": 0.00005,
        "tokens": 100,
        "beliefs": 0.0,
        "belief_tokens": 8,
        "model_rate": Curve.through({1: 100.0, 16: 1000.0}),
    }
    return Work(**{**usual, **changes})


def poisson(rate: float, count: int) -> list[float]:
    """Arrivals at random."""
    chance, now, arrivals = random.Random(7), 0.0, []
    for _ in range(count):
        now += chance.expovariate(rate)
        arrivals.append(now)
    return arrivals


def test_lines_and_curves_meet_the_points_they_are_made_from() -> None:
    line, curve = Line.through({1.0: 3.0, 2.0: 5.0, 3.0: 7.0}), Curve.through({4.0: 2.0, 1.0: 1.0})

    assert line(10.0) == pytest.approx(21.0)
    assert [curve(x) for x in (0.0, 1.0, 2.5, 4.0, 9.0)] == pytest.approx([1.0, 1.0, 1.5, 2.0, 2.0])


def test_one_at_a_time_waits_as_long_as_a_queue_with_one_server_does() -> None:
    arrivals, seconds = poisson(rate=50.0, count=60_000), 0.01

    done = think(arrivals, lambda _: seconds, 0.0, most=1)

    load = 50.0 * seconds
    waited = mean(asked - came for came, asked in done) - seconds
    assert waited == pytest.approx(seconds * load / (2 * (1 - load)), rel=0.05)  # Pollaczek and Khinchine, M/D/1


def test_answers_that_share_a_server_take_as_long_as_theory_says() -> None:
    arrivals, rate, tokens = poisson(rate=6.0, count=60_000), 1000.0, 100.0

    ends = share(arrivals, tokens, lambda _: rate)

    load = 6.0 * tokens / rate
    took = mean(end - came for came, end in zip(arrivals, ends, strict=True))
    assert took == pytest.approx(tokens / rate / (1 - load), rel=0.05)  # M/G/1 with processor sharing
    assert all(end >= came + tokens / rate - 1e-6 for came, end in zip(arrivals, ends, strict=True))


def test_thinking_together_carries_a_load_that_thinking_one_by_one_does_not() -> None:
    light = work(relay_token=0.0, relay_request=0.0)

    together = simulate(light, rate=120.0, gateways=1, models=20, questions=4000)
    one_by_one = simulate(light, rate=120.0, gateways=1, models=20, questions=4000, most_together=1)

    assert together.added_p99 < 0.3
    assert one_by_one.added_p99 > 10.0


def test_more_gateways_add_less_and_more_load_needs_more() -> None:
    few, many = (simulate(work(), rate=40.0, gateways=count, models=10, questions=4000) for count in (2, 8))
    small, large = (needed(work(), rate, questions=4000) for rate in (5.0, 200.0))

    assert many.added_p99 < few.added_p99
    assert many.gateway_busy < few.gateway_busy < 1.0
    assert small.gateways < large.gateways
    assert small.models < large.models
    assert large.waits.model_busy <= 0.75


def test_beliefs_are_work_for_the_model_server() -> None:
    assert work(beliefs=0.5).model_tokens == 104.0


@pytest.fixture
def measured(tmp_path: Path) -> dict[str, Path]:
    """Results of the benchmarks that a plan is made from."""
    sizes = {
        str(count): {
            "resident": 4e8 + 4000.0 * count,
            "disk_bytes_per_fact": 5000.0,
            "open_and_search": 1 + count / 1e5,
        }
        for count in (1_000, 100_000)
    }
    rates = {1: 100.0, 64: 2000.0}
    figures = [{"name": f"bare_tokens_per_second_{clients}", "value": rate} for clients, rate in rates.items()]
    results: dict[str, dict[str, object]] = {
        "capacity-constants": {
            "thinking": {"1": 0.03, "16": 0.2},
            "relay_request": 0.002,
            "relay_token": 0.0001,
            "gateway_resident": 4e8,
        },
        "scale": {"sizes": sizes},
        "serving": {"figures": [*figures, {"name": "mix_failed", "value": 0}]},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"benchmark": name, **result}), encoding="utf-8")
    return {name: tmp_path / f"{name}.json" for name in results}


def test_a_plan_follows_from_measurements(
    measured: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "plan.json"
    files = [f"--constants={measured['capacity-constants']}", f"--scale={measured['scale']}", f"--json={out}"]

    code = main(
        ["plan", *files, f"--serving={measured['serving']}", "--facts=1000,1000000", "--questions=1", "--markdown"]
    )

    result = json.loads(out.read_text("utf-8"))
    assert code == 0
    assert result["facts"]["1000000"]["resident_gib"] == pytest.approx(4.4e9 / 2**30)
    assert (result["facts"]["1000"]["measured"], result["facts"]["1000000"]["measured"]) == (True, False)
    assert result["questions"]["1"]["gateways"] == 1
    assert "| 1,000,000 | 4.1 |" in capsys.readouterr().out


def test_a_plan_without_a_measured_model_server_takes_its_tokens_a_second(
    measured: dict[str, Path], tmp_path: Path
) -> None:
    files = [
        f"--constants={measured['capacity-constants']}",
        f"--scale={measured['scale']}",
        f"--json={tmp_path / 'p'}",
    ]

    code = main(["plan", *files, "--rates=1:100,256:20000", "--questions=100", "--tokens=200"])

    assert code == 0
    assert json.loads((tmp_path / "p").read_text("utf-8"))["questions"]["100"]["models"] == 2


def test_another_benchmarks_result_is_refused(measured: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["plan", f"--constants={measured['scale']}", f"--scale={measured['scale']}", "--rates=1:1"])

    assert code == 2
    assert "capacity-constants" in capsys.readouterr().err
