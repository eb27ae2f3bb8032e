"""The command line: what each command prints and writes, its exit codes, and that it starts quickly.

The language model is scripted, because its words do not matter here; memory, embedder and planner are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from memedit import __version__
from memedit.answer import Answer
from memedit.cli import app, options_first
from memedit.commands import show
from memedit.errors import IndexRebuilt
from memedit.models.scripted import ScriptedModel

Run = Callable[..., Result]


@pytest.fixture
def model() -> ScriptedModel:
    """Answers "base: " and what the user said last."""
    return ScriptedModel(lambda text: f"base: {text.rsplit('user: ', 1)[-1]}", context_length=2000)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: ScriptedModel) -> Run:
    """Runs `memedit` with that model, on a memory of its own."""
    monkeypatch.setenv("MEMEDIT_MEMORY", str(tmp_path / "facts.db"))
    monkeypatch.delenv("MEMEDIT_MODEL", raising=False)
    monkeypatch.setattr("memedit.editor.load_model", lambda spec: model)

    def call(*words: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(words), input=stdin)

    return call


def rows(result: Result) -> list[dict[str, object]]:
    """The JSON documents on stdout; fails where anything else is there."""
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def statements(result: Result) -> list[object]:
    return [row["statement"] for row in rows(result)]


class TestFacts:
    def test_a_sentence_is_recorded_and_listed(self, run: Run) -> None:
        added = run("add", "The capital of France is Lyon.")

        assert added.exit_code == 0
        assert added.stdout == "Added #1: The capital of France is Lyon.\n"
        assert "The capital of France is Lyon." in run("facts").stdout

    def test_a_triple_with_times_and_source_is_recorded(self, run: Run) -> None:
        run(
            "add",
            "France",
            "capital",
            "Lyon",
            "--from",
            "2020-01-01",
            "--to",
            "2021-06-01T12:00+02:00",
            "--source",
            "me",
        )

        [fact] = rows(run("facts", "--json"))
        assert (fact["subject"], fact["relation"], fact["object"], fact["source"]) == ("France", "P36", "Lyon", "me")
        assert (fact["valid_from"], fact["valid_to"]) == ("2020-01-01T00:00:00Z", "2021-06-01T10:00:00Z")

    def test_a_new_object_takes_the_old_ones_place_and_history_keeps_both(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [receipt] = rows(run("add", "France", "capital", "Nice", "--json"))

        assert receipt["status"] == "superseded"
        assert statements(run("facts", "--json")) == ["The capital of France is Nice."]
        assert [row["end_reason"] for row in rows(run("history", "France", "--json"))] == ["superseded", None]
        assert "superseded by #2" in " ".join(run("history").stdout.split())

    def test_a_sentence_that_fits_no_template_is_kept_and_the_notice_is_on_stderr(self, run: Run) -> None:
        result = run("add", "Our office closes early on Fridays, as everyone knows.", "--json")

        [receipt] = rows(result)
        assert receipt["notice"]
        assert run("add", "Nobody has the key to the blue cupboard.").stderr

    def test_many_facts_come_in_on_stdin_in_one_write(self, run: Run) -> None:
        result = run("add", "--stdin", "--json", stdin="The capital of France is Lyon.\n\nSpain\tcapital\tSeville\n")

        receipts = rows(result)
        assert len(receipts) == 2
        assert len({receipt["fact"]["transaction"] for receipt in receipts}) == 1  # type: ignore[index]
        run("undo")
        assert rows(run("facts", "--json")) == []

    def test_a_bad_line_on_stdin_is_named_and_nothing_is_written(self, run: Run) -> None:
        result = run("add", "--stdin", stdin="Spain\tcapital\tSeville\n\tcapital\tLyon\n")

        assert result.exit_code == 1
        assert "row 2" in result.stderr
        assert rows(run("facts", "--json")) == []

    def test_retract_and_undo(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        assert run("retract", "1").stdout == "Retracted #1: The capital of France is Lyon.\n"
        assert rows(run("facts", "--json")) == []
        [fact] = rows(run("undo", "--json"))
        assert (fact["id"], fact["retracted_at"]) == (1, None)

    def test_as_of_shows_what_was_believed_then(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        assert rows(run("facts", "--as-of", "2001-01-01", "--json")) == []
        assert len(rows(run("facts", "--as-of", "2999-01-01", "--json"))) == 1

    def test_facts_are_filtered_and_limited(self, run: Run) -> None:
        run("add", "--stdin", stdin="France\tcapital\tLyon\nFrance\tcontinent\tAsia\nSpain\tcapital\tSeville\n")

        assert len(rows(run("facts", "--subject", "france", "--json"))) == 2
        assert len(rows(run("facts", "--relation", "capital", "--json"))) == 2
        assert len(rows(run("facts", "--object", "Seville", "--json"))) == 1
        assert len(rows(run("facts", "seville", "--json"))) == 1
        assert len(rows(run("facts", "--limit", "2", "--json"))) == 2
        assert "more than these 2" in run("facts", "--limit", "2").stderr

    def test_namespaces_are_apart_and_the_options_may_come_last(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon", "--namespace", "acme")

        assert rows(run("facts", "--json")) == []
        assert len(rows(run("--namespace", "acme", "facts", "--json"))) == 1

    @pytest.mark.parametrize("words", [("facts",), ("history",), ("ask", "Who?"), ("undo",), ("export", "-")])
    def test_a_mistyped_namespace_is_told_with_the_nearest(self, run: Run, words: tuple[str, ...]) -> None:
        run("add", "France", "capital", "Lyon", "--namespace", "acme")

        result = run(*words, "--namespace", "acne")

        assert result.exit_code == 1
        assert "'acme'" in result.stderr

    def test_an_alias_leads_to_the_entity(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [document] = rows(run("alias", "France", "Land of Cheese", "--json"))

        assert "Land of Cheese" in document["aliases"]  # type: ignore[operator]
        assert len(rows(run("facts", "--subject", "land of cheese", "--json"))) == 1

    def test_relations_are_listed_with_those_defined_by_use(self, run: Run) -> None:
        run("add", "Ada", "favourite colour", "green")

        assert [row["id"] for row in rows(run("relations", "capital of", "--json"))] == ["P1376"]
        assert [row["label"] for row in rows(run("relations", "favourite", "--json"))] == ["favourite colour"]
        assert "P36" in run("relations", "capital").stdout


class TestFiles:
    def test_what_is_exported_is_imported_again(self, run: Run, tmp_path: Path) -> None:
        run("add", "France", "capital", "Lyon", "--from", "2020-01-01")
        run("add", "Nobody has the key to the blue cupboard.")
        for name in ("facts.jsonl", "facts.csv"):
            file = str(tmp_path / name)
            other = ("--memory", str(tmp_path / f"{name}.db"))

            assert rows(run("export", file, "--json")) == [{"file": file, "facts": 2}]
            [told] = rows(run("import", file, "--no-embed", "--json", *other))

            assert (told["added"], told["free_text"]) == (2, 1)
            assert statements(run("facts", "--json", *other)) == statements(run("facts", "--json"))

    def test_export_to_stdout_is_the_data_alone(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [fact] = rows(run("export", "-"))

        assert (fact["subject"], fact["object"]) == ("France", "Lyon")
        assert run("export", "-", "--format", "csv").stdout.splitlines()[0].startswith("subject,relation,object")

    def test_importing_twice_changes_nothing(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "edits.jsonl"
        file.write_text('{"subject": "France", "relation": "capital", "object": "Lyon"}\n')
        run("import", str(file), "--no-embed")

        [told] = rows(run("import", str(file), "--no-embed", "--json"))

        assert (told["facts"], told["added"], told["unchanged"]) == (1, 0, 1)

    def test_a_bad_row_is_named_by_file_and_row_and_nothing_is_written(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "edits.jsonl"
        good = '{"subject": "France", "relation": "capital", "object": "Lyon"}\n'
        for bad in ('{"subject": "Spain", "relation": "P99999", "object": "Seville"}\n', '{"subject": 7}\n', "{\n"):
            file.write_text(good + bad)

            result = run("import", str(file), "--no-embed")

            assert result.exit_code == 1
            assert "edits.jsonl" in result.stderr
            assert "row 2" in result.stderr
            assert rows(run("facts", "--json")) == []

    def test_importing_embeds_so_that_the_first_question_need_not(self, run: Run, tmp_path: Path) -> None:
        file = tmp_path / "edits.csv"
        file.write_text("subject,relation,object\nFrance,capital,Lyon\n")

        assert "1 added" in run("import", str(file)).stdout

        assert (tmp_path / "facts.db.index").exists()

    def test_a_file_that_is_not_there_is_a_usage_error(self, run: Run, tmp_path: Path) -> None:
        assert run("import", str(tmp_path / "nothing.csv")).exit_code == 2

    def test_an_unknown_format_of_export_is_told(self, run: Run, tmp_path: Path) -> None:
        result = run("export", str(tmp_path / "facts.docx"))

        assert result.exit_code == 1
        assert "jsonl" in result.stderr


class TestQuestions:
    def test_an_edit_is_answered_with_its_hops(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [answer] = rows(run("ask", "What is the capital of France?", "--json"))

        assert (answer["text"], answer["in_scope"]) == ("Lyon", True)
        assert [(hop["object"], hop["source"], hop["edit_id"]) for hop in answer["hops"]] == [("Lyon", "edit", 1)]  # type: ignore[attr-defined]
        assert [fact["id"] for fact in answer["edits"]] == [1]  # type: ignore[attr-defined]

    def test_an_answer_for_people_says_where_it_came_from(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        printed = run("ask", "What is the capital of France?").stdout

        assert printed.startswith("Lyon\n")
        assert "edit #1" in printed

    def test_out_of_scope_the_base_model_answers(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        result = run("ask", "How do I bake a bread?")

        assert result.stdout.startswith("base: How do I bake a bread?\n")
        assert "base model's own answer" in result.stdout

    def test_as_of_answers_from_the_facts_of_then(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [answer] = rows(run("ask", "What is the capital of France?", "--as-of", "2001-01-01", "--json"))

        assert answer["text"] == "base: What is the capital of France?"

    def test_the_base_strategy_ignores_the_facts(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [answer] = rows(run("ask", "What is the capital of France?", "--strategy", "base", "--json"))

        assert (answer["text"], answer["strategy"]) == ("base: What is the capital of France?", "base")

    def test_ike_shows_the_demonstrations_of_a_file(self, run: Run, model: ScriptedModel, tmp_path: Path) -> None:
        probe = {"question": "What is the mayor's dog called?", "answer": "Rex"}
        file = tmp_path / "mine.jsonl"
        row = {"fact": "The mayor's dog is called Rex.", "copy": probe, "update": probe, "retain": probe}
        file.write_text(json.dumps(row), encoding="utf-8")
        run("add", "France", "capital", "Lyon")

        run("ask", "What is the capital of France?", "--strategy", "ike", "--demonstrations", str(file))

        assert model.calls[-1].prompt.startswith("New Fact: The mayor's dog is called Rex.")

    def test_a_notice_is_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        answer = Answer("What is the capital of France?", "Lyon", notice="From a copy of the weights.")

        show.print_answer(answer)

        printed = capsys.readouterr().out
        assert "From a copy of the weights." in printed
        assert "base model's own answer" not in printed
        assert show.answer_json(answer)["notice"] == "From a copy of the weights."

    def test_explain_shows_facts_and_chains(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        [document] = rows(run("explain", "What is the capital of France?", "--json"))

        assert document["scope"][0]["fact_id"] == 1  # type: ignore[index]
        assert ["P36"] in [one["relations"] for one in document["candidates"]]  # type: ignore[attr-defined]
        assert "France > capital" in run("explain", "What is the capital of France?").stdout


class TestChat:
    def test_each_line_is_a_turn_with_the_facts_in_scope_in_its_prompt(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        result = run("chat", "--json", stdin="What is the capital of France?\n\nHow do I bake a bread?\n")

        first, second = rows(result)
        assert "The capital of France is Lyon." in str(first["text"])
        assert [fact["id"] for fact in first["edits"]] == [1]  # type: ignore[attr-defined]
        assert (second["text"], second["edits"]) == ("base: How do I bake a bread?", [])

    def test_what_was_said_goes_with_the_next_turn(self, run: Run, model: ScriptedModel) -> None:
        run("chat", stdin="Hello.\nAnd now?\n")

        assert model.calls[-1].prompt == "user: Hello.\nassistant: base: Hello.\nuser: And now?"

    def test_a_follow_up_is_resolved_against_what_was_said(self, run: Run) -> None:
        run("add", "The spouse of Ada Byron is Carl Dorn.")

        result = run("chat", stdin="Where was Ada Byron born?\nAnd who is her husband?\n/hops\n")
        _, last = rows(run("chat", "--json", stdin="Where was Ada Byron born?\nAnd who is her husband?\n"))

        assert "Understood as: Who is Ada Byron's husband?" in result.stdout
        assert last["question"] == "Who is Ada Byron's husband?"
        assert "Carl Dorn" in str(last["text"])

    def test_slash_commands_show_hops_and_facts_and_quit(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        result = run("chat", stdin="/hops\nWhat is the capital of France?\n/hops\n/facts\n/quit\nnot asked\n")

        assert result.exit_code == 0
        assert "edit #1" in result.stdout
        assert "The capital of France is Lyon." in result.stdout
        assert "not asked" not in result.stdout
        assert "Nothing was said yet." in result.stderr

    def test_with_json_the_slash_commands_print_json_too(self, run: Run) -> None:
        run("add", "France", "capital", "Lyon")

        _, hops, facts = rows(run("chat", "--json", stdin="What is the capital of France?\n/hops\n/facts\n"))

        assert len(hops["hops"]) == len(facts["facts"]) == 1  # type: ignore[arg-type]

    def test_turns_that_no_longer_fit_are_forgotten_oldest_first(self, run: Run, model: ScriptedModel) -> None:
        result = run("chat", stdin="".join(f"{'word ' * 250}{number}\n" for number in range(8)))

        assert result.exit_code == 0
        assert model.calls[0].prompt.endswith("word 0")
        assert "word 0\n" not in model.calls[-1].prompt
        assert "word 6\n" in model.calls[-1].prompt
        assert model.calls[-1].prompt.endswith("word 7")


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            (("add", ""), 1, "InvalidFact"),
            (("add", "France", "P99999", "Lyon"), 1, "UnknownRelation"),
            (("add", "France", "capital", "Lyon", "--from", "2021-01-01", "--to", "2020-01-01"), 1, "valid_to"),
            (("retract", "7"), 1, "UnknownFact"),
            (("undo",), 1, "NothingToUndo"),
            (("ask", " "), 1, "InvalidQuestion"),
            (("ask", "Who?", "--strategy", "guess"), 1, "walk"),
            (("ask", "Who?", "--demonstrations", __file__), 1, "no demonstrations"),
            (("ask", "Who?", "--strategy", "ike", "--demonstrations", __file__), 1, "test_cli.py, row 1"),
            (("facts", "--namespace", "\x07"), 1, "namespace"),
            (("add", "France", "capital"), 2, "SUBJECT RELATION OBJECT"),
            (("facts", "--as-of", "yesterday"), 2, "ISO date"),
            (("frobnicate",), 2, "frobnicate"),
        ],
    )
    def test_what_is_wrong_and_its_mend_are_told(self, run: Run, words: tuple[str, ...], code: int, told: str) -> None:
        result = run(*words)

        assert result.exit_code == code
        assert told in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""

    def test_a_model_that_is_not_there_exits_with_3(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.undo()

        result = run("ask", "Who?", "--model", f"hf:{tmp_path / 'nothing'}", "--memory", str(tmp_path / "facts.db"))

        assert result.exit_code == 3
        assert "ModelNotFound" in result.stderr

    def test_a_database_that_is_not_one_exits_with_4_and_stays_as_it_is(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("buy milk\n" * 50)

        result = run("facts", "--memory", str(path))

        assert result.exit_code == 4
        assert "CorruptDatabase" in result.stderr
        assert path.read_text() == "buy milk\n" * 50

    @pytest.mark.filterwarnings("default::memedit.errors.IndexRebuilt")
    def test_a_damaged_index_is_rebuilt_with_one_line_on_stderr(self, run: Run, tmp_path: Path) -> None:
        run("add", "France", "capital", "Lyon")
        run("explain", "What is the capital of France?")
        (tmp_path / "facts.db.index").write_bytes(b"noise")

        result = run("explain", "What is the capital of France?", "--json")

        assert rows(result)[0]["scope"]
        assert "rebuilt" in result.stderr
        assert IndexRebuilt.__name__ not in result.stderr


class TestStart:
    def test_global_options_are_found_wherever_they_are(self) -> None:
        words = ["facts", "--memory=x.db", "text", "--namespace", "acme", "--", "--model"]

        assert options_first(words) == ["--memory=x.db", "--namespace", "acme", "facts", "text", "--", "--model"]

    def test_help_is_quick_and_names_commands_and_exit_codes(self) -> None:
        times = []
        for _ in range(3):
            before = os.times()
            done = _memedit("--help")
            after = os.times()
            times.append(after.children_user + after.children_system - before.children_user - before.children_system)

        assert {"add", "ask", "chat", "import", "export", "doctor"} <= set(done.stdout.split())
        assert "Exit codes" in done.stdout
        assert min(times) < 0.5

    def test_add_loads_no_torch_no_faiss_and_no_transformers(self, tmp_path: Path) -> None:
        code = (
            "import sys; from typer.testing import CliRunner; from memedit.cli import app;"
            f"done = CliRunner().invoke(app, ['add', 'The capital of France is Lyon.', '--memory', {str(tmp_path / 'f.db')!r}]);"
            "assert done.exit_code == 0, done.output;"
            "print([name for name in ('torch', 'faiss', 'transformers') if name in sys.modules])"
        )

        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout.strip() == "[]"

    def test_the_memory_is_made_on_demand_in_the_users_data_folder(self, tmp_path: Path) -> None:
        environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path / "data"), "HOME": str(tmp_path)}
        environment.pop("MEMEDIT_MEMORY", None)

        done = _memedit("add", "The capital of France is Lyon.", "--json", env=environment)

        assert json.loads(done.stdout)["status"] == "added"
        assert [path.name for path in tmp_path.rglob("memedit.db")] == ["memedit.db"]

    def test_version(self) -> None:
        assert _memedit("--version").stdout == f"memedit {__version__}\n"


def _memedit(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memedit.cli", *words], capture_output=True, text=True, check=True, env=env
    )
