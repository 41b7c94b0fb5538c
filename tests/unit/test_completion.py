"""What the Tab key proposes, asked for as each shell asks, and once in a real bash."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from click.testing import CliRunner

from praisonaiagents.cli.main import praisonai
from praisonaiagents.session import HierarchicalSessionStore, get_default_session_store
from praisonaiagents.session.labels import tag
from praisonaiagents.session.places import open_store
from praisonaiagents.storage.registry import ENTRY_POINTS

PATIENCE_S = 60
Complete = Callable[..., list[str]]


@pytest.fixture
def sessions() -> None:
    store = get_default_session_store()
    for session_id in ("other", "my-first", "my-second", "日本", "two words", "-dash", "$HOME", "it's"):
        store.add_user_message(session_id, "Hello!")
    store.add_user_message("bobs", "Hello!", user_id="bob")


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> Complete:
    """`complete(*words, shell=...)`: what the shell gets for a line whose last word is being typed."""

    def ask(*words: str, shell: str = "bash") -> list[str]:
        line = ["praisonai", *words]
        monkeypatch.setenv("_PRAISONAI_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", " ".join(line))
        # fish says what is being typed, the others where it stands
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words)))
        done = CliRunner().invoke(praisonai, prog_name="praisonai", standalone_mode=False)
        monkeypatch.delenv("_PRAISONAI_COMPLETE")
        assert done.stderr == ""
        return done.stdout.strip().splitlines()

    return ask


def values(lines: list[str]) -> list[str]:
    """The proposals of bash's protocol."""
    return [line.removeprefix("plain,") for line in lines]


def test_commands(complete: Complete) -> None:
    assert values(complete("")) == ["session", "memory", "run", "serve", "migrate", "doctor", "completion"]
    assert values(complete("session", ""))[:6] == ["list", "start", "resume", "show", "delete", "search"]
    assert values(complete("session", "sh")) == ["show"]
    assert values(complete("session", "un")) == ["undo", "untag", "unpin", "unarchive"]
    assert values(complete("completion", "z")) == ["zsh"]


def test_options(complete: Complete) -> None:
    assert "--limit" in values(complete("session", "list", "--"))
    assert values(complete("session", "delete", "my-first", "--y")) == ["--yes"]


@pytest.mark.usefixtures("sessions")
@pytest.mark.parametrize(
    "words",
    [
        *[("session", name) for name in ("start", "resume", "show", "delete", "diff", "retry", "tag", "pin")],
        ("session", "merge", "other"),
        ("run", "-s"),
    ],
)
def test_session_ids_newest_first_without_those_a_shell_would_take_apart(
    complete: Complete, words: tuple[str, ...]
) -> None:
    assert values(complete(*words, "")) == ["日本", "my-second", "my-first", "other"]
    assert values(complete(*words, "my-")) == ["my-second", "my-first"]
    assert values(complete(*words, "日")) == ["日本"]


@pytest.mark.usefixtures("sessions")
def test_session_ids_are_those_of_the_user_named_before(complete: Complete) -> None:
    assert values(complete("session", "show", "--user", "bob", "")) == ["bobs"]
    assert values(complete("session", "show", "--user", "carol", "")) == []


@pytest.mark.usefixtures("sessions")
def test_points_of_a_session_after_an_at(complete: Complete) -> None:
    store = HierarchicalSessionStore.of(get_default_session_store())
    safe = store.create_snapshot("other")
    store.add_user_message("other", "more")
    store.revert("other", safe)
    assert values(complete("session", "diff", "other@")) == [f"other@{safe}", "other@head:1"]
    assert values(complete("session", "merge", "my-first", "other@h")) == ["other@head:1"]
    assert values(complete("session", "revert", "other", "--to", "h")) == ["head:1"]
    assert values(complete("session", "revert", "--to", "")) == []
    assert values(complete("session", "diff", "nowhere@")) == []


@pytest.mark.usefixtures("sessions")
def test_tags_that_are_in_use(complete: Complete) -> None:
    store = get_default_session_store()
    tag(store, "other", "trip", "2026", "two words")
    tag(store, "my-first", "trip", "tea")
    assert values(complete("session", "list", "--tag", "t")) == ["tea", "trip"]
    assert values(complete("session", "untag", "other", "")) == ["2026", "tea", "trip"]
    assert values(complete("session", "list", "--user", "bob", "--tag", "")) == []


