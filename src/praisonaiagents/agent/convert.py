"""Between our stored messages and the LLM library's.

The stored shape is ours, so that a session outlives any library; the library's messages are made at call time and thrown
away. Reasoning is stored but not sent again: a provider accepts only its own, and asks for it only within one turn, where
the library keeps it by itself.

What a reader would get wrong: nothing in a history may raise here, because a session that holds it could never be used
again. What cannot be sent is named in the text, or left out where a provider would refuse it (text of blanks only).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from pydantic_ai.messages import (
    AudioUrl,
    BinaryContent,
    DocumentUrl,
    FilePart,
    ImageUrl,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
    VideoUrl,
)

from praisonaiagents.errors import InvalidMessage
from praisonaiagents.model.message import Content, Message

NOTHING = "(no output)"  # for a tool result of blanks only, which Anthropic refuses
_URL_PARTS = {"image_url": ImageUrl, "audio_url": AudioUrl, "video_url": VideoUrl, "document_url": DocumentUrl}


def to_library(messages: Sequence[Message]) -> list[ModelMessage]:
    """Repaired stored messages as the library takes them."""
    return [_response(message) if message.role == "assistant" else _request(message) for message in messages]


def check_prompt(content: Content) -> None:
    """Raise `InvalidMessage` if a part of a prompt cannot be sent to any model."""
    for part in content if isinstance(content, list) else ():
        _user_part(part)


def answer(response: ModelResponse, run_id: str) -> Message:
    """A model's answer as we store it, its tool calls included."""
    calls = [_stored_call(part) for part in response.parts if isinstance(part, ToolCallPart)]
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    files = [part.content for part in response.parts if isinstance(part, FilePart)]
    return Message(
        role="assistant",
        content=_stored_content(text, files) or (None if calls else ""),
        tool_calls=calls or None,
        reasoning=[_stored_thought(part) for part in response.parts if isinstance(part, ThinkingPart)] or None,
        usage=_stored_usage(response),
        model=response.model_name,
        run_id=run_id,
    )


def tool_result(part: ToolReturnPart, run_id: str) -> Message:
    """What a tool returned, as we store it: what the model sees. A failed call is marked."""
    return Message(
        role="tool",
        content=_stored_content(part.model_response_str(wrap_if_error=False), part.files),
        tool_call_id=part.tool_call_id,
        name=part.tool_name,
        run_id=run_id,
        status=None if part.outcome == "success" else "failed",
    )


def _request(message: Message) -> ModelRequest:
    part: ModelRequestPart
    if message.role == "tool":
        part = _tool_return(message)
    elif message.role == "user":
        part = UserPromptPart(_user_content(message.content))
    else:
        part = SystemPromptPart(message.text())
    return ModelRequest(parts=[part])


def _tool_return(message: Message) -> ToolReturnPart:
    content = _returned(message)
    complaints = _complaints(content) if message.status == "failed" and isinstance(content, str) else None
    return ToolReturnPart(
        tool_name=_name(message.name),
        content=complaints or content,
        tool_call_id=message.tool_call_id or "",
        outcome="retried" if complaints else "failed" if message.status == "failed" else "success",
    )


def _complaints(text: str) -> list[Any] | None:
    """What was wrong with a call's arguments: the library sends that as JSON, where the text of an error is text."""
    try:
        value = json.loads(text) if text.startswith("[") else None
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def _response(message: Message) -> ModelResponse:
    parts: list[Any] = [TextPart(message.text())] if message.text().strip() else []
    for call in message.calls():
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        arguments = function.get("arguments")
        arguments = arguments if isinstance(arguments, (str, dict)) else json.dumps(arguments or {})
        parts.append(ToolCallPart(_name(function.get("name")), arguments, tool_call_id=call["id"]))
    return ModelResponse(parts=parts, model_name=message.model)


def _name(name: object) -> str:
    return name if name and isinstance(name, str) else "tool"


def _returned(message: Message) -> Any:
    content = _user_content(message.content)
    if isinstance(content, list) and all(isinstance(part, str) for part in content):
        content = "\n".join(map(str, content))
    if isinstance(content, list) and len(content) == 1:
        return content[0]
    return content or NOTHING


def _user_content(content: Content) -> str | list[UserContent]:
    if isinstance(content, list):
        parts = [_user_part_or_note(part) for part in content]
        return [part for part in parts if part] or ""
    text = content if isinstance(content, str) else "" if content is None else json.dumps(content)
    return text if text.strip() else ""


def _user_part_or_note(part: Any) -> UserContent:
    try:
        return _user_part(part)
    except InvalidMessage as exc:
        return f"[{exc}]"


def _user_part(part: Any) -> UserContent:
    """One part of a message in the OpenAI shape; text of blanks only is empty. Raises `InvalidMessage`."""
    kind = part.get("type") if isinstance(part, dict) else None
    try:
        if isinstance(part, str) or kind == "text":
            text = part if isinstance(part, str) else str(part["text"])
            return text if text.strip() else ""
        if kind == "input_audio":
            audio = part["input_audio"]
            return BinaryContent(base64.b64decode(audio["data"]), media_type=f"audio/{audio['format']}")
        if kind in _URL_PARTS:
            value = part[kind]
            url = value["url"] if isinstance(value, dict) else value
            return BinaryContent.from_data_uri(url) if url.startswith("data:") else _URL_PARTS[kind](url)
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise InvalidMessage(f"a part of type {kind!r} that cannot be read") from exc
    raise InvalidMessage(f"a part of type {kind!r} that cannot be shown")


def _stored_call(part: ToolCallPart) -> dict[str, Any]:
    function = {"name": part.tool_name, "arguments": part.args_as_json_str()}
    return {"id": part.tool_call_id, "type": "function", "function": function}


def _stored_content(text: str, files: Sequence[Any]) -> Content:
    """Text, or a list of parts in the OpenAI shape if there are files."""
    parts = [{"type": "text", "text": text}] if text else []
    return [*parts, *map(_stored_file, files)] if files else text


def _stored_file(file: Any) -> dict[str, Any]:
    if isinstance(file, BinaryContent):
        url, media = file.data_uri, file.media_type.partition("/")[0]
    else:
        url, media = getattr(file, "url", ""), file.kind.partition("-")[0]
    kind = f"{media}_url" if f"{media}_url" in _URL_PARTS else "document_url"
    return {"type": kind, kind: {"url": url}}


def _stored_thought(part: ThinkingPart) -> dict[str, Any]:
    thought = {"text": part.content, "signature": part.signature, "id": part.id, "provider": part.provider_name}
    return {name: value for name, value in thought.items() if value is not None}


def _stored_usage(response: ModelResponse) -> dict[str, Any] | None:
    usage = response.usage
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cache_read_tokens": usage.cache_read_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
    }
    known = {name: count for name, count in counts.items() if count}
    return known or None
