"""`python -m benchmarks`: measures, and prints one table."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import results
from benchmarks.appends import append_cost, durable_append_cost
from benchmarks.databases import postgres_cost, redis_cost, sqlite_cost
from benchmarks.listings import list_cost
from benchmarks.machine import describe
from benchmarks.peers import peers_cost
from benchmarks.reads import tail_cost
from benchmarks.settings import Settings
from benchmarks.startup import cold_append_cost, command_cost, console_script, import_cost

CASES: dict[str, Callable[[Settings], Iterable[results.Result]]] = {
    "append": append_cost,
    "full": durable_append_cost,
    "tail": tail_cost,
    "list": list_cost,
    "import": import_cost,
    "cli": command_cost,
    "cold": cold_append_cost,
    "sqlite": sqlite_cost,
    "postgres": postgres_cost,
    "redis": redis_cost,
    "peers": peers_cost,
}


def main() -> None:
    """Measure the cases that were asked for."""
    options = _parser().parse_args()
    settings = Settings(options.quick, options.peer_python)
    machine = describe()
    if not options.markdown:
        print(f"Python: {sys.executable}\npraisonai: {console_script()}", file=sys.stderr)
    measured: list[results.Result] = []
    for name in options.only or CASES:
        print(f"measuring {name} ...", file=sys.stderr)
        measured += CASES[name](settings)
    if options.json:
        Path(options.json).write_text(json.dumps(results.as_json(machine, measured), indent=1) + "\n")
    if options.markdown:
        print(*(f"- {name}: {value}" for name, value in machine.items()), "", results.as_markdown(measured), sep="\n")
    else:
        print(
            *(f"{name + ':':<10} {value}" for name, value in machine.items()), "", results.as_text(measured), sep="\n"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this package, in ratios.")
    parser.add_argument(
        "--only", action="append", choices=CASES, metavar="NAME", help=f"one of {', '.join(CASES)}; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds, smaller sessions")
    parser.add_argument("--json", metavar="FILE", help="write the value of every round here")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="PATH",
        help="an interpreter of an environment with other libraries (benchmarks/peers.txt); repeatable",
    )
    return parser


if __name__ == "__main__":
    main()
