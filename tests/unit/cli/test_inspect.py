import fcntl
import os
import re

from clouduploader.cli import job_view
from clouduploader.model.job import JobState
from clouduploader.store.spool import leases
from clouduploader.store.spool.leases import LeaseRecord, LeaseState

LOG = b"Start uploading image a.raw.xz.\nPhase: upload\nCreated instance i-1 in here.\nb\xff\x1b[31m\tend\n"

CLAIMED = LeaseRecord(
    attempt=3, state=LeaseState.CLAIMED, queue="uploads", host="h1", claim="0" * 64, since=1.5, journal="f" * 32
)
FIELD_KEYS = set(job_view.FIELDS) | {"job", "archived", "damage"}


def test_inspect_shows_fields_files_objects_and_log(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.SUCCEEDED, target="nosuch", details="ami-1", log=LOG)
    code, out, err = run("inspect", "7", "--lines", "1")
    pairs = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert ["state", "succeeded"] in pairs
    assert ["object", "instance i-1 in here"] in pairs
    assert ["phase", "upload"] in pairs
    assert ["log path", str(jobs.done_log_path("7"))] in pairs
    assert out.endswith("\n\nb\ufffd\\x1b[31m\\tend\n")


def test_inspect_as_json_has_all_keys(jobs, make_job, run_json):
    make_job(jobs, "7", log=LOG, pid=2**22, image=b"image")
    code, data = run_json("inspect", "7")
    assert code == 0
    assert set(data) == FIELD_KEYS | {
        "ended", "image_bytes", "paths", "process", "pids", "phase", "objects", "log", "journal",
    }  # fmt: skip
    assert set(data["log"]) == {"size_bytes", "changed", "held", "last_lines"}
    assert (data["process"], data["pids"], data["image_bytes"]) == ("gone", [], 5)
    assert data["objects"] == [{"kind": "instance", "id": "i-1", "region": "here"}]
    assert data["log"]["last_lines"][-1] == "b\ufffd\x1b[31m\tend"
    jobs.job_path("8").write_bytes(b"<")
    code, damaged = run_json("inspect", "8")
    assert (code, set(damaged)) == (0, set(data))
    assert (damaged["state"], damaged["log"], damaged["objects"]) == (None, None, None)
    assert damaged["damage"]


def test_inspect_tells_which_host_has_the_job(jobs, make_job, run, run_json, show):
    make_job(jobs, "7", target="nosuch")
    leases.write(jobs, "7", CLAIMED)
    pairs = [line.split("\t") for line in run("inspect", "7")[1].splitlines()]
    assert ["host", "h1"] in pairs
    assert ["attempt", "3"] in pairs
    assert ["since", "1970-01-01T00:00:01Z"] in pairs
    assert ["process", "on the host h1"] in pairs
    for words in (["inspect", "7"], ["list"]):
        _, data = run_json(*words)
        data = data.get("jobs", [data])[0]
        assert (data["host"], data["attempt"], data["since"]) == ("h1", 3, "1970-01-01T00:00:01Z")
    assert "h1" not in show("list")
    assert show("list", "--verbose", columns=100).splitlines()[0].split()[-1] == "host"
    make_job(jobs, "7", target="nosuch", state=JobState.SUCCEEDED)
    jobs.job_path("7").unlink()
    assert run_json("inspect", "7")[1]["host"] is None


def test_inspect_tells_who_works_on_the_job(jobs, make_job, run):
    make_job(jobs, "7", target="nosuch", pid=2**22, created=10**17)
    with jobs.open_log("7"):
        out = run("inspect", "7")[1]
    (line,) = [line for line in out.splitlines() if line.startswith("process\t")]
    told, _, pids = line.partition(" open: ")
    assert told == f"process\t{2**22} is gone; but these have its log"
    assert str(os.getpid()) in pids.split(", ")  # among those that it has started
    assert f"created\t{10**17} s\n" in out
    with jobs.log_path("7").open() as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        assert f"process\t{2**22} is gone; but a process has its log locked" in run("inspect", "7")[1]
    make_job(jobs, "7", target="nosuch", pid=os.getppid())
    assert f"process\t{os.getppid()} is no process of this job" in run("inspect", "7")[1]
    make_job(jobs, "7", target="nosuch", pid=os.getpid())
    with jobs.open_log("7"):
        out = run("inspect", "7")[1]
    (pids,) = re.findall(r"^process\tworks on the job \((.*)\)$", out, re.MULTILINE)
    assert str(os.getpid()) in pids.split(", ")


def test_inspect_of_a_damaged_job_tells_the_damage(jobs, run):
    jobs.job_path("7").write_bytes(b"<")
    code, out, _ = run("inspect", "7")
    assert code == 0
    assert "state\tdamaged\ndetails\t" in out
    assert "process\tnone" in out


def test_inspect_of_an_unknown_job_is_no_input(run):
    code, out, err = run("inspect", "../7")
    assert (code, out) == (66, "")
    assert err == "clouduploader: there is no job '../7'. Jobs are named by numbers.\n"
