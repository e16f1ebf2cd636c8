"""One worker for each spool, how it is woken, and how it leaves."""

import fcntl
import stat

import pytest
from fakes.worker_bench import HOLD, Bench

from clouduploader.errors import ConfigError, LockedError, MissingFileError, MissingProgramError
from clouduploader.model import job_xml
from clouduploader.model.job import JobState
from clouduploader.worker import control
from clouduploader.worker import lock as worker_lock


@pytest.fixture
def bsdir(bench):
    """OBS's directory, with the one that all its daemons have their fifos in."""
    (bench.jobs.directory.parent / "events").mkdir()
    bench.write_uploader("true")
    return bench.jobs.directory.parent


def test_second_worker_says_so(bench, tmp_path):
    bench.write_uploader("true")
    bench.start()
    (tmp_path / "second").mkdir()
    second = Bench(bench.jobs, tmp_path / "second")
    second.write_uploader("true")
    with pytest.raises(LockedError, match="another worker works on the spool"):
        second.start()
    bench.stop()
    second.start()
    second.stop()


def test_worker_of_obs_is_known_by_its_lock(bench, bsdir):
    (bsdir / "run").mkdir()
    with (bsdir / worker_lock.OBS_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match=r"OBS's worker works on the spool .*bs_clouduploadworker\.lock"):
            bench.start()


def test_worker_of_obs_elsewhere_is_known_by_its_lock(bench, tmp_path):
    bench.write_uploader("true")
    with (tmp_path / "rundir.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bench.set(obs_lock=tmp_path / "rundir.lock")
        with pytest.raises(LockedError, match=r"rundir\.lock"):
            bench.start()


def test_lock_of_obs_is_held(bench, bsdir):
    (bsdir / "run").mkdir()
    bench.start()
    with (bsdir / worker_lock.OBS_LOCK).open("a") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_fifo_is_made_as_obs_does_it(bench, bsdir):
    bench.start()
    status = bench.jobs.ping_path.stat()
    assert stat.S_ISFIFO(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o666


def test_nothing_is_made_outside_a_spool_that_is_not_obs_s(bench):
    bench.write_uploader("true")
    bench.start()
    assert sorted(path.name for path in bench.jobs.directory.parent.iterdir()) == ["cloudupload"]


def test_byte_in_the_fifo_wakes_the_worker(bench, bsdir):
    """A hard link is what inotify is not asked about: only the byte can tell of it."""
    bench.start()
    job = bench.schedule("1", state=JobState.CREATED)
    bench.wait_for(lambda: bench.jobs.job_path("1").exists())
    hidden = bench.jobs.directory / ".hidden"
    hidden.write_bytes(job_xml.serialize(job).replace(b"created<", b"scheduled<").replace(b'"1"', b'"2"'))
    bench.jobs.data_path("2").write_bytes(b"{}")
    bench.jobs.job_path("2").hardlink_to(hidden)
    hidden.unlink()
    bench.jobs.ping_worker()
    bench.wait_for_end("2")


def test_worker_whose_lock_is_gone_ends(bench, bsdir):
    """As after a mount over the spool, of which inotify does not tell."""
    bench.start()
    (bench.jobs.directory / worker_lock.LOCK_NAME).unlink()
    bench.jobs.ping_worker()
    with pytest.raises(MissingFileError, match=r"the lock .*/\.worker\.lock is gone, or another one"):
        bench.join()


def test_drain_starts_nothing_more_and_waits(bench):
    bench.write_uploader(HOLD)
    bench.schedule("1")
    running = bench.start()
    bench.wait_for_event("started", "1")
    running.drain()
    bench.schedule("2")
    bench.release("1")
    bench.join()
    assert bench.job("1").state is JobState.SUCCEEDED
    assert bench.job("2").state is JobState.SCHEDULED
    assert bench.events[-2:] == [("succeeded", "1", ""), ("left", None, "no upload runs")]


def test_leaving_during_a_drain_hands_over(bench):
    bench.write_uploader(HOLD)
    bench.schedule("1")
    running = bench.start()
    bench.wait_for_event("started", "1")
    running.drain()
    running.leave()
    bench.join()
    assert bench.job("1").state is JobState.UPLOADING


def test_request_after_the_end_changes_nothing():
    """As by a second signal."""
    requests = control.WorkerControl()
    requests.close()
    requests.leave()
    requests.reload()


def test_missing_spool_program_and_wrong_settings_are_told_at_the_start(bench):
    with pytest.raises(MissingProgramError, match="uploader is not there"):
        bench.start()
    bench.write_uploader("true")
    bench.set(nonsense=1)
    with pytest.raises(ConfigError, match=r"unknown setting 'nonsense' in \[worker\]"):
        bench.start()


def test_spool_is_made_where_one_can_be(bench):
    bench.write_uploader("true")
    bench.jobs.directory.rmdir()
    bench.start()
    bench.schedule("1")
    bench.wait_for_end("1")
    bench.stop()
    bench.jobs.directory.parent.rename(bench.jobs.directory.parent.with_name("elsewhere"))
    with pytest.raises(MissingFileError, match="there is no spool"):
        bench.start()
