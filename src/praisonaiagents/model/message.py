"""A message: what was said once, by whom, and everything known about it.

It has the shape of an OpenAI chat message (role, content, tool_calls, tool_call_id, name) plus our own fields, and one
line of JSON holds it. What a reader would get wrong: a message is stored exactly or refused. JSON libraries turn NaN into
null, tuples into lists and numeric keys into text without a word; `check` finds all of that before anything is written.
Keys we do not know (a newer version's, or another program's) are kept in `extra` and written back as they were. So is a
key we know with a value of another type; only a null is the same as an absent key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from praisonaiagents.errors import InvalidMessage, MessageTooLarge

Content = str | list[Any] | dict[str, Any] | None

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100

_MAX_INT_BITS = 14_000  # Python neither writes nor reads an integer of more than 4,300 digits
_BYTES_PER_TOKEN = 4
_LONGEST_PATH = 80  # characters of a place that an error names
_MAX_EXACT_INT = 2**53  # a timestamp is read back as a float


class Message(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One message of a conversation.

    role: "system", "developer", "user", "assistant" or "tool".
    content: text, None, or a list of parts in the OpenAI shape (`{"type": "image_url", ...}`).
    timestamp: seconds since 1970, UTC. 0.0 means unknown.
    metadata: the caller's own JSON object.
    tool_calls: of an assistant message, `[{"id", "type": "function", "function": {"name", "arguments": JSON text}}]`.
    tool_call_id: of a tool message, the id of the call it answers.
    name: who said it, where that is not clear from the role: the tool, or one of several agents.
    id: unique in the session; the store gives one to a message that has none.
    reasoning: what the model thought, `[{"text", "signature"?, "id"?, "provider"?}]`.
    usage: tokens of this answer, `{"input_tokens", "output_tokens", ...}`.
    model: the model that answered.
    run_id: the turn this message belongs to; a turn is a user message and everything up to the answer.
    status: None, "failed" (the turn failed: the model does not see it again) or "interrupted" (a partial answer).
    agent: the agent in whose part of the session it was said, by name, or as `name:role`.
    extra: keys this version does not know, as they were found.
    """

    role: str
    content: Content
    timestamp: float = 0.0
    metadata: dict[str, Any] = {}
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    id: str = ""
    reasoning: list[Any] | None = None
    usage: dict[str, Any] | None = None
    model: str | None = None
    run_id: str | None = None
    status: str | None = None
    agent: str | None = None
    # a key named "extra" is one we do not know: an empty object, too, must not be taken for this field
    extra: Annotated[dict[str, Any], msgspec.Meta(min_length=1)] = {}

    def __repr__(self) -> str:
        """Who and which, but not what: a repr ends up in logs."""
        return f"Message(role={self.role!r}, id={self.id!r}, {len(self.text())} characters, {len(self.calls())} tool calls)"

    def to_dict(self) -> dict[str, Any]:
        """Everything that is set, as the JSON object that is stored; `content` is always there."""
        known: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, extra={}))
        return known | self.extra

    def to_chat(self) -> dict[str, Any]:
        """What a chat history shows: role, content and, where they are set, tool fields, name and status."""
        shown: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls is not None:
            shown["tool_calls"] = self.tool_calls
        if self.tool_call_id is not None:
            shown["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            shown["name"] = self.name
        if self.status is not None:
            shown["status"] = self.status
        return shown

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Message:
        """The inverse of `to_dict`. Unknown keys, and known ones of an unexpected type, go to `extra`; null means absent.

        Raises `InvalidMessage` if there is no role.
        """
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for key, value in values.items():
            if value is not None or key not in _TYPES:
                (known if _fits(key, value) else extra)[key] = value
        if "role" not in known:
            raise InvalidMessage("a message needs a role, and it is text")
        known.setdefault("content", None)
        return cls(**known, extra=extra)

    def calls(self) -> list[dict[str, Any]]:
        """The tool calls that have an id, in order; what is malformed is left out."""
        if self.role != "assistant":
            return []
        return [call for call in self.tool_calls or () if isinstance(call, dict) and isinstance(call.get("id"), str)]

    def text(self) -> str:
        """The readable text of the content: of a list of parts, the text parts, a line each."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content if isinstance(self.content, list) else []
        texts = (part.get("text") for part in parts if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))


_TYPES: dict[str, tuple[type, ...]] = {
    "role": (str,),
    "content": (str, list, dict, type(None)),
    "timestamp": (float, int),
    "metadata": (dict,),
    "tool_calls": (list, type(None)),
    "tool_call_id": (str, type(None)),
    "name": (str, type(None)),
    "id": (str,),
    "reasoning": (list, type(None)),
    "usage": (dict, type(None)),
    "model": (str, type(None)),
    "run_id": (str, type(None)),
    "status": (str, type(None)),
    "agent": (str, type(None)),
}
_values = attrgetter(*_TYPES)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def about_tokens(text: str) -> int:
    """About how many tokens a text costs: a quarter of its bytes in UTF-8.

    Close for English prose; it may be off by half for code and other scripts.
    """
    return len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN


def encode(message: Message) -> bytes:
    """The message as one line of JSON, without the line end. Checks nothing."""
    return _encoder.encode(message.to_dict() if message.extra else message)


def decode(line: bytes | memoryview) -> Message:
    """The inverse of `encode`. Raises `ValueError` for what is not one message."""
    try:
        message = _decoder.decode(line)
    except msgspec.ValidationError:
        pass  # valid JSON with keys or types we do not know
    else:
        if not message.extra:
            return message
    values = msgspec.json.decode(line)
    if not isinstance(values, dict):
        raise InvalidMessage("a message is a JSON object")
    return Message.from_dict(values)


def decode_or_none(line: bytes | None) -> Message | None:
    """`decode`, and None for what is not one message."""
    try:
        return decode(line or b"")
    except ValueError:
        return None


def decode_all(lines: Sequence[bytes | None]) -> list[Message | None]:
    """`decode_or_none` of each."""
    try:
        found = [_decoder.decode(line or b"") for line in lines]
    except ValueError:
        pass  # one of them is damaged or has keys we do not know: each is looked at alone
    else:
        if not any(message.extra for message in found):
            return list(found)
    return [decode_or_none(line) for line in lines]


def encode_checked(message: Message, max_bytes: int = MAX_MESSAGE_BYTES) -> bytes:
    """`encode`, after making sure that `decode` will give back exactly this message.

    Raises `InvalidMessage` naming what cannot be stored, `MessageTooLarge` above `max_bytes` of JSON.
    """
    check(message)
    try:
        line = _encoder.encode(message.to_dict() if message.extra else message)
    except UnicodeEncodeError as exc:
        raise InvalidMessage("the message contains half a character (a lone surrogate)") from exc
    if len(line) > max_bytes:
        raise MessageTooLarge(len(line), max_bytes)
    return line


def check(message: Message) -> None:
    """Raise `InvalidMessage` unless the message is made of JSON values only, the role is known and the types are right."""
    for key in _to_look_into(tuple(map(type, _values(message)))):
        if value := getattr(message, key):
            check_json(value, key)
    if message.role not in ROLES:
        raise InvalidMessage(f"unknown role; roles: {', '.join(ROLES)}")
    if not -_MAX_EXACT_INT <= message.timestamp <= _MAX_EXACT_INT:
        check_json(message.timestamp, "timestamp")
        if type(message.timestamp) is int:
            raise InvalidMessage("timestamp is a whole number too large to be a time in seconds")
    if message.extra or type(message.extra) is not dict:
        _check_extra(message)


@lru_cache(maxsize=256)  # a few combinations of types are all there are, and appends are measured
def _to_look_into(types: tuple[type, ...]) -> tuple[str, ...]:
    """Of fields of these types, those with something inside. Raises `InvalidMessage` for a type that does not fit."""
    for (key, fitting), given in zip(_TYPES.items(), types, strict=True):
        if given is bool or not issubclass(given, fitting):
            raise InvalidMessage(f"{key} cannot be {given.__name__}")
        if given not in fitting:
            raise InvalidMessage(f"{key} holds a {given.__name__}, which JSON cannot hold exactly")
    return tuple(key for key, given in zip(_TYPES, types, strict=True) if given in (list, dict))


def _check_extra(message: Message) -> None:
    if type(message.extra) is not dict:
        raise InvalidMessage(f"extra cannot be {type(message.extra).__name__}")
    check_json(message.extra, "extra")
    known = message.extra.keys() & _TYPES.keys()
    if known and Message.from_dict(message.to_dict()) != message:
        raise InvalidMessage(f"{', '.join(sorted(known))}: a field of the message cannot be in extra too")


def check_json(value: object, path: str, depth: int = MAX_DEPTH) -> None:
    """Raise `InvalidMessage`, naming the place, unless `value` is made of JSON values that come back as they are."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return
    if kind is int:
        if value.bit_length() > _MAX_INT_BITS:  # type: ignore[attr-defined]
            raise InvalidMessage(f"{path} is an integer of more than {_MAX_INT_BITS:,} bits")
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidMessage(f"{path} is {value}, which JSON cannot hold")
    elif depth == 0:
        raise InvalidMessage(f"{path} is nested deeper than {MAX_DEPTH} levels")
    elif kind is list:
        for item in value:  # type: ignore[attr-defined]
            check_json(item, f"{path}[]"[:_LONGEST_PATH], depth - 1)
    elif kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise InvalidMessage(f"{path} has a key that is not text but {type(key).__name__}")
            check_json(item, f"{path}.{key}"[:_LONGEST_PATH], depth - 1)
    else:
        raise InvalidMessage(f"{path} holds a {kind.__name__}, which JSON cannot hold exactly")


def _fits(key: str, value: object) -> bool:
    kinds = _TYPES.get(key)
    return kinds is not None and isinstance(value, kinds) and not isinstance(value, bool)
