"""A session as people read it: Markdown, or one HTML file that opens in any browser.

What a reader would get wrong: what was said is foreign text. In HTML it is escaped, the file runs no script, loads nothing
from anywhere, and shows images only where their bytes are in it. In Markdown it stands as it was said, since models answer in
Markdown; only what is not prose (calls of tools, results, JSON) is fenced.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Record
from praisonaiagents.session.data import iso

_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif|bmp);base64,[A-Za-z0-9+/=\s]+")
_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_VISIBLE = _PICTURES | dict.fromkeys((*range(0x80, 0xA0), *_BIDI), 0xFFFD)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --user: #3b82f622; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { opacity: .7; } dd { margin: 0; overflow-wrap: anywhere; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; margin: .8rem 0; }
article.user { background: var(--user); } article.system, article.tool { background: var(--soft); }
header { display: flex; gap: .8rem; font-size: .85rem; } header b { text-transform: capitalize; } header time { opacity: .7; }
.text, pre { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext; margin: .4rem 0; }
pre { font-size: .85rem; background: var(--soft); padding: .5rem; border-radius: .3rem; }
img { max-width: 100%; height: auto; } summary { cursor: pointer; overflow-wrap: anywhere; }
.note { font-style: italic; opacity: .8; }
"""


def to_markdown(record: Record, messages: Iterable[Message]) -> Iterator[str]:
    """The conversation as Markdown, piece by piece."""
    yield f"# {_line(_title(record))}\n\n"
    yield "".join(f"- **{name}**: {_line(value)}\n" for name, value in _facts(record))
    yield "\n## Conversation\n"
    for message in messages:
        yield f"\n### {_line(_speaker(message))}\n"
        yield "".join(f"\n{piece}\n" for piece in _markdown_pieces(message))


def _markdown_pieces(message: Message) -> Iterator[str]:
    if message.status:
        yield f"*{_line(message.status)}*"
    for thought in _thoughts(message):
        yield "\n".join(f"> {line}" for line in thought.splitlines())
    if message.role == "tool":
        yield _fenced(message.text() or _as_json(message.content))
    parts = (part for part in _parts(message) if message.role != "tool" or not isinstance(part, str))
    yield from filter(None, map(_markdown_part, parts))
    for name, arguments in _calls(message):
        yield f"Calls `{_line(name).replace('`', '')}`:\n\n{_fenced(arguments, 'json')}"


def _markdown_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if image := _image(part):
        return f"![image]({image})"
    if address := _address(part):
        return f"Image: `{_line(address).replace('`', '')}`"
    return _fenced(_as_json(part), "json")


def _fenced(text: str, language: str = "") -> str:
    """A block of code whose fence is longer than any in the text."""
    longest = max((len(found) for found in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def to_html(record: Record, messages: Iterable[Message]) -> Iterator[str]:
    """The conversation as one HTML file, piece by piece."""
    title = _escaped(_title(record))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield '<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<dl>\n"
    yield "".join(f"<dt>{_escaped(name)}</dt><dd>{_escaped(value)}</dd>\n" for name, value in _facts(record))
    yield "</dl>\n<main>\n"
    for message in messages:
        yield from _article(message)
    yield "</main>\n</body>\n</html>\n"


def _article(message: Message) -> Iterator[str]:
    yield f'<article class="{_escaped(message.role)}">\n<header><b>{_escaped(_speaker(message))}</b>'
    if said := iso(message.timestamp if 0 < message.timestamp < 2e11 else 0.0):
        yield f'<time datetime="{said}">{said[:19].replace("T", " ")} UTC</time>'
    if message.status:
        yield f'<span class="note">{_escaped(message.status)}</span>'
    yield "</header>\n"
    for thought in _thoughts(message):
        yield _details("Reasoning", thought)
    if message.role == "tool":
        text = message.text() or _as_json(message.content)
        yield _details(f"Result: {len(text):,} characters", text)
    yield from map(
        _html_part, (part for part in _parts(message) if message.role != "tool" or not isinstance(part, str))
    )
    for name, arguments in _calls(message):
        yield _details(f"Calls {name}", arguments)
    yield "</article>\n"


def _html_part(part: Any) -> str:
    if isinstance(part, str):
        return f'<div class="text" dir="auto">{_escaped(part)}</div>\n' if part else ""
    if image := _image(part):
        return f'<img src="{_escaped(image)}" alt="image">\n'
    if address := _address(part):
        return f'<p class="note">Image: {_escaped(address)}</p>\n'
    return _details("Other content", _as_json(part))


def _details(summary: str, text: str) -> str:
    return f'<details><summary>{_escaped(summary)}</summary><pre dir="auto">{_escaped(text)}</pre></details>\n'


# What there is to show


def _title(record: Record) -> str:
    title = record.metadata.get("title") or record.extra.get("title")
    return title if isinstance(title, str) and title.strip() else record.session_id


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "Session", record.session_id
    yield "User", record.user_id
    if record.agent_name:
        yield "Agent", record.agent_name
    if model := record.metadata.get("model") or record.metadata.get("llm"):
        yield "Model", str(model)
    if record.created_at:
        yield "Created", iso(record.created_at)
    if record.updated_at:
        yield "Updated", iso(record.updated_at)
    yield "Messages", f"{record.message_count:,}"


def _speaker(message: Message) -> str:
    return f"{message.role}: {message.name}" if message.name else message.role


def _thoughts(message: Message) -> Iterator[str]:
    for thought in message.reasoning or ():
        if isinstance(thought, dict) and isinstance(thought.get("text"), str) and thought["text"]:
            yield thought["text"]


def _parts(message: Message) -> Iterator[Any]:
    """The parts of the content: texts as texts."""
    content = message.content
    for part in content if isinstance(content, list) else [content] if content else []:
        text = part.get("text") if isinstance(part, dict) else None
        yield text if isinstance(text, str) else part


def _image(part: Any) -> str | None:
    """The picture of a part, if its bytes are in it."""
    address = _address(part)
    return address if address and _IMAGE.fullmatch(address) else None


def _address(part: Any) -> str | None:
    if not isinstance(part, dict) or part.get("type") not in ("image_url", "input_image"):
        return None
    given = part.get("image_url")
    address = given.get("url") if isinstance(given, dict) else given
    return address if isinstance(address, str) else None


def _calls(message: Message) -> Iterator[tuple[str, str]]:
    """Name and arguments of the tool calls, also of malformed ones."""
    for call in message.tool_calls or ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            arguments = function.get("arguments")
            yield str(function.get("name")), arguments if isinstance(arguments, str) else _as_json(arguments)
        else:
            yield "a tool", _as_json(call)


def _as_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() if value is not None else ""


def _escaped(text: str) -> str:
    """For HTML, with control characters, and those that turn the order of reading, made visible."""
    return html.escape(text.translate(_VISIBLE))


def _line(text: str) -> str:
    """On one line, without characters that control a terminal."""
    return " ".join(text.translate(_VISIBLE).split())
