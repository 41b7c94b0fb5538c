"""`praisonai serve`: agents of a Python file over HTTP, until Ctrl-C.

What is named is `file.py:name`, or `package.module:name`; without a name, the only agent in it. What a reader would get
wrong: a file that ends with `agent.launch(...)` is served just as well. Loading it stops there, because from there on it is
this command that serves.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from praisonaiagents.cli.output import is_terminal, json_option, print_json, wants_json
from praisonaiagents.cli.place import db_option, given
from praisonaiagents.cli.sessions import instructions_option, llm_option, remember_option
from praisonaiagents.errors import ConfigError

if TYPE_CHECKING:
    from types import ModuleType

    from praisonaiagents.agent.agent import Agent

_USERS_VARIABLE = "PRAISONAI_SERVE_USERS"
_INSTRUCTIONS = "You are a helpful assistant."


@click.command()
@click.argument("targets", metavar="[FILE:AGENT]...", nargs=-1)
@click.option("--port", "-p", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen at. Beyond this machine a token is needed.",
)
@click.option("--path", help="Where the agent is. Default: /agent, with several agents their names.")
@click.option("--users", metavar="FILE", help=f"JSON of users and their tokens. Default: {_USERS_VARIABLE}.")
@click.option("--jwt-key", metavar="FILE", help="Accept JWTs that are signed with this secret or key (PEM).")
@click.option("--jwt-jwks", metavar="URL", help="Accept JWTs of a provider that publishes its keys here.")
@click.option("--jwt-audience", metavar="TEXT", help="Whom a JWT must be for.")
@click.option("--jwt-issuer", metavar="TEXT", help="Whom a JWT must be from.")
@click.option(
    "--busy",
    type=click.Choice(["queue", "reject", "interrupt"]),
    default="queue",
    show_default=True,
    help="What becomes of a turn while another of its session is under way.",
)
@click.option("--allow-host", "hosts", metavar="NAME", multiple=True, help="A name the server may be called by.")
@click.option("--allow-origin", "origins", metavar="URL", multiple=True, help="A web page that may call it.")
@click.option("--per-minute", type=click.IntRange(min=0), help="Requests of one user a minute; 0: any number.")
@click.option("--turn-timeout", type=click.FloatRange(min=0), help="Seconds that a turn may take.")
@click.option("--grace", type=click.FloatRange(min=0), help="Seconds that turns have to finish when the server ends.")
@click.option(
    "--log",
    type=click.Choice(["auto", "text", "json", "none"]),
    default="auto",
    help="How requests are told of on standard error. Default: text in a terminal, else a line of JSON each.",
)
@instructions_option
@llm_option
@remember_option
@db_option
@json_option
def serve(
    targets: tuple[str, ...],
    port: int,
    host: str,
    path: str | None,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    log: str,
    **options: Any,
) -> None:
    """Serve agents over HTTP, to many users, each with their own sessions.

    \b
    praisonai serve agents.py:agent --port 8000 --db sqlite:///sessions.db
    praisonai serve                      an assistant, with --llm and --instructions

    The token that callers need is in PRAISONAI_LAUNCH_AUTH_TOKEN; whoever has it is trusted to say which user is meant.
    With --users or JWTs each caller is the user their token belongs to.
    """
    from praisonaiagents.agent.doors import door

    launch = door("http")  # says what to install if it cannot be opened
    agents = _agents(targets, path, options)
    settings = {
        "users": _users(options),
        "busy": options["busy"],
        "hosts": hosts,
        "origins": origins,
        "per_minute": options["per_minute"],
        "turn_timeout_s": options["turn_timeout"],
        "grace_s": options["grace"],
    }
    chosen = {name: value for name, value in settings.items() if value is not None}
    _tell_of_requests(log)
    (at, first), *others = agents.items()
    server = launch(first, at, port, host, block=False, say=_say, db=given(), **chosen)
    for at, agent in others:
        launch(agent, at, server.port, host, block=False, say=_say)
    _announce(server, list(agents))
    server.wait()


def _agents(targets: tuple[str, ...], path: str | None, options: dict[str, Any]) -> dict[str, Agent]:
    """The agents by path. Raises `click.UsageError`, `ConfigError`."""
    own = [name for name in ("llm", "instructions", "remember") if options[name] is not None]
    if targets and own:
        raise click.UsageError(f"--{own[0]} is for an agent that is not named: the file says what its agents are")
    if path is not None and len(targets) > 1:
        raise click.UsageError("--path is for one agent; several are served at their names")
    if not targets:
        return {path or "/agent": _assistant(options)}
    agents = [_loaded(target) for target in targets]
    if len(agents) == 1:
        return {path or "/agent": agents[0][1]}
    paths = {f"/{_slug(agent.name or name)}": agent for name, agent in agents}
    if len(paths) < len(agents):
        raise click.UsageError("two of the agents have one name: give them different ones")
    return paths


def _assistant(options: dict[str, Any]) -> Agent:
    from praisonaiagents.agent.agent import Agent

    os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")
    return Agent(
        name="Assistant",
        instructions=options["instructions"] or _INSTRUCTIONS,
        llm=options["llm"],
        memory={"auto_memory": options["remember"] is True},
    )


def _loaded(target: str) -> tuple[str, Agent]:
    """(its name in the file, the agent)."""
    from praisonaiagents.agent.agent import Agent

    place, colon, name = target.rpartition(":")
    if not colon or name.endswith(".py") or "/" in name or "\\" in name:
        place, name = target, ""
    module = _module(place)
    if name:
        found = getattr(module, name, None)
        if isinstance(found, Agent):
            return name, found
        what = "has no" if found is None else f"holds {type(found).__name__}, not an Agent, as"
        raise ConfigError(f"{place} {what} {name!r}; it has: {', '.join(_names(module)) or 'no agent'}")
    names = _names(module)
    if len(names) != 1:
        raise ConfigError(f"{place} has {', '.join(names) or 'no agent'}: say which, as {place}:NAME")
    return names[0], getattr(module, names[0])


def _names(module: ModuleType) -> list[str]:
    from praisonaiagents.agent.agent import Agent

    return [name for name, value in vars(module).items() if isinstance(value, Agent)]


def _module(place: str) -> ModuleType:
    """A Python file or a module, run up to where it would serve by itself."""
    import importlib.util

    from praisonaiagents.serve.server import loading

    sys.path.insert(0, os.path.dirname(os.path.abspath(place)) if place.endswith(".py") else os.getcwd())
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise ConfigError(f"there is no file {place}")
        spec = importlib.util.spec_from_file_location(os.path.basename(place)[:-3], place)
    else:
        try:
            spec = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            spec = None
    if spec is None or spec.loader is None:
        raise ConfigError(f"there is no module {place!r}; a file ends with .py, such as agents.py:agent")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        with loading():
            spec.loader.exec_module(module)
    except Exception as exc:
        raise ConfigError(f"{place}{_line_of(exc, module)} cannot be run: {type(exc).__name__}: {exc}") from exc
    return module


def _line_of(error: Exception, module: ModuleType) -> str:
    """`, line 5`: where in the module it went wrong; empty if it did not get that far."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == module.__file__]
    return f", line {lines[-1]}," if lines else ""


