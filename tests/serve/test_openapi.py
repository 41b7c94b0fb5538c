"""What the OpenAPI document says is so: schemathesis reads it, and asks for all that it allows and for much that it does not.

It runs as a program of its own, against a real server, with all of its checks: no server error; statuses, media types, headers
and bodies of answers as the document has them; what the document allows is accepted, and what it does not is refused; nothing
without a token, or with a wrong one; no method that is not there; what was deleted is gone, what was made is there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from wire import PATIENCE_S

from praisonaiagents import Agent
from praisonaiagents.serve import Server
from praisonaiagents.serve.guard import Rate
from praisonaiagents.testing.llm import Say, ScriptedLLM

Json = dict[str, Any]
TOKEN, ALICES, BOBS = "secret-token", "token-of-alice", "token-of-bob"
SECRET = "the-treasure-is-under-the-oak"
CONFIG = """
headers = {{ Authorization = "Bearer {token}" }}
parameters = {parameters}

[generation]
deterministic = true
max-examples = {examples}
database = "none"
no-shrink = true

# What no schema can say: the last message of a chat is the user's; a fork is of a message that is there or of a snapshot;
# tags are printable; a cursor is one that was given out; a key is used for one request.
[[operations]]
include-path-regex = "chat/completions|/fork$|^/sessions(/{{session_id}})?$|^/$|^/turns/"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404", "409", "422"]

# What is not there is the point to go back to, not the session.
[[operations]]
include-path-regex = "/revert$"
checks.ensure_resource_availability.enabled = false

# A session may be called "import", so this path can be deleted too.
[[operations]]
include-path-regex = "^/sessions/import$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "409"]
checks.allow_header_conformance.enabled = false
"""


@contextmanager
def served(tmp_path: Path, **settings: Any) -> Iterator[Server]:
    """A server that lets itself be asked as often as one likes, and with any number of wrong tokens."""
    with (
        ScriptedLLM(lambda request: Say("Hi")) as llm,
        Agent("Assistant", llm="openai/gpt-test", base_url=llm.openai_url) as agent,
        agent.launch(port=0, block=False, db=f"sqlite:///{tmp_path}/s.db", per_minute=0, **settings) as server,
    ):
        server.service.guesses = Rate(0)
        yield server


def schemathesis(server: Server, tmp_path: Path, token: str, examples: int, *options: str, **parameters: str) -> str:
    """What schemathesis says, having found nothing wrong."""
    config = tmp_path / "schemathesis.toml"
    given = ", ".join(f'"path.{name}" = {json.dumps(value)}' for name, value in parameters.items())
    config.write_text(CONFIG.format(token=token, examples=examples, parameters=f"{{ {given} }}"))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", "--no-color", *options]
    done = subprocess.run(
        [*command, f"{server.url}/openapi.json"], cwd=tmp_path, capture_output=True, text=True, timeout=4 * PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_answer_is_as_the_document_says(tmp_path: Path) -> None:
    with served(tmp_path, token=TOKEN) as server, httpx2.Client(headers=bearer(TOKEN)) as client:
        document = client.get(f"{server.url}/openapi.json").json()
        turn = client.post(server.url, json={"query": "Hello"}).json()
        said = schemathesis(server, tmp_path, TOKEN, 3, turn_id=turn["turn_id"])
    operations = (
        sum(len(methods) for methods in document["paths"].values()) - 1
    )  # the document itself is read, not tested
    assert f"Selected: {operations}/{operations}" in said
    assert f"Tested: {operations}" in said
    for phase in ("Coverage", "Fuzzing", "Stateful"):
        assert f"✅ {phase}" in said


def test_no_answer_to_one_user_holds_what_another_one_said(tmp_path: Path) -> None:
    """Alice asks for everything, knowing the ids of Bob's session and turn."""
    har = tmp_path / "answers.har"
    options = ["--phases=fuzzing", f"--report-har-path={har}", "--output-sanitize=false"]
    with (
        served(tmp_path, users={ALICES: "alice", BOBS: "bob"}) as server,
        httpx2.Client(base_url=server.url, headers=bearer(BOBS)) as bob,
    ):
        turn = bob.post("", json={"query": SECRET, "session_id": "bobs"}).json()
        bob.patch("/sessions/bobs", json={"title": SECRET, "tags": [SECRET]})
        bob.post("/sessions/bobs/snapshots", json={"label": SECRET})
        before = [bob.get(path).json() for path in BOBS_PATHS]
        schemathesis(server, tmp_path, ALICES, 6, *options, session_id="bobs", turn_id=turn["turn_id"])
        assert [bob.get(path).json() for path in BOBS_PATHS] == before
    assert SECRET in str(before)
    answers = [entry["response"] for entry in json.loads(har.read_text())["log"]["entries"]]
    assert len(answers) > 100
    assert sum(answer["status"] in (200, 201) for answer in answers) > 10
    assert SECRET not in json.dumps(answers)
    assert "bob" not in {name for answer in answers for name in user_ids(answer)}


BOBS_PATHS = ("/sessions", "/sessions/bobs", "/sessions/bobs/messages", "/sessions/bobs/snapshots")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def user_ids(answer: Json) -> set[str]:
    """Whose the sessions are that an answer tells of."""
    try:
        found = json.loads(answer["content"].get("text", ""))
    except ValueError:
        return set()
    sessions = found.get("sessions", [found]) if isinstance(found, dict) else []
    return {session["user_id"] for session in sessions if isinstance(session, dict) and "user_id" in session}


def test_the_document_tells_of_each_agent_and_of_what_one_needs(tmp_path: Path) -> None:
    with (
        Agent("Sales", llm="offline") as sales,
        Agent("Help", llm="offline") as help_desk,
        sales.launch(path="/sales", port=0, block=False) as server,
    ):
        help_desk.launch(path="/help", port=server.port, block=False)
        document = httpx2.get(f"{server.url}/openapi.json").json()
    assert {"/sales", "/help", "/sales/sessions", "/help/v1/models", "/sessions", "/health"} <= document["paths"].keys()
    ids = [method["operationId"] for methods in document["paths"].values() for method in methods.values()]
    assert len(ids) == len(set(ids))
    assert "security" not in document
    with served(tmp_path, token=TOKEN) as server:
        assert httpx2.get(f"{server.url}/openapi.json").status_code == 401
        document = httpx2.get(f"{server.url}/openapi.json", headers=bearer(TOKEN)).json()
    assert document["security"] == [{"token": []}]
    assert document["paths"]["/health"]["get"]["security"] == []
