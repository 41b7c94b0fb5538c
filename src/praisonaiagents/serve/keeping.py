"""The sessions over HTTP: listed, read, forked, taken back, exported, searched, deleted.

Everything is of one user. What a reader would get wrong: there is no way to ask whether a session of somebody else exists;
it is answered as one that does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from starlette.responses import Response, StreamingResponse

from praisonaiagents.errors import NewerFormat, NotASessionFile, PraisonError, SessionNotFound
from praisonaiagents.model.ids import file_stem
from praisonaiagents.model.record import Key, conversation_key, is_state
from praisonaiagents.serve.operation import SESSION_ID, Ask, Operation
from praisonaiagents.serve.problems import Problem
from praisonaiagents.session import labels, transfer
from praisonaiagents.session.hierarchy import HierarchicalSessionStore
from praisonaiagents.session.parts import Header
from praisonaiagents.session.uncut import in_thread
from praisonaiagents.storage.engine import Engine, Page

_FORMS: dict[str, tuple[Any, str, str]] = {
    "json": (transfer.to_json, "application/json", "json"),
    "jsonl": (transfer.to_jsonl, "application/x-ndjson", "jsonl"),
    "markdown": (transfer.to_markdown, "text/markdown; charset=utf-8", "md"),
    "html": (transfer.to_html, "text/html; charset=utf-8", "html"),
}
_Limit = Annotated[int, msgspec.Meta(ge=1, le=500)]
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Text = Annotated[str, msgspec.Meta(max_length=1_000)]
_Id = Annotated[str, SESSION_ID]
_Tag = Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": 60})]


class ListQuery(msgspec.Struct):
    """limit: how many. after: `next` of the page before."""

    limit: _Limit = 50
    after: _Text | None = None


class SessionInfo(msgspec.Struct, omit_defaults=True):
    """A session, without its messages. Times are ISO 8601 in UTC."""

    session_id: str
    user_id: str
    title: str | None
    agent_name: str | None
    message_count: int
    created_at: str
    updated_at: str
    parent_id: str | None = None
    model: str | None = None
    tags: list[str] = []
    pinned: bool = False
    archived: bool = False


class SessionList(msgspec.Struct):
    """A page of sessions, the one changed last first. next: `after` of the next page; null if there is none."""

    sessions: list[SessionInfo]
    next: str | None


class MessageQuery(msgspec.Struct):
    """limit: how many. before: only messages before this number."""

    limit: _Limit = 50
    before: _Number | None = None


class MessageList(msgspec.Struct):
    """Messages, oldest first, each with its `number`. before: what to ask for next; null if there are no older ones."""

    messages: list[dict[str, Any]]
    before: int | None


class NewSession(msgspec.Struct, forbid_unknown_fields=True):
    """A session to be made. session_id: default: a new one."""

    session_id: _Id | None = None
    title: _Text | None = None


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a session; what is left out stays."""

    title: _Text | None = None
    tags: Annotated[list[_Tag], msgspec.Meta(max_length=100)] | None = None
    pinned: bool | None = None
    archived: bool | None = None


class Fork(msgspec.Struct, forbid_unknown_fields=True):
    """A session to be made from another. at: a snapshot or an earlier head. message: the index of the last one to come along."""

    new_session_id: _Id | None = None
    title: _Text | None = None
    at: _Text | None = None
    message: _Number | None = None


class NewSnapshot(msgspec.Struct, forbid_unknown_fields=True):
    """A moment to be kept."""

    label: _Text | None = None


class Snapshot(msgspec.Struct):
    """A moment that is kept."""

    snapshot_id: str
    label: str | None
    message_count: int
    created_at: float


class SnapshotList(msgspec.Struct):
    """A session's snapshots, oldest first."""

    snapshots: list[Snapshot]


class Revert(msgspec.Struct, forbid_unknown_fields=True):
    """to: a snapshot's id or label, an earlier head, or the number of a message."""

    to: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class Done(msgspec.Struct):
    """Whether anything was changed."""

    done: bool


class ExportQuery(msgspec.Struct):
    """format: in which form."""

    format: Literal["json", "jsonl", "markdown", "html"] = "json"


class SearchQuery(msgspec.Struct):
    """q: words that all have to be in a message."""

    q: Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class Hits(msgspec.Struct):
    """What was found, best first. complete: false if the search stopped early."""

    hits: list[dict[str, Any]]
    complete: bool


async def list_sessions(ask: Ask) -> SessionList:
    """The sessions of the user."""

    def page() -> SessionList:
        found = _page(_store(ask).engine, ask.user_id, ask.query)
        rows = [labels.row(record) for record in found.records if not is_state(record.key)]
        return SessionList([_info(row) for row in rows], found.after)

    return await in_thread(page)


async def create(ask: Ask) -> SessionInfo:
    """Make an empty session."""
    wanted: NewSession = ask.body
    made = await in_thread(
        lambda: _store(ask).create_session(wanted.session_id, wanted.title or None, user_id=ask.user_id)
    )
    return await in_thread(_look, ask, made)


