"""Fixtures that run things in a sandbox: one sandbox for all tests, as at its start for each."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from e2e import sandboxes
from e2e.sandboxes import Sandbox
from fakes.browser import Browser
from samples import made_images
from samples.made_images import MadeImage

from clouduploader.sandbox.aws import disks
from clouduploader.sandbox.aws.cloud import AwsCloud
from clouduploader.sandbox.aws.layout import AwsLayout

API_KEYS = ("access_key_id", "secret_access_key", "session_token")
WAIT_FACTOR = 0.005  # 170 s of sleep in an upload become less than one
CLOUD = AwsCloud(regions=("us-east-1", "eu-central-1"), wait_factor=WAIT_FACTOR)


class AwsSandbox(Sandbox):
    """A running sandbox with an AWS."""

    layout: AwsLayout

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

    def volume_bytes(self, object_id: str, size_bytes: int, *, encrypted: bool = False) -> bytes:
        """The first bytes of a volume or snapshot.

        Args:
            object_id: Which one.
            size_bytes: So many.
            encrypted: As a volume shows it that is encrypted: garbage where no block was written.
        """
        with self.content(object_id).open("rb") as file:
            content = file.read(size_bytes)
        written = self.control("GET", "blocks", {"snapshot_id": object_id}) if encrypted else None
        return content if written is None else disks.as_encrypted(content, set(written))

    def image_bytes(self, image_id: str, size_bytes: int, *, encrypted: bool = False) -> bytes:
        """The first bytes of what an AMI boots from; see volume_bytes."""
        image = next(image for image in self.account()["images"] if image["id"] == image_id)
        snapshot_id = image["block_device_mappings"][0]["Ebs"]["SnapshotId"]
        return self.volume_bytes(snapshot_id, size_bytes, encrypted=encrypted)

    def account(self) -> dict[str, list[dict[str, Any]]]:
        """What is in the account that the sandbox did not make."""
        return self.control("GET", "account")

    def left(self) -> dict[str, list[str]]:
        """The ids of what is in the account, kinds that are empty left out."""
        return {kind: [entry["id"] for entry in found] for kind, found in self.account().items() if found}

    def expire(self, life_seconds: float | None = None) -> None:
        """Let all temporary credentials expire now, and those to come after so many seconds."""
        self.control("POST", "expire", {"life_seconds": life_seconds} if life_seconds else None)

    def expire_snapshots(self, *, gone: bool = False) -> None:
        """Cancel the snapshots that wait for blocks: they are in the state error, or gone."""
        self.control("POST", "expire-snapshots", {"gone": gone})

    def ebs(self) -> dict[str, Any]:
        """What the EBS direct APIs have seen: connections, calls, snapshots."""
        return self.control("GET", "ebs")

    def policy(self, documents: list[dict[str, Any]] | dict[str, Any] | None) -> None:
        """Give the role these rights: those of one policy, or of several."""
        self.control("POST", "policy", documents)

    def pace(self, snapshot_seconds: float = 0, **seconds: float) -> None:
        """Let things take that long; what is not named takes no time."""
        self.control("POST", "pace", {"snapshot_seconds": snapshot_seconds, **seconds})

    def helper(self, **behaviour: Any) -> None:
        """Change how the helper instances behave."""
        self.control("POST", "helper", behaviour)


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[AwsSandbox]:
    """One sandbox for all tests."""
    with sandboxes.running(AwsSandbox, AwsLayout, CLOUD, f"--wait-factor={WAIT_FACTOR}") as made:
        yield made


@pytest.fixture
def sandbox(running_sandbox: AwsSandbox) -> Iterator[AwsSandbox]:
    """The sandbox as at its start."""
    running_sandbox.reset()
    yield running_sandbox
    running_sandbox.kill_all()


# Makes API calls for the test's process, which is not in the sandbox: a line with an order in, a
# line with the answers out.
API_CALLER = """
import base64, json, sys
import botocore.config, botocore.exceptions, botocore.session

