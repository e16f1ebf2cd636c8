"""Running sandboxes, from outside."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clouduploader.sandbox import environment
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.layout import Layout

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
STOP_SECONDS = 30  # a process that was killed is gone long before


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("sandbox")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class Sandbox:
    """A running sandbox.

    Args:
        place: Its directory.
        cloud: What is in it.
    """

    def __init__(self, place: Layout, cloud: SandboxCloud) -> None:
        self.layout = place
        self.cloud = cloud
        self._processes: list[subprocess.Popen[Any]] = []

    # --- running things in it

    @property
    def enter(self) -> list[str]:
        """What to put before a command line. Processes keep the pids of the outside."""
        pid = self.layout.namespaces.read_text().strip()
        return ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", "--"]

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a command in the sandbox, ours with the sandbox's settings."""
        return environment.of_command(self.layout, self.cloud, os.environ) | changes

    def popen(self, argv: Sequence[str | bytes | Path], **kwargs: Any) -> subprocess.Popen[Any]:
        """Start a program in the sandbox; its pid is the program's own. Killed when the test ends.

        Takes the arguments of subprocess.Popen; `env` is the sandbox's if it is not given.
        """
        kwargs.setdefault("env", self.environment())
        process = subprocess.Popen([*self.enter, *argv], **kwargs)
        self._processes.append(process)
        return process

    def run(self, argv: Sequence[str | bytes | Path], **kwargs: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program in the sandbox to its end; takes the arguments of subprocess.run.

        Output is captured as text, unless said otherwise.
        """
        if not {"stdout", "stderr", "capture_output"} & kwargs.keys():
            kwargs["capture_output"] = True
        kwargs.setdefault("text", True)
        kwargs.setdefault("env", self.environment())
        kwargs.setdefault("check", False)
        return subprocess.run([*self.enter, *argv], **kwargs)

    def kill_all(self) -> None:
        """End what `popen` started and is still there."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait(STOP_SECONDS)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._processes.clear()

    # --- what is where

    @property
    def description(self) -> dict[str, Any]:
        """sandbox.json as it is now: keys change with every reset."""
        described: dict[str, Any] = json.loads(self.layout.description.read_text())
        return described

    @property
    def home(self) -> Path:
        """CLOUDUPLOADER_HOME."""
        return self.layout.home

    @property
    def spool(self) -> Path:
        """CLOUDUPLOADER_SPOOL; job 1 is in it."""
        return self.layout.spool

    # --- control; what each takes is said in clouduploader.sandbox

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Speak with the sandbox's control channel."""
        connection = _UnixConnection(self.layout.socket)
        connection.request(method, f"/sandbox/{path}", json.dumps(body))
        response = connection.getresponse()
        answer = json.loads(response.read())
        connection.close()
        assert response.status == 200, answer
        return answer

    def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """The API calls so far, all or those of one action."""
        return [call for call in self.control("GET", "calls") if action in (None, call["action"])]

    def fault(self, action: str, **how: Any) -> None:
        """Let one kind of call fail; replaces the fault that was there."""
        self.control("POST", "faults", {"action": action, **how})

    def faults(self, *faults: dict[str, Any]) -> None:
        """Let several kinds of calls fail."""
        self.control("POST", "faults", list(faults))

    def clock(self, offset_seconds: float) -> None:
        """Set AWS's clock ahead of ours."""
        self.control("POST", "clock", {"offset_seconds": offset_seconds})

    def reset(self) -> None:
        """Everything as at the start."""
        self.control("POST", "reset")


@contextlib.contextmanager
def running(kind: type[Sandbox], place: type[Layout], cloud: SandboxCloud, *options: str) -> Iterator[Any]:
    """Run a sandbox; it ends with the block, or with the test run, however that ends.

    Args:
        kind: What is given.
        place: The layout of its directory.
        cloud: What is in it.
        options: Of `clouduploader sandbox`, which make the same.
    """
    root = Path(tempfile.mkdtemp(prefix="sandbox-"))  # a short path, because there is a Unix socket in it
    sandbox = kind(place(root / "s"), cloud)
    # cat ends when our end of its standard input does, and the sandbox with it.
    argv = [EXECUTABLE, "sandbox", f"--cloud={cloud.target}", f"--keep={root / 's'}", *options, "--", "cat"]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stdin is not None
    lines = iter(process.stderr.readline, "")
    first = next((line for line in lines if "installing" not in line), "")
    assert "sandbox at" in first, first
    yield sandbox
    process.stdin.close()
    rest = process.stderr.read()
    process.stderr.close()
    status = process.wait(STOP_SECONDS)
    server_log = sandbox.layout.server_log.read_text()
    shutil.rmtree(root)
    assert (status, rest) == (0, "")
    assert "Traceback" not in server_log, server_log
