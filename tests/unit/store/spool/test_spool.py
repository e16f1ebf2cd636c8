import concurrent.futures
import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from clouduploader.errors import (
    CannotCreateError,
    JobFileError,
    LocalIOError,
    LockedError,
    MissingFileError,
    NoSuchJobError,
)
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import spool
from clouduploader.store.spool import records

UPLOADING = Job(name="7", state=JobState.UPLOADING, user="tom", target="ec2", pid=4711)
KILLED = UPLOADING.ended(JobState.FAILED, "killed")
NOBODY = (65534, 65534)
FILES = ("7", "7.data", "7.file", "7.log", "7.result")


def fill(jobs):
    """Put the job 7 into a spool, with every file that a job can have."""
    for file_name in FILES:
        (jobs.directory / file_name).write_text(f"content of {file_name}")
    (jobs.directory / "7").write_bytes(job_xml.serialize(UPLOADING))
    inner = jobs.directory / "7.dir" / "sub"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (jobs.directory / "7.dir" / "link").symlink_to(jobs.directory.parent)


def everything(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def run_python(code, *arguments):
    """Start another process; it says `ready` when it is, and is stopped by the end of its input."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


LOCK_AND_WAIT = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def test_names_are_those_of_digits(make_spool):
    jobs = make_spool()
    for name in ("1", "12", "12.log", "next", ".13.new", "x1", "1\n", "٣"):
        (jobs.directory / name).touch()
    assert jobs.archived_names() == []
    (jobs.directory / "done").mkdir()
    for name in ("3", "3.log", ".4new"):
        (jobs.directory / "done" / name).touch()
    assert sorted(jobs.running_names()) == ["1", "12"]
    assert jobs.archived_names() == ["3"]


def test_missing_spool_is_named_with_a_hint(tmp_path):
    jobs = spool.Spool(tmp_path / "none")
    with pytest.raises(MissingFileError, match=r"there is no spool .*none") as caught:
        jobs.running_names()
    assert "--spool" in caught.value.hint
    with pytest.raises(MissingFileError):
        jobs.allocate()
    with pytest.raises(MissingFileError):
        jobs.register(UPLOADING, targetdata=b"{}", image_path=tmp_path / "image")
    with pytest.raises(NoSuchJobError, match="none"):
        jobs.read("1")


def test_running_job_is_read_before_its_archive(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED)
    assert jobs.read("1")[0].state is JobState.FAILED
    assert jobs.read("1")[1]
    make_job(jobs, "1", state=JobState.UPLOADING)
    assert jobs.read("1")[0].state is JobState.UPLOADING
    assert not jobs.read("1")[1]


def test_damaged_job_is_read_from_its_archive(make_spool, make_job):
    jobs = make_spool()
    jobs.job_path("1").write_text("<cloudup")
    with pytest.raises(JobFileError, match=r"/1 is damaged: line 1 is not XML"):
        jobs.read("1")
    make_job(jobs, "1", state=JobState.FAILED)
    assert jobs.read("1") == (job_xml.parse(jobs.done_path("1").read_bytes()), True)


@pytest.mark.parametrize("name", ["2", "", "..", "../1", "next", "1.log", "-1", "1\n", "٣", "9" * 300, "a\udcff"])
def test_unknown_job_is_reported(name, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    with pytest.raises(NoSuchJobError):
        jobs.read(name)
    with pytest.raises(NoSuchJobError), jobs.lock(name):
        pass


def test_file_of_another_job_is_damage(make_spool):
    jobs = make_spool()
    jobs.job_path("8").write_bytes(job_xml.serialize(UPLOADING))
    with pytest.raises(JobFileError, match="it holds the job 7"):
        jobs.read("8")
    with pytest.raises(JobFileError), jobs.lock("8"):
        pass


def test_unreadable_job_is_an_error_of_its_own(make_spool):
    jobs = make_spool()
    jobs.job_path("1").mkdir()
    with pytest.raises(LocalIOError, match="Is a directory"):
        jobs.read("1")
    os.mkfifo(jobs.job_path("2"))
    with pytest.raises(LocalIOError, match="it is not a regular file"):
        jobs.read("2")
    jobs.job_path("3").write_bytes(b"<" * (records.MAX_JOB_BYTES + 1))
    with pytest.raises(JobFileError, match="larger than 10000000 bytes"):
        jobs.read("3")


def test_large_job_is_read_whole(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SUCCEEDED, details="x" * (2 * records.READ_BYTES))
    assert len(jobs.read("1")[0].details) == 2 * records.READ_BYTES


def test_lock_of_another_process_is_respected(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    with run_python(LOCK_AND_WAIT, jobs.job_path("1")) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(LockedError), spool.Spool(jobs.directory, lock_timeout_seconds=0).lock("1"):
            pass
        assert jobs.read("1")[0].name == "1"
        other.stdin.close()
        with jobs.lock("1") as locked:
            assert locked.job.name == "1"


def test_our_lock_is_seen_by_another_process(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    with jobs.lock("1"), run_python(LOCK_AND_WAIT, jobs.job_path("1")) as other:
        other.stdin.close()
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
        other.kill()
    with spool.Spool(jobs.directory, lock_timeout_seconds=0).lock("1") as locked:
        assert locked.job.name == "1"


def test_lock_waits_for_the_file_that_has_the_name(make_spool, make_job):
    """Somebody replaces the job while we wait: the lock on the old file is worth nothing."""
    jobs = make_spool()
    make_job(jobs, "1", details="old")
    seen = []

    def lock():
        with jobs.lock("1") as locked:
            seen.append(locked.job.details)
            with jobs.job_path("1").open() as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with jobs.job_path("1").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiter = threading.Thread(target=lock)
        waiter.start()
        time.sleep(3 * spool.LOCK_POLL_SECONDS)
        new_path = jobs.directory / "tmp"
        new_path.write_bytes(jobs.job_path("1").read_bytes().replace(b"old", b"new"))
        new_path.replace(jobs.job_path("1"))
    waiter.join()
    assert seen == ["new"]


def test_lock_of_a_job_archived_meanwhile_says_so(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    errors = []

    def lock():
        with pytest.raises(NoSuchJobError) as caught, jobs.lock("1"):
            pass
        errors.append(caught.value)

    with jobs.lock("1") as locked:
        waiter = threading.Thread(target=lock)
        waiter.start()
        time.sleep(3 * spool.LOCK_POLL_SECONDS)
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    waiter.join()
    assert len(errors) == 1
    assert jobs.read("1")[1]


def test_replaced_job_has_obs_bytes_and_mode(make_spool, make_job):
    jobs = make_spool()
    job = make_job(jobs, "1", state=JobState.SCHEDULED)
    jobs.job_path("1").chmod(0o600)
    with jobs.lock("1") as locked:
        locked.replace(Job(name="1", state=JobState.UPLOADING, user=job.user, pid=7))
    assert jobs.job_path("1").read_text() == (
        '<clouduploadjob name="1">\n  <state>uploading</state>\n  <user>tom</user>\n  <pid>7</pid>\n</clouduploadjob>\n'
    )
    assert stat.S_IMODE(jobs.job_path("1").stat().st_mode) == 0o640
    assert everything(jobs.directory) == {"1"}


def test_archived_job_leaves_its_xml_and_log_alone(make_spool):
    jobs = make_spool()
    fill(jobs)
    (jobs.directory / ".7.file4711").touch()  # belongs to a sender, not to a job that uploads
    outside = jobs.directory.parent / "outside"
    outside.write_text("stays")
    with jobs.lock("7") as locked:
        locked.archive(KILLED)
    assert everything(jobs.directory) == {"done", "done/7", "done/7.log", ".7.file4711"}
    assert jobs.read("7") == (KILLED, True)
    assert jobs.done_log_path("7").read_text() == "content of 7.log"
    assert outside.read_text() == "stays"


def test_archived_receiving_job_loses_what_was_received(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "3", state=JobState.RECEIVING, pid=4711)
    (jobs.directory / ".3.file4711").touch()
    with jobs.lock("3") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    assert everything(jobs.directory) == {"done", "done/3"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_archive_removes_what_stands_for_the_directory(kind, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    target = jobs.directory.parent / "target"
    target.mkdir()
    (target / "stays").touch()
    if kind == "file":
        jobs.work_dir("1").touch()
    else:
        jobs.work_dir("1").symlink_to(target)
    with jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    assert everything(jobs.directory) == {"done", "done/1"}
    assert (target / "stays").exists()


def test_uploader_that_goes_on_writing_does_not_keep_its_job(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    jobs.work_dir("1").mkdir()
    is_over = threading.Event()

    def write():
        count = 0
        while not is_over.is_set():
            count += 1
            with contextlib.suppress(FileNotFoundError):
                (jobs.work_dir("1") / str(count)).touch()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with jobs.lock("1") as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    finally:
        is_over.set()
        writer.join()
    assert jobs.read("1")[1]
    assert not jobs.job_path("1").exists()


def test_archive_that_cannot_be_written_leaves_the_job(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", log=b"log")
    (jobs.directory / "done").touch()
    with pytest.raises(CannotCreateError), jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    assert jobs.read("1")[0].state is JobState.UPLOADING
    assert jobs.log_path("1").read_bytes() == b"log"
    with pytest.raises(LocalIOError):
        jobs.archived_names()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and nothing keeps root out")
@pytest.mark.parametrize("is_ours", [True, False])
def test_directory_that_was_made_read_only_does_not_keep_its_job(make_spool, make_job, let_all_enter, is_ours):
    jobs = make_spool()
    make_job(jobs, "1", log=b"log")
    inner = jobs.work_dir("1") / "a/b"
    inner.mkdir(parents=True)
    (inner / "c").touch()
    let_all_enter(jobs.directory)
    for path in (jobs.directory, *(jobs.directory.rglob("*") if is_ours else ())):
        os.chown(path, *NOBODY)
    for path in (inner, inner.parent):
        path.chmod(0o500)

    def archive():
        with jobs.lock("1") as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))

    assert as_nobody(archive)
    assert (jobs.read("1")[0].details, jobs.job_path("1").exists()) == ("killed", False)
    assert jobs.work_dir("1").exists() != is_ours


def as_nobody(act):
    """Do something in a process without root's rights; return whether there was no error."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setgid(NOBODY[1])
            os.setuid(NOBODY[0])
            act()
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away; others have nothing to give")
def test_files_of_root_belong_to_the_owner_of_the_spool(make_spool, make_job, let_all_enter):
    jobs = make_spool()
    make_job(jobs, "1", log=b"")
    let_all_enter(jobs.directory)
    os.chown(jobs.directory, 65534, 65534)
    with jobs.lock("1") as locked:
        locked.archive(locked.job.ended(JobState.FAILED, "killed"))
    jobs.allocate()
    owners = {path.name: path.stat().st_uid for path in (jobs.done_dir, jobs.done_path("1"), jobs.directory / "next")}
    assert owners == {"done": 65534, "1": 65534, "next": 65534}


def test_allocated_ids_go_on_from_the_counter(make_spool):
    jobs = make_spool()
    (jobs.directory / "next").write_bytes(job_xml.serialize_next(41))
    assert [jobs.allocate(), jobs.allocate()] == ["41", "42"]
    assert (jobs.directory / "next").read_text() == '<clouduploadjob name="43" />\n'


def test_allocated_id_is_above_every_job(make_spool, make_job):
    jobs = make_spool()
    assert jobs.allocate() == "1"
    make_job(jobs, "9")
    assert jobs.allocate() == "10"
    make_job(jobs, "30", state=JobState.FAILED)
    assert jobs.allocate() == "31"
    assert everything(jobs.directory) == {"9", "done", "done/30", "next"}


def test_damaged_counter_is_reported_with_a_hint(make_spool):
    jobs = make_spool()
    (jobs.directory / "next").touch()
    with pytest.raises(JobFileError, match="next is damaged") as caught:
        jobs.allocate()
    assert "Remove it" in caught.value.hint


ALLOCATE = """
import pathlib, sys
from clouduploader.store import spool
jobs = spool.Spool(pathlib.Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
print(*[jobs.allocate() for _ in range(20)])
"""


def test_allocated_ids_of_several_processes_differ(make_spool):
    jobs = make_spool()
    processes = [run_python(ALLOCATE, jobs.directory) for _ in range(3)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 3
    for process in processes:
        process.stdin.close()
    numbers = []
    for process in processes:
        with process:
            numbers += map(int, process.stdout.read().split())
    assert sorted(numbers) == list(range(1, 61))


def test_registered_job_is_complete(make_spool, tmp_path):
    jobs = make_spool()
    image_path = tmp_path / "image.raw"
    image_path.write_bytes(b"image")
    with jobs.register(UPLOADING, targetdata=b'{"key": "secret"}', image_path=image_path) as log:
        assert jobs.read("7") == (UPLOADING, False)
        assert stat.S_IMODE(jobs.data_path("7").stat().st_mode) == 0o600
        assert jobs.data_path("7").read_bytes() == b'{"key": "secret"}'
        assert jobs.file_path("7").readlink() == image_path
        log.write(b"line\n")
        assert jobs.log_path("7").read_bytes() == b"line\n"
        with jobs.log_path("7").open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert everything(jobs.directory) == {"7", "7.data", "7.file", "7.log"}


def test_log_is_appended_to(make_spool):
    jobs = make_spool()
    jobs.log_path("7").write_bytes(b"before\n")
    with jobs.open_log("7") as log:
        log.write(b"after\n")
    assert jobs.log_path("7").read_bytes() == b"before\nafter\n"


def test_log_of_a_living_uploader_is_replaced(make_spool):
    jobs = make_spool()
    with jobs.open_log("7") as old, jobs.open_log("7") as new:
        old.write(b"old\n")
        new.write(b"new\n")
        assert jobs.log_path("7").read_bytes() == b"new\n"
    assert everything(jobs.directory) == {"7.log"}


def test_log_that_is_only_looked_at_stays(make_spool):
    jobs = make_spool()
    path = jobs.log_path("7")
    path.write_bytes(b"before\n")
    looking = path.open("rb")
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `processes.is_locked` does
    threading.Timer(0.02, looking.close).start()
    with jobs.open_log("7") as log:
        log.write(b"after\n")
    assert path.read_bytes() == b"before\nafter\n"


def test_worker_is_woken_by_its_fifo(make_spool):
    jobs = make_spool()
    jobs.ping_worker()  # no fifo: nothing to do
    fifo = jobs.directory.parent / "events" / "clouduploadworker" / ".ping"
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    jobs.ping_worker()  # nobody reads: as before
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    jobs.ping_worker()
    assert os.read(descriptor, 10) == b"x"
    os.close(descriptor)


@pytest.mark.parametrize("is_link", [False, True])
def test_file_in_the_place_of_the_fifo_is_left_alone(make_spool, tmp_path, is_link):
    jobs = make_spool()
    file = tmp_path / "file"
    file.write_text("content")
    jobs.ping_path.parent.mkdir(parents=True)
    if is_link:
        jobs.ping_path.symlink_to(file)
    else:
        jobs.ping_path.hardlink_to(file)
    jobs.ping_worker()
    assert file.read_text() == "content"


# Runs one action again and again, each time on a copy of the same spool, and each time it comes one
# system call further: then the process dies, or the call fails. Audit events come before each call.
CRASH = """
import itertools, json, os, pathlib, shutil, sys
from clouduploader import errors; from clouduploader.model import job_xml; from clouduploader.store import spool
from clouduploader.model.job import Job, JobState

action, how, original, place = sys.argv[1:]
EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod",
          "os.scandir", "fcntl.flock", "shutil.rmtree"}

def run(jobs):
    job = Job(name="7", state=JobState.UPLOADING, user="tom", target="ec2", pid=4711)
    if action == "register":
        jobs.register(job, targetdata=b"secret", image_path=pathlib.Path("/image")).close()
    elif action == "allocate":
        jobs.allocate()
    elif action == "replace":
        with jobs.lock("7") as locked:
            locked.replace(Job(name="7", state=JobState.WAITING))
    else:
        with jobs.lock("7") as locked:
            locked.archive(locked.job.ended(JobState.FAILED, "killed"))

import encodings.idna, xml.parsers.expat  # what is loaded late would count as a call
points = []
for count in itertools.count(1):
    directory = pathlib.Path(place, str(count))
    shutil.copytree(original, directory, symlinks=True)
    child = os.fork()
    if not child:
        left = count
        def hook(event, arguments):
            global left
            if event in EVENTS:
                left -= 1
                if left == 0 and how == "die":
                    os._exit(9)
                if left == 0:
                    raise OSError(28, "No space left on device", arguments[0])
        jobs = spool.Spool(directory)
        sys.addaudithook(hook)
        try:
            run(jobs)
        except errors.ClouduploaderError as exc:
            os._exit(9)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == 0 and not (how == "fail" and count < 40):
        break
    points.append([str(directory), status])
print(json.dumps(points))
"""


@pytest.fixture
def crash(tmp_path):
    """Return a function that runs an action up to each of its system calls; see CRASH."""

    def run(jobs, action, *, how="die"):
        place = tmp_path / f"{action}-{how}"
        done = subprocess.run(
            [sys.executable, "-c", CRASH, action, how, str(jobs.directory), str(place)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        points = json.loads(done.stdout)
        assert {status for _, status in points} <= {0, 9}, done.stderr
        return [spool.Spool(Path(directory), lock_timeout_seconds=0) for directory, status in points if status]

    return run


def log_of(jobs):
    return [path.read_text() for path in (jobs.log_path("7"), jobs.done_log_path("7")) if path.exists()]


@pytest.mark.parametrize("how", ["die", "fail"])
def test_archiving_that_breaks_off_is_finished_by_the_next_lock(how, make_spool, crash):
    jobs = make_spool()
    fill(jobs)
    broken = crash(jobs, "archive", how=how)
    assert len(broken) > 15
    for left in broken:
        job, is_archived = left.read("7")
        assert job == (KILLED if is_archived else UPLOADING)
        assert log_of(left) == ["content of 7.log"]
        try:
            with left.lock("7") as locked:
                # The archive was not written: whoever comes now decides what the job's end is.
                locked.archive(KILLED)
        except NoSuchJobError:
            pass
        assert left.read("7") == (KILLED, True)
        assert everything(left.directory) == {"done", "done/7", "done/7.log"}
        assert log_of(left) == ["content of 7.log"]


def test_archived_outcome_is_not_changed_by_a_late_kill(make_spool, make_job):
    """The worker wrote the archive and died before it removed the job: the AMI id must not be lost."""
    jobs = make_spool()
    fill(jobs)
    jobs.log_path("7").unlink()
    make_job(jobs, "7", state=JobState.SUCCEEDED, details="ami-1", log=b"log")
    with pytest.raises(NoSuchJobError), jobs.lock("7"):
        pass
    assert jobs.read("7")[0].details == "ami-1"
    assert everything(jobs.directory) == {"done", "done/7", "done/7.log"}


@pytest.mark.parametrize("how", ["die", "fail"])
def test_replacing_that_breaks_off_leaves_the_old_or_the_new_job(how, make_spool, crash):
    jobs = make_spool()
    fill(jobs)
    broken = crash(jobs, "replace", how=how)
    assert len(broken) > 5
    for left in broken:
        assert left.read("7")[0].state in (JobState.UPLOADING, JobState.WAITING)
        with left.lock("7") as locked:
            locked.replace(KILLED)
        assert left.read("7")[0] == KILLED
        assert not [name for name in everything(left.directory) if name.endswith(".new")]


@pytest.mark.parametrize("how", ["die", "fail"])
def test_registering_that_breaks_off_leaves_no_job_or_a_whole_one(how, make_spool, crash):
    jobs = make_spool()
    broken = crash(jobs, "register", how=how)
    assert len(broken) > 7
    for left in broken:
        if left.running_names():
            assert left.read("7") == (UPLOADING, False)
            assert left.data_path("7").read_bytes() == b"secret"
            assert left.log_path("7").exists()
        elif how == "fail":
            assert everything(left.directory) == set()
        for path in left.directory.glob("*data*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("counter", [None, 5])
@pytest.mark.parametrize("how", ["die", "fail"])
def test_allocating_that_breaks_off_gives_no_id_twice(how, counter, make_spool, make_job, crash):
    jobs = make_spool()
    make_job(jobs, "7")
    if counter:
        (jobs.directory / "next").write_bytes(job_xml.serialize_next(counter))
    broken = crash(jobs, "allocate", how=how)
    assert len(broken) > 4
    for left in broken:
        assert left.allocate() in ("8", "9")
        assert left.allocate() in ("9", "10")


def test_end_of_an_archived_job_can_be_rewritten(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, details="killed")
    job = jobs.read_archived("1")
    jobs.rewrite_archived(job.ended(JobState.SUCCEEDED, "ami-1"))
    found, is_archived = jobs.read("1")
    assert (found.state, found.details, is_archived) == (JobState.SUCCEEDED, "ami-1", True)
    assert [path.name for path in jobs.done_path("1").parent.iterdir()] == ["1"]


@pytest.mark.parametrize("_round", range(3))
def test_first_ids_of_a_spool_are_given_to_many_threads_at_once(make_spool, _round):
    jobs = make_spool()
    barrier = threading.Barrier(6)

    def allocate():
        barrier.wait()
        return jobs.allocate()

    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        found = [future.result() for future in [threads.submit(allocate) for _ in range(6)]]
    assert sorted(found) == list("123456")


ENDS_WITHOUT_INODES = """
import itertools, os, sys
from pathlib import Path
from clouduploader.store import spool
from clouduploader.model.job import Job, JobState
jobs = spool.Spool(Path(sys.argv[1]))
job = jobs.create(Job(name="", state=JobState.CREATED, user="tom", size=0), targetdata=b"{}")
if sys.argv[2] == "scheduled":
    jobs.receive(job.name).finish()
try:
    for number in itertools.count():
        (jobs.directory / f"x{number}").touch()
except OSError as exc:
    print(exc.strerror, os.statvfs(jobs.directory).f_ffree)
with jobs.lock(job.name) as locked:
    locked.archive(locked.job.ended(JobState.FAILED, "killed"))
print(jobs.read(job.name)[1], jobs.read(job.name)[0].details, [path.name for path in jobs.directory.glob("1*")])
"""


@pytest.mark.parametrize("state", ["created", "scheduled"])
def test_job_ends_where_no_file_can_be_made_any_more(tmp_path, state):
    mount = f"mount -t tmpfs -o size=4m,nr_inodes=30 none '{tmp_path}' && exec \"$@\""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh",
         sys.executable, "-c", ENDS_WITHOUT_INODES, tmp_path, state],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == "No space left on device 0\nTrue killed []\n", done.stderr
