"""How fast, and how much at once: just under the quota, less when the cloud asks for it, more again later."""

import collections
import threading

BURST_SECONDS = 0.1
"""How much lost time may be made up for: a core that others use too is away for some hundredths of a second."""
THROTTLED_FACTOR = 0.7  # gentler than TCP's half: the quota is known, and only others who use it can lower it
STALLED_FACTOR = 0.85  # a stall may have other reasons
SLOWDOWN_SECONDS = 1.0  # refusals within it have one cause, and slow the transfer down once
RECOVERY_SECONDS = 60.0  # from nothing back to the whole rate
LOWEST_FRACTION = 0.01  # of the whole rate

CONGESTION_SECONDS = 30.0
CONGESTION_STALLS = 3
"""So many stalls within that time are no accident: the line, or the cloud, has too much at once."""
FIRST_WINDOW = 16  # grows by one with each confirmed chunk until the first stall: a slow line is not flooded


class RateLimiter:
    """A clock of slots that all threads share: one slot, one request, and in no second more than the whole rate.

    All times are those of one monotonic clock, in seconds, and given by the caller.

    Args:
        per_second: The whole rate, in requests a second.
        now: The time.
    """

    def __init__(self, per_second: float, now: float) -> None:
        self._lock = threading.Lock()
        self._full = per_second
        self._rate = per_second
        self._slot_at = now
        self._taken: collections.deque[float] = collections.deque(maxlen=max(1, int(per_second)))
        self._recovered_at = now
        self._slowed_at = float("-inf")

    @property
    def per_second(self) -> float:
        """The rate of now."""
        return self._rate

    def take(self, now: float) -> float:
        """Take the next slot if its time has come. Never blocks.

        Returns:
            0 if it was taken; otherwise seconds to wait before asking again.
        """
        with self._lock:
            at = self._slot_at
            if len(self._taken) == self._taken.maxlen:
                at = max(at, self._taken[0] + 1.0)
            if now < at:
                return at - now
            if self._rate < self._full:
                self._rate = min(self._full, self._rate + (now - self._recovered_at) * self._full / RECOVERY_SECONDS)
            self._recovered_at = now
            self._taken.append(now)
            self._slot_at = max(self._slot_at, now - BURST_SECONDS) + 1 / self._rate
            return 0.0

    def throttled(self, now: float) -> None:
        """Slow down: the cloud has refused a request because there were too many."""
        self._slow_down(now, THROTTLED_FACTOR)

    def stalled(self, now: float) -> None:
        """Slow down a little: a request got no answer in time."""
        self._slow_down(now, STALLED_FACTOR)

    def _slow_down(self, now: float, factor: float) -> None:
        with self._lock:
            if now - self._slowed_at >= SLOWDOWN_SECONDS:
                self._slowed_at = self._recovered_at = now
                self._rate = max(self._rate * factor, self._full * LOWEST_FRACTION)


class Window:
    """How many chunks may be under way at once.

    Args:
        most: Never more than that.

    Attributes:
        most: The same.
    """

    def __init__(self, most: int) -> None:
        self._lock = threading.Lock()
        self.most = most
        self._size = float(min(most, FIRST_WINDOW))
        self._was_halved = False
        self._stalls: list[float] = []

    @property
    def size(self) -> int:
        """Of now, from 1 to `most`."""
        return int(self._size)

    def confirmed(self, count: int) -> None:
        """Open the window: by one for each confirmed chunk, or, after a stall, by one for a window of them."""
        if self._size < self.most:
            with self._lock:
                self._size = min(self.most, self._size + (count / self._size if self._was_halved else count))

    def stalled(self, now: float) -> None:
        """Count a request that got no answer in time, and halve the window if there were several."""
        with self._lock:
            self._stalls = [*(then for then in self._stalls if now - then < CONGESTION_SECONDS), now]
            if len(self._stalls) >= CONGESTION_STALLS:
                self._stalls.clear()
                self._was_halved = True
                self._size = max(1.0, self._size / 2)
