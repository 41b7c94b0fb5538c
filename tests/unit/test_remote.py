"""A session on another machine: what is sent, what comes back, and what happens when the network or the server fails.

The servers are real ones on loopback, made to fail on purpose. Nothing is mocked, and no test says how long something may take.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import socket
import threading
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest
from servers.flaky_agent import ALL, Asked, FlakyAgent, Plan, drop, end, reset, told

from praisonaiagents import Session
from praisonaiagents.agent import background, connection
from praisonaiagents.errors import (
    ConfigError,
    ConfigTypeError,
    InvalidMessage,
    RemoteError,
    RemoteRefused,
    RemoteTimeout,
    RemoteUnsupported,
)

Query = Callable[[Session, str], str]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting before the next attempt is no part of most tests."""
    monkeypatch.setattr(connection, "_BACKOFF_S", 0.01)


def chat(session: Session, message: str, **more: Any) -> str:
    return session.chat(message, **more)


def stream(session: Session, message: str, **more: Any) -> str:
    return "".join(session.stream(message, **more))


def achat(session: Session, message: str, **more: Any) -> str:
    async def main() -> str:
        async with session:
            return await session.achat(message, **more)

    return asyncio.run(main())


def astream(session: Session, message: str, **more: Any) -> str:
    async def main() -> str:
        async with session:
            return "".join([piece async for piece in session.astream(message, **more)])

    return asyncio.run(main())


def history(session: Session, message: str) -> str:
    return str(session.history())


every_way = pytest.mark.parametrize("ask", [chat, stream, achat, astream])
sync_ways = pytest.mark.parametrize("ask", [chat, stream])


def refuse(status: int, **headers: str) -> Plan:
    return lambda asked: asked.answer({"error": "not now", "type": "Some"}, status, **headers)


# --- what is sent ---


@every_way
def test_a_turn_says_whose_session_it_is(ask: Any) -> None:
    with FlakyAgent() as agent, Session("s/1", "älice", agent.url, headers={"X-Team": "red"}, token="t0k") as session:
        assert ask(session, "Grüße", temperature=0.5) == "You said: Grüße"
        (asked,) = agent.asked
    assert asked.path == "/agent"
    assert asked.body == {"query": "Grüße", "session_id": "s/1", "user_id": "älice", "temperature": 0.5}
    assert asked.headers["authorization"] == "Bearer t0k"
    assert asked.headers["x-team"] == "red"
    assert asked.headers["x-user-id"] == "%C3%A4lice"
    assert len(asked.key) == 32


def test_the_default_user_is_not_named_in_a_header() -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        session.send_message("Hello")
        assert "x-user-id" not in agent.asked[0].headers
        assert "authorization" not in agent.asked[0].headers


def test_each_turn_has_a_key_of_its_own_unless_one_is_given() -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        session.chat("Hello")
        session.chat("Hello")
        session.chat("Hello", idempotency_key="mine")
        assert stream(session, "Hello", idempotency_key="mine") == "You said: Hello"
        keys = [asked.key for asked in agent.asked]
        assert agent.asked[2].raw == agent.asked[3].raw  # one key belongs to one body
    assert len(set(keys[:2])) == 2
    assert keys[2:] == ["mine", "mine"]


@pytest.mark.parametrize("path", ["/agent", "", "/"])
def test_an_address_needs_no_scheme(path: str) -> None:
    with FlakyAgent() as agent, Session("s", agent_url=f"127.0.0.1:{agent.port}{path}") as session:
        assert session.chat("Hello") == "You said: Hello"
        assert session.agent_url == f"http://127.0.0.1:{agent.port}{path}"
        assert agent.asked[0].path == (path or "/")


def test_a_login_in_the_address_is_sent_and_never_shown() -> None:
    with FlakyAgent() as agent:
        agent.plans = [refuse(500)]
        with Session("s", agent_url=f"http://ann:p%40ss@127.0.0.1:{agent.port}/agent") as session:
            assert session.agent_url == agent.url
            assert repr(session) == str(session) == f"Session(id='s', user='default_user', remote_agent='{agent.url}')"
            with pytest.raises(RemoteError) as failed:
                session.chat("Hello")
        assert agent.asked[0].headers["authorization"] == "Basic YW5uOnBAc3M="
    shown = "".join(traceback.format_exception(failed.value))
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


@pytest.mark.parametrize("status", [401, 307])
def test_a_server_that_repeats_secrets_does_not_bring_them_into_errors(status: int) -> None:
    place = "http://me:other-pa55@127.0.0.1:1/t0k3n/k3y-of-ann?key=k3y-of-ann"
    plan: Plan = lambda asked: asked.answer({"error": "who is k3y-of-ann, t0k3n"}, status, Location=place)  # noqa: E731
    headers = {"X-Api-Key": "k3y-of-ann", "Authorization": "Bearer t0k3n"}
    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url, headers=headers) as session:
        with pytest.raises(RemoteRefused) as failed:
            session.chat("Hello")
        shown = "".join(traceback.format_exception(failed.value))
        assert not [secret for secret in ("k3y-of-ann", "t0k3n", "pa55") if secret in shown]


def test_a_short_name_in_the_address_makes_no_riddle_of_errors() -> None:
    plan: Plan = lambda asked: asked.answer({"error": "somebody said pa55"}, 401)  # noqa: E731
    with (
        FlakyAgent(plan) as agent,
        Session("s", agent_url=agent.url.replace("//", "//me:pa55@")) as session,
        pytest.raises(RemoteRefused, match=r"somebody said \*\*\*"),
    ):
        session.chat("Hello")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a?b#c", "a%2Fb", "ü", "a.b"])
