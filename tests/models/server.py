"""A model server for tests: real HTTP on the loopback interface, which answers, stalls, lies or hangs up as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Body = dict[str, Any]


@dataclass
class Reply:
    """What to send back: an object as JSON, bytes as they are, `events` as a stream of server-sent events."""

    body: object = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"
    delay: float = 0.0
    hang_up: bool = False  # of a stream: after its events, and in the middle of a chunk
    events: list[object] | None = None
    ends: bool = True  # whether a stream says that it is done


Behaviour = Callable[[str, Body], Reply]


class Server:
    """Runs a behaviour for the length of a ``with`` block; remembers the requests and how many ran side by side."""

    def __init__(self, behave: Behaviour, *, owner: str = "vllm", context_length: int | None = 512) -> None:
        card: Body = {"id": "tiny", "owned_by": owner}
        if context_length:
            card["max_model_len"] = context_length
        self.models: list[Body] = [card]
        self.requests: list[tuple[str, Body]] = []
        self.most_at_once = 0
        self._running = 0
        self._behave = behave
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def sent(self, path: str) -> list[Body]:
        """The bodies of the requests to a path."""
        return [body for at, body in self.requests if at == path]

    def answer(self, path: str, body: Body) -> Reply:
        """Note a request and behave."""
        if path == "/v1/models":
            return Reply({"object": "list", "data": self.models})
        with self._lock:
            self.requests.append((path, body))
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            reply = self._behave(path, body)
            time.sleep(reply.delay)
            return reply
        finally:
            with self._lock:
                self._running -= 1


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[Server]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(self.owner.answer(self.path, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._send(self.owner.answer(self.path, body))

    def _send(self, reply: Reply) -> None:
        if reply.hang_up and reply.events is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.events is not None:
            self._send_events(reply)
            return
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:  # the client gave up waiting
            self.close_connection = True

    def _send_events(self, reply: Reply) -> None:
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in reply.events or []:
            self._send_chunk(event if isinstance(event, str) else json.dumps(event))
        if reply.hang_up:
            self.wfile.write(b"ff\r\ndata: {")
            self.close_connection = True
        else:
            if reply.ends:
                self._send_chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

    def _send_chunk(self, event: str) -> None:
        data = f"data: {event}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


def completion(text: str, *, finish_reason: str = "stop", **more: object) -> Reply:
    """What /v1/completions answers."""
    choice = {"index": 0, "text": text, "finish_reason": finish_reason, **more}
    return Reply({"id": "1", "object": "text_completion", "created": 1, "model": "tiny", "choices": [choice], **_USAGE})


def chat_completion(text: str) -> Reply:
    """What /v1/chat/completions answers."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return Reply({"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice], **_USAGE})


_USAGE = {"usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}
