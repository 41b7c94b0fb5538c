"""A Redis or Valkey server that forgets, is read key by key, and is looked over.

What a reader would get wrong: a key that is gone from the memory is not gone from the disk. The append-only file still has
the commands that wrote it, and a dump all that was there when it was made, until the server writes them anew.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from praisonaiagents.errors import EngineUnreachable
from praisonaiagents.model.record import Key
from praisonaiagents.storage.powers import Finding, Forgotten, Raw, counted, framed, pieces_of_file
from praisonaiagents.storage.redislink import Broken, ClusterLink, Command, Link, Node, SingleLink, checked

if TYPE_CHECKING:
    from praisonaiagents.storage.redis import RedisEngine

_LOOK_AGAIN_S = 0.02
_PATIENCE_S = 120.0
_REMOVAL_S = 5.0
_COUNT = 500  # keys of one look, and items of one piece of a list
_LOGS = (("SLOWLOG", "GET", -1), ("COMMANDLOG", "GET", -1, "large-request"), ("COMMANDLOG", "GET", -1, "large-reply"))
_HARMLESS = "harmless, it only takes room"
_LOCAL = ("localhost", "127.0.0.1", "::1")


class _Server(NamedTuple):
    """One of the servers that have data."""

    link: Link
    node: Node | None

    def ask(self, *command: Any) -> Any:
        """The answer to one command, which may be an error. Raises `EngineUnreachable`."""
        commands: Sequence[Command] = [command]
        try:
            if isinstance(self.link, ClusterLink) and self.node is not None:
                return self.link._ask(self.node, commands)[0]
            return self.link.ask(b"", commands)[0]
        except Broken as exc:
            raise EngineUnreachable(str(exc)) from exc

    def get(self, *command: Any) -> Any:
        """The answer to one command that must not be an error. Raises `StorageError`."""
        return checked([self.ask(*command)], str(self.node or "the server"))[0]

    def setting(self, name: str) -> str | None:
        """None if the server does not tell."""
        answer = self.ask("CONFIG", "GET", name)
        return os.fsdecode(answer[1]) if isinstance(answer, list) and len(answer) == 2 else None

    def state(self, section: str) -> dict[str, str]:
        answer = self.ask("INFO", section)
        return dict(re.findall(r"(\w+):([^\r\n]*)", answer.decode())) if isinstance(answer, bytes) else {}


def _servers(engine: RedisEngine) -> list[_Server]:
    link = engine._linked()
    if isinstance(link, ClusterLink):
        link._node(b"")
        return [_Server(link, node) for node in sorted(set(link._map))]
    return [_Server(link, engine._target.nodes[0] if isinstance(link, SingleLink) else None)]


# Forgetting


def forget(engine: RedisEngine, user_id: str, session_ids: Collection[str]) -> Forgotten:
    """Take back what was registered, then let every server write its files anew."""
    for session_id in session_ids:
        engine._forget(Key(user_id, session_id))
    problems: dict[str, None] = {}
    said: dict[str, None] = {}
    for server in _servers(engine):
        done = _rewrite(server)
        problems |= dict.fromkeys(done.problems)
        said |= dict.fromkeys(done.left_to_operators)
    for server in _servers(engine):
        _clear_logs(server, engine._names.prefix.encode())
    left_to_operators = [
        *said,
        "replicas hold the same keys no longer, but their own files until they write them anew: BGREWRITEAOF and BGSAVE "
        "on each",
        "copies and backups of the dump and of the append-only file are as they were",
        "the disk may keep the blocks of files that were replaced until they are overwritten",
    ]
    return Forgotten(list(problems), left_to_operators)


def _clear_logs(server: _Server, prefix: bytes) -> None:
    """Logs of slow and of large commands quote them. They are cleared where they quote ours."""
    for command in _LOGS:
        answer = server.ask(*command)
        if isinstance(answer, list) and prefix in _flat(answer):
            server.ask(command[0], "RESET", *command[3:])


def _rewrite(server: _Server) -> Forgotten:
    """Let a server write what it keeps on its disk anew, and wait for it."""
    appends, saves = server.setting("appendonly"), server.setting("save")
    if appends is None or saves is None:
        what = "the server does not tell its settings: where it keeps an append-only file or a dump, say BGREWRITEAOF and BGSAVE"
        return Forgotten([what], [])
    problems: list[str] = []
    said: list[str] = []
    if appends == "yes":
        problems += _do(server, "BGREWRITEAOF", "aof_rewrite_in_progress", "aof_last_bgrewrite_status")
        _wait_for_removal(server)
    if saves or any(os.path.exists(path) for path in _dump(server)):
        problems += _do(server, "BGSAVE", "rdb_bgsave_in_progress", "rdb_last_bgsave_status")
    elif appends != "yes":
        said.append("this server writes nothing to its disk now; a dump that it wrote earlier would be as it was")
        return Forgotten(problems, said)
    if server.setting("rdbcompression") == "yes":
        said.append(
            "the server compresses what it writes, so reading those files proves little: that they are new does"
        )
    return Forgotten(problems, said)


def _do(server: _Server, command: str, running: str, status: str) -> list[str]:
    """Start something that the server does beside its work, and wait until it is done. Returns what went wrong."""
    until = time.monotonic() + _PATIENCE_S
    _wait(server, until)
    answer = server.ask(command)
    if isinstance(answer, Exception):
        return [f"the server refused {command}: say it yourself"]
    if not _wait(server, until):
        return [f"{command} has not ended yet: look at {running} in INFO persistence, and check again"]
    return [] if server.state("persistence").get(status) == "ok" else [f"{command} failed: look at the server's log"]


def _wait(server: _Server, until: float) -> bool:
    """Until nothing is being written, or it is time. True if nothing is."""
    while True:
        state = server.state("persistence")
        names = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
        if not any(state.get(name) == "1" for name in names):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_AGAIN_S)


def _wait_for_removal(server: _Server) -> None:
    """Until the server has removed the files that it replaced, which it does beside its work."""
    until = time.monotonic() + _REMOVAL_S
    while time.monotonic() < until:
        files = _append_files(server)
        listed = "".join(_read(path) for path in files if path.endswith(".manifest"))
        if not listed or all(os.path.basename(path) in listed for path in files if path.endswith((".aof", ".rdb"))):
            return
        time.sleep(_LOOK_AGAIN_S)


def _read(path: str) -> str:
    return b"".join(pieces_of_file(path)).decode(errors="replace")


# Key by key


def raw(engine: RedisEngine) -> Iterator[Raw]:
    """All keys with the engine's prefix, the server's logs, and its files where they lie on this machine."""
    place, names = engine._place, engine._names
    yield Raw(f"keys on {place}", "", b"")
    for server in _servers(engine):  # first of all: on a busy server, looking at the keys is logged too
        for command in _LOGS:
            answer = server.ask(*command)
            if isinstance(answer, list) and answer:
                log = " ".join(map(str, (command[0], *command[3:])))
                yield Raw(f"logs of {place}", f"{log}: clear it with {command[0]} RESET", framed([_flat(answer)]))
    for server in _servers(engine):
        for key in _keys(server, names.prefix):
            shown = key.decode(errors="replace")
            parts = _parts(names.prefix, key)
            yield Raw(f"keys on {place}", "the name of a key", framed(parts))
            kind = _text(server.get("TYPE", key))
            yield from (
                Raw(f"keys on {place}", f"a {kind} under {_hidden(shown)}", framed(some))
                for some in _values(server, key, kind)
            )
        for path in (*_dump(server), *_append_files(server)):
            yield from (Raw(f"bytes of {path}", "", piece) for piece in pieces_of_file(path))


def _keys(server: _Server, prefix: str) -> Iterator[bytes]:
    pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", prefix) + ":*"
    cursor: Any = b"0"
    while True:
        cursor, keys = server.get("SCAN", cursor, "MATCH", pattern, "COUNT", _COUNT)
        yield from keys
        if _text(cursor) == "0":
            return


def _parts(prefix: str, key: bytes) -> list[bytes]:
    """The ids in the name of a key, as they were before they were made part of it."""
    rest = key.removeprefix(prefix.encode() + b":")
    if rest.startswith(b"{") and b"}:" in rest:
        tag, _, name = rest[1:].partition(b"}:")
        user = tag.replace(b"%7D", b"}").replace(b"%7B", b"{").replace(b"%25", b"%")
        return [user, name.partition(b":")[2] or name]
    return [rest.partition(b":")[2] or rest]


def _hidden(name: str) -> str:
    """What kind of key it is, without the ids in it."""
    return re.sub(r"\{.*\}", "{...}", name).rpartition(":")[0] or name


def _values(server: _Server, key: bytes, kind: str) -> Iterator[list[bytes]]:
    if kind == "string":
        yield [server.get("GET", key) or b""]
    elif kind == "list":
        start = 0
        while some := server.get("LRANGE", key, start, start + _COUNT - 1):
            yield some
            start += _COUNT
    else:
        scan = {"hash": "HSCAN", "set": "SSCAN", "zset": "ZSCAN"}.get(kind)
        cursor: Any = b"0"
        while scan:
            cursor, some = server.get(scan, key, cursor, "COUNT", _COUNT)
            yield some
            if _text(cursor) == "0":
                return


def _dump(server: _Server) -> list[str]:
    """The path of the dump, where the server's folder is on this machine and can be read."""
    folder, name = _folder(server), server.setting("dbfilename")
    return [f"{folder}/{name}"] if folder and name else []


