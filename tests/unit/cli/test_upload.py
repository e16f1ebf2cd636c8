import getpass
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader import config, jobxml, registry
from clouduploader.cli import targetoptions, upload, uploading
from clouduploader.cli.session import Session
from clouduploader.commands import upload_image
from clouduploader.job import Job, JobState
from clouduploader.platform import CloudObject, Shortfall, UploadResult

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
    return [EXECUTABLE, "--home", place / "home", "--spool", place / "spool", *options, "upload", *words]


def run(place, *words, options=(), target="directory"):
    words = (*words, "--target", target)
    return subprocess.run(
        command(place, *words, options=options), capture_output=True, text=True, cwd=place, check=False
    )


def archived(place, name="1"):
    return jobxml.parse((place / "spool" / "done" / name).read_bytes())


def test_upload_prints_the_result_and_archives_the_job(place):
    done = run(place, "my image.raw", "--user", "o'brien & sons")
    assert (done.returncode, done.stdout) == (0, f"{place}/images/my image.raw\n")
    assert done.stderr == "job 1: uploading my image.raw\n"
    job = archived(place)
    assert (job.state, job.user, job.target, job.size) == (JobState.SUCCEEDED, "o'brien & sons", "directory", 8)
    assert (job.filename, job.details) == ("my image.raw", f"{place}/images/my image.raw")
    log = (place / "spool" / "done" / "1.log").read_text()
    assert log.startswith("Start uploading image my image.raw.\n")
    assert sorted(path.name for path in (place / "spool").iterdir()) == ["done", "journal", "next"]
    assert (place / "my image.raw").exists()


def test_user_is_the_login_by_default(place):
    run(place, "my image.raw")
    assert archived(place).user == getpass.getuser()


def test_answer_can_be_json(place):
    done = run(place, "my image.raw", "--json")
    answer = json.loads(done.stdout)
    assert answer["data"] == {
        "job": "1",
        "result": f"{place}/images/my image.raw",
        "objects": [{"kind": "file", "id": f"{place}/images/my image.raw", "region": ""}],
        "shortfalls": [],
    }


def test_quiet_upload_says_nothing_but_the_result(place):
    assert run(place, "my image.raw", options=["-q"]).stderr == ""


def test_verbose_upload_shows_the_log(place):
    shown = run(place, "my image.raw", options=["-v"]).stderr
    assert shown.partition("\n")[2] == (place / "spool" / "done" / "1.log").read_text()


def test_failure_is_archived_with_its_reason(place):
    (place / "images" / "my image.raw").write_text("another")
    done = run(place, "my image.raw")
    assert done.returncode == 73
    assert done.stderr.count("is there already, and is not the same") == 1
    job = archived(place)
    assert job.state is JobState.FAILED
    assert "is not the same" in job.details
    assert "Error: " in (place / "spool" / "done" / "1.log").read_text()


def test_missing_image_makes_no_job(place):
    done = run(place, "none.raw")
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


def test_dry_run_says_the_steps_and_changes_nothing(place):
    done = run(place, "my image.raw", "--dry-run")
    assert (done.returncode, done.stdout) == (0, f"would copy the image to {place}/images/my image.raw\n")
    assert list((place / "images").iterdir()) == []
    assert list((place / "spool").iterdir()) == []
    assert json.loads(run(place, "my image.raw", "--dry-run", "--json").stdout)["data"]["steps"]


def test_dry_run_fails_as_the_upload_would(place):
    (place / "images" / "my image.raw").write_text("another")
    assert run(place, "my image.raw", "--dry-run").returncode == 73


def test_events_are_written(place):
    run(place, "my image.raw", "--events", place / "events")
    found = [json.loads(line) for line in (place / "events").read_text().splitlines()]
    assert found[0]["event"] == "start"
    assert found[0]["job"] == "1"
    assert found[-1]["outcome"] == "succeeded"


def test_options_go_before_the_file_of_target_data(place):
    (place / "data").write_text('{"region": "one", "ami_name": "from-file", "x": 1}')
    done = run(place, "my image.raw", "--data", "data", "--region", "Two", "--dry-run", target="ec2")
    assert done.returncode == 65
    assert "region is 'Two'" in done.stderr or 'region is "Two"' in done.stderr
    assert "ami_name" not in done.stderr


def test_verbose_may_stand_behind_the_command(place):
    done = run(place, "my image.raw", "--verbose")
    assert done.returncode == 0
    assert "Start uploading image my image.raw." in done.stderr.splitlines()


def test_secret_that_everybody_can_read_is_warned_about(place):
    (place / "home" / "secret.pem").touch()
    (place / "home" / "secret.pem").chmod(0o644)
    warning = f"clouduploader: warning: others on this machine can read {place}/home/secret.pem\n"
    assert warning in run(place, "my image.raw", "--dry-run").stderr
    assert warning not in run(place, "my image.raw", "--dry-run", options=["--quiet"]).stderr


def test_file_of_target_data_is_taken_as_it_is(place):
    (place / "data").write_text('{"filename": "real.raw"}')
    assert run(place, "my image.raw", "--data", "data").returncode == 0
    (place / "data").write_text("{")
    assert run(place, "my image.raw", "--data", "data").returncode == 65
    assert run(place, "my image.raw", "--data", "none").returncode == 66


