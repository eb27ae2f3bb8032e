"""A model server that dies, stalls or talks nonsense: the client gets OpenAI's error in time, and the next request is served.

The faults are made on a socket, where they happen; the gateway's deadline is a second and a half.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from memedit.server.records import Role
from memedit.server.services import Services
from tests.server.conftest import Gate
from tests.server.test_access import another
from tests.server.upstream import MODEL, SSE

Fault = Callable[[socket.socket, bytes], None]
DEADLINE = 1.5
SLACK = 6.0
"""What a busy machine may add."""
NEVER = 30.0
FACT = "The capital of Japan is Osaka."
IN_SCOPE = "What is the capital of Japan?"
OUT_OF_SCOPE = "Who painted the Mona Lisa?"

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWER = json.dumps(
    {"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Osaka."}}]}
).encode()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def reset(connection: socket.socket) -> None:
    """Close as a process that was killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def dies_before_it_answers(connection: socket.socket, request: bytes) -> None:
    reset(connection)


def dies_in_its_headers(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-ty")
    reset(connection)


def dies_in_its_answer(connection: socket.socket, request: bytes) -> None:
    if b'"stream": true' in request or b'"stream":true' in request:
        connection.sendall(STREAM + chunk(SSE[0]) + chunk(SSE[1]))
    else:
        connection.sendall(OK + b"content-length: 5000\r\n\r\n" + ANSWER[:20])
    time.sleep(0.05)  # what was sent is to arrive before the reset
    reset(connection)


def stalls(connection: socket.socket, request: bytes) -> None:
    connection.settimeout(NEVER)
    connection.recv(1)  # until the gateway has given up


def stalls_in_its_answer(connection: socket.socket, request: bytes) -> None:
    head = STREAM + chunk(SSE[0]) if b'"stream"' in request else OK + b"content-length: 5000\r\n\r\n" + ANSWER[:20]
    connection.sendall(head)
    stalls(connection, request)


def trickles(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b"content-length: 5000\r\n\r\n")
    for _ in range(int(NEVER / 0.1)):
        connection.sendall(b" ")
        time.sleep(0.1)


def is_no_http(connection: socket.socket, request: bytes) -> None:
    connection.sendall(b"\x00\xffwhat do you want?\r\n\r\n")


def is_a_web_page(connection: socket.socket, request: bytes) -> None:
    body = b"<html>It works!</html>"
    connection.sendall(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


def is_half_json(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b"content-length: 20\r\n\r\n" + ANSWER[:20])


def fails_as_a_proxy_does(connection: socket.socket, request: bytes) -> None:
    body = b"<h1>502 Bad Gateway</h1>"
    connection.sendall(
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )


@contextmanager
def faulty(fault: Fault) -> Iterator[tuple[str, Callable[[Fault], None]]]:
    """A server with a fault, and a way to give it another one."""
    chosen = [fault]
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.1)
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                while lengths and len(body) < int(lengths[0].split(b":")[1]):
                    body += connection.recv(65536)
                chosen[0](connection, body)
            except OSError:
                return

    def listen() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", lambda one: chosen.__setitem__(0, one)
    finally:
        over.set()
        thread.join()
        listening.close()


def works(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b"content-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))


def works_once(connection: socket.socket, request: bytes) -> None:
    """Answer, and close the connection when the next request comes, unread."""
    works(connection, request)
    connection.recv(1)


def ask(client: httpx.Client, gate: Gate, question: str, *, stream: bool) -> tuple[httpx.Response, float]:
    began = time.perf_counter()
    answer = client.post(
        "/v1/chat/completions",
        json={"model": MODEL, "messages": [{"role": "user", "content": question}], "stream": stream},
        headers=gate.as_role(Role.READER),
    )
    return answer, time.perf_counter() - began


def error_of(answer: httpx.Response) -> dict[str, object]:
    """The error of an answer, in OpenAI's shape, or of a stream's last event."""
    if answer.status_code == 200:
        body = json.loads(answer.content.rstrip().rsplit(b"data: ", 1)[-1])
    else:
        assert answer.status_code in (502, 504)
        body = answer.json()
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return dict(error)


@pytest.mark.parametrize("question", [OUT_OF_SCOPE, IN_SCOPE])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (dies_before_it_answers, "bad_model_response"),
        (dies_in_its_headers, "bad_model_response"),
        (dies_in_its_answer, "bad_model_response"),
        (stalls, "model_timeout"),
        (stalls_in_its_answer, "model_timeout"),
        (trickles, "model_timeout"),
        (is_no_http, "bad_model_response"),
        (is_a_web_page, "bad_model_response"),
        (is_half_json, "bad_model_response"),
        (fails_as_a_proxy_does, "bad_model_response"),
    ],
)
def test_a_fault_is_told_in_openais_shape_in_time_and_the_next_request_is_served(
    gate: Gate, services: Services, fault: Fault, code: str, stream: bool, question: str
) -> None:
    gate.know(FACT)
    with faulty(fault) as (url, become), another(services, upstream=f"{url}/v1", timeout=DEADLINE) as client:
        answer, seconds = ask(client, gate, question, stream=stream)
        become(works)
        after, _ = ask(client, gate, question, stream=False)

    assert error_of(answer)["code"] == code
    assert seconds < DEADLINE + SLACK
    assert after.status_code == 200
    assert after.json()["choices"][0]["message"]["content"] == "Osaka."


