"""Letting go of what is old, when somebody asks for it: first a plan that says what would go, then doing it.

    found = plan(store, Limits(idle_s=90 * DAY, keep=100))
    print(len(found.changes), found.messages, found.bytes)
    apply(store, found)

Nothing is ever removed by age unless this is called, and a limit that is not given limits nothing. A pinned session (its
metadata say `pinned`) is left as it is, and snapshots stay, with the session that has them, unless the limits say otherwise.

What a reader would get wrong: a plan is a wish of a moment. Each session is looked at again just before it is changed, and one
that was used since, in whatever way, is spared. Between that look and the deletion there is an instant that no engine closes;
all other changes are made only if nobody changed the record meanwhile. Messages and bytes are those that the session holds and
would hold no more, bytes as JSON; where a database shares them with forks, they are freed with the last of these.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from praisonaiagents.errors import ConfigError, Conflict, SessionNotFound
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.model.window import retention_start
from praisonaiagents.session.data import conversations
from praisonaiagents.session.snapshots import adopted, snapshots_of
from praisonaiagents.session.store import SessionStore
from praisonaiagents.storage.engine import Engine

DAY = 86_400.0  # seconds
Watch = Callable[[str, int, int], object]
_HEAD, _SNAPSHOT = "head:", "snapshot:"  # how the names of pins begin, see `hierarchy`


class Limits(msgspec.Struct, frozen=True):
    """What is to go. All times are in seconds; None: no limit.

    idle_s: sessions that nobody has changed for longer. older_s: sessions made longer ago, used or not.
    keep: of each user, all but so many sessions, the one changed last first. Those that are never pruned are not counted.
    max_messages: of each session, all but the last so many messages, by whole turns. retention: whether these are removed
        ("truncate", with the archive) or go to the session's archive ("archive").
    archives_s: archives whose newest message is older. A summary that stands for them stays, but cannot be made anew.
    heads_s: what sessions showed before a revert, where the revert is longer ago.
    snapshots_s: snapshots older than that; and sessions may go whose snapshots all are. pinned: pinned sessions too.
    """

    idle_s: float | None = None
    older_s: float | None = None
    keep: int | None = None
    max_messages: int | None = None
    retention: str = "truncate"
    archives_s: float | None = None
    heads_s: float | None = None
    snapshots_s: float | None = None
    pinned: bool = False

    def __post_init__(self) -> None:
        for name in ("idle_s", "older_s", "archives_s", "heads_s", "snapshots_s"):
            _check_number(name, getattr(self, name), (int, float), 0)
        _check_number("keep", self.keep, (int,), 0)
        _check_number("max_messages", self.max_messages, (int,), 1)
        if self.retention not in ("truncate", "archive"):
            raise ConfigError(f"retention is truncate or archive, not {self.retention!r}")
        if all(getattr(self, name) is None for name in self.__struct_fields__ if name not in ("retention", "pinned")):
            raise ConfigError("no limit was given: say what is to go")


class Change(msgspec.Struct, frozen=True):
    """What happens to one session.

    why: if the whole session goes, the limit it is beyond: "idle", "older" or "keep"; else "".
    archived: how many messages move to its archive. heads, snapshots: the names of those that are let go.
    messages, bytes: how much of it goes. log, length, revision: what the session was when the plan was made.
    """

    user_id: str
    session_id: str
    why: str = ""
    archived: int = 0
    drop: bool = False
    start: int = 0
    heads: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    messages: int = 0
    bytes: int = 0
    log: str = ""
    length: int = 0
    revision: int = 0

    @property
    def key(self) -> Key:
        return Key(self.user_id, self.session_id)


class Plan(msgspec.Struct, frozen=True):
    """What would go. spared: how many sessions are beyond a limit and stay, by what saves them: "pinned", "snapshots"."""

    changes: list[Change]
    spared: dict[str, int]
    looked_at: int

    @property
    def sessions(self) -> int:
        """How many sessions would go as a whole."""
        return sum(bool(change.why) for change in self.changes)

    @property
    def messages(self) -> int:
        return sum(change.messages for change in self.changes)

    @property
    def bytes(self) -> int:
        return sum(change.bytes for change in self.changes)


class Applied(msgspec.Struct, frozen=True):
    """What was done, and the changes that were not made, because somebody used the session meanwhile."""

    done: list[Change]
    spared: list[Change]


def plan(
    store: SessionStore,
    limits: Limits,
    *,
    user_id: str | None = None,
    all_users: bool = False,
    now: float | None = None,
    watch: Watch = lambda *_: None,
) -> Plan:
    """What would go of the user's sessions (with `all_users`, of everybody's). Changes nothing.

    now: seconds since 1970, default: the clock. watch: told what is being done, how far it has come, and 0. Reads the messages
    of what would go.
    """
    now = time.time() if now is None else now
    kept: Counter[str] = Counter()
    spared: Counter[str] = Counter()
    changes: list[Change] = []
    looked_at = 0
    for record in _records(store.engine, None if all_users else check_user_id(user_id)):
        looked_at += 1
        change, saved_by = _judge(store.engine, record, limits, now, kept)
        changes += [change] if change else []
        spared[saved_by] += 1
        watch("Looking at sessions", looked_at, 0)
    del spared[""]
    return Plan(changes, dict(spared), looked_at)


def apply(store: SessionStore, planned: Plan, *, watch: Watch = lambda *_: None) -> Applied:
    """Do what was planned, but for sessions that were used since.

    watch: told what is being done, how much of it is done, and how much there is to do. What an engine raises ends it; what was
    done until then is done, and the rest can be planned anew.
    """
    done: list[Change] = []
    spared: list[Change] = []
    for number, change in enumerate(planned.changes):
        watch("Pruning", number, len(planned.changes))
        (done if _done(store.engine, change) else spared).append(change)
    watch("Pruning", len(planned.changes), len(planned.changes))
    return Applied(done, spared)


# Planning


def _judge(engine: Engine, record: Record, limits: Limits, now: float, kept: Counter[str]) -> tuple[Change | None, str]:
    """What happens to a session, and what saves it as a whole, if anything has to."""
    pinned = record.metadata.get("pinned") is True and not limits.pinned
    young = _young_snapshots(record, limits, now)
    saved_by = "pinned" if pinned else "snapshots" if young else ""
    if not saved_by:
        kept[record.user_id] += 1
    why = _why(record, limits, now, kept[record.user_id])
    if pinned:
        return None, saved_by if why else ""
    if why and not young:
        return _measured(engine, record, _of(record, why=why)), ""
    change = _trimmed(engine, record, limits, now)
    return (None if change == _of(record) else _measured(engine, record, change)), saved_by if why else ""


def _why(record: Record, limits: Limits, now: float, place: int) -> str:
    """The limit that a session is beyond. place: which one of its user's it is, the one changed last being the first."""
    if limits.idle_s is not None and 0 < record.updated_at < now - limits.idle_s:
        return "idle"
    if limits.older_s is not None and 0 < record.created_at < now - limits.older_s:
        return "older"
    return "keep" if limits.keep is not None and place > limits.keep else ""


