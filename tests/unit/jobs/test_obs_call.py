import io
import json
import os
import signal
from pathlib import Path

import pytest

from clouduploader.errors import CannotCreateError, ConfigError, MissingFileError, StoppedError
from clouduploader.jobs import obs_call
from clouduploader.jobs import progress as jobs_progress
from clouduploader.model import job_xml as model_job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import config
from clouduploader.store.job_log import JobLog
from clouduploader.util.cancel import Cancel


@pytest.fixture
def images(tmp_path):
    """Where the platform `directory` puts images."""
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def run(tmp_path, images):
    """A function that runs a job of OBS's for the platform `directory`; its attribute `log` is the job's."""

    def run_job(
        *, settings="", cancel=None, upload_name="7.file", filename=None, result_path=None, job_xml=None, data=b"{}"
    ):
        spool = tmp_path / "spool"
        spool.mkdir()
        (tmp_path / "clouduploader.conf").write_text(f"{settings}\n[directory]\npath = {images}\n")
        (spool / upload_name).write_bytes(b"an image")
        if data is not None:
            (spool / "7.data").write_bytes(data)
        if job_xml is not None:
            (spool / "7").write_bytes(job_xml)
        return obs_call.run(
            config=config.load(home=tmp_path, spool=tmp_path / "other", environment={}),
            log=JobLog([run_job.log], is_verbose=True),
            cancel=cancel or Cancel(),
            user="tom",
            target="directory",
            upload_path=spool / upload_name,
            targetdata_path=spool / "7.data",
            filename=filename,
            result_path=result_path,
        )

    run_job.log = io.BytesIO()
    return run_job


def job_xml(**fields):
    return model_job_xml.serialize(Job(name="7", state=JobState.UPLOADING, **fields))


def test_result_is_written_and_returned(run, images, tmp_path):
    result = run(filename="a.raw", result_path=tmp_path / "7.result")
    assert result.id == f"{images}/a.raw"
    assert (tmp_path / "7.result").read_text() == result.id


def test_result_is_not_written_where_the_caller_tells_it(run, tmp_path):
    assert run(filename="a.raw").id.endswith("/a.raw")
    assert not list(tmp_path.rglob("*.result"))


def test_record_of_the_spool_beside_the_image_is_used(run, images):
    assert run(job_xml=job_xml(filename="of-the-job.raw")).id == f"{images}/of-the-job.raw"


@pytest.mark.parametrize("text", [None, b"<broken", job_xml(filename="x.raw").replace(b"7", b"8")])
def test_record_that_cannot_be_used_is_done_without(run, images, text):
    assert run(job_xml=text).id == f"{images}/7.file"
    assert b"The job's file can't be used" in run.log.getvalue()


def test_image_that_is_no_job_needs_no_record(run, images):
    assert run(upload_name="my.raw").id == f"{images}/my.raw"
    assert b"can't be used" not in run.log.getvalue()


@pytest.mark.parametrize("has_job", [True, False])
def test_events_are_called_after_the_job_or_the_process(run, tmp_path, has_job):
    name = "7" if has_job else os.getpid()
    run(settings=f"[clouduploader]\nevents = {tmp_path}/{{job}}.json", job_xml=job_xml() if has_job else None)
    first, *_, last = (tmp_path / f"{name}.json").read_text().splitlines()
    assert json.loads(first)["job"] == ("7" if has_job else None)
    assert json.loads(last)["outcome"] == "succeeded"


def test_failure_writes_no_result(run, images, tmp_path):
    images.rmdir()
    with pytest.raises(ConfigError):
        run(result_path=tmp_path / "7.result")
    assert not (tmp_path / "7.result").exists()


def test_missing_target_data_are_told(run):
    with pytest.raises(MissingFileError, match=r"there are no target data .*7\.data"):
        run(data=None)


def test_stop_writes_no_result(run, images, tmp_path):
    cancel = Cancel()
    cancel.request(signal.SIGTERM)
    with pytest.raises(StoppedError):
        run(cancel=cancel, result_path=tmp_path / "7.result")
    assert not (tmp_path / "7.result").exists()
    assert list(images.iterdir()) == []


def test_result_without_a_directory_is_an_error_before_the_upload(run, images, tmp_path):
    with pytest.raises(CannotCreateError, match="there is no directory"):
        run(result_path=tmp_path / "none" / "7.result")
    assert list(images.iterdir()) == []


@pytest.mark.parametrize("lay", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_result_in_the_place_of_what_is_no_file_is_an_error_before_the_upload(run, images, tmp_path, lay):
    lay(tmp_path / "7.result")
    before = (tmp_path / "7.result").lstat()
    with pytest.raises(CannotCreateError, match=r"the result .* can't be written: "):
        run(result_path=tmp_path / "7.result")
    assert (tmp_path / "7.result").lstat() == before
    assert list(images.iterdir()) == []


def test_delivered_image_is_a_success_whatever_becomes_of_the_result(run, images, tmp_path):
    path = tmp_path / ("x" * 255)  # what is written beside it has a longer name
    assert run(filename="a.raw", result_path=path).id == f"{images}/a.raw"
    assert b"Warning: the image is delivered, but the result" in run.log.getvalue()


@pytest.mark.parametrize("is_archived", [True, False])
def test_signal_after_the_delivery_loses_no_result(run, images, tmp_path, is_archived):
    """Unless the job is archived: then whoever killed it takes nothing away any more."""
    cancel = Cancel()
    record = tmp_path / "spool" / "7"

    class Killer(io.BytesIO):
        def write(self, data):
            if data.startswith(b"Upload took"):
                cancel.request(signal.SIGTERM)
                if is_archived:
                    record.unlink()
            return super().write(data)

    run.log = Killer()
    path = tmp_path / "spool" / "7.result"
    run(cancel=cancel, filename="a.raw", result_path=path, job_xml=job_xml())
    assert (images / "a.raw").exists()
    assert path.exists() != is_archived


@pytest.mark.parametrize(("group", "progress"), [(os.getpgrp, 100), (lambda: 1, None)])
def test_progress_stands_in_the_record_if_it_names_our_group(run, tmp_path, monkeypatch, group, progress):
    monkeypatch.setattr(jobs_progress, "INTERVAL_SECONDS", 0.0)
    run(job_xml=job_xml(pid=group()))
    assert model_job_xml.parse((tmp_path / "spool" / "7").read_bytes()).progress == progress
