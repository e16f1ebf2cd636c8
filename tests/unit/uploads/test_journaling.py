import dataclasses
import socket
import threading

import pytest
from samples.uploads import JOB

from clouduploader.errors import (
    ConfigError,
    ImageError,
    LockedError,
    StoppedError,
    TargetDataError,
    TransientError,
)
from clouduploader.plugin import (
    CloudObject,
    ObjectCreated,
    ObjectRemoved,
    UploadResult,
)
from clouduploader.store import journal
from clouduploader.store.journal import writer
from clouduploader.store.journal.witness import CONFIRMED, FD_VARIABLE
from clouduploader.uploads import run as uploads_run

IMAGE = CloudObject("image", "ami-1", "here")
SNAPSHOT = CloudObject("snapshot", "snap-1", "here")


def journal_in(tmp_path):
    (found,) = journal.read_all(tmp_path / "journal")
    return found


def test_upload_is_written_down_and_the_log_names_the_journal(run, platform, lines, tmp_path):
    seen = []

    def work(request, reporter, _cancel):
        request.journal.write("asked", kind="image", region="here")
        reporter.event(ObjectCreated(IMAGE))
        reporter.event(ObjectCreated(SNAPSHOT))
        reporter.event(ObjectRemoved(SNAPSHOT))
        seen.append((journal_in(tmp_path), journal_in(tmp_path).targetdata()))
        return UploadResult("ami-1", (IMAGE,))

    platform.work = work
    run(job=JOB, user="caf\udce9", is_by_hand=True)
    ((during, data),) = seen
    assert during.is_live
    assert list(during.state.objects) == [IMAGE]
    assert during.state.asked == ()
    assert data == b"{}"
    began = during.state.began
    assert (began["job"], began["user"], began["target"], began["filename"], began["image"], began["by_hand"]) == (
        "42", "caf\udce9", "made-up", "from-the-job.raw.xz", str(tmp_path / "42.file"), True,
    )  # fmt: skip
    assert began["work_dir"] == str(platform.request.work_dir)
    found = journal_in(tmp_path)
    assert f"Journal: {found.key}" in lines
    assert not found.is_live
    assert not found.state.is_open
    assert (found.state.end["outcome"], found.state.end["result"]) == ("succeeded", "ami-1")
    assert found.state.delivered == {IMAGE}


def test_next_try_of_the_same_upload_has_the_same_journal(run, platform):
    keys = []
    platform.work = lambda request, _reporter, _cancel: (keys.append(request.journal.key), UploadResult("ami-1"))[1]
    run(job=JOB)
    run(job=dataclasses.replace(JOB, name="43"), data=b'{"user_id": 7, "password": "open-sesame", "filename": null}')
    run(job=JOB, user="other")
    run(job=JOB, data=b'{"filename": "a.raw"}')
    run(job=JOB, filename="a.raw")
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4


@pytest.mark.parametrize(
    ("error", "outcome"), [(ImageError("x"), "failed"), (StoppedError(15), "stopped"), (KeyError("x"), "failed")]
)
def test_end_of_a_failure_is_written_down(run, platform, tmp_path, error, outcome):
    def work(_request, reporter, _cancel):
        reporter.event(ObjectCreated(SNAPSHOT))
        raise error

    platform.work = work
    with pytest.raises(type(error)):
        run()
    found = journal_in(tmp_path)
    assert found.state.end["outcome"] == outcome
    assert list(found.state.objects) == [SNAPSHOT]
    assert found.state.is_open


def test_same_upload_is_refused_while_it_runs(run, platform, monkeypatch):
    monkeypatch.setattr(writer, "LOCK_SECONDS", 0.1)

    def work(_request, _reporter, _cancel):
        with pytest.raises(LockedError, match="the job 42"):
            run(job=dataclasses.replace(JOB, name="43"))
        return UploadResult("ami-1")

    platform.work = work
    assert run(job=JOB).id == "ami-1"


def test_upload_goes_on_without_a_state_directory(run, platform, lines, tmp_path):
    (tmp_path / "journal").touch()
    seen = []

    def work(request, _reporter, _cancel):
        request.journal.write("mine")
        seen.extend(request.journal.entries())
        (request.journal.directory / "ledger").touch()
        seen.append(request.journal.directory)
        return UploadResult("ami-1")

    platform.work = work
    run()
    assert [entry["what"] for entry in seen[:-1]] == ["begin", "mine"]
    assert not seen[-1].exists()
    assert any(line.endswith("if this upload is killed, it can't be resumed.") for line in lines)
    assert not any(line.startswith("Journal: ") for line in lines)


def test_job_of_another_spool_has_its_journal_there(run, platform, tmp_path):
    (tmp_path / "other").mkdir()
    run(job=JOB, image="other/42.file")
    assert len(list(journal.read_all(tmp_path / "other" / "journal"))) == 1
    assert not (tmp_path / "journal").exists()


def test_nothing_is_written_down_of_an_upload_that_cannot_begin(run, platform, tmp_path):
    for data in (b"{", b'{"filename": 7}', b"\xff"):
        with pytest.raises(TargetDataError):
            run(data=data)
    run(what=uploads_run.plan)
    assert not (tmp_path / "journal").exists()


@pytest.fixture
def witness():
    """An environment with a witness, which confirms whatever it is asked."""
    ours, theirs = socket.socketpair()

    def confirm():
        while theirs.recv(1):
            theirs.sendall(CONFIRMED)

    thread = threading.Thread(target=confirm)
    thread.start()
    with theirs:
        with ours:
            yield {FD_VARIABLE: str(ours.fileno())}
        thread.join()


def test_target_data_do_not_lie_where_there_is_a_witness(run, platform, tmp_path, witness):
    def work(request, _reporter, _cancel):
        request.journal.write("mine")
        assert journal_in(tmp_path).targetdata() is None
        return UploadResult("ami-1")

    platform.work = work
    run(environment=witness, data=b'{"password": "open-sesame"}')
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sesame" in path.read_bytes()]
    assert journal_in(tmp_path).state.has_succeeded


def test_there_is_no_private_journal_where_there_is_a_witness(run, platform, tmp_path, witness):
    (tmp_path / "journal").touch()
    with pytest.raises(TransientError, match=r"the journal .* can't be written") as caught:
        run(environment=witness)
    assert caught.value.hint == "Another host may have room for it."
    assert platform.request is None


def test_wrong_witness_is_refused_before_anything_is_done(run, platform):
    with pytest.raises(ConfigError, match=FD_VARIABLE):
        run(environment={FD_VARIABLE: "x"})
    assert platform.request is None
