"""Who gets to the page, from where, and to which parts of what serves it. No browser is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from memedit.memory.memory import EditMemory
from memedit.server.app import create_app
from memedit.server.records import Records, Role
from memedit.server.settings import Settings
from tests.page.conftest import House
from tests.server.upstream import served


@contextmanager
def signed_in(house: House, role: Role = Role.EDITOR) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, timeout=60) as client:
        assert client.post("/ui/sign-in", data={"key": house.keys[role]}).status_code == 303
        yield client


def test_the_way_in_is_the_sign_in_form(house: House) -> None:
    assert httpx.get(f"{house.url}/ui").headers["location"] == "/ui/"
    assert httpx.get(f"{house.url}/ui/").headers["location"] == "/ui/sign-in"
    assert httpx.get(f"{house.url}/ui/sign-in").status_code == 200

    with signed_in(house) as client:
        answer = client.get("/ui/")
        assert answer.status_code == 200
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        client.post("/ui/sign-out")
        assert client.get("/ui/").headers["location"] == "/ui/sign-in"


def test_the_key_is_kept_where_neither_scripts_nor_other_sites_reach_it(house: House) -> None:
    answer = httpx.post(f"{house.url}/ui/sign-in", data={"key": house.keys[Role.READER]})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/ui" in cookie
    assert "max-age" not in cookie  # it ends with the browser's session


@pytest.mark.parametrize("key", ["", "nonsense", "mk_ab_cd", "x" * 500])
def test_a_wrong_key_is_refused_with_how_to_get_one(house: House, key: str) -> None:
    answer = httpx.post(f"{house.url}/ui/sign-in", data={"key": key})
    assert answer.status_code == 401
    assert "memedit keys create" in answer.text
    assert "set-cookie" not in answer.headers


def test_a_revoked_key_is_of_no_use_any_more(house: House) -> None:
    with signed_in(house) as client:
        house.records.revoke_key(house.keys[Role.EDITOR].split("_")[1])
        assert client.get("/ui/").headers["location"] == "/ui/sign-in"
        assert client.get("/ui/config").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ui/config"),
        ("POST", "/ui/gradio_api/queue/join"),
        ("GET", "/ui/gradio_api/queue/data?session_hash=x"),
        ("POST", "/ui/gradio_api/upload"),
        ("GET", "/ui/gradio_api/info"),
        ("GET", "/ui/gradio_api/heartbeat/x"),
    ],
)
def test_without_a_key_nothing_but_the_form_is_served(house: House, method: str, path: str) -> None:
    assert httpx.request(method, house.url + path).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/gradio_api/proxy=http://example.com/",
        "/ui/gradio_api/run/predict",
        "/ui/gradio_api/call/x",
        "/ui/monitoring/summary",
        "/ui/gradio_api/vibe-code",
        "/ui/login",
    ],
)
def test_what_the_page_does_not_use_of_gradio_is_not_there(house: House, path: str) -> None:
    with signed_in(house, Role.ADMIN) as client:
        for method in ("GET", "POST"):
            assert client.request(method, path).status_code == 404


def test_a_page_of_another_site_cannot_act_in_a_visitors_name(house: House) -> None:
    with signed_in(house) as client:
        for origin in ("http://evil.example", "null", house.url.replace("127.0.0.1", "localhost")):
            answer = client.post("/ui/gradio_api/queue/join", headers={"origin": origin}, json={})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "access_denied")
        assert client.get("/ui/config", headers={"origin": house.url}).status_code == 200


def test_without_keys_it_answers_to_this_machines_own_names_only(house: House) -> None:
    with EditMemory() as memory, Records(":memory:") as records:
        settings = Settings(f"{house.upstream.url or 'http://127.0.0.1:1'}/v1", open=True)
        with served(create_app(settings, memory, records, warm=False, page=True)) as url:
            assert httpx.get(f"{url}/ui/").status_code == 200
            rebound = httpx.get(f"{url}/ui/", headers={"host": "evil.example"})
    assert rebound.status_code == 403


def test_where_there_is_no_page_its_path_says_how_to_get_one(house: House) -> None:
    with EditMemory() as memory, Records(":memory:") as records:
        app = create_app(Settings("http://127.0.0.1:1/v1"), memory, records, warm=False)
        with served(app) as url:
            for path in ("/ui", "/ui/", "/ui/config"):
                answer = httpx.get(url + path)
                assert answer.status_code == 404
                assert 'pip install "memedit[ui]"' in answer.json()["error"]["message"]
