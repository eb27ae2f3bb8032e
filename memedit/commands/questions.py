"""The commands that ask: `ask`, `chat` and `explain`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.commands.session import AsOf, Demonstrations, Json, Strategy, embed, session
from memedit.errors import MemEditError

if TYPE_CHECKING:
    from memedit.editor import MemEditor
    from memedit.models.base import Message
    from memedit.strategies.base import Resolution


def ask(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="A question, or a sentence to complete.")],
    strategy: Strategy = "walk",
    demonstrations: Demonstrations = None,
    as_of: AsOf = None,
    as_json: Json = False,
) -> None:
    """Answer a question from the base model and the facts.

    Where no fact is in scope, the answer is the base model's own, unchanged.
    """
    here = session(context)
    with here.open_memory() as memory, here.open_editor(memory, strategy, demonstrations) as editor:
        embed(memory)
        with show.waiting("Answering"):
            answer = editor.ask(question, as_of=as_of)
    if as_json:
        show.emit(show.answer_json(answer))
    else:
        show.print_answer(answer)


def explain(
    context: typer.Context,
    question: Annotated[str, typer.Argument(help="A question.")],
    as_json: Json = False,
) -> None:
    """Show which facts and chains a question would be answered from, and why. No language model is called."""
    here = session(context)
    with here.open_memory() as memory, here.open_editor(memory) as editor:
        embed(memory)
        with show.waiting("Looking"):
            explanation = editor.explain(question)
    if as_json:
        show.emit(explanation.to_dict())
    else:
        show.say(str(explanation))


HELP = "/hops: where the last reply came from. /facts: what the memory holds. /quit: leave."


def chat(
    context: typer.Context,
    strategy: Strategy = "walk",
    as_json: Json = False,
) -> None:
    """Talk with the base model, with the facts in scope in its prompt.

    Reads a line a turn: from the keyboard, or from a pipe. In the conversation, /hops shows where the last reply came
    from, /facts what the memory holds, /quit leaves.
    """
    here = session(context)
    typed = sys.stdin.isatty()
    with here.open_memory() as memory, here.open_editor(memory, strategy) as editor:
        embed(memory)
        talk = Conversation(editor, as_json=as_json)
        if typed:
            show.note(HELP)
        for line in _lines(typed):
            if line == "/quit":
                break
            try:
                talk.take(line)
            except MemEditError as error:
                if not typed:
                    raise
                show.print_error(error)
            except KeyboardInterrupt:
                show.note("(stopped)")


class Conversation:
    """A chat in the terminal: what was said, and where the last reply came from.

    Args:
        editor: Answers.
        as_json: Print a JSON document a turn instead of streaming text.
    """

    def __init__(self, editor: MemEditor, *, as_json: bool = False) -> None:
        self._editor = editor
        self._as_json = as_json
        self._said: list[Message] = []
        self._found: Resolution | None = None

    def take(self, line: str) -> None:
        """Answer one line, or do what a line that begins with a slash says.

        Raises:
            MemEditError: The turn failed; the conversation stands as before it.
        """
        if line == "/hops":
            self._show_hops()
        elif line == "/facts":
            self._show_facts()
        elif line.startswith("/"):
            show.note(HELP)
        else:
            self._answer(line)

    def _answer(self, line: str) -> None:
        from memedit.editor import CHAT_TOKENS
        from memedit.models.base import Sampling

        messages: list[Message] = [*self._said, {"role": "user", "content": line}]
        with show.waiting("Thinking"):
            model = self._editor.model
            messages = _fitting(messages, model.context_length - 2 * CHAT_TOKENS, model.count_tokens)
            [(prompt, found)] = self._editor.as_model().resolve([messages])
        pieces = model.stream(prompt, Sampling(max_tokens=CHAT_TOKENS))
        reply = "".join(pieces if self._as_json else _echoed(pieces))
        self._said, self._found = [*messages, {"role": "assistant", "content": reply}], found
        if self._as_json:
            understood = {"question": found.question} if found.question else {}
            show.emit({"user": line, "text": reply, **understood, **show.origin_json(found.hops, found.facts)})

    def _show_hops(self) -> None:
        if self._found is None:
            show.note("Nothing was said yet.")
        elif self._as_json:
            show.emit(show.origin_json(self._found.hops, self._found.facts))
        else:
            if self._found.question:
                show.say(f"Understood as: {self._found.question}")
            show.print_origin(self._found.hops, self._found.facts)

    def _show_facts(self) -> None:
        facts = self._editor.facts()
        if self._as_json:
            show.emit({"facts": [show.fact_json(fact) for fact in facts]})
        else:
            show.out().print(show.facts_table(facts))


def _lines(typed: bool) -> Iterator[str]:
    """What the user says, a line at a time, until the end of input, without blank lines."""
    while True:
        try:
            line = (show.err().input("you> ") if typed else input()).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line:
            yield line


def _fitting(messages: list[Message], room: int, count_tokens: Callable[[list[Message]], int]) -> list[Message]:
    """The latest turns that fit into `room` tokens; always the last one."""
    while len(messages) > 1 and count_tokens(messages) > room:
        messages = messages[2:]
    return messages


def _echoed(pieces: Iterator[str]) -> Iterator[str]:
    """The pieces, each printed as it comes."""
    for piece in pieces:
        print(piece, end="", flush=True)
        yield piece
    print()
