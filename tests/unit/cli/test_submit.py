import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes.scripted_server import answer, ok, refusal

from clouduploader import client
from clouduploader.cli import main, submit
from clouduploader.cli.session import Session
from clouduploader.errors import StoppedError, TargetDataError
from clouduploader.jobs import log as jobs_log
from clouduploader.jobs import submit as jobs_submit
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.store import accounts, config, keyring

EXECUTABLE = Path(sys.executable).with_name("clouduploader")
DONE = ok(b'<status code="ok" />\n')
EC2 = ("--region", "eu-west-1", "--name", "my-image")
ROLE = "arn:aws:iam::123456789012:role/obs"
EXTERNAL_ID = "Xy4Zp9QrSt6UvWx8YzAb2CdE"


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "my image.raw"
    path.write_bytes(b"image")
    return path


@pytest.fixture
def run(home, image, capfd):
    """Return a function that runs `submit`; gives the exit code, stdout and stderr."""

    def run(*words, options=()):
        code = main.main(["--home", str(home), *map(str, options), "submit", str(image), *map(str, words)])
        out, err = capfd.readouterr()
        return int(code), out, err

    return run


@pytest.fixture
def run_local(run, jobs):
    """As `run`, into the spool."""
    return lambda *words: run(*words, options=["--spool", jobs.directory])


@pytest.fixture
def make_account(home):
    def make(**values):
        accounts.AccountStore(home).create("tom", "ec2", values, now=datetime.datetime.now(datetime.UTC))

    return make


def record(state, **fields):
    return ok(job_xml.serialize(Job(name="7", state=state, size=5, **fields)))


def take(connection, reader):
    connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
    assert reader.read(5) == b"image"
    connection.sendall(DONE)


def take_nothing(connection, reader):
    connection.sendall(b"HTTP/1.1 100 continue\r\n\r\n")
    assert reader.read(5) == b""


def skeleton(request):
    """The fields that a job was asked for with, and its target data."""
    fields = dict(re.findall(rb"<(\w+)>([^<]*)</", request.body))
    data = json.loads(bytes.fromhex(fields.pop(b"details").decode()))
    return {name.decode(): value.decode() for name, value in fields.items()}, data


def test_job_and_image_go_into_the_spool(run_local, jobs, make_account):
    make_account(arn=ROLE, external_id=EXTERNAL_ID)

    assert run_local("--user", "tom", *EC2) == (0, "1\n", "job 1: sending my image.raw\n")

    job, is_archived = jobs.read("1")
    assert (job.state, job.user, job.target, job.filename, job.size) == (
        JobState.SCHEDULED, "tom", "ec2", "my image.raw", 5,
    )  # fmt: skip
    assert not is_archived
    assert jobs.file_path("1").read_bytes() == b"image"
    assert json.loads(jobs.data_path("1").read_bytes()) == {
        "arn": ROLE, "external_id": EXTERNAL_ID, "region": "eu-west-1", "ami_name": "my-image",
    }  # fmt: skip
    assert jobs.data_path("1").stat().st_mode & 0o077 == 0


def test_job_and_image_go_to_a_server(run, make_server, make_account):
    make_account(arn=ROLE, external_id=EXTERNAL_ID)
    server = make_server(record(JobState.CREATED, filename="a\x1bb"), record(JobState.CREATED), take)

    code, out, err = run("--server", server.url, "--user", "tom", *EC2, "--tag", "a=b")

    assert (code, out) == (0, "7\n")
    assert err == "job 7: sending a\ufffdb\n"
    fields, data = skeleton(server.requests[0])
    assert fields == {
        "state": "created", "user": "tom", "target": "ec2", "project": "", "repository": "", "package": "", "arch": "",
        "filename": "my image.raw", "size": "5",
    }  # fmt: skip
    assert data == {
        "arn": ROLE, "external_id": EXTERNAL_ID, "region": "eu-west-1", "ami_name": "my-image", "tags": {"a": "b"},
    }  # fmt: skip
    assert [request.line for request in server.requests[1:]] == ["GET /cloudupload/7", "PUT /cloudupload/7"]


