"""Tell systemd that a service is ready.

The protocol of sd_notify(3): one datagram of NAME=VALUE lines to the socket that NOTIFY_SOCKET names. A unit
of `Type=notify` counts as started when it has said READY=1.
"""

import contextlib
import socket
from collections.abc import Mapping

VARIABLE = "NOTIFY_SOCKET"


class Readiness:
    """Notifies systemd; does nothing without one. Never fails: a service that can't notify goes on serving.

    Args:
        environment: The process's; of a service that systemd started it has NOTIFY_SOCKET.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get(VARIABLE, "")

    def ready(self, status: str) -> None:
        """Notify systemd that the service is up.

        Args:
            status: One line for `systemctl status`.
        """
        if not self._address:
            return
        # a name in the abstract namespace of unix(7) is written with @ for its NUL
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "READY=1\nSTATUS=" + status.replace("\n", " ")
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
            way.sendto(message.encode(), address)
