"""A session as Markdown and HTML: all of it is there, and nothing that was said becomes markup, a script or a request."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from praisonaiagents.errors import SessionNotFound
from praisonaiagents.model.message import Message
from praisonaiagents.model.record import Key
from praisonaiagents.session import SessionStore
from praisonaiagents.session.transfer import to_html, to_markdown
from praisonaiagents.storage.memory import MemoryEngine

KEY = Key("default_user", "s")
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": "</pre><script>"}'}}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
HOSTILE = [
    "<script>alert(1)</script>",
    "</div></article><img src=x onerror=alert(1)>",
    "&lt;b&gt; \" ' ` <!-- -->",
    "]]> </style> </title>",
    "\0\x1b[2J\x07\x9b31m",
    "\u202egnp.exe\u2066",
    "```\n````\nend",
]


class Page(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def engine_with(*messages: Message, **metadata: Any) -> MemoryEngine:
    engine = MemoryEngine()
    SessionStore(engine).append("s", messages or [Message("user", "hello")])
    engine.update(KEY, {"metadata": metadata, "agent_name": "Anna"})
    return engine


def page_of(engine: MemoryEngine) -> Page:
    page = Page("".join(to_html(engine, KEY)))
    assert page.open == []
    return page


def markdown(engine: MemoryEngine) -> str:
    return "".join(to_markdown(engine, KEY))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_was_said_becomes_no_markup(hostile: str) -> None:
    plain = page_of(engine_with(Message("user", "x", name="n"), title="t"))
    page = page_of(
        engine_with(
            Message("user", hostile, name=hostile),
            Message("assistant", None, reasoning=[{"text": hostile}], tool_calls=[_calling(hostile, hostile)]),
            Message("tool", hostile, status=hostile),
            Message(
                "user", [{"type": "image_url", "image_url": {"url": hostile}}, {"type": hostile}, hostile, 1, None]
            ),
            title=hostile,
            model=hostile,
        )
    )
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {
        "details",
        "summary",
        "pre",
        "p",
        "span",
        "br",
    }
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    shown = "".join(page.text)
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    if "\0" not in hostile and "\u202e" not in hostile:
        assert shown.count(hostile) >= 7


def _calling(name: str, arguments: str) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_page_needs_nothing_but_itself() -> None:
    page = page_of(
        engine_with(Message("user", [_image(PIXEL), _image("https://example.org/x.png"), _image("javascript:1")]))
    )
    assert [attributes["src"] for attributes in page.named("img")] == [PIXEL]
    assert page.named("script") == page.named("link") == page.named("iframe") == page.named("a") == []
    [policy] = [found["content"] for found in page.named("meta") if found.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "https://example.org/x.png" in "".join(page.text)
    assert not any("url(" in text or "@import" in text for text in page.text)
    assert any("color-scheme: light dark" in text for text in page.text)


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    "url",
    ["data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", 'data:image/png;base64,A" onerror=', "data:,x"],
)
def test_only_pictures_are_shown_as_pictures(url: str) -> None:
    assert page_of(engine_with(Message("user", [_image(url)]))).named("img") == []
    assert f"![image]({url})" not in markdown(engine_with(Message("user", [_image(url)])))


def test_calls_and_results_can_be_opened() -> None:
    messages = (
        Message("user", "add"),
        Message("assistant", "I add.", tool_calls=[CALL, "malformed"]),
        Message("tool", "3" * 5000, tool_call_id="call_1", name="add"),
        Message("tool", None),
        Message("assistant", [{"type": "text", "text": "It is 3."}], timestamp=1790841600.0),
    )
    page = page_of(engine_with(*messages))
    shown = "".join(page.text)
    assert len(page.named("details")) == len(page.named("summary")) == 4
    assert [attributes["class"] for attributes in page.named("article")] == [m.role for m in messages]
    for part in (
        "Calls add",
        '{"a": "</pre><script>"}',
        "Result: 5,000 characters",
        "3" * 5000,
        "It is 3.",
        "tool: add",
    ):
        assert part in shown
    assert {"datetime": "2026-10-01T08:00:00+00:00"} in page.named("time")
    text = markdown(engine_with(*messages))
    for part in (
        "### assistant\n\nI add.",
        'Calls `add`:\n\n```json\n{"a": "</pre><script>"}\n```',
        "3" * 5000,
        "### tool: add",
    ):
        assert part in text


def test_markdown_is_fenced_where_it_is_no_prose() -> None:
    text = markdown(
        engine_with(Message("tool", "```\n# no heading\n````"), Message("user", [{"type": "audio", "n": 1}]))
    )
    assert "`````\n```\n# no heading\n````\n`````" in text
    assert '```json\n{\n  "type": "audio",\n  "n": 1\n}\n```' in text
    text = markdown(engine_with(title="one\n## two \x1b[2J", model="m\n- x"))
    assert text.startswith("# one ## two \u241b[2J\n")
    assert "- **Model**: m - x\n" in text


def test_what_stands_at_the_top_tells_what_it_is() -> None:
    for shown in ("".join(page_of(engine_with(title="About")).text), markdown(engine_with(title="About"))):
        for part in ("About", "default_user", "Anna", "Created", "Updated", "Messages"):
            assert part in shown
    assert markdown(engine_with(title=3)).startswith("# s\n")


def test_only_what_the_session_shows_is_shown() -> None:
    engine = engine_with(*(Message("user", f"text {number}") for number in range(2000)))
    engine.update(KEY, {"start": 1990})
    assert re.findall(r"text \d+", markdown(engine)) == [f"text {number}" for number in range(1990, 2000)]
    for form in (to_html, to_markdown):
        with pytest.raises(SessionNotFound):
            list(form(engine, Key("alice", "s")))
    SessionStore(engine).open_session("empty")
    assert "".join(to_html(engine, Key("default_user", "empty"))).endswith("</html>\n")


def test_times_that_make_no_sense_are_left_out() -> None:
    page = page_of(engine_with(Message("user", "a", timestamp=-5.0), Message("user", "b", timestamp=1e15)))
    assert len(page.named("article")) == 2
    assert page.named("time") == []
