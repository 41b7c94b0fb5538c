"""The wire, as clients that nobody here wrote speak it: curl, and httpx2, with a server in a process of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
from wire import PATIENCE_S

from praisonaiagents import __version__
from praisonaiagents.testing.llm import Fail, Hang, Reply, Request, Say, ScriptedLLM
from serve.process import Process, script

Json = dict[str, Any]
TOKEN = "secret-token"
AUTH = {"Authorization": f"Bearer {TOKEN}"}
IDS = ["plain", "a/b", "..", ".", "a b", "Zürich 🏔", "100%25", "x" * 300, "?a=b&c#d", "a\\b", "+"]
with_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")


class Here(NamedTuple):
    """The process, and the model that its agent talks to."""

    llm: ScriptedLLM
    process: Process

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def agent(self) -> str:
        return self.process.url + "/agent"


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    home = str(tmp_path_factory.mktemp("home"))
    settings: Json = {"token": TOKEN, "busy": "reject", "per_minute": 0, "max_body_bytes": 100_000}
    with ScriptedLLM(reply) as llm, Process(script(llm.openai_url, **settings), PRAISONAI_HOME=home) as process:
        yield Here(llm, process)


@pytest.fixture
def client(at: Here) -> Iterator[httpx2.Client]:
    """httpx2 with the server's token, which speaks to the agent."""
    with httpx2.Client(base_url=at.agent, headers=AUTH, timeout=PATIENCE_S) as client:
        yield client


def reply(request: Request) -> Reply:
    said = request.messages[-1]["content"]
    if said == "fail":
        return Fail(500)
    return Hang("one two three", after_chunks=1) if said.startswith("hang") else Say(f"You said: {said}", chunks=3)


class Answer(NamedTuple):
    """What curl got."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def curl(*arguments: str) -> Answer:
    command = ["curl", "-sS", "-i", "--noproxy", "*", "--max-time", str(PATIENCE_S), *arguments]
    done = subprocess.run(command, capture_output=True, check=True)
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    while head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Answer(int(status.split()[1]), headers, body)


def events(text: str) -> list[tuple[str, str, Json]]:
    """(id, event, data) of each event in a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return found


def segment(name: str) -> str:
    """A name as one part of a path. Clients take `..` for a step back, however it is meant."""
    return quote(name, safe="").replace(".", "%2E")


# A turn


@with_curl
def test_curl_says_something_and_is_answered(at: Here) -> None:
    body = json.dumps({"query": "Hello", "session_id": "curl", "user_id": "alice"})
    sent = ["-H", f"Authorization: Bearer {TOKEN}", "-H", "Content-Type: application/json", "-d", body]
    answer = curl(at.agent, *sent)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json().keys() == {"response", "session_id", "turn_id"}
    assert (answer.json()["response"], answer.json()["session_id"]) == ("You said: Hello", "curl")
    assert answer.headers["x-request-id"]
    assert "server" not in answer.headers


@with_curl
def test_curl_sends_a_form(at: Here) -> None:
    answer = curl(at.agent, "-H", f"X-Auth-Token: {TOKEN}", "--data-urlencode", "query=Zürich & 100% 🏔")
    assert (answer.status, answer.json()["response"]) == (200, "You said: Zürich & 100% 🏔")


def test_httpx_sends_a_form(client: httpx2.Client) -> None:
    form = {"query": "Hello", "session_id": "form", "user_id": "form user", "stream": "false"}
    assert client.post("", data=form).json()["response"] == "You said: Hello"
    assert client.get("/sessions/form", headers={"X-User-Id": "form%20user"}).status_code == 200


@with_curl
def test_curl_reads_a_stream(at: Here) -> None:
    body = json.dumps({"query": "Hello", "session_id": "curl stream", "stream": True})
    answer = curl("-N", at.agent, "-H", f"Authorization: Bearer {TOKEN}", "--json", body)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    check_stream(events(answer.body), "curl stream", "You said: Hello")


@pytest.mark.parametrize("way", ["accept", "body"])
def test_httpx_reads_a_stream(client: httpx2.Client, way: str) -> None:
    session_id = f"httpx {way}"
    headers = {"Accept": "text/event-stream"} if way == "accept" else {}
    body = {"query": "Hello", "session_id": session_id, **({"stream": True} if way == "body" else {})}
    with client.stream("POST", "", json=body, headers=headers) as response:
        check_stream(events("".join(response.iter_text())), session_id, "You said: Hello")


