from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from memedit.errors import BadDataFile, InvalidSpec, ReadOnlyStore, StoreBusy
from memedit.evaluation.runs import RunLog, Start, write_json

CONFIG = {"model": "m", "seed": 1}
KEYS = ["a", "b", "c"]


def run_log(path: Path, config: Mapping[str, object], keys: Sequence[str], start: Start = "auto") -> RunLog:
    """The log of a run whose result is ``out.json`` beside it."""
    return RunLog(path, config, keys, path.with_name("out.json"), start)


def test_finished_cases_are_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.jsonl"
    with run_log(path, CONFIG, KEYS) as log:
        log.add({"a": {"text": "ä\u2028b"}, "b": {"text": "2"}})

    with run_log(path, CONFIG, KEYS) as log:
        assert log.resumed == 2
        assert log.missing(KEYS) == ["c"]
        assert log.done["a"] == {"text": "ä\u2028b"}


@pytest.mark.parametrize("torn", [b'{"key": "c", "te', b'{"key": "c"}', b"\xc3"])
def test_a_torn_last_line_is_cut_off_and_its_case_done_again(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "run.jsonl"
    with run_log(path, CONFIG, KEYS) as log:
        log.add({"a": {"n": 1}})
    path.write_bytes(path.read_bytes() + torn)

    with run_log(path, CONFIG, KEYS) as log:
        missing = log.missing(KEYS)
        log.add({"b": {"n": 2}})

    assert missing == ["b", "c"]
    with run_log(path, CONFIG, KEYS) as log:
        assert log.done == {"a": {"n": 1}, "b": {"n": 2}}


def test_a_torn_header_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(b'{"config": {"mod')

    with run_log(path, CONFIG, KEYS) as log:
        assert log.missing(KEYS) == KEYS


@pytest.mark.parametrize("start", ["auto", "resume"])
def test_another_configuration_is_refused_and_nothing_is_lost(tmp_path: Path, start: str) -> None:
    path = tmp_path / "run.jsonl"
    with run_log(path, CONFIG, KEYS) as log:
        log.add({"a": {"n": 1}})

    with pytest.raises(InvalidSpec, match="seed was 1, is now 2"):
        run_log(path, {**CONFIG, "seed": 2}, KEYS, start)  # type: ignore[arg-type]

    with run_log(path, CONFIG, KEYS) as log:
        assert log.resumed == 1


def test_a_finished_run_is_started_over_unless_it_is_to_be_resumed_or_is_another(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with run_log(path, CONFIG, ["a"]) as log:
        log.add({"a": {"n": 1}})
    write_json(tmp_path / "out.json", {})

    with run_log(path, CONFIG, ["a"], "resume") as log:
        assert log.missing(["a"]) == []
    with pytest.raises(InvalidSpec, match="seed was 1, is now 2"):
        run_log(path, {**CONFIG, "seed": 2}, ["a"])
    with run_log(path, CONFIG, ["a"]) as log:
        assert log.missing(["a"]) == ["a"]


@pytest.mark.parametrize("is_old", [True, False])
def test_a_run_that_was_killed_before_it_wrote_its_result_goes_on(tmp_path: Path, is_old: bool) -> None:
    path = tmp_path / "run.jsonl"
    if is_old:  # of the run before
        write_json(tmp_path / "out.json", {})
        os.utime(tmp_path / "out.json", (1, 1))
    with run_log(path, CONFIG, ["a"]) as log:
        log.add({"a": {"n": 1}})

    for _ in range(2):
        with run_log(path, CONFIG, ["a"]) as log:
            assert log.missing(["a"]) == []
    with pytest.raises(InvalidSpec, match="seed was 1, is now 2"):
        run_log(path, {**CONFIG, "seed": 2}, ["a"])


def test_a_folder_where_the_result_is_to_be_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()

    with pytest.raises(ReadOnlyStore, match="is a folder"):
        run_log(tmp_path / "run.jsonl", CONFIG, KEYS)


def test_fresh_discards(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with run_log(path, CONFIG, KEYS) as log:
        log.add({"a": {"n": 1}})

    with run_log(path, {**CONFIG, "seed": 2}, KEYS, "fresh") as log:
        assert log.resumed == 0


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no run to resume"):
        run_log(tmp_path / "run.jsonl", CONFIG, KEYS, "resume")


@pytest.mark.parametrize("content", ["hello\n", '{"config": 1}\n', '{"config": {}, "cases": 1}\n[]\n', "\n\n"])
def test_a_foreign_file_is_refused_and_untouched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(content)

    with pytest.raises(BadDataFile, match="not the record of a run"):
        run_log(path, CONFIG, KEYS)

    assert path.read_text() == content


def test_two_processes_cannot_write_one_run(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with run_log(path, CONFIG, KEYS), pytest.raises(StoreBusy, match="another process"):
        run_log(path, CONFIG, KEYS)


def test_a_folder_in_the_way_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ReadOnlyStore, match="cannot be written"):
        run_log(tmp_path, CONFIG, KEYS)


WRITER = """
import sys
from memedit.evaluation.runs import RunLog
with RunLog(sys.argv[1], {"model": "m"}, [str(n) for n in range(100_000)], "out.json") as log:
    for n in range(100_000):
        log.add({str(n): {"filling": "x" * 200}})
        print(n, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=root, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
        os.kill(writer.pid, signal.SIGKILL)

    with run_log(path, {"model": "m"}, ["x"]) as log:
        assert {str(n) for n in acknowledged} <= set(log.done)


def test_a_result_replaces_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    write_json(path, {"a": 1})
    write_json(path, {"a": [0.5, None]})

    assert json.loads(path.read_text()) == {"a": [0.5, None]}
    assert list(tmp_path.iterdir()) == [path]
