"""What the reference says of every command's answer in JSON, held against the answers."""

import dataclasses
import json
import re
import threading
from pathlib import Path

import pytest
from samples.minimal_disk import as_disk

from clouduploader.cli import program
from clouduploader.client import cluster_status
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "json.rst"
CODE = re.compile(r"``([a-z0-9_ -]+)``")
OPTIONAL = {"steps", "costs", "path", "targetdata", "schema"}  # with an option only, and then alone


def documented():
    """What the page has as code for each command, and for another one to which it points."""
    texts = {}
    for names, text in re.findall(r"^(``[a-z].*``)\n((?:    .*\n)+)", PAGE.read_text("utf-8"), re.MULTILINE):
        texts |= dict.fromkeys(CODE.findall(names), text)

    def words(text):
        others = [word for name in re.findall(r"\b[Aa]s (?:of )?``(.*?)``", text) for word in words(texts[name])]
        own = CODE.findall(re.sub(r"\b[Aa]s (?:of )?``(.*?)``", "", text))
        return [*(word for word in own if not word.startswith("-")), *others]

    return {name: words(text) for name, text in texts.items()}


DOCUMENTED = documented()
WITHOUT_JSON = {"sandbox", "serve", "worker", "account", "cluster", "token"}
FREE = {"policies", "scripts"}  # objects whose keys are the platform's
INNER = {
    "account": ("create", "list", "remove", "set", "show", "verify"),
    "cluster": ("drain", "status", "undrain"),
    "token": ("create", "list", "revoke"),
}


def test_every_command_with_json_is_documented():
    inner = {f"{group} {name}" for group, names in INNER.items() for name in names}
    assert set(DOCUMENTED) == {*program.COMMANDS} - WITHOUT_JSON | inner


@pytest.fixture
def ask(file_cloud):
    """Return a function that asks for an answer in JSON; gives the exit code and the data."""

    def ask(*words, command=None):
        done = file_cloud.run(*words, "--json")
        assert done.stdout.count("\n") == 1, done.stderr
        answer = json.loads(done.stdout)
        assert answer.keys() == {"version", "command", "exit_code", "data", "error"}
        assert (answer["command"], answer["exit_code"]) == (command or words[0], done.returncode)
        return done.returncode, answer["data"]

    return ask


def assert_documented(name, data):
    """Check that the page names the keys of an answer, and nothing else; those of its lists and objects too."""
    words = DOCUMENTED[name]
    assert set(data) <= set(words)
    inner = [value for value in data.values() if isinstance(value, list | dict)]
    keys = {key for value in inner for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)
            for key in one}  # fmt: skip
    return set(words) - set(data) - keys - OPTIONAL


UPLOAD = ["a.raw", "--target", "file-cloud", "--region", "here"]


def test_upload_and_jobs_answer_as_documented(file_cloud, ask):
    assert ask("upload", *UPLOAD, "--dry-run")[1].keys() == {"steps", "costs"}
    file_cloud.set("shortfall", "there")
    code, data = ask("upload", *UPLOAD)
    assert code == 75
    assert assert_documented("upload", data) == set()
    assert data["images"] == {"here": data["result"]}
    for words in (["list"], ["inspect", "1"], ["log", "1"], ["kill", "--yes", "1"]):
        _, data = ask(*words)
        assert assert_documented(words[0], data) - {"reason", "jobs", "total"} == set()
    assert data["jobs"][0]["finished_before"] is True


def test_retry_answers_as_documented(file_cloud, ask):
    file_cloud.set("fail", "asked snapshot")
    assert file_cloud.upload().returncode == 76
    file_cloud.set("fail")
    _, data = ask("retry", "1")
    assert assert_documented("retry", data) - {"subject", "reason", "state"} == set()


def test_resume_and_cleanup_answer_as_documented(file_cloud, ask):
    file_cloud.set("crash", "made")
    assert file_cloud.upload().returncode == -9
    _, data = ask("cleanup", "--target", "file-cloud", "--dry-run")
    assert {"kind", "id", "region", *DOCUMENTED["cleanup"]} == {*data, *data["things"][0]}
    file_cloud.set("crash")
    _, data = ask("resume", "1")
    assert assert_documented("resume", data) - {"subject", "reason"} == set()
    assert data["images"] == {"here": data["result"]}