def _users(options: dict[str, Any]) -> Any:
    """Who is known: a mapping, a check of JWTs, or None. Raises `ConfigError`, `click.UsageError`."""
    from praisonaiagents.serve import JWT
    from praisonaiagents.serve.callers import read_users

    file, key, jwks = options["users"], options["jwt_key"], options["jwt_jwks"]
    if sum(value is not None for value in (file, key, jwks)) > 1:
        raise click.UsageError("--users, --jwt-key and --jwt-jwks are three ways to know users: give one")
    checks = {"audience": options["jwt_audience"], "issuer": options["jwt_issuer"]}
    if key is not None:
        return JWT(_text_of(key).strip(), **checks)
    if jwks is not None:
        return JWT(jwks_url=jwks, **checks)
    if any(checks.values()):
        raise click.UsageError("--jwt-audience and --jwt-issuer need --jwt-key or --jwt-jwks")
    known = os.environ.get(_USERS_VARIABLE, "")
    if file is None and known.lstrip().startswith("{"):
        return read_users(known)
    file = file or known or None
    return None if file is None else read_users(_text_of(file))


def _text_of(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"cannot read {file}: {getattr(exc, 'strerror', None) or exc}") from exc


def _tell_of_requests(form: str) -> None:
    import logging

    from praisonaiagents.serve.logs import JsonLines, Lines

    if form == "none":
        return
    is_text = form == "text" or (form == "auto" and is_terminal(sys.stderr))
    handler = logging.StreamHandler()
    handler.setFormatter(Lines() if is_text else JsonLines())
    for name in ("praisonaiagents.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate = False
    logging.getLogger("praisonaiagents.serve").setLevel(logging.INFO)


def _say(text: str) -> None:
    if not wants_json():
        click.echo(text)


def _announce(server: Any, paths: list[str]) -> None:
    if wants_json():
        urls = {"agents": [server.url + path for path in paths]}
        print_json({"url": server.url, "pid": os.getpid(), **urls, "token": server.made_token})
        return
    click.echo(f"  sessions  {server.url}/sessions")
    click.echo(f"  OpenAI    {server.url}/v1   (the model is the agent's name)")
    click.echo(f"  API       {server.url}/openapi.json")
    click.echo(f"Talk to it:  praisonai session start --remote {server.url}{paths[0]}")
    click.echo("Ctrl-C ends; turns under way are finished first.")


def _slug(name: str) -> str:
    return (
        "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip("-")
        or "agent"
    )