def _append_files(server: _Server) -> list[str]:
    folder, name, file = _folder(server), server.setting("appenddirname"), server.setting("appendfilename")
    if folder is None:
        return []
    parts = f"{folder}/{name}"
    found = [f"{folder}/{file}"] if file and os.path.isfile(f"{folder}/{file}") else []
    if name and os.path.isdir(parts):
        found += [f"{parts}/{each}" for each in sorted(os.listdir(parts))]
    return [path for path in found if os.access(path, os.R_OK)]


def _folder(server: _Server) -> str | None:
    local = server.node is not None and (not server.node.port or server.node.host in _LOCAL)
    folder = server.setting("dir") if local else None
    return folder if folder and os.path.isdir(folder) and os.access(folder, os.R_OK | os.X_OK) else None


def _flat(answer: Any) -> bytes:
    """All the bytes in an answer."""
    if isinstance(answer, list):
        return b"\0".join(map(_flat, answer))
    return answer if isinstance(answer, bytes) else str(answer).encode()


def _text(answer: Any) -> str:
    return answer.decode() if isinstance(answer, bytes) else str(answer)


# Looking over


def audit(engine: RedisEngine, user_id: str | None) -> Iterator[Finding]:
    """Keys that nothing refers to, and what refers to no key. Each is looked at twice, because others may be at work."""
    prefix = engine._names.prefix
    own = None if user_id is None else engine._names.space(user_id)
    owners = engine._names.owners("")
    for server in _servers(engine):
        orphans = stale = 0
        for key in _keys(server, prefix):
            if own is not None and not key.startswith(own):
                continue
            space, _, rest = key.partition(b"}:")
            kind, _, name = rest.partition(b":")
            if kind == b"s":
                yield from _session(server, space + b"}:", key, Key(_text_of(prefix, space), _decoded(name)))
            elif rest == b"index":
                yield from _index(server, space + b"}:", key, _text_of(prefix, space))
            elif kind in (b"l", b"i", b"c", b"m") and not _is_needed(server, space + b"}:", name):
                orphans += 1
            elif key.startswith(owners):
                stale += _stale(engine, server, key)
        if orphans:
            yield Finding(False, f"{counted(orphans, 'key')} of messages that no session refers to", _HARMLESS)
        if stale:
            yield Finding(False, f"{counted(stale, 'note')} of who has a session that is not there", _HARMLESS)


