"""The server as an ASGI app: the guard, then for each agent's path, and for the root, the table of operations.

    app(agent)                                   served by any ASGI server: uvicorn my_module:served
    app({"/sales": sales, "/help": help_desk})   several agents, each at its path

What a reader would get wrong: paths are matched as they were sent, see `operation`, because an id may hold a slash.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from praisonaiagents.agent.agent import Agent
from praisonaiagents.model.ids import DEFAULT_USER
from praisonaiagents.serve import completions, health, keeping, talking
from praisonaiagents.serve.callers import Caller
from praisonaiagents.serve.guard import Guard, address_of
from praisonaiagents.serve.logs import request_ended
from praisonaiagents.serve.openapi import document
from praisonaiagents.serve.operation import Ask, Operation
from praisonaiagents.serve.problems import Problem, as_json, problem_of, respond
from praisonaiagents.serve.service import Place, Service, paths_of
from praisonaiagents.serve.settings import settings_from

BELOW_EACH = (*health.OPERATIONS, *talking.OPERATIONS, *keeping.OPERATIONS, *completions.OPERATIONS)


def app(agents: Agent | Mapping[str, Agent], *, path: str = "/", db: str | None = None, **settings: Any) -> ASGIApp:
    """An ASGI app that serves an agent at `path`, or several at the paths they are given under.

    db: a storage URL for all their sessions; None: where the agents keep them. settings: see `Settings`; without any the app
    serves this machine only. The agents stay the caller's to close.

    Raises `ConfigError`, `UnknownEngine`.
    """
    service = Service(settings_from(settings), db=db)
    for at, agent in paths_of(agents, path).items():
        service.add(agent, at)
    return app_of(service)


def app_of(service: Service) -> ASGIApp:
    """The app of a service, to which agents may be added while it serves."""

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        await service.open()
        yield
        await service.close()

    return Guard(Starlette(routes=[Mount("", app=_Operations(service))], lifespan=life), service.settings)


class _Operations:
    """All operations: below each agent's path, and at the root."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        request = Request(scope, receive)
        fields: dict[str, Any] = {"request_id": scope["state"]["request_id"], "method": scope["method"]}
        try:
            response = await self._answer(request, fields)
        except Exception as exc:
            response = respond(problem_of(exc))
        fields["status"] = response.status_code
        try:
            await response(scope, receive, send)
        except Exception as exc:  # told here: others would tell what it says too
            fields["status"] = problem_of(exc).status
        finally:
            request_ended(fields, began)

    async def _answer(self, request: Request, fields: dict[str, Any]) -> Response:
        place, operation, parameters = self._find(request.method, _sent_path(request.scope))
        request.scope["path_params"] = parameters
        fields["path"] = (place.path.rstrip("/") if place.agent else "") + operation.path
        try:
            return await self._done(request, place, operation, fields)
        except Exception as exc:
            return (operation.tells or respond)(problem_of(exc))

    async def _done(self, request: Request, place: Place, operation: Operation, fields: dict[str, Any]) -> Response:
        caller = await self._caller(request, operation)
        ask = Ask(request, place, caller)
        ask.told = fields
        fields["user"] = caller.user_id
        if "session_id" in request.path_params:
            fields["session"] = ask.session_id
        await ask.read(operation)
        found = await operation.do(ask)
        return found if isinstance(found, Response) else as_json(found, operation.status)

    def _find(self, method: str, path: str) -> tuple[Place, Operation, dict[str, Any]]:
        """What is asked, of which agent, with the parameters as they were sent. Raises `Problem`."""
        allowed: set[str] = set()
        for at, agent in [*self._service.agents.items(), ("", None)]:
            base = at.rstrip("/")
            if path not in (base, at) and not path.startswith(base + "/"):
                continue
            for pattern, operation in _OF_AGENT if agent else _OF_ROOT:
                found = pattern.fullmatch(path[len(base) :].rstrip("/"))
                if found and method in (operation.method, "HEAD" if operation.method == "GET" else ""):
                    return Place(self._service, at, agent), operation, found.groupdict()
                if found:
                    allowed.add(operation.method)
        if allowed:
            allow = ", ".join(sorted(allowed))
            raise Problem(405, f"here one can {allow}", "MethodNotAllowed", headers={"Allow": allow})
        raise Problem(404, "there is nothing at this path", "NotFound", detail="Not Found")

    async def _caller(self, request: Request, operation: Operation) -> Caller:
        """Who asks. Raises `Problem` for nobody, and for somebody who asks too often."""
        if operation.is_open:
            return Caller(DEFAULT_USER, is_trusted=False)
        service, address = self._service, address_of(request.scope)
        caller = await service.callers.caller(request.scope["headers"], service.guesses, address)
        if caller is None:
            text = "a valid token is needed: Authorization: Bearer TOKEN"
            raise Problem(401, text, "Unauthorized", headers={"WWW-Authenticate": "Bearer"}, detail=text)
        if not caller.is_trusted or caller.user_id != DEFAULT_USER:  # one that is trusted may speak for many
            service.rate.check(caller.user_id)
        return caller


async def _openapi(ask: Ask) -> Response:
    """What can be asked."""
    service = ask.place.service
    table = [("", operation) for operation in _AT_ROOT]
    for at in service.agents:
        table.append((at, talking.QUERY))
        if at != "/":
            table += [(at, operation) for operation in BELOW_EACH]
    return as_json(document(table, asks_who=service.settings.asks_who))


def _pattern(operation: Operation) -> re.Pattern[str]:
    """The path of an operation, with its parameters as groups; a slash at the end does not matter."""
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.path.rstrip("/"))))


_AT_ROOT = (*BELOW_EACH, health.INDEX, Operation("GET", "/openapi.json", _openapi, "What can be asked"))
_OF_ROOT = [(_pattern(operation), operation) for operation in _AT_ROOT]
_OF_AGENT = [(_pattern(operation), operation) for operation in (talking.QUERY, *BELOW_EACH)]


def _sent_path(scope: Scope) -> str:
    """The path as it was sent, percent-encoded, below where the app is mounted."""
    raw = scope.get("raw_path")
    path = raw.partition(b"?")[0].decode("latin-1") if raw else str(scope["path"])
    root = scope.get("root_path", "")
    return path[len(root) :] or "/" if root and path.startswith(root + "/") else path