async def show(ask: Ask) -> SessionInfo:
    """One session."""
    return await in_thread(_look, ask, ask.session_id)


async def change(ask: Ask) -> SessionInfo:
    """Change a session's title and labels."""

    def work() -> SessionInfo:
        store, wanted, session_id = _store(ask), ask.body, ask.session_id
        _look(ask, session_id)
        whose = {"user_id": ask.user_id}
        if wanted.tags is not None:  # first, because these may be refused
            labels.retag(store, session_id, wanted.tags, **whose)
        if wanted.title:
            store.rename_session(session_id, wanted.title, **whose)
        if wanted.pinned is not None:
            (labels.pin if wanted.pinned else labels.unpin)(store, session_id, **whose)
        if wanted.archived is not None:
            (labels.archive if wanted.archived else labels.unarchive)(store, session_id, **whose)
        return _look(ask, session_id)

    return await in_thread(work)


async def delete(ask: Ask) -> Done:
    """Delete a session. A turn under way in it is stopped first."""
    key, service = Key(ask.user_id, ask.session_id), ask.place.service
    async with service.turns.alone(key, stops=True):
        is_deleted = await in_thread(lambda: _store(ask).delete_session(key.session_id, user_id=key.user_id))
        service.forget(key)
    if not is_deleted:
        raise SessionNotFound(key.session_id)
    return Done(True)


async def messages(ask: Ask) -> MessageList:
    """Messages of a session: the last ones, or those before a number."""

    def page() -> MessageList:
        store, session_id, wanted = _store(ask), ask.session_id, ask.query
        record = _record(store, ask, session_id)
        stop = record.length if wanted.before is None else min(wanted.before, record.length)
        start = max(record.start, stop - wanted.limit)
        found = store.engine.read(record.key, start, stop) if start < stop else None
        rows = (
            [{"number": number} | message.to_dict() for number, message in enumerate(found.messages, found.first)]
            if found
            else []
        )
        return MessageList(rows, start if start > record.start and rows else None)

    return await in_thread(page)


async def fork(ask: Ask) -> SessionInfo:
    """Make a session with the history of this one."""

    def work() -> SessionInfo:
        wanted: Fork = ask.body
        made = _store(ask).fork_session(
            ask.session_id,
            wanted.message,
            wanted.title or None,
            new_session_id=wanted.new_session_id,
            at=wanted.at,
            user_id=ask.user_id,
        )
        return _look(ask, made)

    return await in_thread(work)


async def snapshot(ask: Ask) -> Snapshot:
    """Keep the moment."""

    def work() -> Snapshot:
        store, session_id = _store(ask), ask.session_id
        made = store.create_snapshot(session_id, ask.body.label, user_id=ask.user_id)
        return next(found for found in _snapshots(store, ask, session_id) if found.snapshot_id == made)

    return await in_thread(work)


async def snapshots(ask: Ask) -> SnapshotList:
    """The moments that are kept."""

    def work() -> SnapshotList:
        _look(ask, ask.session_id)
        return SnapshotList(_snapshots(_store(ask), ask, ask.session_id))

    return await in_thread(work)


async def delete_snapshot(ask: Ask) -> Done:
    """Keep a moment no more."""

    def work() -> Done:
        if not _store(ask).delete_snapshot(ask.session_id, ask.parameter("snapshot_id"), user_id=ask.user_id):
            raise Problem(404, "no such snapshot", "PointNotFound")
        return Done(True)

    return await in_thread(work)


async def revert(ask: Ask) -> SessionInfo:
    """Go back to a snapshot, an earlier head or a message. It can be undone."""

    def work() -> SessionInfo:
        _store(ask).revert(ask.session_id, ask.body.to, user_id=ask.user_id)
        return _look(ask, ask.session_id)

    async with ask.place.service.turns.alone(Key(ask.user_id, ask.session_id)):
        return await in_thread(work)


async def undo(ask: Ask) -> Done:
    """Take the last change of the history back."""

    def work() -> Done:
        _look(ask, ask.session_id)
        return Done(_store(ask).undo(ask.session_id, user_id=ask.user_id))

    async with ask.place.service.turns.alone(Key(ask.user_id, ask.session_id)):
        return await in_thread(work)


