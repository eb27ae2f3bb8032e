"""A model server by script, for what must be exact or quick where a real model is neither: `python -m benchmarks.serving_upstream`.

It repeats what it was asked (so that a benchmark sees the prompt that a gateway made), in as many tokens as were asked for, at
a pace of its own. Chats and completions, streamed or whole, `/v1/models`, and a counter at `/metrics` under vLLM's name for
it. Knows nothing of facts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

MODEL = "scripted"
REQUESTS = "vllm:request_success_total"
"""vLLM's counter of finished requests; this server counts under the same name."""
DEFAULT_TOKENS = 16
Json = dict[str, object]


@dataclass
class Script:
    """How the server answers.

    Attributes:
        delay: Seconds before the first token.
        pace: Seconds between a stream's tokens.
        answered: Requests answered so far.
    """

    delay: float = 0.0
    pace: float = 0.0
    answered: int = 0
    connections: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it is closed."""
        self.connections.add(writer)
        try:
            while head := await _head(reader):
                method, path, length = head
                body = await reader.readexactly(length)
                await self._answer(method, path, body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/metrics":
            await _send(writer, f"{REQUESTS} {self.answered}\n".encode(), "text/plain")
            return
        if path == "/v1/models":
            card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "script"}
            await _send(writer, json.dumps({"object": "list", "data": [card]}).encode())
            return
        if method != "POST" or path not in ("/v1/chat/completions", "/v1/completions"):
            await _send(writer, b'{"error": {"message": "There is nothing here."}}', status="404 Not Found")
            return
        payload: Json = json.loads(body)
        words = answer_words(payload)
        await asyncio.sleep(self.delay)
        if payload.get("stream"):
            await self._stream(payload, words, writer)
        else:
            await asyncio.sleep(self.pace * len(words))
            choice: Json = {"index": 0, "finish_reason": "stop", "logprobs": None}
            text = "".join(words)
            choice |= {"message": {"role": "assistant", "content": text}} if _is_chat(payload) else {"text": text}
            await _send(writer, json.dumps({**_envelope(payload), "choices": [choice], **_usage(words)}).encode())
        self.answered += 1

    async def _stream(self, payload: Json, words: Sequence[str], writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        envelope, is_chat = _envelope(payload), _is_chat(payload)
        begun = time.perf_counter()
        for place, word in enumerate([*words, None]):
            choice: Json = {"index": 0, "finish_reason": "stop" if word is None else None}
            choice |= {"delta": {"content": word} if word else {}} if is_chat else {"text": word or ""}
            _event(writer, json.dumps({**envelope, "choices": [choice]}))
            if self.pace and word is not None:
                await writer.drain()
                await asyncio.sleep(max(0.0, begun + self.pace * (place + 1) - time.perf_counter()))
        options = payload.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            _event(writer, json.dumps({**envelope, "choices": [], **_usage(words)}))
        _event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def answer_words(payload: Json) -> list[str]:
    """What is answered: the last message or prompt, its words over and over until they are as many as asked for.

    >>> answer_words({"prompt": "Say it.", "max_tokens": 3})
    ['Say ', 'it. ', 'Say ']
    """
    messages = payload.get("messages")
    said = messages[-1].get("content") if isinstance(messages, list) else payload.get("prompt")
    words = [f"{word} " for word in str(said).split()] or ["nothing "]
    count = payload.get("max_tokens")
    return list(islice(cycle(words), count if isinstance(count, int) else max(DEFAULT_TOKENS, len(words))))


async def _head(reader: asyncio.StreamReader) -> tuple[str, str, int] | None:
    """Method, path and length of the body of the next request; None where there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    fields = dict(line.lower().split(":", 1) for line in lines if line)
    return method, path.partition("?")[0], int(fields.get("content-length", "0"))


async def _send(
    writer: asyncio.StreamWriter, body: bytes, kind: str = "application/json", status: str = "200 OK"
) -> None:
    writer.write(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


def _event(writer: asyncio.StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


def _is_chat(payload: Json) -> bool:
    return "messages" in payload


def _envelope(payload: Json) -> Json:
    stream = ".chunk" if payload.get("stream") else ""
    kind = f"chat.completion{stream}" if _is_chat(payload) else "text_completion"
    return {"id": "c1", "object": kind, "created": 1, "model": payload.get("model", MODEL)}


def _usage(words: Sequence[str]) -> Json:
    return {"usage": {"prompt_tokens": 0, "completion_tokens": len(words), "total_tokens": len(words)}}


async def serve(port: int, script: Script) -> None:
    """Serve on the loopback until cancelled."""
    server = await asyncio.start_server(script.serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_upstream", description="A scripted model.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before the first token")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between tokens")
    options = parser.parse_args(argv)
    asyncio.run(serve(options.port, Script(options.delay, options.pace)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
