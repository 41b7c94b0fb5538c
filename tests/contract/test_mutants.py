"""The contract suite is proved by broken engines: each fails the tests named above it, and each test fails some engine.

An engine here is the memory engine with one mistake that somebody could make. What a reader would get wrong: races are not
left to chance. A mutant with a race lets all threads of the test arrive at its weak point first (`_Gate`), so it fails each
time.
"""

from __future__ import annotations

import inspect
import itertools
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from praisonaiagents.errors import (
    Conflict,
    InvalidId,
    InvalidMessage,
    MessageIdConflict,
    MessageTooLarge,
    SessionNotFound,
)
from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.model.message import Message, decode, encode
from praisonaiagents.model.record import PATCHABLE, RESERVED, Key, Pin, Record
from praisonaiagents.model.search import Query, tokens
from praisonaiagents.storage.engine import Appended, Found, Hit, Page, Slice, batch
from praisonaiagents.storage.memory import MemoryEngine
from praisonaiagents.testing import EngineContract

TESTS = [name for name in dir(EngineContract) if name.startswith("test_")]
MUTANTS: list[tuple[type[MemoryEngine], str]] = []
LIMIT = 1_000_000


def fails(*tests: str) -> Callable[[type[MemoryEngine]], type[MemoryEngine]]:
    """Say which contract tests an engine must fail."""

    def register(mutant: type[MemoryEngine]) -> type[MemoryEngine]:
        MUTANTS.extend((mutant, f"test_{test}") for test in tests)
        return mutant

    return register


replace = msgspec.structs.replace


def _lenient(value: Any) -> Any:
    """What a JSON library makes of a value when nobody checks it."""
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))


def _try_lenient(value: Any) -> Any:
    try:
        return _lenient(value)
    except (ValueError, TypeError, RecursionError):
        return {}