def check_stream(found: list[tuple[str, str, Json]], session_id: str, answer: str) -> None:
    turn_id = found[0][2]["turn_id"]
    assert [name for _, name, _ in found] == ["turn", "text", "text", "text", "message", "done"]
    assert [event_id for event_id, _, _ in found] == [f"{turn_id}.{number}" for number in range(1, 7)]
    assert found[0][2] == {"turn_id": turn_id, "session_id": session_id}
    assert "".join(data["text"] for _, name, data in found if name == "text") == answer
    assert found[-2][2] == {"role": "assistant", "content": answer}
    assert found[-1][2] == {"response": answer, "session_id": session_id, "turn_id": turn_id}


def test_a_session_of_a_caller_that_named_none_can_be_gone_on_with(client: httpx2.Client) -> None:
    first = client.post("", json={"query": "one"}).json()
    second = client.post("", json={"query": "two", "session_id": first["session_id"]}).json()
    assert second["session_id"] == first["session_id"]
    assert client.get(f"/sessions/{first['session_id']}").json()["message_count"] == 4


def test_a_turn_that_fails_is_told_with_its_kind(client: httpx2.Client) -> None:
    failed = client.post("", json={"query": "fail", "session_id": "failed"})
    assert failed.status_code == 500
    assert failed.json()["error"].startswith("Error processing query: ")
    assert failed.json()["type"] == "ModelError"
    streamed = events(client.post("", json={"query": "fail", "session_id": "failed", "stream": True}).text)
    assert streamed[-1][1] == "error"
    assert streamed[-1][2].keys() == {"error", "type", "status"}


# Picked up again


@contextmanager
def hanging(at: Here, client: httpx2.Client, session_id: str, **headers: str) -> Iterator[tuple[str, list[str]]]:
    """(id, ids of the events) of a turn whose caller has left after the first piece of text. The model hangs in it."""
    body = {"query": f"hang {session_id}", "session_id": session_id, "stream": True}
    seen: list[str] = []
    with client.stream("POST", "", json=body, headers=headers) as response:
        lines = response.iter_lines()
        while "event: text" not in (line := next(lines)):
            seen += [line.removeprefix("id: ")] if line.startswith("id: ") else []
    at.llm.wait_until_hanging()
    yield seen[0].rpartition(".")[0], seen


def test_a_stream_is_picked_up_behind_the_last_event_that_was_seen(at: Here, client: httpx2.Client) -> None:
    with hanging(at, client, "picked up") as (turn_id, seen):
        running = client.get(f"/turns/{turn_id}").json()
        assert running == {"turn_id": turn_id, "session_id": "picked up", "status": "running"}
        headers = {"Accept": "text/event-stream", "Last-Event-ID": seen[-1]}
        with client.stream("GET", f"/turns/{turn_id}", headers=headers) as response:
            at.llm.release()
            rest = events("".join(response.iter_text()))
    assert seen == [f"{turn_id}.1", f"{turn_id}.2"]
    assert [event_id for event_id, _, _ in rest] == [f"{turn_id}.{number}" for number in range(3, 7)]
    assert [name for _, name, _ in rest] == ["text", "text", "message", "done"]
    assert rest[-1][2]["response"] == "one two three"
    done = client.get(f"/turns/{turn_id}").json()
    assert (done["status"], done["response"]) == ("done", "one two three")
    whole = events(client.get(f"/turns/{turn_id}", headers={"Accept": "text/event-stream"}).text)
    assert [event_id for event_id, _, _ in whole] == [f"{turn_id}.{number}" for number in range(1, 7)]
    nothing_new = client.get(f"/turns/{turn_id}", headers=headers | {"Last-Event-ID": f"{turn_id}.6"}).text
    assert [name for _, name, _ in events(nothing_new)] in ([], ["done"])


@with_curl
def test_curl_picks_a_stream_up(at: Here, client: httpx2.Client) -> None:
    turn_id = client.post("", json={"query": "Hello", "session_id": "curl picks up"}).json()["turn_id"]
    sent = [
        "-H",
        f"Authorization: Bearer {TOKEN}",
        "-H",
        "Accept: text/event-stream",
        "-H",
        f"Last-Event-ID: {turn_id}.4",
    ]
    assert [name for _, name, _ in events(curl(f"{at.agent}/turns/{turn_id}", *sent).body)] == ["message", "done"]


