"""What users say, and what the model answers: different for each user and each turn, so that a mixed-up one is seen."""

from __future__ import annotations

from collections.abc import Sequence

PREFIX = "token-of-"
_FILL = "the quick brown fox jumps over the lazy dog " * 4


def token(user: str) -> str:
    return PREFIX + user


def user_of(token: str) -> str | None:
    """What a server is given as `users=`."""
    return token.removeprefix(PREFIX) if token.startswith(PREFIX) else None


def said(user: str, number: int) -> str:
    """What a user says in turn `number`: 200 characters."""
    return f"{user} says {number}: {_FILL}"[:200]


def answer(user: str, number: int) -> str:
    return answer_to([said(user, before) for before in range(number + 1)])


def answer_to(heard: Sequence[str]) -> str:
    """The model's answer after it heard all this, which tells how much that was and what came first and last."""
    return f"After {len(heard)}, from {heard[0][:40]!r}: {heard[-1]}"