class _Gate:
    """Lets nobody through before `count` threads have come."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def wait(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(timeout=10)


class _Folding(dict[Key, Any]):
    """Sessions under keys that are not what they were."""

    def __init__(self, fold: Callable[[Key], Any]) -> None:
        super().__init__()
        self.fold = fold

    def get(self, key: Key, default: Any = None) -> Any:
        return super().get(self.fold(key), default)

    def __setitem__(self, key: Key, value: Any) -> None:
        super().__setitem__(self.fold(key), value)

    def pop(self, key: Key, default: Any = None) -> Any:
        return super().pop(self.fold(key), default)


# ----------------------------------------------------------------------------------------------------------- identity


@fails("it_has_the_methods_of_an_engine")
class LacksAMethod(MemoryEngine):
    drop: Any = None


class _Keyed(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._sessions = _Folding(self.fold)

    def fold(self, key: Key) -> Any:
        raise NotImplementedError


@fails("two_users_read_their_own", "another_users_session_is_not_there", "a_change_touches_one_session_only")
class IgnoresTheUser(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key("", key.session_id)


@fails("session_ids_that_look_alike_stay_apart", "user_ids_that_look_alike_stay_apart")
class FoldsCase(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key(key.user_id.lower(), key.session_id.lower())


@fails("session_ids_that_look_alike_stay_apart", "user_ids_that_look_alike_stay_apart")
class FlattensIds(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key(*("".join(c if c.isalnum() or c in "-." else "_" for c in part) for part in key))


@fails("session_ids_that_look_alike_stay_apart", "user_ids_that_look_alike_stay_apart")
class CutsLongIds(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key(key.user_id[:255], key.session_id[:255])


@fails("session_ids_that_look_alike_stay_apart", "user_ids_that_look_alike_stay_apart")
class NormalisesIds(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key(*(unicodedata.normalize("NFC", part) for part in key))


@fails("session_ids_that_look_alike_stay_apart", "user_ids_that_look_alike_stay_apart")
class StripsIds(_Keyed):
    def fold(self, key: Key) -> Any:
        return Key(*(part.strip() or "-" for part in key))


@fails("user_and_session_ids_do_not_run_together")
class JoinsIds(_Keyed):
    def fold(self, key: Key) -> Any:
        return ":".join(key)


@fails("another_users_session_is_not_there")
class FallsBackToTheOtherOwner(MemoryEngine):
    def get(self, key: Key) -> Record | None:
        owners = self.owners(key.session_id)
        return super().get(key) or (super().get(Key(owners[0], key.session_id)) if owners else None)


@fails("a_change_touches_one_session_only")
class DeletesEveryUsersSession(MemoryEngine):
    def delete(self, key: Key) -> bool:
        owners = self.owners(key.session_id)
        return [super(DeletesEveryUsersSession, self).delete(Key(owner, key.session_id)) for owner in owners] != []


@fails("a_change_touches_one_session_only")
class UpdatesAllSessionsOfTheUser(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        for other in self._sessions:
            if other.user_id == key.user_id:
                super().update(other, patch)
        return super().update(key, patch, **options)


@fails("owners_are_all_users_of_a_session_id")
class FindsOwnersByAPattern(MemoryEngine):
    def owners(self, session_id: str) -> list[str]:
        return sorted(key.user_id for key in self._sessions if key.session_id.startswith(session_id))


@fails("owners_are_all_users_of_a_session_id")
class ListsOwnersUnsorted(MemoryEngine):
    def owners(self, session_id: str) -> list[str]:
        return super().owners(session_id)[::-1]


# ------------------------------------------------------------------------------------------------------------ opening


@fails("a_new_session_is_empty", "revision_counts_changes_of_the_record")
class StartsAtRevisionOne(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        new = self.get(record.key) is None
        opened = super().open_session(record, **options)
        return self.update(record.key, {}) if new else opened


@fails("open_keeps_what_the_record_says")
class ForgetsWhenItWasMade(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        return super().open_session(replace(record, created_at=0.0), **options)


@fails("open_numbers_from_zero_whatever_the_record_says")
class TrustsTheRecordsNumbers(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        new = self.get(record.key) is None
        opened = super().open_session(record, **options)
        return replace(opened, length=record.length) if new else opened


@fails("open_leaves_an_existing_session_as_it_is", "what_changes_nothing_does_not_make_it_newer")
class OpensByOverwriting(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        super().open_session(record, **options)
        return self.update(record.key, {"agent_name": record.agent_name})


@fails("must_be_new_refuses_an_existing_session")
class OpensAnywayWhatMustBeNew(MemoryEngine):
    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        return super().open_session(record)


@fails("of_many_who_open_at_once_one_makes_it")
class LooksThenMakes(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(8)

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        missing = self.get(record.key) is None
        if must_be_new:
            self._gate.wait()
        return super().open_session(record, must_be_new=must_be_new and not missing)


@fails("many_may_open_and_append_at_once")
class RaisesWhenBeatenToIt(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(8)

    def open_session(self, record: Record, *, must_be_new: bool = False) -> Record:
        missing = self.get(record.key) is None
        self._gate.wait()
        return super().open_session(record, must_be_new=missing)


@fails("open_refuses_what_json_cannot_hold")
class LetsJsonDecideAboutNewRecords(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        fields = {name: _try_lenient(getattr(record, name)) for name in ("metadata", "state", "extra")}
        return super().open_session(replace(record, **fields), **options)


@fails("open_refuses_what_json_cannot_hold", "extra_cannot_hide_a_field")
class DropsExtraFieldsItCannotKeep(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        extra = _try_lenient({name: value for name, value in record.extra.items() if name not in RESERVED})
        return super().open_session(replace(record, extra=extra), **options)


@fails("open_refuses_wrong_types")
class OpensWithWrongTypes(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        name = None if record.agent_name is None else str(record.agent_name)
        return super().open_session(replace(record, agent_name=name), **options)


@fails("open_refuses_ids_that_name_nothing")
class NamesTheNameless(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        named = replace(record, user_id=record.user_id or DEFAULT_USER, session_id=record.session_id or "unnamed")
        return super().open_session(named, **options)


@fails("open_refuses_ids_that_name_nothing")
class TakesIdsOfAnyLength(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        try:
            return super().open_session(record, **options)
        except InvalidId:
            cut = replace(record, session_id=str(record.session_id)[:1024], user_id=str(record.user_id)[:1024])
            return super().open_session(cut, **options)


@fails("what_is_not_there_is_not_made_by_asking")
class MakesWhatItIsAskedFor(MemoryEngine):
    def get(self, key: Key) -> Record | None:
        return self.open_session(Record(*key))


@fails("what_is_not_there_is_not_made_by_asking")
class MakesWhatItAppendsTo(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        self.open_session(Record(*key))
        return super().append(key, messages, **options)


# ---------------------------------------------------------------------------------------------------------- appending


class _Appending(MemoryEngine):
    """Stores `stored(key, messages)` in place of the messages that it is given."""

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        return super().append(key, self.stored(key, messages), **options)

    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        raise NotImplementedError

    def ids(self, key: Key) -> set[str]:
        session = self._sessions.get(key)
        return {message.id for message in super().read(key, session.first).messages} if session else set()


@fails("append_tells_what_it_did")
class TellsAWrongStart(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        return super().append(key, messages, **options)._replace(start=0)


@fails("messages_keep_the_order_of_their_appends", "threads_append_each_message_once")
class ReversesABatch(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return messages[::-1]

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, messages, **options)
        return done._replace(length=done.length - len(messages))


@fails("messages_keep_the_order_of_their_appends")
class LosesAMessageOfABatch(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return messages[:100]


@fails("a_message_comes_back_exactly")
class StripsText(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, content=m.content.strip()) if isinstance(m.content, str) else m for m in messages]


@fails("a_message_comes_back_exactly")
class CallsNoContentEmpty(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, content="") if m.content is None else m for m in messages]


@fails("a_message_comes_back_exactly")
class DropsUnknownKeys(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, extra={}) for m in messages if isinstance(m.extra, dict)]


@fails("a_message_comes_back_exactly")
class TurnsWholeFloatsIntoIntegers(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, metadata=self.whole(m.metadata)) for m in messages]

    def whole(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.whole(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.whole(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 9 else value


@fails("messages_come_back_exactly_after_every_change")
class LosesUnknownKeysInAnUpdate(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        record = super().update(key, patch, **options)
        session = self._sessions[key]
        for number, line in session.head.items():
            session.head[number] = encode(replace(decode(line), extra={}))
        return record


@fails("a_time_may_be_a_whole_number")
class KnowsNoWholeTimes(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [m if isinstance(m.timestamp, float) else replace(m, timestamp=0.0) for m in messages]


@fails("a_message_that_cannot_be_kept_is_refused")
class LetsJsonDecideAboutMessages(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, metadata=_try_lenient(m.metadata)) for m in messages]


@fails("a_message_that_cannot_be_kept_is_refused")
class StoresHalfABatchBeforeItRefuses(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, [], **options)
        for message in messages:
            done = super().append(key, [message], **options)
        return done


@fails("a_message_that_cannot_be_kept_is_refused")
class ClearsBeforeItReplaces(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        super().replace(key, [])
        return super().replace(key, messages)


@fails("a_message_may_be_as_large_as_the_limit")
class CountsCharactersOfTheText(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        for message in messages:
            if isinstance(message.content, str) and len(message.content) > self._max_message_bytes:
                raise MessageTooLarge(len(message.content), self._max_message_bytes)
        allowed, self._max_message_bytes = self._max_message_bytes, 2**40
        try:
            return super().append(key, messages, **options)
        finally:
            self._max_message_bytes = allowed


@fails("a_refusal_tells_no_message_text")
class QuotesTheMessage(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        try:
            return super().append(key, messages, **options)
        except InvalidMessage as exc:
            raise InvalidMessage(f"{exc}: {messages}") from exc


# ---------------------------------------------------------------------------------------------- message ids and repeats


@fails("a_message_without_an_id_gets_one")
class MakesIdsOfTheContent(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [m if m.id else replace(m, id=f"{m.role}{m.content}") for m in messages]


@fails("message_ids_may_be_any_text")
class StripsMessageIds(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, id=m.id.strip()) if isinstance(m.id, str) else m for m in messages]


@fails("message_ids_may_be_any_text")
class FoldsMessageIds(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        known = {name.lower(): name for name in self.ids(key)}
        return [replace(m, id=known.setdefault(m.id.lower(), m.id)) for m in messages if isinstance(m.id, str)]


@fails("a_repeated_append_stores_nothing_twice", "expected_length_does_not_stop_a_repeat")
class StoresARepeatTwice(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [replace(m, id="") if m.id in self.ids(key) else m for m in messages]


@fails("the_order_of_keys_is_not_content", "a_message_repeated_later_is_stored_once")
class ComparesBytes(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        session = self._session(key)
        for message_id, line in batch(messages, self._max_message_bytes).lines.items():
            if session.stored({message_id}).get(message_id) not in (None, line):
                raise MessageIdConflict(message_id)
        return super().append(key, messages, **options)


@fails("a_batch_may_mix_stored_and_new_messages")
class LeavesOutABatchWithAStoredMessage(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [] if any(m.id in self.ids(key) for m in messages) else messages


@fails("a_message_twice_in_a_batch_is_stored_once")
class LooksForRepeatsInTheStoreOnly(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        seen: set[str] = set()
        return [replace(m, id="") if m.id in seen else seen.add(m.id) or m for m in messages]


@fails("an_id_of_another_message_is_refused", "an_archived_message_is_still_stored", "replace_may_reuse_ids")
class KeepsTheFirstOfTwoContents(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [m for m in messages if m.id not in self.ids(key)]


@fails("an_id_of_another_message_is_refused")
class ComparesTextOnly(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        texts = {m.id: m.content for m in super().read(key, 0).messages}
        return [m for m in messages if m.id not in texts or texts[m.id] != m.content]


@fails("a_batch_that_contradicts_itself_is_refused")
class LetsTheLastOfABatchWin(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        last = {m.id: m for m in messages}
        return [m for m in messages if not m.id or last[m.id] is m]


@fails("two_sessions_may_hold_the_same_message_id", "session_ids_that_look_alike_stay_apart")
class KnowsIdsOfAllSessions(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        elsewhere = set().union(*(self.ids(other) for other in self._sessions if other != key))
        return [m for m in messages if m.id not in elsewhere]


@fails("an_archived_message_is_still_stored")
class ForgetsIdsOfArchivedMessages(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        session = self._session(key)
        first, session.first = session.first, session.record.start
        try:
            return super().append(key, messages, **options)
        finally:
            session.first = first


# ----------------------------------------------------------------------------------------------------- expected length


@fails("expected_length_stores_when_it_is_right", "two_handles_append_in_one_order")
class ExpectsOneMore(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        expected = None if expected_length is None else expected_length + 1
        return super().append(key, messages, expected_length=expected)


@fails("expected_length_refuses_when_it_is_wrong", "expected_length_of_an_empty_session_is_compared_too")
class IgnoresExpectedLength(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        return super().append(key, messages)


@fails("expected_length_refuses_when_it_is_wrong")
class TakesZeroForNothingExpected(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        return super().append(key, messages, expected_length=expected_length or None)


@fails("expected_length_of_an_empty_session_is_compared_too")
class ComparesNothingWithAnEmptySession(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        expected = expected_length if self._session(key).record.length else None
        return super().append(key, messages, expected_length=expected)


@fails("expected_length_does_not_stop_a_repeat")
class ComparesTheLengthFirst(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        length = self._session(key).record.length
        if expected_length not in (None, length):
            raise Conflict("length", expected_length or 0, length)
        return super().append(key, messages)


@fails("expected_length_counts_archived_and_freed_messages")
class ComparesWithVisibleMessages(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        start = self._session(key).record.start
        expected = None if expected_length is None else expected_length + start
        return super().append(key, messages, expected_length=expected)


@fails("of_many_who_expect_the_same_length_one_wins")
class ComparesThenAppends(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(8)

    def append(self, key: Key, messages: Sequence[Message], *, expected_length: int | None = None) -> Appended:
        length = self._session(key).record.length
        if expected_length is not None:
            self._gate.wait()
            if length != expected_length:
                raise Conflict("length", expected_length, length)
        return super().append(key, messages)


# ------------------------------------------------------------------------------------------------------------- reading


@fails("read_is_a_slice_of_a_list")
class ReadsOneTooMany(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        return super().read(key, start, stop if stop is None else stop + 1)


@fails("read_is_a_slice_of_a_list")
class CountsNegativeStartsFromZero(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        return super().read(key, 0 if start is not None and start < 0 else start, stop)


@fails("read_is_a_slice_of_a_list")
class ReadsNegativeStopsAsPythonDoes(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        length = (self.get(key) or Record(*key)).length
        return super().read(key, start, length + stop if stop is not None and stop < 0 else stop)


@fails("read_is_a_slice_of_a_list", "start_hides_messages_and_keeps_them")
class ReadsArchivedMessagesWithTheRest(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        return super().read(key, 0 if start is None else start, stop)


@fails("read_is_a_slice_of_a_list", "drop_frees_what_is_archived")
class NumbersWhatItReadFromZero(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        return super().read(key, start, stop)._replace(first=0)


@fails("read_finds_any_part_of_a_long_session", "messages_keep_the_order_of_their_appends")
class ReadsAHundredAtMost(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        found = super().read(key, start, stop)
        return found._replace(messages=found.messages[:100])


@fails("any_history_that_is_held_can_be_read")
class ReadsWhatIsShownWhateverIsAsked(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        return super().read(key, start, stop)


@fails("any_history_that_is_held_can_be_read")
class ReadsNothingOfWhatIsNotHeld(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        try:
            return super().read(key, start, stop, at=at)
        except InvalidMessage:
            return Slice(0, [])


@fails("any_history_that_is_held_can_be_read")
class ReadsAnotherHistoryWhole(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None, *, at: Pin | None = None) -> Slice:
        return super().read(key, start, stop) if at is None else super().read(key, at=at)


# ---------------------------------------------------------------------------------------------- keeping what was shown


class _Keeps(MemoryEngine):
    """It pins what was shown by itself, and forgets some of it."""

    def kept(self, record: Record) -> Pin:
        raise NotImplementedError

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        with self._lock:
            record = self.get(key)
            if record and isinstance(patch.get("keep"), dict):
                pin = self.kept(record)
                kept = {
                    name: msgspec.structs.replace(pin, info=info | {"start": record.start})
                    for name, info in patch["keep"].items()
                    if isinstance(info, dict)
                }
                rest = {name: value for name, value in patch.items() if name != "keep"}
                patch = rest | {"pins": patch.get("pins", record.pins) | kept}
            return super().update(key, patch, expected_revision=expected_revision)


@fails("what_was_shown_is_kept_with_its_archive")
class KeepsNoArchive(_Keeps):
    def kept(self, record: Record) -> Pin:
        return record.head


@fails("nothing_that_is_appended_meanwhile_is_lost_when_the_head_moves")
class KeepsAllButTheNewest(_Keeps):
    def kept(self, record: Record) -> Pin:
        return Pin(record.log, record.start, max(2, record.length - 1))


# ----------------------------------------------------------------------------------------------------------- numbering


@fails("replace_makes_the_whole_history", "numbers_go_on_after_replace")
class AppendsInReplace(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        self.append(key, messages)
        return self.update(key, {})


def _numbered_from_zero(session: Any) -> Any:
    record, lines = session.record, list(session.head.values())
    session.logs[record.log] = dict(enumerate(lines))
    session.record = replace(record, start=record.start - session.first, length=len(lines))
    session.first = 0
    return session


@fails("replace_makes_the_whole_history", "numbers_go_on_after_replace")
class NumbersFromZeroAfterReplace(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        super().replace(key, messages)
        return _numbered_from_zero(self._sessions[key]).current()


@fails("replace_frees_archived_messages_too", "numbers_go_on_after_replace")
class ArchivesInReplace(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        self.update(key, {"start": self._session(key).record.length})
        self.append(key, messages)
        return self._session(key).current()


@fails("replace_keeps_the_rest_of_the_record")
class ReplacesTheSession(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        super().replace(key, messages)
        session = self._session(key)
        session.record = replace(session.record, state={}, agent_name=None)
        return session.current()


@fails("replace_may_reuse_ids")
class LeavesOutReplacedMessagesThatComeAgain(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        stored = {message.id for message in self.read(key, 0).messages}
        return super().replace(key, [m for m in messages if m.id not in stored])


@fails("replace_stores_a_message_given_twice_once")
class ReplacesWithRepeats(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        super().replace(key, messages[:2])
        if len(messages) == 4:
            self._add(self._session(key), batch(messages[2:], LIMIT).lines)
        return self._session(key).current()


@fails("start_hides_messages_and_keeps_them", "drop_frees_what_is_archived")
class FreesWhatItShouldArchive(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        record = super().update(key, patch, **options)
        self.drop(key)
        return record


@fails("start_only_moves_forward")
class MovesStartBack(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        super().update(key, patch, **options)
        session = self._session(key)
        session.record = replace(session.record, start=patch.get("start", session.record.start))
        return session.current()


@fails("start_lies_in_the_history")
class MovesStartAsFarAsItGoes(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        if "start" in patch and type(patch["start"]) is int:
            patch = {**patch, "start": max(0, min(patch["start"], self._session(key).record.length))}
        return super().update(key, patch, **options)


@fails("drop_frees_what_is_archived")
class FreesNothing(MemoryEngine):
    def drop(self, key: Key) -> int:
        self._session(key)
        return 0


@fails("drop_frees_what_is_archived")
class NumbersFromZeroAfterDrop(MemoryEngine):
    def drop(self, key: Key) -> int:
        freed = super().drop(key)
        _numbered_from_zero(self._session(key))
        return freed


@fails("a_freed_message_is_not_stored_any_more")
class RemembersIdsOfFreedMessages(_Appending):
    def drop(self, key: Key) -> int:
        self._freed = self.ids(key)
        return super().drop(key)

    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [m for m in messages if m.id not in getattr(self, "_freed", ())]


# ---------------------------------------------------------------------------------------------------------- the record


class _Updating(MemoryEngine):
    """Applies `applied(record, patch)` in place of the patch that it is given."""

    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        return super().update(key, self.applied(self._session(key).record, dict(patch)), **options)

    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


@fails("update_replaces_the_fields_it_names")
class MergesInAnUpdate(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        old = {name: getattr(record, name) for name in patch.keys() & PATCHABLE}
        return {n: old[n] | v if isinstance(v, dict) and type(old.get(n)) is dict else v for n, v in patch.items()}


@fails("update_replaces_the_fields_it_names", "an_agent_name_may_be_any_text")
class TakesAnEmptyNameForNone(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return patch | {"agent_name": patch["agent_name"] or None} if "agent_name" in patch else patch


@fails("update_leaves_the_messages_alone")
class RewritesWithoutTheLastMessage(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        super().update(key, patch, **options)
        session = self._session(key)
        session.record = replace(session.record, length=session.record.length - 1)
        return session.current()


@fails("values_of_a_record_come_back_exactly")
class HoldsIntegersAsFloats(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return {name: self.floated(value) if name != "start" else value for name, value in patch.items()}

    def floated(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: self.floated(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.floated(item) for item in value]
        return int(float(value)) if type(value) is int and abs(value) < 2**200 else value


@fails("update_refuses_what_json_cannot_hold")
class LetsJsonDecideAboutUpdates(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return {name: _try_lenient(value) for name, value in patch.items()}


@fails("update_refuses_what_json_cannot_hold")
class UpdatesFieldByField(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        for name in patch:
            super().update(key, {name: patch[name]}, **options)
        return self._session(key).current()


@fails("update_refuses_other_fields_and_types")
class IgnoresUnknownFields(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in patch.items() if name in PATCHABLE}


@fails("revision_counts_changes_of_the_record")
class CountsMessagesAsRevisions(MemoryEngine):
    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, messages, **options)
        self.update(key, {})
        return done


@fails("revision_counts_changes_of_the_record", "expected_revision_refuses_when_it_is_wrong")
class CountsNoRevisions(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        super().update(key, patch, **options)
        self._session(key).record = replace(self._session(key).record, revision=0)
        return self._session(key).current()


@fails("expected_revision_stores_when_it_is_right")
class ExpectsTheNextRevision(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        expected = None if expected_revision is None else expected_revision - 1
        return super().update(key, patch, expected_revision=expected)


@fails("of_many_changes_of_a_record_none_is_lost", "expected_revision_refuses_when_it_is_wrong")
class IgnoresExpectedRevision(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(4)

    def update(self, key: Key, patch: Mapping[str, Any], *, expected_revision: int | None = None) -> Record:
        if threading.current_thread() is not threading.main_thread():
            self._gate.wait()
        return super().update(key, patch)


@fails("what_was_given_may_be_changed_later")
class KeepsTheGivenState(MemoryEngine):
    def open_session(self, record: Record, **options: Any) -> Record:
        opened = super().open_session(record, **options)
        self._session(record.key).record = replace(self._session(record.key).record, state=record.state)
        return opened


@fails("what_was_returned_may_be_changed_later")
class HandsOutItsOwnRecord(MemoryEngine):
    def get(self, key: Key) -> Record | None:
        session = self._sessions.get(key)
        return session.record if session else None


@fails("what_was_returned_may_be_changed_later")
class HandsOutItsOwnMessages(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        self._cache = getattr(self, "_cache", {})
        return self._cache.setdefault((key, start, stop), super().read(key, start, stop))


# ------------------------------------------------------------------------------------------------------------- listing


class _Listing(MemoryEngine):
    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        """Pages by offset of `order(sessions)`."""
        found = self.order([s for key, s in self._sessions.items() if user_id in (None, key.user_id)])
        first = int(after or 0)
        more = str(first + limit) if first + limit < len(found) else None
        return Page([session.current() for session in found[first : first + limit]], more)

    def order(self, sessions: list[Any]) -> list[Any]:
        raise NotImplementedError


@fails("listing_is_newest_first", "pages_hold_every_session_once")
class ListsInNoOrder(_Listing):
    def order(self, sessions: list[Any]) -> list[Any]:
        return sorted(sessions, key=lambda session: session.record.session_id)


@fails("a_change_makes_a_session_the_newest")
class ListsByTheTimeOfMaking(_Listing):
    def order(self, sessions: list[Any]) -> list[Any]:
        return sorted(sessions, key=lambda session: session.record.created_at, reverse=True)


@fails("changes_between_pages_hide_no_other_session")
class PagesByOffset(_Listing):
    def order(self, sessions: list[Any]) -> list[Any]:
        return sorted(sessions, key=lambda session: session.changed, reverse=True)


@fails("what_changes_nothing_does_not_make_it_newer")
class IsTouchedByReading(MemoryEngine):
    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        if start == 1000:
            self._touch(self._session(key))
        return super().read(key, start, stop)


@fails("a_listing_holds_whole_records", "values_of_a_record_come_back_exactly")
class ListsWithoutState(MemoryEngine):
    def list_sessions(self, user_id: str | None, **options: Any) -> Page:
        page = super().list_sessions(user_id, **options)
        return page._replace(records=[replace(record, state={}, length=0, start=0) for record in page.records])


@fails("a_user_lists_their_own_sessions", "listing_is_newest_first")
class ListsEverybodysSessions(MemoryEngine):
    def list_sessions(self, user_id: str | None, **options: Any) -> Page:
        return super().list_sessions(None, **options)


@fails("pages_hold_every_session_once", "pages_hold_sessions_of_the_same_instant_once")
class SkipsOneBetweenPages(MemoryEngine):
    def list_sessions(self, user_id: str | None, *, after: str | None = None, limit: int = 50) -> Page:
        page = super().list_sessions(user_id, after=after, limit=limit + 1)
        if len(page.records) <= limit:
            return page
        return Page(page.records[:limit], str(self._session(page.records[limit].key).changed))


@fails("pages_hold_sessions_of_the_same_instant_once")
class ContinuesAfterAnInstant(MemoryEngine):
    def _touch(self, session: Any) -> None:
        super()._touch(session)
        session.changed = self._changes // 10


# ------------------------------------------------------------------------------------------------------------ deleting


@fails("delete_removes_everything", "another_users_session_is_not_there")
class SaysItDeletedWhatWasNotThere(MemoryEngine):
    def delete(self, key: Key) -> bool:
        super().delete(key)
        return True


@fails("delete_removes_everything")
class DeletesTheRecordOnly(MemoryEngine):
    def delete(self, key: Key) -> bool:
        self._left = {key: super().read(key, 0)}
        return super().delete(key)

    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        return getattr(self, "_left", {}).get(key) or super().read(key, start, stop)


class _Bin(MemoryEngine):
    def delete(self, key: Key) -> bool:
        self._bin = self._sessions.get(key)
        return super().delete(key)


@fails("a_session_made_again_knows_nothing_of_the_old_one")
class BringsADeletedSessionBack(_Bin):
    def open_session(self, record: Record, **options: Any) -> Record:
        opened = super().open_session(record, **options)
        if getattr(self, "_bin", None):
            self._sessions[record.key] = self._bin
        return opened


@fails("a_session_made_again_knows_nothing_of_the_old_one")
class RemembersIdsOfADeletedSession(_Appending):
    def delete(self, key: Key) -> bool:
        self._deleted = self.ids(key)
        return super().delete(key)

    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        return [m for m in messages if m.id not in getattr(self, "_deleted", ())]


# ---------------------------------------------------------------------------------------------------- pins and the head


@fails("the_log_stays_while_the_history_goes_on")
class KeepsTheLogWhenItReplaces(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        log = self._session(key).record.log
        super().replace(key, messages)
        session = self._session(key)
        session.logs = {log: session.head}
        session.record = replace(session.record, log=log)
        return session.current()


@fails("the_log_stays_while_the_history_goes_on")
class NamesLogsFromOneAgain(MemoryEngine):
    def delete(self, key: Key) -> bool:
        self._logs = 0
        return super().delete(key)


@fails("the_log_stays_while_the_history_goes_on")
class NamesTheLogAfterTheFirstMessageLeft(MemoryEngine):
    def drop(self, key: Key) -> int:
        freed = super().drop(key)
        session = self._session(key)
        session.logs[f"{session.first}"] = session.logs.pop(session.record.log)
        session.record = replace(session.record, log=f"{session.first}")
        return freed


class _Pinning(_Updating):
    """Holds `pins(record, pins)` in place of the pins that it is given."""

    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return patch | ({"pins": self.pins(record, patch["pins"])} if "pins" in patch else {})

    def pins(self, record: Record, pins: Any) -> Any:
        raise NotImplementedError


@fails("a_pin_comes_back_as_it_was_given")
class ForgetsWhatAPinIsFor(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return {name: replace(pin, info={}) for name, pin in pins.items()}


@fails("a_pin_comes_back_as_it_was_given")
class SortsPins(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return dict(sorted(pins.items()))


@fails("a_pin_comes_back_as_it_was_given")
class NeverLetsGoOfAPin(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return record.pins | pins


@fails("the_head_moves_to_a_pin")
class MovesTheHeadWithinItsLog(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        record = super().update(key, patch, **options)
        return replace(record, log=patch["head"].log) if "head" in patch else record


@fails("the_head_moves_to_a_pin")
class ArchivesTheStartOfAPinThatItMovesTo(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return patch | {"head": replace(patch["head"], start=0)} if "head" in patch else patch


@fails("the_head_moves_to_a_pin")
class LetsGoOfThePinThatItMovesTo(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        head = patch.get("head")
        left = {name: pin for name, pin in patch.get("pins", record.pins).items() if head and pin.length != head.length}
        return patch | {"pins": left} if head else patch


@fails("a_move_can_be_undone", "a_pin_holds_its_messages_whatever_happens")
class PinsNothingButALength(MemoryEngine):
    """A pin shows the first messages of whatever the history is."""

    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        session = self._session(key)
        shown = dict(session.head)
        record = super().update(key, patch, **options)
        if "head" in patch:
            session.head.update({number: shown.get(number, line) for number, line in session.head.items()})
        return record


@fails("a_message_beyond_the_head_is_not_stored_any_more")
class RemembersIdsBeyondTheHead(_Appending):
    def stored(self, key: Key, messages: Sequence[Message]) -> Sequence[Message]:
        lines = (line for log in self._session(key).logs.values() for line in log.values())
        beyond = {decode(line).id for line in lines} - self.ids(key)
        return [m for m in messages if m.id not in beyond]


@fails("a_pin_holds_its_messages_whatever_happens")
class MovesPinsForwardWithStart(MemoryEngine):
    def drop(self, key: Key) -> int:
        session = self._session(key)
        start = session.record.start
        pins = {
            name: replace(p, start=max(p.start, start), length=max(p.length, start))
            for name, p in session.record.pins.items()
        }
        session.record = replace(session.record, pins=pins)
        return super().drop(key)


@fails("a_pin_holds_its_messages_whatever_happens")
class EmptiesPinsWhenItReplaces(MemoryEngine):
    def replace(self, key: Key, messages: Sequence[Message]) -> Record:
        pins = super().replace(key, messages).pins
        head = self._session(key).record.head
        return self.update(key, {"pins": dict.fromkeys(pins, replace(head, length=head.start))})


@fails("a_pin_holds_only_what_the_session_holds")
class HoldsAsMuchOfAPinAsThereIs(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return {name: self.clipped(record, pin) for name, pin in pins.items()}

    def clipped(self, record: Record, pin: Any) -> Any:
        first, length = self._session(record.key).first, record.length
        if type(pin) is not Pin or pin.log != record.log:
            return pin
        return replace(pin, start=min(max(first, pin.start), length), length=min(max(first, pin.length), length))


@fails("update_refuses_what_is_no_pin")
class LeavesOutWhatIsNoPin(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return {name: pin for name, pin in pins.items() if type(pin) is Pin} if isinstance(pins, dict) else pins


@fails("update_refuses_what_is_no_pin")
class MovesNowhereWithoutAPin(_Updating):
    def applied(self, record: Record, patch: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in patch.items() if name != "head" or type(value) is Pin}


@fails("a_pin_refuses_what_json_cannot_hold")
class LetsJsonDecideAboutPins(_Pinning):
    def pins(self, record: Record, pins: Any) -> Any:
        return {name: replace(pin, info=_try_lenient(pin.info)) for name, pin in pins.items()}


@fails("a_session_made_again_has_no_pins")
class KeepsThePinsOfADeletedSession(_Bin):
    def open_session(self, record: Record, **options: Any) -> Record:
        opened = super().open_session(record, **options)
        old = getattr(self, "_bin", None)
        if old:
            session = self._session(record.key)
            session.logs |= old.logs
            session.record = replace(session.record, pins=old.record.pins)
        return session.current() if old else opened


# --------------------------------------------------------------------------------------------------------------- forks


class _Forking(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        super().fork(key, record, at=at)
        self.spoil(self._session(key), self._session(record.key))
        return self._session(record.key).current()

    def spoil(self, source: Any, fork: Any) -> None:
        raise NotImplementedError


@fails("a_fork_has_the_history")
class ForksTheArchiveToo(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        fork.head.update({number: source.head[number] for number in range(source.first, fork.first)})
        fork.first = source.first


@fails("a_fork_has_the_history")
class NumbersForksFromZero(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        _numbered_from_zero(fork)


@fails("a_fork_has_the_history")
class ForksTheStateOfTheSource(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        fork.record = replace(fork.record, state=source.record.state)


@fails("a_fork_has_the_history")
class ForksThePinsToo(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        fork.record = replace(fork.record, pins=source.record.pins)


@fails("a_fork_has_the_history")
class RemembersInTheSourceThatItWasForked(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        source.record = replace(source.record, revision=source.record.revision + 1)


@fails("a_fork_is_new_in_the_listing")
class TouchesWhatItForks(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        self._touch(source)
        source.record = replace(source.record, updated_at=source.record.updated_at - 1)


@fails("a_fork_and_its_source_know_nothing_of_each_other")
class LetsAForkWriteIntoItsSource(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        fork.logs[fork.record.log] = source.head

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, messages, **options)
        for other in self._sessions.values():
            other.record = replace(other.record, length=max(other.head, default=-1) + 1)
        return done


@fails("a_fork_and_its_source_know_nothing_of_each_other")
class ArchivesInTheForksToo(MemoryEngine):
    def update(self, key: Key, patch: Mapping[str, Any], **options: Any) -> Record:
        for other in self._sessions.values():
            start = patch.get("start", 0)
            if other.record.key != key and type(start) is int and 0 <= start <= other.record.length:
                other.record = replace(other.record, start=max(start, other.record.start))
        return super().update(key, patch, **options)


@fails("a_fork_knows_the_messages_it_began_with")
class KnowsItsOwnMessagesOnly(_Forking):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._began: dict[Key, int] = {}

    def spoil(self, source: Any, fork: Any) -> None:
        self._began[fork.record.key] = fork.record.length

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        session = self._session(key)
        first, session.first = session.first, self._began.get(key, session.first)
        try:
            return super().append(key, messages, **options)
        finally:
            session.first = first


@fails("a_fork_may_begin_at_a_pin")
class ForksTheHeadOnly(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        return super().fork(key, record)


@fails("a_fork_may_begin_at_a_pin", "forks_of_forks_outlive_what_they_come_from")
class DeletesForksWithTheirSource(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        forked = super().fork(key, record, at=at)
        self._sessions[record.key].source = key  # type: ignore[attr-defined]
        return forked

    def delete(self, key: Key) -> bool:
        for other, session in list(self._sessions.items()):
            if getattr(session, "source", None) == key:
                self._sessions.pop(other)
        super().delete(key)
        return True


@fails("forks_of_forks_outlive_what_they_come_from")
class ReadsOneForkDeep(_Forking):
    def spoil(self, source: Any, fork: Any) -> None:
        deep = getattr(source, "deep", 0)
        fork.deep = deep + 1
        if deep > 5:
            fork.head[fork.record.start] = fork.head[fork.record.start + 1]


@fails("fork_refuses_what_cannot_be")
class ForksOverWhatIsThere(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        if record.key != key and key in self._sessions:
            self._sessions.pop(record.key, None)
        return super().fork(key, record, at=at)


@fails("fork_refuses_what_cannot_be")
class ForksToAnotherUser(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        return super().fork(key, replace(record, user_id=key.user_id), at=at)


@fails("fork_refuses_what_cannot_be")
class MakesWhatItForks(MemoryEngine):
    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        self.open_session(Record(*key))
        return super().fork(key, record, at=at)


@fails("of_many_who_fork_to_one_id_one_wins")
class LooksThenForks(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(4)

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        missing = self.get(record.key) is None
        self._gate.wait()
        with self._lock:
            if missing:
                self._sessions.pop(record.key, None)
            return super().fork(key, record, at=at)


@fails("forks_made_while_others_append_and_delete_are_whole")
class CountsThenCopies(MemoryEngine):
    """Another thread appends after the fork has a length, and before it has its messages."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._counted, self._appended = threading.Event(), threading.Event()

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        if threading.current_thread() is threading.main_thread():
            return super().append(key, messages, **options)
        self._counted.wait(timeout=10)
        done = super().append(key, messages, **options)
        self._appended.set()
        return done

    def fork(self, key: Key, record: Record, *, at: Pin | None = None) -> Record:
        counted = self._session(key).record
        self._counted.set()
        self._appended.wait(timeout=10)
        return replace(super().fork(key, record, at=at), length=counted.length)


