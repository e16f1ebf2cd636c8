"""What every test gets: a clean environment, an empty home, and no network but loopback; and spools if it asks.

Spools are written without the code under test but for the XML.
"""

import functools
import gc
import importlib.metadata
import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.uploads import registry
from clouduploader.util import masking

# A machine under load is slow, and slowness is no failure: no deadline for an example. No database: the
# checkout may be somebody else's.
hypothesis.settings.register_profile("clouduploader", max_examples=50, database=None, deadline=None, print_blob=True)
hypothesis.settings.register_profile("quick", hypothesis.settings.get_profile("clouduploader"), max_examples=15)
hypothesis.settings.load_profile("clouduploader")

# Read when moto is imported. Of its own it has hundreds for each region, and answers take a second with them.
os.environ["MOTO_AMIS_PATH"] = str(Path(__file__).parent / "data" / "amis.json")

gc.disable()  # until all is collected: a fifth of that would be spent on looking for garbage, of which there is little


def pytest_collection_finish():
    """Collect garbage from now on, but not in what was imported and collected, which stays to the end."""
    gc.freeze()
    gc.enable()


FOREIGN_VARIABLE = re.compile(
    r"(AWS|BOTO|CLOUDUPLOADER|GPG|GNUPG|SSH).*|.*_PROXY|REQUESTS_CA_BUNDLE|COLUMNS|LINES|(NO|FORCE)_COLOR",
    re.IGNORECASE,
)


@pytest.fixture(autouse=True, scope="session")
def clean_environment():
    """Take away what the caller's environment could change; in time for session fixtures too."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(FOREIGN_VARIABLE.fullmatch, list(os.environ)):
            patch.delenv(name)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # botocore would ask 169.254.169.254
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background has it ignored
        yield


@pytest.fixture(autouse=True, scope="session")
def shared_api_descriptions():
    """Let all of the SDK's sessions share what they find and parse of its API descriptions, in hundreds of directories.

    Without that a client takes four times as long to make, half of the time of some tests.
    """
    from botocore import loaders

    find, found = loaders.Loader.list_available_services, {}
    load = functools.cache(loaders.JSONFileLoader().load_file)

    def list_available_services(loader, type_name):
        key = (*loader.search_paths, type_name)
        if key not in found:
            found[key] = find(loader, type_name)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders.JSONFileLoader, "load_file", lambda _self, path: load(path))
        patch.setattr(loaders.Loader, "list_available_services", list_available_services)
        yield


@pytest.fixture(autouse=True, scope="session")
def shared_package_metadata():
    """Read what the environment's packages say of themselves once: each run of the program looks at all of them."""
    paths = importlib.metadata.PathDistribution
    read, is_ours = paths.read_text, functools.cache(registry._is_ours)
    read_once = functools.cache(lambda path, name: read(paths(path), name))

    def is_kept(path):
        return str(path).startswith(f"{sys.prefix}/")

    def read_text(package, name):
        return read_once(package._path, name) if is_kept(package._path) else read(package, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "read_text", read_text)
        patch.setattr(registry, "_is_ours", lambda path: (is_ours if is_kept(path) else is_ours.__wrapped__)(path))
        yield


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """An empty home of this test alone; returns its path."""
    path = Path(tempfile.mkdtemp(prefix="home-", dir=tmp_path_factory.getbasetemp()))  # mktemp would also move a link
    monkeypatch.setenv("HOME", str(path))
    return path


@pytest.fixture
def make_spool(tmp_path):
    """Return a function that makes an empty spool as OBS has it: inside its `bsdir`."""

    def make():
        directory = tmp_path / "bs" / "cloudupload"
        directory.mkdir(parents=True)
        return spool.Spool(directory)

    return make


@pytest.fixture
def make_job():
    """Return a function that puts a job into a spool, with those of its files that are given."""

    def make(jobs, name, *, state=JobState.UPLOADING, log=None, data=None, image=None, **fields):
        defaults = {"created": 1795361942, "user": "tom", "target": "ec2", "filename": "a.raw.xz"}
        job = Job(name=name, state=state, **{**defaults, **fields})
        directory = jobs.directory
        if state.is_final:
            directory = jobs.directory / "done"
            directory.mkdir(exist_ok=True)
        for ending, content in ((".log", log), (".data", data), (".file", image)):
            if content is not None:
                (directory / f"{name}{ending}").write_bytes(content)
        new_path = directory / f".{name}.test"
        new_path.write_bytes(job_xml.serialize(job))
        new_path.replace(directory / name)  # whoever looks meanwhile sees all of it, or what was there before
        return job

    return make


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts a server on a spool; the keys of section [server] can be given."""
    from fakes.running_server import server_starter  # few tests need the server's libraries

    with server_starter(tmp_path) as start:
        yield start


@pytest.fixture(autouse=True)
def forgotten_secrets():
    """Let no secret of this test mask words of the next one: each is a process of its own."""
    yield
    masking._read.clear()


def _is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "", None)


def _allow_loopback_only(event, arguments):
    """Fail a test that reaches for the network; as an audit hook it sees each call of Python's."""
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        used, address = arguments
        is_allowed = used.family == socket.AF_UNIX or (
            used.family in (socket.AF_INET, socket.AF_INET6) and _is_loopback(address[0])
        )
    elif event == "socket.getaddrinfo":
        address = arguments[0]
        is_allowed = _is_loopback(address.decode() if isinstance(address, bytes) else address)
    else:
        return
    if not is_allowed:
        pytest.fail(f"a test may use loopback only, not {address!r} ({event})")


sys.addaudithook(_allow_loopback_only)


@pytest.fixture
def let_all_enter():
    """Return a function that lets every user enter a directory of a test, through all that it lies in."""

    def let(directory):
        for path in (directory, *directory.parents):
            if path == Path(tempfile.gettempdir()):
                return
            path.chmod(0o755)
        raise AssertionError(f"{directory} is not a temporary directory")

    return let
