"""Which model an agent talks to.

In this order: what was passed, what the environment names, the provider whose key is set, a model server on this machine,
and at last the built-in offline model. Choosing imports nothing: the LLM library, and in it one provider's SDK, is
loaded when the model is built for the first turn.

Names are taken as users write them: `gpt-4o-mini`, `claude-haiku-4-5`, `anthropic/claude-haiku-4-5`, `openai:gpt-4o-mini`,
`openrouter/meta-llama/llama-3-70b`, `ollama/llama3.2:3b`, `offline`; with `base_url`, any name that server knows.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import ConfigError, ConfigTypeError, MissingDependency

OFFLINE = "offline"
PROBE_TIMEOUT_S = 0.2
_LONGEST_LISTING = 1_000_000  # bytes: whatever answers at such a port is not trusted
_NAME_VARIABLES = ("PRAISONAI_MODEL", "OPENAI_MODEL_NAME", "MODEL_NAME")
_SETTINGS = (
    "temperature",
    "max_tokens",
    "top_p",
    "seed",
    "timeout",
    "stop_sequences",
    "presence_penalty",
    "frequency_penalty",
)
_EXTRAS = ("anthropic", "google", "groq", "mistral")


class _Provider(NamedTuple):
    """A provider as the LLM library names it, the variables its key may be in, and the model taken if none is named."""

    name: str
    keys: tuple[str, ...]
    default: str


_PROVIDERS = (
    _Provider("openai", ("OPENAI_API_KEY",), "gpt-4o-mini"),
    _Provider("anthropic", ("ANTHROPIC_API_KEY",), "claude-haiku-4-5"),
    _Provider("google", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "gemini-2.5-flash"),
    _Provider("mistral", ("MISTRAL_API_KEY",), "mistral-small-latest"),
    _Provider("groq", ("GROQ_API_KEY",), "llama-3.3-70b-versatile"),
    _Provider("deepseek", ("DEEPSEEK_API_KEY",), "deepseek-chat"),
    _Provider("openrouter", ("OPENROUTER_API_KEY",), "openrouter/auto"),
)
_OTHER_PROVIDERS = frozenset(
    "alibaba azure bedrock cerebras cohere fireworks google-cloud heroku huggingface moonshotai nebius "
    "ollama openai-chat openai-responses ovhcloud sambanova together vercel vllm xai zai".split()
)
_KNOWN = _OTHER_PROVIDERS | {provider.name for provider in _PROVIDERS}
_ALIASES = {"openai": "openai-chat", "gemini": "google", "vertex": "google-cloud", "together_ai": "together"}
_FAMILIES = {
    "gpt-": "openai",
    "chatgpt-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "claude": "anthropic",
    "gemini": "google",
    "mistral": "mistral",
    "codestral": "mistral",
    "deepseek": "deepseek",
    "grok": "xai",
    "command": "cohere",
}
_LOCAL_SERVERS = (
    ("Ollama", "http://127.0.0.1:11434"),
    ("LM Studio", "http://127.0.0.1:1234"),
    ("llama.cpp", "http://127.0.0.1:8080"),
)
_NOTHING_CONFIGURED = (
    "No model is configured: answering with the built-in offline model, which is not an LLM. "
    "To connect a real one, set OPENAI_API_KEY (or ANTHROPIC_API_KEY, ...), start Ollama, or pass llm=."
)


class ModelChoice(msgspec.Struct, frozen=True):
    """A model that was chosen but not built. `note` is what the user should be told about the choice, once.

    name: `provider:model` in the LLM library's words, `offline`, or "" if `instance` is a model already.
    """

    name: str
    base_url: str | None = None
    api_key: str | None = None
    settings: dict[str, Any] = {}
    note: str | None = None
    instance: Any = None

    def __repr__(self) -> str:
        return f"ModelChoice({self.name!r})"  # a key may also be in the URL

    def build(self) -> Any:
        """The LLM library's model. Raises `MissingDependency` if its provider needs an extra, `ConfigError`."""
        if self.instance is not None:
            return self.instance
        if self.name == OFFLINE:
            from praisonaiagents.agent.offline import OfflineModel

            return OfflineModel()
        return _build(self)


def choose_model(llm: Any = None, *, base_url: str | None = None, api_key: str | None = None) -> ModelChoice:
    """Choose a model. `llm` is a name, a dict (`model`, `base_url`, `api_key` and settings), a library model, or None.

    Raises `ConfigError` for a name that fits no provider, `ConfigTypeError` for another type.
    """
    settings: dict[str, Any] = {}
    if isinstance(llm, Mapping):
        llm, base_url, api_key, settings = _of_mapping(llm, base_url, api_key)
    if llm is not None and not isinstance(llm, str):
        if not hasattr(llm, "request"):
            raise ConfigTypeError(f"llm= takes a model name, a dict or a model, not {type(llm).__name__}")
        return ModelChoice("", instance=llm)
    name = (llm or next(filter(None, map(os.environ.get, _NAME_VARIABLES)), "")).strip()
    if name or base_url:
        return _named(name, base_url, api_key, settings)
    return _by_key(api_key, settings) or find_local_server() or ModelChoice(OFFLINE, note=_NOTHING_CONFIGURED)