def binary(found):
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found

session = botocore.session.get_session()
for line in sys.stdin:
    order = json.loads(line, object_hook=binary)
    config = botocore.config.Config(
        retries={"total_max_attempts": 1},
        parameter_validation=False,
        connect_timeout=order["timeout"],
        read_timeout=order["timeout"],
    )
    answers, clients = [], {}

    def tamper(request, **_):
        for name, value in order["tampered"].items():
            request.headers.pop(name, None)
            if value is not None:
                request.headers[name] = value

    for service, method, arguments in order["calls"]:
        if service not in clients:
            clients[service] = session.create_client(service, order["region"], config=config, **order["keys"])
            clients[service].meta.events.register("before-send", tamper)
        client = clients[service]
        try:
            answer = getattr(client, method)(**arguments)
            if "BlockData" in answer:
                answer["BlockData"] = {"base64": base64.b64encode(answer["BlockData"].read()).decode()}
        except botocore.exceptions.ClientError as exc:
            answer = exc.response
        except Exception as exc:
            answer = {"Error": {"Code": type(exc).__name__, "Message": str(exc)}}
        answer.pop("ResponseMetadata", None)
        answers.append(answer)
    print(json.dumps(answers, default=str), flush=True)
"""


@pytest.fixture(scope="session")
def api_caller(running_sandbox: AwsSandbox) -> Iterator[subprocess.Popen[str]]:
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
def aws(sandbox: AwsSandbox, api_caller: subprocess.Popen[str]) -> Callable[..., list[dict[str, Any]]]:
    """Call the sandbox's AWS: aws((service, method, arguments), ...) gives a list of answers.

    An error is an answer with the key Error. `keys` are access_key_id, secret_access_key and
    session_token, or the Credentials of AssumeRole; by default the auditor's. `timeout` is in seconds and
    for each answer; headers that are `tampered` with get another value, or are gone, after they were signed.
    """

    def call(
        *calls: tuple[str, str, dict[str, Any]],
        keys: dict[str, str] | None = None,
        region: str | None = None,
        timeout: float = 60,
        tampered: Mapping[str, str | None] = MappingProxyType({}),
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
            "timeout": timeout,
            "tampered": dict(tampered),
        }
        assert api_caller.stdin is not None
        assert api_caller.stdout is not None
        api_caller.stdin.write(json.dumps(order, default=_as_base64) + "\n")
        api_caller.stdin.flush()
        answers: list[dict[str, Any]] = json.loads(api_caller.stdout.readline(), object_hook=_from_base64)
        return answers

    return call


def _as_base64(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def _from_base64(found: dict[str, Any]) -> Any:
    return base64.b64decode(found["base64"]) if found.keys() == {"base64"} else found


@pytest.fixture(scope="session")
def boot_parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What bootable images are made of, such as Debian's kernel, which is got once."""
    return tmp_path_factory.mktemp("boot")


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
        raw: bytes | None = None,
        extents: Sequence[tuple[int, int]] | None = None,
        with_bmap: bool = False,
    ) -> MadeImage:
        """Make one.

        Args:
            name: Of the file.
            packing: See made_images.write; by default what the name says.
            size_bytes: Unpacked.
            seed: Images of the same seed and size are equal.
            cut_bytes: So many are missing at the packed file's end.
            raw: What is to be in it, instead.
            extents: There is noise from here to there, and nothing else, instead.
            with_bmap: Whether there is a block map beside it.
        """
        if raw is None and extents is None:
            raw = made_images.sample(size_bytes, seed)
        elif raw is None:
            raw = made_images.with_holes(size_bytes, extents, seed)
        path = tmp_path / name
        made_images.write(path, raw, packing or made_images.packing_of(name))
        if cut_bytes:
            os.truncate(path, path.stat().st_size - cut_bytes)
        if with_bmap:
            made_images.write_bmap(path.with_name(f"{name}.bmap"), raw)
        return MadeImage(path, raw)

    return make


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
