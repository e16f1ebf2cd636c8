"""Have the next part of a stream ready while one is sent."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(parts: Iterator[T]) -> Generator[T, None, None]:
    """Yield all parts; another thread makes the next one meanwhile, so that two are in memory.

    Args:
        parts: None of them is None. What making one raises comes in its place.

    Yields:
        The same. Closed, it waits for the part that is being made.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming: Future[T | None] = pool.submit(next, parts, None)
        while (part := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield part
