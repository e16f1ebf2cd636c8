"""A platform and an uploader to try the commands on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fakes.platforms import FakePlatform

from clouduploader.errors import UnknownTargetError
from clouduploader.plugin import Field
from clouduploader.store import config

UPLOADER = """
import os, signal, subprocess, sys, time

def say(text):
    os.write(1, text.encode() + b"\\n")

def end(*_):
    say("got TERM")
    time.sleep(0.2)
    say("Removed instance i-1.")
    os._exit(0)
"""


@pytest.fixture
def platform():
    return FakePlatform(
        Field(name="region", description="Where.", is_required=True),
        Field(name="key", description="A secret.", is_secret=True),
    )


@pytest.fixture
def load_platform(platform):
    """Give the one platform for the target ec2, and none for others."""

    def load(target, _config):
        if target != "ec2":
            raise UnknownTargetError(f"no platform answers to '{target}'")
        return platform

    return load


@pytest.fixture
def settings(home):
    return config.load(home=home, spool=None, environment=dict(os.environ))


@pytest.fixture
def wait_for():
    """Return a function that waits until something is true, and fails if it never becomes so."""

    def wait(condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.02)

    return wait


@pytest.fixture
def start_uploader(make_job, wait_for):
    """Return a function that starts Python code as OBS's worker starts an uploader, and waits for `ready`.

    UPLOADER stands before the code. The job is put into the spool, uploading, with its group.
    """
    started = []

    def start(jobs, name, code, *, data=b'{"region": "here", "key": "open-s3cret"}', **fields):
        make_job(jobs, name, data=data, image=b"image", **fields)
        directory = jobs.directory / f"{name}.dir"
        directory.mkdir()
        arguments = ["tom", "ec2", jobs.file_path(name), jobs.data_path(name), "a.raw.xz", jobs.result_path(name)]
        with jobs.open_log(name) as log:
            child = subprocess.Popen(
                [sys.executable, "-c", f"{UPLOADER}\n{code}\nsay('ready')\ntime.sleep(60)", *arguments],
                cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        started.append(child)
        make_job(jobs, name, pid=child.pid, **fields)
        wait_for(lambda: b"ready" in jobs.log_path(name).read_bytes())
        return child

    yield start
    for child in started:
        with child:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
