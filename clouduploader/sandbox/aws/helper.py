"""The ssh server of all helper instances, on every address, and what a login finds there.

Real: ssh and sftp (asyncssh), the login with the key pair that the instance was launched with, a
pty with a shell behind each command, and its programs (tar, xz, chmod, which ...). Imitated: what
needs a machine of its own (see `tools`). Each command sees its instance's /mnt, by a mount
namespace of its own. A login needs a running instance at the address that was dialled.

What differs from an instance: the root disk and the file systems on volumes have no limit of size.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import pty
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Mapping
from pathlib import Path

import asyncssh
from asyncssh.connection import SSHConnection
from moto.ec2.models.instances import Instance

from clouduploader.sandbox.aws import tools
from clouduploader.sandbox.aws.account import HELPER_USER, SandboxAccount
from clouduploader.sandbox.aws.disks import Disks
from clouduploader.sandbox.aws.layout import AwsLayout
from clouduploader.sandbox.aws.network import SSH_PORT
from clouduploader.util.frozen import frozen

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# The instance's /mnt is put over that of this machine, for this command alone. PATH leads to an
# imitated mount, hence $2.
ENTER = '"$2" --bind "$SANDBOX_INSTANCE/mnt" /mnt && exec /bin/sh -c "$1"'
READ_BYTES = 65536


@frozen(kw_only=True)
class Behaviour:
    """How port 22 and what is behind it behave.

    Attributes:
        mode: "up", "silent" (connects, says nothing) or "refuse" (no listener).
        sftp_delay_seconds: Before each write.
        command_delays: Seconds by a word of the command.
        broken: What a program prints before it fails with 1, by its name.
    """

    mode: str = "up"
    sftp_delay_seconds: float = 0
    command_delays: Mapping[str, float] = dataclasses.field(default_factory=dict)
    broken: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the mode."""
        if self.mode not in ("up", "silent", "refuse"):
            raise ValueError(f"mode '{self.mode}'")


class HelperHost:
    """The ssh server of all instances; lives in the event loop that runs when it is made.

    It listens from the first `behave` on.

    Args:
        account: Knows instances, keys and disks.
        disks: Where the contents are.
        layout: `instances` is ours.
    """

    def __init__(self, account: SandboxAccount, disks: Disks, layout: AwsLayout) -> None:
        self.account = account
        self.behaviour = Behaviour()
        self._disks = disks
        self._layout = layout
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._mount = shutil.which("mount", path=SYSTEM_PATH) or "mount"
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.AbstractServer | asyncssh.SSHAcceptor | None = None
        self._connections: set[SSHConnection] = set()
        self._children: dict[asyncio.subprocess.Process, SSHConnection] = {}

    def behave(self, behaviour: Behaviour) -> None:
        """Change how it behaves; from another thread. Connections that exist stay."""

        async def change() -> None:
            self.behaviour = behaviour
            await self._listen()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    def hang_up(self, instance_ids: list[str] | None = None) -> None:
        """Cut the connections to these instances, or all; from another thread, which does not wait."""
        for connection in list(self._connections):
            instance = connection.get_extra_info("instance")
            if instance_ids is None or (instance and instance.id in instance_ids):
                self._loop.call_soon_threadsafe(connection.abort)

    def connected(self, connection: SSHConnection) -> None:
        """Take note of a new connection."""
        self._connections.add(connection)

    def disconnected(self, connection: SSHConnection) -> None:
        """Send SIGHUP to what still runs for a connection, as a real terminal would."""
        self._connections.discard(connection)
        for child, owner in self._children.items():
            if owner is connection:
                os.killpg(child.pid, signal.SIGHUP)

    async def _listen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.behaviour.mode == "up":
            self._server = await asyncssh.listen(
                "0.0.0.0",  # noqa: S104  # nothing reaches these addresses from outside
                SSH_PORT,
                server_factory=lambda: _Server(self),
                server_host_keys=[self._host_key],
                process_factory=self._run,
                sftp_factory=lambda channel: _Sftp(channel, self),
                encoding=None,
                line_editor=False,
            )
        elif self.behaviour.mode == "silent":
            self._server = await asyncio.start_server(_say_nothing, "0.0.0.0", SSH_PORT)  # noqa: S104

    def directory(self, instance: Instance) -> Path:
        """Return an instance's directory, made at first use, with its present disks written down."""
        path = self._layout.instances / str(instance.id)
        if not path.exists():
            _make_instance(path)
        listed = []
        for disk in self.account.disks(instance):
            content, partitions = self._disks.content(disk.volume_id), self._disks.partitions(disk.volume_id)
            listed.append(
                {
                    "name": disk.name,
                    "size_gib": disk.size_gib,
                    "content": None if disk.is_root else str(content),
                    "partitions": None if disk.is_root else str(partitions),
                }
            )
        new = path / "devices.json.new"
        new.write_text(json.dumps(listed))
        new.rename(path / "devices.json")
        return path

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        connection = process.channel.get_connection()
        instance = connection.get_extra_info("instance")
        command = process.command or "/bin/sh"
        directory = await asyncio.to_thread(self.directory, instance)
        for word, seconds in self.behaviour.command_delays.items():
            if word in shlex.split(command):
                await asyncio.sleep(seconds)
        argv = ["unshare", "--mount", "/bin/sh", "-c", ENTER, "sh", command, self._mount]
        environment = {
            "PATH": f"{self._break(directory)}:{directory}/bin:{SYSTEM_PATH}",
            "SANDBOX_INSTANCE": str(directory),
            "HOME": str(directory / "tmp"),
            "TERM": "vt100",
            "LANG": "C.UTF-8",
        }
        master, slave = pty.openpty() if process.get_terminal_type() else (None, None)
        output = asyncio.subprocess.PIPE if slave is None else slave
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if slave is None else slave,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
        self._children[child] = connection
        try:
            if master is None or slave is None:
                printed, complained = await child.communicate()
                process.stdout.write(printed)
                process.stderr.write(complained)
            else:
                os.close(slave)
                await _copy_terminal(master, process.stdout)
            process.exit(await child.wait())
        finally:
            del self._children[child]

    def _break(self, directory: Path) -> Path:
        """Write the programs that are to fail; return the directory that PATH is to begin with."""
        if not self.behaviour.broken:
            return directory / "bin"
        broken = Path(tempfile.mkdtemp(dir=directory / "tmp"))
        for name, text in self.behaviour.broken.items():
            _write_program(broken / name, f"printf '%s\\n' {shlex.quote(text)}\nexit 1")
        return broken


