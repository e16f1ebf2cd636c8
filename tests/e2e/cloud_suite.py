"""What an upload into any cloud must do in its sandbox; a cloud's tests derive from CloudSuite."""

import abc
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from e2e.sandboxes import Sandbox
from e2e.upload_host import JournalServer, UploadHost
from e2e.watcher import Watcher
from samples import made_images, minimal_disk

from clouduploader.cli.options import login
from clouduploader.errors import ExitCode
from clouduploader.sandbox import user_account
from clouduploader.sandbox.files import SAMPLE_NAME
from clouduploader.store import journal
from clouduploader.util.arrival import FD_VARIABLE, ArrivalWriter

FORMS = ("raw", "sparse", "xz", "xz-blocks", "gz", "bz2", "zst", *made_images.TARBALLS, *made_images.QEMU)
SIZE_BYTES = 9 << 20  # a little more than two pages of Azure
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
UPLOADS, KILLS = 5, 4  # of each: twenty in all
KILL_SECONDS = (0.2, 2.5)  # when a try is killed: from where Python has just started to where most is sent
WAIT_SECONDS = 120


class CloudCase(abc.ABC):
    """A sandbox with a cloud, as the suite needs it; as at its start for each test.

    Args:
        sandbox: With nothing of a test in it.

    Attributes:
        target: The target of uploads.
        sending: The call that carries the content, as `GET /sandbox/calls` has it.
        login: The call that gives a token.
        large_mib: How large a disk is that takes a while: more than is sent at once, twice.
        refused: A fault of a call behind that one, which fails the upload for good.
        is_resumable: Whether a later try goes on with what an earlier one has sent.
    """

    target: str
    sending: str
    login: str
    large_mib: int = 40
    refused: Mapping[str, Any]
    is_resumable: bool = True

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    @abc.abstractmethod
    def options(self) -> Sequence[str | Path]:
        """Options of `upload` that give an account and whatever is required, but not the image's name."""

    @abc.abstractmethod
    def name_option(self) -> str:
        """The option for the image's name."""

    @abc.abstractmethod
    def images(self) -> Sequence[str]:
        """The results of uploads that there are in the cloud."""

    @abc.abstractmethod
    def others(self) -> Sequence[str]:
        """Whatever else an upload can leave in the cloud, as names for people: blobs, disks, uploads under way."""

    @abc.abstractmethod
    def disk(self, result: str) -> bytes:
        """The raw disk that an image of the cloud would boot from."""

    @abc.abstractmethod
    def firmware(self, result: str) -> str:
        """What an instance of the image starts, as the cloud has it: "bios" or "uefi"."""

    @abc.abstractmethod
    def secrets(self) -> Mapping[str, str]:
        """Texts that must be nowhere but in the cloud and where the sandbox has put them."""

    def command(self, image: Path, *more: str | Path, name: str = "my-image") -> list[str | Path]:
        """An upload by hand."""
        named = f"{self.name_option()}={name}"
        return ["clouduploader", "upload", f"--target={self.target}", named, *self.options(), *more, image]

    def upload(self, image: Path, *more: str | Path, name: str = "my-image") -> str:
        """Upload an image and return the result."""
        done = self.sandbox.run(self.command(image, *more, name=name))
        assert done.returncode == 0, done.stderr
        return str(done.stdout.strip())

    def make_account(self) -> None:
        """Make the account that a sandbox begins with, which a reset takes away."""
        user_account.create(self.sandbox.cloud, self.sandbox.layout, login())

    def slow_down(self, seconds: float) -> None:
        """Let each call that carries content take longer."""
        self.sandbox.fault(self.sending, delay_seconds=seconds)

    def is_sending(self) -> bool:
        """Whether an upload is in the middle of its content; `slow_down` lets it stay there for a while."""
        return bool(self.sandbox.calls(self.sending))

    def assert_only(self, result: str, raw: bytes) -> None:
        """Check that an image is all that there is, and that it is right."""
        assert (list(self.images()), list(self.others())) == ([result], [])
        found = self.disk(result)
        assert found[: len(raw)] == raw
        assert not any(found[len(raw) :])  # what the cloud's unit of sizes adds


def large_disk(case: CloudCase) -> bytes:
    """A disk that takes a while, with holes in it."""
    extents = [(start << 20, (start + 6) << 20) for start in range(0, case.large_mib, 8)]
    return minimal_disk.as_disk(made_images.with_holes(case.large_mib << 20, extents, 0))


@contextlib.contextmanager
def service(case: CloudCase) -> Iterator[None]:
    """Run server and worker."""
    with (case.sandbox.layout.root / "serve.log").open("w") as log:
        process = case.sandbox.popen(["clouduploader", "serve"], stdout=log, stderr=log)
        yield
        process.terminate()
        assert process.wait(WAIT_SECONDS) in (0, ExitCode.TERMINATED), (
            case.sandbox.layout.root / "serve.log"
        ).read_text()