async def export(ask: Ask) -> Response:
    """A session as a file."""
    write, media, ending = _FORMS[ask.query.format]
    session_id = ask.session_id
    pieces: Iterator[Any] = iter(write(_store(ask).engine, Key(ask.user_id, session_id)))
    first = await in_thread(next, pieces, b"")  # what goes wrong at once is told by a status
    name = quote(f"{file_stem(session_id)}.{ending}", safe="-_.~%")
    return StreamingResponse(
        (piece if isinstance(piece, bytes) else piece.encode() for piece in chain([first], pieces)),
        media_type=media,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def bring_in(ask: Ask) -> SessionInfo:
    """Make a session of an export in JSON or JSONL. It becomes the caller's."""
    data = await ask.request.body()

    def work() -> SessionInfo:
        if not transfer.is_export(data):  # files of other kinds are for the command line
            raise Problem(400, "the body is no exported session", "NotASessionFile")
        try:
            made = transfer.import_bytes(data, _store(ask).engine, _as_own(ask.user_id))
        except (NotASessionFile, NewerFormat) as exc:
            raise Problem(400, str(exc), type(exc).__name__) from exc
        return _look(ask, made.session_id)

    return await in_thread(work)


async def search(ask: Ask) -> Hits:
    """Messages of the user that hold all the words."""

    def work() -> Hits:
        found = _store(ask).search(ask.query.q, user_id=ask.user_id, limit=ask.query.limit)
        return Hits([hit.as_dict() for hit in found], found.complete)

    return await in_thread(work)


_SESSION = "/sessions/{session_id}"
OPERATIONS = (
    Operation("GET", "/sessions", list_sessions, "List sessions", asks=ListQuery, gives=SessionList),
    Operation(
        "POST", "/sessions", create, "Make a session", takes=NewSession, gives=SessionInfo, status=201, also=(409,)
    ),
    Operation("GET", _SESSION, show, "Show a session", gives=SessionInfo, also=(404,)),
    Operation("PATCH", _SESSION, change, "Change title and labels", takes=Change, gives=SessionInfo, also=(404,)),
    Operation("DELETE", _SESSION, delete, "Delete a session", gives=Done, also=(404, 409)),
    Operation(
        "GET", f"{_SESSION}/messages", messages, "Read messages", asks=MessageQuery, gives=MessageList, also=(404,)
    ),
    Operation(
        "POST", f"{_SESSION}/fork", fork, "Fork a session", takes=Fork, gives=SessionInfo, status=201, also=(404, 409)
    ),
    Operation("GET", f"{_SESSION}/snapshots", snapshots, "List snapshots", gives=SnapshotList, also=(404,)),
    Operation(
        "POST",
        f"{_SESSION}/snapshots",
        snapshot,
        "Make a snapshot",
        takes=NewSnapshot,
        gives=Snapshot,
        status=201,
        also=(404,),
    ),
    Operation(
        "DELETE",
        f"{_SESSION}/snapshots/{{snapshot_id}}",
        delete_snapshot,
        "Delete a snapshot",
        gives=Done,
        also=(404,),
    ),
    Operation("POST", f"{_SESSION}/revert", revert, "Go back", takes=Revert, gives=SessionInfo, also=(404, 409)),
    Operation("POST", f"{_SESSION}/undo", undo, "Undo", gives=Done, also=(404, 409)),
    Operation(
        "GET",
        f"{_SESSION}/export",
        export,
        "Export a session",
        asks=ExportQuery,
        also=(404, 409),
        media=tuple(media.partition(";")[0] for _, media, _ in _FORMS.values()),
    ),
    Operation(
        "POST",
        "/sessions/import",
        bring_in,
        "Import a session",
        gives=SessionInfo,
        status=201,
        also=(409,),
        sends=("application/json", "application/x-ndjson"),
    ),
    Operation("GET", "/search", search, "Search messages", asks=SearchQuery, gives=Hits),
)


def _store(ask: Ask) -> HierarchicalSessionStore:
    return ask.place.service.store


def _page(engine: Engine, user_id: str, wanted: ListQuery) -> Page:
    """A page of sessions. Raises `Problem` for a cursor that no page was given with: each engine has cursors of its own."""
    try:
        return engine.list_sessions(user_id, after=wanted.after, limit=wanted.limit)
    except PraisonError:
        raise
    except (ValueError, OverflowError, LookupError) as exc:
        raise Problem(400, "after is the `next` of the page before") from exc


def _record(store: HierarchicalSessionStore, ask: Ask, session_id: str) -> Any:
    record = store.engine.get(Key(ask.user_id, session_id))
    if record is None:
        raise SessionNotFound(session_id)
    return record


def _look(ask: Ask, session_id: str) -> SessionInfo:
    return _info(labels.row(_record(_store(ask), ask, session_id)))


def _info(row: dict[str, Any]) -> SessionInfo:
    return SessionInfo(**{name: row[name] for name in SessionInfo.__struct_fields__})


def _as_own(user_id: str) -> Callable[[Header], Header]:
    """What makes an imported session this user's, whoever it was of. Raises `InvalidId` for one that is no conversation."""

    def rename(header: Header) -> Header:
        renamed = transfer.renaming(user_id=user_id)(header)
        conversation_key(renamed.session_id, user_id)
        return renamed

    return rename


def _snapshots(store: HierarchicalSessionStore, ask: Ask, session_id: str) -> list[Snapshot]:
    return [
        Snapshot(found.id, found.label, found.message_index + 1, found.created_at)
        for found in store.get_snapshots(session_id, user_id=ask.user_id)
    ]