@pytest.mark.usefixtures("sessions")
def test_zsh_and_fish_get_the_same_in_their_own_form(complete: Complete) -> None:
    zsh = complete("session", "resume", "my-", shell="zsh")
    assert zsh == ["plain", "my-second", "_", "plain", "my-first", "_"]
    fish = complete("session", "resume", "my-", shell="fish")
    assert [word for line in fish for word in line.replace(",", "\t").split("\t") if word.startswith("my-")] == [
        "my-second",
        "my-first",
    ]


@pytest.mark.parametrize("user", [[], ["--user", "a\x01b"]])
def test_where_nothing_can_be_read_nothing_is_proposed(complete: Complete, home: Path, user: list[str]) -> None:
    home.write_text("not a folder")
    assert complete("session", "show", *user, "") == []


HANGING = """
import threading
from praisonaiagents.storage.memory import MemoryEngine

class Hanging(MemoryEngine):
    def __init__(self, url):
        super().__init__()

    def list_sessions(self, *args, **options):
        threading.Event().wait()
"""


def test_a_place_that_never_answers_keeps_nobody_waiting(tmp_path: Path) -> None:
    """It is an engine of another package, for the servers of ours give up sooner or later."""
    info = tmp_path / "hanging-1.0.dist-info"
    info.mkdir()
    (tmp_path / "hanging.py").write_text(HANGING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hanging\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\nhanging = hanging:Hanging\n")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "_PRAISONAI_COMPLETE": "zsh_complete",
        "COMP_WORDS": "praisonai session show --db hanging://host ",
        "COMP_CWORD": "5",
    }
    done = subprocess.run(
        [sys.executable, "-m", "praisonaiagents.cli"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_ask_this_program(shell: str) -> None:
    script = CliRunner().invoke(praisonai, ["completion", shell])
    assert script.exit_code == 0
    assert f"_PRAISONAI_COMPLETE={shell}_complete" in script.stdout
    as_json = CliRunner().invoke(praisonai, ["completion", shell, "--json"])
    assert shell in as_json.stdout
    assert len(as_json.stdout.splitlines()) == 1


@pytest.mark.usefixtures("sessions")
def test_tab_in_a_real_bash(tmp_path: Path) -> None:
    """bash finds `praisonai` on its PATH, so one is put there that is this very code."""
    with open_store(f"file://{tmp_path}/other") as store:
        store.add_user_message("a:b:c", "Elsewhere")
    program = tmp_path / "bin" / "praisonai"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m praisonaiagents.cli "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "TERM": "dumb", "PS1": "$ "}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork among threads; exec follows at once
        bash = pexpect.spawn(
            "bash", ["--norc", "--noprofile", "-i"], env=environment, encoding="utf-8", timeout=PATIENCE_S
        )
    try:
        bash.sendline('bind "set enable-bracketed-paste off"; eval "$(praisonai completion bash)"; echo rea""dy')
        bash.expect_exact("ready")
        bash.send("praisonai ses\tdel\tmy-f\t--y\t")
        bash.expect_exact("session ")
        bash.expect_exact("delete ")
        bash.expect_exact("my-first ")
        bash.expect_exact("--yes ")
        bash.sendline("")
        bash.expect_exact("Deleted session: my-first")
        bash.send(f"praisonai session show --db file://{tmp_path}/other a:b\t")
        bash.expect_exact("a:b:c ")
        bash.sendline("")
        bash.expect_exact("[user] Elsewhere")
    finally:
        bash.close(force=True)


def test_a_completion_is_no_chat(complete: Complete, home: Path) -> None:
    """Asking for proposals makes nothing and loads no model."""
    complete("session", "start", "")
    complete("session", "start", "--db", f"sqlite:///{home}.db", "")
    assert not home.exists()
    assert not home.with_suffix(".db").exists()
    asked = os.environ | {"_PRAISONAI_COMPLETE": "bash_complete", "COMP_WORDS": "praisonai run -s ", "COMP_CWORD": "3"}
    program = (
        "import sys\nfrom praisonaiagents.cli.main import main\ntry:\n    main()\nfinally:\n    print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=asked, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = set(done.stdout.split())
    assert "praisonaiagents.cli.run" in loaded
    assert loaded & {"asyncio", "pydantic_ai", "prompt_toolkit", "praisonaiagents.cli.chat"} == set()