def _make_instance(directory: Path) -> None:
    """Make the root disk of an instance, with the imitated programs on it."""
    for name in ("root-mnt", "tmp", "bin"):
        (directory / name).mkdir(parents=True)
    (directory / "mnt").symlink_to("root-mnt")
    python = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(tools.__file__)}"
    for name in tools.PROGRAMS:
        _write_program(directory / "bin" / name, f'exec {python} {name} "$@"')
    _write_program(directory / "bin" / "sudo", 'exec "$@"')


def _write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(READ_BYTES):
            pass
    writer.close()


async def _copy_terminal(master: int, stdout: asyncssh.SSHWriter[bytes]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            data = await loop.run_in_executor(None, os.read, master, READ_BYTES)
        except OSError:  # EIO: how Linux says that the other end of a pty is closed
            data = b""
        if not data:
            break
        stdout.write(data)
    os.close(master)


class _Server(asyncssh.SSHServer):
    """One connection: allows logins with the instance's key."""

    def __init__(self, helper: HelperHost) -> None:
        self._helper = helper
        self._connection: asyncssh.SSHServerConnection
        self._instance: Instance | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._helper.connected(conn)
        self._instance = self._helper.account.ssh_at(conn.get_extra_info("sockname")[0])
        conn.set_extra_info(instance=self._instance)
        if self._instance is None:
            conn.abort()  # a real client would wait in vain; this saves its time

    def connection_lost(self, exc: Exception | None) -> None:
        self._helper.disconnected(self._connection)

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        if self._instance is None or username != HELPER_USER:
            return False
        wanted = self._helper.account.public_key(self._instance)
        return wanted is not None and asyncssh.import_public_key(wanted).public_data == key.public_data


class _Sftp(asyncssh.SFTPServer):
    """File transfer into an instance's directory; only what is in there exists."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], helper: HelperHost) -> None:
        self._helper = helper
        self._turn = asyncio.Lock()
        instance = channel.get_connection().get_extra_info("instance")
        super().__init__(channel, chroot=os.fsencode(helper.directory(instance)))

    def write(self, file_obj: object, offset: int, data: bytes) -> int | Awaitable[int]:
        if self._helper.behaviour.sftp_delay_seconds:
            return self._write_late(file_obj, offset, data)
        return super().write(file_obj, offset, data)

    async def _write_late(self, file_obj: object, offset: int, data: bytes) -> int:
        async with self._turn:  # a client has many writes under way; a slow line takes one by one
            await asyncio.sleep(self._helper.behaviour.sftp_delay_seconds)
        written = super().write(file_obj, offset, data)
        return written if isinstance(written, int) else await written
