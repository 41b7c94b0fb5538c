"""What is remembered, at a keyboard: a chat that remembers, why a memory was used, and the question before it is forgotten."""

from __future__ import annotations

from test_cli_terminal import PROMPT, P, Terminal, environment, finish, leave, terminal  # noqa: F401 - two of them are fixtures


def test_a_chat_remembers_and_the_next_one_knows(terminal: Terminal) -> None:  # noqa: F811
    chat = terminal(f"{P} session start first --remember")
    chat.expect(PROMPT)
    chat.send("My name is Alice\r")
    chat.expect("Noted.*Alice")
    leave(chat)
    chat = terminal(f"{P} session start second --remember")
    chat.expect(PROMPT)
    chat.send("What's my name?\r")
    chat.expect_exact("Your name is Alice.")
    leave(chat)
    shown = finish(terminal(f"{P} memory list"))
    assert "The user's name is Alice" in shown
    assert "mem-" in shown
    assert "shares name" in finish(terminal(f"{P} memory used second"))


def test_it_asks_before_it_forgets_and_hides_control_characters(terminal: Terminal) -> None:  # noqa: F811
    finish(terminal(f"{P} memory add $'Likes \\e[31mred\\e[0m tea'"))
    shown = finish(terminal(f"{P} memory search tea"))
    assert "\x1b[31m" not in shown
    assert "red" in shown
    asked = terminal(f"{P} memory forget --all")
    asked.expect_exact("Forget all that is remembered of user default_user, for good? [y/N]")
    asked.send("n\r")
    assert "Cancelled" in finish(asked)
    asked = terminal(f"{P} memory forget --all")
    asked.expect_exact("[y/N]")
    asked.send("y\r")
    assert "Forgot 1 memory" in finish(asked)
    assert "Nothing is remembered" in finish(terminal(f"{P} memory list"))