def test_options_and_file_go_before_the_account(run_local, jobs, make_account, tmp_path):
    make_account(arn=ROLE, external_id=EXTERNAL_ID)
    (tmp_path / "data").write_text(json.dumps({"region": "us-east-1", "external_id": "of-the-file"}))

    run_local(
        "--user", "tom", *EC2, "--arn", f"{ROLE}2", "--data", tmp_path / "data", "--subnet", "subnet-0123456789abcdef0"
    )

    assert json.loads(jobs.data_path("1").read_bytes()) == {
        "arn": f"{ROLE}2", "external_id": "of-the-file", "region": "eu-west-1", "ami_name": "my-image",
        "vpc_subnet_id": "subnet-0123456789abcdef0",
    }  # fmt: skip


def test_user_without_account_and_role_is_refused_before_anything_is_made(run, run_local, jobs, make_server):
    code, out, err = run_local("--user", "tom", *EC2)
    assert (code, out) == (66, "")
    assert "tom has no account for ec2. `clouduploader account create --target ec2` makes one" in err
    assert jobs.running_names() == []
    assert run_local("--user", "tom", *EC2, "--arn", ROLE)[0] == 0
    server = make_server()
    assert run("--server", server.url, "--user", "tom", *EC2)[0] == 66
    assert server.requests == []


@pytest.mark.parametrize("needs_account", [True, False])
def test_account_is_asked_for_only_by_a_platform_that_needs_one(run_local, install_package, needs_account):
    code = "from clouduploader.plugin import Field, Platform\nclass create(Platform):\n    upload = remove = None\n"
    code += "    fields = (Field(name='tenant', description='Whose.', is_of_account=True),)\n"
    install_package("open_cloud", f"{code}    needs_account = {needs_account}\n", opencloud="open_cloud:create")
    assert run_local("--target", "opencloud")[0] == (66 if needs_account else 0)


@pytest.fixture
def promise(image):
    """Return a function that writes a digest beside the image, the right one unless another is given."""

    def promise(digest=None):
        digest = digest or hashlib.sha256(image.read_bytes()).hexdigest()
        image.with_name(f"{image.name}.sha256").write_text(f"{digest}  {image.name}\n")
        return digest

    return promise


@pytest.mark.parametrize("target", [(*EC2, "--arn", ROLE), ("--target", "directory")])
def test_digest_beside_the_image_goes_along(run_local, jobs, promise, target):
    digest = promise()
    assert run_local(*target)[0] == 0
    assert json.loads(jobs.data_path("1").read_bytes())["sha256"] == digest


def test_digest_that_is_given_goes_before_the_one_beside_the_image(run_local, jobs, promise):
    digest = promise()
    promise("ab" * 32)
    assert run_local(*EC2, "--arn", ROLE, "--sha256", digest.upper())[0] == 0
    assert json.loads(jobs.data_path("1").read_bytes())["sha256"] == digest.upper()


TENANT = ("--target", "file-cloud", "--region", "here", "--tenant", "t")


@pytest.mark.usefixtures("file_cloud")
@pytest.mark.parametrize("target", [(*EC2, "--arn", ROLE), ("--target", "directory"), TENANT])
def test_image_with_another_digest_than_the_one_beside_it_is_not_submitted(run_local, jobs, promise, target):
    promise("ab" * 32)
    code, out, err = run_local(*target)
    assert (code, out) == (65, "")
    assert "my image.raw is not the file that was promised: its SHA-256 is " in err
    job, is_archived = jobs.read("1")
    assert (job.state, is_archived) == (JobState.FAILED, True)
    assert "is not the file that was promised" in job.details


def test_image_with_another_digest_than_promised_is_not_completed_at_a_server(run, make_server, promise):
    promise("ab" * 32)
    server = make_server(record(JobState.CREATED), record(JobState.CREATED), take_nothing)
    code, out, err = run("--server", server.url, *EC2, "--arn", ROLE)
    assert (code, out) == (65, "")
    assert "is not the file that was promised" in err


def test_digest_beside_an_image_is_held_against_encrypted_target_data_too(run_local, promise, tmp_path):
    promise("ab" * 32)
    (tmp_path / "data").write_text("-----BEGIN PGP MESSAGE-----\n\nsealed\n-----END PGP MESSAGE-----\n")
    assert run_local("--data", tmp_path / "data")[0] == 65


