"""`resume`, and `upload` once more, after an upload died."""

import json
import os

import pytest
from samples.job_logs import untimed

from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

POINTS = (
    "asked snapshot", "unreported snapshot", "made", "complete", "asked image", "unreported image", "registered",
)  # fmt: skip


def archived(cloud, name="1"):
    return job_xml.parse((cloud.place / "spool" / "done" / name).read_bytes())


def log(cloud, name="1"):
    return (cloud.place / "spool" / "done" / f"{name}.log").read_text()


@pytest.mark.parametrize("point", POINTS)
def test_dead_job_is_gone_on_with_as_that_job(dead, point):
    cloud = dead(point)
    done = cloud.run("resume", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("image-")
    job = archived(cloud)
    assert (job.state, job.details, job.target) == (JobState.SUCCEEDED, done.stdout.strip(), "file-cloud")
    assert not (cloud.place / "spool" / "1").exists()
    state = cloud.journal().state
    assert {thing.id for thing in state.delivered} >= {done.stdout.strip()}
    # The first request may have made something that did not show yet.
    was_answered = not point.startswith(("asked", "unreported"))
    assert state.is_open == (not was_answered)
    assert (cloud.journal().targetdata() is None) == was_answered
    lines = untimed(log(cloud))
    assert "Going on with the job 1." in lines
    assert len([line for line in lines if line.startswith("Journal: ")]) == 2


@pytest.mark.parametrize("point", ["asked snapshot", "unreported snapshot"])
def test_what_a_success_left_of_earlier_tries_is_removed_by_cleanup(dead, point):
    cloud = dead(point)
    given = cloud.run("resume", "1").stdout.strip()
    cloud.age(120)
    assert cloud.cleanup("--yes").returncode == 0
    assert cloud.kinds() == ["image", "snapshot"]
    assert given in cloud.things()
    assert not cloud.journal().state.is_open


def test_same_command_goes_on_as_well(dead):
    cloud = dead("made")
    (snapshot,) = cloud.things()
    done = cloud.upload()
    assert done.returncode == 0, done.stderr
    assert cloud.kinds() == ["image", "snapshot"]
    assert f"going on with {snapshot}" in log(cloud, "2")


def test_archived_job_is_gone_on_with_while_its_journal_is_open(file_cloud):
    file_cloud.set("fail", "complete")
    assert file_cloud.upload().returncode == 76
    assert archived(file_cloud).state is JobState.FAILED
    file_cloud.set("fail")
    done = file_cloud.run("resume", "1", "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    assert (data["job"], data["shortfalls"]) == ("1", [])
    assert archived(file_cloud).state is JobState.SUCCEEDED
    assert archived(file_cloud).details == data["result"]
    assert "going on with snapshot-" in log(file_cloud)
    assert file_cloud.kinds() == ["image", "snapshot"]


def test_resume_that_fails_says_so_and_can_be_tried_again(dead):
    cloud = dead("made")
    cloud.set("fail", "complete")
    done = cloud.run("resume", "1")
    assert (done.returncode, done.stdout) == (76, "")
    assert "failed at complete" in done.stderr
    assert archived(cloud).details.startswith("failed at complete")
    cloud.set("fail")
    assert cloud.run("resume", "1").returncode == 0
    assert archived(cloud).state is JobState.SUCCEEDED


def test_succeeded_job_is_refused(file_cloud):
    file_cloud.upload()
    done = file_cloud.run("resume", "1")
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr == "clouduploader: the job 1 has succeeded: there is nothing left to do.\n"


def test_failed_job_that_left_nothing_is_refused(file_cloud):
    job = Job(name="1", state=JobState.FAILED, created=0, user="tom", target="file-cloud", filename="a.raw")
    (file_cloud.place / "spool" / "done").mkdir()
    (file_cloud.place / "spool" / "done" / "1").write_bytes(job_xml.serialize(job))
    done = file_cloud.run("resume", "1")
    assert done.returncode == 65
    assert done.stderr == "clouduploader: the job 1 left nothing to go on with. Upload the image again.\n"


def test_job_that_is_not_there_is_refused(file_cloud):
    assert file_cloud.run("resume", "7").returncode == 66


def test_job_whose_image_is_gone_is_refused(dead):
    cloud = dead("made")
    (cloud.place / "a.raw").unlink()
    done = cloud.run("resume", "1")
    assert done.returncode == 66
    assert f"the image of the job 1 is gone: {cloud.place}/a.raw" in done.stderr
    assert job_xml.parse((cloud.place / "spool" / "1").read_bytes()).state is JobState.UPLOADING


def test_job_that_waits_for_its_turn_is_refused(file_cloud, make_job):
    from clouduploader.store import spool

    make_job(spool.Spool(file_cloud.place / "spool"), "5", state=JobState.SCHEDULED)
    done = file_cloud.run("resume", "5")
    assert done.returncode == 65
    assert "the job 5 is scheduled" in done.stderr


def test_live_job_is_refused(dead, make_job):
    cloud = dead("made")
    with (cloud.place / "spool" / "1.log").open("ab"):  # somebody who writes its log
        done = cloud.run("resume", "1")
    assert (done.returncode, done.stdout) == (75, "")
    assert "a process works on the job 1" in done.stderr


def test_job_of_a_host_is_refused(dead):
    from clouduploader.store.spool import Spool, leases

    cloud = dead("made")
    lease = {"attempt": 1, "queue": "uploads", "host": "ada", "since": 1.0, "claim": "0" * 64, "journal": "f" * 32}
    state = leases.LeaseState.CLAIMED
    leases.write(Spool(cloud.place / "spool"), "1", leases.LeaseRecord(state=state, **lease))
    done = cloud.run("resume", "1")
    assert (done.returncode, done.stdout) == (75, "")
    assert "the host ada works on the job 1" in done.stderr


def test_job_of_a_live_journal_is_refused(file_cloud):
    import fcntl

    file_cloud.set("fail", "complete")
    file_cloud.upload()
    with (file_cloud.journal().directory / "journal").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = file_cloud.run("resume", "1")
    assert done.returncode == 75
    assert "the upload of the job 1 lives" in done.stderr


def test_journal_is_found_without_the_log(file_cloud):
    file_cloud.set("fail", "complete")
    file_cloud.upload()
    file_cloud.set("fail")
    (file_cloud.place / "spool" / "done" / "1.log").unlink()
    assert file_cloud.run("resume", "1").returncode == 0


def test_job_of_obs_goes_on_with_what_obs_left(file_cloud):
    place = file_cloud.place / "spool"
    (place / "3.file").write_bytes(b"an image")
    (place / "3.data").write_text('{"region": "here", "user_id": 7}')
    record = (
        "<clouduploadjob><name>3</name><state>uploading</state><user>tom</user><target>file-cloud</target>"
        f"<project>P</project><filename>b.raw</filename><pid>{os.getpid()}</pid></clouduploadjob>"
    )
    (place / "3").write_text(record.replace("<clouduploadjob><name>3</name>", '<clouduploadjob name="3">'))
    file_cloud.set("crash", "made")
    words = ["tom", "file-cloud", place / "3.file", place / "3.data", "b.raw", place / "3.result"]
    assert file_cloud.run(*words).returncode == -9
    file_cloud.set("crash")
    assert file_cloud.journal().state.began["by_hand"] is False
    done = file_cloud.run("resume", "3")
    assert done.returncode == 0, done.stderr
    assert archived(file_cloud, "3").state is JobState.SUCCEEDED
    assert sorted(path.name for path in place.iterdir()) == ["done", "journal"]
