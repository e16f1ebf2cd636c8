import fcntl
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from clouduploader.errors import LocalIOError
from clouduploader.util import processes as util_processes
from clouduploader.util.processes import Ownership

READY_AND_WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
CHILD_IN_OWN_SESSION = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start():
    """Return a function that starts Python code in a session of its own, and waits for its first line."""
    started = []

    def run(code=READY_AND_WAIT, *arguments, **options):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
        )
        started.append(child)
        child.first_line = child.stdout.readline().strip()
        return child

    yield run
    for child in started:
        with child:
            child.kill()


@pytest.fixture
def traces(tmp_path):
    """Traces of a job 7 whose spool is there, but empty but for its log."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "7.log").touch()
    return util_processes.ProcessMatch(
        work_dir=tmp_path / "spool" / "7.dir",
        written_paths=(tmp_path / "spool" / "7.log",),
    )


def held(*processes):
    hold = util_processes.PidfdSet()
    hold.add(processes)
    return hold


def as_process(pid):
    return util_processes.all_processes()[pid]


def is_alive(pid):
    found = util_processes.all_processes().get(pid)
    return found is not None and found.is_alive


def test_process_is_alive_until_it_ends(start):
    child = start()
    assert as_process(child.pid).is_alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not as_process(child.pid).is_alive  # a zombie
    child.wait()
    assert child.pid not in util_processes.all_processes()


def test_name_of_a_program_does_not_confuse(tmp_path, start):
    program = tmp_path / ") S 1 1 (x"
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", READY_AND_WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert as_process(child.pid).parent_pid == os.getpid()
        assert as_process(child.pid).group == os.getpgrp()
        child.kill()


def test_group_with_the_image_in_a_command_line_is_a_stranger(start, traces):
    """An editor, or a pager, of somebody who looks at it."""
    child = start(READY_AND_WAIT, "tom", "ec2", traces.work_dir.with_name("7.file"), "x")
    assert util_processes.job_processes(child.pid, traces) == util_processes.JobProcesses(Ownership.FOREIGN, (), ())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_process_of_another_user_does_not_work_on_the_job(start, traces):
    traces.work_dir.mkdir()
    with traces.written_paths[0].open("ab") as log:
        child = start(
            "import os, sys; os.setuid(65534); print(flush=True); sys.stdin.read()", cwd=traces.work_dir, stderr=log
        )
    assert util_processes.job_processes(child.pid, traces) == util_processes.JobProcesses(Ownership.FOREIGN, (), ())
    os.chown(traces.work_dir.parent, 65534, 65534)
    assert util_processes.job_processes(child.pid, traces).ownership is Ownership.WORKING


def test_group_in_the_directory_works_on_the_job(start, traces):
    traces.work_dir.mkdir()
    child = start(cwd=traces.work_dir)
    assert util_processes.job_processes(child.pid, traces).ownership is Ownership.WORKING


def test_group_that_writes_the_log_works_on_the_job_wherever_that_is_moved(start, traces):
    log_path = traces.written_paths[0]
    with log_path.open("ab") as log:
        child = start(stderr=log)
    assert util_processes.job_processes(child.pid, traces).ownership is Ownership.WORKING
    log_path.rename(log_path.with_suffix(".moved"))
    log_path.touch()
    assert util_processes.job_processes(child.pid, traces).ownership is Ownership.FOREIGN


def test_reader_of_the_log_is_a_stranger(start, traces):
    with traces.written_paths[0].open("rb") as log:
        child = start("import sys; print(flush=True); open(0).read()", pass_fds=[log.fileno()])
    crew = util_processes.job_processes(child.pid, traces)
    assert crew == util_processes.JobProcesses(Ownership.FOREIGN, (), ())


def test_helper_of_the_uploader_is_of_its_group(start, traces):
    """As OBS has it: the pid of the job is a helper's, which waits for the uploader."""
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""
    with traces.written_paths[0].open("ab") as log:
        helper = start(code, stderr=log)
    crew = util_processes.job_processes(helper.pid, traces)
    assert crew.ownership is Ownership.WORKING
    assert {worker.pid for worker in crew.workers} == {helper.pid, int(helper.first_line)}
    with held(*crew.workers) as hold:
        hold.terminate_group(helper.pid)
        assert hold.wait(10)


def test_pid_of_nobody_is_gone(start, traces):
    child = start()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert util_processes.job_processes(child.pid, traces) == util_processes.JobProcesses(Ownership.GONE, (), ())
    child.wait()
    assert util_processes.job_processes(child.pid, traces) == util_processes.JobProcesses(Ownership.GONE, (), ())


def test_writers_are_found_without_a_pid(start, traces):
    with traces.written_paths[0].open("ab") as log:
        child = start(CHILD_IN_OWN_SESSION, stderr=log)
    for group in (None, 2**22):  # more than any pid can be
        crew = util_processes.job_processes(group, traces)
        assert crew.ownership is (Ownership.GONE if group else None)
        assert child.pid in {worker.pid for worker in crew.workers}
    os.kill(int(child.first_line), signal.SIGKILL)


