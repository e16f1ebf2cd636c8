import dataclasses
import getpass
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from samples.job_logs import TIME, untimed
from samples.minimal_disk import as_disk

from clouduploader.cli import main, upload, uploading
from clouduploader.cli.session import Session
from clouduploader.jobs.run_job import UploadOutcome
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import CloudObject, Shortfall, UploadResult

EXECUTABLE = Path(sys.executable).with_name("clouduploader")


@pytest.fixture
def place(tmp_path):
    """A spool, a home in which the platform `directory` is set, and an image."""
    for name in ("images", "spool", "home"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "clouduploader.conf").write_text(f"[directory]\npath = {tmp_path}/images\n")
    (tmp_path / "my image.raw").write_bytes(b"an image")
    return tmp_path


def command(place, *words, options=()):
    return ["--home", place / "home", "--spool", place / "spool", *options, "upload", *words]


@pytest.fixture
def run(place, run_here, kept_signals):
    """Return a function that runs the command there."""

    def run(*words, options=(), target="directory"):
        return run_here(*command(place, *words, "--target", target, options=options), cwd=place)

    return run


def archived(place, name="1"):
    return job_xml.parse((place / "spool" / "done" / name).read_bytes())


def test_upload_prints_the_result_and_archives_the_job(place, run):
    done = run("my image.raw", "--user", "o'brien & sons")
    assert (done.returncode, done.stdout) == (0, f"{place}/images/my image.raw\n")
    assert done.stderr == "job 1: uploading my image.raw\n"
    job = archived(place)
    assert (job.state, job.user, job.target, job.size) == (JobState.SUCCEEDED, "o'brien & sons", "directory", 8)
    assert (job.filename, job.details) == ("my image.raw", f"{place}/images/my image.raw")
    log = (place / "spool" / "done" / "1.log").read_text()
    assert all(TIME.match(line) for line in log.splitlines())
    assert untimed(log)[0].endswith(", times in UTC: user o'brien & sons, target directory")
    assert untimed(log)[1] == "Start uploading image my image.raw."
    assert sorted(path.name for path in (place / "spool").iterdir()) == ["done", "journal", "next"]
    assert (place / "my image.raw").exists()


def test_user_is_the_login_by_default(place, run):
    run("my image.raw")
    assert archived(place).user == getpass.getuser()


def test_terminal_that_does_not_control_us_is_no_hindrance(place):
    ours, its = pty.openpty()
    done = subprocess.run(
        [EXECUTABLE, *command(place, "my image.raw", "--target", "directory")], stdin=its, cwd=place, check=False
    )
    os.close(ours)
    os.close(its)
    assert done.returncode == 0


def test_answer_can_be_json(place, run):
    done = run("my image.raw", "--json")
    answer = json.loads(done.stdout)
    assert answer["data"] == {
        "job": "1",
        "result": f"{place}/images/my image.raw",
        "already_there": False,
        "images": {},
        "objects": [{"kind": "file", "id": f"{place}/images/my image.raw", "region": ""}],
        "shortfalls": [],
    }


def test_quiet_upload_says_nothing_but_the_result(run):
    assert run("my image.raw", options=["-q"]).stderr == ""


def test_verbose_upload_shows_the_log(place, run):
    shown = run("my image.raw", options=["-v"]).stderr
    assert shown.partition("\n")[2] == (place / "spool" / "done" / "1.log").read_text()


def test_failure_is_archived_with_its_reason(place, run):
    (place / "images" / "my image.raw").write_text("another")
    done = run("my image.raw")
    assert done.returncode == 73
    assert done.stderr.count("is there already, and is not the same") == 1
    job = archived(place)
    assert job.state is JobState.FAILED
    assert "is not the same" in job.details
    assert "Error: " in (place / "spool" / "done" / "1.log").read_text()


def test_missing_image_makes_no_job(place, run):
    done = run("none.raw")
    assert done.returncode == 66
    assert "there is no image" in done.stderr
    assert not (place / "spool" / "done").exists()


