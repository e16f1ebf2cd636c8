import io
import subprocess
import sys

import pytest
from samples.job_logs import untimed

from clouduploader.model.job import JobState

LOG = b"Start uploading image a.raw.xz.\nPhase: upload\nCreated instance i-1 in here.\nb\xff\x1b[31m\tend\n"

FAKECLOUD = """
from clouduploader.errors import PlatformReplyError
from clouduploader.plugin import Platform

class Cloud(Platform):
    upload = None

    def clean_up(self, ctx, objects):
        ctx.reporter.line("cleaning up")
        return super().clean_up(ctx, objects)

    def remove(self, ctx, thing):
        if thing.kind == "volume":
            raise PlatformReplyError("in use")

create = Cloud
"""


@pytest.fixture
def fakecloud(install_package):
    """Install a platform `fakecloud`, as a package of another author would."""
    install_package("fakecloud", FAKECLOUD, fakecloud="fakecloud:create")


def test_kill_needs_a_yes(jobs, make_job, run, monkeypatch):
    make_job(jobs, "7", state=JobState.SCHEDULED)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = run("kill", "7")
    assert code == 64
    assert err == "clouduploader: Kill the job 7? There is no terminal to answer on. Give --yes to agree.\n"
    assert jobs.read("7")[0].state is JobState.SCHEDULED
    assert run("kill", "--yes", "7") == (0, "job 7: killed\n", "")
    assert run("kill", "-y", "7") == (0, "job 7: is over already: failed\n", "")


def test_kill_shows_what_there_is_before_it_asks(jobs, make_job, show):
    make_job(jobs, "7", log=b"12:00:00 Created instance i-1 in here.\n", user="t\x1bm", pid=2**22)
    make_job(jobs, "8", state=JobState.SUCCEEDED)
    shown = show("kill", "7", "8", "9", columns=120, typed=b"n\n")
    assert shown.splitlines()[1:] == [
        "job 7: uploading, user t\ufffdm, image a.raw.xz, target ec2",
        "  with instance i-1 in here",
        "Kill the job 7? [y/N]: clouduploader: stopped",
    ]
    assert jobs.read("7")[0].state is JobState.UPLOADING


@pytest.mark.parametrize(("name", "code", "text"), [("7", 0, "job 7: is over already: failed"), ("9", 66, "no job 9")])
def test_kill_asks_nothing_where_there_is_nothing_to_kill(jobs, make_job, run, name, code, text):
    make_job(jobs, "7", state=JobState.FAILED)
    found, out, err = run("kill", name)
    assert (found, "Kill the job" in err) == (code, False)
    assert text in out + err


def test_kill_of_several_jobs_ends_with_the_worst(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.SCHEDULED)
    jobs.job_path("8").write_bytes(b"<")
    code, out, err = run("kill", "-y", "7", "8", "9")
    assert (code, out) == (66, "job 7: killed\n")
    assert "clouduploader: job 8: " in err
    assert "clouduploader: job 9: there is no job 9" in err


@pytest.mark.usefixtures("fakecloud")
def test_forced_kill_reports_what_is_removed_and_left(jobs, make_job, run, run_json):
    log = LOG + b"Created volume vol-1.\n"
    for name in ("7", "8"):
        make_job(jobs, name, target="fakecloud", log=log, data=b"{}", pid=2**22)
    code, out, err = run("kill", "-y", "--force", "7")
    assert code == 76
    assert out.splitlines() == [
        "job 7: killed",
        "job 7: its process was gone already",
        "job 7: removed instance i-1 in here",
        "job 7: left volume vol-1: in use",
    ]
    assert untimed(err) == ["cleaning up", "Removed instance i-1 in here.", "Left behind: volume vol-1: in use"]
    code, data = run_json("kill", "-y", "--force", "8")
    assert code == 76
    assert data == {
        "jobs": [
            {
                "job": "8",
                "state": "failed",
                "exit_code": 76,
                "finished_before": False,
                "process": "gone",
                "forced": False,
                "remaining_pids": [],
                "removed": [{"kind": "instance", "id": "i-1", "region": "here"}],
                "left": [{"kind": "volume", "id": "vol-1", "region": "", "reason": "in use"}],
                "error": None,
            }
        ]
    }


def test_kill_tells_who_still_runs(jobs, make_job, run):
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code]
    with (
        jobs.log_path("7").open("ab") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True) as child,
    ):
        child.stdout.readline()
        make_job(jobs, "7", pid=child.pid)
        code, out, _ = run("kill", "-y", "--wait", "--timeout", "0.2", "7")
        assert (code, out) == (75, f"job 7: killed\njob 7: its processes {child.pid} still run\n")
        child.kill()
