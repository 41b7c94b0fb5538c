"""The page, cut into the items that make a promise, and the only way to run one of its code blocks.

`page.md` is a verbatim copy of the product's page. `items()` cuts it into code blocks, command lines, table rows, diagram
steps, cards, notes and bullets, each with an id made of the page's own titles. A test says `@covers("id", ...)` for what it
tests; `test_checklist.py` fails for an item without a test.

What a reader would get wrong: the tests never hold a copy of the page's code. `code`, `run_block` and `run_script` take it
from `page.md`, and the table `SUBSTITUTIONS` below is all that may differ from what a user would paste.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forked
import pytest

PAGE = Path(__file__).with_name("page.md")

TIMEOUT_S = 300
"""For a process that a test starts: long enough for a slow machine, so that only a hang meets it."""


def covers(*ids: str) -> pytest.MarkDecorator:
    """`@covers("id", ...)`: this test tests these items. The ids must be literals, for the checklist reads the source."""
    return pytest.mark.covers(*ids)


def later(what: str) -> pytest.MarkDecorator:
    """Tests something not built yet. The day it is built the test passes, and strict xfail asks to remove the mark."""
    return pytest.mark.xfail(strict=True, reason=f"not built yet: {what}")


# ---- what may differ from the page's text ----


@dataclass(frozen=True)
class Substitution:
    """`how` is what a test may do: replace the `page`'s text, give a free name as a global, or set an environment variable.

    `name` is the keyword of `code`, `run_block` and `run_script`, or the variable.
    """

    name: str
    how: str  # text, global or environment
    page: str
    why: str


SUBSTITUTIONS = (
    Substitution("user_id", "global", "user_id", "Pattern 1 and 3 use the name and leave it to the reader"),
    Substitution("task_id", "global", "task_id", "Pattern 3 uses the name and leaves it to the reader"),
    Substitution("agent_url", "text", "http://192.168.1.100:8000/agent", "host and port: the test's own server"),
    Substitution(
        "postgres", "text", "postgresql://user:pass@localhost/mydb", "login, host, port: the test's own database"
    ),
    Substitution("postgres", "text", "postgresql://localhost/mydb", "host and port: the test's own database"),
    Substitution("redis", "text", "redis://localhost:6379", "host and port: the test's own server"),
    Substitution("PIP_CONSTRAINT", "environment", "pip install praisonaiagents", "pip takes our wheel for that name"),
)


# ---- the items ----


@dataclass(frozen=True)
class Item:
    """One promise of the page. `text` is what it says, dedented; `line` is where it begins, counted from 1."""

    id: str
    kind: str  # block, command, row, step, card, note, warning or bullet
    section: str  # slugs of the titles above it, joined by "/"
    text: str
    language: str  # of the text: python, bash, mermaid or markdown
    line: int


@dataclass(frozen=True)
class _Line:
    number: int
    section: str
    text: str
    fence: int  # the number of the line that opened the code block this line is in; 0 outside of one


@dataclass(frozen=True)
class _Fence:
    section: str
    language: str
    title: str
    text: str
    line: int


_FENCE = re.compile(r"\s*```(?P<language>\w+)?(?: (?P<title>\w+))?(?: theme=.*)?$")
_HEADING = re.compile(r"(?P<depth>#{1,3}) (?P<title>.+)")
_ACCORDION = re.compile(r'\s*<Accordion title="(?P<title>[^"]+)"')
_CARD = re.compile(r'\s*<Card title="(?P<title>[^"]+)"')


def slug(text: str) -> str:
    """Lower-case words joined by "-": emoji, quotes, apostrophes and punctuation are dropped."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("\\", "")))


@cache
def items() -> tuple[Item, ...]:
    """Every item of the page, in the order of the page. Ids are unique."""
    lines = tuple(_lines(PAGE.read_text(encoding="utf-8").splitlines()))
    fences = tuple(_fences(lines))
    found = [*_blocks(fences), *_commands(fences), *_steps(fences), *_rows(lines), *_cards(lines), *_bullets(lines)]
    found += [*_tagged(lines, "Note"), *_tagged(lines, "Warning")]
    ids = [item.id for item in found]
    repeated = sorted({one for one in ids if ids.count(one) > 1})
    if repeated:
        raise ValueError(f"two items of the page have one id: {repeated}")
    return tuple(sorted(found, key=lambda item: item.line))


def item(id: str) -> Item:
    """The item of this id. KeyError if the page has none."""
    return {item.id: item for item in items()}[id]