SECRET = "open-sesame-1001"


@pytest.fixture
def secret(tmp_path):
    """The options of a target that has a secret."""
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    return (*TENANT, "--password-file", tmp_path / "secret")


@pytest.fixture
def keys(tmp_path):
    """The keys of the service."""
    made = keyring.Keyring(tmp_path / "service", os.environ)
    (tmp_path / "service").mkdir()
    made.rsa.generate()
    return made


@pytest.mark.usefixtures("file_cloud")
def test_secret_is_encrypted_for_the_server(run, make_server, secret, keys):
    key = ok(keys.rsa.public_path.read_bytes())
    server = make_server(key, record(JobState.CREATED), record(JobState.CREATED), take)
    assert run("--server", server.url, *secret)[0] == 0
    assert server.requests[0].line == "GET /cloudupload/_pubkey"
    _, data = skeleton(server.requests[1])
    assert keys.rsa.decrypt(data.pop("password")) == SECRET
    assert data == {"region": "here", "tenant": "t"}


@pytest.mark.usefixtures("file_cloud")
def test_secret_of_an_account_is_encrypted_anew_for_another_server(run, make_server, home, keys):
    here = keyring.Keyring(home, os.environ)
    here.rsa.generate()
    store = accounts.AccountStore(home)
    store.create("tom", "file-cloud", {"tenant": "t"}, now=datetime.datetime.now(datetime.UTC))
    store.set("tom", "file-cloud", "password", value=here.encrypt(SECRET), is_encrypted=True)
    no_key = refusal("400 x", "_pubkey: no such file")
    for answered, owner in ((ok(keys.rsa.public_path.read_bytes()), keys), (no_key, here)):
        server = make_server(answered, *[record(JobState.CREATED)] * 2, take)
        assert run("--server", server.url, "--user", "tom", "--target", "file-cloud", "--region", "here")[0] == 0
        assert owner.rsa.decrypt(skeleton(server.requests[1])[1]["password"]) == SECRET


@pytest.mark.usefixtures("file_cloud")
def test_secret_goes_in_clear_only_where_no_other_machine_can_read_it(run, make_server, secret):
    server = make_server(refusal("400 x", "_pubkey: no such file"), *[record(JobState.CREATED)] * 2, take)
    assert run("--server", server.url, *secret)[0] == 0
    assert skeleton(server.requests[1])[1]["password"] == SECRET


@pytest.mark.parametrize(("url", "is_private"), [
    ("http://127.0.0.1:1", True), ("http://[::1]:1", True), ("http://localhost", True), ("https://obs", True),
    ("http://10.0.0.1", False), ("http://obs.example.org", False),
])  # fmt: skip
def test_server_without_a_key_gets_a_secret_only_if_the_way_is_private(home, tmp_path, file_cloud, url, is_private):
    class Server(client.JobServer):
        def public_key(self):
            return None

        def create(self, job, *, targetdata):
            raise StoppedError(15)

    data = json.dumps({"region": "here", "tenant": "t", "password": SECRET}).encode()
    request = jobs_submit.SubmitRequest(
        user="tom", target="file-cloud", image_path=file_cloud.place / "a.raw", targetdata=data
    )
    settings = config.load(home=file_cloud.place / "home", spool=tmp_path, environment={})
    error = StoppedError if is_private else TargetDataError
    with pytest.raises(error) as caught:
        jobs_submit.submit(
            request, Server(url), config=settings, watch=lambda _job: lambda _event: None, warn=lambda _text: None
        )
    assert is_private or f"{url} has no key to encrypt them for" in caught.value.message


