"""The session store for asyncio: every method of `SessionStore`, awaitable.

    store = AsyncSessionStore(open_store("postgresql://localhost/mydb"))
    await store.add_user_message("my-session", "Hello!")

One generic class over worker threads, as many as the engine can serve at once, so no engine is written twice and the event
loop never waits for a disk or a server. What a reader would get wrong: cancelling an await does not take a write back. The
thread goes on; whether the message is stored is then as unknown as after a broken connection, and repeating the call with
the same message ids is safe.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from praisonaiagents.session.store import SessionStore

P = ParamSpec("P")
T = TypeVar("T")


def _threaded(
    method: Callable[Concatenate[SessionStore, P], T],
) -> Callable[Concatenate[AsyncSessionStore, P], Coroutine[Any, Any, T]]:
    @wraps(method)
    async def call(self: AsyncSessionStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(contextvars.copy_context().run, method, self.store, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    return call


class AsyncSessionStore:
    """`store`, awaitable. It stays the caller's, but `close` closes it too."""

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self._threads = ThreadPoolExecutor(store.engine.concurrency, "praisonai-store")

    append = _threaded(SessionStore.append)
    add_message = _threaded(SessionStore.add_message)
    add_user_message = _threaded(SessionStore.add_user_message)
    add_assistant_message = _threaded(SessionStore.add_assistant_message)
    set_chat_history = _threaded(SessionStore.set_chat_history)
    clear_session = _threaded(SessionStore.clear_session)
    delete_session = _threaded(SessionStore.delete_session)
    messages = _threaded(SessionStore.messages)
    read_from = _threaded(SessionStore.read_from)
    get_chat_history = _threaded(SessionStore.get_chat_history)
    get_working_history = _threaded(SessionStore.get_working_history)
    get_session = _threaded(SessionStore.get_session)
    get_session_model = _threaded(SessionStore.get_session_model)
    session_exists = _threaded(SessionStore.session_exists)
    open_session = _threaded(SessionStore.open_session)
    set_agent_info = _threaded(SessionStore.set_agent_info)
    update_session_metadata = _threaded(SessionStore.update_session_metadata)
    rename_session = _threaded(SessionStore.rename_session)
    set_state = _threaded(SessionStore.set_state)
    append_compaction_checkpoint = _threaded(SessionStore.append_compaction_checkpoint)
    list_sessions = _threaded(SessionStore.list_sessions)
    list_sessions_by_agent = _threaded(SessionStore.list_sessions_by_agent)
    get_sessions_by_agent = _threaded(SessionStore.get_sessions_by_agent)
    get_agent_chat_history = _threaded(SessionStore.get_agent_chat_history)
    search = _threaded(SessionStore.search)
    invalidate_cache = _threaded(SessionStore.invalidate_cache)

    async def close(self) -> None:
        """Wait for the calls that are under way, and close the store. Calling it twice is harmless."""
        await asyncio.to_thread(self._close)

    async def __aenter__(self) -> AsyncSessionStore:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _close(self) -> None:
        self._threads.shutdown()
        self.store.close()
