"""The sessions over HTTP: what each operation does, how it refuses, and that it is blind to what is not the caller's."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from wire import PATIENCE_S

from praisonaiagents import Agent
from praisonaiagents.model.message import Message
from praisonaiagents.serve import Server
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.testing.llm import Hang, Reply, Request, Say, ScriptedLLM

Json = dict[str, Any]
TOKENS = {"token-of-alice": "alice", "token-of-bob": "bob"}


class Here(NamedTuple):
    """A server, its model, and two of its users, who know nothing of each other."""

    server: Server
    llm: ScriptedLLM
    alice: httpx2.Client
    bob: httpx2.Client

    def seed(self, session_id: str, *said: str, user_id: str = "alice") -> None:
        """A session in which this was said, in turn by the user and the agent."""
        store, whose = self.server.service.store, {"user_id": user_id}
        roles = ["user", "assistant"] * len(said)
        store.append(session_id, [Message(role, text) for role, text in zip(roles, said, strict=False)], **whose)

    def said(self, session_id: str) -> list[str]:
        """What is in a session of Alice."""
        return [one["content"] for one in self.alice.get(f"/sessions/{session_id}/messages").json()["messages"]]


@pytest.fixture(scope="module", params=["sqlite", "file"])
def at(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    place = tmp_path_factory.mktemp("keeping")
    db = f"sqlite:///{place}/s.db" if request.param == "sqlite" else f"file://{place}"
    with (
        ScriptedLLM(reply) as llm,
        Agent("Assistant", llm="openai/gpt-test", base_url=llm.openai_url) as agent,
        agent.launch(path="/agent", port=0, block=False, db=db, per_minute=0, users=TOKENS) as server,
        client(server, "token-of-alice") as alice,
        client(server, "token-of-bob") as bob,
    ):
        yield Here(server, llm, alice, bob)


def reply(request: Request) -> Reply:
    return Hang("slow") if request.messages[-1]["content"] == "hang" else Say("yes")


def client(server: Server, token: str) -> httpx2.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S, trust_env=False)


def refused(response: httpx2.Response, status: int, kind: str) -> bool:
    return (response.status_code, response.json()["type"]) == (status, kind)


# Making, showing, changing, deleting


def test_a_session_is_made_shown_and_listed(at: Here) -> None:
    made = at.alice.post("/sessions", json={"session_id": "made", "title": "A trip"})
    assert made.status_code == 201
    info = made.json()
    assert (info["session_id"], info["user_id"], info["title"], info["message_count"]) == ("made", "alice", "A trip", 0)
    assert at.alice.get("/sessions/made").json() == info
    assert info in at.alice.get("/sessions").json()["sessions"]
    nameless = at.alice.post("/sessions").json()
    assert (len(nameless["session_id"]), nameless["title"]) == (36, None)


def test_a_session_that_is_there_is_not_made_again(at: Here) -> None:
    assert at.alice.post("/sessions", json={"session_id": "twice"}).status_code == 201
    assert refused(at.alice.post("/sessions", json={"session_id": "twice"}), 409, "SessionExists")
    assert at.bob.post("/sessions", json={"session_id": "twice"}).status_code == 201


@pytest.mark.parametrize(
    "body", [{"session_id": ""}, {"session_id": "a\nb"}, {"session_id": 7}, {"name": "x"}, {"title": "x" * 1001}, []]
)
def test_a_session_that_makes_no_sense_is_not_made(at: Here, body: Any) -> None:
    assert at.alice.post("/sessions", json=body).status_code == 400


def test_no_conversation_is_where_state_is_kept(at: Here) -> None:
    assert refused(at.alice.post("/sessions", json={"session_id": "praisonai:state"}), 400, "InvalidId")
    at.seed("no state", "hello")
    state = {"new_session_id": "praisonai:state"}
    assert refused(at.alice.post("/sessions/no%20state/fork", json=state), 400, "InvalidId")
    assert refused(at.alice.get("/sessions/praisonai%3Astate"), 400, "InvalidId")


def test_titles_and_labels_are_changed_and_what_is_left_out_stays(at: Here) -> None:
    at.seed("changed", "hello")
    all_of_it = {"title": "A trip", "tags": ["travel", "2026"], "pinned": True, "archived": True}
    changed = at.alice.patch("/sessions/changed", json=all_of_it).json()
    assert {name: changed[name] for name in all_of_it} == all_of_it
    changed = at.alice.patch("/sessions/changed", json={"pinned": False, "tags": []}).json()
    assert (changed["title"], changed["archived"]) == ("A trip", True)
    assert "pinned" not in changed
    assert "tags" not in changed
    assert at.alice.get("/sessions/changed").json() == changed
    for wrong in ({"tags": [" "]}, {"tags": ["x" * 61]}, {"tags": "x"}, {"pinned": "yes"}, {"colour": "red"}):
        assert at.alice.patch("/sessions/changed", json={"title": "half of it"} | wrong).status_code == 400
    assert at.alice.get("/sessions/changed").json() == changed
    assert refused(at.alice.patch("/sessions/none", json={"title": "x"}), 404, "SessionNotFound")


def test_a_session_is_deleted_once(at: Here) -> None:
    at.seed("gone", "hello")
    assert at.alice.delete("/sessions/gone").json() == {"done": True}
    assert refused(at.alice.delete("/sessions/gone"), 404, "SessionNotFound")
    assert refused(at.alice.get("/sessions/gone"), 404, "SessionNotFound")


def test_deleting_a_session_stops_the_turn_in_it(at: Here) -> None:
    answers: list[httpx2.Response] = []
    body = {"query": "hang", "session_id": "stopped"}
    asking = threading.Thread(target=lambda: answers.append(at.alice.post("/agent", json=body)))
    asking.start()
    at.llm.wait_until_hanging()
    assert refused(at.alice.post("/sessions/stopped/undo"), 409, "SessionBusy")
    assert refused(at.alice.post("/sessions/stopped/revert", json={"to": "message:0"}), 409, "SessionBusy")
    assert at.alice.delete("/sessions/stopped").json() == {"done": True}
    asking.join()
    at.llm.release()
    assert refused(answers[0], 409, "Interrupted")
    assert at.alice.get("/sessions/stopped").status_code == 404
    assert at.alice.post("/agent", json=body | {"query": "again"}).json()["response"] == "yes"
    assert at.said("stopped") == ["again", "yes"]


def test_of_a_session_that_is_deleted_no_answer_is_repeated(at: Here) -> None:
    body, key = {"query": "hello", "session_id": "forgotten"}, {"Idempotency-Key": "once"}
    turn_id = at.alice.post("/agent", json=body, headers=key).json()["turn_id"]
    assert at.alice.get(f"/turns/{turn_id}").json()["response"] == "yes"
    assert at.alice.delete("/sessions/forgotten").json() == {"done": True}
    assert refused(at.alice.get(f"/turns/{turn_id}"), 404, "TurnNotFound")
    again = at.alice.post("/agent", json=body, headers=key)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (200, False)
    assert at.said("forgotten") == ["hello", "yes"]


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("delete_session", lambda client, url: client.delete(url)),
        ("revert", lambda client, url: client.post(f"{url}/revert", json={"to": "message:1"})),
        ("undo", lambda client, url: client.post(f"{url}/undo")),
    ],
    ids=["delete", "revert", "undo"],
)
def test_no_turn_begins_in_a_session_that_is_being_changed(
    at: Here, monkeypatch: pytest.MonkeyPatch, name: str, ask: Callable[[httpx2.Client, str], httpx2.Response]
) -> None:
    session_id = f"being changed by {name}"
    at.seed(session_id, "one", "two")
    change, meanwhile = getattr(HierarchicalSessionStore, name), []

    def changed(*arguments: Any, **more: Any) -> Any:
        meanwhile.append(at.alice.post("/agent", json={"query": "three", "session_id": session_id}))
        return change(*arguments, **more)

    monkeypatch.setattr(HierarchicalSessionStore, name, changed)
    assert ask(at.alice, f"/sessions/{session_id}").status_code == 200
    assert [refused(answer, 409, "SessionBusy") for answer in meanwhile] == [True]
    assert meanwhile[0].headers["retry-after"] == "1"
    assert at.alice.post("/agent", json={"query": "three", "session_id": session_id}).status_code == 200


# Pages


def test_pages_of_sessions_hold_each_once_while_others_are_written(at: Here) -> None:
    for number in range(20):
        at.seed(f"page {number}", "hello", user_id="bob")
    met: list[str] = []
    after: Json = {}
    for new in range(100):
        page = at.bob.get("/sessions", params={"limit": 3, **after}).json()
        met += [session["session_id"] for session in page["sessions"]]
        at.seed(f"written meanwhile {new}", "hello", user_id="bob")
        if page["next"] is None:
            break
        assert len(page["sessions"]) == 3
        after = {"after": page["next"]}
    assert [name for name in met if name.startswith("page ")] == [f"page {number}" for number in reversed(range(20))]
    assert len(met) == len(set(met))


def test_pages_of_messages_hold_each_once_while_others_are_written(at: Here) -> None:
    at.seed("long", *map(str, range(23)))
    met: list[Json] = []
    page = at.alice.get("/sessions/long/messages", params={"limit": 5}).json()
    while True:
        met = page["messages"] + met
        at.seed("long", "meanwhile")
        if page["before"] is None:
            break
        page = at.alice.get("/sessions/long/messages", params={"limit": 5, "before": page["before"]}).json()
    assert [message["content"] for message in met] == [str(number) for number in range(23)]
    assert [message["number"] for message in met] == list(range(23))
    assert {"id", "role", "content", "timestamp", "number"} <= met[0].keys()


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "limit=-1", "before=-1", "before=x"])
def test_a_page_that_makes_no_sense_is_refused(at: Here, query: str) -> None:
    at.seed("pages", "hello")
    assert refused(at.alice.get(f"/sessions/pages/messages?{query}"), 400, "BadRequest")


@pytest.mark.parametrize("after", ["", "x", "9" * 40, "-1", "1:../../x", "\u0663"])
def test_a_cursor_that_nobody_gave_out_is_refused_or_shows_nothing_of_others(at: Here, after: str) -> None:
    at.seed("not for Bob", "hello")
    page = at.bob.get("/sessions", params={"after": after})
    assert page.status_code in (200, 400)
    assert "not for Bob" not in page.text


# Forks, snapshots, going back


def test_a_fork_has_the_history_of_a_session(at: Here) -> None:
    at.seed("trunk", "one", "two", "three", "four")
    whole = at.alice.post("/sessions/trunk/fork", json={"new_session_id": "whole", "title": "All of it"})
    assert whole.status_code == 201
    assert (whole.json()["title"], whole.json()["parent_id"], whole.json()["message_count"]) == (
        "All of it",
        "trunk",
        4,
    )
    part = at.alice.post("/sessions/trunk/fork", json={"message": 1}).json()
    at.alice.post("/agent", json={"query": "five", "session_id": part["session_id"]})
    assert at.said(part["session_id"]) == ["one", "two", "five", "yes"]
    assert at.said("trunk") == at.said("whole") == ["one", "two", "three", "four"]


def test_a_fork_that_cannot_be_is_refused(at: Here) -> None:
    at.seed("no fork", "one")
    url = "/sessions/no%20fork/fork"
    assert refused(at.alice.post("/sessions/none/fork"), 404, "SessionNotFound")
    assert refused(at.alice.post(url, json={"at": "nowhere"}), 404, "PointNotFound")
    assert refused(at.alice.post(url, json={"new_session_id": "no fork"}), 409, "SessionExists")
    for wrong in ({"message": 1}, {"message": 0, "at": "x"}, {"message": -1}, {"new_session_id": ""}):
        assert at.alice.post(url, json=wrong).status_code == 400


def test_a_snapshot_is_a_point_to_go_back_to_and_going_back_is_undone(at: Here) -> None:
    at.seed("back", "one", "two")
    made = at.alice.post("/sessions/back/snapshots", json={"label": "early"})
    assert (made.status_code, made.json()["label"], made.json()["message_count"]) == (201, "early", 2)
    at.alice.post("/agent", json={"query": "three", "session_id": "back"})
    assert at.alice.get("/sessions/back/snapshots").json() == {"snapshots": [made.json()]}
    forked = at.alice.post("/sessions/back/fork", json={"at": "early"}).json()
    assert forked["message_count"] == 2
    for to in ("early", made.json()["snapshot_id"], "message:1"):
        assert at.alice.post("/sessions/back/revert", json={"to": to}).json()["message_count"] == 2
        assert at.alice.post("/sessions/back/undo").json() == {"done": True}
        assert at.said("back") == ["one", "two", "three", "yes"]
    at.alice.post("/sessions/back/revert", json={"to": "early"})
    at.alice.post("/agent", json={"query": "another three", "session_id": "back"})
    assert at.said("back") == ["one", "two", "another three", "yes"]
    assert [one["content"] for one in at.llm.requests[-1].messages[1:]] == ["one", "two", "another three"]


def test_a_snapshot_is_deleted_once(at: Here) -> None:
    at.seed("snapshots", "one")
    made = at.alice.post("/sessions/snapshots/snapshots").json()
    url = f"/sessions/snapshots/snapshots/{made['snapshot_id']}"
    assert at.alice.delete(url).json() == {"done": True}
    assert refused(at.alice.delete(url), 404, "PointNotFound")
    assert at.alice.get("/sessions/snapshots/snapshots").json() == {"snapshots": []}


def test_a_point_that_is_not_there_is_not_gone_back_to(at: Here) -> None:
    at.seed("no point", "one")
    for to in ("nowhere", "message:7", "message:" + "9" * 900, "head:1"):
        assert refused(at.alice.post("/sessions/no%20point/revert", json={"to": to}), 404, "PointNotFound")
    for wrong in ({}, {"to": ""}, {"to": "x" * 1001}, {"to": 7}):
        assert refused(at.alice.post("/sessions/no%20point/revert", json=wrong), 400, "BadRequest")
    assert at.alice.post("/sessions/no%20point/undo").json() == {"done": False}


# Export, import, search


@pytest.mark.parametrize(
    ("form", "media", "ending"),
    [
        ("json", "application/json", "json"),
        ("jsonl", "application/x-ndjson", "jsonl"),
        ("markdown", "text/markdown; charset=utf-8", "md"),
        ("html", "text/html; charset=utf-8", "html"),
    ],
)
def test_a_session_is_exported_in_each_form(at: Here, form: str, media: str, ending: str) -> None:
    at.seed('odd "name"; ü', "the question", "the answer")
    exported = at.alice.get("/sessions/odd%20%22name%22%3B%20%C3%BC/export", params={"format": form})
    assert (exported.status_code, exported.headers["content-type"]) == (200, media)
    name = exported.headers["content-disposition"].removeprefix('attachment; filename="')
    assert name.endswith(f'.{ending}"')
    assert not set(name[:-1]) & set('"; ü\\/')
    assert "the question" in exported.text
    assert "the answer" in exported.text


def test_an_export_that_cannot_be_is_refused(at: Here) -> None:
    assert refused(at.alice.get("/sessions/none/export"), 404, "SessionNotFound")
    assert refused(at.alice.get("/sessions/none/export?format=pdf"), 400, "BadRequest")


@pytest.mark.parametrize(("form", "media"), [("json", "application/json"), ("jsonl", "application/x-ndjson")])
def test_an_export_becomes_a_session_of_whoever_imports_it(at: Here, form: str, media: str) -> None:
    session_id = f"from alice {form}"
    at.seed(session_id, "one", "two")
    at.alice.patch(f"/sessions/{session_id}", json={"title": "A trip"})
    exported = at.alice.get(f"/sessions/{session_id}/export?format={form}").content
    made = at.bob.post("/sessions/import", content=exported, headers={"Content-Type": media})
    assert made.status_code == 201
    info = made.json()
    assert (info["session_id"], info["user_id"], info["title"], info["message_count"]) == (
        session_id,
        "bob",
        "A trip",
        2,
    )
    assert refused(at.bob.post("/sessions/import", content=exported), 409, "SessionExists")
    assert refused(at.alice.post("/sessions/import", content=exported), 409, "SessionExists")
    messages = [client.get(f"/sessions/{session_id}/messages").json() for client in (at.alice, at.bob)]
    assert messages[0] == messages[1]
    at.alice.delete(f"/sessions/{session_id}")
    assert at.alice.post("/sessions/import", content=exported).status_code == 201
    assert at.bob.post("/agent", json={"query": "three", "session_id": session_id}).json()["response"] == "yes"


def test_what_is_no_export_is_not_imported(at: Here) -> None:
    at.seed("exported", "one")
    whole = at.alice.get("/sessions/exported/export?format=json").content
    lines = at.alice.get("/sessions/exported/export?format=jsonl").content.splitlines(keepends=True)
    at.alice.delete("/sessions/exported")
    changed = [json.loads(whole) | change for change in CHANGES]
    wrong = [
        b"",
        b"{}",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 100_000,
        whole[:-20],
        lines[0],
        lines[0] + b"x\n",
        b'{"messages": []}',
    ]
    before = at.alice.get("/sessions").json()
    for body in [*wrong, *(json.dumps(one).encode() for one in changed)]:
        assert at.alice.post("/sessions/import", content=body).status_code == 400, body[:200]
    assert at.alice.get("/sessions").json() == before


CHANGES: list[Json] = [
    {"format": "other"},
    {"version": 999},
    {"session_id": "praisonai:state"},
    {"session_id": "a\nb"},
    {"session_id": 7},
    {"messages": "none"},
    {"messages": [{"role": "hacker", "content": "x"}]},
]


def test_a_search_finds_what_is_the_users_own(at: Here) -> None:
    at.seed("found", "a pizza with pineapple", "no pizza")
    at.seed("found", "a pizza with olives", user_id="bob")
    hits = at.alice.get("/search", params={"q": "pizza"}).json()
    assert {(hit["session_id"], hit["user_id"]) for hit in hits["hits"]} == {("found", "alice")}
    assert (len(hits["hits"]), hits["complete"]) == (2, True)
    assert len(at.alice.get("/search", params={"q": "pizza", "limit": 1}).json()["hits"]) == 1
    assert at.alice.get("/search", params={"q": "olives"}).json()["hits"] == []
    for wrong in ({}, {"q": ""}, {"q": "x", "limit": 0}, {"q": "x" * 1001}):
        assert refused(at.alice.get("/search", params=wrong), 400, "BadRequest")


# What is not the caller's


def asked(session: str, snapshot: str, turn: str) -> list[tuple[str, str, Json]]:
    """Everything that one can ask of a session and a turn, and does not make one."""
    url = f"/sessions/{session}"
    return [
        ("GET", url, {}),
        ("PATCH", url, {"json": {"title": "mine"}}),
        ("GET", f"{url}/messages", {}),
        ("GET", f"{url}/export", {}),
        ("POST", f"{url}/fork", {}),
        ("POST", f"{url}/fork", {"json": {"at": snapshot}}),
        ("GET", f"{url}/snapshots", {}),
        ("POST", f"{url}/snapshots", {}),
        ("DELETE", f"{url}/snapshots/{snapshot}", {}),
        ("POST", f"{url}/revert", {"json": {"to": snapshot}}),
        ("POST", f"{url}/undo", {}),
        ("DELETE", url, {}),
        ("GET", f"/turns/{turn}", {}),
        ("GET", f"/turns/{turn}", {"headers": {"Accept": "text/event-stream"}}),
        ("DELETE", f"/turns/{turn}", {}),
    ]


def test_what_is_somebody_elses_and_what_never_was_are_answered_by_the_same_bytes(at: Here) -> None:
    turn = at.alice.post("/agent", json={"query": "hello", "session_id": "private"}).json()["turn_id"]
    snapshot = at.alice.post("/sessions/private/snapshots").json()["snapshot_id"]
    before = at.alice.get("/sessions/private/messages").json(), at.alice.get("/sessions/private").json()
    theirs = asked("private", snapshot, turn)
    nobodys = asked("missing", "00000000-0000-0000-0000-000000000000", "run-0000000000000000")
    for (method, path, more), (_, other, _) in zip(theirs, nobodys, strict=True):
        answers = [at.bob.request(method, each, **more) for each in (path, other)]
        assert answers[0].status_code == 404, (method, path)
        assert seen(answers[0]) == seen(answers[1]), (method, path)
    assert before == (at.alice.get("/sessions/private/messages").json(), at.alice.get("/sessions/private").json())
    assert at.alice.get(f"/turns/{turn}").json()["status"] == "done"


def seen(response: httpx2.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that one can tell two answers by."""
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}
    return response.status_code, response.content, headers