@pytest.mark.usefixtures("file_cloud")
def test_secret_is_encrypted_in_the_spool_where_the_home_has_a_key(run_local, jobs, secret, home):
    assert run_local(*secret)[0] == 0
    assert json.loads(jobs.data_path("1").read_bytes())["password"] == SECRET
    keys = keyring.Keyring(home, os.environ)
    keys.rsa.generate()
    assert run_local(*secret)[0] == 0
    assert keys.rsa.decrypt(json.loads(jobs.data_path("2").read_bytes())["password"]) == SECRET


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--region", "Two", "--arn", ROLE], 64, '--region is "Two", but takes one region'),
        (["--target", "nosuch"], 69, "no platform answers to the target 'nosuch'"),
        (["--server", "obs"], 64, "'obs' is not the URL of a server"),
        (["--server", "http://tom:s3cret@obs"], 64, "has a user in it"),
        (["--data", "/none"], 66, "there are no target data /none"),
        (["--lines", "3"], 64, "there is no option --lines"),
    ],
)
def test_wrong_order_is_one_line_and_makes_no_job(run, jobs, words, code, message):
    options = [] if "--server" in words else ["--spool", jobs.directory]
    found, out, err = run(*words, options=options)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert "s3cret" not in err
    assert jobs.running_names() == []


def test_spool_and_server_are_two_places(run_local, run, jobs, monkeypatch, make_server):
    code, _, err = run_local("--server", "http://127.0.0.1:1", *EC2, "--arn", ROLE)
    assert (code, "--server and --spool are two places" in err) == (64, True)
    monkeypatch.setenv("CLOUDUPLOADER_SERVER", "http://127.0.0.1:1")
    assert run_local(*EC2, "--arn", ROLE)[:2] == (0, "1\n")
    server = make_server(record(JobState.CREATED), record(JobState.CREATED), take)
    assert run("--server", server.url, *EC2, "--arn", ROLE)[:2] == (0, "7\n")
    assert run(*EC2, "--arn", ROLE)[0] == 75  # nobody is there


def test_empty_or_missing_image_makes_no_job(run_local, jobs, image):
    image.write_bytes(b"")
    assert run_local(*EC2, "--arn", ROLE)[0] == 65
    image.unlink()
    code, _, err = run_local(*EC2, "--arn", ROLE)
    assert (code, "there is no image" in err) == (66, True)
    assert jobs.running_names() == []


def test_encrypted_target_data_are_sent_as_they_are(run_local, jobs, tmp_path):
    data = b"\n-----BEGIN PGP MESSAGE-----\n\nnobody here has the key\n-----END PGP MESSAGE-----\n"
    (tmp_path / "data").write_bytes(data)
    assert run_local("--data", tmp_path / "data")[0] == 0
    assert jobs.data_path("1").read_bytes() == data


@pytest.mark.parametrize(
    ("reply", "code", "message"),
    [
        (refusal("400 x", "target is missing from job skeleton"), 76, "refused: target is missing from job skeleton"),
        (refusal("403 x", "not from there"), 77, "refused: not from there"),
        (refusal("503 x", "too many transfers"), 75, "refused: too many transfers"),
        (answer("404 Not Found", b""), 69, "refused: Not Found"),
        (answer("301 x", b"", "Location: https://elsewhere/"), 69, "redirects to https://elsewhere/"),
        (ok(b"<html>"), 76, "answers with the new job: line 1"),
        (b"", 75, "hung up"),
    ],
)
def test_refusal_of_a_server_is_one_line(run, make_server, reply, code, message):
    found, out, err = run("--server", make_server(reply).url, *EC2, "--arn", ROLE)
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert ROLE not in err


def test_answer_can_be_json(run, jobs, make_server):
    server = make_server(record(JobState.CREATED, details="waiting to receive image"), record(JobState.CREATED), take)
    code, out, _ = run("--server", server.url, *EC2, "--arn", ROLE, "--json")
    assert code == 0
    expected = {"state": "scheduled", "details": None, "images": None}
    assert json.loads(out)["data"] == {"job": "7", "server": server.url, **expected}
    code, out, _ = run(*EC2, "--arn", ROLE, "--json", options=["--spool", jobs.directory])
    assert json.loads(out)["data"] == {"job": "1", "server": None, **expected}