def test_the_same_key_waits_for_the_turn_under_way_and_repeats_its_answer(at: Here, client: httpx2.Client) -> None:
    key = {"Idempotency-Key": "a key"}
    body = {"query": "hang twice", "session_id": "twice"}
    with hanging(at, client, "twice", **key) as (turn_id, seen):
        assert client.post("", json=body, headers=key | {"Idempotency-Key": "other"}).status_code == 409
        waiting: list[httpx2.Response] = []
        thread = threading.Thread(target=lambda: waiting.append(client.post("", json=body, headers=key)))
        thread.start()
        behind = client.build_request(
            "POST", "", json=body | {"stream": True}, headers=key | {"Last-Event-ID": seen[-1]}
        )
        response = client.send(behind, stream=True)
        at.llm.release()
        assert [name for _, name, _ in events("".join(response.iter_text()))] == ["text", "text", "message", "done"]
        response.close()
        thread.join()
    again = client.post("", json=body, headers=key)
    assert again.json() == waiting[0].json() == {"response": "one two three", "session_id": "twice", "turn_id": turn_id}
    assert again.headers["idempotency-replayed"] == "true"
    assert client.post("", json=body | {"query": "x"}, headers=key).status_code == 422
    assert client.get("/sessions/twice").json()["message_count"] == 2


def test_a_turn_that_is_deleted_stops(at: Here, client: httpx2.Client) -> None:
    with hanging(at, client, "deleted") as (turn_id, _):
        stopped = client.delete(f"/turns/{turn_id}")
    assert (stopped.status_code, stopped.json()["status"]) == (200, "interrupted")
    said = client.get("/sessions/deleted/messages").json()["messages"]
    assert [(one["role"], one.get("status")) for one in said] == [("user", None), ("assistant", "interrupted")]
    ended = events(client.get(f"/turns/{turn_id}", headers={"Accept": "text/event-stream"}).text)[-1]
    assert (ended[1], ended[2]["type"], ended[2]["status"]) == ("error", "Interrupted", 409)
    assert client.post("", json={"query": "again", "session_id": "deleted"}).status_code == 200


# Paths


@pytest.mark.parametrize("session_id", IDS)
def test_any_id_can_be_a_part_of_a_path(client: httpx2.Client, session_id: str) -> None:
    whose = {"X-User-Id": quote(session_id)}
    assert client.post("", json={"query": "Hello", "session_id": session_id}, headers=whose).status_code == 200
    at = f"/sessions/{segment(session_id)}"
    found = client.get(at, headers=whose).json()
    assert (found["session_id"], found["user_id"]) == (session_id, session_id)
    assert client.get(f"{at}/messages", headers=whose).json()["messages"][0]["content"] == "Hello"
    assert client.get(f"{at}/export?format=markdown", headers=whose).status_code == 200
    assert client.get(at).status_code == 404
    assert client.delete(at, headers=whose).json() == {"done": True}
    assert client.delete(at, headers=whose).status_code == 404


@with_curl
@pytest.mark.parametrize("session_id", ["..", "."])
def test_curl_asks_for_an_id_of_dots(at: Here, session_id: str) -> None:
    sent = ["--path-as-is", "-H", f"Authorization: Bearer {TOKEN}"]
    assert curl(at.agent, *sent, "--json", json.dumps({"query": "x", "session_id": session_id})).status == 200
    for path in (session_id, session_id.replace(".", "%2e")):
        assert curl(f"{at.agent}/sessions/{path}", *sent).json()["session_id"] == session_id


def test_a_slash_at_the_end_does_not_matter(client: httpx2.Client, at: Here) -> None:
    assert client.post("/", json={"query": "Hello"}).status_code == 200
    for path in ("/agent/health/", "/health/", "/sessions/", "/agent/sessions/", "/"):
        assert client.get(at.url + path).status_code == 200


def test_what_is_below_an_agent_is_at_the_root_too(client: httpx2.Client, at: Here) -> None:
    client.post("", json={"query": "Hello", "session_id": "everywhere"})
    assert client.get("/sessions/everywhere").json() == client.get(f"{at.url}/sessions/everywhere").json()


def test_a_head_is_a_get_without_a_body(client: httpx2.Client) -> None:
    for path in ("/health", "/sessions", "/sessions/none"):
        head, get = client.head(path), client.get(path)
        assert head.content == b""
        assert head.status_code == get.status_code
        assert head.headers["content-length"] == get.headers["content-length"]
    assert client.head("").status_code == 405


@with_curl
def test_curl_asks_for_the_head(at: Here) -> None:
    answer = curl("-I", f"{at.agent}/health")
    assert (answer.status, answer.body) == (200, "")


