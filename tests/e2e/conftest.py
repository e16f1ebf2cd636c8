"""Fixtures that run things in a sandbox: one sandbox for all tests, as at its start for each."""

import bz2
import dataclasses
import gzip
import http.client
import io
import json
import lzma
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from clouduploader.sandbox import layout

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
STOP_SECONDS = 30  # a process that was killed is gone long before
NOISE_BYTES = 1 << 20
API_KEYS = ("access_key_id", "secret_access_key", "session_token")
WAIT_FACTOR = 0.005  # 170 s of sleep in an upload become less than one


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("sandbox")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@dataclasses.dataclass(frozen=True)
class MadeImage:
    """An image file.

    Attributes:
        path: The file, of the name that was asked for.
        raw: What is in it, unpacked.
    """

    path: Path
    raw: bytes


class Sandbox:
    """A running sandbox, from outside."""

    def __init__(self, place: layout.Layout) -> None:
        self.layout = place
        self._processes: list[subprocess.Popen[Any]] = []

    # --- running things in it

    @property
    def enter(self) -> list[str]:
        """What to put before a command line. Processes keep the pids of the outside."""
        pid = self.layout.namespaces.read_text().strip()
        return ["nsenter", f"--target={pid}", "--user", "--net", "--preserve-credentials", "--"]

    def environment(self, **changes: str) -> dict[str, str]:
        """The environment of a command in the sandbox, ours with the sandbox's settings."""
        return layout.environment(self.layout, os.environ) | changes

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

    def targetdata(self, **changes: Any) -> dict[str, Any]:
        """Target data for an upload into the sandbox; None as a value takes the key out."""
        described = self.description
        data = {
            "user_id": 7,
            "external_id": described["external_id"],
            "arn": described["role_arn"],
            "region": described["region"],
            "ami_name": "my-image",
            "vpc_subnet_id": "",
        }
        return {key: value for key, value in (data | changes).items() if value is not None}

    def content(self, object_id: str) -> Path:
        """The file with the bytes of a volume or snapshot: sparse, as long as the volume."""
        return self.layout.volumes / f"{object_id}.raw"

    def volume_bytes(self, object_id: str, size_bytes: int) -> bytes:
        """The first bytes of a volume or snapshot."""
        with self.content(object_id).open("rb") as file:
            return file.read(size_bytes)

    def image_bytes(self, image_id: str, size_bytes: int) -> bytes:
        """The first bytes of what an AMI boots from."""
        image = next(image for image in self.account()["images"] if image["id"] == image_id)
        return self.volume_bytes(image["block_device_mappings"][0]["Ebs"]["SnapshotId"], size_bytes)

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

    def account(self) -> dict[str, list[dict[str, Any]]]:
        """What is in the account that the sandbox did not make."""
        return self.control("GET", "account")

    def left(self) -> dict[str, list[str]]:
        """The ids of what is in the account, kinds that are empty left out."""
        return {kind: [entry["id"] for entry in found] for kind, found in self.account().items() if found}

    def calls(self, action: str | None = None) -> list[dict[str, Any]]:
        """The API calls so far, all or those of one action."""
        return [call for call in self.control("GET", "calls") if action in (None, call["action"])]

    def fault(self, action: str, **how: Any) -> None:
        """Let one kind of call fail; replaces the fault that was there."""
        self.control("POST", "faults", {"action": action, **how})

    def faults(self, *faults: dict[str, Any]) -> None:
        """Let several kinds of calls fail."""
        self.control("POST", "faults", list(faults))

    def expire(self) -> None:
        """Let all temporary credentials expire now."""
        self.control("POST", "expire")

    def clock(self, offset_seconds: float) -> None:
        """Set AWS's clock ahead of ours."""
        self.control("POST", "clock", {"offset_seconds": offset_seconds})

    def policy(self, document: dict[str, Any] | None) -> None:
        """Give the role these rights."""
        self.control("POST", "policy", document)

    def pace(self, snapshot_seconds: float) -> None:
        """Let snapshots take that long."""
        self.control("POST", "pace", {"snapshot_seconds": snapshot_seconds})

    def helper(self, **behaviour: Any) -> None:
        """Change how the helper instances behave."""
        self.control("POST", "helper", behaviour)

    def reset(self) -> None:
        """Everything as at the start."""
        self.control("POST", "reset")


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """One sandbox for all tests; ends with the test run, however that ends."""
    # A short path, because there is a Unix socket in it.
    root = Path(tempfile.mkdtemp(prefix="sandbox-"))
    place = layout.Layout(root / "s")
    # cat ends when our end of its standard input does, and the sandbox with it.
    process = subprocess.Popen(
        [EXECUTABLE, "sandbox", f"--keep={place.root}", f"--wait-factor={WAIT_FACTOR}", "--", "cat"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stdin is not None
    first_line = process.stderr.readline()
    assert "sandbox at" in first_line, first_line
    yield Sandbox(place)
    process.stdin.close()
    rest = process.stderr.read()
    process.stderr.close()
    status = process.wait(STOP_SECONDS)
    server_log = place.server_log.read_text()
    shutil.rmtree(root)
    assert (status, rest) == (0, "")
    assert "Traceback" not in server_log, server_log


@pytest.fixture
def sandbox(running_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The sandbox as at its start."""
    running_sandbox.reset()
    yield running_sandbox
    running_sandbox.kill_all()


# Makes API calls for the test's process, which is not in the sandbox: a line with an order in, a
# line with the answers out.
API_CALLER = """
import json, sys
import botocore.config, botocore.exceptions, botocore.session

session = botocore.session.get_session()
config = botocore.config.Config(retries={"total_max_attempts": 1}, parameter_validation=False)
for line in sys.stdin:
    order = json.loads(line)
    answers = []
    for service, method, arguments in order["calls"]:
        client = session.create_client(service, order["region"], config=config, **order["keys"])
        try:
            answer = getattr(client, method)(**arguments)
        except botocore.exceptions.ClientError as exc:
            answer = exc.response
        except Exception as exc:
            answer = {"Error": {"Code": type(exc).__name__, "Message": str(exc)}}
        answer.pop("ResponseMetadata", None)
        answers.append(answer)
    print(json.dumps(answers, default=str), flush=True)
"""


@pytest.fixture(scope="session")
def api_caller(running_sandbox: Sandbox) -> Iterator[subprocess.Popen[str]]:
    """A process in the sandbox that makes API calls; see API_CALLER."""
    process = subprocess.Popen(
        [*running_sandbox.enter, sys.executable, "-c", API_CALLER],
        env=running_sandbox.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process


@pytest.fixture
def aws(sandbox: Sandbox, api_caller: subprocess.Popen[str]) -> Callable[..., list[dict[str, Any]]]:
    """Call the sandbox's AWS: aws((service, method, arguments), ...) gives a list of answers.

    An error is an answer with the key Error. `keys` are access_key_id, secret_access_key and
    session_token, or the Credentials of AssumeRole; by default the auditor's.
    """

    def call(
        *calls: tuple[str, str, dict[str, Any]],
        keys: dict[str, str] | None = None,
        region: str | None = None,
    ) -> list[dict[str, Any]]:
        described = sandbox.description
        # AccessKeyId -> access_key_id
        named = {
            re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower(): value
            for key, value in (keys or described["auditor"]).items()
        }
        order = {
            "calls": calls,
            "region": region or described["region"],
            "keys": {f"aws_{name}": named[name] for name in API_KEYS if name in named},
        }
        assert api_caller.stdin is not None
        assert api_caller.stdout is not None
        api_caller.stdin.write(json.dumps(order) + "\n")
        api_caller.stdin.flush()
        answers: list[dict[str, Any]] = json.loads(api_caller.stdout.readline())
        return answers

    return call


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., MadeImage]:
    """A factory of image files with noise, a hole and a last sector that says so."""

    def make(
        name: str = "openSUSE.x86_64-1.0.0-Build1.1.raw.xz",
        *,
        packing: str | None = None,
        size_bytes: int = 8 << 20,
        seed: int = 0,
        cut_bytes: int = 0,
    ) -> MadeImage:
        """Make one.

        Args:
            name: Of the file.
            packing: raw, xz, gz, bz2, tar.gz, tar.xz or tar.bz2; by default what the name says.
            size_bytes: Unpacked.
            seed: Images of the same seed and size are equal.
            cut_bytes: So many are missing at the packed file's end.
        """
        noise = random.Random(seed).randbytes(min(NOISE_BYTES, size_bytes // 2))  # noqa: S311
        raw = noise + bytes(size_bytes - len(noise) - 512) + b"The last sector.".ljust(512, b".")
        packed = _pack(raw, packing or _packing_of(name))
        path = tmp_path / name
        path.write_bytes(packed[: len(packed) - cut_bytes])
        return MadeImage(path, raw)

    return make


def _packing_of(name: str) -> str:
    for ending in ("tar.gz", "tar.xz", "tar.bz2", "xz", "gz", "bz2"):
        if name.endswith(f".{ending}"):
            return ending
    return "raw"


def _pack(raw: bytes, packing: str) -> bytes:
    if packing.startswith("tar."):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=f"w:{packing.removeprefix('tar.')}") as archive:
            member = tarfile.TarInfo("disk.raw")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        return buffer.getvalue()
    if packing == "raw":
        return raw
    if packing == "gz":
        return gzip.compress(raw, 1)
    if packing == "bz2":
        return bz2.compress(raw, 1)
    return lzma.compress(raw, preset=0)
