"""A server of a cloud that is a program of its own."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 60.0  # Keystone takes 8 on a quiet machine
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02


class StartError(Exception):
    """A program does not serve."""


class ForeignServer:
    """A running program that serves a TCP port of the loopback. It ends with the sandbox's namespaces, or by `stop`.

    Args:
        argv: The program and its arguments.
        port: What it will serve; see `await_ready`.
        environment: All of its environment.
        log: Gets what it says.
        directory: Where it starts.
    """

    def __init__(
        self, argv: Sequence[str | Path], *, port: int, environment: Mapping[str, str], log: Path, directory: Path
    ) -> None:
        self._port = port
        self._log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                argv,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def await_ready(self) -> None:
        """Wait until it takes connections. Blocks.

        Raises:
            StartError: It has ended, or takes too long.
        """
        ends_at = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < ends_at:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            time.sleep(POLL_SECONDS)
        raise StartError(f"nothing serves port {self._port}; see {self._log}")

    def stop(self) -> None:
        """End it and wait for that. Blocks."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