# -------------------------------------------------------------------------------------------------------------- search


class _Searching(MemoryEngine):
    """Searches `candidates(user_id)` for those that match."""

    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        hits: dict[tuple[str, str], Hit] = {}
        for key, number, message in self.candidates(user_id):
            if query and self.matches(query, message.text()):
                hits.setdefault((key.user_id, message.id), Hit(key, number, message))
        return Found(list(hits.values())[:limit])

    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        for key in [key for key in self._sessions if user_id in (None, key.user_id)]:
            found = self.shown(key)
            yield from ((key, number, message) for number, message in enumerate(found.messages, found.first))

    def shown(self, key: Key) -> Slice:
        return self.read(key)

    def matches(self, query: Query, text: str) -> bool:
        return query.matches(text)


@fails("search_finds_words")
class SearchesWithCase(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        return query.matches("".join(c for c in text if not c.isupper()))


@fails("search_finds_words")
class SearchesForParts(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        return all(any(term in token for token in tokens(text)) for term in query.words + query.beginnings)


@fails("search_finds_words")
class FindsAnyOfTheWords(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        return not {*query.words, *query.beginnings}.isdisjoint(tokens(text))


@fails("search_finds_words")
class SplitsWordsAtSpaces(_Searching):
    """As the tokenisers of databases do."""

    def matches(self, query: Query, text: str) -> bool:
        return {*query.words, *query.beginnings} <= set(text.casefold().split())


@fails("search_finds_words")
class SearchesTextOnly(_Searching):
    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        return (found for found in super().candidates(user_id) if isinstance(found[2].content, str))


@fails("a_query_is_words_and_nothing_else")
class LeavesOutStopWords(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        words = tuple(word for word in query.words if word not in ("and", "or", "not", "near", "drop"))
        return super().matches(query._replace(words=words), text)


@fails("a_query_is_words_and_nothing_else")
class FindsEverythingByNoWord(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        return query.words == ("word",) or super().matches(query, text)


@fails("difficult_texts_can_be_searched")
class SearchesUpToANul(_Searching):
    def matches(self, query: Query, text: str) -> bool:
        return super().matches(query, text.partition("\0")[0])


@fails("search_finds_what_is_visible_now")
class FindsArchivedMessages(_Searching):
    def shown(self, key: Key) -> Slice:
        return self.read(key, 0)


@fails("search_finds_what_is_visible_now")
class FindsWhatPinsHold(_Searching):
    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        yield from super().candidates(user_id)
        for key, session in self._sessions.items():
            logs = session.logs.values()
            yield from ((key, number, decode(line)) for log in logs for number, line in log.items())


class _Indexed(_Searching):
    """Searches what was appended, until it is forgotten."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._index: list[tuple[Key, int, Message]] = []

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, messages, **options)
        found = self.read(key, done.length - len(messages))
        self._index += [(key, number, message) for number, message in enumerate(found.messages, found.first)]
        return done

    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        return (found for found in self._index if user_id in (None, found[0].user_id))


@fails("search_finds_what_is_visible_now")
class FindsWhatWasThereOnce(_Indexed):
    pass


@fails("search_finds_what_is_visible_now")
class FindsWhatWasAppendedOnly(_Indexed):
    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        visible = list(_Searching.candidates(self, user_id))
        return (found for found in super().candidates(user_id) if found in visible)


@fails("search_keeps_users_apart")
class SearchesEverybodysSessions(_Searching):
    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        return super().candidates(None)


@fails("search_keeps_users_apart")
class SearchesNobodysSessions(MemoryEngine):
    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        return super().search(user_id or DEFAULT_USER, query, limit=limit)


@fails("a_message_shared_by_forks_is_found_once")
class FindsAMessageInEveryFork(_Searching):
    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        found = (Hit(*found) for found in self.candidates(user_id))
        return Found([hit for hit in found if query and query.matches(hit.message.text())])


@fails("a_message_shared_by_forks_is_found_once")
class FindsAMessageWhereItWasFirst(_Indexed):
    def candidates(self, user_id: str | None) -> Iterator[tuple[Key, int, Message]]:
        return (found for found in super().candidates(user_id) if found[0] in self._sessions)


@fails("search_gives_no_more_than_the_limit")
class SearchesBeyondTheLimit(_Searching):
    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        return super().search(user_id, query, limit=limit + 1)


@fails("search_gives_no_more_than_the_limit")
class FindsTenAtMost(MemoryEngine):
    def search(self, user_id: str | None, query: Query, *, limit: int = 10) -> Found:
        return super().search(user_id, query, limit=min(limit, 10))


@fails("search_while_others_append")
class LosesWhatOthersIndex(_Indexed):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(3)

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        indexed = list(self._index)
        self._gate.wait()
        done = super().append(key, messages, **options)
        self._index = indexed + self._index[-1:]
        return done


@fails("it_describes_itself")
class TellsNotWhatSurvives(MemoryEngine):
    def describe(self) -> dict[str, str]:
        described = super().describe()
        del described["durability"]
        return described


@fails("it_describes_itself")
class DescribesItselfInNumbers(MemoryEngine):
    def describe(self) -> dict[str, str]:
        return super().describe() | {"schema": 1}  # type: ignore[dict-item]


# --------------------------------------------------------------------------------------------------------- two handles


class _Handle:
    """A second handle, with a mistake of its own, on an engine that has none."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


class _TwoHandles(MemoryEngine):
    handle: type[_Handle] = _Handle


@fails("a_change_is_seen_by_the_other_handle")
class RemembersWhatItRead(_TwoHandles):
    class handle(_Handle):
        def get(self, key: Key) -> Record | None:
            self.__dict__.setdefault("seen", {}).setdefault(key, self.engine.get(key))
            return self.seen[key]


@fails(
    "two_handles_append_in_one_order",
    "a_repeat_through_the_other_handle_is_noticed",
    "threads_of_two_handles_append_each_message_once",
)
class HasAStorageOfItsOwn(_TwoHandles):
    class handle(_Handle):
        def __init__(self, engine: MemoryEngine) -> None:
            super().__init__(MemoryEngine())

        def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
            self.engine.open_session(Record(*key))
            return self.engine.append(key, messages)


@fails("a_repeat_through_the_other_handle_is_noticed")
class KnowsItsOwnIdsOnly(_TwoHandles):
    class handle(_Handle):
        def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
            return self.engine.append(key, [replace(message, id="") for message in messages], **options)


@fails("search_sees_what_the_other_handle_wrote")
class RemembersWhatItFound(_TwoHandles):
    class handle(_Handle):
        def search(self, user_id: str | None, query: Query, **options: Any) -> Found:
            return self.__dict__.setdefault("found", self.engine.search(user_id, query, **options))


@fails("everything_is_there_after_closing")
class ForgetsEverythingWhenItIsClosed(_TwoHandles):
    def close(self) -> None:
        self._sessions.clear()


# --------------------------------------------------------------------------------------------------------- many at once


@fails("threads_append_each_message_once")
class LosesAppendsOfOtherThreads(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(8)

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        session = self._session(key)
        before, length = dict(session.head), session.record.length
        self._gate.wait()
        with self._lock:
            session.logs[session.record.log] = before
            session.record = replace(session.record, length=length)
            return super().append(key, messages, **options)


@fails("readers_never_see_half_a_batch")
class StoresABatchOneByOne(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._read = threading.Event()

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        done = super().append(key, messages[:1], **options)
        if done.length == 1:
            self._read.wait(timeout=10)
        return super().append(key, messages, **options)

    def read(self, key: Key, start: int | None = None, stop: int | None = None) -> Slice:
        found = super().read(key, start, stop)
        if found.messages:
            self._read.set()
        return found


@fails("threads_work_on_sessions_of_their_own")
class HasOneCurrentSession(MemoryEngine):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._gate = _Gate(6)

    def append(self, key: Key, messages: Sequence[Message], **options: Any) -> Appended:
        self._current = key
        self._gate.wait()
        return super().append(self._current, messages, **options)


@fails("close_may_be_called_twice")
class ClosesOnce(MemoryEngine):
    def close(self) -> None:
        if self._changes < 0:
            raise RuntimeError("closed already")
        self._changes = -1


# -------------------------------------------------------------------------------------------------------------- proving


def _arguments(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each run of a test, as its parametrize marks give them."""
    tables = []
    for mark in getattr(test, "pytestmark", []):
        names = [mark.args[0]] if isinstance(mark.args[0], str) else list(mark.args[0])
        rows = [[row] if len(names) == 1 else row for row in mark.args[1]]
        tables.append([dict(zip(names, row, strict=True)) for row in rows])
    for rows in itertools.product(*tables):
        yield {name: value for row in rows for name, value in row.items()}


def _run(kind: type[MemoryEngine], name: str) -> BaseException | None:
    """Run a contract test on an engine: what its first failing run raised, or None."""
    contract = EngineContract()
    contract.max_message_bytes = LIMIT
    test = getattr(contract, name)
    for arguments in _arguments(test):
        engine = kind(max_message_bytes=LIMIT)
        if "other" in inspect.signature(test).parameters:
            arguments["other"] = getattr(kind, "handle", _Handle)(engine)
        try:
            test(engine=engine, **arguments)
        except (Exception, pytest.fail.Exception) as exc:
            return exc
    return None


@pytest.mark.parametrize("name", TESTS)
def test_the_memory_engine_passes(name: str) -> None:
    assert _run(MemoryEngine, name) is None


@pytest.mark.parametrize(("mutant", "name"), MUTANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_mutant_fails(mutant: type[MemoryEngine], name: str) -> None:
    assert name in TESTS
    raised = _run(mutant, name)
    assert raised is not None
    # a mutant that stumbles before it makes its mistake would prove nothing
    assert not isinstance(raised, (AttributeError, KeyError, NameError, TypeError, SessionNotFound)), raised


def test_every_test_of_the_contract_fails_some_mutant() -> None:
    assert set(TESTS) - {name for _, name in MUTANTS} == set()


def test_a_contract_without_a_second_handle_skips_its_tests() -> None:
    with pytest.raises(pytest.skip.Exception):
        next(EngineContract.other.__wrapped__(EngineContract(), MemoryEngine()))  # type: ignore[attr-defined]


def test_a_contract_without_an_engine_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="engine"):
        EngineContract.engine.__wrapped__(EngineContract())  # type: ignore[attr-defined]
