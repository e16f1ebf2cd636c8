"""Wait in the event loop for what threads do with sockets, and for the sockets themselves."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def until_done(future: Awaitable[T]) -> T:
    """Wait for a thread's result; if cancelled, however often, until the thread is done: it uses files of this task."""
    task = asyncio.ensure_future(future)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        task.exception()  # the client is gone; asyncio would log an exception that was never retrieved
        raise


async def until_readable(sock: socket.socket, timeout_seconds: float) -> None:
    """Wait until a socket can be read, or has ended; at most so long."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        loop.remove_reader(sock)
        if not future.done():
            future.set_result(None)

    loop.add_reader(sock, ready)
    try:
        await asyncio.wait([future], timeout=timeout_seconds)
    finally:
        loop.remove_reader(sock)
        future.cancel()


async def until_writable(sock: socket.socket) -> None:
    """Wait until a socket takes bytes, or has ended."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        loop.remove_writer(sock)
        if not future.done():
            future.set_result(None)

    loop.add_writer(sock, ready)
    try:
        await future
    finally:
        loop.remove_writer(sock)
