"""Attacks on a served agent: each is answered by a refusal, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from praisonaiagents import Agent
from praisonaiagents.errors import ConfigError
from praisonaiagents.serve import Server, app, keeping, launch
from praisonaiagents.session import get_default_session_store

TOKENS = {"alice-token-1": "alice", "bob-token-22": "bob"}
ALICE, BOB = ({"Authorization": f"Bearer {token}"} for token in TOKENS)


@pytest.fixture
def serve(make_agent: Callable[..., Agent]) -> Iterator[Callable[..., Server]]:
    """A real server at a free port of this machine."""
    servers: list[Server] = []

    def start(**settings: Any) -> Server:
        agent = make_agent(llm="offline", instructions="be brief")
        servers.append(launch(agent, "/agent", 0, block=False, say=lambda _: None, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def say(server: Server, text: str = "hello", headers: dict[str, str] | None = None, **more: Any) -> httpx2.Response:
    return httpx2.post(server.url + "/agent", json={"query": text, **more}, headers=headers)


def raw(server: Server, sent: bytes, *, until_closed: bool = False) -> bytes:
    """What comes back when these bytes are sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(sent)
        got = connection.recv(65536)
        while until_closed and (piece := connection.recv(65536)):
            got += piece
    return got


def stored() -> int:
    return sum(row["message_count"] for row in get_default_session_store().list_sessions(None, all_users=True))


