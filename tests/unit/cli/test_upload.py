import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clouduploader import jobxml
from clouduploader.job import JobState

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
    assert sorted(path.name for path in (place / "spool").iterdir()) == ["done", "next"]
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
    warning = f"clouduploader: warning: everybody on this machine can read {place}/home/secret.pem\n"
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
