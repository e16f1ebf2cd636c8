"""The first process in the namespaces: network, server, command; passes signals, reaps.

    python -m clouduploader.sandbox.init SOCKET DIRECTORY OPTIONS COMMAND...

SOCKET is the number of a descriptor on which `host` is spoken to: we send {"ready": true} or
{"error": ...}, wait for "go", are then sent the numbers of signals for the command, and send
{"status": N} at the end. When the other side hangs up, we end. Our own end ends all others.
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

from clouduploader.sandbox.layout import Layout, environment

# moto's own settings: verify every signature, no AMIs of strangers, refuse unknown ids.
MOTO_ENVIRONMENT = {
    "INITIAL_NO_AUTH_ACTION_COUNT": "0",
    "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
    "MOTO_ENABLE_AMI_VALIDATION": "true",
    "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class BrokenError(Exception):
    """Something that must work in here does not."""


def main() -> int:
    """Run it all; see the module."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    layout, options, command = Layout(Path(sys.argv[2])), sys.argv[3], sys.argv[4:]
    wakeup_read, wakeup_write = os.pipe()
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        # A handler and not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        _set_up_network()
        server = _start_server(layout, options, channel)
        channel.send(json.dumps({"ready": True}).encode())
        if channel.recv(16) != b"go":
            return 0
        channel.send(json.dumps({"status": _run(command, layout, server, channel, wakeup_read)}).encode())
    except BrokenError as exc:
        channel.send(json.dumps({"error": str(exc)}).encode())
    except BrokenPipeError:
        pass  # nobody is there any more to be told
    return 0


def _set_up_network() -> None:
    for arguments in ("link set lo up", "route add local default dev lo"):
        done = subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            raise BrokenError(f"ip {arguments}: {done.stderr.strip()}")


def _start_server(layout: Layout, options: str, channel: socket.socket) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))}
    ready_read, ready_write = os.pipe()
    with layout.server_log.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "clouduploader.sandbox.aws.server", str(layout.root), options,
             str(ready_write)],
            env=kept | MOTO_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[ready_write],
            start_new_session=True,  # out of reach of a terminal's signals
        )  # fmt: skip
    os.close(ready_write)
    readable, _, _ = select.select([ready_read, channel.fileno()], [], [])
    if channel.fileno() in readable:
        raise BrokenPipeError  # it speaks to us only after we are ready: this is the end
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
    layout: Layout,
    server: subprocess.Popen[bytes],
    channel: socket.socket,
    wakeup: int,
) -> int:
    try:
        process = subprocess.Popen(command, env=environment(layout, os.environ))
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
    """Take all that ended; everybody's orphans are ours.

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