def _lines(page: Iterable[str]) -> Iterator[_Line]:
    titles: dict[int, str] = {}  # depth of the title -> its slug; an accordion lies below the headings
    fence = 0
    for number, text in enumerate(page, start=1):
        mark = _FENCE.match(text)
        if mark and fence:
            yield _Line(number, "/".join(titles.values()), text, fence)
            fence = 0
            continue
        if mark:
            fence = number
        if not fence:
            titles = _titles_after(titles, text)
        yield _Line(number, "/".join(titles.values()), text, fence)


def _titles_after(titles: Mapping[int, str], text: str) -> dict[int, str]:
    if heading := _HEADING.match(text):
        depth = len(heading["depth"])
        above = {d: title for d, title in titles.items() if 1 < d < depth}
        return above | {depth: slug(heading["title"])}
    if accordion := _ACCORDION.match(text):
        return {d: title for d, title in titles.items() if d < 4} | {4: slug(accordion["title"])}
    if text.strip() == "</Accordion>":
        return {d: title for d, title in titles.items() if d < 4}
    return dict(titles)


def _fences(lines: Iterable[_Line]) -> Iterator[_Fence]:
    inside: dict[int, list[_Line]] = {}
    for line in lines:
        if line.fence:
            inside.setdefault(line.fence, []).append(line)
    for opening, *body, _closing in inside.values():
        mark = _FENCE.match(opening.text)
        assert mark
        text = textwrap.dedent("\n".join(line.text for line in body)) + "\n"
        yield _Fence(opening.section, mark["language"] or "", mark["title"] or "", text, opening.number + 1)


