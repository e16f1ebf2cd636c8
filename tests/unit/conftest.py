"""Spools for the tests, written without the code under test but for the XML."""

import tempfile
from pathlib import Path

import pytest

from clouduploader import jobxml, spool
from clouduploader.job import Job, JobState


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
        for ending, content in (("", jobxml.serialize(job)), (".log", log), (".data", data), (".file", image)):
            if content is not None:
                (directory / f"{name}{ending}").write_bytes(content)
        return job

    return make


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
