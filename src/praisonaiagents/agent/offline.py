"""The built-in offline model: every path of an agent without a key, a network or an LLM.

The idea: it is a model like any other behind the library's interface, so chat, resume, streaming and tool calls run through the
very code that a real one runs through. What it says is a pure function of the messages it is given (see `recall`), so the same
history has the same answer in any process.

What a reader would get wrong: a sentence is a tool call only if every word of it is accounted for, as the tool's name, as an
argument or as a word that asks. "Add 2 and 3" is a call; "add 2 eggs and 3 apples to the list" is not one to `add(a, b)`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic_ai import ModelSettings, RequestUsage, RunContext, ToolDefinition
from pydantic_ai import messages as library
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse

from praisonaiagents.agent.recall import Said, first_person, reply, vocabulary
from praisonaiagents.memory.memory import HEADING

Call = tuple[str, dict[str, Any]]  # a tool's name and the arguments

NAME = "offline"
_OUTCOMES = {"success": "returned", "denied": "was not allowed:", "interrupted": "was interrupted:"}


class OfflineModel(Model[None]):
    """Deterministic and not an LLM: it recalls the conversation and calls the tools it is clearly asked to call."""

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def system(self) -> str:
        return NAME

    def prepare_messages(
        self, messages: list[library.ModelMessage], model_request_parameters: ModelRequestParameters | None = None
    ) -> list[library.ModelMessage]:
        """As they are: the notes that the library writes into a user's messages for an LLM were said by nobody."""
        return messages

    async def request(
        self,
        messages: list[library.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> library.ModelResponse:
        _, parameters = self.prepare_request(model_settings, model_request_parameters)
        parts = _answer(messages, parameters.declared_function_tools)
        heard = sum(len(said.text.split()) for said in _said(messages))
        usage = RequestUsage(input_tokens=heard, output_tokens=sum(map(_size, parts)))
        return library.ModelResponse(parts=parts, usage=usage, model_name=NAME, provider_name=NAME)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[library.ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: RunContext[Any] | None = None,
    ) -> AsyncGenerator[StreamedResponse]:
        response = await self.request(messages, model_settings, model_request_parameters)
        yield _WordByWord(model_request_parameters, response)


@dataclass
class _WordByWord(StreamedResponse):
    """A finished response as a stream. Only what was streamed is counted, so that an interrupted one is honest too."""

    response: library.ModelResponse

    async def _get_event_iterator(self) -> AsyncIterator[library.ModelResponseStreamEvent]:
        self._usage = RequestUsage(input_tokens=self.response.usage.input_tokens)
        for at, part in enumerate(self.response.parts):
            for piece in _pieces(part):
                if self.cancelled:
                    return
                self._usage += RequestUsage(output_tokens=_size(piece))
                for event in self._events(at, piece):
                    yield event

    def _events(self, at: int, piece: library.ModelResponsePart) -> Iterator[library.ModelResponseStreamEvent]:
        if isinstance(piece, library.TextPart):
            yield from self._parts_manager.handle_text_delta(vendor_part_id=at, content=piece.content)
        elif isinstance(piece, library.ToolCallPart):
            yield self._parts_manager.handle_tool_call_part(
                vendor_part_id=at, tool_name=piece.tool_name, args=piece.args_as_dict(), tool_call_id=piece.tool_call_id
            )

    async def close_stream(self) -> None:
        """There is no connection to close."""

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def provider_name(self) -> str:
        return NAME

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self.response.timestamp


# --- the library's messages ---


def _answer(
    messages: Sequence[library.ModelMessage], tools: Sequence[ToolDefinition]
) -> list[library.ModelResponsePart]:
    """Reports the results that came since the last answer, then answers the last message, if that came since then, too."""
    answered = max((at for at, message in enumerate(messages) if message.kind == "response"), default=-1)
    fresh = [part for message in messages[answered + 1 :] for part in message.parts]
    lines = [_outcome(part) for part in fresh if isinstance(part, library.ToolReturnPart)]
    asked = any(isinstance(part, library.UserPromptPart) for part in fresh)
    history = list(_said(messages))
    users = [at for at, said in enumerate(history) if said.who == "user"]
    message = history.pop(users[-1]).text if users else ""
    calls = tool_calls(message, tools) if asked else []
    if not calls and (asked or not lines):
        lines.append(reply([*_remembered(messages), *history], message))
    return [*([library.TextPart("\n".join(lines))] if lines else []), *_with_ids(calls, messages)]


def _remembered(messages: Sequence[library.ModelMessage]) -> Iterator[Said]:
    """What the last instructions tell of the user, as if the user had said it."""
    texts = [message.instructions or "" for message in messages if isinstance(message, library.ModelRequest)]
    _, _, known = (texts[-1] if texts else "").partition(HEADING)
    for line in known.strip().partition("\n\n")[0].splitlines():
        yield Said("user", first_person(line.removeprefix("- ")))


def _said(messages: Sequence[library.ModelMessage]) -> Iterator[Said]:
    arguments: dict[str, str] = {}
    for part in (part for message in messages for part in message.parts):
        if isinstance(part, library.UserPromptPart):
            yield Said("user", _text(part.content))
        elif isinstance(part, library.TextPart):
            yield Said("assistant", part.content)
        elif isinstance(part, library.ToolCallPart):
            arguments[part.tool_call_id] = part.args_as_json_str()
        elif isinstance(part, library.ToolReturnPart) and part.outcome == "success":
            yield Said("tool", part.model_response_str(), part.tool_name, arguments.get(part.tool_call_id, ""))


def _text(content: str | Sequence[library.UserContent]) -> str:
    items = [content] if isinstance(content, str) else content
    texts = (item.content if isinstance(item, library.TextContent) else item for item in items)
    return "\n".join(text for text in texts if isinstance(text, str))


def _outcome(part: library.ToolReturnPart) -> str:
    text = part.model_response_str(wrap_if_error=False).strip().removesuffix(".")
    return f"{part.tool_name} {_OUTCOMES.get(part.outcome, 'failed:')} {text or 'nothing'}."


def _with_ids(calls: Sequence[Call], messages: Sequence[library.ModelMessage]) -> Iterator[library.ToolCallPart]:
    """Ids that follow from all that was said before, earlier ids included: numbers would repeat once a history is cut."""
    if calls:
        ids = [getattr(part, "tool_call_id", "") for message in messages for part in message.parts]
        digest = hashlib.sha256(repr((ids, list(_said(messages)))).encode("utf-8", "backslashreplace")).hexdigest()
        for at, (name, args) in enumerate(calls):
            yield library.ToolCallPart(name, args, tool_call_id=f"offline_{digest[:12]}_{at}")


def _pieces(part: library.ModelResponsePart) -> list[library.ModelResponsePart]:
    if not isinstance(part, library.TextPart):
        return [part]
    return [library.TextPart(piece) for piece in re.findall(r"\S+\s*|\s+", part.content)]


def _size(part: library.ModelResponsePart) -> int:
    """Words, as an estimate of tokens."""
    text = part.args_as_json_str() if isinstance(part, library.ToolCallPart) else getattr(part, "content", "")
    return len(text.split())


# --- tool calls ---

_ASKING = vocabulary(
    "call use run invoke execute try please can could would want need like let's and then what what's how how's show tell get"
    " give find check search look fetch calculate compute"
)
_FILLING = _ASKING | vocabulary(
    "the a an tool function you i me us to with for now is are of also ok just go ahead it in up by plus current currently"
    " latest today right again thanks at on from about named called"
)
_GENERIC = vocabulary("get fetch find search lookup list show compute calculate check current")
_NO_VALUE = re.compile(r"\b(?:is|are|was|were|i|my|we|you|your|did|do|does)\b", re.I)
_PLACE = r"(?:(?:in|for|of) )?[A-Z]\w+(?: [A-Z]\w+)*"
_SEVERAL = re.compile(rf"\s*(?=in|for|of){_PLACE}(?:(?:, and|,| and) {_PLACE})+\W*")
_QUOTED = r"(?:\"[^\"]*\"|'[^']*')"
_NAMED = rf"\s*[=:]\s*(?P<value>{_QUOTED}|[^,;]+?(?=\s*(?:[,;)?!]|\.?$|\band\b|\s\w+\s*[=:])))"
_NUMBER = r"(?<![\w.])-?[0-9]{1,15}%s(?!\.?[0-9]|\w)"
_PATTERNS = {
    "integer": _NUMBER % "",
    "number": _NUMBER % r"(?:\.[0-9]{1,15})?",
    "boolean": r"\b(?:true|false|yes|no)\b",
    "string": _QUOTED,
}
_CAPITALS = r"(?P<value>(?-i:[A-Z]\w*(?: [A-Z]\w*)*))"
_LONGEST = 2000  # characters of a message in which a call is looked for


def tool_calls(message: str, tools: Sequence[ToolDefinition]) -> list[Call]:
    """The calls a message clearly asks for, in its order: read as one sentence, or else sentence by sentence."""
    text = " ".join(message.replace("’", "'").split())
    sentences = re.split(r"(?<=[.!?]) ", text)
    return _calls_in(text, tools) or [call for sentence in sentences for call in _calls_in(sentence, tools)]


def _calls_in(text: str, tools: Sequence[ToolDefinition]) -> list[Call]:
    handles = {handle: tool for tool in reversed(tools) for handle in _handles(tool.name)}
    if not handles or len(text) > _LONGEST:
        return []
    names = sorted((handle.replace(" ", r"[\s_-]+") for handle in handles), key=len, reverse=True)
    lead, *pieces = re.split(rf"(?<!\w)({'|'.join(names)})(?!\w)", text, flags=re.I)
    calls = []
    for mention, rest in zip(pieces[::2], pieces[1::2], strict=True):
        tool = handles.get(_spaced(mention))
        if not tool or not _asks_for(tool, mention, lead):
            return []
        for part in re.split(r",? and |, ", rest) if _SEVERAL.fullmatch(rest) else [rest]:
            if (args := _arguments(tool, part)) is not None:
                calls.append((tool.name, args))
            elif _left_over(tool, part):
                return []
    return calls


def _spaced(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name.lower()).strip()


def _handles(name: str) -> set[str]:
    """What a tool is called in a sentence: `get_weather` is "get weather" or "weather"."""
    whole = _spaced(name)
    return {handle for handle in (whole, " ".join(word for word in whole.split() if word not in _GENERIC)) if handle}


def _asks_for(tool: ToolDefinition, mention: str, lead: str) -> bool:
    """Whether the words before a tool's name ask for it. Its whole name may stand alone."""
    words = re.findall(r"[\w']+", lead.lower())
    alone = not words and _spaced(mention) == _spaced(tool.name)
    return alone or (_FILLING.issuperset(words) and not _ASKING.isdisjoint(words))


def _arguments(tool: ToolDefinition, text: str) -> dict[str, Any] | None:
    """The arguments this text gives. None where a required one is missing, or words are left over."""
    schema = tool.parameters_json_schema
    wanted = {name: _Value.of(spec, schema) for name, spec in schema.get("properties", {}).items()}
    required, said, args = set(schema.get("required", ())), _Text(text), dict[str, Any]()
    for name, value in wanted.items():
        given = _NAMED if value.free else rf"\s*(?:[=:]|is\b)?\s*(?P<value>{value.pattern})"
        if (raw := said.take(rf"(?<!\w)[\"']?{re.escape(name)}[\"']?{given}")) is not None:
            args[name] = value.read(raw)
    for name, value in sorted(wanted.items(), key=lambda item: item[1].free):
        if name not in args and (name in required or value.options):
            last = required - args.keys() == {name}
            if (found := value.next_in(said, _FILLING | wanted.keys() if last else None)) is not None:
                args[name] = found
    return args if required <= args.keys() and not _left_over(tool, said.left) else None


@dataclass
class _Text:
    """A text whose words are used up as values are found in it."""

    left: str

    def take(self, pattern: str) -> str | None:
        if not (found := re.search(pattern, self.left, re.I)):
            return None
        self.left = f"{self.left[: found.start()]} {self.left[found.end() :]}"
        return found["value"]

    def take_between(self, edges: Set[str]) -> str | None:
        """All that lies between these words in front and behind, unless it is a sentence of its own."""
        words = [word.strip(".,?!;:()").lower() for word in self.left.split()]
        inner = [at for at, word in enumerate(words) if word and word not in edges]
        rest = " ".join(self.left.split()[inner[0] : inner[-1] + 1]).strip(".,?!;:()") if inner else ""
        self.left = ""
        return None if _NO_VALUE.search(rest) else rest or None


@dataclass(frozen=True)
class _Value:
    """What a schema wants. Only simple values are read out of text: numbers, booleans, strings, enums and lists of these."""

    kind: str = ""
    options: tuple[Any, ...] = ()
    items: _Value | None = None

    @staticmethod
    def of(spec: Any, schema: Mapping[str, Any], depth: int = 5) -> _Value:
        """References resolved, to a depth, since a schema may refer to itself; of several options the first but null."""
        if not isinstance(spec, dict) or not depth:
            return _Value()
        inner = [option for option in spec.get("anyOf", ()) if option != {"type": "null"}]
        if "$ref" in spec:
            inner = [schema.get("$defs", {}).get(spec["$ref"].rpartition("/")[2])]
        if inner:
            return _Value.of(inner[0], schema, depth - 1)
        items = _Value.of(spec["items"], schema, depth - 1) if "items" in spec else None
        options = spec.get("enum", [spec["const"]] if "const" in spec else ())
        return _Value(str(spec.get("type", "")), tuple(option for option in options if str(option)), items)

    @property
    def free(self) -> bool:
        return self.kind == "string" and not self.options

    @property
    def pattern(self) -> str:
        options = "|".join(re.escape(str(option)) for option in self.options)
        return rf"(?<!\w)(?:{options})(?!\w)" if options else _PATTERNS.get(self.kind, r"(?!)")

    def read(self, raw: str) -> Any:
        if self.options:
            return next(option for option in self.options if re.fullmatch(re.escape(str(option)), raw, re.I))
        if self.kind in ("integer", "number"):
            return float(raw) if "." in raw else int(raw)
        return raw.lower() in ("true", "yes") if self.kind == "boolean" else raw.strip("\"'")

    def next_in(self, said: _Text, edges: Set[str] | None) -> Any:
        """The next value that fits. With `edges` no other is missing: a string may take all that lies between them."""
        if self.kind == "array" and self.items:
            pattern = rf"(?P<value>{self.items.pattern})"
            return [self.items.read(raw) for raw in iter(lambda: said.take(pattern), None)] or None
        if (raw := said.take(rf"(?P<value>{self.pattern})")) is not None:
            return self.read(raw)
        if self.free:
            return said.take(_CAPITALS) if edges is None else said.take_between(edges)
        return None


def _left_over(tool: ToolDefinition, text: str) -> set[str]:
    known = {*tool.parameters_json_schema.get("properties", {}), *re.findall(r"\w+", (tool.description or "").lower())}
    return set(re.findall(r"[\w']+", text.lower())) - _FILLING - known
