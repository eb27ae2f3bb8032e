"""The replication benchmark: what it makes of moments and answers, and a small run of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replication import _misses, last_seen, main
from benchmarks.replication_setup import MadeUpVectors, Seen, Written


def test_a_write_is_seen_when_the_slowest_process_has_come_to_it() -> None:
    written = [Written(1.0, 1.1, 2), Written(2.0, 2.5, 5)]
    quick, slow = [Seen(0.0, 0), Seen(1.1, 3), Seen(2.1, 5)], [Seen(0.0, 0), Seen(2.4, 7)]

    assert last_seen(written, [quick, slow]) == pytest.approx([1.4, 0.4])


def test_a_write_that_was_never_seen_is_not_counted_as_seen() -> None:
    assert last_seen([Written(1.0, 1.1, 9)], [[Seen(0.0, 0), Seen(1.5, 8)]]) == [float("inf")]


def test_an_answer_without_the_fact_or_with_another_is_a_miss() -> None:
    assert not _misses({"data": [{"object": "City 3"}]}, 3)
    answers: list[dict[str, object]] = [{"data": []}, {"data": [{"object": "City 2"}]}, {"error": {}}]
    assert all(_misses(answer, 3) for answer in answers)


def test_made_up_vectors_are_of_length_one_and_told_by_the_text() -> None:
    one, same, other = MadeUpVectors().encode(["a", "a", "b"])

    assert np.linalg.norm(one) == pytest.approx(1)
    assert np.array_equal(one, same)
    assert abs(float(one @ other)) < 0.3


@pytest.mark.slow
def test_a_small_run_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "replication.json"

    main(["--only", "lag", "position", "--seconds", "0.5", "--tries", "12", "--json", str(out)])

    result = json.loads(out.read_text(encoding="utf-8"))
    figures = {figure["name"]: figure for figure in result["figures"]}
    assert figures["seen_at_three_others"]["samples"] == 25
    assert figures["seen_at_three_others_p99"]["value"] < 60
    assert (figures["missed_with_position"]["value"], figures["missed_with_position"]["samples"]) == (0, 12)
    assert result["benchmark"] == "replication"
    assert "cores" in result