def test_options_cannot_be_added_to_encrypted_target_data(place):
    (place / "data").write_text("-----BEGIN PGP MESSAGE-----\n")
    done = run(place, "my image.raw", "--data", "data", "--region", "eu-west-1")
    assert done.returncode == 64
    assert "is encrypted as a whole" in done.stderr


def test_target_data_in_the_spool_are_private(place):
    with (place / "large.raw").open("wb") as file:
        file.truncate(8 << 30)  # all holes; copying them takes longer than this test
    process = subprocess.Popen(
        command(place, "large.raw", "--target", "directory"),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr.readline() == "job 1: uploading large.raw\n"
    assert (place / "spool" / "1.data").stat().st_mode & 0o077 == 0
    job = jobxml.parse((place / "spool" / "1").read_bytes())
    assert (job.state, job.pid) == (JobState.UPLOADING, process.pid)
    assert os.getpgid(process.pid) == process.pid
    process.send_signal(signal.SIGTERM)
    shown, _ = process.communicate()
    assert (process.returncode, shown) == (143, "")
    assert (archived(place).state, archived(place).details) == (JobState.FAILED, "killed")
    assert list((place / "images").iterdir()) == []


def test_options_become_target_data(place):
    """They reach the platform as they are: where a field can't take one, it says so with the value."""
    refused = {
        "--description": "a\tb", "--architecture": "vax", "--boot-mode": "coreboot", "--method": "magic",
        "--sha256": "1",
        "--zero-blocks": "keep", "--verify": "maybe", "--kms-key": "a key", "--keep": "all", "--copy-to": "eu",
        "--share": "everybody", "--deprecate-at": "tomorrow", "--region": "Two", "--name": "x", "--arn": "y",
        "--external-id": "z", "--subnet": "w",
    }  # fmt: skip
    words = [word for pair in refused.items() for word in pair]
    done = run(place, "my image.raw", *words, "--dry-run", target="ec2")
    assert done.returncode == 65
    for option, value in refused.items():
        key = targetoptions.KEYS[option.removeprefix("--").replace("-", "_")]
        shown = json.dumps(value)
        assert re.search(rf"\b{key} is (a list with )?{re.escape(shown)}", done.stderr), (key, done.stderr)


def params(*words):
    return upload.upload_command.make_context("upload", ["image", *words], obj=Session()).params


def test_options_without_a_value_are_no_target_data():
    found = params()
    assert {name: found[name] for name in targetoptions.KEYS if found[name] not in (None, [], {})} == {}


def test_options_that_may_be_repeated_are_gathered():
    found = params("--copy-to", "eu-west-2,eu-west-3", "--copy-to", "us-east-1", "--share", "public", "--share", "1, 2")
    assert found["copy_to"] == ["eu-west-2", "eu-west-3", "us-east-1"]
    assert found["share"] == ["public", "1", "2"]
    assert params("--tag", "a=b=c", "--tag", "d=")["tag"] == {"a": "b=c", "d": ""}
    assert (params("--encrypt")["encrypt"], params("--force")["force"]) == (True, True)


def test_size_is_read_as_in_the_settings(place):
    assert params("--max-size", "20G")["max_size"] == 20 << 30
    done = run(place, "my image.raw", "--max-size", "much")
    assert done.returncode == 64
    assert "--max-size" in done.stderr
    assert "'much', not a size such as 20G" in done.stderr


def test_tag_without_a_value_is_a_wrong_argument(place):
    done = run(place, "my image.raw", "--tag", "alone")
    assert done.returncode == 64
    assert "'alone' is not of the form NAME=VALUE" in done.stderr


def test_choices_in_the_help_are_those_of_the_platform(place):
    platform = registry.load("ec2", config.load(home=place, spool=place, environment={}))
    allowed = {field.name: field.allowed for field in platform.fields}
    shown = {}
    for option in upload.upload_command.params:
        if (option.metavar or "").startswith("["):
            shown[targetoptions.KEYS[option.name]] = tuple(option.metavar.strip("[]").split("|"))
    assert shown == {name: allowed[name] for name in shown}
    assert set(targetoptions.KEYS.values()) <= allowed.keys()
    assert {name for name in targetoptions.KEYS.values() if allowed[name]} == shown.keys()


@pytest.fixture
def outcome():
    """An upload of which a part failed."""
    things = (CloudObject("image", "ami-1", "eu-west-1"), CloudObject("image", "ami-2", "us-east-1"))
    shortfalls = (Shortfall("eu-west-2", "not copied: no \x1b"), Shortfall("eu-west-3", "not shared: no"))
    job = Job(name="7", state=JobState.SUCCEEDED)
    return upload_image.Outcome(job, UploadResult("ami-1", things, shortfalls))


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
        "objects": [
            {"kind": "image", "id": "ami-1", "region": "eu-west-1"},
            {"kind": "image", "id": "ami-2", "region": "us-east-1"},
        ],
        "shortfalls": [
            {"subject": "eu-west-2", "reason": "not copied: no \x1b"},
            {"subject": "eu-west-3", "reason": "not shared: no"},
        ],
    }