# --- who may come in ---


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-token"},
        {"Authorization": "Basic YWxpY2U6eA=="},
        {"Authorization": "Bearer alice-token-"},
        {"Authorization": "Bearer alice-token-11"},
        {"Authorization": "bearer ALICE-TOKEN-1"},
        {"X-Auth-Token": "None"},
        {"X-User-Id": "alice"},
        {"Authorization": "Bearer sha256:" + "0" * 64},
    ],
)
def test_no_token_and_a_wrong_one_are_refused_alike(serve: Callable[..., Server], headers: dict[str, str]) -> None:
    server = serve(users=TOKENS)
    refused = say(server, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["type"] == "Unauthorized"
    for path in ("/sessions", "/agent/sessions", "/search?q=x", "/openapi.json", "/v1/models", "/turns/run-1"):
        assert httpx2.get(server.url + path, headers=headers).status_code == 401
    assert httpx2.get(server.url + "/agent/health").status_code == 200
    assert stored() == 0


def test_a_user_is_the_user_of_the_token_whatever_is_said(serve: Callable[..., Server]) -> None:
    server = serve(users=TOKENS)
    assert say(server, "I am Alice", ALICE, session_id="s").status_code == 200
    assert say(server, "I am Alice", ALICE, session_id="s", user_id="default_user").status_code == 200
    assert say(server, "I am Bob", ALICE, session_id="s", user_id="bob").status_code == 403
    assert httpx2.get(server.url + "/sessions", headers=ALICE | {"X-User-Id": "bob"}).status_code == 403
    store = get_default_session_store()
    assert len(store.get_chat_history("s", user_id="alice")) == 4
    assert store.get_chat_history("s", user_id="bob") == []
    assert store.get_chat_history("s", user_id="default_user") == []


def test_a_session_of_somebody_else_is_answered_as_one_that_is_not_there(serve: Callable[..., Server]) -> None:
    server = serve(users=TOKENS)
    turn = say(server, "a secret", ALICE, session_id="hers").json()["turn_id"]
    paths = ["", "/messages", "/export", "/snapshots"]
    for method, path, body in [
        *(("GET", f"/sessions/{{}}{path}", None) for path in paths),
        ("DELETE", "/sessions/{}", None),
        ("PATCH", "/sessions/{}", {"title": "x"}),
        ("POST", "/sessions/{}/fork", {}),
        ("POST", "/sessions/{}/snapshots", {}),
        ("POST", "/sessions/{}/revert", {"to": "message:0"}),
        ("POST", "/sessions/{}/undo", None),
        ("DELETE", "/sessions/{}/snapshots/x", None),
    ]:
        answers = [
            httpx2.request(method, server.url + path.format(name), json=body, headers=BOB) for name in ("hers", "none")
        ]
        hers, none = ((answer.status_code, answer.content) for answer in answers)
        assert hers == none
        assert hers[0] == 404
    for method in ("GET", "DELETE"):
        hers, none = (httpx2.request(method, f"{server.url}/turns/{name}", headers=BOB) for name in (turn, "run-0"))
        assert (hers.status_code, hers.content) == (none.status_code, none.content) == (404, none.content)
    assert httpx2.get(f"{server.url}/search?q=secret", headers=BOB).json()["hits"] == []
    assert len(get_default_session_store().get_chat_history("hers", user_id="alice")) == 2


def test_a_trusted_caller_says_whose_session_it_means(serve: Callable[..., Server]) -> None:
    server = serve(token="the-backends-token")
    own = {"X-Auth-Token": "the-backends-token"}
    assert say(server, "hi", own, session_id="s", user_id="zoë").status_code == 200
    sessions = httpx2.get(server.url + "/sessions", headers=own | {"X-User-Id": "zo%C3%AB"}).json()["sessions"]
    assert [row["user_id"] for row in sessions] == ["zoë"]
    assert httpx2.get(server.url + "/sessions", headers=own).json()["sessions"] == []
    assert httpx2.get(server.url + "/sessions", headers=own | {"X-User-Id": "%ff"}).status_code == 400


@pytest.fixture
def no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For rates, which let somebody in again after a while."""
    monkeypatch.setattr("praisonaiagents.serve.guard.time", SimpleNamespace(monotonic=lambda: 0.0))


@pytest.mark.usefixtures("no_time_passes")
def test_guessing_tokens_is_stopped_and_keeps_nobody_else_out(serve: Callable[..., Server]) -> None:
    """A proxy's address is that of all who come through it."""
    server = serve(token="the-backends-token", users=TOKENS)
    with httpx2.Client(base_url=server.url) as client:
        guesses = ({"Authorization": f"Bearer guess-{number:04}"} for number in range(22))
        answers = [client.get("/sessions", headers=guess) for guess in guesses]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1
    assert say(server, headers=ALICE).status_code == 200
    assert say(server, headers={"X-Auth-Token": "the-backends-token"}).status_code == 200


def test_whom_a_proxy_brings_has_to_say_who_it_is(serve: Callable[..., Server]) -> None:
    """A proxy on this machine has an address of this machine, and brings anybody."""
    asks_nobody, asks = serve(), serve(users=TOKENS)
    for header in ("X-Forwarded-For", "Forwarded", "Via"):
        brought = {header: "192.0.2.1"}
        refused = httpx2.get(asks_nobody.url + "/sessions", headers=brought)
        assert (refused.status_code, "set token= or users=" in refused.json()["error"]) == (403, True)
        assert httpx2.get(asks.url + "/sessions", headers=ALICE | brought).status_code == 200


@pytest.mark.usefixtures("no_time_passes")
def test_one_user_coming_too_often_keeps_nobody_else_out(serve: Callable[..., Server]) -> None:
    server = serve(users=TOKENS, per_minute=5)
    answers = [httpx2.get(server.url + "/sessions", headers=ALICE).status_code for _ in range(7)]
    assert answers == [200] * 5 + [429] * 2
    assert httpx2.get(server.url + "/sessions", headers=BOB).status_code == 200


@pytest.mark.usefixtures("no_time_passes")
def test_a_backend_is_counted_by_the_users_it_names(serve: Callable[..., Server]) -> None:
    server = serve(token="the-backends-token", per_minute=3)
    own = {"X-Auth-Token": "the-backends-token"}
    answers = {user: [say(server, "hi", own, user_id=user).status_code for _ in range(4)] for user in ("u", "v")}
    assert answers == {user: [200] * 3 + [429] for user in ("u", "v")}
    assert [httpx2.get(server.url + "/sessions", headers=own).status_code for _ in range(5)] == [200] * 5


# --- browsers ---


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "[::2]", ""]
)
def test_a_name_that_somebody_else_pointed_here_is_refused(serve: Callable[..., Server], host: str) -> None:
    """As in DNS rebinding: the page is evil.example, and its name means this machine."""
    server = serve()
    refused = httpx2.get(server.url + "/sessions", headers={"Host": host})
    assert refused.status_code == (200 if host == "localhost." else 421)
    allowed = serve(hosts=["agents.example"])
    assert httpx2.get(allowed.url + "/sessions", headers={"Host": "agents.example:443"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://", "x", "http://"]
)
def test_a_page_of_another_site_is_refused(serve: Callable[..., Server], origin: str) -> None:
    server = serve()
    refused = say(server, headers={"Origin": origin})
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    form = httpx2.post(server.url + "/agent", data={"query": "hello"}, headers={"Origin": origin})
    assert form.status_code == 403
    assert say(server, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert stored() == 0
    assert say(server, headers={"Origin": server.url}).status_code == 200


def test_a_page_that_is_allowed_may_call_from_a_browser(serve: Callable[..., Server]) -> None:
    server = serve(origins=["https://app.example"])
    page = {"Origin": "https://app.example"}
    asked = page | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = httpx2.options(server.url + "/agent", headers=asked)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, "https://app.example")
    answer = say(server, headers=page)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert {"retry-after", "x-should-retry"} <= set(answer.headers["access-control-expose-headers"].split(", "))
    other = httpx2.options(server.url + "/agent", headers=asked | {"Origin": "https://evil.example"})
    assert other.status_code == 403
    assert "access-control-allow-origin" not in other.headers


def test_a_page_that_is_allowed_may_send_any_header(serve: Callable[..., Server]) -> None:
    server = serve(origins=["https://app.example"])
    page = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    names = "content-type, x-auth-token, x-stainless-lang"
    for asked, allowed in ((names, names), ("content-type; <b>", None), ("", None)):
        preflight = httpx2.options(server.url, headers=page | {"Access-Control-Request-Headers": asked})
        assert preflight.headers.get("access-control-allow-headers") == allowed


def test_browsers_are_told_not_to_guess_frame_or_keep(serve: Callable[..., Server]) -> None:
    server = serve()
    for answer in (say(server), httpx2.get(server.url + "/nothing"), httpx2.get(server.url + "/health")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_an_exported_page_runs_nothing_in_a_browser(serve: Callable[..., Server]) -> None:
    server = serve()
    say(server, "<script>alert(1)</script>", session_id="s")
    page = httpx2.get(server.url + "/sessions/s/export?format=html")
    assert page.headers["content-disposition"].startswith("attachment")
    assert "<script>alert" not in page.text


# --- too much, too slow ---


def test_what_is_too_large_is_refused_and_stores_nothing(serve: Callable[..., Server]) -> None:
    server = serve(max_body_bytes=10_000, max_message_chars=1_000)
    assert say(server, "x" * 20_000).status_code == 413
    assert say(server, "x" * 1_001).status_code == 413
    assert httpx2.post(server.url + "/agent", content=iter([b"x" * 6_000, b"y" * 6_000])).status_code == 413
    body = {"messages": [{"role": "user", "content": "x" * 1_001}]}
    assert httpx2.post(server.url + "/v1/chat/completions", json=body).status_code == 413
    assert httpx2.get(server.url + "/sessions", headers={"X-Large": "x" * 20_000}).status_code == 431
    assert httpx2.get(server.url + "/sessions", headers={f"X-{n}": "x" for n in range(120)}).status_code == 431
    assert stored() == 0
    assert say(server, "x" * 1_000).status_code == 200


def test_a_body_that_drips_in_is_given_up_on(serve: Callable[..., Server]) -> None:
    server = serve(body_timeout_s=0.3)
    head = b"POST /agent HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    assert raw(server, head + b'{"query": ').startswith(b"HTTP/1.1 408 ")
    assert stored() == 0


def test_headers_that_drip_in_are_given_up_on(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("praisonaiagents.serve.server._HEADER_TIMEOUT_S", 0.3)
    server = serve()
    for sent in (b"", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ", b"POST"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(sent)
            assert connection.recv(1024) == b""
    assert httpx2.get(server.url + "/health").status_code == 200


def test_what_is_left_of_a_request_that_was_answered_is_not_waited_for(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(users=TOKENS)
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"POST /agent HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        monkeypatch.setattr("praisonaiagents.serve.server._HEADER_TIMEOUT_S", 0)
        connection.sendall(b"{")
        while connection.recv(65536):
            pass


# --- bytes ---


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/../../etc/passwd",
        "/sessions/..%2f..%2fetc%2fpasswd",
        "/sessions/%2e%2e/messages",
        "/sessions/a%00b",
        "/sessions/%ff",
        "/sessions//messages",
        "//sessions",
        "/agent/../sessions",
        "/sessions/praisonai%3Astate",
        "/sessions/" + "x" * 2_000,
        "/sessions/%0d%0aX-Injected:%201",
    ],
)
def test_tricks_in_a_path_find_nothing(serve: Callable[..., Server], path: str) -> None:
    server = serve()
    answer = raw(
        server, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode(), until_closed=True
    )
    assert answer.split(b" ")[1] in (b"400", b"404")
    assert b"\nx-injected" not in answer.lower()
    assert b"Traceback" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize(
    "session_id", ["x\r\nX-Injected: 1", "x\nSet-Cookie: a=b", "ü\u2028x", "x" * 3_000, "", "\x00"]
)
def test_a_session_id_never_becomes_a_header(serve: Callable[..., Server], session_id: str) -> None:
    server = serve()
    body = {"messages": [{"role": "user", "content": "hi"}], "metadata": {"session_id": session_id}}
    answer = httpx2.post(server.url + "/v1/chat/completions", json=body)
    assert answer.status_code in (200, 400)
    assert "x-injected" not in answer.headers
    assert "set-cookie" not in answer.headers
    request_id = httpx2.get(server.url + "/health", headers={"X-Request-Id": "a b;c"}).headers["x-request-id"]
    assert request_id != "a b;c"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b'{"query": null}',
        b'{"query": 5}',
        b'{"query": ""}',
        b'{"query": "  \\n"}',
        b'{"query": ["a"]}',
        b'{"query": "\\ud800"}',
        b'{"query": "x", "session_id": ""}',
        b'{"query": "x", "session_id": 5}',
        b'{"query": "x", "session_id": "a\\u0000b"}',
        b'{"query": "x", "session_id": "praisonai:state"}',
        b'{"query": "x", "user_id": "\\u0007"}',
        b'{"query": "x", "stream": "yes"}',
        b"[" * 5_000,
        b'{"query": ' + b"[" * 5_000,
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(serve: Callable[..., Server], body: bytes) -> None:
    server = serve()
    answer = httpx2.post(server.url + "/agent", content=body, headers={"Content-Type": "application/json"})
    if body == b'{"query": "x", "session_id": ""}':
        assert answer.status_code == 200  # nothing said is a new session
        return
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert stored() == 0


def test_a_form_has_few_fields(serve: Callable[..., Server]) -> None:
    server = serve()
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = httpx2.post(server.url + "/agent", content=b"query=x" + b"&a" * 100, headers=form)
    assert (refused.status_code, "100 fields" in refused.json()["error"]) == (400, True)
    assert httpx2.post(server.url + "/agent", content=b"query=x" + b"&a" * 99, headers=form).status_code == 200


def test_a_length_of_thousands_of_digits_is_too_large() -> None:
    assert asgi(headers=[(b"content-length", b"9" * 5_000)])[0]["status"] == 413


def test_a_caller_that_leaves_while_it_speaks_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "praisonaiagents.serve")
    asgi({"type": "http.request", "body": b'{"que', "more_body": True}, {"type": "http.disconnect"})
    told = [(record.levelname, record.__dict__["fields"]["status"]) for record in caplog.records]
    assert told == [("INFO", 499)]


def asgi(*received: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None) -> list[dict[str, Any]]:
    """What an app sends when it is asked for a turn by a server that checks nothing, and receives this."""
    to_come, sent = list(received), []

    async def receive() -> dict[str, Any]:
        return to_come.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/agent",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *(headers or [])],
        "client": ("127.0.0.1", 1),
    }

    async def ask() -> None:
        await app(agent, path="/agent")(scope, receive, send)

    with Agent("Assistant", llm="offline") as agent:
        asyncio.run(ask())
    return sent


def test_the_wrong_kind_of_request_is_refused(serve: Callable[..., Server]) -> None:
    server = serve()
    assert httpx2.post(server.url + "/agent", content=b"<x/>", headers={"Content-Type": "text/xml"}).status_code == 415
    refused = httpx2.put(server.url + "/sessions/s")
    assert (refused.status_code, refused.headers["allow"]) == (405, "DELETE, GET, PATCH")
    assert httpx2.get(server.url + "/agent").status_code == 405
    assert raw(server, b"\x16\x03\x01\x00\xa5").startswith(b"HTTP/1.1 400 ")
    both = b"POST /agent HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET "
    assert b"200 OK" not in raw(server, both)


# --- again ---


def test_a_request_that_is_sent_again_is_answered_again_and_done_once(serve: Callable[..., Server]) -> None:
    server = serve(users=TOKENS)
    key = {"Idempotency-Key": "k-1"}
    first = say(server, "hello", ALICE | key, session_id="s")
    again = say(server, "hello", ALICE | key, session_id="s")
    assert first.json() == again.json()
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert say(server, "something else", ALICE | key, session_id="s").status_code == 422
    assert say(server, "hello", ALICE | {"Idempotency-Key": "k" * 300}, session_id="s").status_code == 400
    hers = get_default_session_store().get_chat_history("s", user_id="alice")
    assert [message["content"] for message in hers][:1] == ["hello"]
    assert len(hers) == 2
    other = say(server, "hello", BOB | key, session_id="s")  # a key is one user's
    assert other.json()["turn_id"] != first.json()["turn_id"]
    assert len(get_default_session_store().get_chat_history("s", user_id="bob")) == 2


def test_what_failed_for_a_moment_is_done_when_it_is_sent_again(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    from praisonaiagents.errors import EngineUnreachable
    from praisonaiagents.storage.jsonfile import JsonFileEngine

    def away(*_: object, **__: object) -> None:
        raise EngineUnreachable("secret-host:5432 is away", "secret-host")

    server = serve()
    key = {"Idempotency-Key": "k-2"}
    with monkeypatch.context() as broken:
        broken.setattr(JsonFileEngine, "append", away)
        refused = say(server, "hello", key, session_id="s")
    assert (refused.status_code, "secret-host" in refused.text) == (503, False)
    assert say(server, "hello", key, session_id="s").status_code == 200
    assert [message["role"] for message in get_default_session_store().get_chat_history("s")] == ["user", "assistant"]


def test_a_full_disk_is_said_without_its_path(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    from praisonaiagents.errors import StorageFull
    from praisonaiagents.storage.jsonfile import JsonFileEngine

    def full(*_: object, **__: object) -> None:
        raise StorageFull("no room left in /secret/path", "/secret/path")

    server = serve()
    say(server, session_id="s")
    monkeypatch.setattr(JsonFileEngine, "append", full)
    refused = say(server, session_id="s")
    assert (refused.status_code, refused.json()["type"]) == (507, "StorageFull")
    assert "no room left" in refused.json()["error"]
    assert "secret" not in refused.text
    assert len(httpx2.get(server.url + "/sessions/s/messages").json()["messages"]) == 2


def test_what_is_wrong_with_the_agent_is_not_told_as_the_callers_fault(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ConfigError("the model cannot be used: no key in secret.toml")

    monkeypatch.setattr(Agent, "take_turn", broken)
    failed = say(serve())
    assert (failed.status_code, failed.json()["type"]) == (500, "ConfigError")
    assert "secret" not in failed.text


def test_an_event_of_another_turn_keeps_nothing_of_a_new_one_back(serve: Callable[..., Server]) -> None:
    server = serve()
    headers = {"Last-Event-ID": "run-0.7", "Accept": "text/event-stream"}
    answer = say(server, "hello", headers, session_id="s")
    assert answer.status_code == 200
    assert answer.text.startswith("id: run-")
    assert ".1\nevent: turn\n" in answer.text
    assert "event: done" in answer.text


def test_nothing_secret_reaches_the_log(serve: Callable[..., Server], caplog: pytest.LogCaptureFixture) -> None:
    from praisonaiagents.serve.logs import JsonLines, Lines

    caplog.set_level("INFO", "praisonaiagents.serve")
    server = serve(users=TOKENS)
    say(server, "my password is hunter2", ALICE, session_id="s")
    httpx2.get(server.url + "/search?q=hunter2", headers=ALICE)
    say(server, "hunter2", {"Authorization": "Bearer hunter2hunter2"})
    server.close()
    lines = [form.format(record) for form in (JsonLines(), Lines()) for record in caplog.records]
    assert not [line for line in lines if "hunter2" in line or "alice-token" in line]
    told = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name.endswith("serve")]
    turn = next(line for line in told if line["event"] == "turn")
    assert (turn["user"], turn["session"], turn["status"]) == ("alice", "s", "done")
    request = next(line for line in told if line["event"] == "request")
    assert request["status"] == 200
    assert request["request_id"]
    assert "alice-token" not in repr(server.service.settings)


def test_what_an_error_says_reaches_no_log(
    serve: Callable[..., Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may quote what was said. The caller is told nothing of it, also where the answer had begun."""
    from praisonaiagents.serve.logs import JsonLines

    def broken(*_: object) -> Iterator[str]:
        yield "the beginning"
        raise RuntimeError("hunter2")

    caplog.set_level("INFO", "praisonaiagents.serve")
    monkeypatch.setitem(keeping._FORMS, "json", (broken, "application/json", "json"))
    server = serve()
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(server.url + "/sessions/s/export")
    server.close()
    assert "hunter2" not in caplog.text
    told = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name.endswith("serve")]
    failed = next(line for line in told if line["event"] == "failed")
    assert (failed["error"], failed["why"]) == ("InternalError", "RuntimeError")
    assert "test_guard.py" in failed["trace"][-1]
    assert [line["status"] for line in told if line["event"] == "request"] == [500]
    assert "failed error=InternalError why=RuntimeError" in caplog.text