@functools.cache
def find_local_server() -> ModelChoice | None:
    """A model server that answers on this machine's own ports, asked once per process."""
    for title, url in _LOCAL_SERVERS:
        name = _first_model(url)
        if name:
            note = f"No model is configured: using {name} of the {title} server found at {url}."
            return ModelChoice(f"openai-chat:{name}", f"{url}/v1", "not-needed", note=note)
    return None


def _of_mapping(
    llm: Mapping[str, Any], base_url: str | None, api_key: str | None
) -> tuple[Any, Any, Any, dict[str, Any]]:
    rest = dict(llm)
    name = rest.pop("model", None) or rest.pop("name", None)
    base_url, api_key = rest.pop("base_url", base_url), rest.pop("api_key", api_key)
    return name, base_url, api_key, check_settings(rest)


def check_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The model settings that are not None. Raises `ConfigTypeError` for a name that is no setting."""
    unknown = sorted(set(settings) - set(_SETTINGS))
    if unknown:
        raise ConfigTypeError(f"unknown model settings: {', '.join(unknown)}; known: {', '.join(_SETTINGS)}")
    return {name: value for name, value in settings.items() if value is not None}


def _named(name: str, base_url: str | None, api_key: str | None, settings: dict[str, Any]) -> ModelChoice:
    if name == OFFLINE:
        return ModelChoice(OFFLINE)
    provider, model = _split(name, families=not base_url)
    base_url = base_url or (_environment_url() if provider in (None, "openai") else None)
    if provider is None and base_url:
        provider = "openai"
    if provider is None:
        raise ConfigError(
            f"no provider is known for the model {name!r}: write provider/model (openai/..., anthropic/..., ollama/...), "
            "or pass base_url= for an OpenAI-compatible server"
        )
    if base_url and not model:
        raise ConfigError("base_url= needs a model name too: pass llm=")
    if provider == "ollama" and not base_url:
        base_url = "http://127.0.0.1:11434/v1"
    if base_url and not api_key and not _key_of(provider):
        api_key = "not-needed"
    return ModelChoice(f"{_ALIASES.get(provider, provider)}:{model}", base_url, api_key, settings)


def _split(name: str, *, families: bool) -> tuple[str | None, str]:
    """(provider, model) of a name as users write it; no provider if none is recognised.

    families: whether the model's name alone may tell. A server of the user's own may call its models anything.
    """
    for separator in ("/", ":"):
        head, found, tail = name.partition(separator)
        if found and tail and (head in _KNOWN or head in _ALIASES):
            return head, tail
    known = _FAMILIES.items() if families else ()
    return next((provider for prefix, provider in known if name.startswith(prefix)), None), name


def _by_key(api_key: str | None, settings: dict[str, Any]) -> ModelChoice | None:
    for provider in _PROVIDERS:
        if _key_of(provider.name) or (api_key and provider.name == "openai"):
            return _named(f"{provider.name}:{provider.default}", None, api_key, settings)
    return None


def _key_of(provider: str) -> str | None:
    keys = next((known.keys for known in _PROVIDERS if known.name == provider), ())
    return next((os.environ[key] for key in keys if os.environ.get(key)), None)


def _environment_url() -> str | None:
    return os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_BASE") or None


def _first_model(url: str) -> str | None:
    """The first model an OpenAI-compatible server lists, if one answers at once."""
    import http.client
    import json

    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/v1/models")
        name = json.loads(connection.getresponse().read(_LONGEST_LISTING))["data"][0]["id"]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return None
    finally:
        connection.close()
    return name if isinstance(name, str) else None


def _build(choice: ModelChoice) -> Any:
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model
    from pydantic_ai.providers import infer_provider_class

    given = {"base_url": choice.base_url, "api_key": choice.api_key}
    options = {name: value for name, value in given.items() if value}
    provider = choice.name.partition(":")[0]
    try:
        return infer_model(choice.name, lambda name: infer_provider_class(name)(**options))
    except ImportError as exc:
        package = "praisonaiagents" if provider in _EXTRAS else "pydantic-ai-slim"
        raise MissingDependency(f"the model {choice.name!r}", provider, package) from exc
    except (UserError, TypeError, ValueError) as exc:
        raise ConfigError(f"the model {choice.name!r} cannot be used: {exc}") from exc