def test_no_session_id_changes_the_path(name: str) -> None:
    plan: Plan = lambda asked: asked.answer({"messages": [], "before": None})  # noqa: E731
    with FlakyAgent(plan) as agent, Session(name, agent_url=agent.url) as session:
        assert session.history() == []
        (asked,) = agent.asked
    parts = asked.path.split("/")
    assert (parts[:3], parts[4:]) == (["", "agent", "sessions"], ["messages"])
    assert not set(parts[3]) & set("./?#ü")


# --- what comes back ---


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"response": "Hi", "more": 1}', "Hi"),
        (b'{"response": ""}', ""),
        (b'{"response": 7}', "7"),
        (b'{"answer": "Hi"}', "{'answer': 'Hi'}"),
        (b'["a", 1]', "['a', 1]"),
        (b'"text"', "text"),
        (b"plain text", "plain text"),
        (b"", ""),
        (b"null", "null"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
@sync_ways
def test_any_good_answer_is_a_text(ask: Any, body: bytes, answer: str) -> None:
    with FlakyAgent(lambda asked: asked.answer(body)) as agent, Session("s", agent_url=agent.url) as session:
        assert ask(session, "Hello") == answer


def test_an_answer_that_comes_in_events_comes_in_pieces() -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Hello")) == ["You ", "said: ", "Hello"]


def test_a_model_that_does_not_stream_answers_in_one_piece() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t", *told("t", response="All at once"))

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Hello")) == ["All at once"]


def test_events_of_other_kinds_and_of_a_later_version_are_passed_over() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.piece(b": ping\n\ndata: nothing\n\nevent: text\ndata: [1]\n\n")
        first, *rest = told("t", "Hi")
        asked.events("t", first, ("message", {"role": "tool", "content": "x"}), ("weather", {"text": "rain"}), *rest)

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Hello")) == ["Hi"]


@pytest.mark.parametrize("charset", ["hex", "iso-8859-1", "utf-16"])
def test_events_are_utf_8_whatever_is_said(charset: str) -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events(f"text/event-stream; charset={charset}")
        asked.piece('event: done\ndata: {"response": "Grüße"}\n\n'.encode())

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Hello")) == ["Grüße"]


@pytest.mark.parametrize("turn", ["", "ü", "a b", "x" * 5000, None, 7, ["t"]])
def test_a_turn_that_nobody_could_ask_for_is_an_error(turn: Any) -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.event("t", 1, "turn", turn_id=turn)

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError, match="which turn") as failed:
            list(session.stream("Hello"))
        assert failed.value.idempotency_key == agent.asked[0].key


def test_an_event_with_an_endless_number_is_one_without() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.piece(b'id: t.%b\nevent: text\ndata: {"text": "Hi"}\n\n' % (b"9" * 5000))
        asked.events("t", *told("t", "Hi")[2:])

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Hello")) == ["Hi"]


def test_history_and_sessions_are_read_page_after_page() -> None:
    def messages(asked: Asked) -> None:
        before, limit = int(asked.query.get("before", 250)), int(asked.query["limit"])
        start = max(0, before - limit)
        rows = [{"number": number, "role": "user", "content": f"m{number}"} for number in range(start, before)]
        asked.answer({"messages": rows, "before": start or None})

    def sessions(asked: Asked) -> None:
        after, limit = int(asked.query.get("after", 0)), int(asked.query["limit"])
        rows = [{"session_id": f"s{number}"} for number in range(after, min(250, after + limit))]
        asked.answer({"sessions": rows, "next": str(after + limit) if after + limit < 250 else None})

    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        agent.plans = [messages] * 100
        assert [row["number"] for row in session.history()] == list(range(250))
        assert [row["number"] for row in session.history(3)] == [247, 248, 249]
        assert [row["number"] for row in session.history(130)] == list(range(120, 250))
        assert session.history(0) == []
        agent.plans = [sessions] * 100
        assert len(session.sessions()) == 50
        assert [row["session_id"] for row in session.sessions(None)] == [f"s{number}" for number in range(250)]
        agent.plans = [lambda asked: asked.answer({"session_id": "s", "message_count": 2}), refuse(404), refuse(404)]
        assert session.info() == {"session_id": "s", "message_count": 2}
        assert session.info() is None
        assert session.history() == []


@pytest.mark.parametrize("body", [b"nonsense", b"[]", b'{"messages": 1}', b'{"messages": ["a"]}', b"{}"])
def test_a_page_that_is_none_is_an_error(body: bytes) -> None:
    with (
        FlakyAgent(lambda asked: asked.answer(body)) as agent,
        Session("s", agent_url=agent.url) as session,
        pytest.raises(RemoteError, match="messages"),
    ):
        session.history()


def test_a_page_that_leads_to_itself_ends_it() -> None:
    plan: Plan = lambda asked: asked.answer({"messages": [{"number": 1}], "before": 7})  # noqa: E731
    with FlakyAgent(plan, plan) as agent, Session("s", agent_url=agent.url) as session:
        assert len(session.history()) == 2


def test_pages_without_rows_or_without_a_place_to_go_on_end_it() -> None:
    empty: list[Plan] = [
        lambda asked, at=at: asked.answer({"sessions": [], "next": f"n{at}"})  # type: ignore[misc]
        for at in range(5)
    ]
    with FlakyAgent(*empty) as agent, Session("s", agent_url=agent.url) as session:
        assert session.sessions(None) == []
        assert len(agent.asked) == 1
        agent.plans = [lambda asked: asked.answer({"sessions": [{"session_id": "s"}], "next": "x" * 70_000})]
        with pytest.raises(RemoteError, match="where more sessions are"):
            session.sessions(None)


