"""One contestant in its own process: reads orders from standard input, a JSON object a line, and answers each with one.

python -m benchmarks.contestants.worker --installed
python -m benchmarks.contestants.worker "llm LogStore" FOLDER

{"fill": "s100", "count": 100}              -> {}
{"append": "s100", "times": 2}              -> {"ns": [...]}
{"last": 50, "session": "s100", "times": 2} -> {"ns": [...]}
{"newest": 50, "times": 2}                  -> {"ns": [...]}
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from benchmarks.contestants import CONTESTANTS, Contestant, Store
from benchmarks.timing import timed


def main(arguments: list[str]) -> None:
    """Answer orders until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not disturb the answers
    if arguments == ["--installed"]:
        print(json.dumps(installed()), file=answers)
        return
    contestant = CONTESTANTS[arguments[0]]
    store: Store = import_module(f"benchmarks.contestants.{contestant.module}").Store(
        arguments[1], **contestant.options
    )
    for line in sys.stdin:
        try:
            answer = obey(store, contestant, json.loads(line))
        except Exception as exc:
            traceback.print_exc()
            answer = {"error": f"{type(exc).__name__}: {exc}"[:200]}
        print(json.dumps(answer), file=answers, flush=True)


def obey(store: Store, contestant: Contestant, order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    if "fill" in order:
        store.fill(order["fill"], order["count"])
        return {}
    if "append" in order:
        act = partial(store.append, order["append"])
        return {"ns": [timed(act) / contestant.messages_per_append for _ in range(order["times"])]}
    if "last" in order:
        return _counted(partial(store.last, order["session"], order["last"]), order["last"], order["times"])
    return _counted(partial(store.newest, order["newest"]), order["newest"], order["times"])


def installed() -> dict[str, str]:
    """The contestants that can run with this interpreter, and the versions of their libraries."""
    found: dict[str, str] = {}
    ours_is_here = _ours_is_here()
    for name, contestant in CONTESTANTS.items():
        if contestant.distribution is None:
            if ours_is_here:
                found[name] = ""
        elif contestant.distribution != "praisonaiagents" or not ours_is_here:
            with suppress(PackageNotFoundError):
                found[name] = version(contestant.distribution)
    return found


def _ours_is_here() -> bool:
    """True if `praisonaiagents` is this project's, and neither PraisonAI's nor missing."""
    try:
        return find_spec("praisonaiagents.storage.jsonfile") is not None
    except ModuleNotFoundError:
        return False


def _counted(act: Any, expected: int, times: int) -> dict[str, Any]:
    """Time a read that says how much it got, and make sure that it got all."""
    got = act()
    if got != expected:
        raise ValueError(f"{expected} were asked for, {got} came")
    return {"ns": [timed(act) for _ in range(times)]}


if __name__ == "__main__":
    main(sys.argv[1:])
