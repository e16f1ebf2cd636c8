"""The program and its standard streams, its umask and its locale: what is there before a line of ours runs."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from samples import finished_job

from clouduploader.errors import ExitCode

PROGRAM = [Path(sys.executable).with_name("clouduploader")]


@pytest.mark.parametrize("umask", [0, 0o77, 0o777])
def test_program_leaves_no_core_and_is_not_locked_out_by_the_umask(umask):
    code = (
        "import os, resource; from clouduploader.cli import main; main.main(['platforms'])\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), oct(os.umask(0)))"
    )
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
        capture_output=True, text=True, check=True, umask=umask,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == f"(0, 0) {umask & 0o77:#o}"


def test_closed_pipe_ends_with_141_and_silence():
    with subprocess.Popen(
        [*PROGRAM, "--version"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        errors_shown = process.stderr.read()
        assert process.wait() == ExitCode.PIPE_CLOSED
    assert errors_shown == b""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 74), (["lsit", "--json"], 64)])
def test_full_disk_under_the_answer_is_no_traceback(arguments, code):
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, check=False)
    assert process.returncode == code
    assert b"Traceback" not in process.stderr
    assert b"Exception ignored" not in process.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A spool with a job that has a log, and an image `a.raw` beside it."""
    place = tmp_path_factory.mktemp("place")
    finished_job.lay_out(place)
    return place


ANSWERS = [
    *["list", "list --json", "inspect 1", "log 1", "image a.raw", "image --json a.raw", "platforms", "account list"],
    "kill --yes 1",
]


def answer(place, words, redirections):
    """Run a command with its streams as a shell redirects them; gives the exit code and stderr."""
    script = f"exec {PROGRAM[0]} --home home --spool spool {words} {redirections}"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False, cwd=place)
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", ANSWERS)
def test_answer_to_a_closed_stream_goes_nowhere(place, words):
    code, err = answer(place, words, ">&-")
    assert (code, err) == (0, "")
    assert answer(place, words, "<&- >&- 2>&-")[0] == 0


@pytest.mark.parametrize("words", ANSWERS)
def test_answer_to_a_full_disk_is_one_line_and_74(place, words):
    code, err = answer(place, words, ">/dev/full")
    assert code == 74
    assert err == "clouduploader: can't write to standard output: No space left on device.\n"


@pytest.mark.parametrize("words", ["submit --target directory a.raw", "cleanup", "-v list"])
def test_words_that_nobody_can_be_told_stop_no_work(place, words):
    assert answer(place, words, "2>/dev/full")[0] == 0
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:  # noqa: PTH123 a descriptor
        command = [*PROGRAM, "--home", "home", "--spool", "spool", *words.split()]
        assert subprocess.run(command, stderr=nobody, stdout=subprocess.PIPE, check=False, cwd=place).returncode == 0


INTERRUPTED = """
import signal, sys
from clouduploader.cli import main

class Interruption(Exception): pass

def interrupt(*_signal): raise Interruption

main._open_streams()
signal.signal(signal.SIGALRM, interrupt)
number = 10**8  # each of one width: halves of two lines make no third
for _ in range(2000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            number += 1
            print(number, file=sys.stderr)
    except Interruption:
        pass
"""


def test_line_is_not_written_twice_if_a_signal_interrupts_its_writing():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=True)
    lines = done.stderr.split()
    assert len(lines) > 2000
    assert len(lines) == len(set(lines))


def test_file_is_not_written_to_in_the_place_of_a_closed_stream(place):
    """With 2>&- the next file that is opened, the job's log say, would be number 2."""
    code, _ = answer(place, "-v upload --target directory a.raw", "<&- >&- 2>&-")
    assert code == ExitCode.CONFIG  # nobody said into which directory
    newest = max((place / "spool" / "done").glob("*.log"), key=lambda path: int(path.stem))
    lines = newest.read_text().splitlines()
    assert not [line for line in lines if line.startswith("clouduploader: ")]


def test_name_that_the_locale_cannot_show_is_escaped():
    process = subprocess.run(
        [*PROGRAM, "-v", b"\xff\xe2\x82\xac"],
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    assert process.returncode == 64
    assert process.stderr.isascii()
    assert process.stderr.startswith(b"clouduploader: there is no command")