def test_a_server_without_sessions_says_so() -> None:
    with FlakyAgent(features=None) as agent, Session("s", agent_url=agent.url) as session:
        for look in (session.history, session.sessions, session.info):
            with pytest.raises(RemoteUnsupported, match="does not show its sessions"):
                look()
        assert agent.asked == []


# --- is anybody there? ---


def test_the_constructor_says_nothing_and_asks_for_health_only(capsys: pytest.CaptureFixture[str]) -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        assert session.is_remote
        assert agent.asked == []
    assert capsys.readouterr() == ("", "")


def test_an_agent_without_health_is_there_if_its_address_is_known() -> None:
    with FlakyAgent() as agent:
        agent.health = refuse(404)
        for status in (200, 405):
            agent.plans = [lambda asked, status=status: asked.answer(b"", status)]  # type: ignore[misc]
            with Session("s", agent_url=agent.url) as session:
                assert session.chat("Hello") == "You said: Hello"
        assert [asked.method for asked in agent.asked] == ["HEAD", "POST"] * 2
        agent.plans = [lambda asked: asked.answer(b"", 404)]
        with pytest.raises(RemoteRefused, match="health") as failed:
            Session("s", agent_url=agent.url)
        assert failed.value.status == 404


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_an_agent_that_is_not_ready_is_not_taken_for_one_without_health(status: int) -> None:
    with FlakyAgent() as agent:
        agent.health = refuse(status)
        with pytest.raises(RemoteRefused, match=f"HTTP {status}: not now") as failed:
            Session("s", agent_url=agent.url)
        assert failed.value.status == status
        assert agent.asked == []


@pytest.mark.parametrize("body", [b"OK", b"", b"[]", b'{"features": 7}', b'{"features": [7, null]}', b"\xff"])
def test_health_in_any_words_will_do(body: bytes) -> None:
    with FlakyAgent(reset) as agent:
        agent.health = lambda asked: asked.answer(body)
        with Session("s", agent_url=agent.url) as session, pytest.raises(RemoteError):
            session.chat("Hello")
        assert len(agent.asked) == 1  # nothing was promised


def nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}/agent"


def test_where_nobody_listens_the_error_says_what_to_try() -> None:
    url = nobody()
    with pytest.raises(RemoteError, match="Failed to connect") as failed:
        Session("s", agent_url=url)
    assert isinstance(failed.value, ConnectionError)
    assert not isinstance(failed.value, TimeoutError)
    assert (failed.value.url, failed.value.status, failed.value.idempotency_key) == (url, None, None)
    assert failed.value.__cause__ is not None
    assert url in str(failed.value)
    assert "firewall" in str(failed.value)
    assert str(pickle.loads(pickle.dumps(failed.value))) == str(failed.value)


def test_a_host_that_is_no_host_is_a_connection_error() -> None:
    with pytest.raises(RemoteError, match="Failed to connect"):
        Session("s", agent_url="http://no-such-host.invalid/agent")


def test_who_is_there_and_silent_is_given_up_on() -> None:
    said = r"Timeout connecting.*0\.2 s.*timeout="
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(RemoteTimeout, match=said) as failed:
        Session("s", agent_url=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
    assert isinstance(failed.value, TimeoutError)
    assert isinstance(failed.value, ConnectionError)
    assert isinstance(failed.value.__cause__, TimeoutError)


def test_https_where_http_is_spoken_is_an_error() -> None:
    with FlakyAgent() as agent, pytest.raises(RemoteError, match=r"Failed to connect|Error connecting"):
        Session("s", agent_url=agent.url.replace("http:", "https:"))


# --- settings ---


@pytest.mark.parametrize(
    "settings",
    [
        {"agent_url": ""},
        {"agent_url": "ftp://host/agent"},
        {"agent_url": "http://"},
        {"agent_url": "http://h/a\r\nX: y"},
        {"agent_url": "http://h/a b"},
        {"agent_url": "http://h:x/a"},
        {"agent_url": "http://user:secret#x@h/a"},
        {"agent_url": "http://h/a?key=secret"},
        {"agent_url": "http://h/a#part"},
        {"token": "a\r\nX: y"},
        {"token": ""},
        {"token": "ü"},
        {"token": "a b"},
        {"headers": {"X-A": "b\r\nX-B: c"}},
        {"headers": {"X-A": "b\0"}},
        {"headers": {"X A": "b"}},
        {"headers": {"": "b"}},
        {"headers": {"X-A:": "b"}},
        {"headers": {"X-A": " b"}},
        {"headers": {"X-A": "ü"}},
        {"headers": {"Idempotency-Key": "b"}},
        {"headers": {"content-length": "7"}},
        {"headers": {"authorization": "x"}, "token": "t"},
        {"agent_url": "http://me:secret@h/a", "token": "t"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"db": "sqlite:///x.db"},
        {"memory_config": {"provider": "file"}},
        {"knowledge_config": {}},
    ],
    ids=repr,
)
def test_settings_that_cannot_be_sent_are_refused_without_showing_them(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        Session("s", **{"agent_url": nobody(), **settings})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"agent_url": 7},
        {"agent_url": b"http://h"},
        {"token": b"t"},
        {"headers": [("X-A", "b")]},
        {"headers": {"X-A": 7}},
        {"headers": {7: "b"}},
        {"timeout": "30"},
        {"timeout": True},
    ],
    ids=repr,
)
def test_settings_of_a_wrong_type_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigTypeError):
        Session("s", **{"agent_url": nobody(), **settings})