@with_curl
def test_one_connection_serves_many_requests(at: Here) -> None:
    command = ["curl", "-sS", "-v", "--noproxy", "*", *[f"{at.agent}/health"] * 3]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.count('"ok"') == 3
    assert done.stderr.lower().count("re-using existing") == 2


def test_health_says_what_a_client_may_rely_on(client: httpx2.Client, at: Here) -> None:
    expected = {
        "status": "ok",
        "endpoints": ["/agent"],
        "version": __version__,
        "features": ["idempotency", "resume", "sessions"],
    }
    for path in ("/health", "/agent/health", "/agent/health/live"):
        assert httpx2.get(at.url + path).json() == expected
    assert httpx2.get(at.url + "/health/ready").json()["status"] == "ready"


# Users


def test_a_trusted_caller_says_the_user_in_the_body_or_in_a_header(client: httpx2.Client) -> None:
    client.post("", json={"query": "one", "session_id": "u", "user_id": "Zoë"})
    client.post("", json={"query": "two", "session_id": "u"}, headers={"X-User-Id": "Zo%C3%AB"})
    client.post(
        "", json={"query": "three", "session_id": "u", "user_id": "default_user"}, headers={"X-User-Id": "Zo%C3%AB"}
    )
    assert client.get("/sessions/u", headers={"X-User-Id": "Zo%C3%AB"}).json()["message_count"] == 6
    for nobody in ("", "default_user"):
        assert client.get("/sessions/u", headers={"X-User-Id": nobody}).status_code == 404


# What goes wrong


REFUSED: dict[str, tuple[int, str, str, Json]] = {
    "no query": (400, "POST", "", {"json": {"session_id": "s"}}),
    "an empty query": (400, "POST", "", {"json": {"query": " "}}),
    "a query that is a number": (400, "POST", "", {"json": {"query": 7}}),
    "a list": (400, "POST", "", {"json": ["query"]}),
    "no JSON": (400, "POST", "", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    "no body": (400, "POST", "", {}),
    "a session id that is none": (400, "POST", "", {"json": {"query": "x", "session_id": "a\nb"}}),
    "a user id that is none": (400, "POST", "", {"json": {"query": "x", "user_id": "x" * 2000}}),
    "a header that is no user": (400, "GET", "/sessions", {"headers": {"X-User-Id": "%ff"}}),
    "a key that is too long": (400, "POST", "", {"json": {"query": "x"}, "headers": {"Idempotency-Key": "k" * 256}}),
    "half a character in a path": (400, "GET", "/sessions/%ff", {}),
    "a form without a query": (400, "POST", "", {"data": {"question": "x"}}),
    "a limit of nothing": (400, "GET", "/sessions?limit=0", {}),
    "no such session": (404, "GET", "/sessions/none", {}),
    "no such turn": (404, "GET", "/turns/run-none", {}),
    "no such path": (404, "GET", "/nothing", {}),
    "no such method": (405, "PUT", "/sessions/s", {}),
    "too large": (413, "POST", "", {"json": {"query": "x" * 100_001}}),
    "no JSON by its own account": (415, "POST", "", {"content": b"x", "headers": {"Content-Type": "text/plain"}}),
}


@pytest.mark.parametrize(("status", "method", "path", "more"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_told_in_one_form(
    client: httpx2.Client, status: int, method: str, path: str, more: Json
) -> None:
    refused = client.request(method, path, **more)
    assert refused.status_code == status
    assert {"error", "type"} <= refused.json().keys()
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["x-request-id"]


def test_details_are_those_of_the_wire_that_clients_know(client: httpx2.Client, at: Here) -> None:
    for wrong in ({"json": {}}, {"json": {"query": ""}}, {"data": {"q": "x"}}, {}):
        assert client.post("", **wrong).json()["detail"] == "Missing 'query' field in request"
    assert httpx2.post(at.agent, json={"query": "x"}).status_code == 401
    assert "detail" in httpx2.post(at.agent, json={"query": "x"}).json()
    assert client.get("/nothing").json()["detail"] == "Not Found"


def test_what_one_can_do_instead_is_told(client: httpx2.Client) -> None:
    assert client.put("/sessions/s").headers["allow"] == "DELETE, GET, PATCH"
    assert client.get("").headers["allow"] == "POST"


def test_a_requests_id_is_the_callers_or_a_new_one(client: httpx2.Client) -> None:
    assert client.get("/health", headers={"X-Request-Id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    made = {
        client.get("/health", headers={"X-Request-Id": odd}).headers["x-request-id"] for odd in ("", "a b", "x" * 65)
    }
    assert len(made) == 3
    assert not made & {"", "a b", "x" * 65}
