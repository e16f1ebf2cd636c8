import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import forked
from samples.job_logs import TIME, untimed

from clouduploader.cli import main, obs_call
from clouduploader.errors import UsageError
from clouduploader.model import job_xml
from clouduploader.model.job import Job, JobState

EXECUTABLE = Path(sys.executable).with_name("clouduploader")


@pytest.mark.parametrize(
    ("operands", "filename", "log", "result"),
    [
        (("tom", "ec2", "/s/7.file", "/s/7.data", "/s/7.log"), None, "/s/7.log", None),
        (("tom", "ec2", "/s/7.file", "/s/7.data", "./log"), None, "log", None),
        (("tom", "ec2", "/s/7.file", "/s/7.data", "a.raw", "/s/7.result"), "a.raw", None, "/s/7.result"),
        (("tom", "ec2", "/s/7.file", "/s/7.data", "a.raw"), "a.raw", None, "/s/7.result"),
        (("tom", "ec2", "/s/image", "/s/7.data", "a.raw"), "a.raw", None, "/s/image.result"),
    ],
)
def test_operands_are_taken_apart(operands, filename, log, result):
    call = obs_call.ObsCall(operands)
    assert (call.user, call.target) == ("tom", "ec2")
    assert (str(call.upload_path), str(call.targetdata_path)) == (operands[2], "/s/7.data")
    assert call.filename == filename
    assert (call.log_path and str(call.log_path)) == log
    assert (call.result_path and str(call.result_path)) == result


@pytest.mark.parametrize("rest", [("a.raw",), ("a.raw", "/s/7.result"), ("/s/7.log",)])
def test_image_without_a_name_is_a_usage_error(rest):
    with pytest.raises(UsageError, match="is not the path of an image"):
        obs_call.ObsCall(("tom", "ec2", "/", "/s/7.data", *rest))


@pytest.fixture
def job(tmp_path):
    """A spool with a job, and a home in which the platform `directory` is set."""
    images, spool, home = tmp_path / "images", tmp_path / "spool", tmp_path / "home"
    for path in (images, spool, home):
        path.mkdir()
    (home / "clouduploader.conf").write_text(f"[directory]\npath = {images}\n")
    (spool / "7").write_bytes(job_xml.serialize(Job(name="7", state=JobState.UPLOADING, filename="of-the-job.raw")))
    (spool / "7.file").write_bytes(b"an image")
    (spool / "7.data").write_bytes(b"{}")
    return tmp_path


def run(job, *last, user="tom", target="directory", options=()):
    spool = job / "spool"
    words = [*options, "--home", job / "home", user, target, spool / "7.file", spool / "7.data", *last]
    return forked.run(lambda: main.main([str(word) for word in words]), cwd=job)


def test_five_operands_append_to_the_log_and_give_the_result(job):
    log = job / "spool" / "7.log"
    log.write_text("earlier\n")
    done = run(job, log)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{job}/images/of-the-job.raw\n", "")
    assert all(TIME.match(line) for line in log.read_text().splitlines()[1:])
    lines = untimed(log.read_text())
    assert lines[0] == "earlier"
    assert lines[1].startswith("clouduploader ")
    assert lines[1].endswith(": user tom, target directory")
    assert "Start uploading image of-the-job.raw." in lines
    assert (job / "images" / "of-the-job.raw").read_bytes() == b"an image"


def test_six_operands_write_the_result_and_log_to_stdout(job):
    done = run(job, "my image.raw", job / "spool" / "7.result")
    assert (done.returncode, done.stderr) == (0, "")
    assert (job / "spool" / "7.result").read_text() == f"{job}/images/my image.raw"
    assert "Start uploading image my image.raw." in done.stdout


def test_file_name_alone_puts_the_result_beside_the_image(job):
    assert run(job, "a.raw").returncode == 0
    assert (job / "spool" / "7.result").read_text() == f"{job}/images/a.raw"


