import json

import pytest

from clouduploader.errors import TargetDataError, UnknownTargetError
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import Field
from clouduploader.store import config
from clouduploader.uploads import run as uploads_run
from clouduploader.uploads import target
from clouduploader.uploads.task import UploadTask


@pytest.fixture
def open_target(tmp_path):
    """A function that opens the target of a job, of which neither image nor directory is there."""

    def opened(data=b"{}", **changes):
        job = Job(name="42", state=JobState.SCHEDULED, filename="a.raw.xz")
        fields = {
            "user": "tom",
            "target": "made-up",
            "filename": job.filename,
            "job": job,
            "is_by_hand": False,
        } | changes
        task = UploadTask(image_path=tmp_path / "42.file", targetdata=data, **fields)
        return target.open_target(task, config.load(home=tmp_path / "home", spool=tmp_path, environment={}))

    return opened


def test_server_and_uploader_have_one_key_and_it_tells_no_secret(run, platform, open_target):
    data = {"filename": "b.raw", "password": "open-sesame"}
    opened = open_target(json.dumps(data).encode())
    run(what=uploads_run.run, filename="a.raw.xz", data=json.dumps(data | {"password": "another-one"}).encode())
    assert platform.request.journal.key == opened.key
    assert (opened.filename, opened.data.values, opened.data.secrets) == ("a.raw.xz", data, ("open-sesame",))
    assert "open-sesame" not in repr(opened)


def test_target_data_that_are_wrong_are_refused(platform, open_target):
    with pytest.raises(TargetDataError, match="not JSON"):
        open_target(b"{")
    platform.fields = [Field(name="region", description="Where.", is_required=True)]
    with pytest.raises(TargetDataError, match="region is missing"):
        open_target()
    with pytest.raises(UnknownTargetError):
        open_target(target="nowhere")
