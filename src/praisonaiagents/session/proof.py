"""Proof that something is gone: samples of it are taken before, and looked for in the raw bytes afterwards.

What a reader would get wrong: finding a sample does not mean that it was left behind. Others may have said the same, a fork
has the same messages, another user's session the same id. So whatever is found is looked for in the sessions that stay; what
one of them holds, too, proves nothing, and is counted as said elsewhere.

The samples are kept in memory only, and no report of them quotes one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from praisonaiagents.errors import InvalidMessage, SessionNotFound
from praisonaiagents.model.ids import file_stem
from praisonaiagents.model.message import Message, encode
from praisonaiagents.model.record import Key, Record
from praisonaiagents.model.search import tokens
from praisonaiagents.storage.engine import Engine, every_record
from praisonaiagents.storage.powers import Forgets, framed

T = TypeVar("T")
_MOST = 100  # messages, and sessions, of which samples are kept
_MOST_IDS = 200_000
_SHORTEST, _LONGEST = 8, 48  # bytes of a sample that is a part of something; shorter ones are said everywhere
_SHORTEST_WORD = 6
_OUR_ID = re.compile(rb"msg-[0-9a-f]{20}")  # see `engine.new_message_id`
_ID, _NAME, _USER, _TEXT, _WORD = (
    "the id of a message",
    "the id of a session",
    "the id of the user",
    "text of a message or a session",
    "a word of a message, as search knows it",
)


class Left(NamedTuple):
    """Something that is still there: in what kind of place, at which spot, and what it is. Nothing of it is quoted."""

    place: str
    where: str
    what: str


class Proof(NamedTuple):
    """What a search for traces found.

    looked_at: bytes by place; empty if the engine cannot be looked into. samples: how many were looked for. elsewhere: how
    many of these were found, and are said in sessions that stay, too.
    """

    looked_at: dict[str, int]
    samples: int
    elsewhere: int
    left: list[Left]


class _Thinned(Generic[T]):
    """At most `most` of the things that are put in, evenly spread over all of them."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._seen = most, 1, 0
        self.kept: list[T] = []

    def put(self, make: Callable[[], T]) -> None:
        """Put in what `make` makes. It is not made where it is not kept."""
        if self._seen % self._step == 0:
            self.kept.append(make())
            if len(self.kept) > self._most:
                del self.kept[1::2]
                self._step *= 2
        self._seen += 1


class Samples:
    """What to look for. Take them with `of_user`, `of_session` and `of_message` before anything is deleted."""

    def __init__(self) -> None:
        self._users: dict[bytes, str] = {}
        self._sessions: _Thinned[dict[bytes, str]] = _Thinned(_MOST)
        self._messages: _Thinned[dict[bytes, str]] = _Thinned(_MOST)
        self._ids: _Thinned[bytes] = _Thinned(_MOST_IDS)

    def of_user(self, user_id: str) -> None:
        """For a user of whom nothing is to stay."""
        self._users |= _of_id(user_id, _USER) | {msgspec.json.encode(user_id): _USER}

    def of_session(self, record: Record) -> None:
        self._sessions.put(lambda: _of_session(record))

    def of_message(self, message: Message) -> None:
        raw_id = message.id.encode()
        if _OUR_ID.fullmatch(raw_id):
            self._ids.put(lambda: raw_id)
        self._messages.put(lambda: _of_message(message))

    def all(self) -> dict[bytes, str]:
        """What to look for one by one, and what each is."""
        return {
            sample: what
            for kept in (*self._messages.kept, *self._sessions.kept, self._users)
            for sample, what in kept.items()
        }

    def our_ids(self) -> set[bytes]:
        """All ids of messages that this package made, which are found in one go."""
        return set(self._ids.kept)


def _of_session(record: Record) -> dict[bytes, str]:
    shown = (record.agent_name, record.metadata, record.state, record.extra, [p.info for p in record.pins.values()])
    return _of_id(record.session_id, _NAME) | dict.fromkeys(_parts(shown), _TEXT)


