"""Launching: several agents at a port, tokens where others can come in, scripts that wait and those that do not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from servers.ports import free_port
from wire import PATIENCE_S

from praisonaiagents import Agent
from praisonaiagents.cli.main import praisonai
from praisonaiagents.errors import ConfigError, ConfigTypeError, MissingDependency, PraisonError
from praisonaiagents.serve import Server
from praisonaiagents.serve.server import TOKEN_VARIABLE

AGENTS = """
from praisonaiagents import Agent
sales = Agent(name="Sales", instructions="sell", llm="offline")
support = Agent(name="Support Desk", instructions="help", llm="offline")
"""


@pytest.fixture
def agent(make_agent: Callable[..., Agent]) -> Agent:
    return make_agent(llm="offline", instructions="be brief")


@pytest.fixture
def launched(agent: Agent) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(path: str = "/agent", of: Agent = agent, **settings: Any) -> Server:
        servers.append(of.launch(path, **{"port": 0, "block": False, "say": lambda _: None} | settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(url: str, text: str = "hello", **more: Any) -> httpx2.Response:
    return httpx2.post(url, json={"query": text, **more})


def test_several_agents_share_a_port(launched: Callable[..., Server], make_agent: Callable[..., Agent]) -> None:
    server = launched("/sales")
    same = launched("/support", make_agent("Support", llm="offline"), port=server.port)
    with pytest.warns(RuntimeWarning, match="another agent is served at /sales"):
        launched("/sales", make_agent("Other", llm="offline"), port=server.port)
    assert same is server
    endpoints = httpx2.get(server.url).json()["endpoints"]
    assert [path[:7] for path in endpoints] == ["/sales", "/sales_", "/suppor"]
    for path in endpoints:
        assert ask(server.url + path, session_id="s").status_code == 200
        assert httpx2.get(f"{server.url}{path}/health").json()["endpoints"] == endpoints
    models = httpx2.get(server.url + "/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["Assistant", "Support", "Other"]
    # each agent sees its own part of the session that they share
    asked = "What did I say about Paris?"
    ask(server.url + "/sales", "I was in Paris", session_id="shared")
    assert "Paris" in ask(server.url + "/sales", asked, session_id="shared").json()["response"]
    assert "I was in Paris" not in ask(server.url + "/support", asked, session_id="shared").json()["response"]


def test_beyond_this_machine_a_token_is_needed(
    launched: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    server = launched(host="0.0.0.0", say=said.append)
    made = os.environ[TOKEN_VARIABLE]
    assert len(made) >= 32
    assert sum(made in line for line in said) == 1
    assert ask(server.url + "/agent").status_code == 401
    good = {"Authorization": f"Bearer {made}"}
    assert httpx2.post(server.url + "/agent", json={"query": "hi"}, headers=good).status_code == 200
    assert httpx2.get(server.url + "/sessions", headers=good | {"Host": "evil.example"}).status_code == 421
    again = launched(host="0.0.0.0", say=said.append)
    assert httpx2.get(again.url + "/sessions", headers=good).status_code == 200


def test_the_token_of_the_environment_counts_on_this_machine_too(
    launched: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "token-of-the-environment")
    server = launched()
    assert ask(server.url + "/agent").status_code == 401
    for header in ({"X-Auth-Token": "token-of-the-environment"}, {"Authorization": "Bearer token-of-the-environment"}):
        assert httpx2.post(server.url + "/agent", json={"query": "hi"}, headers=header).status_code == 200


def test_closing_an_agent_ends_its_being_served(agent: Agent, make_agent: Callable[..., Agent]) -> None:
    other = make_agent("Other", llm="offline")
    server = agent.launch("/one", 0, block=False)
    other.launch("/two", server.port, block=False)
    agent.close()
    assert ask(server.url + "/one").status_code == 404
    assert ask(server.url + "/two").status_code == 200
    other.close()
    with pytest.raises(httpx2.ConnectError):
        ask(server.url + "/two")


@pytest.mark.parametrize(
    ("settings", "error", "why"),
    [
        ({"port": -1}, ConfigError, "0 to 65535"),
        ({"port": "8000"}, ConfigError, "0 to 65535"),
        ({"path": "/health"}, ConfigError, "/agent"),
        ({"path": "/a b"}, ConfigError, "letters"),
        ({"path": "/a/../b"}, ConfigError, "letters"),
        ({"path": 5}, ConfigTypeError, "text"),
        ({"host": "no.such.host.invalid"}, ConfigError, "cannot listen"),
        ({"db": "nosuch://x"}, ConfigError, "no storage engine"),
        ({"protocol": "gopher"}, ConfigError, "gopher"),
        ({"busyness": "reject"}, ConfigTypeError, "did you mean busy"),
        ({"users": {"alices-token": ""}}, ConfigTypeError, "user ids"),
    ],
)
def test_what_cannot_be_served_is_said_at_once(
    agent: Agent, settings: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        agent.launch(**{"port": 0, "block": False} | settings)


def test_a_port_is_free_again_when_its_server_has_ended(launched: Callable[..., Server], agent: Agent) -> None:
    first = launched()
    first._server.should_exit = True  # as where it ends by itself
    first._thread.join()
    again = launched(port=first.port)
    assert again is not first
    assert ask(again.url + "/agent").status_code == 200


def test_a_port_that_is_taken_is_said(launched: Callable[..., Server], agent: Agent) -> None:
    port = launched().port
    with pytest.raises(ConfigError, match=f"cannot listen at localhost:{port}: .*take another port"):
        agent.launch(port=port, host="localhost", block=False)
    with pytest.raises(ConfigError, match="settings are those of the first launch"):
        agent.launch("/b", port=port, block=False, busy="reject")


def test_an_agent_that_cannot_be_shared_is_refused(make_agent: Callable[..., Agent], tmp_path: Path) -> None:
    class Hooks:
        def on_user_message(self, session_id: str, content: str) -> None: ...

    with pytest.raises(ConfigError, match="adapter"):
        make_agent(llm="offline", db=Hooks()).launch(port=0, block=False)
    with pytest.raises(ConfigError, match="key"):
        make_agent("Other", llm="openai/gpt-4o").launch(port=0, block=False)


def test_an_agent_that_cannot_be_made_ready_is_not_served(
    launched: Callable[..., Server], make_agent: Callable[..., Agent]
) -> None:
    server = launched("/one")
    other = make_agent("Other", llm="openai/gpt-4o")
    with pytest.raises(ConfigError, match="key"):
        other.launch("/two", server.port, block=False)
    assert httpx2.get(server.url).json()["endpoints"] == ["/one"]


def test_sessions_go_where_the_server_was_told(launched: Callable[..., Server], tmp_path: Path) -> None:
    server = launched(db=f"sqlite:///{tmp_path}/served.db")
    ask(server.url + "/agent", session_id="s")
    with Agent("A", db=f"sqlite:///{tmp_path}/served.db") as other:
        assert [row["session_id"] for row in other.store.list_sessions()] == ["s"]


def test_the_server_of_a_missing_package_says_what_to_install(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "praisonaiagents.serve.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingDependency, match=r"praisonaiagents\[serve\]"):
        agent.launch(port=0)


def test_readiness_asks_the_engine_and_life_does_not(
    launched: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    from praisonaiagents.errors import EngineUnreachable
    from praisonaiagents.storage.jsonfile import JsonFileEngine

    server = launched()
    assert httpx2.get(server.url + "/health/ready").json() == {"status": "ready", "turns": 0}

    def away(*_: object) -> None:
        raise EngineUnreachable("secret-host:5432 is away", "secret-host")

    monkeypatch.setattr(JsonFileEngine, "get", away)
    refused = httpx2.get(server.url + "/agent/health/ready")
    assert (refused.status_code, "secret-host" in refused.text) == (503, False)
    assert httpx2.get(server.url + "/health/live").status_code == 200
    assert httpx2.get(server.url + "/health").status_code == 200


def test_a_database_that_hangs_is_told_of_in_time_and_asked_once(
    launched: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    from praisonaiagents.storage.jsonfile import JsonFileEngine

    asked, hangs, goes_on = [], threading.Event(), threading.Event()

    def hang(*_: object) -> None:
        asked.append(1)
        hangs.set()
        goes_on.wait(PATIENCE_S)

    monkeypatch.setattr(JsonFileEngine, "get", hang)
    ready = launched().url + "/health/ready"
    try:
        with monkeypatch.context() as impatient:
            impatient.setattr("praisonaiagents.serve.health._PATIENCE_S", 0.0)
            for _ in range(3):
                refused = httpx2.get(ready)
                assert (refused.status_code, refused.json()["type"]) == (503, "EngineTimeout")
        assert hangs.wait(PATIENCE_S)
        assert len(asked) == 1
    finally:
        goes_on.set()
    assert httpx2.get(ready).status_code == 200


# --- scripts ---


def run(source: str, port: int, answers: list[str], *, then: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Run a script until these paths answer, then end it. Returns its exit code and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    waiting = threading.Event()
    try:
        for path in answers:
            for _ in range(int(PATIENCE_S / 0.1)):
                try:
                    if httpx2.get(f"http://127.0.0.1:{port}{path}").status_code == 200:
                        break
                except httpx2.TransportError:
                    waiting.wait(0.1)
            else:
                raise AssertionError(path)
        process.send_signal(then)
        said, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


@pytest.mark.parametrize(
    "ending",
    [
        'sales.launch("/sales", {port})\nsupport.launch("/support", {port})\nprint("served")',
        'for agent in (sales, support):\n    agent.launch("/" + agent.name.split()[0].lower(), {port})\nprint("at its end")',
        'def main():\n    sales.launch("/sales", {port}, block=False)\n    support.launch("/support", {port})\nmain()',
    ],
    ids=["in a row", "in a loop", "in a function"],
)
def test_a_script_serves_all_it_launches_until_it_is_ended(ending: str) -> None:
    how = signal.SIGINT if "main" in ending else signal.SIGTERM
    port = free_port()
    code, said = run(AGENTS + ending.format(port=port), port, ["/sales/health", "/support/health"], then=how)
    assert code == 0, said
    assert "Traceback" not in said
    assert f"Sales is served at http://127.0.0.1:{port}/sales" in said


def test_a_script_that_fails_after_launching_does_not_go_on() -> None:
    port = free_port()
    source = AGENTS + f'for agent in (sales,):\n    agent.launch("/", {port})\nraise RuntimeError("broken")'
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "broken" in done.stderr


# --- praisonai serve ---


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "agents.py"
    path.write_text(AGENTS + 'print("loaded")\nsales.launch(port=1)\nprint("never")\n')
    return str(path)


def serve(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "praisonaiagents.cli", "serve", "--port", "0", "--json", *arguments]
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def served(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it says when it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise AssertionError(process.communicate())


def test_agents_of_a_file_with_users_and_logs(file: str, tmp_path: Path) -> None:
    users = tmp_path / "users.json"
    users.write_text('{"alice": "alices-token"}')
    process = serve(f"{file}:sales", f"{file}:support", "--users", str(users), "--db", f"sqlite:///{tmp_path}/s.db")
    ready = served(process)
    assert [url.rpartition("/")[2] for url in ready["agents"]] == ["sales", "support-desk"]
    assert ask(ready["agents"][0]).status_code == 401
    alice = {"Authorization": "Bearer alices-token"}
    said = httpx2.post(ready["agents"][1], json={"query": "my secret", "session_id": "s"}, headers=alice)
    assert said.status_code == 200
    process.terminate()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert "never" not in out
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {line["event"] for line in told} == {"request", "turn"}
    assert "secret" not in err
    assert "alices-token" not in err


def test_an_assistant_is_served_where_no_file_is_named() -> None:
    process = serve("--llm", "offline", "--instructions", "be brief", PRAISONAI_SERVE_USERS='{"bob": "bobs-token"}')
    ready = served(process)
    bob = {"Authorization": "Bearer bobs-token"}
    assert httpx2.post(ready["agents"][0], json={"query": "hi"}, headers=bob).status_code == 200
    assert ready["agents"][0].endswith("/agent")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["nothing.py"], 1, "there is no file nothing.py"),
        (["no.such.module:agent"], 1, "no module"),
        (["{file}"], 1, "say which"),
        (["{broken}"], 1, "agents.py, line 2, cannot be run: ZeroDivisionError"),
        (["{file}:nobody"], 1, "it has: sales, support"),
        (["{file}:Agent"], 1, "not an Agent"),
        (["{file}:sales", "--llm", "x"], 2, "not named"),
        (["{file}:sales", "{file}:support", "--path", "/x"], 2, "one agent"),
        (["{file}:sales", "--users", "nothing.json"], 1, "cannot read nothing.json"),
        (["{file}:sales", "--jwt-issuer", "x"], 2, "need --jwt-key"),
        (["{file}:sales", "--users", "a", "--jwt-key", "b"], 2, "give one"),
        (["{file}:sales", "--db", "nosuch://x"], 2, "no storage engine"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(file: str, arguments: list[str], code: int, why: str) -> None:
    broken = Path(file).parent / "broken" / "agents.py"
    broken.parent.mkdir()
    broken.write_text("\n1 / 0\n")
    words = [argument.format(file=file, broken=broken) for argument in arguments]
    done = CliRunner().invoke(praisonai, ["serve", *words])
    assert code == (1 if isinstance(done.exception, PraisonError) else done.exit_code)
    assert why in f"{done.output}{done.exception}"
