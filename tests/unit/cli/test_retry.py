"""`retry`: a job that failed, or that waits, once more."""

import json
import os

import pytest

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import keyring


def job(cloud, name):
    return job_xml.parse((cloud.place / "spool" / "done" / name).read_bytes())


@pytest.fixture
def failed(file_cloud):
    """A cloud in which the job 1 has failed, and no more would."""
    file_cloud.set("fail", "complete")
    assert file_cloud.upload().returncode == 76
    file_cloud.set("fail")
    return file_cloud


def test_failed_upload_is_done_again_as_a_new_job(failed):
    done = failed.run("retry", "1", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    assert (data["job"], job(failed, "2").details) == ("2", data["result"])
    assert (job(failed, "1").state, job(failed, "2").state) == (JobState.FAILED, JobState.SUCCEEDED)
    assert (job(failed, "2").user, job(failed, "2").target) == (job(failed, "1").user, "file-cloud")
    assert failed.kinds() == ["image", "snapshot"]
    assert failed.journal().targetdata() is None
    again = failed.run("retry", "1")
    assert (again.returncode, again.stdout) == (65, "")
    assert "was run again as the job 2" in again.stderr


def test_clean_up_keeps_no_job_from_being_run_again(failed):
    assert failed.cleanup("--yes", "--completed").returncode == 0
    assert failed.kinds() == []
    assert failed.run("retry", "1").returncode == 0
    assert failed.kinds() == ["image", "snapshot"]


def test_secret_that_is_kept_for_another_try_is_encrypted(file_cloud):
    keyring.Keyring(file_cloud.place / "home", os.environ).rsa.generate()
    (file_cloud.place / "password").write_text("open-sesame-1001")
    file_cloud.set("fail", "complete")
    assert file_cloud.upload("--password-file", file_cloud.place / "password").returncode == 76
    (file_cloud.place / "password").unlink()
    file_cloud.set("fail")
    assert file_cloud.journal().targetdata() is not None
    kept = [path.read_bytes() for path in file_cloud.place.rglob("*") if path.is_file()]
    assert not [data for data in kept if b"open-sesame" in data]
    assert file_cloud.run("retry", "1").returncode == 0


def test_secret_is_kept_for_another_try_where_the_home_could_not_decrypt_it_again(file_cloud):
    keys = keyring.Keyring(file_cloud.place / "home", os.environ).rsa
    keys.generate()
    keys.secret_path.unlink()
    (file_cloud.place / "password").write_text("open-sesame-1001")
    file_cloud.set("fail", "complete")
    assert file_cloud.upload("--password-file", file_cloud.place / "password").returncode == 76
    file_cloud.set("fail")
    assert file_cloud.run("retry", "1").returncode == 0


@pytest.mark.parametrize("change", ["content", "size", "gone"])
def test_other_image_is_not_uploaded_in_its_place(failed, change):
    image = failed.place / "a.raw"
    times = image.stat().st_mtime_ns
    if change == "gone":
        image.unlink()
    else:
        image.write_bytes(b"an image of another size" if change == "size" else b"no image")
        if change == "size":
            os.utime(image, ns=(times, times))
    done = failed.run("retry", "1")
    assert (done.returncode, done.stdout) == ((66 if change == "gone" else 65), "")
    assert ("is gone" if change == "gone" else "is not the one of the job 1 any more") in done.stderr
    assert not (failed.place / "spool" / "done" / "2").exists()


def test_job_that_waits_is_scheduled(file_cloud):
    record = file_cloud.place / "spool" / "7"
    waiting = Job(name="7", state=JobState.WAITING, details="try 2 of 5 at ...", try_=2, user="tom", target="ec2")
    record.write_bytes(job_xml.serialize(waiting))
    done = file_cloud.run("retry", "7", "--json")
    assert (done.returncode, json.loads(done.stdout)["data"]) == (0, {"job": "7", "state": "scheduled"})
    found = job_xml.parse(record.read_bytes())
    assert (found.state, found.details, found.try_) == (JobState.SCHEDULED, None, 2)


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        (JobState.UPLOADING, 65, "`clouduploader resume` goes on with it"),
        (JobState.SCHEDULED, 65, "it is about to run"),
        (JobState.RECEIVING, 65, "it is about to run"),
        (JobState.SUCCEEDED, 65, "the job 7 has succeeded: there is nothing left to do"),
        (JobState.FAILED, 66, "image and the target data of the job 7 are gone. Hand the image in again"),
        (None, 66, "there is no job 7"),
    ],
)
def test_what_can_not_be_run_again_is_told(file_cloud, state, code, words):
    spool = file_cloud.place / "spool"
    if state:
        directory = spool / "done" if state.is_final else spool
        directory.mkdir(exist_ok=True)
        (directory / "7").write_bytes(job_xml.serialize(Job(name="7", state=state, user="tom", target="ec2")))
    before = sorted(path.name for path in spool.rglob("*"))
    done = file_cloud.run("retry", "7")
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert sorted(path.name for path in spool.rglob("*")) == before
