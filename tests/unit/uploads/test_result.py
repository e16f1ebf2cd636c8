import errno
import os
import re
import signal
import time

import hypothesis
import pytest
from hypothesis import strategies as st

from clouduploader.errors import (
    CannotCreateError,
    ClouduploaderError,
    ConfigError,
    ImageError,
    StoppedError,
)
from clouduploader.store.job_log import JobLog
from clouduploader.uploads import result
from clouduploader.util.cancel import Cancel


def write_result(path, text, *, cancel=None):
    result.write_result(path, text, log=JobLog([], is_verbose=False), cancel=cancel or Cancel())


def test_result_is_written_whole_in_one_line(tmp_path):
    path = tmp_path / "42.result"
    path.write_text("old and much longer than the new one")
    write_result(path, "ami-1\nwith \x00 and \udcff\n")
    assert path.read_bytes() == b"ami-1\\nwith \\x00 and \\udcff"
    assert [item.name for item in tmp_path.iterdir()] == ["42.result"]


def test_waiting_for_a_full_disk_ends_with_a_stop(tmp_path, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cancel = Cancel()
    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(time, "sleep", lambda _seconds: cancel.request(signal.SIGTERM))
    with pytest.raises(StoppedError):
        write_result(tmp_path / "42.result", "ami-1", cancel=cancel)
    assert list(tmp_path.iterdir()) == []


@hypothesis.given(st.text(st.characters()))
def test_any_result_is_one_line_of_utf8(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("result") / "42.result"
    write_result(path, text)
    assert not re.search("[\x00-\x1f\x7f]", path.read_bytes().decode())


def test_result_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "42.result").mkdir()
    with pytest.raises(CannotCreateError, match=r"42\.result can't be written: Is a directory"):
        write_result(tmp_path / "42.result", "ami-1")
    assert [item.name for item in tmp_path.iterdir()] == ["42.result"]
    with pytest.raises(CannotCreateError):
        write_result(tmp_path / "none" / "42.result", "ami-1")


def test_reason_is_one_line_with_what_to_do():
    assert result.reason(ConfigError("x is\nwrong.", hint="Set y.")) == "x is\\nwrong. Set y."
    assert result.reason(ConfigError("x")) == "x."


def test_failure_is_told_in_the_log_masked(lines):
    log = JobLog([lines], is_verbose=False)
    log.hide("open-sesame")
    error = ImageError("the image open-sesame is bad", hint="Build it again.")
    assert result.log_failure(log, error, error) == "the image ******** is bad. Build it again."
    assert list(lines) == ["Error: the image ******** is bad. Build it again."]


def test_bug_is_told_in_the_log_with_its_traceback(lines):
    log = JobLog([lines], is_verbose=False)
    try:
        raise KeyError("x")
    except KeyError as exc:
        result.log_failure(log, exc, ClouduploaderError("this is a bug: KeyError"))
    shown = list(lines)
    assert shown[0].startswith("Traceback")
    assert shown[-2:] == ["KeyError: 'x'", "Error: this is a bug: KeyError."]
