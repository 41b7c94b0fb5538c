"""Which ids can name a session or a user, and the file name each one gets.

Two different ids never get the same file name, whatever they contain: `a/b`, `a.b`, `a_b`, `..`, an emoji, 300 characters.
Safe ids keep their name, so people find their sessions in the folder; anything else is percent-escaped, and what would be
too long for a file system is cut and ends in a hash. A disk that is blind to case still maps `A` and `a` to one file: a
pure function cannot see that, so the file engine compares the ids in the file's header and falls back to `twin_stem`.
"""

from __future__ import annotations

import re

from praisonaiagents.errors import InvalidId, InvalidIdType

DEFAULT_USER = "default_user"
MAX_ID_BYTES = 1024

_LONGEST_STEM = 180
_KEPT_OF_LONG = 120
_HASH_MARK = "%~"  # never the start of an escape, so no escaped id can look like a hashed one

_PLAIN = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SAFE_BYTES = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
_WINDOWS_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)


def check_session_id(value: object) -> str:
    """Return `value` if it can name a session.

    Any text of 1 to 1,024 UTF-8 bytes without control characters. Raises `InvalidIdType` for anything but a string and
    `InvalidId` for the rest.
    """
    return _check("session id", value)


def check_user_id(value: object) -> str:
    """Return the user a call means: None, `""` and `"default_user"` are one and the same.

    Otherwise the rules of `check_session_id` hold.
    """
    if value is None or value == "":
        return DEFAULT_USER
    return _check("user id", value)


def _check(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidIdType(f"a {what} is a string, not {type(value).__name__}")
    if _PLAIN.fullmatch(value) and len(value) <= MAX_ID_BYTES:
        return value
    if not value:
        raise InvalidId(f"a {what} cannot be empty")
    if _CONTROL.search(value):
        raise InvalidId(f"a {what} cannot contain control characters")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as exc:
        raise InvalidId(f"a {what} cannot contain half a character (a lone surrogate)") from exc
    if size > MAX_ID_BYTES:
        raise InvalidId(f"a {what} has at most {MAX_ID_BYTES} bytes, this one has {size}")
    return value


def file_stem(checked_id: str) -> str:
    """The file name, without extension, for an id: injective, ASCII, at most 180 characters."""
    stem = _escape(checked_id)
    if len(stem) <= _LONGEST_STEM:
        return stem
    digest = _digest(checked_id)
    return _shorten(stem) + _HASH_MARK + digest


def id_of_stem(stem: str) -> str | None:
    """The inverse of `file_stem`. None for a stem that holds only a hash of its id, or that `file_stem` never makes."""
    try:
        checked_id = re.sub(r"(?:%[0-9A-F]{2})+", lambda run: bytes.fromhex(run[0].replace("%", "")).decode(), stem)
        return checked_id if file_stem(_check("id", checked_id)) == stem else None
    except ValueError:
        return None


def twin_stem(user_id: str, session_id: str) -> str:
    """Another stem for the same session, used when the first one is taken by a session of another id or user."""
    digest = _digest(f"{user_id}\0{session_id}")
    return _shorten(_escape(session_id)) + _HASH_MARK + digest


def reference_stem(session_id: str) -> str:
    """The stem under which PraisonAI keeps an id. Not injective: read its files by their header, never write by it."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in session_id)


def _escape(checked_id: str) -> str:
    if _PLAIN.fullmatch(checked_id) and not _WINDOWS_DEVICE.match(checked_id):
        return checked_id
    raw = checked_id.encode()
    last = len(raw) - 1
    device = _WINDOWS_DEVICE.match(checked_id) is not None

    def plain(position: int, byte: int) -> bool:
        if byte == ord(".") and position in (0, last):
            return False  # hidden on Unix, dropped on Windows
        return byte in _SAFE_BYTES and not (device and position == 0)

    return "".join(chr(byte) if plain(i, byte) else f"%{byte:02X}" for i, byte in enumerate(raw))


def _digest(text: str) -> str:
    import hashlib  # loads OpenSSL, which most ids never need

    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _shorten(stem: str) -> str:
    """Cut a stem without leaving half an escape at its end."""
    cut = stem[:_KEPT_OF_LONG]
    half = cut.rfind("%", _KEPT_OF_LONG - 2)
    return cut if half < 0 else cut[:half]
