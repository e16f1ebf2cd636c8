"""Uploads to EC2 by the installed executable: as OBS starts it, and by hand; in the sandbox."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from samples.job_logs import untimed

import clouduploader
from clouduploader.model import job as job_module
from clouduploader.model import job_xml

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
PATIENCE_SECONDS = 60  # only for what should not happen: then a test says so instead of hanging
POLL_SECONDS = 0.02
AMI = re.compile(r"ami-[0-9a-f]{17}")
MANY_LINES = re.compile(r"[\x00-\x1f\x7f]")
PACKAGE_DIR = Path(clouduploader.__file__).parent
OUR_TRACEBACK = re.compile(rf'File "{re.escape(str(PACKAGE_DIR))}/(?!platforms/ec2/ec2uploadimg/wrapper\.py)')


@dataclasses.dataclass(frozen=True)
class Done:
    """A run that has ended.

    Attributes:
        status: The exit status; negative for a signal.
        log: The job's log.
        result: What is in the result file; None if there is none.
        stdout: What went to stdout; with six operands that is the log.
        stderr: See stdout; with six operands both are one.
    """

    status: int
    log: str
    result: str | None
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
        """The AMI, which the run must have made and given."""
        assert self.status == 0, self.log + self.stderr
        assert self.result is not None
        assert AMI.fullmatch(self.result), self.result
        return self.result

    def assert_failed(self, exit_code: int, *words: str) -> None:
        """Check that it failed with this code and says why, in one line with these words."""
        assert self.status == exit_code, self.log + self.stderr
        assert self.result is not None
        assert not MANY_LINES.search(self.result), self.result
        for word in words:
            assert word in self.result, self.result
        assert self.lines[-1] == f"Error: {self.result}"
        assert not OUR_TRACEBACK.search(self.log), self.log

    def assert_stopped(self, exit_code: int = 143) -> None:
        """Check that it ended as one that was told to, without a result."""
        assert self.status == exit_code, self.log + self.stderr
        assert self.result is None
        assert self.lines[-1].startswith("Error: stopped by SIG")
        assert not OUR_TRACEBACK.search(self.log), self.log


class Job:
    """A job in the sandbox's spool, and its uploads. With six operands unless said otherwise."""

    def __init__(self, sandbox: Any, name: str, *, user: str | bytes, filename: str | bytes, temporary: Path) -> None:
        self.name = name
        self.user = user
        self.filename = filename
        self.temporary = temporary
        self._sandbox = sandbox
        spool = sandbox.spool
        self.xml_path, self.image_path = spool / name, spool / f"{name}.file"
        self.data_path, self.log_path = spool / f"{name}.data", spool / f"{name}.log"
        self.result_path, self.work_dir = spool / f"{name}.result", spool / f"{name}.dir"
        self._files_before = self._spool_names()

    @property
    def environment(self) -> dict[str, str]:
        """What OBS's worker hands on, with no HOME and no LANG, and where the sandbox is."""
        inside = self._sandbox.environment()
        names = ("PATH", "CLOUDUPLOADER_HOME", "AWS_EC2_METADATA_DISABLED", "AWS_CA_BUNDLE")
        names += ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EBS")
        return {name: inside[name] for name in names} | {"TMPDIR": str(self.temporary)}

    def start(self, *options: str, has_result_file: bool = True, **changes: str) -> subprocess.Popen[Any]:
        """Start an upload in a session of its own, as OBS's worker does.

        Args:
            options: Before the operands.
            has_result_file: Six operands, or five with the log.
            changes: Of the environment.
        """
        further = [self.filename, self.result_path] if has_result_file else [self.log_path]
        argv = [EXECUTABLE, *options, self.user, "ec2", self.image_path, self.data_path, *further]
        environment = self.environment | changes
        if not has_result_file:
            return self._popen(argv, environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.log_path.open("ab") as log:
            return self._popen(argv, environment, stdout=log, stderr=log)

    def _popen(self, argv: Sequence[Any], environment: dict[str, str], **streams: Any) -> subprocess.Popen[Any]:
        return self._sandbox.popen(
            argv, cwd=self.work_dir, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **streams
        )

    def finish(self, process: subprocess.Popen[Any]) -> Done:
        """Wait for its end."""
        stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
        result = self.result_path.read_bytes().decode() if self.result_path.exists() else None
        log = self.log_path.read_text() if self.log_path.exists() else ""
        return Done(process.returncode, log, result, (stdout or b"").decode(), (stderr or b"").decode())

    def run(self, *options: str, **how: Any) -> Done:
        """Upload to the end; takes what `start` takes."""
        return self.finish(self.start(*options, **how))

    def wait_for(self, text: str, process: subprocess.Popen[Any]) -> None:
        """Wait until the log has a line that begins like this, while the process runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(line.startswith(text) for line in self.log_lines()):
            assert process.poll() is None, f"{text!r} never came: {self.log_path.read_text()}"
            assert time.monotonic() < deadline, self.log_path.read_text()
            time.sleep(POLL_SECONDS)

    def log_lines(self) -> list[str]:
        """The log so far, without the times of day."""
        return untimed(self.log_path.read_text()) if self.log_path.exists() else []

    def _spool_names(self) -> frozenset[str]:
        return frozenset(path.name for path in self._sandbox.spool.iterdir())

    def litter(self) -> list[str]:
        """What the upload has left on this machine and should not have."""
        expected = self._files_before | {self.log_path.name, self.result_path.name}
        own = re.compile(rf"{self.name}(\..*)?|\..*")
        in_spool = set(filter(own.fullmatch, self._spool_names())) - expected
        places = [directory for directory in (self.temporary, self.work_dir) if directory.exists()]
        return sorted(in_spool) + [str(path) for place in places for path in place.rglob("*")]


@pytest.fixture
def make_job(sandbox, make_image, tmp_path) -> Callable[..., Job]:
    """A factory of jobs as OBS's server leaves them to its worker."""

    def make(
        image: Any = None,
        *,
        user: str | bytes = "tom",
        filename: str | bytes | None = None,
        arch: str | None = "x86_64",
        data: bytes | None = None,
        **targetdata: Any,
    ) -> Job:
        """Make one.

        Args:
            image: As `make_image` gives it; by default a small .raw.xz.
            user: As on the command line.
            filename: As on the command line; by default the image file's.
            arch: Of the job; None for a job without a file in the spool.
            data: The target data as bytes, in place of what follows.
            targetdata: Changes of the sandbox's own; None takes a key out.
        """
        found = image or make_image()
        name = str(1 + max(int(path.stem) for path in sandbox.spool.iterdir() if path.stem.isdecimal()))
        if data is None:
            data = json.dumps(sandbox.targetdata(**targetdata)).encode()
        (sandbox.spool / f"{name}.file").symlink_to(found.path)
        (sandbox.spool / f"{name}.data").write_bytes(data)
        (sandbox.spool / f"{name}.dir").mkdir()
        if arch:
            record = job_module.Job(
                name=name,
                state=job_module.JobState.UPLOADING,
                user="tom",
                target="ec2",
                arch=arch,
                filename="named-by-the-job.raw.xz",
                size=found.path.stat().st_size,
            )
            (sandbox.spool / name).write_bytes(job_xml.serialize(record))
        temporary = tmp_path / f"tmp{name}"
        temporary.mkdir()
        return Job(sandbox, name, user=user, filename=filename or found.path.name, temporary=temporary)

    return make


@pytest.fixture
def settings(sandbox) -> Callable[[str], None]:
    """Write clouduploader.conf; it is gone with the sandbox's next reset."""

    def write(text: str) -> None:
        (sandbox.home / "clouduploader.conf").write_text(text)

    return write


@pytest.fixture
def run_aws(aws):
    """Do as the user who runs the commands of `aws iam` that he was shown; gives the answer to the last one."""

    def run(script):
        answer = None
        for line in script.splitlines():
            program, service, command, *words = shlex.split(line)
            assert (program, service) == ("aws", "iam")
            options = {
                "".join(part.title() for part in name.removeprefix("--").split("-")): value
                for name, value in zip(words[::2], words[1::2], strict=True)
            }
            arguments = {name: value for name, value in options.items() if name not in ("Query", "Output")}
            (answer,) = aws(("iam", command.replace("-", "_"), arguments), region="us-east-1")
            assert "Error" not in answer, answer
        return answer

    return run
