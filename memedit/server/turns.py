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

from memedit.conversation import Turn
from memedit.prompts.data import facts_note, reminder
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
        earlier: What user and assistant said before the last user's turn.
    """

    payload: Json
    texts: tuple[str, ...]
    is_chat: bool
    earlier: tuple[Turn, ...] = ()

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
    return Asked(payload, texts, is_chat, _earlier(payload) if is_chat else ()) if texts else None


def edited_body(
    asked: Asked,
    found: Sequence[Resolution],
    answers: Sequence[str | None],
    *,
    again: bool = False,
    cache_salt: str | None = None,
) -> bytes:
    """The request with the facts in its prompt.

    Args:
        asked: The request.
        found: What the memory says to each of its texts.
        answers: For each text the answer that the facts give, where that is certain. A chat's last turn ends with it; a text
            that is to be continued does only if `again`, for it would be continued from there.
        again: Whether an answer has missed it.
        cache_salt: Keeps what vLLM remembers of this prompt from other tenants; None where the server is another.
    """
    payload = copy.copy(asked.payload)
    told = asked.is_chat or again
    reminders = [reminder(one, again=again) if one and told else "" for one in answers]
    if asked.is_chat:
        payload["messages"] = _told(asked.payload["messages"], found[0], reminders[0])
    else:
        edited = [_around(*one) for one in zip(asked.texts, found, reminders, strict=True)]
        payload["prompt"] = edited[0] if isinstance(asked.payload["prompt"], str) else edited
    if cache_salt is not None:
        payload["cache_salt"] = cache_salt
    return json.dumps(payload).encode()


def _turn(payload: Json) -> tuple[str, ...]:
    messages = payload.get("messages")
    place = _last_user(messages)
    if place is None or not isinstance(messages, list):
        return ()
    text = _text(messages[place])
    return (text[-MAX_CHARACTERS:],) if text.strip() else ()


def _earlier(payload: Json) -> tuple[Turn, ...]:
    messages = payload.get("messages")
    place = _last_user(messages)
    assert isinstance(messages, list)
    said = [one for one in messages[:place] if isinstance(one, dict)]
    turns = (Turn(one["role"], _text(one)) for one in said if one.get("role") in ("user", "assistant"))
    return tuple(turn for turn in turns if turn.text.strip())


def _text(message: Mapping[str, object]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "\n".join(_texts(content))


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


def _told(messages: object, found: Resolution, after: str) -> object:
    place = _last_user(messages)
    if place is None or not isinstance(messages, list):
        return messages
    turn = dict(messages[place])
    content = turn["content"]
    if isinstance(content, str):
        turn["content"] = _around(content, found, after)
    else:
        last = [{"type": "text", "text": after}] if after else []
        turn["content"] = [{"type": "text", "text": _note(found)}, *content, *last]
    return [*messages[:place], turn, *messages[place + 1 :]]


def _around(text: str, found: Resolution, after: str) -> str:
    if not found.facts:
        return text
    return "\n\n".join(part for part in (_note(found), text, after) if part)


def _note(found: Resolution) -> str:
    return facts_note([fact.statement for fact in found.facts], found.hops)