def test_a_token_without_an_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="agent_url"):
        Session("s", token="t")
    with pytest.raises(ConfigError, match="agent_url"):
        Session("s", headers={})


@sync_ways
def test_what_cannot_be_said_is_refused_before_it_is_sent(ask: Any) -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        for message, more, error in [
            ("", {}, ConfigError),
            (" \n", {}, ConfigError),
            (7, {}, ConfigTypeError),
            (None, {}, ConfigTypeError),
            ("half \ud83d", {}, InvalidMessage),
            ("Hi", {"user_id": "other"}, ConfigError),
            ("Hi", {"stream": True}, ConfigError),
            ("Hi", {"temperature": float("nan")}, ConfigError),
            ("Hi", {"tools": [print]}, ConfigTypeError),
            ("Hi", {"idempotency_key": "a\nb"}, ConfigError),
            ("Hi", {"idempotency_key": ""}, ConfigError),
            ("Hi", {"idempotency_key": "x" * 256}, ConfigError),
            ("Hi", {"idempotency_key": 7}, ConfigTypeError),
        ]:
            with pytest.raises(error):
                ask(session, message, **more)
        for limit in (-1, "3", True):
            with pytest.raises(ConfigError):
                session.history(limit)  # type: ignore[arg-type]
        assert agent.asked == []


# --- local and remote are two things ---


def test_a_local_session_has_nobody_to_chat_with() -> None:
    async def main(session: Session) -> None:
        for call in (
            session.achat("Hi"),
            session.asend_message("Hi"),
            session.ahistory(),
            session.asessions(),
            session.ainfo(),
        ):
            with pytest.raises(ConfigError, match="only for remote agent sessions"):
                await call
        with pytest.raises(ConfigError, match="only for remote agent sessions"):
            session.astream("Hi")

    with Session("s") as session:
        assert (session.is_remote, session.agent_url) == (False, None)
        for name in ("chat", "send_message", "stream"):
            with pytest.raises(ValueError, match="only for remote agent sessions"):
                getattr(session, name)("Hi")
        for name in ("history", "sessions", "info"):
            with pytest.raises(ValueError, match="only for remote agent sessions"):
                getattr(session, name)()
        asyncio.run(main(session))
        asyncio.run(session.aclose())


def test_a_remote_session_has_no_memory_here(home: Any) -> None:
    calls: dict[str, tuple[Any, ...]] = {
        "Agent": ("A",),
        "create_agent": ("A",),
        "get_agent": ("A",),
        "save_state": (),
        "restore_state": (),
        "get_state": ("k",),
        "set_state": ("k", 1),
        "increment_state": ("k",),
        "delete_state": ("k",),
        "add_memory": ("text",),
        "search_memory": ("text",),
        "clear_memory": (),
        "add_knowledge": ("missing.txt",),
        "search_knowledge": ("text",),
        "get_context": ("text",),
    }
    with FlakyAgent() as agent, Session("s", agent_url=agent.url, session_ttl=60) as session:
        for name, arguments in calls.items():
            with pytest.raises(ValueError, match=r"remote agent session.*chat\(\)"):
                getattr(session, name)(*arguments)
        for name in ("memory", "knowledge"):
            with pytest.raises(ValueError, match="remote"):
                getattr(session, name)
        assert not session.is_expired()
        both = {"info", "is_expired", "time_to_expiry", "close", "aclose", "aconnect", "chat", "send_message", "stream"}
        both |= {"history", "sessions", "achat", "asend_message", "astream", "ahistory", "asessions", "ainfo"}
        assert {name for name in vars(Session) if callable(getattr(Session, name)) and name[0] != "_"} == both | set(
            calls
        )
    assert not home.exists()


# --- asking again ---


@pytest.mark.parametrize("plan", [reset, refuse(503), refuse(429), refuse(502)], ids=["broken", "503", "429", "502"])
@every_way
def test_with_a_key_the_same_turn_is_asked_for_again(ask: Any, plan: Plan) -> None:
    with FlakyAgent(plan, plan, plan) as agent, Session("s", agent_url=agent.url) as session:
        assert ask(session, "Hello") == "You said: Hello"
        assert len(agent.asked) == 4
        assert len({(asked.key, asked.raw) for asked in agent.asked}) == 1


@sync_ways
def test_the_fourth_failure_is_the_last(ask: Any) -> None:
    with FlakyAgent(*[reset] * 4) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError, match="idempotency_key") as failed:
            ask(session, "Hello")
        assert len(agent.asked) == 4
        assert failed.value.idempotency_key == agent.asked[0].key
        assert failed.value.__cause__ is not None


@pytest.mark.parametrize("plan", [reset, refuse(503), refuse(429)], ids=["broken", "503", "429"])
@sync_ways
def test_a_server_that_knows_no_keys_is_asked_once(ask: Any, plan: Plan) -> None:
    with FlakyAgent(plan, features=None) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError) as failed:
            ask(session, "Hello")
        assert len(agent.asked) == 1
        assert failed.value.idempotency_key is None  # which that server would not heed