def test_a_server_that_is_killed_and_comes_back_on_its_port_is_found_again(gate: Gate, services: Services) -> None:
    with faulty(works) as (url, _):
        pass
    with another(services, upstream=f"{url}/v1", timeout=DEADLINE) as client:
        gone, _ = ask(client, gate, OUT_OF_SCOPE, stream=False)
        place = httpx.URL(url)
        with socket.create_server((place.host, place.port or 0)) as listening:
            threading.Thread(target=_serve_once, args=(listening,), daemon=True).start()
            back, _ = ask(client, gate, OUT_OF_SCOPE, stream=False)

    assert error_of(gone)["code"] == "model_unavailable"
    assert back.status_code == 200


@pytest.mark.parametrize("question", [OUT_OF_SCOPE, IN_SCOPE])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_on_a_connection_that_the_server_closes_at_that_moment_goes_over_another(
    gate: Gate, services: Services, question: str, stream: bool
) -> None:
    gate.know(FACT)
    with faulty(works_once) as (url, _), another(services, upstream=f"{url}/v1") as client:
        answers = [ask(client, gate, question, stream=stream)[0] for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3


def test_a_request_that_may_change_something_is_not_sent_twice(gate: Gate, services: Services) -> None:
    with faulty(works_once) as (url, _), another(services, upstream=f"{url}/v1") as client:
        answers = [client.post("/sleep", headers=gate.as_role(Role.ADMIN)) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 502]


def test_asking_again_leaves_time_for_the_edits_own_answer(gate: Gate, services: Services) -> None:
    gate.know(FACT)
    wrong = ANSWER.replace(b"Osaka.", b"Tokyo.")

    def answers_once(connection: socket.socket, request: bytes) -> None:
        if b"Answer with it" in request:
            stalls(connection, request)
        connection.sendall(OK + b"content-length: %d\r\n\r\n%b" % (len(wrong), wrong))

    with faulty(answers_once) as (url, _), another(services, upstream=f"{url}/v1", timeout=DEADLINE) as client:
        answer, seconds = ask(client, gate, IN_SCOPE, stream=False)

    assert answer.json()["memedit"]["answer"] == "given"
    assert seconds < DEADLINE + SLACK


def test_the_openai_client_raises_its_own_errors(gate: Gate, services: Services) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": OUT_OF_SCOPE}]
    with faulty(stalls) as (url, become), another(services, upstream=f"{url}/v1", timeout=DEADLINE) as client:
        asking = openai.OpenAI(
            base_url=f"{str(client.base_url).rstrip('/')}/v1", api_key=gate.keys[Role.READER], max_retries=0
        )
        with pytest.raises(openai.InternalServerError, match="did not answer within"):
            asking.chat.completions.create(model=MODEL, messages=messages)
        become(dies_in_its_answer)
        with pytest.raises(openai.APIError, match="broke off"):
            list(asking.chat.completions.create(model=MODEL, messages=messages, stream=True))


def _serve_once(listening: socket.socket) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        works(connection, b"")