@pytest.mark.parametrize(
    "user", ["list", "-king", "--help", "o'brien & sons", "größe", os.fsdecode(b"caf\xe9"), "a\nb", ""]
)
def test_user_may_be_called_anything(job, user):
    done = run(job, "a.raw", job / "spool" / "7.result", user=user)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].endswith(", target directory")


def test_failure_is_in_log_result_and_exit_code(job):
    (job / "spool" / "7.data").write_text('{"filename": 7}')
    done = run(job, "a.raw", job / "spool" / "7.result")
    assert done.returncode == 65
    reason = (job / "spool" / "7.result").read_text()
    assert reason.startswith("the target data are wrong: filename")
    assert "\n" not in reason
    assert f"Error: {reason}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_failure_of_the_older_form_is_told_on_stderr_too(job):
    done = run(job, job / "spool" / "7.log", target="nowhere")
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith("clouduploader: no platform answers to the target 'nowhere'")
    assert "Error: no platform answers" in (job / "spool" / "7.log").read_text()


def test_verbose_shows_the_log_on_stderr(job):
    done = run(job, job / "spool" / "7.log", options=["-v"])
    assert done.stderr == (job / "spool" / "7.log").read_text()
    assert "linked as" in done.stderr


def test_log_that_cannot_be_written_ends_it(job):
    done = run(job, job / "none" / "7.log")
    assert done.returncode == 73
    assert "none/7.log can't be written" in done.stderr
    assert list((job / "images").iterdir()) == []


def test_damaged_job_file_does_not_stop_the_upload(job):
    (job / "spool" / "7").write_text("<broken")
    done = run(job, job / "spool" / "7.log", options=["-v"])
    assert done.returncode == 0
    assert "The job's file can't be used: " in done.stderr
    assert (job / "images" / "7.file").exists()


@pytest.mark.parametrize("count", [1, 4, 7])
def test_wrong_number_of_operands_is_a_usage_error(count):
    words = ["tom", "ec2", "/a", "/b", "/c", "/d", "/e"][:count]
    done = subprocess.run([EXECUTABLE, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "bug" not in done.stderr


def test_image_without_a_name_ends_with_64_and_one_line(capsys):
    assert main.main(["-v", "tom", "ec2", "/", "/b", "/c"]) == 64
    assert capsys.readouterr() == ("", "clouduploader: / is not the path of an image.\n")


def test_call_loads_neither_click_nor_another_platform(job):
    spool = job / "spool"
    words = ["--home", job / "home", "tom", "directory", spool / "7.file", spool / "7.data", spool / "7.log"]
    code = "import sys; from clouduploader.cli import main; code = main.main(sys.argv[1:]); print(code, *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    _image, loaded = done.stdout.splitlines()
    assert loaded.startswith("0 ")
    assert {"click", "rich"} & set(loaded.split()) == set()
    platforms = {name.split(".")[2] for name in loaded.split() if name.startswith("clouduploader.platforms.")}
    assert platforms == {"directory"}


def test_sigterm_ends_with_143_and_writes_no_result(job):
    spool = job / "spool"
    (spool / "7.data").unlink()
    os.mkfifo(spool / "7.data")  # whoever reads the target data waits
    process = subprocess.Popen(
        [EXECUTABLE, "--home", job / "home", "tom", "directory", spool / "7.file", spool / "7.data", "a.raw",
         spool / "7.result"],
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert untimed(process.stdout.readline())[0].startswith("clouduploader ")
    with (spool / "7.data").open("wb") as fifo:
        process.send_signal(signal.SIGTERM)
        fifo.write(b"{}")
    shown, _ = process.communicate()
    assert process.returncode == 143
    assert "Error: stopped by SIGTERM." in shown
    assert not (spool / "7.result").exists()
    assert list((job / "images").iterdir()) == []


def test_events_of_a_job_go_where_the_settings_say(job):
    conf = job / "home" / "clouduploader.conf"
    conf.write_text(f"[clouduploader]\nevents = {job}/{{job}}.json\n" + conf.read_text())
    assert run(job, "a.raw", job / "spool" / "7.result").returncode == 0
    assert '"event": "end", "outcome": "succeeded"' in (job / "7.json").read_text()