def _trimmed(engine: Engine, record: Record, limits: Limits, now: float) -> Change:
    """What goes of a session that stays."""
    start = _start(engine, record, limits)
    moved = start - record.start
    truncates = moved > 0 and limits.retention == "truncate"
    return _of(
        record,
        start=start,
        archived=0 if truncates else moved,
        drop=truncates or (not moved and _archive_is_old(engine, record, limits, now)),
        heads=tuple(_old(record, _HEAD, "replaced_at", limits.heads_s, now)),
        snapshots=tuple(_old(record, _SNAPSHOT, "created_at", limits.snapshots_s, now)),
    )


def _start(engine: Engine, record: Record, limits: Limits) -> int:
    """The number of the first message that stays visible."""
    if limits.max_messages is None or record.message_count <= limits.max_messages:
        return record.start
    visible = engine.read(record.key)
    return visible.first + retention_start(visible.messages, limits.max_messages)


def _archive_is_old(engine: Engine, record: Record, limits: Limits, now: float) -> bool:
    if limits.archives_s is None or record.start == 0:
        return False
    newest = engine.read(record.key, record.start - 1, record.start).messages
    return bool(newest) and 0 < newest[0].timestamp < now - limits.archives_s


def _old(record: Record, kind: str, time_of: str, age_s: float | None, now: float) -> Iterator[str]:
    """The pins of a kind that are older than that."""
    for name, pin in record.pins.items():
        if name.startswith(kind) and age_s is not None and _seconds(pin.info, time_of) < now - age_s:
            yield name


