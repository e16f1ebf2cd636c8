"""Uploads by EBS direct with the installed executable, started by hand in the sandbox."""

import dataclasses
import datetime
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from samples.job_logs import untimed
from samples.minimal_disk import as_disk

import clouduploader
from clouduploader.plugin.transfer.confirmed import MAGIC, ConfirmedChunks
from clouduploader.sandbox.aws.disks import BLOCK_BYTES
from clouduploader.store import journal

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 90  # only for what should not happen: then a test says so instead of hanging
POLL_SECONDS = 0.02
RECORD_BYTES = 40  # of the log of confirmed blocks, see there
AMI = re.compile(r"ami-[0-9a-f]{17}\n")
PACKAGE_DIR = Path(clouduploader.__file__).parent
OUR_TRACEBACK = re.compile(rf'File "{re.escape(str(PACKAGE_DIR))}/')
JOB_LINE = re.compile(r"^job (\d+): uploading ", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Done:
    """A run that has ended.

    Attributes:
        status: The exit status; negative for a signal.
        log: The job's log, with those of earlier tries of the same job.
        stdout: What went to stdout.
        stderr: What went to stderr.
    """

    status: int
    log: str
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """The log, line by line, without the times of day."""
        return untimed(self.log)

    @property
    def phases(self) -> list[str]:
        """The phases, as the log has them."""
        return [line.removeprefix("Phase: ") for line in self.lines if line.startswith("Phase: ")]

    @property
    def image_id(self) -> str:
        """The AMI, which the run must have made and printed."""
        assert self.status == 0, self.log + self.stderr
        assert AMI.fullmatch(self.stdout), self.stdout
        return self.stdout.strip()

    def assert_failed(self, exit_code: int, *words: str) -> None:
        """Check that it failed with this code and says why, in one line with these words."""
        assert self.status == exit_code, self.log + self.stderr
        assert self.stdout == ""
        reason = self.lines[-1].removeprefix("Error: ")
        assert self.lines[-1] != reason, self.log
        for word in words:
            assert word in reason, reason
        told = [line for line in self.stderr.splitlines() if line.startswith("clouduploader: ")]
        assert len(told) == 1, self.stderr
        assert not OUR_TRACEBACK.search(self.log + self.stderr), self.log + self.stderr

    def assert_stopped(self, exit_code: int = 143) -> None:
        """Check that it ended as one that was told to, without a result."""
        assert self.status == exit_code, self.log + self.stderr
        assert self.stdout == ""
        assert any(line.startswith("Error: stopped by SIG") for line in self.lines), self.log
        assert not OUR_TRACEBACK.search(self.log + self.stderr), self.log + self.stderr


class Upload:
    """An upload with a journal of its own, in as many tries as are wanted.

    Args:
        sandbox: Where.
        image_path: What.
        directory: Its files go there; made.
        targetdata: See `Sandbox.targetdata`.
    """

    def __init__(self, sandbox: Any, image_path: Path, directory: Path, targetdata: dict[str, Any]) -> None:
        self.image_path = image_path
        self.state_dir = directory / "state"
        self.targetdata = targetdata
        self.job = ""
        self._sandbox = sandbox
        self._data_path = directory / "targetdata.json"
        self._stderr_path = directory / "stderr"
        directory.mkdir()

    def environment(self, **changes: str) -> dict[str, str]:
        """That of each try."""
        inside: dict[str, str] = self._sandbox.environment(**{"CLOUDUPLOADER_STATE": str(self.state_dir)} | changes)
        return inside

    def start(
        self, *options: str, is_resumed: bool = False, pass_fds: Sequence[int] = (), **changes: str
    ) -> subprocess.Popen[Any]:
        """Start a try, in a session of its own.

        Args:
            options: Of the command.
            is_resumed: `clouduploader resume JOB` in place of `clouduploader upload`.
            pass_fds: Descriptors that it gets.
            changes: Of the environment.
        """
        self._data_path.write_text(json.dumps(self.targetdata))
        upload = ["upload", f"--data={self._data_path}", *options, self.image_path]
        argv = [EXECUTABLE, *(["resume", *options, self.job] if is_resumed else upload)]
        with self._stderr_path.open("wb") as stderr:
            process: subprocess.Popen[Any] = self._sandbox.popen(
                argv,
                env=self.environment(**changes),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        return process

    def finish(self, process: subprocess.Popen[Any]) -> Done:
        """Wait for the end of a try."""
        stdout, _ = process.communicate(timeout=PATIENCE_SECONDS)
        stderr = self._stderr_path.read_text()
        self.job = found[1] if (found := JOB_LINE.search(stderr)) else self.job
        spool = self._sandbox.spool
        logs = (spool / f"{self.job}.log", spool / "done" / f"{self.job}.log")
        log = next((path.read_text() for path in logs if path.exists()), "")
        return Done(process.returncode, log, stdout.decode(), stderr)

    def run(self, *options: str, **how: Any) -> Done:
        """Upload to the end; takes what `start` takes."""
        return self.finish(self.start(*options, **how))

    def kill(self, process: subprocess.Popen[Any]) -> Done:
        """Let a try be gone at once, with all that it started."""
        assert process.poll() is None, "it has ended by itself"
        os.killpg(process.pid, signal.SIGKILL)
        return self.finish(process)

    # --- what it wrote down

    @property
    def log(self) -> str:
        """The log of the job that runs."""
        found = JOB_LINE.search(self._stderr_path.read_text())
        path = self._sandbox.spool / f"{found[1]}.log" if found else None
        return path.read_text() if path and path.exists() else ""

    @property
    def _journal_dir(self) -> Path | None:
        found = list(self.state_dir.iterdir()) if self.state_dir.exists() else []
        assert len(found) <= 1, found  # all tries have the same key
        return found[0] if found else None

    def entries(self) -> list[dict[str, Any]]:
        """The journal."""
        path = self._journal_dir and self._journal_dir / journal.FILE_NAME
        return list(journal.parse(path.read_bytes())) if path and path.exists() else []

    def has_entry(self, what: str, **values: str) -> bool:
        """Whether the journal has such an entry."""
        return any({"what": what, **values}.items() <= entry.items() for entry in self.entries())

    def age(self, seconds: float) -> None:
        """Let the entries of the journal be older."""
        entries = self.entries()
        for entry in entries:
            moment = datetime.datetime.fromisoformat(str(entry["time"])) - datetime.timedelta(seconds=seconds)
            entry["time"] = moment.isoformat()
        (self._journal_dir / journal.FILE_NAME).write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))

    @property
    def kept_files(self) -> set[str]:
        """The names of what the journal's directory has besides the journal, and the target data for `retry`."""
        home = self._journal_dir
        expected = {journal.FILE_NAME, journal.TARGETDATA_NAME}
        return {path.name for path in home.rglob("*") if path.is_file()} - expected if home else set()

    @property
    def owes(self) -> bool:
        """Whether the journal says that there may be something left in the cloud."""
        return journal.state_of(self.entries()).has_leftovers

    @property
    def snapshot_ids(self) -> list[str]:
        """The snapshots that the upload ever learned of."""
        return list(dict.fromkeys(entry["snapshot_id"] for entry in self.entries() if entry["what"] == "started"))

    def confirmed(self) -> dict[str, int]:
        """How many blocks of each snapshot are in the logs, as far as that can be told from outside."""
        home = self._journal_dir
        paths = (home / journal.PLATFORM_NAME).glob("*.confirmed") if home else ()
        return {path.stem: max(0, path.stat().st_size - len(MAGIC)) // RECORD_BYTES for path in paths}

    def confirmed_blocks(self, snapshot_id: str) -> set[int]:
        """The blocks of a snapshot that the log has, now that the upload has ended."""
        home = self._journal_dir
        path = home / journal.PLATFORM_NAME / f"{snapshot_id}.confirmed" if home else None
        if path is None or not path.exists():
            return set()
        copy = self.state_dir.parent / path.name
        shutil.copyfile(path, copy)  # to open it cuts off what a crash has torn
        blocks = self._sandbox.control("GET", "blocks", {"snapshot_id": snapshot_id})
        with ConfirmedChunks(copy, BLOCK_BYTES) as opened:
            return {index for index in blocks if opened.confirmed(index) is not None}


@pytest.fixture
def make_upload(sandbox, tmp_path) -> Callable[..., Upload]:
    """A factory of uploads by method ebs-direct, each of an AMI name of its own."""
    count = 0

    def make(image_path: Path, **targetdata: Any) -> Upload:
        """Make one.

        Args:
            image_path: The image file.
            targetdata: Changes of the sandbox's own; None takes a key out.
        """
        nonlocal count
        count += 1
        data = sandbox.targetdata(
            **{"method": "ebs-direct", "user_id": None, "ami_name": f"image-{count}"} | targetdata
        )
        return Upload(sandbox, image_path, tmp_path / f"upload-{count}", data)

    return make


@dataclasses.dataclass(frozen=True)
class Disk:
    """An image file that is not packed.

    Attributes:
        path: The file.
        raw: What is in it.
    """

    path: Path
    raw: bytes


@pytest.fixture
def make_disk(tmp_path) -> Callable[..., Disk]:
    """A factory of raw images: so many blocks, each another one, none of them zeros."""

    def make(blocks: int = 8, *, name: str = "disk.raw", seed: int = 1) -> Disk:
        """Make one."""
        source = random.Random(seed)  # noqa: S311
        raw = as_disk(b"".join(source.randbytes(16) * (BLOCK_BYTES // 16) for _ in range(blocks)))
        path = tmp_path / name
        path.write_bytes(raw)
        return Disk(path, raw)

    return make


@pytest.fixture
def assert_uploaded(sandbox) -> Callable[[Done, bytes], dict[str, Any]]:
    """Check that the one AMI of the account is of these very bytes, and that nothing else is left but its snapshot."""

    def check(done: Done, raw: bytes) -> dict[str, Any]:
        image_id = done.image_id
        account = {kind: found for kind, found in sandbox.account().items() if found}
        assert account.keys() == {"images", "snapshots"}, done.log
        ((image,), (snapshot,)) = (account["images"], account["snapshots"])
        assert image["id"] == image_id
        assert image["block_device_mappings"][0]["Ebs"]["SnapshotId"] == snapshot["id"]
        assert snapshot["state"] == "completed"
        assert sandbox.image_bytes(image_id, len(raw)) == raw, done.log
        return image

    return check


@pytest.fixture
def assert_nothing_left(sandbox) -> Callable[[Upload], None]:
    """Check that an upload that failed has left nothing, in the account or beside its journal."""

    def check(upload: Upload) -> None:
        assert sandbox.left() == {}
        assert upload.kept_files == set()

    return check


@pytest.fixture
def settings(sandbox) -> Callable[..., None]:
    """Write [ec2] of clouduploader.conf; it is gone with the sandbox's next reset."""

    def write(**values: object) -> None:
        lines = "".join(f"{name} = {value}\n" for name, value in values.items())
        (sandbox.home / "clouduploader.conf").write_text(f"[ec2]\n{lines}")

    return write


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for something that must come while a process runs, and fail if it does not."""

    def wait(is_true: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_true():
            assert process.poll() is None, "the process has ended too early"
            assert time.monotonic() < deadline
            time.sleep(POLL_SECONDS)

    return wait
