"""What Redis stores, and what its URLs, settings and errors say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from typing import Any

import pytest
from servers.redis import Stored, client_of, empty_place

from praisonaiagents.errors import InvalidMessage, SessionExists, SessionNotFound
from praisonaiagents.model.message import Message, decode
from praisonaiagents.model.record import Key, Pin, Record
from praisonaiagents.storage.redis import RedisEngine


class Place:
    """An engine on a prefix of its own, and a look at what it stores."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = url.rpartition("=")[2]
        self.engine = RedisEngine(url)
        self.client = client_of(url)

    def stored(self) -> Stored:
        found = Stored(self.client, self.prefix)
        found.check()
        return found


@pytest.fixture(params=[False, True], ids=["server", "cluster"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with empty_place(cluster=request.param) as url:
        found = Place(url)
        with closing(found.engine):
            yield found


# Freeing


def _part(chance: random.Random, record: Record) -> Pin:
    """A part of what a session holds."""
    view = chance.choice([record.head, *record.pins.values()])
    first = chance.randint(view.start, view.length)
    return Pin(view.log, first, chance.randint(first, view.length))


def _change(chance: random.Random, engine: RedisEngine, key: Key) -> None:
    record = engine.get(key)
    if record is None:
        engine.open_session(Record(*key))
        return
    other = Record(key.user_id, f"s{chance.randrange(4)}")
    ids = ["", *(f"id{number}" for number in range(6))]
    messages = [Message("user", "x", id=chance.choice(ids)) for _ in range(chance.randrange(6))]
    pins = {name: pin for name, pin in record.pins.items() if chance.random() < 0.6}
    pins[chance.choice("abc")] = _part(chance, record)
    what: dict[Any, int] = {
        lambda: engine.append(key, messages): 5,
        lambda: engine.update(key, {"start": chance.randint(record.start, record.length)}): 3,
        lambda: engine.drop(key): 5,
        lambda: engine.update(key, {"pins": pins}): 3,
        lambda: engine.update(key, {"pins": {}}): 2,
        lambda: engine.update(key, {"head": _part(chance, record), "pins": pins}): 1,
        lambda: engine.update(key, {"head": _part(chance, record)}): 1,
        lambda: engine.replace(key, messages): 1,
        lambda: engine.fork(key, other, at=_part(chance, record)): 2,
        lambda: engine.fork(key, other): 2,
        lambda: engine.delete(key): 1,
    }
    with suppress(SessionExists, SessionNotFound, InvalidMessage):
        chance.choices(list(what), list(what.values()))[0]()


@pytest.mark.parametrize("seed", range(6))
def test_what_nothing_reaches_is_freed_at_once_and_nothing_else(place: Place, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(250):
        _change(chance, place.engine, Key("alice", f"s{chance.randrange(4)}"))
        place.stored()
    for record in place.engine.list_sessions("alice").records:
        assert place.engine.delete(record.key)
        place.stored()
    assert place.stored().others == {"schema"}
    assert len(list(place.client.scan_iter(match=f"{place.prefix}:*"))) == 1


ALICE = Key("alice", "s")
FORK = Key("alice", "fork")


def _texts(first: int, last: int) -> list[Message]:
    return [Message("user", f"m{number}", id=f"id{number}") for number in range(first, last)]


def _begin(place: Place, count: int, key: Key = ALICE) -> None:
    place.engine.open_session(Record(*key))
    place.engine.append(key, _texts(0, count))


def _said(place: Place, key: Key = ALICE) -> list[Any]:
    return [message.content for message in place.engine.read(key, 0).messages]


def _head(place: Place, key: Key = ALICE) -> Pin:
    record = place.engine.get(key)
    assert record is not None
    return record.head


def _lines(place: Place) -> list[list[str | None]]:
    """What lies in the lists, longest first."""
    found = place.stored().lists.values()
    lists = [[str(decode(line).content) if line else None for line in lines] for lines in found]
    return sorted(lists, key=lambda lines: (-len(lines), str(lines)))


def test_what_a_pin_holds_in_the_middle_keeps_its_place_and_the_log_goes_on(place: Place) -> None:
    _begin(place, 8)
    place.engine.update(ALICE, {"start": 8, "pins": {"x": Pin(_head(place).log, 3, 5)}})
    assert place.engine.drop(ALICE) > 0
    assert _lines(place) == [["m3", "m4", None, None, None]]
    place.engine.append(ALICE, _texts(8, 10))
    assert _lines(place) == [["m3", "m4", None, None, None, "m8", "m9"]]
    place.engine.update(ALICE, {"pins": {}})
    assert _lines(place) == [["m8", "m9"]]
    place.engine.append(ALICE, _texts(10, 11))
    assert _said(place) == ["m8", "m9", "m10"]


def test_the_last_empty_places_go_when_nobody_appends_behind_them_any_more(place: Place) -> None:
    _begin(place, 6)
    place.engine.update(ALICE, {"start": 6, "pins": {"x": Pin(_head(place).log, 1, 3)}})
    place.engine.drop(ALICE)
    assert _lines(place) == [["m1", "m2", None, None, None]]
    place.engine.replace(ALICE, _texts(6, 7))
    assert _lines(place) == [["m1", "m2"], ["m6"]]


def test_a_fork_holds_what_it_began_with_and_not_what_its_source_said_later(place: Place) -> None:
    _begin(place, 6)
    place.engine.fork(ALICE, Record(*FORK), at=Pin(_head(place).log, 1, 4))
    place.engine.append(FORK, [Message("user", f"f{number}") for number in range(4, 9)])
    place.engine.update(ALICE, {"start": 6})
    place.engine.drop(ALICE)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"], ["m1", "m2", "m3", None, None]]
    place.engine.update(FORK, {"start": 3})
    place.engine.drop(FORK)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"], ["m3", None, None]]
    place.engine.update(FORK, {"start": 4})
    place.engine.drop(FORK)
    assert _lines(place) == [["f4", "f5", "f6", "f7", "f8"]]
    assert not any("base" in fields for fields in place.stored().logs.values())


def test_a_log_that_only_leads_to_another_one_goes_with_the_last_view_through_it(place: Place) -> None:
    keys = [ALICE, *(Key("alice", f"f{number}") for number in range(4))]
    _begin(place, 3)
    for source, fork in pairwise(keys):
        place.engine.fork(source, Record(*fork))
        place.engine.append(fork, [Message("user", fork.session_id)])
    for key in keys[:-1]:
        place.engine.delete(key)
    assert _lines(place) == [["m0", "m1", "m2"], ["f0"], ["f1"], ["f2"], ["f3"]]
    place.engine.update(keys[-1], {"start": 5})
    place.engine.drop(keys[-1])
    assert _lines(place) == [["f2"], ["f3"]]
    assert len(place.stored().logs) == 2
    place.engine.delete(keys[-1])
    assert place.stored().others == {"schema"}


def test_an_id_that_was_freed_and_given_again_means_both_messages(place: Place) -> None:
    _begin(place, 3)
    place.engine.fork(ALICE, Record(*FORK))
    place.engine.update(ALICE, {"start": 2})
    place.engine.drop(ALICE)
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    assert place.engine.append(FORK, _texts(0, 3)).length == 3
    assert [*place.stored().ids.values()] == [{"id0": "0", "id1": "1 3", "id2": "2"}]
    place.engine.delete(FORK)
    assert place.engine.append(ALICE, _texts(1, 2)).length == 4
    place.engine.update(ALICE, {"start": 4})
    place.engine.drop(ALICE)
    assert _lines(place) == []
    place.stored()


def test_an_id_that_a_pin_and_the_head_have_is_forgotten_with_both(place: Place) -> None:
    _begin(place, 3)
    place.engine.update(ALICE, {"start": 3, "pins": {"x": Pin(_head(place).log, 1, 2)}})
    place.engine.drop(ALICE)
    place.engine.append(ALICE, _texts(1, 2))
    assert [*place.stored().ids.values()] == [{"id1": "1 3"}]
    place.engine.update(ALICE, {"start": 4, "pins": {}})
    place.engine.drop(ALICE)
    assert place.stored().ids == {}


def test_an_id_that_two_messages_have_is_forgotten_when_both_go_at_once(place: Place) -> None:
    _begin(place, 3)
    head = _head(place)
    place.engine.fork(ALICE, Record(*FORK), at=Pin(head.log, 0, 1))
    place.engine.update(ALICE, {"start": 3, "pins": {"x": Pin(head.log, 1, 2)}})
    place.engine.drop(ALICE)
    place.engine.append(ALICE, _texts(1, 2))
    assert [*place.stored().ids.values()] == [{"id0": "0", "id1": "1 3"}]
    place.engine.delete(ALICE)
    assert [*place.stored().ids.values()] == [{"id0": "0"}]


def test_deleting_everything_leaves_nothing_but_the_schema(place: Place) -> None:
    for user in ("alice", "bob", "{a}", "a}b", "a%7Db"):
        _begin(place, 3, Key(user, "s"))
        _begin(place, 3, Key(user, "{s}:users"))
        place.engine.fork(Key(user, "s"), Record(user, "fork"))
    assert {"users", "owners:s", "owners:fork", "owners:{s}:users"} < place.stored().others
    for record in place.engine.list_sessions(None).records:
        assert place.engine.delete(record.key)
    assert place.stored().others == {"schema"}
    assert place.engine.list_sessions(None).records == []