def test_the_user_that_nobody_named_has_sessions_of_their_own_too(tmp_path: Path) -> None:
    with (
        Agent("A", llm="offline") as agent,
        agent.launch(port=0, block=False, db=f"sqlite:///{tmp_path}/s.db") as server,
    ):
        server.service.store.append("s", [Message("user", "hello")], user_id="alice")
        for method, path, more in asked("s", "x", "x"):
            assert httpx2.request(method, server.url + path, **more).status_code == 404
        assert httpx2.get(server.url + "/sessions").json() == {"sessions": [], "next": None}
        assert httpx2.get(server.url + "/search?q=hello").json()["hits"] == []
        assert httpx2.get(server.url + "/sessions/s", headers={"X-User-Id": "alice"}).json()["message_count"] == 1


def test_two_agents_of_one_server_share_the_sessions_and_keep_their_parts_apart(tmp_path: Path) -> None:
    db = f"sqlite:///{tmp_path}/s.db"
    with (
        ScriptedLLM([Say("sold"), Say("helped"), Say("sold again"), Say("sold once"), Say("helped once")]) as llm,
        Agent("Sales", llm="openai/gpt-test", base_url=llm.openai_url) as sales,
        Agent("Help", llm="openai/gpt-test", base_url=llm.openai_url) as help_desk,
        sales.launch(path="/sales", port=0, block=False, db=db) as server,
        httpx2.Client(base_url=server.url) as client,
    ):
        help_desk.launch(path="/help", port=server.port, block=False)
        assert client.get("/").json()["endpoints"] == ["/help", "/sales"]
        for path, query in (("/sales", "buy"), ("/help", "broken"), ("/sales", "more")):
            assert client.post(path, json={"query": query, "session_id": "s"}).status_code == 200
        told = [[one["content"] for one in request.messages[1:]] for request in llm.requests]
        assert told == [["buy"], ["broken"], ["buy", "sold", "more"]]
        pages = [client.get(f"{path}/sessions/s/messages").json() for path in ("", "/sales", "/help")]
        assert pages[0] == pages[1] == pages[2]
        assert [one["agent"] for one in pages[0]["messages"]] == ["Sales"] * 2 + ["Help"] * 2 + ["Sales"] * 2
        once = {"query": "and more", "session_id": "s"}
        answers = [
            client.post(path, json=once, headers={"Idempotency-Key": "k"}).json() for path in ("/sales", "/help")
        ]
        assert [answer["response"] for answer in answers] == ["sold once", "helped once"]
        nobody = client.post("/", json={"query": "x"})
        assert nobody.status_code == 405
