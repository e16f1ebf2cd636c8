"""The process outside of the namespaces: creates them, waits, forwards signals, removes the directory."""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from clouduploader import errors
from clouduploader.errors import CannotCreateError, DeniedError, MissingProgramError, StoppedError
from clouduploader.sandbox import registry
from clouduploader.sandbox.cloud import SandboxCloud
from clouduploader.sandbox.layout import Layout

# Program -> Debian's package.
PROGRAMS = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "mount": "mount",
}
NAMESPACES = ("--user", "--map-root-user", "--net", "--mount", "--pid", "--fork")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
SI_KERNEL = 0x80  # asm-generic/siginfo.h: a terminal sent it, so the command has it already
POLL_SECONDS = 0.05  # how late a message is seen while the server starts, which takes seconds
HANG_UP_SECONDS = 10  # `init` ends at once; only a very slow machine needs more


def run(
    cloud: SandboxCloud,
    command: Sequence[str],
    *,
    keep: Path | None,
    say: Callable[[str], None],
    announce: Callable[[Layout], None],
) -> int:
    """Run a command in a new sandbox. Blocks until it has ended and all is removed.

    Must be called in the main thread. INT, TERM, HUP and QUIT go to the command.

    Args:
        cloud: What it contains.
        command: Program and arguments; uses our stdin, stdout and stderr.
        keep: A directory that is made for the sandbox and left there; None for a temporary one.
        say: Told what takes long, in a line.
        announce: Called when all is ready, before the command starts.

    Returns:
        The command's exit status; 128 and the number if a signal ended it.

    Raises:
        MissingProgramError: Something is not installed.
        DeniedError: User namespaces are forbidden here.
        CannotCreateError: The directory is there already, or can't be made.
        ClouduploaderError: It could not be started.
        StoppedError: A signal came before the command was started.
    """
    prepare(cloud, say)
    with _blocked_signals(), _directory(keep) as layout:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            argv = [
                "unshare",
                *NAMESPACES,
                "--kill-child",
                "--mount-proc",
                sys.executable,
                "-P",
                "-m",
                "clouduploader.sandbox.init",
                str(theirs.fileno()),
                str(layout.root),
                registry.encode(cloud),
                *command,
            ]
            with _ended_at_exit(subprocess.Popen(argv, pass_fds=[theirs.fileno()]), ours) as process:
                theirs.close()
                _await_ready(ours, layout)
                announce(layout)
                ours.send(b"go")
                return _wait(process, ours)


def prepare(cloud: SandboxCloud, say: Callable[[str], None]) -> None:
    """Check that a sandbox can be made here, and install what its cloud brings along.

    Raises:
        MissingProgramError: Something is not installed.
        DeniedError: User namespaces are forbidden here.
        ClouduploaderError: See `SandboxCloud.install`.
    """
    programs = PROGRAMS | dict(cloud.programs)
    missing = [package for program, package in programs.items() if not shutil.which(program)]
    if missing:
        raise MissingProgramError(
            f"the sandbox needs the Debian packages {', '.join(missing)}",
            hint=f"apt install {' '.join(missing)}",
        )
    absent = [name for name in cloud.modules if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingProgramError(
            f"the sandbox needs the Python packages {', '.join(absent)}",
            hint="pip install 'clouduploader[sandbox]'",
        )
    probe = subprocess.run(
        ["unshare", *NAMESPACES, "true"], capture_output=True, text=True, errors="replace", check=False
    )
    if probe.returncode != 0:
        raise DeniedError(
            f"this machine does not let us make namespaces: {probe.stderr.strip()}",
            hint=(
                "Allow unprivileged user namespaces: sysctl user.max_user_namespaces=10000, and where "
                "they exist kernel.unprivileged_userns_clone=1 and "
                "kernel.apparmor_restrict_unprivileged_userns=0. In a container, give it CAP_SYS_ADMIN."
            ),
        )
    cloud.install(say)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Layout]:
    try:
        if keep is None:
            root = Path(tempfile.mkdtemp(prefix="clouduploader-sandbox-"))
        else:
            root = keep.absolute()
            root.mkdir(mode=0o700)
    except OSError as exc:
        raise CannotCreateError(
            f"{keep or tempfile.gettempdir()}: can't make the sandbox's directory: {exc.strerror}",
            hint="--keep wants a directory that does not exist yet." if keep else None,
        ) from exc
    try:
        yield Layout(root)
    finally:
        if keep is None:
            shutil.rmtree(root)


@contextlib.contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals inside the block: sigwaitinfo takes them, and tells their origin."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    try:
        yield
    finally:
        while signal.sigtimedwait({*FORWARDED, signal.SIGCHLD}, 0):
            pass  # too late to mean anything, all is done
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _ended_at_exit(process: subprocess.Popen[bytes], channel: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """End all processes at the end of the block: `init` ends when the channel is closed, and all others with it."""
    try:
        yield process
    finally:
        channel.shutdown(socket.SHUT_RDWR)
        try:
            process.wait(HANG_UP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()  # unshare passes it on to its child; anything milder it blocks
            process.wait()


def _await_ready(channel: socket.socket, layout: Layout) -> None:
    while True:
        caught = signal.sigtimedwait(FORWARDED, POLL_SECONDS)
        if caught is not None:
            raise StoppedError(caught.si_signo)
        try:
            data, ancillary, _, _ = channel.recvmsg(65536, socket.CMSG_SPACE(12), socket.MSG_DONTWAIT)
        except BlockingIOError:
            continue
        if not data:
            raise errors.ClouduploaderError("the sandbox ended before it was ready")
        message = json.loads(data)
        if "error" in message:
            raise errors.ClouduploaderError(f"the sandbox did not start: {message['error']}", hint=message.get("hint"))
        # The kernel has translated the sender's pid into ours.
        pid, _, _ = struct.unpack("3i", ancillary[0][2])
        layout.namespaces.write_text(f"{pid}\n")
        return


def _wait(process: subprocess.Popen[bytes], channel: socket.socket) -> int:
    while process.poll() is None:
        caught = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
        if caught.si_signo in FORWARDED and caught.si_code != SI_KERNEL:
            with contextlib.suppress(OSError):  # it is just ending
                channel.send(str(caught.si_signo).encode())
    try:
        message = json.loads(channel.recv(65536, socket.MSG_DONTWAIT) or b"{}")
    except BlockingIOError:
        message = {}
    if "status" not in message:
        raise errors.ClouduploaderError(
            f"the sandbox broke down: {message.get('error', f'status {process.returncode}')}"
        )
    return int(message["status"])


def default_command() -> list[str]:
    """Return the command that starts the user's shell."""
    return [os.environ.get("SHELL") or "/bin/sh"]
