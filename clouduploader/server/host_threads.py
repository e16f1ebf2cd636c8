"""Threads that do what the hosts of a cluster ask for, apart from all else.

A claim may wait for gpg, or for the journal of another upload; a piece of a log or journal for the disk. Whatever they
wait for, there are threads left to see who asks: else no beat would be answered in time, and all hosts lost their jobs.
"""

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TypeVar

CLAIM_THREADS = 8
WORK_THREADS = 8

T = TypeVar("T")


class HostThreads:
    """The threads of a server with a cluster; none is started before the first request. For the event loop's thread."""

    def __init__(self) -> None:
        self._claims = concurrent.futures.ThreadPoolExecutor(CLAIM_THREADS, "claims")
        self._work = concurrent.futures.ThreadPoolExecutor(WORK_THREADS, "hosts")

    async def claim(self, function: Callable[[], T]) -> T:
        """Run what decrypts, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._claims, function)

    async def work(self, function: Callable[[], T]) -> T:
        """Run what reads or writes files, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._work, function)

    def close(self) -> None:
        """Take no more; what a thread does goes on to its end."""
        self._claims.shutdown(wait=False, cancel_futures=True)
        self._work.shutdown(wait=False, cancel_futures=True)
