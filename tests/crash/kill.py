"""A writer is killed, again and again, and its session is looked at: is everything there that it was told was stored?

    python -m tests.crash.kill --rounds 200
    python -m tests.crash.kill --rounds 200 --engine sqlite --engine postgres

The writer is a process of its own. It says the number of each message when the call that stored it has returned; then, at
a moment nobody chose, it gets SIGKILL. What it said is acknowledged, and must be in the file: once, in order, ungarbled. Of
what it did not say, the one message it was about to store may be there, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from praisonaiagents.errors import SessionDamage
from praisonaiagents.session.places import open_store

from .children import Child
from .content import numbers
from .databases import KINDS, place

LARGEST = 200_000  # bytes of text in a message
ROUNDS_PER_SESSION = 10  # after which a new session begins, or reading it all would take most of the time
MOST_ACKNOWLEDGED = 40  # messages that a writer has stored when it is killed
COUNT = 80  # messages that it would store otherwise


@dataclass
class Summary:
    rounds: int = 0
    acknowledged: int = 0
    lost: int = 0
    duplicated: int = 0
    disordered: int = 0
    unacknowledged_kept: int = 0
    torn_files_repaired: int = 0
    broken_after_repair: int = 0
    seeds: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.lost or self.duplicated or self.disordered or self.broken_after_repair)

    def __str__(self) -> str:
        names = [name for name in vars(self) if name != "seeds"]
        return "\n".join(f"{name.replace('_', ' '):>20}: {getattr(self, name):,}" for name in names)


def kill_writers(url: str, rounds: int, chance: random.Random) -> Summary:
    """Kill a writer in each round. The next round goes on with the same session, so what a repair spoils shows too."""
    summary = Summary()
    stored = 0
    for number in range(rounds):
        if number % ROUNDS_PER_SESSION == 0:
            session_id, stored = f"s{number}", 0
        stored = kill_one(url, session_id, stored, summary, chance)
    return summary


def kill_one(url: str, session_id: str, stored: int, summary: Summary, chance: random.Random) -> int:
    """One round on a session that holds `stored` messages. Returns how many it holds afterwards."""
    child = Child("append_to", url=url, session_id=session_id, author="a", first=stored, count=COUNT, largest=LARGEST)
    child.begin()
    for _ in range(chance.randint(0, MOST_ACKNOWLEDGED)):
        assert child.hear() is not None
    for _ in range(chance.randint(0, 5_000)):
        pass  # a part of the time that a write takes
    acknowledged = stored + len(child.kill())
    path = Path(url, f"{session_id}.json")  # there is none at other places
    summary.rounds += 1
    summary.acknowledged += acknowledged - stored
    summary.torn_files_repaired += path.exists() and not is_json(path)
    found = stored_numbers(url, session_id)
    judge(found, acknowledged, summary)
    summary.broken_after_repair += path.exists() and not is_json(path)
    return len(found)


def judge(found: list[int], acknowledged: int, summary: Summary) -> None:
    """Compare the numbers in a session with those that must be there: 0 up to, not including, `acknowledged`."""
    summary.lost += len(set(range(acknowledged)) - set(found))
    summary.duplicated += len(found) - len(set(found))
    summary.disordered += found != sorted(found)
    summary.unacknowledged_kept += len(set(found) - set(range(acknowledged)))
    assert not set(found) - set(range(acknowledged + 1)), "a message that nobody wrote"


def stored_numbers(url: str, session_id: str) -> list[int]:
    """The numbers of the messages in the session, whose text must be whole. A repair may be reported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionDamage)
        with open_store(url) as store:
            return numbers(store.get_chat_history(session_id)).get("a", [])


def is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash.kill", description="Kill writers and count what is lost."
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", default="kill")
    parser.add_argument("--engine", choices=KINDS, action="append")
    arguments = parser.parse_args()
    sound = True
    for kind in arguments.engine or KINDS:
        with place(kind) as url:
            summary = kill_writers(url, arguments.rounds, random.Random(arguments.seed))
        print(f"{kind:>20}", summary, sep="\n", flush=True)
        sound = sound and summary.sound
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