@pytest.mark.parametrize(("state", "details", "code"), [(JobState.SUCCEEDED, "ami-1", 0), (JobState.FAILED, "no", 76)])
def test_waiting_submit_into_the_spool_tells_the_outcome(run_local, jobs, state, details, code):
    def work():
        while not jobs.file_path("1").exists():
            time.sleep(0.01)
        with jobs.open_log("1") as log:
            log.write(b"a line\n")
        with jobs.lock("1") as locked:
            locked.archive(locked.job.ended(state, details))

    worker = threading.Thread(target=work)
    worker.start()
    found, out, err = run_local(*EC2, "--arn", ROLE, "--wait")
    worker.join()
    assert (found, out) == (code, "1\nami-1\n" if code == 0 else "1\n")
    told = [line for line in err.splitlines() if "no worker works" not in line]
    assert told == ["job 1: sending my image.raw", "a line", f"job 1 {state}: {details}"]


def test_quiet_waiting_submit_says_only_the_answer(run, make_server):
    server = make_server(
        record(JobState.CREATED), record(JobState.CREATED), take,
        record(JobState.FAILED, details="killed"), refusal("400 x", "no log"),
        record(JobState.FAILED, details="killed"), refusal("400 x", "no log"),
    )  # fmt: skip
    code, out, err = run("--server", server.url, *EC2, "--arn", ROLE, "--wait", "--json", options=["--quiet"])
    assert (code, err) == (76, "")
    assert json.loads(out)["exit_code"] == 76
    expected = {"job": "7", "server": server.url, "state": "failed", "details": "killed", "images": {}}
    assert json.loads(out)["data"] == expected


def test_server_that_goes_away_after_the_transfer_is_no_reason_to_submit_again(run, make_server):
    server = make_server(record(JobState.CREATED), record(JobState.CREATED), take, refusal("503 x", "away"))
    code, out, err = run("--server", server.url, *EC2, "--arn", ROLE, "--wait")
    assert (code, out) == (69, "7\n")
    assert "the end of job 7 is not known: " in err
    assert f"`clouduploader log --follow --server {server.url} 7` goes on with it." in err


@pytest.mark.parametrize("lock", [".worker.lock", "../run/bs_clouduploadworker.lock", None])
def test_wait_without_a_worker_says_so(jobs, home, image, lock):
    words = ["--home", home, "--spool", jobs.directory, "submit", image, *EC2, "--arn", ROLE, "--wait"]
    with contextlib.ExitStack() as stack:
        if lock:
            path = jobs.directory / lock
            path.parent.mkdir(exist_ok=True)
            fcntl.flock(stack.enter_context(path.open("w")), fcntl.LOCK_EX)
        child = stack.enter_context(subprocess.Popen([EXECUTABLE, *words], stderr=subprocess.PIPE, text=True))
        while not jobs.file_path("1").exists():
            time.sleep(0.01)
        with jobs.open_log("1") as log:
            log.write(b"a line\n")
            lines = iter(child.stderr.readline, "a line\n")
            shown = "".join(lines)
        child.terminate()
    warning = (
        f"clouduploader: warning: no worker works on the spool {jobs.directory}: the job waits until one is started"
    )
    assert (warning in shown) == (lock is None)


DEAD = ok(b'<workerstatus><partition><daemon type="clouduploadworker" state="dead"/></partition></workerstatus>')
RUNNING = ok(b'<workerstatus><partition><daemon type="clouduploadworker" state="running"/></partition></workerstatus>')


@pytest.mark.parametrize(
    ("answers", "is_told"),
    [
        ([DEAD], True),
        ([RUNNING, DEAD], True),  # it went away while our job waited for its turn
        ([RUNNING, RUNNING], False),
        ([refusal("404 x", "unknown"), refusal("404 x", "unknown")], False),  # a server that can't be asked
    ],
)
def test_wait_for_a_server_without_a_worker_says_so_once(run, make_server, monkeypatch, answers, is_told):
    monkeypatch.setattr(submit, "WORKER_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(jobs_log, "SERVER_POLL_SECONDS", 0.0)
    waits, no_log = record(JobState.SCHEDULED), refusal("400 x", "no log")
    rounds = [reply for worker in answers for reply in (waits, worker, no_log)]
    end = record(JobState.FAILED, details="no")
    server = make_server(record(JobState.CREATED), record(JobState.CREATED), take, waits, no_log, *rounds, end, no_log)
    code, _, err = run("--server", server.url, *EC2, "--arn", ROLE, "--wait")
    assert code == 76
    warning = f"clouduploader: warning: no worker works for {server.url}: the job waits until one is started\n"
    assert err.count(warning) == is_told
    assert len(server.requests) == 5 + len(rounds) + 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--region", "us-esat-1"], '--region is "us-esat-1", which is not known here (did you mean us-east-1?)'),
        (["--copy-to", "eu-west-2,eu-wset-3"], '--copy-to is "eu-wset-3", which is not known here'),
    ],
)
def test_region_that_is_misspelt_makes_no_job(run_local, jobs, words, message):
    code, out, err = run_local(*EC2, *words, "--arn", ROLE)
    assert (code, out) == (65, "")
    assert message in err
    assert "name it in the file of --data" in err
    assert list(jobs.directory.iterdir()) == []


