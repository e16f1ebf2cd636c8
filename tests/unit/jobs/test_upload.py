import os
import signal
from pathlib import Path

import pytest
from samples.job_logs import untimed

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ConfigError,
    ImageError,
    MissingFileError,
    StoppedError,
    TargetDataError,
    UnknownTargetError,
)
from clouduploader.jobs import upload
from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.store import config
from clouduploader.store.job_log import JobLog
from clouduploader.util.cancel import Cancel


@pytest.fixture
def place(tmp_path):
    """A spool, a home for the platform `directory`, and an image."""
    for name in ("images", "spool"):
        (tmp_path / name).mkdir()
    (tmp_path / "clouduploader.conf").write_text(f"[directory]\npath = {tmp_path}/images\n")
    (tmp_path / "a.raw").write_bytes(b"an image")
    return tmp_path


def order(place, **changes):
    fields = {"user": "tom", "target": "directory", "image_path": place / "a.raw", "targetdata": b"{}"}
    return upload.ManualUpload(**fields | {"events_path": None} | changes)


def settings(place):
    return config.load(home=place, spool=place / "spool", environment={})


def run(place, *, cancel=None, watch=lambda _job, _log: None, **changes):
    return upload.run(
        order(place, **changes),
        config=settings(place),
        cancel=cancel or Cancel(),
        sinks=[],
        is_verbose=False,
        watch=watch,
    )


def archived(place):
    return job_xml.parse((place / "spool" / "done" / "1").read_bytes())


def test_job_is_in_the_spool_while_it_runs_and_archived_afterwards(place):
    seen = []

    def watch(job, _log):
        seen.append(
            (job, job_xml.parse((place / "spool" / "1").read_bytes()), (place / "spool" / "1.data").read_bytes())
        )

    outcome = run(place, watch=watch, targetdata=b'{"filename": "b.raw"}')
    job, written, data = seen[0]
    assert job == written
    assert (job.state, job.user, job.target, job.filename, job.size) == ("uploading", "tom", "directory", "a.raw", 8)
    assert job.pid == os.getpgrp()
    assert data == b'{"filename": "b.raw"}'
    assert outcome.result.id == f"{place}/images/a.raw"
    assert outcome.job == archived(place)
    assert (outcome.job.state, outcome.job.details, outcome.job.pid) == (JobState.SUCCEEDED, outcome.result.id, None)
    assert sorted(path.name for path in (place / "spool").iterdir()) == ["done", "journal", "next"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"target": "nowhere"}, UnknownTargetError),
        ({"targetdata": b"{"}, TargetDataError),
        ({"targetdata": b'{"filename": "a/b"}'}, TargetDataError),
        ({"image_path": Path("/")}, ImageError),
        ({"image_path": Path("/dev/null")}, ImageError),
        ({"events_path": Path("/none/events")}, CannotCreateError),
    ],
)
def test_wrong_order_makes_no_job(place, changes, error):
    with pytest.raises(error):
        run(place, **changes)
    assert list((place / "spool").iterdir()) == []


def test_failure_is_archived_and_logged(place):
    (place / "images").rmdir()
    with pytest.raises(ConfigError) as caught:
        run(place)
    job = archived(place)
    assert job.state is JobState.FAILED
    assert caught.value.message.rstrip(".") in job.details
    assert "\n" not in job.details
    assert f"Error: {job.details}" in untimed((place / "spool" / "done" / "1.log").read_text())


def test_stop_is_archived_with_the_word_of_obs(place):
    cancel = Cancel()
    with pytest.raises(StoppedError):
        run(place, cancel=cancel, watch=lambda _job, _log: cancel.request(signal.SIGTERM))
    assert (archived(place).state, archived(place).details) == (JobState.FAILED, "killed")


def test_bug_is_archived_too(place):
    def watch(_job, log):
        log.hide("sesame")
        raise KeyError("open sesame")

    with pytest.raises(KeyError):
        run(place, watch=watch)
    assert (archived(place).state, archived(place).details) == (JobState.FAILED, "bug: KeyError.")
    log = (place / "spool" / "done" / "1.log").read_text()
    assert "Traceback" in log
    assert "sesame" not in log


def test_delivered_image_is_a_success_whatever_becomes_of_the_job(place):
    outcome = run(place, watch=lambda _job, _log: (place / "spool" / "done").write_text("no directory"))
    assert outcome.result.id == f"{place}/images/a.raw"
    assert outcome.warning.startswith("the job 1 can't be archived: ")


def test_reason_of_a_failure_is_told_even_if_the_job_can_not_be_archived(place):
    (place / "images").rmdir()
    with pytest.raises(ConfigError):
        run(place, watch=lambda _job, _log: (place / "spool" / "done").write_text("no directory"))
    assert f"Warning: the job 1 can't be archived: {place}" in (place / "spool" / "1.log").read_text()


def test_job_that_somebody_archived_meanwhile_stays_as_it_is(place):
    def watch(_job, _log):
        for path in (place / "spool").iterdir():
            if path.name != "next":
                path.unlink()
        (place / "images").rmdir()

    with pytest.raises(ClouduploaderError):
        run(place, watch=watch)
    assert not (place / "spool" / "done" / "1").exists()


def test_image_that_is_not_there_makes_no_job(place):
    with pytest.raises(MissingFileError, match=r"there is no image .*none\.raw"):
        run(place, image_path=place / "none.raw")
    assert not (place / "spool" / "1").exists()
    assert not (place / "spool" / "done").exists()


def test_spool_that_is_not_there_is_an_error(place):
    (place / "spool").rmdir()
    with pytest.raises(MissingFileError, match="there is no spool"):
        run(place)


def check(place, **changes):
    log = JobLog([], is_verbose=False)
    return upload.check(order(place, **changes), config=settings(place), log=log, cancel=Cancel())


def test_check_gives_the_steps_and_changes_nothing(place):
    assert check(place).steps == (f"copy the image to {place}/images/a.raw",)
    assert list((place / "spool").iterdir()) == []
    assert list((place / "images").iterdir()) == []


def test_check_fails_as_the_upload_would(place):
    (place / "images").rmdir()
    with pytest.raises(ConfigError):
        check(place)


def test_order_does_not_show_its_target_data(place):
    assert "sesame" not in repr(order(place, targetdata=b"sesame"))
