import subprocess
import sys

from clouduploader.cli import job_view, main
from clouduploader.cli import list as list_module
from clouduploader.model.job import JobState

FIELD_KEYS = set(job_view.FIELDS) | {"job", "archived", "damage"}


def test_list_is_whole_and_tab_separated_in_a_pipe(jobs, make_job, run):
    make_job(jobs, "7", state=JobState.SUCCEEDED, details="ami-1\tx\n", project="P:" + "q" * 90, created=0)
    make_job(jobs, "8", user="m\x1b[1mls")
    jobs.job_path("9").write_bytes(b"<")
    code, out, err = run("list")
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert header == ["job", *job_view.FIELDS]
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
    assert run("list") == (0, "\t".join(["job", *job_view.FIELDS]) + "\n", "")


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
    for number in range(list_module.TERMINAL_LIMIT + 1):
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
