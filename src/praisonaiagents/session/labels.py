"""What people stick on sessions to find them again: tags, a pin, and a mark that puts one out of sight.

    tag(store, "trip", "travel", "2026")
    listed(store, tag="travel")

All three are in the session's metadata (`tags`, `pinned`, `archived`), so every engine has them. What a reader would get wrong:
this pin says that a session comes first in lists, and this archive that it is left out of them. They have nothing to do
with the pins of a record, which hold on to histories, nor with messages that retention archived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from praisonaiagents.errors import ConfigError
from praisonaiagents.model.ids import check_user_id
from praisonaiagents.model.record import Record
from praisonaiagents.session.data import conversations, listing
from praisonaiagents.session.owned import change_metadata
from praisonaiagents.session.store import SessionStore

TAGS, PINNED, ARCHIVED = "tags", "pinned", "archived"
_LOOKED_AT = 200  # sessions among which pinned ones are looked for, the one changed last first
_LONGEST_TAG = 60


def tag(store: SessionStore, session_id: str, *tags: str, user_id: str | None = None) -> list[str]:
    """Add tags to a session, and return all it has then. Raises `SessionNotFound`, `ConfigError` for what is no tag.

    A tag is up to 60 characters on one line. Case counts, blanks around it do not.
    """
    new = [_checked(name) for name in tags]
    return _retag(store, session_id, user_id, lambda old: [*old, *new])


def untag(store: SessionStore, session_id: str, *tags: str, user_id: str | None = None) -> list[str]:
    """Take tags off a session, and return those it has then. One that it does not have is no error."""
    gone = {_checked(name) for name in tags}
    return _retag(store, session_id, user_id, lambda old: [name for name in old if name not in gone])


def retag(store: SessionStore, session_id: str, tags: Sequence[str], *, user_id: str | None = None) -> list[str]:
    """Give a session these tags and no others, and return them. Raises as `tag` does."""
    new = [_checked(name) for name in tags]
    return _retag(store, session_id, user_id, lambda old: new)


def pin(store: SessionStore, session_id: str, *, user_id: str | None = None) -> None:
    """Let the session come first in lists. Raises `SessionNotFound`."""
    _mark(store, session_id, user_id, PINNED, True)


def unpin(store: SessionStore, session_id: str, *, user_id: str | None = None) -> None:
    """The inverse of `pin`."""
    _mark(store, session_id, user_id, PINNED, False)


def archive(store: SessionStore, session_id: str, *, user_id: str | None = None) -> None:
    """Leave the session out of lists. It stays as it is, and may be gone on with. Raises `SessionNotFound`."""
    _mark(store, session_id, user_id, ARCHIVED, True)


def unarchive(store: SessionStore, session_id: str, *, user_id: str | None = None) -> None:
    """The inverse of `archive`."""
    _mark(store, session_id, user_id, ARCHIVED, False)


def listed(
    store: SessionStore,
    limit: int | None = 50,
    *,
    tag: str | None = None,
    archived: bool = False,
    user_id: str | None = None,
    all_users: bool = False,
) -> list[dict[str, Any]]:
    """`SessionStore.list_sessions` as people want it: pinned sessions first, then the one changed last, archived ones left out.

    Each has `tags`, `pinned` and `archived` besides. limit: None means all. tag: only sessions that have it. archived: only
    archived ones. Pinned ones are found among the 200 sessions changed last, so that a list does not cost more with each
    session there is; with a tag or without a limit, all are looked at.
    """
    if limit is not None and limit < 0:
        raise ConfigError(f"limit cannot be negative, it is {limit}")
    wanted = None if tag is None else _checked(tag)
    pinned: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    records = conversations(store.engine, None if all_users else check_user_id(user_id))
    for looked_at, record in enumerate(records):
        full = limit is not None and len(others) >= limit
        if full and (len(pinned) >= (limit or 0) or looked_at >= _LOOKED_AT):
            break
        if _is(record, ARCHIVED) == archived and (wanted is None or wanted in tags_of(record)):
            (pinned if _is(record, PINNED) else others).append(row(record))
    return [*pinned, *others][:limit]


def row(record: Record) -> dict[str, Any]:
    """A session as `listed` shows it, made from its record alone."""
    return listing(record) | {TAGS: tags_of(record), PINNED: _is(record, PINNED), ARCHIVED: _is(record, ARCHIVED)}


def tags_of(record: Record) -> list[str]:
    """A session's tags, in the order they were given."""
    return _texts(record.metadata.get(TAGS))


# Inside


def _is(record: Record, mark: str) -> bool:
    return record.metadata.get(mark) is True


def _mark(store: SessionStore, session_id: str, user_id: str | None, mark: str, value: bool) -> None:
    change_metadata(store, session_id, user_id, lambda record: _without(record, mark) | ({mark: True} if value else {}))


def _retag(store: SessionStore, session_id: str, user_id: str | None, change: Any) -> list[str]:
    def retagged(record: Record) -> dict[str, Any]:
        names = list(dict.fromkeys(change(tags_of(record))))
        return _without(record, TAGS) | ({TAGS: names} if names else {})

    return _texts(change_metadata(store, session_id, user_id, retagged).get(TAGS))


def _without(record: Record, name: str) -> dict[str, Any]:
    return {key: value for key, value in record.metadata.items() if key != name}


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _checked(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _LONGEST_TAG or not name.isprintable():
        raise ConfigError(f"a tag is 1 to {_LONGEST_TAG} characters on one line, not {name!r}")
    return name