def test_missing_spool_is_told(place):
    done = subprocess.run(
        [EXECUTABLE, "--spool", place / "none", "upload", place / "my image.raw", "--target", "directory"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 66
    assert "there is no spool" in done.stderr


def test_dry_run_says_the_steps_and_changes_nothing(place, run):
    done = run("my image.raw", "--dry-run")
    assert (done.returncode, done.stdout) == (0, f"would copy the image to {place}/images/my image.raw\n")
    assert list((place / "images").iterdir()) == []
    assert list((place / "spool").iterdir()) == []
    assert json.loads(run("my image.raw", "--dry-run", "--json").stdout)["data"]["steps"]


def test_dry_run_says_what_is_warned_of(place, run):
    sector = bytearray((place / "my image.raw").read_bytes()[:512].ljust(512, b"\0"))
    sector[446:462] = b"\0\0\0\0\xee\0\0\0\1\0\0\0\xff\0\0\0"  # stands for a GPT, which is not there
    (place / "my image.raw").write_bytes(sector[:510] + b"\x55\xaa")
    done = run("my image.raw", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "Warning: its GPT is damaged.\n")
    assert run("my image.raw", "--dry-run", options=["--quiet"]).stderr == ""


def test_dry_run_fails_as_the_upload_would(place, run):
    (place / "images" / "my image.raw").write_text("another")
    assert run("my image.raw", "--dry-run").returncode == 73


def test_events_are_written(place, run):
    run("my image.raw", "--events", place / "events")
    found = [json.loads(line) for line in (place / "events").read_text().splitlines()]
    assert found[0]["event"] == "start"
    assert found[0]["job"] == "1"
    assert found[-1]["outcome"] == "succeeded"


def test_options_go_before_the_file_of_target_data(place, run):
    (place / "data").write_text('{"region": "one", "ami_name": "a*b", "x": 1}')
    done = run("my image.raw", "--data", "data", "--region", "eu-west-1", "--dry-run", target="ec2")
    assert done.returncode == 65
    assert done.stderr == (
        'clouduploader: the target data are wrong: ami_name is "a*b", but takes letters, digits, blanks and '
        "()[]./-'@_.\n"
    )


def test_verbose_may_stand_behind_the_command(run):
    done = run("my image.raw", "--verbose")
    assert done.returncode == 0
    assert "Start uploading image my image.raw." in untimed(done.stderr)


def test_secret_that_everybody_can_read_is_warned_about(place, run):
    (place / "home" / "secret.pem").touch()
    (place / "home" / "secret.pem").chmod(0o644)
    warning = f"clouduploader: warning: others on this machine can read {place}/home/secret.pem\n"
    assert warning in run("my image.raw", "--dry-run").stderr
    assert warning not in run("my image.raw", "--dry-run", options=["--quiet"]).stderr


def test_upload_warns_of_the_secrets_of_its_own_platform_alone(file_cloud):
    for name in ("file-cloud.key", "file-cloud.map"):
        (file_cloud.place / "home" / name).touch(0o644)
    (file_cloud.place / "home" / ".aws").mkdir()
    (file_cloud.place / "home" / ".aws" / "credentials").touch(0o644)
    warned = [line for line in file_cloud.upload("--dry-run").stderr.splitlines() if "can read" in line]
    key = file_cloud.place / "home" / "file-cloud.key"
    assert warned == [f"clouduploader: warning: others on this machine can read {key}"]


def test_bug_of_a_platform_names_it_and_shows_no_secret(file_cloud):
    file_cloud.set("bug", "made")
    (file_cloud.place / "password").write_text("open 'the' sesame\n")
    done = file_cloud.upload("--password-file", file_cloud.place / "password", "--verbose", "--json")
    assert done.returncode == 70
    error = json.loads(done.stdout)["error"]
    assert error["message"] == "this is a bug in the platform 'file-cloud' of the package file_cloud 1.0: ValueError"
    assert 'ValueError: ("bug at made with ********", "********")\n' in done.stderr
    assert "sesame" not in done.stdout + done.stderr


def test_file_of_target_data_is_taken_as_it_is(place, run):
    (place / "data").write_text('{"filename": "real.raw"}')
    assert run("my image.raw", "--data", "data").returncode == 0
    (place / "data").write_text("{")
    assert run("my image.raw", "--data", "data").returncode == 65
    assert run("my image.raw", "--data", "none").returncode == 66


def test_options_cannot_be_added_to_encrypted_target_data(place, run):
    (place / "data").write_text("-----BEGIN PGP MESSAGE-----\n")
    done = run("my image.raw", "--data", "data", "--force")
    assert done.returncode == 64
    assert "is encrypted as a whole" in done.stderr


def test_target_data_in_the_spool_are_private(place):
    with (place / "large.raw").open("wb") as file:
        file.truncate(8 << 30)  # all holes; copying them takes longer than this test
    process = subprocess.Popen(
        [EXECUTABLE, *command(place, "large.raw", "--target", "directory")],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "job 1: uploading large.raw\n"
    assert (place / "spool" / "1.data").stat().st_mode & 0o077 == 0
    job = job_xml.parse((place / "spool" / "1").read_bytes())
    assert (job.state, job.pid) == (JobState.UPLOADING, process.pid)
    assert os.getpgid(process.pid) == process.pid
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate()
    assert (process.returncode, shown) == (143, "")
    assert (archived(place).state, archived(place).details) == (JobState.FAILED, "killed")
    assert list((place / "images").iterdir()) == []


def test_wrong_options_are_named_all_at_once_and_leave_no_job(place, run):
    refused = {
        "--description": "a\tb", "--architecture": "vax", "--boot-mode": "coreboot", "--method": "magic",
        "--sha256": "1",
        "--zero-blocks": "keep", "--verify": "maybe", "--kms-key": "a key", "--keep": "all", "--copy-to": "eu",
        "--share": "everybody", "--deprecate-at": "tomorrow", "--region": "Two", "--name": "x", "--arn": "y",
        "--external-id": "z", "--subnet": "subnet-0123",
    }  # fmt: skip
    words = [word for pair in refused.items() for word in pair]
    done = run("my image.raw", *words, target="ec2")
    assert done.returncode == 65
    (line,) = done.stderr.splitlines()
    for option, value in refused.items():
        assert f"{option} is {json.dumps(value)}, but " in line
    assert not re.search(r"\b(ami_name|vpc_subnet_id|target data)\b", line)
    assert list((place / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 64, "--region is missing; --name is missing"),
        (
            ["--subnet", "subnet-0123"], 64,
            '--subnet is "subnet-0123", but takes values such as subnet-0123456789abcdef0',
        ),
        (["--region", "eu_west-1"], 64, 'but takes one region such as eu-west-1 (did you mean eu-west-1?)'),
        (["--method", "ebsdirect"], 64, "must be ec2uploadimg, ebs-direct or auto (did you mean ebs-direct?)"),
        (["--copy-to", "eu-west-1, us-wset2"], 64, '--copy-to is "us-wset2", but takes a region such as'),
        (["--name", "ab"], 64, '--name is "ab", but must have 3 to 128 characters'),
        (
            ["--region", "eu-west-1", "--name", "abc", "--deprecate-at", "2020-01-01"], 65,
            "--deprecate-at is in the past",
        ),
        (["--region", "eu-west-1", "--name", "abc", "--kms-key", "k"], 65, "--kms-key needs method ebs-direct"),
        (["--target", "ec3"], 69, "Did you mean ec2?"),
        (["--target", "directory", "--share", "public"], 64, "there is no option --share for the target directory"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["upload", "submit"])
def test_wrong_option_is_named_with_what_is_right_and_leaves_no_job(place, capsys, command, words, code, message):
    where = ["--home", str(place / "home"), "--spool", str(place / "spool")]
    found = main.main([command, str(place / "my image.raw"), *where, *words])
    out, err = capsys.readouterr()
    assert (found, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert list((place / "spool").iterdir()) == []


@pytest.mark.parametrize("url", ["https://obs.example.org/a.raw.xz", "s3://bucket/a.raw", "FILE:///tmp/a.raw"])
@pytest.mark.parametrize("command", ["upload", "submit", "image"])
def test_url_is_refused_as_one(capsys, command, url):
    assert main.main([command, url]) == 64
    assert capsys.readouterr().err == (
        f"clouduploader: {url} is a URL, and images are not downloaded. Download it, for example with `curl -LO URL`, "
        "and give the path of the file.\n"
    )


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_events_file_without_its_directory_is_refused_before_there_is_a_job(place, run, dry):
    done = run("my image.raw", "--events", "no/events", *dry)
    assert (done.returncode, done.stdout) == (73, "")
    assert done.stderr == "clouduploader: the events file no/events can't be written: there is no such directory.\n"
    assert list((place / "spool").iterdir()) == []


def test_region_that_the_sdk_does_not_know_is_tried_before_there_is_a_job(place, run):
    (place / "my image.raw").write_bytes(as_disk(bytes(1 << 20)))
    (place / "data").write_text('{"region": "us-esat-1", "regions": ["all"]}')
    for options in (
        ["--region", "us-esat-1"],
        ["--region", "us-east-1", "--copy-to", "us-wset-2,eu-west-1"],
        ["--data", "data"],
    ):
        done = run("my image.raw", "--name", "abc", *options, target="ec2")
        assert (done.returncode, done.stdout) == (78, "")
        assert ".ec2utils.conf can't be read" in done.stderr  # so it got as far as what the job would meet first
        assert list((place / "spool").iterdir()) == []
    assert run("my image.raw", "--name", "abc", "--region", "us-east-1", target="ec2").returncode == 78
    assert archived(place).state is JobState.FAILED


def params(*words):
    return upload.upload_command.make_context("upload", ["image", *words], obj=Session()).params


def test_size_is_read_as_in_the_settings(run):
    assert params("--max-size", "20G")["max_size"] == 20 << 30
    done = run("my image.raw", "--max-size", "much")
    assert done.returncode == 64
    assert "--max-size" in done.stderr
    assert "'much', not a size such as 20G" in done.stderr


def test_tag_without_a_value_is_a_wrong_argument(run):
    done = run("my image.raw", "--tag", "alone", target="ec2")
    assert done.returncode == 64
    assert "'alone' is not of the form NAME=VALUE" in done.stderr


@pytest.fixture
def outcome():
    """An upload of which a part failed."""
    things = (CloudObject("image", "ami-1", "eu-west-1"), CloudObject("image", "ami-2", "us-east-1"))
    shortfalls = (Shortfall("eu-west-2", "not copied: no \x1b"), Shortfall("eu-west-3", "not shared: no"))
    job = Job(name="7", state=JobState.SUCCEEDED)
    return UploadOutcome(job, UploadResult("ami-1", things, shortfalls))


@pytest.mark.parametrize("is_quiet", [False, True])
def test_upload_that_failed_in_part_gives_its_result_and_says_what_failed(outcome, capsys, is_quiet):
    session = Session()
    session.is_quiet = is_quiet
    assert uploading.print_outcome(session, outcome) == 75
    shown = capsys.readouterr()
    assert shown.out == "ami-1\n"
    assert shown.err.splitlines() == [
        "clouduploader: warning: eu-west-2: not copied: no \\x1b",
        "clouduploader: warning: eu-west-3: not shared: no",
    ]


@pytest.mark.parametrize("is_quiet", [False, True])
def test_image_that_was_there_is_told_to_people_and_programs(outcome, capsys, is_quiet):
    session = Session()
    session.is_json, session.is_quiet = True, is_quiet
    there = dataclasses.replace(
        outcome, result=dataclasses.replace(outcome.result, shortfalls=(), is_already_there=True)
    )
    assert uploading.print_outcome(session, there) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["data"]["already_there"] is True
    assert shown.err == ("" if is_quiet else "ami-1 is already there: an earlier upload made it\n")


def test_upload_that_failed_in_part_says_so_in_json(outcome, capsys):
    session = Session()
    session.is_json = True
    assert uploading.print_outcome(session, outcome) == 75
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 75
    assert answer["error"] is None
    assert answer["data"] == {
        "job": "7",
        "result": "ami-1",
        "already_there": False,
        "images": {"eu-west-1": "ami-1", "us-east-1": "ami-2"},
        "objects": [
            {"kind": "image", "id": "ami-1", "region": "eu-west-1"},
            {"kind": "image", "id": "ami-2", "region": "us-east-1"},
        ],
        "shortfalls": [
            {"subject": "eu-west-2", "reason": "not copied: no \x1b"},
            {"subject": "eu-west-3", "reason": "not shared: no"},
        ],
    }