@pytest.fixture
def worker(file_cloud):
    """A worker that gives job 1 two images as soon as it is scheduled."""
    spool = file_cloud.place / "spool"
    (spool / "done").mkdir()
    is_over = threading.Event()

    def work():
        while not (spool / "1").exists() or b"scheduled" not in (spool / "1").read_bytes():
            if is_over.wait(0.01):
                return
        job = job_xml.parse((spool / "1").read_bytes()).ended(JobState.SUCCEEDED, "image-1")
        lines = ["12:00:00 Created image image-1 in here.", "12:00:01 Created image image-2 in there."]
        (spool / "done" / "1.log").write_text("\n".join(lines))
        (spool / "done" / "1").write_bytes(job_xml.serialize(job))
        (spool / "1").unlink()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    is_over.set()
    thread.join()


def test_submit_that_waits_answers_as_documented(ask, worker):
    ask("account", "create", "tom", *UPLOAD[1:3], command="account create")
    code, data = ask("submit", *UPLOAD, "--user", "tom", "--wait")
    assert (code, set(data)) == (0, set(DOCUMENTED["submit"]))
    assert data["images"] == {"here": "image-1", "there": "image-2"}


def test_submit_that_does_not_wait_answers_as_documented(ask):
    ask("account", "create", "tom", *UPLOAD[1:3], command="account create")
    code, data = ask("submit", *UPLOAD, "--user", "tom")
    assert (code, set(data)) == (0, set(DOCUMENTED["submit"]))
    assert data["images"] is None


def test_setup_and_image_answer_as_documented(file_cloud, ask):
    (file_cloud.place / "a.raw").write_bytes(as_disk(b""))
    for words in (["check", "--target", "file-cloud"], ["image", "a.raw"], ["platforms"], ["keygen", "--rsa"],
                  ["pubkey", "--rsa"]):  # fmt: skip
        _, data = ask(*words)
        assert assert_documented(words[0], data) == set()
    (file_cloud.place / "data").write_text('{"region": "here"}')
    assert ask("encrypt", "--rsa", "data")[1].keys() == {"encrypted"}
    assert ask("encrypt", "--rsa", "--field", "region", "data")[1].keys() == {"targetdata"}
    assert ask("encrypt", "--rsa", "-o", "sealed", "data")[1].keys() == {"path"}
    assert ask("platforms", "--schema", "file-cloud")[1].keys() == {"schema"}


def test_accounts_answer_as_documented(file_cloud, ask):
    target = ["--target", "file-cloud"]
    ask("keygen", "--rsa")
    operands = {"create": "tom", "show": "tom", "set": "tom tenant t", "list": "", "remove": "tom --yes"}
    for name, words in operands.items():
        _, data = ask("account", name, *target, *words.split(), command=f"account {name}")
        assert assert_documented(f"account {name}", data) - FREE == set()


def test_tokens_answer_as_documented(ask):
    _, made = ask("token", "create", "--user", "tom", command="token create")
    answers = {"create": made, "list": ask("token", "list", command="token list")[1]}
    answers["revoke"] = ask("token", "revoke", "--yes", made["id"], command="token revoke")[1]
    for name, data in answers.items():
        assert assert_documented(f"token {name}", data) == set()


def test_cluster_answers_as_documented():
    kinds = (cluster_status.ClusterHost, cluster_status.ClusterQueue, cluster_status.ClusterLease)
    keys = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert set(DOCUMENTED["cluster status"]) == {"hosts", "queues", "leases", *keys}


def test_failure_has_the_same_envelope(file_cloud, ask):
    for words in (
        ["inspect", "7"],
        ["log", "7"],
        ["resume", "7"],
        ["image", "none"],
        ["platforms", "--schema", "none"],
    ):
        code, data = ask(*words)
        assert (code in (66, 69), data) == (True, None)


def test_job_that_failed_has_its_data(file_cloud, ask):
    done = file_cloud.place / "spool" / "done"
    done.mkdir()
    job = Job(name="1", state=JobState.FAILED, created=0, user="tom", target="ec2", filename="a.raw", details="why")
    (done / "1").write_bytes(job_xml.serialize(job))
    (done / "1.log").write_text("why\n")
    assert ask("log", "1") == (76, {"job": "1", "state": "failed", "details": "why", "log": "why\n"})
