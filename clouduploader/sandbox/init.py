"""The first process in the namespaces: sets up the network, starts server and command, forwards signals, reaps.

    python -m clouduploader.sandbox.init SOCKET DIRECTORY CLOUD COMMAND...

CLOUD is what `registry.encode` gives. SOCKET is the number of a descriptor that leads to `host`: `init` sends
{"ready": true} or {"error": ...}, waits for "go", gets the numbers of signals for the command, and sends
{"status": N} at the end. It ends when `host` closes the socket; its end ends all other processes in the namespaces.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from clouduploader.sandbox import environment, registry
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.layout import Layout


class BrokenError(Exception):
    """The sandbox can't start, or go on."""


def main() -> int:
    """Run the sandbox; see the module."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    layout, cloud, command = Layout(Path(sys.argv[2])), registry.decode(sys.argv[3]), sys.argv[4:]
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        # A handler and not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        _set_up_network()
        server = _start_server(layout, cloud, channel)
        channel.send(json.dumps({"ready": True}).encode())
        if channel.recv(16) != b"go":
            return 0
        variables = environment.of_command(layout, cloud, os.environ)
        status = _run(command, variables, layout, server, channel, wakeup_read)
        channel.send(json.dumps({"status": status}).encode())
    except BrokenError as exc:
        channel.send(json.dumps({"error": str(exc)}).encode())
    except BrokenPipeError:
        pass  # `host` has ended
    return 0


def _set_up_network() -> None:
    for arguments in ("link set lo up", "route add local default dev lo"):
        done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise BrokenError(f"ip {arguments}: {done.stderr.strip()}")


def _start_server(layout: Layout, cloud: SandboxCloud, channel: socket.socket) -> subprocess.Popen[bytes]:
    ready_read, ready_write = os.pipe()
    with layout.server_log.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "clouduploader.sandbox.server", str(layout.root), registry.encode(cloud),
             str(ready_write)],
            env=environment.of_server(cloud, os.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ready_write],
            start_new_session=True,  # out of reach of a terminal's signals
        )  # fmt: skip
    os.close(ready_write)
    readable, _, _ = select.select([ready_read, channel.fileno()], [], [])
    if channel.fileno() in readable:
        raise BrokenPipeError  # `host` sends nothing before "ready": it has ended
    is_ready = os.read(ready_read, 1) == b"1"
    os.close(ready_read)
    if not is_ready:
        raise BrokenError(f"the server failed: {_last_line(layout)}")
    return server


def _last_line(layout: Layout) -> str:
    lines = layout.server_log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"


def _run(
    command: list[str],
    variables: dict[str, str],
    layout: Layout,
    server: subprocess.Popen[bytes],
    channel: socket.socket,
    wakeup: int,
) -> int:
    try:
        process = subprocess.Popen(command, env=variables)
    except OSError as exc:
        # The numbers that a shell uses for the two; a directory of PATH that can't be entered is no find.
        sys.stderr.write(f"{command[0]}: {exc.strerror}\n")
        is_there = "/" in command[0] and not isinstance(exc, FileNotFoundError)
        return 126 if is_there or shutil.which(command[0]) else 127
    while True:
        readable = select.select([channel.fileno(), wakeup], [], [])[0]
        if wakeup in readable:
            os.read(wakeup, 4096)
            status = _reap(process.pid, server.pid, layout)
            if status is not None:
                return status
        if channel.fileno() in readable:
            data = channel.recv(16)
            if not data:
                raise BrokenPipeError
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, int(data))


def _reap(command_pid: int, server_pid: int, layout: Layout) -> int | None:
    """Reap all processes that ended; orphans become children of this process.

    Returns:
        The command's exit status if it was among them.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == command_pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == server_pid:
            raise BrokenError(f"the server ended: {_last_line(layout)}")


if __name__ == "__main__":
    sys.exit(main())