def test_region_that_is_new_goes_by_a_file(run_local, jobs, tmp_path):
    (tmp_path / "data").write_text(json.dumps({"region": "eu-north-7", "ami_name": "a-name", "arn": ROLE}))
    assert run_local("--data", tmp_path / "data")[0] == 0
    assert json.loads(jobs.data_path("1").read_bytes())["region"] == "eu-north-7"


def test_stopped_wait_leaves_the_job_alone(jobs, home, image):
    words = ["--home", home, "--spool", jobs.directory, "submit", image, *EC2, "--arn", ROLE, "--wait"]
    with subprocess.Popen([EXECUTABLE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr.readline() == "job 1: sending my image.raw\n"
        assert "no worker works on the spool" in child.stderr.readline()
        while not jobs.file_path("1").exists():
            time.sleep(0.01)
        with jobs.open_log("1") as log:
            log.write(b"a line\n")
            assert child.stderr.readline() == "a line\n"
            child.terminate()
            _, err = child.communicate()
    assert child.returncode == 143
    assert err.startswith("clouduploader: warning: job 1 goes on. `clouduploader log --follow 1` goes on with it.\n")
    assert jobs.read("1")[0].state is JobState.SCHEDULED


def test_book_of_accounts_need_not_be_there_to_read_for_who_says_all_himself(run_local, jobs, home):
    path = home / accounts.FILE_NAME
    path.parent.mkdir()
    path.write_bytes(b"this is no database")
    assert run_local("--user", "tom", *EC2, "--arn", ROLE)[0] == 65
    assert run_local("--user", "tom", *EC2, "--arn", ROLE, "--external-id", EXTERNAL_ID)[:2] == (0, "1\n")


def test_stopped_transfer_fails_the_job_of_the_spool(jobs, home, image):
    with image.open("wb") as file:
        file.truncate(1 << 40)  # all holes; copying them takes longer than this test
    words = ["--home", home, "--spool", jobs.directory, "submit", image, *EC2, "--arn", ROLE]
    with subprocess.Popen([EXECUTABLE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr.readline() == "job 1: sending my image.raw\n"
        while not list(jobs.directory.glob(".1.file*")):
            time.sleep(0.01)
        child.terminate()
        out, err = child.communicate()
    assert (child.returncode, out) == (143, "")
    assert "job 1 has not got all of its image, and fails" in err
    job, _ = jobs.read("1")
    assert job.state is JobState.FAILED, job
    assert not jobs.file_path("1").exists()
    assert not list(jobs.directory.glob(".1.file*"))


def test_transfer_is_shown_on_a_terminal(jobs, home, image, run_on_terminal):
    words = ["--home", str(home), "--spool", str(jobs.directory), "submit", str(image), *EC2, "--arn", ROLE]
    shown = run_on_terminal(f"from clouduploader.cli import main; main.main({words!r})", columns=120)
    assert "send image" in shown
    assert re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown).rstrip().endswith("1")


def test_options_are_those_of_upload():
    params = submit.submit_command.make_context("submit", ["image", *EC2, "--share", "a,b"], obj=Session()).params
    assert params["given"] == {"region": "eu-west-1", "ami_name": "my-image", "share": ["a", "b"]}
    assert params["target"] == "ec2"