def _young_snapshots(record: Record, limits: Limits, now: float) -> bool:
    oldest = float("-inf") if limits.snapshots_s is None else now - limits.snapshots_s
    return any(not snapshot.created_at or snapshot.created_at >= oldest for snapshot in snapshots_of(record))


def _seconds(info: Mapping[str, Any], name: str) -> float:
    """A time in seconds; one that is not known is now, so that nothing goes because of it."""
    value = info.get(name)
    return float(value) if isinstance(value, (int, float)) and value > 0 else float("inf")


def _of(record: Record, **fields: Any) -> Change:
    fields = {"start": record.start} | fields
    return Change(
        record.user_id,
        record.session_id,
        log=record.log,
        length=record.length,
        revision=record.revision,
        **fields,
    )


def _measured(engine: Engine, record: Record, change: Change) -> Change:
    """The change, with how much of the session goes by it."""
    if not (change.why or change.drop or change.heads or change.snapshots):
        return change
    gone = {*change.heads, *change.snapshots}
    views = [_View("", engine.read(record.key, 0)), *_pinned(engine, record)]
    before = _sizes(view for view in views)
    after = _sizes(
        view.beginning(change.start) if change.drop and not view.name else view
        for view in views
        if not change.why and view.name not in gone
    )
    lost = before.keys() - after.keys()
    return msgspec.structs.replace(change, messages=len(lost), bytes=sum(before[place] for place in lost))


class _View(NamedTuple):
    """A history that a session holds: that of a pin, or with the name "" its own with its archive."""

    name: str
    held: tuple[int, list[Message]]

    def beginning(self, start: int) -> _View:
        first, messages = self.held
        return _View(self.name, (max(first, start), messages[max(0, start - first) :]))


def _pinned(engine: Engine, record: Record) -> Iterator[_View]:
    for name, pin in record.pins.items():
        yield _View(name, engine.read(record.key, at=Pin(pin.log, pin.start, pin.length)))


def _sizes(views: Iterator[_View]) -> dict[tuple[int, str], int]:
    """Bytes of JSON of each message that a view shows. A message has the same number and id in all that show it."""
    return {
        (number, message.id): len(encode(message))
        for view in views
        for number, message in enumerate(view.held[1], view.held[0])
    }


def _records(engine: Engine, user_id: str | None) -> Iterator[Record]:
    """All sessions, the one changed last first, but for what keeps a user's state."""
    return (msgspec.structs.replace(record, **adopted(record)) for record in conversations(engine, user_id))


# Doing it


def _done(engine: Engine, change: Change) -> bool:
    record = engine.get(change.key)
    if record is None or (record.log, record.length, record.revision) != (change.log, change.length, change.revision):
        return False
    if change.why:
        return engine.delete(change.key)
    try:
        if patch := _patch(record, change):
            record = engine.update(change.key, patch, expected_revision=change.revision)
        if change.drop:
            _check_unchanged(record, engine.get(change.key))
            engine.drop(change.key)
    except (Conflict, SessionNotFound):
        return False
    return True


def _patch(record: Record, change: Change) -> dict[str, Any]:
    gone, own = {*change.heads, *change.snapshots}, adopted(record)
    patch: dict[str, Any] = {"start": change.start} if change.start != record.start else {}
    if gone:
        pins = own.get("pins", record.pins)
        patch["pins"] = {name: pin for name, pin in pins.items() if name not in gone}
    return own | patch if patch else {}


def _check_unchanged(record: Record, now: Record | None) -> None:
    """Raise `Conflict` unless what is archived is what was planned: it is all that `drop` goes by."""
    if now is None or (now.log, now.start, now.revision) != (record.log, record.start, record.revision):
        raise Conflict("revision of the session", record.revision, now.revision if now else 0)


def _check_number(name: str, value: Any, types: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, types) or not value >= least:
        raise ConfigError(f"{name} is a number from {least}, not {value!r}")