def _of_message(message: Message) -> dict[bytes, str]:
    shown = (message.content, message.tool_calls, message.reasoning, message.metadata)
    found = dict.fromkeys(_parts(shown), _TEXT)
    written_id = msgspec.json.encode(message.id)[1:-1]
    if len(written_id) >= _SHORTEST:
        found[written_id] = _ID
    word = max(tokens(message.text()), key=len, default="")
    if len(word) >= _SHORTEST_WORD:
        found[framed([word.encode()])] = _WORD
    return found


def proof(engine: Engine, samples: Samples, is_to_go: Callable[[Key], bool] = lambda _: False) -> Proof:
    """Look for samples in everything that an engine has stored. Changes nothing.

    is_to_go: tells of which sessions nothing may be there, so that what they say excuses nothing.
    """
    wanted, our_ids = samples.all(), samples.our_ids()
    looked_at: dict[str, int] = {}
    found: dict[bytes, Left] = {}
    for place, where, data in engine.raw() if isinstance(engine, Forgets) else ():
        looked_at[place] = looked_at.get(place, 0) + len(data)
        for sample, what in wanted.items():
            if sample not in found and sample in data:
                found[sample] = Left(place, where, what)
        for sample in our_ids.intersection(_OUR_ID.findall(data)):
            found.setdefault(sample, Left(place, where, _ID))
    said = _said_elsewhere(engine, set(found), is_to_go)
    left = dict.fromkeys(where for sample, where in found.items() if sample not in said)
    return Proof(looked_at, len(wanted) + len(our_ids), len(said), list(left))


def _said_elsewhere(engine: Engine, samples: set[bytes], is_to_go: Callable[[Key], bool]) -> set[bytes]:
    """Those of the samples that sessions hold, which may."""
    said: set[bytes] = set()
    for data in _live(engine, is_to_go) if samples else ():
        said |= {sample for sample in samples - said if sample in data}
        if said == samples:
            break
    return said


def _live(engine: Engine, is_to_go: Callable[[Key], bool]) -> Iterator[bytes]:
    """What all sessions that may stay hold, as it is stored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for record in every_record(engine, None):
            key = record.key
            if is_to_go(key):
                continue
            yield b"".join((framed(map(str.encode, key)), _stem(key), msgspec.json.encode(record)))
            for messages in views(engine, record):
                yield b"\n".join(map(encode, messages))
                yield framed({word.encode() for message in messages for word in tokens(message.text())})


def views(engine: Engine, record: Record) -> Iterator[Sequence[Message]]:
    """The messages of everything that a session holds: its history with the archive, then each pin.

    Without what is no longer there: others may undo, prune and delete meanwhile.
    """
    for pin in (None, *record.pins.values()):
        try:
            messages = (engine.read(record.key, at=pin) if pin else engine.read(record.key, 0)).messages
        except (InvalidMessage, SessionNotFound):
            continue
        yield messages


def _stem(key: Key) -> bytes:
    return framed(file_stem(name).encode() for name in key)


def _of_id(name: str, what: str) -> dict[bytes, str]:
    """An id as a whole value, and a long one anywhere; as it is, as JSON writes it, and as files are named after it."""
    forms = {name.encode(), msgspec.json.encode(name)[1:-1], file_stem(name).encode()}
    anywhere = {form for form in forms if len(form) >= _SHORTEST}
    return dict.fromkeys([*(framed([form]) for form in forms), *anywhere], what)


def _parts(value: Any) -> Iterator[bytes]:
    """A piece from the middle of each of the three longest texts in a value, as JSON writes it."""
    texts = sorted(set(_texts(value)), key=len, reverse=True)[:3]
    for text in texts:
        written = msgspec.json.encode(text)[1:-1]
        start = max(0, (len(written) - _LONGEST) // 2)
        if len(written) >= _SHORTEST:
            yield written[start : start + _LONGEST]


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