class CloudSuite:
    """Needs a fixture `case`, a CloudCase, and `make_image`."""

    @pytest.mark.parametrize("form", FORMS)
    def test_image_of_any_format_is_in_the_cloud_byte_for_byte(self, case, make_image, form):
        image = make_image(
            f"disk.{form if form in made_images.ENDINGS else 'raw'}", packing=form, size_bytes=SIZE_BYTES
        )
        case.assert_only(case.upload(image.path), image.raw)

    def test_upload_that_is_killed_anywhere_is_gone_on_with(self, case, make_image):
        chance = random.Random(SEED)  # noqa: S311
        image = make_image("disk.raw", raw=large_disk(case))
        case.slow_down(0.3)
        results = []
        for number in range(UPLOADS):
            command = case.command(image.path, name=f"my-image-{number}")
            for _ in range(KILLS):
                process = case.sandbox.popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(chance.uniform(*KILL_SECONDS))
                process.kill()
                process.wait()
            done = case.sandbox.run(command)
            assert done.returncode == 0, (SEED, done.stderr)
            results.append(done.stdout.strip())
        assert sorted(case.images()) == sorted(results), SEED
        assert list(case.others()) == [], SEED
        for result in results:
            assert case.disk(result)[: len(image.raw)] == image.raw, SEED

    def test_upload_of_a_host_that_is_lost_is_gone_on_with_at_another(self, case, make_image, tmp_path):
        image = make_image("disk.raw", raw=large_disk(case))
        case.slow_down(0.3)
        server = JournalServer(tmp_path / "server")
        lost, other = (UploadHost(server, tmp_path / name) for name in ("lost", "other"))

        def start(host):
            streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            return host.start(
                lambda **how: case.sandbox.popen(case.command(image.path), **streams, **how), case.sandbox.environment()
            )

        process = start(lost)
        ends_at = time.monotonic() + WAIT_SECONDS
        while not (case.is_sending() and (server.has_platform_files() or not case.is_resumable)):
            assert process.poll() is None
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        process.kill()
        process.wait()
        lost.lose()
        case.sandbox.faults()
        process = start(other)
        out, err = process.communicate(timeout=WAIT_SECONDS)
        other.join()
        assert process.returncode == 0, err
        logs = [path.read_text() for path in case.sandbox.spool.rglob("*.log")]
        assert any("Going on with" in log for log in logs) is case.is_resumable, logs
        case.assert_only(out.strip(), image.raw)
        assert not list(tmp_path.rglob(journal.TARGETDATA_NAME))

    def test_login_that_expires_in_the_middle_is_renewed(self, case, make_image):
        image = make_image("disk.raw", raw=large_disk(case))
        case.slow_down(2.0)
        process = case.sandbox.popen(
            case.command(image.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        while not case.is_sending():
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.5)  # of OpenStack's, what comes before the content has been seen, and it follows at once
        logins = len(case.sandbox.calls(case.login))
        case.sandbox.control("POST", "expire")
        case.sandbox.faults()
        out, err = process.communicate(timeout=WAIT_SECONDS)
        assert process.returncode == 0, err
        case.assert_only(out.strip(), image.raw)
        assert len(case.sandbox.calls(case.login)) > logins

    def test_sigterm_leaves_nothing_at_any_moment(self, case, make_image):
        image = make_image("disk.raw", raw=large_disk(case))
        case.slow_down(0.3)
        stopped = 0
        for seconds in (0.5, 1.0, 1.5, 2.5):
            process = case.sandbox.popen(
                case.command(image.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            time.sleep(seconds)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=WAIT_SECONDS)
            if process.returncode == 0:  # it had done all
                case.assert_only(out.strip(), image.raw)
                break
            assert process.returncode in (ExitCode.TERMINATED, -signal.SIGTERM), (
                err
            )  # the latter before Python runs ours
            assert (list(case.images()), list(case.others())) == ([], []), (seconds, err)
            stopped += 1
        assert stopped

    def test_cleanup_removes_what_a_killed_upload_left(self, case, make_image):
        image = make_image("disk.raw", raw=large_disk(case))
        case.slow_down(1.0)
        process = case.sandbox.popen(case.command(image.path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends_at = time.monotonic() + WAIT_SECONDS
        while not case.is_sending():
            assert time.monotonic() < ends_at
            time.sleep(0.02)
        process.kill()
        process.wait()
        case.sandbox.faults()
        done = case.sandbox.run(["clouduploader", "cleanup", "--yes"])
        assert done.returncode == 0, done.stderr
        assert (list(case.images()), list(case.others())) == ([], [])

    def test_same_upload_again_makes_no_second_image(self, case, make_image):
        image = make_image("disk.raw.xz", size_bytes=SIZE_BYTES)
        result = case.upload(image.path)
        again = case.sandbox.run(case.command(image.path))
        assert (again.returncode, again.stdout.strip()) == (0, result), again.stderr
        case.assert_only(result, image.raw)

    def test_dry_run_changes_nothing(self, case, make_image):
        done = case.sandbox.run(case.command(make_image("disk.raw", size_bytes=SIZE_BYTES).path, "--dry-run"))
        assert done.returncode == 0, done.stderr
        assert "my-image" in done.stdout
        assert (list(case.images()), list(case.others())) == ([], [])

    def test_job_of_obs_is_done_as_its_worker_asks_for_it(self, case, tmp_path):
        job = case.sandbox.spool / "1"
        operands = ["sandbox-user", case.target, f"{job}.file", f"{job}.data", SAMPLE_NAME, tmp_path / "result"]
        done = case.sandbox.run(["clouduploader", *operands])
        assert done.returncode == 0, done.stdout + done.stderr
        (result,) = case.images()
        assert (tmp_path / "result").read_text().strip() == result
        assert result in done.stdout  # which is the log
        sample = subprocess.run(["xz", "-dc", case.sandbox.layout.sample], capture_output=True, check=True).stdout
        case.assert_only(result, sample)

    def test_image_is_uploaded_while_it_still_comes(self, case, tmp_path):
        raw = large_disk(case)
        path, result = tmp_path / "1.file", tmp_path / "result"
        operands = ["sandbox-user", case.target, path, case.sandbox.spool / "1.data", "disk.raw", result]
        log = tmp_path / "log"
        with ArrivalWriter() as arrival, path.open("w+b", buffering=0) as file, log.open("wb") as output:
            file.truncate(len(raw))
            half = len(raw) // 2
            for start, end in ((len(raw) - (1 << 20), len(raw)), (0, half)):
                file.seek(start)
                file.write(raw[start:end])
            arrival.have_end(len(raw) - (1 << 20))
            arrival.have(half)
            process = case.sandbox.popen(
                ["clouduploader", *operands],
                env=case.sandbox.environment(**{FD_VARIABLE: str(arrival.descriptor)}),
                pass_fds=[arrival.descriptor],
                stdout=output,
                stderr=output,
            )
            ends_at = time.monotonic() + WAIT_SECONDS
            while not case.is_sending():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < ends_at
                time.sleep(0.02)
            assert not case.images()
            file.write(raw[half:])
            arrival.have(len(raw))
            arrival.finish(path.stat().st_mtime_ns)
            assert process.wait(WAIT_SECONDS) == 0, log.read_text()
        (found,) = case.images()
        assert result.read_text().strip() == found
        case.assert_only(found, raw)

    def test_submitted_image_is_uploaded_by_the_worker_with_the_account(self, case, make_image):
        image = make_image("disk.raw.xz", size_bytes=SIZE_BYTES)
        case.make_account()
        (case.sandbox.spool / "1").unlink()  # a job that the worker would do too
        with service(case):
            named = f"{case.name_option()}=submitted"
            words = ["submit", "--wait", f"--target={case.target}", named, *self.submit_options(case), image.path]
            done = case.sandbox.run(["clouduploader", *words])
            assert done.returncode == 0, done.stderr
        case.assert_only(done.stdout.strip().splitlines()[-1], image.raw)

    def submit_options(self, case: CloudCase) -> Sequence[str | Path]:
        """Options of `submit`: what is required and not the account's."""
        return ()

    def test_account_is_verified_and_the_target_checked(self, case):
        case.make_account()
        user = login()
        done = case.sandbox.run(["clouduploader", "account", "verify", user, f"--target={case.target}"])
        assert done.returncode == 0, done.stdout + done.stderr
        done = case.sandbox.run(["clouduploader", "account", "show", user, f"--target={case.target}"])
        assert done.returncode == 0, done.stderr
        done = case.sandbox.run(["clouduploader", "check", f"--target={case.target}"])
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("is_failing", [False, True], ids=["success", "failure"])
    def test_secrets_are_nowhere(self, case, make_image, tmp_path, is_failing):
        image = make_image("disk.raw.xz", size_bytes=SIZE_BYTES)
        before = contents(case.sandbox.home, tmp_path)
        if is_failing:
            case.sandbox.faults(dict(case.refused))
        with Watcher(case.sandbox, tmp_path / "none") as watcher:
            done = case.sandbox.run([*case.command(image.path, "--verbose")])
        assert (done.returncode != 0) is is_failing, done.stderr
        secrets = case.secrets()
        assert secrets
        assert all(len(secret) >= 8 for secret in secrets.values())
        assert any(b"my-image" in text for text in watcher.seen)
        places = {f"/proc {number}": text for number, text in enumerate(watcher.seen)}
        places |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
        after = contents(case.sandbox.home, tmp_path)
        places |= {path: text for path, text in after.items() if before.get(path) != text}
        places |= contents(case.sandbox.spool)  # with job 1, which the sandbox has from the start
        found = {
            (place, name)
            for place, text in places.items()
            for name, secret in secrets.items()
            if secret.encode() in text
        }
        assert found == set()

    def test_answer_in_json_names_the_image(self, case, make_image):
        done = case.sandbox.run(case.command(make_image("disk.raw", size_bytes=SIZE_BYTES).path, "--json"))
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert [answer["data"]["result"]] == list(case.images())


def contents(*directories: Path) -> dict[str, bytes]:
    """All that is in the files of these directories."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            with contextlib.suppress(OSError):  # it has just gone
                if path.is_file() and not path.is_symlink():
                    found[str(path)] = path.read_bytes()
    return found