@sync_ways
def test_a_refusal_after_a_failure_still_has_the_key(ask: Any) -> None:
    """The turn may have taken place before the server refused to say more."""
    with FlakyAgent(reset, refuse(401)) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteRefused, match="HTTP 401") as failed:
            ask(session, "Hello")
        assert failed.value.idempotency_key == agent.asked[0].key


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 500, 501])
@every_way
def test_a_refusal_is_final_and_says_why(ask: Any, status: int) -> None:
    with FlakyAgent(refuse(status)) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteRefused, match=f"HTTP {status}: not now") as failed:
            ask(session, "Hello")
        assert len(agent.asked) == 1
        assert (failed.value.status, failed.value.url) == (status, agent.url)
        assert (failed.value.idempotency_key is not None) == (status >= 500)
        assert failed.value.__cause__ is not None


def test_a_turn_that_failed_is_not_asked_for_again() -> None:
    plan: Plan = lambda asked: asked.answer({"error": "too long", "type": "TurnTimeout", "turn_id": "t"}, 504)  # noqa: E731
    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteRefused, match="too long"):
            session.chat("Hello")
        assert len(agent.asked) == 1


def test_reading_is_asked_for_again_whatever_the_server_knows() -> None:
    page: Plan = lambda asked: asked.answer({"sessions": [], "next": None})  # noqa: E731
    with FlakyAgent(reset, refuse(503), page, features=("sessions",)) as agent:
        with Session("s", agent_url=agent.url) as session:
            assert session.sessions() == []
        assert len(agent.asked) == 3


def test_retry_after_is_waited_for_or_the_error_raised_at_once() -> None:
    with FlakyAgent(refuse(429, Retry_After="3600")) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteRefused, match="429"):  # not a timeout an hour later
            session.chat("Hello")
        assert len(agent.asked) == 1
        agent.plans = [refuse(503, Retry_After="30")]
        session.timeout = 20
        with pytest.raises(RemoteRefused, match="503"):
            session.chat("Hello")
        session.timeout = 30
        for nonsense in ("soon", "-1", "²", "Wed, 21 Oct 2065 07:28:00 GMT"):
            agent.plans = [refuse(503, Retry_After=nonsense)] if nonsense.isascii() else []
            assert session.chat("Hello") == "You said: Hello"


