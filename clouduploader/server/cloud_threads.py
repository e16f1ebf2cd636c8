"""Threads that ask clouds, apart from all else: a cloud, or what a user calls one, may take minutes to answer."""

import asyncio
import collections
import concurrent.futures
import functools
import threading
from collections.abc import Callable
from typing import TypeVar

from clouduploader.server.replies import RefusalError

THREADS = 8
OF_ONE_USER = 2  # of them: one whose cloud does not answer leaves the others to the other users

T = TypeVar("T")


class CloudThreads:
    """Asks clouds for users. For the event loop's thread."""

    def __init__(self) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS, "cloud")
        self._asking: collections.Counter[str] = collections.Counter()  # by users
        self._lock = threading.Lock()

    async def run(self, user: str, function: Callable[[], T]) -> T:
        """Run a function in a thread; if the caller is cancelled, it counts until it has ended all the same.

        Args:
            user: Who wants it.
            function: Asks a cloud.

        Raises:
            RefusalError: There are too many already.
        """
        with self._lock:
            if self._asking[user] >= OF_ONE_USER or self._asking.total() >= THREADS:
                refused = "the clouds have not answered earlier requests yet"
                raise RefusalError(refused, status=503, headers={"Retry-After": "30"})
            self._asking[user] += 1
        future = self._threads.submit(function)
        future.add_done_callback(functools.partial(self._end, user))
        return await asyncio.wrap_future(future)

    def _end(self, user: str, _future: concurrent.futures.Future[T]) -> None:
        with self._lock:
            self._asking[user] -= 1
            self._asking += collections.Counter()  # keeps those alone that ask

    def close(self) -> None:
        """Take no more; what a thread asks goes on until it is answered."""
        self._threads.shutdown(wait=False, cancel_futures=True)
