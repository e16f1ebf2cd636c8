import lzma
import sys
import types
from types import MappingProxyType

import pytest
from fakes.platforms import FakePlatform
from samples.uploads import RAW

from clouduploader.plugin import Field
from clouduploader.store import config
from clouduploader.store.job_log import JobLog
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads.task import UploadTask
from clouduploader.util.cancel import Cancel


@pytest.fixture
def platform(install_package, monkeypatch):
    """A platform of an installed package, found by its entry point like that of another author."""
    install_package("made_up_platform", **{"made-up": "made_up_platform:create"})
    made = FakePlatform(
        Field(name="filename", description="The real name."),
        Field(name="password", description="A secret.", is_secret=True),
    )
    module = types.ModuleType("made_up_platform")
    module.create = lambda _context: made
    monkeypatch.setitem(sys.modules, "made_up_platform", module)
    return made


class Lines:
    """A sink of a log, as lines."""

    def __init__(self):
        self.data = b""

    def write(self, data):
        self.data += data

    def __iter__(self):
        return iter(self.data.decode().splitlines())

    def __contains__(self, line):
        return line in list(self)


@pytest.fixture
def lines():
    """What the job's log holds."""
    return Lines()


@pytest.fixture
def run(tmp_path, lines):
    """A function that runs a task; it makes the image and the rest unless told otherwise."""

    def run_task(
        *,
        what=uploads_run.run,
        cancel=None,
        events_path=None,
        data=b"{}",
        image="42.file",
        content=None,
        environment=MappingProxyType({}),
        **changes,
    ):
        path = tmp_path / image
        if content is not None or not path.exists():
            path.write_bytes(lzma.compress(RAW) if content is None else content)
        fields = {"user": "tom", "target": "made-up", "filename": None, "job": None, "is_by_hand": False} | changes
        task = UploadTask(image_path=path, targetdata=data, **fields)
        settings = config.load(home=tmp_path / "home", spool=tmp_path, environment=environment)
        keywords = {"events_path": events_path} if what is uploads_run.run else {}
        log = JobLog([lines], is_verbose=True)
        return what(task, config=settings, log=log, cancel=cancel or Cancel(), **keywords)

    return run_task