def _stale(engine: RedisEngine, server: _Server, key: bytes) -> int:
    """How many users are said to have a session, and have not."""
    session_id = _decoded(key.removeprefix(engine._names.owners("")))
    users = map(_decoded, server.get("HKEYS", key))
    return sum(engine.get(Key(user, session_id)) is None for user in users)


def _text_of(prefix: str, space: bytes) -> str:
    return _decoded(_parts(prefix, space + b"}:x")[0])


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _session(server: _Server, space: bytes, name: bytes, key: Key) -> Iterator[Finding]:
    log = server.get("HGET", name, "log")
    if (
        isinstance(log, bytes)
        and not server.get("EXISTS", space + b"m:" + log)
        and server.get("HGET", name, "log") == log
    ):
        yield Finding(True, "the log of its messages is gone", "restore the session from a backup", key)
    session_id = name.removeprefix(space + b"s:")
    if server.get("ZSCORE", space + b"index", session_id) is None and server.get("EXISTS", name):
        yield Finding(True, "the index of sessions does not list it", "add a message to it: that lists it again", key)


def _index(server: _Server, space: bytes, index: bytes, user_id: str) -> Iterator[Finding]:
    for some in _values(server, index, "zset"):
        for session_id in some[::2]:
            gone = not server.get("EXISTS", space + b"s:" + session_id)
            if gone and server.get("ZSCORE", index, session_id) is not None:
                key = Key(user_id, _decoded(session_id))
                yield Finding(True, "it is listed, but its record is gone", "restore the session from a backup", key)


def _is_needed(server: _Server, space: bytes, log: bytes) -> bool:
    """Whether a session is in a log, or another log is based on it."""
    fields = server.get("HKEYS", space + b"m:" + log)
    owners = [field for field in fields if field.startswith(b"s:")]
    if any(server.get("EXISTS", space + owner) for owner in owners):
        return True
    children = server.get("HKEYS", space + b"c:" + log) if fields else []
    return any(server.get("EXISTS", space + b"m:" + child) for child in children)
