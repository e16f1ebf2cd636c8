import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from samples.job_logs import untimed

from clouduploader.cli import jobs as cli_jobs
from clouduploader.cli import main
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

PROGRAM = [sys.executable, "-c", "import sys; from clouduploader.cli.main import main; sys.exit(main())"]
FIELD_KEYS = set(cli_jobs.FIELDS) | {"job", "archived", "damage"}


@pytest.fixture
def fakecloud(tmp_path, monkeypatch):
    """Install a platform `fakecloud`, as a stranger's package would."""
    place = tmp_path / "packages"
    info = place / "fakecloud-1.dist-info"
    info.mkdir(parents=True)
    (place / "fakecloud.py").write_text(FAKECLOUD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fakecloud\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[clouduploader.platforms]\nfakecloud = fakecloud:create\n")
    monkeypatch.syspath_prepend(place)
    yield
    sys.modules.pop("fakecloud", None)


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def run(jobs, home, capfdbinary):
    """Return a function that runs the program on the spool; gives the exit code, stdout and stderr."""

    def run(*arguments):
        code = main.main(["--home", str(home), "--spool", str(jobs.directory), *arguments])
        out, err = capfdbinary.readouterr()
        return int(code), out.decode("utf-8", "surrogateescape"), err.decode()

    return run


@pytest.fixture
def run_json(run):
    """As `run`, with --json; gives the exit code and the data, having checked the envelope."""

    def run_with(*arguments):
        code, out, _ = run(*arguments, "--json")
        answer = json.loads(out)
        assert set(answer) == {"version", "command", "exit_code", "data", "error"}
        assert (answer["command"], answer["exit_code"]) == (arguments[0], code)
        return code, answer["data"]

    return run_with


@pytest.fixture
def show(jobs, home, run_on_terminal):
    """Return a function that runs the program on a terminal and gives what is seen there."""

    def show(*arguments, columns=80, typed=b""):
        words = ["--home", str(home), "--spool", str(jobs.directory), *arguments]
        code = f"from clouduploader.cli import main; main.main({words!r})"
        shown = run_on_terminal(code, columns=columns, typed=typed)
        return re.sub(r"\x1b\[[0-9;]*m", "", shown)

    return show


def test_list_is_whole_and_tab_separated_in_a_pipe(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.SUCCEEDED, details="ami-1\tx\n", project="P:" + "q" * 90, created=0)
    make_job(jobs, "8", user="m\x1b[1mls")
    jobs.job_path("9").write_bytes(b"<")
    code, out, err = run("list")
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert header == ["job", *cli_jobs.FIELDS]
    assert [row[:2] for row in rows] == [["9", "damaged"], ["8", "uploading"], ["7", "succeeded"]]
    assert "is not XML" in rows[0][-1]
    # XML has no escape character: it is replaced when the file is written, not when it is shown
    assert rows[1][3] == "m\ufffd[1mls"
    assert rows[2][2] == "1970-01-01T00:00:00Z"
    assert rows[2][5] == "P:" + "q" * 90
    assert rows[2][-1] == "ami-1\\tx\\n"
    assert {len(row) for row in rows} == {len(header)}


def test_list_as_json_has_all_keys_whatever_the_job(jobs, make_job, run_json):
    make_job(jobs, "7", state=JobState.SUCCEEDED, details="ami-1", size=5)
    jobs.job_path("9").write_bytes(b"<")
    code, data = run_json("list")
    assert code == 0
    assert set(data) == {"total", "jobs"}
    assert data["total"] == 2
    assert [set(job) for job in data["jobs"]] == [FIELD_KEYS, FIELD_KEYS]
    damaged, done = data["jobs"]
    assert (damaged["job"], damaged["state"], damaged["archived"]) == ("9", None, False)
    assert "is not XML" in damaged["damage"]
    assert (done["job"], done["state"], done["size"], done["details"], done["archived"]) == (
        "7", "succeeded", 5, "ami-1", True,
    )  # fmt: skip
    assert done["created"] == "2026-11-22T15:39:02Z"


def test_empty_list_is_an_empty_list(run, run_json):
    assert run_json("list") == (0, {"total": 0, "jobs": []})
    assert run("list") == (0, "\t".join(["job", *cli_jobs.FIELDS]) + "\n", "")


def test_list_filters_and_limits(jobs, make_job, run_json, run):
    for name in ("1", "2", "3"):
        make_job(jobs, name, state=JobState.FAILED, user="ann")
    make_job(jobs, "4", user="tom", project="P", target="directory")

    def names(*arguments):
        return [job["job"] for job in run_json("list", *arguments)[1]["jobs"]]

    assert names("--user", "ann", "--limit", "2") == ["3", "2"]
    assert names("--limit", "0") == ["4", "3", "2", "1"]
    assert names("--user", "ann", "--user", "tom", "--state", "failed") == ["3", "2", "1"]
    assert names("--project", "P", "--target", "directory", "--running") == ["4"]
    assert run("list", "--state", "lost")[0] == 64
    assert run("list", "--limit", "-1")[0] == 64


def test_list_fits_the_terminal_and_says_what_it_leaves_out(jobs, make_job, show):
    for number in range(cli_jobs.TERMINAL_LIMIT + 1):
        make_job(jobs, str(number), state=JobState.FAILED)
    make_job(jobs, "99", project="Base:System:" + "x" * 99, details="ami-0123456789abcdef0", filename="f" * 99)
    lines = show("list").splitlines()
    assert max(map(len, lines)) <= 80
    [newest] = [line for line in lines if line.split()[:2] == ["99", "uploading"]]
    assert "ami-0123456789abcdef0" in newest
    assert "…" in newest
    assert any("Base:System" in line for line in show("list", columns=120).splitlines())
    assert "These are the newest 50 of 52 jobs; --limit 0 shows all." in lines
    assert "--limit" not in show("list", "--user", "nobody")
    assert "--limit 0" in show("list", "--user", "tom")
    assert "--limit" not in show("--quiet", "list")


def test_missing_spool_is_one_line(home, capsys, tmp_path):
    assert main.main(["--home", str(home), "--spool", str(tmp_path / "none"), "list"]) == 66
    assert capsys.readouterr().err.startswith(f"clouduploader: there is no spool {tmp_path / 'none'}.")


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
        assert f"process\t{2**22} is gone; but somebody has its log locked" in run("inspect", "7")[1]
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


@pytest.mark.parametrize("command", ["inspect", "log"])
def test_unknown_job_is_no_input(command, run):
    code, out, err = run(command, "../7")
    assert (code, out) == (66, "")
    assert err == "clouduploader: there is no job '../7'. Jobs are named by numbers.\n"


def test_log_is_raw_in_a_pipe(jobs, make_job, run):
    make_job(jobs, "7", log=LOG)
    assert run("log", "7") == (0, LOG.decode("utf-8", "surrogateescape"), "")
    assert run("log", "7", "-n", "1")[1] == "b\udcff\x1b[31m\tend\n"


def test_log_is_clean_on_a_terminal(jobs, make_job, show):
    make_job(jobs, "7", log="ä\r\n\x1b[2Jb\rc".encode() + b"\xff", user="x")
    assert show("log", "7") == "ä\n\\x1b[2Jb\\rc\ufffd"


@pytest.mark.parametrize(
    ("state", "expected"), [(JobState.SUCCEEDED, 0), (JobState.FAILED, 76), (JobState.UPLOADING, 0)]
)
def test_log_ends_with_the_outcome_of_the_job(state, expected, jobs, make_job, run, run_json):
    make_job(jobs, "7", state=state, details="why", log=b"a\xff\n")
    assert run("log", "7")[0] == expected
    assert run_json("log", "7") == (
        expected, {"job": "7", "state": state, "details": "why", "log": "a\ufffd\n"},
    )  # fmt: skip


def test_followed_log_tells_the_outcome(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.FAILED, details="quota\x85exceeded", log=b"a\n")
    assert run("log", "-f", "7") == (76, "a\n", "job 7 failed: quota\\x85exceeded\n")
    assert run("--quiet", "log", "-f", "7") == (76, "a\n", "")
    assert run("log", "-f", "7", "--json")[0] == 64


def test_followed_log_can_be_interrupted(jobs, home, make_job):
    make_job(jobs, "7", log=b"a\n")
    options = ["--home", home, "--spool", jobs.directory, "log", "-f", "7"]
    with subprocess.Popen([*PROGRAM, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"a\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 130
        assert b"Traceback" not in child.stderr.read()


def test_log_of_a_reader_that_goes_away_is_no_error(jobs, home, make_job):
    make_job(jobs, "7", log=b"line\n" * 1_000_000)
    options = ["--home", home, "--spool", jobs.directory, "log", "7"]
    with subprocess.Popen([*PROGRAM, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(20) == 141
        assert child.stderr.read() == b""


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
    assert untimed(err) == ["cleaning up", "Removed instance i-1 in here."]
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


def test_list_loads_nothing_heavy(jobs, home, make_job):
    """What a person waits for: `list` in a pipe costs little more than click."""
    make_job(jobs, "7", state=JobState.FAILED)
    words = ["--home", str(home), "--spool", str(jobs.directory), "list"]
    code = f"from clouduploader.cli import main; main.main({words!r}); import sys; print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert {"click", "xml.parsers.expat"} <= loaded
    heavy = {
        "rich",
        "xml.etree",
        "http.client",
        "subprocess",
        "boto3",
        "gnupg",
        "cryptography",
        "clouduploader.plugin.platform",
    }
    assert loaded & heavy == set()
