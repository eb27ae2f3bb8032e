"""What a request asks, and the request with the edits in its prompt. Reads and writes OpenAI's JSON; does no I/O.

The facts go into the last user's turn, before its text: a system message stays as it is, tool messages are not touched,
and a server's prefix cache holds up to the question. They come as data (`memedit.prompts.data`), with the authority of a user and
not of the system.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from memedit.prompts.data import as_data, facts_note
from memedit.strategies.base import Resolution

MAX_CHARACTERS = 20_000
"""Of a longer turn, the last so many are looked at."""
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that can be read.

    Attributes:
        payload: Its JSON body.
        texts: What it asks: the last user's turn of a chat, or every prompt of a completion.
        is_chat: Which of the two it is.
    """

    payload: Json
    texts: tuple[str, ...]
    is_chat: bool

    @property
    def model(self) -> str | None:
        """The model it names."""
        name = self.payload.get("model")
        return name if isinstance(name, str) and name else None

    @property
    def streams(self) -> bool:
        """Whether the answer is to come in pieces."""
        return bool(self.payload.get("stream"))

    @property
    def is_shaped(self) -> bool:
        """Whether the answer must have a form that a plain sentence does not have."""
        wanted = self.payload.get("response_format")
        is_text = wanted is None or (isinstance(wanted, Mapping) and wanted.get("type") == "text")
        shaping = ("structured_outputs", "guided_json", "guided_choice", "guided_regex", "guided_grammar", "functions")
        tools = self.payload.get("tools") and self.payload.get("tool_choice") not in (None, "auto", "none")
        return not is_text or bool(tools) or any(self.payload.get(name) for name in shaping)


def read_request(body: bytes, *, is_chat: bool) -> Asked | None:
    """What a request asks; None where it has no text that can be judged (the upstream server says what is wrong).

    >>> read_request(b'{"messages": [{"role": "user", "content": "Who?"}]}', is_chat=True).texts
    ('Who?',)
    """
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(payload, dict):
        return None
    texts = _turn(payload) if is_chat else _prompts(payload)
    return Asked(payload, texts, is_chat) if texts else None


def edited_body(asked: Asked, found: Sequence[Resolution], reminder: str = "") -> bytes:
    """The request with the facts in its prompt.

    Args:
        asked: The request.
        found: What the memory says to each of its texts.
        reminder: The answer that the facts give, to be said once more after the question.
    """
    payload = copy.copy(asked.payload)
    if asked.is_chat:
        payload["messages"] = _told(asked.payload["messages"], found[0], reminder)
    else:
        edited = [_around(text, one, reminder) for text, one in zip(asked.texts, found, strict=True)]
        payload["prompt"] = edited[0] if isinstance(asked.payload["prompt"], str) else edited
    return json.dumps(payload).encode()


def _turn(payload: Json) -> tuple[str, ...]:
    messages = payload.get("messages")
    place = _last_user(messages)
    if place is None or not isinstance(messages, list):
        return ()
    content = messages[place].get("content")
    text = content if isinstance(content, str) else "\n".join(_texts(content))
    return (text[-MAX_CHARACTERS:],) if text.strip() else ()


def _prompts(payload: Json) -> tuple[str, ...]:
    prompt = payload.get("prompt")
    if isinstance(prompt, str):
        return (prompt,) if prompt.strip() else ()
    if isinstance(prompt, list) and prompt and all(isinstance(one, str) and one.strip() for one in prompt):
        return tuple(prompt)
    return ()  # token ids


def _last_user(messages: object) -> int | None:
    if not isinstance(messages, list):
        return None
    places = range(len(messages) - 1, -1, -1)
    return next((at for at in places if isinstance(messages[at], dict) and messages[at].get("role") == "user"), None)


def _texts(content: object) -> list[str]:
    parts = content if isinstance(content, list) else []
    texts = [
        part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in ("text", "input_text")
    ]
    return [text for text in texts if isinstance(text, str)]


def _told(messages: object, found: Resolution, reminder: str) -> object:
    place = _last_user(messages)
    if place is None or not isinstance(messages, list):
        return messages
    turn = dict(messages[place])
    content = turn["content"]
    if isinstance(content, str):
        turn["content"] = _around(content, found, reminder)
    else:
        last = [{"type": "text", "text": _remind(reminder)}] if reminder else []
        turn["content"] = [{"type": "text", "text": _note(found)}, *content, *last]
    return [*messages[:place], turn, *messages[place + 1 :]]


def _around(text: str, found: Resolution, reminder: str) -> str:
    if not found.facts:
        return text
    after = f"\n\n{_remind(reminder)}" if reminder else ""
    return f"{_note(found)}\n\n{text}{after}"


def _note(found: Resolution) -> str:
    return facts_note([fact.statement for fact in found.facts], found.hops)


def _remind(answer: str) -> str:
    return f"Keep to the facts given above: by them, the answer is <facts>{as_data(answer)}</facts>."
