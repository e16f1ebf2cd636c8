"""The clock of waits: monotonic, so that no change of the time of day makes one longer or shorter."""

import time


class Clock:
    """Seconds that only grow, and sleep. Tests have one of their own, in which a sleep takes no time."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for so many seconds."""
        time.sleep(seconds)
