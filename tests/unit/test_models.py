"""Which model an agent talks to: the order of choice, names as users write them, and what is said when there is none."""

from __future__ import annotations

import http.server
import socketserver
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wire import ANTHROPIC, OPENAI, answering, ok, python

from praisonaiagents import Agent
from praisonaiagents.agent import agent as agent_module
from praisonaiagents.agent import models
from praisonaiagents.agent.models import ModelChoice, choose_model
from praisonaiagents.errors import ConfigError, ConfigTypeError, MissingDependency
from praisonaiagents.testing.llm import Say, ScriptedLLM

KEY = "sk-very-secret"
LOCAL_SERVERS = models._LOCAL_SERVERS


@pytest.fixture(autouse=True)
def no_local_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever listens on this machine is not asked, unless a test says where."""
    monkeypatch.setattr(models, "_LOCAL_SERVERS", ())
    models.find_local_server.cache_clear()
    yield
    models.find_local_server.cache_clear()


# The order of choice


def test_without_anything_it_is_the_offline_model() -> None:
    choice = choose_model()
    assert choice.name == "offline"
    assert "OPENAI_API_KEY" in str(choice.note)


def test_what_is_nearer_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedLLM([]) as llm:
        monkeypatch.setattr(models, "_LOCAL_SERVERS", (("Ollama", llm.url),))
        assert choose_model().name == "openai-chat:scripted"
        expected = {
            "GROQ_API_KEY": "groq:llama-3.3-70b-versatile",
            "MISTRAL_API_KEY": "mistral:mistral-small-latest",
            "GOOGLE_API_KEY": "google:gemini-2.5-flash",
            "ANTHROPIC_API_KEY": "anthropic:claude-haiku-4-5",
            "OPENAI_API_KEY": "openai-chat:gpt-4o-mini",
        }
        for variable, name in expected.items():
            monkeypatch.setenv(variable, KEY)
            assert choose_model().name == name
        for variable in ("MODEL_NAME", "OPENAI_MODEL_NAME", "PRAISONAI_MODEL"):
            monkeypatch.setenv(variable, f"ollama/{variable}")
            assert choose_model().name == f"ollama:{variable}"
        assert choose_model("anthropic/claude-x").name == "anthropic:claude-x"


def test_an_empty_variable_is_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PRAISONAI_MODEL", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.setenv(variable, "")
    assert choose_model().name == "offline"
    monkeypatch.setenv("PRAISONAI_MODEL", " gpt-4o ")
    assert choose_model().name == "openai-chat:gpt-4o"


def test_a_key_alone_is_for_openai() -> None:
    choice = choose_model(api_key=KEY)
    assert (choice.name, choice.api_key) == ("openai-chat:gpt-4o-mini", KEY)


# Names


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("gpt-4o-mini", "openai-chat:gpt-4o-mini"),
        ("openai/gpt-4o-mini", "openai-chat:gpt-4o-mini"),
        ("openai:gpt-4o-mini", "openai-chat:gpt-4o-mini"),
        ("o3-mini", "openai-chat:o3-mini"),
        ("openai-responses/gpt-5", "openai-responses:gpt-5"),
        ("claude-haiku-4-5", "anthropic:claude-haiku-4-5"),
        ("anthropic/claude-haiku-4-5", "anthropic:claude-haiku-4-5"),
        ("gemini/gemini-2.5-flash", "google:gemini-2.5-flash"),
        ("google/gemini-2.5-flash", "google:gemini-2.5-flash"),
        ("gemini-2.5-flash", "google:gemini-2.5-flash"),
        ("openrouter/meta-llama/llama-3-70b", "openrouter:meta-llama/llama-3-70b"),
        ("ollama/llama3.2:3b", "ollama:llama3.2:3b"),
        ("ollama:llama3.2:3b", "ollama:llama3.2:3b"),
        ("groq/llama-3.3-70b-versatile", "groq:llama-3.3-70b-versatile"),
        ("deepseek-chat", "deepseek:deepseek-chat"),
        ("offline", "offline"),
    ],
)
def test_a_name_is_taken_as_users_write_it(name: str, chosen: str) -> None:
    assert choose_model(name) == choose_model({"model": name})
    assert choose_model(name).name == chosen


@pytest.mark.parametrize("name", ["llama3", "meta-llama/llama-3-70b", "openai/", "/", ":", "somebody:something"])
def test_a_name_of_no_provider_is_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(ConfigError, match=r"provider/model .* base_url="):
        choose_model(name)


@pytest.mark.parametrize("name", ["llama3", "mistral-7b", "deepseek-r1:8b", "command-r", "claude-proxy", "a/b/c:d"])
def test_a_server_of_ones_own_may_call_its_models_anything(name: str) -> None:
    choice = choose_model(name, base_url="http://127.0.0.1:1/v1")
    assert (choice.name, choice.base_url) == (f"openai-chat:{name}", "http://127.0.0.1:1/v1")


def test_a_provider_that_is_named_speaks_its_own_protocol_there() -> None:
    assert choose_model("anthropic/claude-x", base_url="http://127.0.0.1:1").name == "anthropic:claude-x"


def test_a_server_without_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="model name"):
        choose_model(base_url="http://127.0.0.1:1/v1")


def test_openai_base_url_is_where_openai_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    for name in ("gpt-4o", "anything-else", "openai/x"):
        choice = choose_model(name)
        assert (choice.name.partition(":")[0], choice.base_url) == ("openai-chat", "http://127.0.0.1:1/v1")
    assert choose_model("anthropic/claude-x").base_url is None
    assert choose_model("gpt-4o", base_url="http://127.0.0.1:2/v1").base_url == "http://127.0.0.1:2/v1"


# The dict form, and settings


def test_the_dict_form_says_all_at_once() -> None:
    choice = choose_model(
        {"model": "llama3", "base_url": "http://127.0.0.1:1/v1", "api_key": KEY, "temperature": 0.5, "seed": None}
    )
    assert choice == ModelChoice("openai-chat:llama3", "http://127.0.0.1:1/v1", KEY, {"temperature": 0.5})


@pytest.mark.parametrize("llm", [{"model": "gpt-4o", "temprature": 1}, {"modell": "gpt-4o"}])
def test_a_misspelt_setting_is_refused(llm: dict[str, Any]) -> None:
    with pytest.raises(ConfigTypeError, match=r"temprature|modell"):
        Agent("A", llm=llm)


@pytest.mark.parametrize("llm", [5, object(), ["gpt-4o"], b"gpt-4o"])
def test_something_else_is_refused(llm: Any) -> None:
    with pytest.raises(ConfigTypeError, match="llm= takes"):
        Agent("A", llm=llm)


def test_llm_and_model_are_one_setting() -> None:
    assert Agent("A", model="gpt-4o").model_name == Agent("A", llm="gpt-4o").model_name == "openai-chat:gpt-4o"
    with pytest.raises(TypeError, match="same setting"):
        Agent("A", llm="gpt-4o", model="gpt-4o")


def test_settings_reach_the_model_and_a_turn_may_change_them(make_agent: Callable[..., Agent]) -> None:
    with ScriptedLLM(lambda _: Say("Yes.")) as llm:
        agent = make_agent(llm={"model": "x", "base_url": llm.openai_url, "temperature": 0.25, "max_tokens": 7})
        agent.chat("One")
        agent.chat("Two", temperature=0.75, seed=3)
        agent.chat("Three")
        bodies = [request.body for request in llm.requests]
        with pytest.raises(ConfigTypeError, match="unknown model settings: temprature"):
            agent.chat("Four", temprature=1)
    assert [body["temperature"] for body in bodies] == [0.25, 0.75, 0.25]
    assert [body.get("max_completion_tokens", body.get("max_tokens")) for body in bodies] == [7, 7, 7]
    assert [body.get("seed") for body in bodies] == [None, 3, None]


# Building


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("gemini-2.5-flash", r"praisonaiagents\[google\]"),
        ("mistral/mistral-small-latest", r"praisonaiagents\[mistral\]"),
        ("groq/llama", r"praisonaiagents\[groq\]"),
        ("cohere/command-r", r"pydantic-ai-slim\[cohere\]"),
    ],
)
def test_a_missing_package_is_named(name: str, install: str) -> None:
    with pytest.raises(MissingDependency, match=f"pip install '{install}'") as raised:
        choose_model(name, api_key=KEY).build()
    assert isinstance(raised.value, ImportError)
    assert KEY not in str(raised.value)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        choose_model("anthropic/claude-x").build()
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        Agent("A", llm="gpt-4o").chat("Hello")


@pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC], ids=lambda wire: wire.name)
def test_a_key_is_shown_nowhere(wire: Any, make_agent: Callable[..., Agent]) -> None:
    with ScriptedLLM(lambda _: Say("Yes.")) as llm:
        agent = make_agent(**wire.agent(llm), api_key=KEY)
        agent.chat("Hello")
        assert llm.requests[0].had_key
    choice = choose_model("x", base_url=f"http://user:{KEY}@127.0.0.1/v1", api_key=KEY)
    shown = f"{agent!r} {agent} {choice!r} {choice} {agent.model_name}"
    assert KEY not in shown


def test_a_key_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, make_agent: Callable[..., Agent]) -> None:
    with ScriptedLLM([Say("Yes.")]) as llm:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", llm.openai_url)
        assert make_agent().chat("Hello") == "Yes."
        assert llm.requests[0].had_key


# Servers on this machine


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"-ERR unknown command 'GET'\r\n",
        b"HTTP/1.0 404 Not Found\r\n\r\n",
        ok("<html>"),
        ok("[]"),
        ok('{"data": []}'),
        ok('{"data": [{"id": 5}]}'),
        b"HTTP/1.0 302 Found\r\nLocation: http://127.0.0.2/\r\n\r\n",
        ok("\x00\xff"),
    ],
)
def test_what_listens_there_and_is_no_model_server_is_passed_over(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(answer) as wrong, ScriptedLLM([]) as llm:
        monkeypatch.setattr(models, "_LOCAL_SERVERS", (("Wrong", wrong), ("Right", llm.url)))
        choice = choose_model()
    assert choice.name == "openai-chat:scripted"
    assert "Right" in str(choice.note)


def test_a_silent_server_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socketserver.TCPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as silent:
        monkeypatch.setattr(models, "_LOCAL_SERVERS", (("Silent", f"http://127.0.0.1:{silent.server_address[1]}"),))
        assert choose_model().name == "offline"


def test_only_this_machine_is_asked_and_only_if_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(url.startswith("http://127.0.0.1:") for _, url in LOCAL_SERVERS)
    monkeypatch.setattr(models, "_LOCAL_SERVERS", LOCAL_SERVERS)
    monkeypatch.setattr(models, "_first_model", lambda url: pytest.fail(f"asked {url}"))
    assert choose_model("gpt-4o").name == "openai-chat:gpt-4o"
    assert choose_model(api_key=KEY).name == "openai-chat:gpt-4o-mini"


def test_a_local_server_is_used_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], make_agent: Callable[..., Agent]
) -> None:
    monkeypatch.setattr(agent_module, "_told", set())
    with ScriptedLLM(lambda _: Say("Local.")) as llm:
        monkeypatch.setattr(models, "_LOCAL_SERVERS", (("Ollama", llm.url),))
        assert make_agent().chat("Hello") == make_agent().chat("Hello") == "Local."
        assert [request.method for request in llm.requests] == ["GET", "POST", "POST"]
        note = f"No model is configured: using scripted of the Ollama server found at {llm.url}.\n"
    assert capsys.readouterr().err == note


# Choosing, in a process of its own


def test_the_offline_model_says_so_once_and_choosing_loads_nothing() -> None:
    source = """
        import json, sys
        from praisonaiagents import Agent
        from praisonaiagents.agent import models
        models._LOCAL_SERVERS = ()
        agents = [Agent("A"), Agent("B")]
        chosen = [agents[0].model_name, Agent("C", llm="gpt-4o").model_name, Agent("D", llm="gemini/g").model_name]
        heavy = {"pydantic_ai", "pydantic", "openai", "anthropic", "httpx", "httpx2", "google"} & set(sys.modules)
        before = sorted(heavy)
        for agent in agents:
            agent.chat("Hello")
        print(json.dumps([chosen, before]))
    """
    note = f"{models._NOTHING_CONFIGURED}\n"
    assert python(source, stderr=note, is_bare=True) == [["offline", "openai-chat:gpt-4o", "google:g"], []]
