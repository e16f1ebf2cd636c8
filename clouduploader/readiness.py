"""What a service tells systemd of itself: that it is ready, reloads, stops.

The protocol of sd_notify(3): one datagram of NAME=VALUE lines to the socket that NOTIFY_SOCKET names. A unit
of `Type=notify` counts as started when it has said READY=1.
"""

import contextlib
import socket
import time
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


class Readiness:
    """The way to systemd; without one nothing is told. Never fails: a service that can't tell goes on serving.

    Args:
        environment: The process's; of a service that systemd started it has NOTIFY_SOCKET.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get(VARIABLE, "")

    def ready(self, status: str) -> None:
        """Say that all is up: at the start, and again after `reloading`.

        Args:
            status: One line for `systemctl status`.
        """
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that settings are being read again."""
        # The time is asked for by units of Type=notify-reload, and passed over by others.
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the end has begun.

        Args:
            status: One line for `systemctl status`.
        """
        self._tell("STOPPING=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # a name in the abstract namespace of unix(7) is written with @ for its NUL
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(line.replace("\n", " ") for line in lines)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.sendto(message.encode(), address)
