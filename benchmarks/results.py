"""Rows of figures, and how they are shown: as text, as a Markdown table, as JSON with every round's value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

Form = Literal["x", "%", "ms"]
_HEAD = ("case", "measured", "median", "compared with", "ratio", "target", "met")


class Check(NamedTuple):
    """One comparison. `value` is a factor ("x"), a share from 0 to 1 ("%") or a difference in ms; `target` its upper bound."""

    against: str
    value: float
    target: float | None = None
    form: Form = "x"

    def met(self) -> bool | None:
        return None if self.target is None else self.value <= self.target


class Row(NamedTuple):
    """One thing measured: a value per round, in `unit`, and what it was compared with."""

    case: str
    what: str
    unit: str
    values: list[float]
    checks: tuple[Check, ...] = ()

    def median(self) -> float:
        return median(self.values)


class Failure(NamedTuple):
    """Something that could not be measured, and why."""

    case: str
    what: str
    why: str


Result = Row | Failure


def as_text(results: Sequence[Result]) -> str:
    """An aligned table."""
    lines = [_HEAD, *_lines(results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(results: Sequence[Result]) -> str:
    """A Markdown table."""
    rule = ("---", "---", "---:", "---", "---:", "---:", "---")
    return "\n".join(f"| {' | '.join(line)} |" for line in (_HEAD, rule, *_lines(results)))


def as_json(machine: Mapping[str, str], results: Sequence[Result]) -> dict[str, Any]:
    """Everything, with the value of every round."""
    return {"machine": dict(machine), "results": [_raw(result) for result in results]}


def _lines(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """A line per comparison; the second and later ones of a row leave its name out."""
    for result in results:
        if isinstance(result, Failure):
            yield (result.case, result.what, "-", f"not measured: {result.why}", "", "", "")
            continue
        name = (result.case, result.what, f"{_figure(result.median())} {result.unit}")
        for check in result.checks:
            yield (*name, *_compared(check))
            name = ("", "", "")
        if not result.checks:
            yield (*name, "", "", "", "")


def _compared(check: Check) -> tuple[str, str, str, str]:
    target = "" if check.target is None else f"<= {_in_form(check.target, check.form)}"
    met = {None: "", True: "yes", False: "no"}[check.met()]
    return check.against, _in_form(check.value, check.form), target, met


def _in_form(value: float, form: Form) -> str:
    if form == "%":
        return f"{value:.1%}"
    return f"{value:+.1f} ms" if form == "ms" else f"{_factor(value)}x"


def _factor(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.1g}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _raw(result: Result) -> dict[str, Any]:
    if isinstance(result, Failure):
        return result._asdict()
    checks = [check._asdict() | {"met": check.met()} for check in result.checks]
    return result._asdict() | {"median": result.median(), "checks": checks}