def _numbered(names: Iterable[str]) -> Iterator[str]:
    """`a, b, a` -> `a-1, b-1, a-2`."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield f"{name}-{seen[name]}"


def _blocks(fences: Iterable[_Fence]) -> Iterator[Item]:
    programs = [fence for fence in fences if fence.language in ("python", "bash")]
    numbered = _numbered(f"{fence.section}/{fence.language}" for fence in programs)
    for fence, name in zip(programs, numbered, strict=True):
        titled = f"{fence.section}/{fence.language}-{slug(fence.title)}"
        yield Item(titled if fence.title else name, "block", fence.section, fence.text, fence.language, fence.line)


def _commands(fences: Iterable[_Fence]) -> Iterator[Item]:
    for fence in fences:
        if fence.language == "bash":
            for number, text in enumerate(fence.text.splitlines(), start=fence.line):
                if text.strip() and not text.startswith("#"):
                    yield Item(f"{fence.section}/{slug(text)}", "command", fence.section, text, "bash", number)


def _rows(lines: Iterable[_Line]) -> Iterator[Item]:
    above = ""
    in_body = False
    for line in lines:
        is_row = not line.fence and line.text.startswith("|")
        if is_row and in_body:
            first = re.split(r"(?<!\\)\|", line.text)[1]
            yield Item(f"{line.section}/row-{slug(first)}", "row", line.section, line.text, "markdown", line.number)
        in_body = is_row and (in_body or (above.startswith("|") and set(line.text) <= set("|-: ")))
        above = line.text


def _bullets(lines: Iterable[_Line]) -> Iterator[Item]:
    for line in lines:
        if (
            not line.fence
            and line.section.startswith("troubleshooting/")
            and (said := re.match(r"\s*\* (.+)", line.text))
        ):
            name = f"{line.section}/{slug(said[1].split(':')[0])}"
            yield Item(name, "bullet", line.section, said[1], "markdown", line.number)


def _cards(lines: Iterable[_Line]) -> Iterator[Item]:
    """The cards of Best Practices. Those under Related Documentation are links to other pages, and promise nothing here."""
    for title, line, text in _elements(lines, _CARD, "</Card>"):
        if line.section == "best-practices":
            yield Item(f"{line.section}/{slug(title)}", "card", line.section, text, "markdown", line.number)


def _tagged(lines: Iterable[_Line], tag: str) -> Iterator[Item]:
    found = list(_elements(lines, re.compile(rf"\s*<(?P<title>{tag})>"), f"</{tag}>"))
    names = _numbered(f"{line.section}/{tag.lower()}" for _, line, _ in found)
    for (_, line, text), name in zip(found, names, strict=True):
        yield Item(name, tag.lower(), line.section, text, "markdown", line.number)


def _elements(lines: Iterable[_Line], opening: re.Pattern[str], closing: str) -> Iterator[tuple[str, _Line, str]]:
    """(title, line it opens in, what it says) of every such element outside of code."""
    title, start, body = "", None, list[str]()
    for line in lines:
        if line.fence:
            continue
        if mark := opening.match(line.text):
            title, start, body = mark["title"], line, []
        elif start and line.text.strip() == closing:
            yield title, start, textwrap.dedent("\n".join(body))
            start = None
        elif start:
            body.append(line.text)


# ---- diagrams: one step for an arrow ----

_NODE = r"(\w+)(?:(?:\[\(|\(\[|\[|\{)(.+?)(?:\)\]|\]\)|\]|\}))?"
_EDGE = re.compile(rf"^\s*{_NODE} +-\.?-+>(?:\|(.+?)\|)? +{_NODE}\s*$")
_MESSAGE = re.compile(r"^\s*(\w+)--?>>(\w+): (.+)$")


def _steps(fences: Iterable[_Fence]) -> Iterator[Item]:
    for fence in fences:
        if fence.language == "mermaid":
            yield from _messages(fence)
            yield from _edges(fence)


def _messages(fence: _Fence) -> Iterator[Item]:
    for number, text in enumerate(fence.text.splitlines(), start=fence.line):
        if said := _MESSAGE.match(text):
            name = f"{fence.section}/step-{slug(said[1])}-to-{slug(said[2])}-{slug(said[3])}"
            yield Item(name, "step", fence.section, text.strip(), "mermaid", number)


def _edges(fence: _Fence) -> Iterator[Item]:
    labels: dict[str, str] = {}
    for number, text in enumerate(fence.text.splitlines(), start=fence.line):
        edge = _EDGE.match(text)
        if not edge:
            continue
        source, source_label, _, target, target_label = edge.groups()
        labels |= {node: label for node, label in ((source, source_label), (target, target_label)) if label}
        name = f"{fence.section}/step-{slug(labels.get(source, source))}-to-{slug(labels.get(target, target))}"
        yield Item(name, "step", fence.section, text.strip(), "mermaid", number)


# ---- running what the page says ----


def code(id: str, **names: str) -> str:
    """The verbatim text of a block or command. `names` replace texts as SUBSTITUTIONS says, and nothing else."""
    text = item(id).text
    for name, value in names.items():
        said = [s.page for s in SUBSTITUTIONS if s.name == name and s.how == "text" and s.page in text]
        if not said:
            raise ValueError(f"SUBSTITUTIONS has nothing named {name!r} to replace in {id}")
        text = text.replace(said[0], value)
    return text


def snippet(id: str) -> str:
    """The code that a bullet or card shows in backticks, verbatim."""
    (shown,) = re.findall(r"`([^`]+)`", item(id).text)
    return str(shown)


def run_block(id: str, *, until: str | None = None, **names: str) -> dict[str, Any]:
    """Run a python block of the page in this process; the names it leaves behind. A traceback shows page.md.

    `until` is a text of the block to stop before, for blocks that make several things of one name.
    """
    free = {s.name for s in SUBSTITUTIONS if s.how == "global"}
    text = code(id, **{name: value for name, value in names.items() if name not in free})
    if until is not None:
        before, found, _ = text.partition(until)
        assert found, f"{id} does not say {until!r}"
        text = before
    tree = ast.increment_lineno(ast.parse(text), item(id).line - 1)
    namespace: dict[str, Any] = {name: value for name, value in names.items() if name in free}
    exec(compile(tree, str(PAGE), "exec"), namespace)
    return namespace


def run_script(
    id: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    *,
    python: Path | str = sys.executable,
    before: tuple[str, ...] = (),
    check: bool = True,
    **names: str,
) -> subprocess.CompletedProcess[str]:
    """Run a python block of the page in a new Python process, as a script in `cwd`. `before` goes before `python`."""
    folder = cwd or Path.cwd()
    script = folder / f"{id.replace('/', '-')}.py"
    script.write_text(code(id, **names), encoding="utf-8")
    if python == sys.executable and not before:
        done = forked.run([script], cwd=folder, env=env, timeout=TIMEOUT_S)
    else:
        done = subprocess.run(
            [*before, str(python), str(script)],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    assert not check or done.returncode == 0, done.stderr
    return done


def run_command(
    id: str, *more: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command line of the page with its input piped. `more` are arguments after the page's own."""
    command = [*shlex.split(code(id)), *more]
    return subprocess.run(
        command, env=env or os.environ, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S
    )


__all__ = [
    "PAGE",
    "SUBSTITUTIONS",
    "Item",
    "code",
    "covers",
    "item",
    "items",
    "later",
    "run_block",
    "run_command",
    "run_script",
    "slug",
    "snippet",
]
