"""The fixtures of the tests with a real OBS backend."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from e2e.obs import obs_supervisor
from e2e.obs.obs_backend import EXECUTABLE, SERVER_DIR, Backend
from e2e.obs.obs_capture import write_script_uploader

MakeBackend = Callable[..., Backend]


@pytest.fixture
def make_backend(tmp_path: Path) -> Iterator[MakeBackend]:
    """Start a backend that calls the first `clouduploader` in the directories; ended with the test."""
    if not (SERVER_DIR / "bs_clouduploadworker").exists():
        raise RuntimeError("Debian's obs-server is not installed; bin/test says how to get it")
    count = itertools.count()
    with contextlib.ExitStack() as stack:

        def make(
            *path_dirs: Path,
            prefix: Sequence[str] = (),
            has_server: bool = True,
            has_worker: bool = True,
            reposerver_port: int | None = None,
            **environment: str,
        ) -> Backend:
            backend = Backend(
                tmp_path / f"obs{next(count)}",
                path_dirs=path_dirs,
                prefix=prefix,
                has_server=has_server,
                has_worker=has_worker,
                reposerver_port=reposerver_port,
                environment={"CLOUDUPLOADER_HOME": str(tmp_path / "home"), **environment},
            )
            stack.callback(backend.close)
            backend.start()
            return backend

        yield make


@pytest.fixture
def script_backend(make_backend: MakeBackend, tmp_path: Path) -> Backend:
    """A backend whose jobs bring along, as target data, the script that plays the uploader."""
    bin_dir = tmp_path / "script-uploader"
    write_script_uploader(bin_dir)
    return make_backend(bin_dir)


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A directory with our executable alone."""
    path = tmp_path / "bin"
    path.mkdir()
    (path / "clouduploader").symlink_to(EXECUTABLE)
    return path


@pytest.fixture
def plugin_dir() -> Path:
    """Where Python finds the platform `gate`."""
    return Path(__file__).with_name("plugin")


@pytest.fixture
def backend(make_backend: MakeBackend, bin_dir: Path, plugin_dir: Path) -> Backend:
    """A backend that calls our executable, with a home of its own and the platform `gate`."""
    return make_backend(bin_dir, PYTHONPATH=str(plugin_dir))


class Gate:
    """What holds back uploads to the platform `gate`.

    Args:
        path: The file with the steps, made here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    @property
    def data(self) -> bytes:
        """The target data of a job that waits here."""
        return json.dumps({"steps": str(self._path)}).encode()

    def step(self, text: str) -> None:
        """Let the uploads do one step more: log a line, `end`, or `fail REASON`."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


@pytest.fixture
def make_gate(tmp_path: Path) -> Callable[[], Gate]:
    """Make a closed gate."""
    count = itertools.count()
    return lambda: Gate(tmp_path / f"steps{next(count)}")


Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def command() -> Iterator[Command]:
    """Start one of our commands on a backend's spool, where its worker runs; ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(backend: Backend, *arguments: str, around: Sequence[str] = ()) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [*backend.prefix, *around, str(EXECUTABLE), "--spool", str(backend.spool), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **backend.environment},
                start_new_session=True,
            )
            stack.callback(_end, process)
            return process

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        for pid in (*obs_supervisor.descendants(process.pid), process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def run(command: Command) -> Callable[..., tuple[int, str, str]]:
    """Run one of our commands to its end; returns exit code, stdout, stderr."""

    def run(backend: Backend, *arguments: str) -> tuple[int, str, str]:
        process = command(backend, *arguments)
        stdout, stderr = process.communicate()
        assert "Traceback" not in stderr
        return process.returncode, stdout, stderr

    return run


@pytest.fixture
def answer(run: Callable[..., tuple[int, str, str]]) -> Callable[..., Any]:
    """Run one of our commands with --json; returns the `data` of its answer."""

    def answer(backend: Backend, *arguments: str) -> Any:
        code, stdout, stderr = run(backend, *arguments, "--json")
        assert code == 0, stdout + stderr
        return json.loads(stdout)["data"]

    return answer
