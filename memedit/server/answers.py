"""Answers in scope: do they carry the edit, and what is added to them. Reads and writes OpenAI's JSON; does no I/O.

What is added is spliced in front of the last brace, so that every other byte of the answer stays as the server wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from memedit.claims import Names, names_entity
from memedit.counterfactual import settle
from memedit.prompts.data import as_data
from memedit.strategies.base import Resolution

Outcome = Literal["carried", "asked_again", "given", "missed", "unchecked", "streamed"]
"""How an answer came to carry the edit: at once; when asked again; it was given plainly in the model's place; not at all,
because the answer must have a form; it cannot be told; it was streamed, and not held back to be checked."""
HEADER = b"x-memedit-edits"
Json = dict[str, object]


def expected_answer(question: str, found: Resolution, names: Names) -> str | None:
    """The answer that the edits give to a question, or None where it is not certain what that is."""
    return settle(question, found.facts, found.hops, names) if found.facts else None


def carries(text: str, expected: str, names: Names) -> bool:
    """Whether an answer says what the edits give: it names that, by any of its names, or agrees.

    Args:
        text: What the model wrote.
        expected: What `expected_answer` gave.
        names: Tell names apart.
    """
    verdict = re.match(r"(yes|no|neither)\b(?:, it is (?P<rest>.+))?", expected, re.IGNORECASE)
    if verdict is not None:
        said = re.match(r"\W*(yes|no|neither)\b", text, re.IGNORECASE)
        if said is not None:
            return (said[1].casefold() == "yes") == (verdict[1].casefold() == "yes")
        return verdict["rest"] is not None and _names(text, verdict["rest"].rstrip("."), names)
    wanted = (expected, as_data(expected), *expected.split(", "))  # the model read it as data
    return any(_names(text, one, names) for one in dict.fromkeys(wanted))


def texts_of(answer: Json, *, is_chat: bool) -> list[str] | None:
    """The texts of an answer's choices; None where one is a tool call, a refusal, or no text."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    texts = [_text(choice, is_chat=is_chat) for choice in choices]
    kept = [text for text in texts if text is not None]
    return kept if len(kept) == len(texts) else None


def with_texts(answer: Json, texts: Mapping[int, str], *, is_chat: bool) -> Json:
    """An answer with other texts at some choices; probabilities of an old text's tokens go with it."""
    choices = answer["choices"]
    assert isinstance(choices, list)
    return {**answer, "choices": [_replaced(one, texts.get(at), is_chat=is_chat) for at, one in enumerate(choices)]}


def _text(choice: object, *, is_chat: bool) -> str | None:
    if not isinstance(choice, dict):
        return None
    if not is_chat:
        text = choice.get("text")
    else:
        message = choice.get("message")
        if not isinstance(message, dict) or message.get("tool_calls") or message.get("function_call"):
            return None
        text = message.get("content")
    return text if isinstance(text, str) else None


def _replaced(choice: Json, text: str | None, *, is_chat: bool) -> Json:
    if text is None:
        return choice
    new: Json = {**choice, "finish_reason": "stop"}
    if "logprobs" in new:
        new["logprobs"] = None
    message = choice.get("message")
    if is_chat and isinstance(message, dict):
        return {**new, "message": {**message, "content": text}}
    return {**new, "text": text}


def plain_answer(found: Resolution, expected: str) -> str:
    """The edit's answer as a sentence; as data, for the client may send it back as a turn of the assistant's.

    One edit is its own sentence; a chain is told hop by hop.
    """
    return as_data(_plain_answer(found, expected))


def _plain_answer(found: Resolution, expected: str) -> str:
    if len(found.hops) == 1 and len(found.facts) == 1 and expected == found.hops[0].object:
        return found.facts[0].statement
    if len(found.hops) > 1 and expected == found.hops[-1].object:
        return f"{expected}. ({'; '.join(f'{hop.label} of {hop.entity}: {hop.object}' for hop in found.hops)})"
    return expected if expected.endswith(".") else f"{expected}."