@sync_ways
def test_a_server_that_starts_again_meanwhile_is_found(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection was made, so that asking again is safe even where nothing was promised."""
    monkeypatch.setattr(connection, "_AGAIN", 10_000)
    with FlakyAgent(features=None) as agent:
        session = Session("s", agent_url=agent.url)
        port = agent.port
    with session, ThreadPoolExecutor() as threads:
        answer = threads.submit(ask, session, "Hello")
        with FlakyAgent(features=None, port=port):
            assert answer.result() == "You said: Hello"


def test_nothing_follows_a_redirect() -> None:
    with FlakyAgent() as other, FlakyAgent() as agent, Session("s", agent_url=agent.url, token="t0k") as session:
        for status in (301, 302, 303, 307, 308):
            agent.plans = [lambda asked, status=status: asked.answer(b"", status, Location=other.url)]  # type: ignore[misc]
            with pytest.raises(RemoteRefused, match=f"{status}.*{other.url}.*agent_url"):
                session.chat("Hello")
        assert other.asked == []
        agent.health = lambda asked: asked.answer(b"", 302, Location=other.url)
        agent.plans = [lambda asked: asked.answer(b"", 302, Location=other.url)]
        with pytest.raises(RemoteRefused):
            Session("s", agent_url=agent.url)
        assert other.asked == []


def test_what_a_server_says_of_an_error_is_shortened_and_harmless() -> None:
    said = "bad t0k3n \x1b[31m\r\n" + "x" * 1000
    plans: list[Plan] = [
        lambda asked: asked.answer({"detail": said}, 401),
        lambda asked: asked.answer(said.encode(), 400),
        lambda asked: asked.answer(b"<html>oops</html>", 404),
        lambda asked: asked.answer(b"y" * 1_000_000, 400),
    ]
    with FlakyAgent(*plans) as agent, Session("s", agent_url=agent.url, token="t0k3n") as session:
        for _ in range(len(plans)):
            with pytest.raises(RemoteRefused) as failed:
                session.chat("Hello")
            assert len(str(failed.value)) < 700
            assert "t0k3n" not in str(failed.value)
            assert str(failed.value).isprintable()
            assert "oops" not in str(failed.value)


@pytest.fixture
def _one_megabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("connection", "remote"):
        monkeypatch.setattr(f"praisonaiagents.agent.{module}.LIMIT_BYTES", 1024 * 1024)


def endless(asked: Asked) -> None:
    asked.begin_events()
    number = 0
    while True:
        number += 1
        asked.event("t", number, "text", text="x" * 1000)


def huge(asked: Asked) -> None:
    asked.begin_events()
    while True:
        asked.piece(b"data: " + b"x" * 10_000)


@pytest.mark.usefixtures("_one_megabyte")
def test_an_answer_without_end_is_an_error_and_not_kept() -> None:
    long: Plan = lambda asked: asked.answer(b"x" * (1024 * 1024 + 1))  # noqa: E731
    with FlakyAgent(long, long, long, endless, endless, huge) as agent, Session("s", agent_url=agent.url) as session:
        for ask, message in ((chat, "larger than 1 MB"), (stream, "larger"), (history, "larger"), (chat, "larger")):
            with pytest.raises(RemoteError, match=message):
                ask(session, "Hello")
        with pytest.raises(RemoteError, match="larger than 1 MB"):
            stream(session, "Hello")
        with pytest.raises(RemoteError, match="exceeded"):
            stream(session, "Hello")
        assert len(agent.said("POST", "GET")) == 6


def test_a_compressed_answer_is_refused() -> None:
    plan: Plan = lambda asked: asked.answer(b"bomb", Content_Encoding="gzip")  # noqa: E731
    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError, match="compressed"):
            session.chat("Hello")
        assert agent.asked[0].headers["accept-encoding"] == "identity"


# --- time ---


def hang(asked: Asked) -> None:
    asked.http.server.stopping.wait()  # type: ignore[attr-defined]


@every_way
def test_a_turn_without_an_answer_is_given_up_on_and_can_be_asked_for_later(ask: Any) -> None:
    with FlakyAgent(hang) as agent, Session("s", agent_url=agent.url) as session:
        session.timeout = 0.2
        with pytest.raises(RemoteTimeout, match=r"0.2 s.*timeout=.*idempotency_key") as failed:
            ask(session, "Hello")
        key = failed.value.idempotency_key
        assert {asked.key for asked in agent.asked} <= {key}  # on a busy machine it may not have got there
        agent.plans = []
        session.timeout = 30
        assert session.chat("Hello", idempotency_key=key) == "You said: Hello"
        assert agent.said("DELETE") == []  # the turn goes on


def test_a_stream_may_take_longer_than_the_timeout_as_long_as_it_goes_on() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        for number, (name, data) in enumerate(told("t", *"abcdefgh"), start=1):
            agent.stopping.wait(0.3)
            asked.event("t", number, name, **data)

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        session.timeout = 2.5  # all of it takes 3 s
        assert "".join(session.stream("Hello")) == "abcdefgh"


def test_the_time_that_the_caller_takes_for_a_piece_is_its_own() -> None:
    async def main(session: Session) -> list[str]:
        loop, late = asyncio.get_running_loop(), 0
        now, found = loop.time, []
        loop.time = lambda: now() + late  # type: ignore[method-assign]
        async with aclosing(session.astream("Hello")) as pieces:
            async for piece in pieces:
                late += 100
                await asyncio.sleep(0)
                found.append(piece)
        await session.aclose()
        return found

    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        assert asyncio.run(main(session)) == ["You ", "said: ", "Hello"]


def test_a_stream_that_stops_in_the_middle_is_given_up_on() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t", *told("t", "Hel", "lo")[:2])
        agent.stopping.wait()

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        session.timeout = 2
        pieces = session.stream("Hello")
        assert next(pieces) == "Hel"
        with pytest.raises(RemoteTimeout, match="nothing more") as failed:
            next(pieces)
        assert failed.value.idempotency_key == agent.asked[0].key


# --- a stream that breaks ---

WORDS = ("My ", "name ", "is ", "Bot", ".")
EVENTS = told("t", *WORDS)


def part(until: int, *, then: Plan = drop) -> Plan:
    """The events up to one, after what the client has seen already; then the connection breaks."""

    def plan(asked: Asked) -> None:
        seen = int(asked.headers.get("last-event-id", "t.0").rpartition(".")[2])
        asked.begin_events()
        asked.events("t", *EVENTS[seen:until], first=seen + 1)
        then(asked)

    return plan


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
@pytest.mark.parametrize("ask", [stream, astream])
def test_a_stream_goes_on_where_it_broke(ask: Any, cut: int) -> None:
    with FlakyAgent(part(cut), part(len(EVENTS), then=end)) as agent:
        with Session("s", agent_url=agent.url) as session:
            assert ask(session, "Who are you?") == "".join(WORDS)
        again = agent.asked[1:]
    if cut == len(EVENTS):
        assert again == []
    elif cut == 0:
        assert [(asked.method, asked.key) for asked in again] == [("POST", agent.asked[0].key)]
    else:
        assert [(asked.method, asked.path) for asked in again] == [("GET", "/agent/turns/t")]
        assert again[0].headers["last-event-id"] == f"t.{cut}"


@pytest.mark.parametrize("cut", range(1, len(EVENTS)))
def test_a_reset_that_swallows_events_loses_none(cut: int) -> None:
    with (
        FlakyAgent(part(cut, then=reset), part(len(EVENTS), then=end)) as agent,
        Session("s", agent_url=agent.url) as session,
    ):
        assert stream(session, "Who are you?") == "".join(WORDS)


def test_a_stream_that_ends_too_early_goes_on_too() -> None:
    with (
        FlakyAgent(part(3, then=end), part(5, then=end), part(7, then=end)) as agent,
        Session("s", agent_url=agent.url) as session,
    ):
        assert list(session.stream("Who are you?")) == list(WORDS)


def test_a_stream_that_breaks_again_and_again_goes_on_as_long_as_it_comes_further() -> None:
    with FlakyAgent(*[part(cut) for cut in range(1, len(EVENTS) + 1)]) as agent:
        with Session("s", agent_url=agent.url) as session:
            assert list(session.stream("Who are you?")) == list(WORDS)
        assert len(agent.asked) == len(EVENTS)
        agent.plans = [part(2)] * 9
        with Session("s", agent_url=agent.url) as session, pytest.raises(RemoteError):
            list(session.stream("Who are you?"))
        assert len(agent.plans) == 5  # the first and three more


def test_pieces_that_come_twice_are_yielded_once_and_a_missing_one_is_an_error() -> None:
    def again(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t", *EVENTS)  # from the first, although told what came

    def gap(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t", *EVENTS[4:], first=5)

    with FlakyAgent(part(3), again, part(2), gap) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Who are you?")) == list(WORDS)
        with pytest.raises(RemoteError, match="lost") as failed:
            list(session.stream("Who are you?"))
        assert failed.value.idempotency_key == agent.asked[-2].key


def told_anew(*pieces: str) -> Plan:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t2", *told("t2", *pieces))
        end(asked)

    return plan


@pytest.mark.parametrize(
    "pieces",
    [("My name is Bot.",), ("M", "y name is Bo", "t."), ("My name ", "is Bot."), ("My ", "name ", "is ", "Bot.")],
)
def test_a_server_that_forgot_the_turn_is_asked_for_it_again(pieces: tuple[str, ...]) -> None:
    with FlakyAgent(part(3), refuse(404), told_anew(*pieces)) as agent, Session("s", agent_url=agent.url) as session:
        assert "".join(session.stream("Who are you?")) == "My name is Bot."
        first, look, again = agent.asked
        assert (look.method, look.path) == ("GET", "/agent/turns/t")
        assert (again.method, again.key, again.raw) == ("POST", first.key, first.raw)


def test_a_server_that_forgot_the_turn_may_answer_without_events() -> None:
    whole: Plan = lambda asked: asked.answer({"response": "My name is Bot."})  # noqa: E731
    with FlakyAgent(part(3), refuse(404), whole) as agent, Session("s", agent_url=agent.url) as session:
        assert list(session.stream("Who are you?")) == ["My ", "name ", "is Bot."]


@pytest.mark.parametrize("pieces", [("My nose",), ("Our ", "name"), ("My",), ()])
def test_another_answer_after_a_restart_is_an_error_that_says_how_to_get_it(pieces: tuple[str, ...]) -> None:
    with FlakyAgent(part(3), refuse(404), told_anew(*pieces)) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError, match=r"other words.*idempotency_key") as failed:
            list(session.stream("Who are you?"))
        assert failed.value.idempotency_key == agent.asked[0].key
        assert session.chat("Who are you?", idempotency_key=failed.value.idempotency_key)


def test_two_restarts_in_one_stream() -> None:
    def some_anew(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t2", *told("t2", "My name ", "is B")[:3])
        drop(asked)

    with (
        FlakyAgent(part(3), refuse(404), some_anew, refuse(404), told_anew(*WORDS)) as agent,
        Session("s", agent_url=agent.url) as session,
    ):
        assert "".join(session.stream("Who are you?")) == "My name is Bot."


@pytest.mark.parametrize("cut", [1, 2])
def test_a_turn_that_brings_its_server_down_each_time_is_given_up_on(cut: int) -> None:
    with FlakyAgent(*[part(cut), refuse(404)] * 20) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteError) as failed:
            list(session.stream("Who are you?"))
        assert failed.value.idempotency_key == agent.asked[0].key
        assert len(agent.said("POST")) < 5


def test_a_refusal_in_the_middle_of_a_stream_has_the_key() -> None:
    with FlakyAgent(part(2), refuse(401)) as agent, Session("s", agent_url=agent.url) as session:
        with pytest.raises(RemoteRefused, match="HTTP 401") as failed:
            list(session.stream("Who are you?"))
        assert failed.value.idempotency_key == agent.asked[0].key


@pytest.mark.parametrize("features", [(), ("resume",), ("idempotency",)])
def test_without_a_promise_a_broken_stream_is_an_error(features: tuple[str, ...]) -> None:
    plans = [part(3), refuse(404)] if "resume" in features else [part(3)]
    with FlakyAgent(*plans, features=features) as agent, Session("s", agent_url=agent.url) as session:
        pieces = session.stream("Who are you?")
        assert [next(pieces), next(pieces)] == ["My ", "name "]
        if features == ("idempotency",):
            with pytest.raises(RemoteError, match="other words"):
                list(pieces)
        else:
            with pytest.raises(RemoteError):
                list(pieces)
        assert len(agent.said("POST")) == (2 if features == ("idempotency",) else 1)


def test_an_error_in_a_stream_comes_after_what_was_said() -> None:
    def plan(asked: Asked) -> None:
        asked.begin_events()
        asked.events("t", *EVENTS[:2], ("error", {"error": "the model is gone", "type": "ModelError", "status": 500}))

    with FlakyAgent(plan) as agent, Session("s", agent_url=agent.url) as session:
        pieces = session.stream("Hello")
        assert next(pieces) == "My "
        with pytest.raises(RemoteRefused, match="the model is gone") as failed:
            next(pieces)
        assert failed.value.status == 500
        assert failed.value.idempotency_key == agent.asked[0].key
        assert len(agent.asked) == 1


# --- leaving early ---


def slow(asked: Asked) -> None:
    """Two pieces, and then nothing more."""
    asked.begin_events()
    asked.events("t", *EVENTS[:3])
    asked.http.server.stopping.wait()  # type: ignore[attr-defined]


def test_closing_a_stream_early_stops_the_turn() -> None:
    with FlakyAgent(slow) as agent, Session("s", agent_url=agent.url) as session:
        pieces = session.stream("Hello")
        assert next(pieces) == "My "
        pieces.close()  # type: ignore[attr-defined]
        assert [(asked.method, asked.path) for asked in agent.asked[1:]] == [("DELETE", "/agent/turns/t")]
        agent.plans = [slow]

        async def main() -> None:
            async with aclosing(session.astream("Hello")) as later:
                assert await anext(later) == "My "

        asyncio.run(main())
        assert len(agent.said("DELETE")) == 2


@pytest.mark.parametrize("knows", [True, False], ids=["keys", "no keys"])
@pytest.mark.parametrize("way", ["chat", "stream"])
def test_a_cancelled_turn_is_stopped_also_before_its_id_is_known(way: str, knows: bool) -> None:
    def first(asked: Asked) -> None:
        asked_for.set()
        hang(asked)

    async def main(session: Session) -> None:
        coroutine = session.achat("Hello") if way == "chat" else anext(session.astream("Hello"))
        task = asyncio.ensure_future(coroutine)
        await asyncio.to_thread(asked_for.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.aclose()

    asked_for = threading.Event()
    features = ALL if knows else ("resume", "sessions")
    with FlakyAgent(first, slow, features=features) as agent, Session("s", agent_url=agent.url) as session:
        asyncio.run(main(session))
        if not knows:  # asking for its id would be a second turn
            assert len(agent.asked) == 1
            return
        post, again, stop = agent.asked
        assert (again.method, again.key, again.raw) == ("POST", post.key, post.raw)
        assert (stop.method, stop.path) == ("DELETE", "/agent/turns/t")


def test_leaving_a_stream_that_has_ended_stops_nothing() -> None:
    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        pieces = session.stream("Hello")
        assert "".join(pieces) == "You said: Hello"
        pieces.close()  # type: ignore[attr-defined]
        session.stream("Never asked for").close()  # type: ignore[attr-defined]
        assert len(agent.asked) == 1


def test_a_server_that_cannot_stop_turns_is_not_asked_to() -> None:
    with FlakyAgent(slow, features=None) as agent, Session("s", agent_url=agent.url) as session:
        pieces = session.stream("Hello")
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert len(agent.asked) == 1


# --- loops, threads, closing ---


def test_many_threads_and_a_loop_use_one_session_at_once() -> None:
    async def main(session: Session) -> list[str]:
        return list(await asyncio.gather(*(session.achat(f"a{number}") for number in range(20))))

    with FlakyAgent() as agent, Session("s", agent_url=agent.url) as session, ThreadPoolExecutor(8) as threads:
        asynchronous = threads.submit(lambda: asyncio.run(main(session)))
        answers = list(threads.map(session.chat, [f"s{number}" for number in range(20)]))
        assert answers == [f"You said: s{number}" for number in range(20)]
        assert asynchronous.result() == [f"You said: a{number}" for number in range(20)]
        assert len({asked.key for asked in agent.asked}) == 40


def test_a_session_can_be_made_without_blocking_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(agent: FlakyAgent) -> None:
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0)

        heart_task = asyncio.create_task(heart())
        monkeypatch.setattr(background, "run", None)  # a call there could not be cancelled from here
        agent.health = lambda asked: (agent.stopping.wait(0.2), asked.answer({"status": "ok", "features": list(ALL)}))
        async with await Session.aconnect(agent.url, "s", "alice", timeout=20) as session:
            assert beats > 10
            monkeypatch.undo()
            assert (session.session_id, session.user_id, session.timeout) == ("s", "alice", 20)
            assert await session.asend_message("Hello") == "You said: Hello"
        heart_task.cancel()
        with pytest.raises(ConfigError):
            await Session.aconnect("ftp://x")

    with FlakyAgent() as agent:
        asyncio.run(main(agent))


def test_closing_twice_is_harmless_and_a_closed_session_opens_again() -> None:
    with FlakyAgent() as agent:
        session = Session("s", agent_url=agent.url)
        session.chat("Hello")
        session.close()
        session.close()
        assert session.chat("Hello") == "You said: Hello"
        asyncio.run(session.aclose())
        asyncio.run(session.aclose())
        session.close()


def test_a_session_that_is_dropped_leaves_no_connection() -> None:
    with FlakyAgent() as agent:
        session = Session("s", agent_url=agent.url)
        session.chat("Hello")
        next(session.stream("Hello"))
        del session
        gc.collect()


def test_the_clients_libraries_are_loaded_for_a_remote_session_only() -> None:
    from wire import python

    source = """
        import json, sys
        from praisonaiagents import Session
        Session("s").close()
        before = [name for name in ("httpx2", "ssl", "asyncio") if name in sys.modules]
        try:
            Session("s", agent_url="http://127.0.0.1:1/agent")
        except ConnectionError:
            after = [name for name in ("httpx2", "pydantic_ai") if name in sys.modules]
        print(json.dumps([before, after]))
    """
    before, after = python(source, is_bare=True)
    assert (before, after) == ([], ["httpx2"])


# --- proxies and certificates ---


def test_the_environments_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with FlakyAgent() as agent:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{agent.port}")
        with Session("s", agent_url="http://far.example/agent") as session:
            assert session.chat("Hello") == "You said: Hello"
        assert agent.asked[0].headers["host"] == "far.example"


@pytest.mark.parametrize("proxy", ["gopher://x", "socks5://127.0.0.1:1", "http://user:secret#x@proxy:8080"])
def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises((ConfigError, ImportError), match=r"HTTP_PROXY|SOCKS") as failed:
        Session("s", agent_url=nobody())
    assert "secret" not in "".join(traceback.format_exception(failed.value))


def test_a_forked_child_that_leaves_a_stream_does_not_wait_for_it() -> None:
    """The thread that would end the stream is in the parent, which goes on with it."""
    with warnings.catch_warnings(), FlakyAgent() as agent, Session("s", agent_url=agent.url) as session:
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own: forking a process that has threads
        pieces = session.stream("Hello")
        found = [next(pieces)]
        child = os.fork()
        if child == 0:
            pieces.close()  # type: ignore[attr-defined]
            os._exit(0)
        found += pieces
        assert found == ["You ", "said: ", "Hello"]
        assert os.waitpid(child, 0) == (child, 0)