UNDUMPABLE = "import ctypes, sys; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0); print(flush=True); sys.stdin.read()"
"""A process that only root can look into, its own user can't: 4 is PR_SET_DUMPABLE."""
ASK_AS_NOBODY = """
import os, pathlib, sys
from clouduploader.util import privileges, processes
path = pathlib.Path(sys.argv[1])
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
print(processes.job_processes(int(sys.argv[2]), processes.ProcessMatch(path, (path,))).ownership)
"""


def test_process_that_hides_what_it_does_is_unknown(tmp_path, start, let_all_enter):
    path = tmp_path / "7.file"
    path.touch()
    let_all_enter(tmp_path)
    child = start(UNDUMPABLE)
    command = [sys.executable, "-c", ASK_AS_NOBODY, path, str(child.pid)]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == "unknown\n"


@pytest.mark.parametrize("group", [0, 1])
def test_group_of_the_kernel_or_init_is_never_a_jobs(group, traces):
    assert util_processes.job_processes(group, traces) == util_processes.JobProcesses(None, (), ())


@pytest.mark.parametrize("group", [2**22, 2**31, 10**18 - 1])
def test_number_that_no_process_can_have_is_gone(group, traces):
    assert util_processes.job_processes(group, traces).ownership is Ownership.GONE


def test_descendants_are_found_in_every_session(start):
    child = start(CHILD_IN_OWN_SESSION)
    grandchild = int(child.first_line)
    assert os.getsid(grandchild) != os.getsid(child.pid)
    assert grandchild in {found.pid for found in util_processes.descendants([as_process(os.getpid())])}
    assert [found.pid for found in util_processes.descendants([as_process(child.pid)])] == [grandchild]
    os.kill(grandchild, signal.SIGKILL)


def test_number_that_went_to_another_process_is_not_held(start):
    child = start()
    before = util_processes.Process(**{**vars(as_process(child.pid)), "start_ticks": 1})
    with held(before) as hold:
        assert hold.living() == []
        hold.terminate_group(child.pid)
        hold.terminate([before])
        hold.kill()
    assert is_alive(child.pid)


def test_terminated_group_gets_one_signal_each(start, tmp_path):
    code = """
import os, signal, sys, time
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGTERM, note)
is_child = not os.fork()
print("ready", flush=True)
deadline = time.monotonic() + 10
while not count and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.3)
open(sys.argv[1] + str(is_child), "w").write(str(count))
"""
    child = start(code, tmp_path / "count")
    child.stdout.readline()
    with held(*util_processes.job_processes(child.pid, util_processes.ProcessMatch(tmp_path, ())).workers) as hold:
        hold.add([as_process(child.pid)])
        hold.terminate_group(child.pid)
        assert hold.wait(10)
    child.wait()
    assert (tmp_path / "countFalse").read_text() == "1"
    deadline = time.monotonic() + 10
    while not (tmp_path / "countTrue").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    assert (tmp_path / "countTrue").read_text() == "1"


def test_killing_reaches_children_in_their_own_session(start):
    child = start(CHILD_IN_OWN_SESSION)
    with held(as_process(child.pid)) as hold:
        hold.kill()
        assert hold.wait(10)
    assert not is_alive(int(child.first_line))


def test_waiting_ends_with_the_time(start):
    child = start()
    with held(as_process(child.pid)) as hold:
        assert not hold.wait(0)
        assert not hold.wait(0.1)
        child.stdin.close()
        assert hold.wait(10)
        assert hold.wait(0)


def test_lock_is_seen_and_left_alone(tmp_path):
    path = tmp_path / "log"
    assert not util_processes.is_locked(path)
    with path.open("ab") as log:
        assert not util_processes.is_locked(path)
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert util_processes.is_locked(path)
    assert not util_processes.is_locked(path)


def test_group_is_killed_with_its_leader_though_nobody_sees_its_members(start, tmp_path, monkeypatch):
    """As behind hidepid, where a process whose memory is hidden is not to be seen."""
    leader = start(
        "import os, subprocess, sys\n"
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "sys.stdin.read()"
    )  # fmt: skip
    member = int(leader.first_line)
    with util_processes.PidfdSet() as held:
        held.add([util_processes.find(leader.pid)])
        with monkeypatch.context() as patch:
            patch.setattr(util_processes, "PROC", tmp_path)
            held.kill(leader.pid)
    assert leader.wait() == -signal.SIGKILL
    while (found := util_processes.find(member)) and found.is_alive:
        time.sleep(0.01)


def test_lack_of_descriptors_is_no_sign_that_a_process_is_gone(start, traces):
    child = start()
    found = util_processes.find(child.pid)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limits[1]))
    try:
        for look in (
            lambda: util_processes.find(child.pid),
            util_processes.all_processes,
            lambda: util_processes.job_processes(child.pid, traces),
            lambda: util_processes.PidfdSet().add([found]),
        ):
            with pytest.raises(LocalIOError, match="processes can't be looked at: Too many open files"):
                look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