def memedit_field(found: Sequence[Resolution], outcome: Outcome) -> Json:
    """What the response says about the edits: the facts, the hops, how sure, and how the answer came to carry them.

    A question that was completed from the turns before it is told as it was understood.
    """
    facts = {fact.id: fact for one in found for fact in one.facts}
    understood = [one.question for one in found if one.question]
    return {
        "edits": [
            {"id": fact.id, "statement": fact.statement, "implied": fact.implied_from is not None}
            for fact in facts.values()
        ],
        "hops": [
            {
                "entity": hop.entity, "relation": hop.label, "object": hop.object, "source": hop.source,
                "edit": hop.edit_id, "probability": round(hop.probability, 4),
            }
            for one in found
            for hop in one.hops
        ],
        "probability": round(min((one.probability for one in found if one.facts), default=1.0), 4),
        "answer": outcome,
        **({"question": understood[0]} if understood else {}),
    }  # fmt: skip


def edits_header(found: Sequence[Resolution]) -> tuple[bytes, bytes]:
    """The header that names the edits: their ids, with commas between them."""
    ids = dict.fromkeys(fact.id for one in found for fact in one.facts)
    return HEADER, ",".join(map(str, ids)).encode()


def spliced(text: bytes, field: Json) -> bytes:
    """JSON text of an object with a ``memedit`` field added at its end, all else untouched.

    >>> spliced(b'{"a": 1.50}', {"edits": []})
    b'{"a": 1.50,"memedit":{"edits": []}}'
    """
    end = text.rindex(b"}")
    comma = b"" if text[:end].rstrip().endswith(b"{") else b","
    return text[:end] + comma + b'"memedit":' + json.dumps(field).encode() + text[end:]


class Events:
    """A stream of events on its way through, with a ``memedit`` field in its last chunk.

    Only what may be the last chunk is held back until the next event: one that says why the model stopped, or that has no
    choices. If there is none, a chunk of our own goes before the end.

    Args:
        field: What to add.
    """

    def __init__(self, field: Json) -> None:
        self._field = field
        self._buffer = b""
        self._held = b""
        self._last: Json = {}
        self._closed = False

    def feed(self, data: bytes) -> bytes:
        """What can be sent now that `data` has come."""
        self._buffer += data
        out = b""
        while (end := _EVENT_END.search(self._buffer)) is not None:
            event, self._buffer = self._buffer[: end.end()], self._buffer[end.end() :]
            out += self._take(event)
        return out

    def end(self) -> bytes:
        """What is left when the stream has ended."""
        out, self._buffer = self._take(self._buffer) if self._buffer else b"", b""
        return out + self._close()

    def break_off(self) -> bytes:
        """What is left when the stream has broken off: an event that was held back, not what there is of the next."""
        out, self._held, self._buffer = self._held, b"", b""
        return out

    def _take(self, event: bytes) -> bytes:
        data = b"\n".join(match[1] for match in _DATA.finditer(event))
        if not data:
            return event  # a comment
        if data.strip() == b"[DONE]":
            return self._close() + event
        before, self._held = self._held, b""
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if isinstance(chunk, dict) and "error" not in chunk:
            self._last = chunk
            if _may_be_last(chunk):
                self._held = event
                return before
        return before + event

    def _close(self) -> bytes:
        if self._closed:
            return b""
        self._closed = True
        if self._held:
            out, self._held = spliced(self._held, self._field), b""
            return out
        if not self._last:
            return b""
        known = {name: self._last[name] for name in ("id", "object", "created", "model") if name in self._last}
        return b"data: " + json.dumps({**known, "choices": [], "memedit": self._field}).encode() + b"\n\n"


def _may_be_last(chunk: Json) -> bool:
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return False
    return not choices or any(isinstance(one, dict) and one.get("finish_reason") is not None for one in choices)


def _names(text: str, name: str, names: Names) -> bool:
    edge = r"(?!\w)" if name.isascii() else ""  # not every script has spaces between words
    found = re.search((r"(?<!\w)" if edge else "") + re.escape(name) + edge, text, re.IGNORECASE)
    return found is not None or names_entity(text, name, names)


_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA = re.compile(rb"^data:[ ]?([^\r\n]*)", re.MULTILINE)
