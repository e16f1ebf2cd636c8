"""One run of ec2uploadimg: started, watched, stopped."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clouduploader.errors import MissingProgramError
from clouduploader.platforms.ec2.ec2uploadimg.command import HelperProgram
from clouduploader.util.cancel import Cancel
from clouduploader.util.frozen import frozen

POLL_SECONDS = 1.0  # how late a stop or the deadline may be seen
KEPT_LINES = 50  # enough for a traceback and the words before it
LAUNCHER = Path(__file__).with_name("wrapper.py")  # a program for another Python; not imported here
READ_BYTES = 1 << 16  # a pipe's capacity, pipe(7)


@frozen()
class HelperExit:
    """How a run ended.

    Attributes:
        exit_status: As subprocess gives it; negative for a signal.
        lines: The last ones of its stderr.
        is_late: Whether it was stopped at the deadline.
    """

    exit_status: int
    lines: tuple[str, ...]
    is_late: bool


def environment(base: Mapping[str, str], home: Path) -> dict[str, str]:
    """Make the environment of the child: a private HOME, no agent, no credentials.

    AWS_ENDPOINT_URL and the variables for proxies and certificates are passed on, for without them it
    would not reach AWS where these are needed.
    """
    passed = {"AWS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    passed |= {"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}
    proxies = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    kept = {
        name: value
        for name, value in base.items()
        if name in passed or name.upper() in proxies or name.startswith("AWS_ENDPOINT_URL")
    }
    return {
        "PATH": base.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        **kept,
    }


class HelperProcess:
    """The process of ec2uploadimg, in a session of its own so that OBS's SIGTERM to our group does not reach it twice.

    Args:
        program: See `command.find`.
        arguments: For the script; handed over by a pipe.
        tags: For all that it makes.
        environment: See `environment`.
        directory: Where it runs.
        may_outlive_us: Whether it cleans up by itself if this process dies; else it dies too.

    Raises:
        MissingProgramError: It can't be started.
    """

    def __init__(
        self,
        program: HelperProgram,
        arguments: Sequence[str],
        *,
        tags: Mapping[str, str],
        environment: Mapping[str, str],
        directory: Path,
        may_outlive_us: bool,
    ) -> None:
        self._trace, trace_end = os.pipe()
        command = [program.interpreter, str(LAUNCHER), str(program.script)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # progress dots only
                stderr=subprocess.PIPE,
                env=environment,
                cwd=directory,
                pass_fds=(trace_end,),
                start_new_session=True,
                restore_signals=True,
            )
        except OSError as exc:
            os.close(self._trace)
            raise MissingProgramError(f"{program.interpreter} can't be started: {exc.strerror}") from exc
        finally:
            os.close(trace_end)
        stdin, stderr = self._process.stdin, self._process.stderr
        if stdin is None or stderr is None:
            raise AssertionError("both are pipes")
        self._stderr = stderr
        self.pid = self._process.pid
        order = {
            "arguments": list(arguments),
            "trace_fd": trace_end,
            "parent": os.getpid(),
            "death_signal": signal.SIGTERM if may_outlive_us else signal.SIGKILL,
            "tags": dict(tags),
        }
        with contextlib.suppress(BrokenPipeError), stdin:
            stdin.write(json.dumps(order).encode())

    def watch(
        self,
        *,
        on_line: Callable[[str], None],
        on_call: Callable[[bytes], None],
        on_tick: Callable[[], None],
        cancel: Cancel,
        deadline: float | None,
        grace_seconds: float,
    ) -> HelperExit:
        """Read what it says until it has ended.

        One SIGTERM is sent when `cancel` is requested or at the deadline, and SIGKILL to its session
        `grace_seconds` later. A second SIGTERM would make it give up its clean-up.

        Args:
            on_line: Gets each line of its stderr.
            on_call: Gets each line of the trace.
            on_tick: Called about once a second.
            cancel: See Cancel.
            deadline: By time.monotonic; None for none.
            grace_seconds: See above.
        """
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        kill_at: float | None = None
        is_late = False

        def take(line: bytes) -> None:
            text = line.decode("utf-8", "replace")
            lines.append(text)
            on_line(text)

        try:
            with _Pipes({self._stderr.fileno(): take, self._trace: on_call}) as pipes:
                while pipes.is_open or self._process.poll() is None:
                    self._wait(pipes)
                    on_tick()
                    now = time.monotonic()
                    is_due = deadline is not None and now >= deadline
                    if kill_at is None and (cancel.is_requested or is_due):
                        is_late = is_due and not cancel.is_requested
                        kill_at = now + grace_seconds
                        self._process.send_signal(signal.SIGTERM)
                    elif kill_at is not None and now >= kill_at:
                        self.kill()
        except BaseException:
            self.kill()  # it must not go on while what it made is removed
            raise
        finally:
            status = self._process.wait()
            self._stderr.close()
            os.close(self._trace)
        return HelperExit(status, tuple(lines), is_late)

    def _wait(self, pipes: "_Pipes") -> None:
        """Wait for its words, or for its end where it has closed the pipes."""
        if pipes.is_open:
            pipes.read(POLL_SECONDS)
        else:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(POLL_SECONDS)

    def kill(self) -> None:
        """Send SIGKILL to its whole session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def position(self, path: Path) -> int | None:
        """Return how many bytes it has read of a file that it has open; None if it has not, or Linux won't tell."""
        proc = Path(f"/proc/{self.pid}")
        try:
            wanted = path.stat()
            for link in (proc / "fd").iterdir():
                found = link.stat()
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    first_line = (proc / "fdinfo" / link.name).read_text("ascii").partition("\n")[0]
                    return int(first_line.removeprefix("pos:"))
        except (OSError, ValueError):
            pass
        return None


class _Pipes:
    """Reads several pipes line by line, until all are closed."""

    def __init__(self, takers: Mapping[int, Callable[[bytes], None]]) -> None:
        self._takers = takers
        self._rests = dict.fromkeys(takers, b"")
        self._selector = selectors.DefaultSelector()
        for fd in takers:
            self._selector.register(fd, selectors.EVENT_READ)

    def __enter__(self) -> "_Pipes":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._selector.close()

    @property
    def is_open(self) -> bool:
        return bool(self._selector.get_map())

    def read(self, timeout_seconds: float) -> None:
        for key, _events in self._selector.select(timeout_seconds):
            data = os.read(key.fd, READ_BYTES)
            *whole, rest = (self._rests[key.fd] + data).split(b"\n")
            if not data:
                self._selector.unregister(key.fd)
                whole, rest = ([rest] if rest else []), b""
            self._rests[key.fd] = rest
            for line in whole:
                self._takers[key.fd](line)
