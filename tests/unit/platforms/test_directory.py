import dataclasses
import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clouduploader.errors import CannotCreateError, ConfigError, ImageError, LocalIOError, StoppedError
from clouduploader.model.disk import Compression, Image
from clouduploader.platforms import directory
from clouduploader.plugin import (
    BytesMoved,
    CleanUpReport,
    CloudObject,
    Context,
    Leftover,
    Level,
    PhaseStarted,
    PlatformContext,
    UploadContext,
    UploadResult,
)
from clouduploader.plugin.testing import upload
from clouduploader.store import job_log
from clouduploader.util.cancel import Cancel

DATA = bytes(range(256)) * (10 << 10)  # two and a half blocks
PARTIAL = ".clouduploader-0123456789abcdef0123456789abcdef-01234567.part"


class Log:
    def __init__(self, on_event=None):
        self.text = ""
        self.reporter = job_log.JobLog([self], is_verbose=False)
        self.reporter.listen(on_event or (lambda event: None))

    def write(self, data):
        self.text += data.decode()


def plan(platform, request, reporter, cancel):
    return list(platform.plan(UploadContext(platform, request, reporter, cancel)))


def context(platform):
    return Context(platform, {}, Log().reporter, Cancel())


def clean_up(platform, things):
    return platform.clean_up(context(platform), things)


def find(platform, key):
    return list(platform.find(context(platform), key))


def check(platform):
    return list(platform.check(context(platform)))


@pytest.fixture
def images(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    return path


@pytest.fixture
def make_platform(images):
    def make(path=images):
        return directory.DirectoryPlatform(
            PlatformContext(home=Path("/"), settings={"path": str(path)}, environment={})
        )

    return make


@pytest.fixture
def make_request(make_upload_request, tmp_path):
    def make(filename="my image.raw", data=DATA, size_bytes=None):
        path = tmp_path / "42.file"
        path.write_bytes(data)
        image = Image(path, filename, Compression.RAW, len(data) if size_bytes is None else size_bytes)
        return make_upload_request(path, tmp_path, image=image)

    return make


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def test_image_is_copied_under_its_name(make_platform, make_request, images):
    log, target = Log(), images / "my image.raw"
    os.umask(old_mask := os.umask(0o077))
    result = upload(make_platform(), make_request(), log.reporter, Cancel())
    assert result == UploadResult(str(target), (CloudObject("file", str(target)),))
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o777 == 0o666 & ~old_mask
    assert names(images) == ["my image.raw"]
    assert f"SHA-256: {hashlib.sha256(DATA).hexdigest()}\n" in log.text


def test_same_image_again_succeeds_and_changes_nothing(make_platform, make_request, images):
    log, target = Log(), images / "my image.raw"
    first = upload(make_platform(), make_request(), Log().reporter, Cancel())
    inode = target.stat().st_ino
    again = upload(make_platform(), make_request(), log.reporter, Cancel())
    assert again == dataclasses.replace(first, is_already_there=True)
    assert target.stat().st_ino == inode
    assert "is there already, and the same" in log.text


@pytest.mark.parametrize("is_there", [False, True])
def test_image_with_another_digest_than_promised_is_refused(make_platform, make_request, images, is_there):
    if is_there:
        (images / "my image.raw").write_bytes(DATA)
    read = []

    def refuse(sha256=None):
        read.append(sha256)
        raise ImageError("it is not the file that was promised")

    request = dataclasses.replace(make_request(), check_unchanged=refuse)
    for call in (plan, upload):
        with pytest.raises(ImageError, match="promised"):
            call(make_platform(), request, Log().reporter, Cancel())
    assert read == [hashlib.sha256(DATA).hexdigest()] * 2
    assert names(images) == ["my image.raw"] * is_there


@pytest.mark.parametrize("there", [b"other", DATA[:-1] + b"x"])
def test_other_file_of_that_name_is_never_overwritten(make_platform, make_request, images, there):
    target = images / "my image.raw"
    target.write_bytes(there)
    for call in (plan, upload):
        with pytest.raises(CannotCreateError, match="is there already, and is not the same"):
            call(make_platform(), make_request(), Log().reporter, Cancel())
    assert target.read_bytes() == there
    assert names(images) == ["my image.raw"]


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_never_overwritten(make_platform, make_request, images, make):
    make(images / "my image.raw")
    with pytest.raises(CannotCreateError, match="is there already"):
        upload(make_platform(), make_request(), Log().reporter, Cancel())


def test_file_that_appears_meanwhile_is_never_overwritten(make_platform, make_request, images):
    target = images / "my image.raw"
    log = Log(lambda event: target.write_bytes(b"other") if isinstance(event, BytesMoved) else None)
    with pytest.raises(LocalIOError, match=r"my image\.raw: File exists"):
        upload(make_platform(), make_request(), log.reporter, Cancel())
    assert target.read_bytes() == b"other"
    assert names(images) == ["my image.raw"]


def test_image_without_room_is_refused_before_a_byte_is_copied(make_platform, make_request, images):
    log = Log()
    for call in (plan, upload):
        with pytest.raises(CannotCreateError, match=r"needs 4611686018427387904 bytes, but [0-9]+ are free"):
            call(make_platform(), make_request(size_bytes=1 << 62), log.reporter, Cancel())
    assert names(images) == []
    assert "copy" not in log.text


def test_image_that_changes_while_it_is_read_is_refused(make_platform, make_request, images):
    with pytest.raises(LocalIOError, match="changed while it was read"):
        upload(make_platform(), make_request(size_bytes=len(DATA) + 1), Log().reporter, Cancel())
    assert names(images) == []


def test_what_was_copied_is_held_against_what_the_image_was(make_platform, make_request, images):
    told = []

    def check_unchanged(sha256=None):
        told.append((sha256, len(names(images))))
        raise ImageError("it changed")

    request = dataclasses.replace(make_request(), check_unchanged=check_unchanged)
    with pytest.raises(ImageError, match="it changed"):
        upload(make_platform(), request, Log().reporter, Cancel())
    assert told == [(hashlib.sha256(DATA).hexdigest(), 1)]  # the partial file is there still
    assert names(images) == []


def test_image_that_is_gone_is_named(make_platform, make_request, images):
    request = make_request()
    request.image.path.unlink()
    with pytest.raises(LocalIOError, match=r"42\.file: No such file"):
        upload(make_platform(), request, Log().reporter, Cancel())
    assert names(images) == []


@pytest.mark.parametrize("kind", [PhaseStarted, BytesMoved])
def test_stop_leaves_nothing(make_platform, make_request, images, kind):
    cancel = Cancel()
    log = Log(lambda event: cancel.request(signal.SIGINT) if isinstance(event, kind) else None)
    with pytest.raises(StoppedError) as caught:
        upload(make_platform(), make_request(), log.reporter, cancel)
    assert caught.value.exit_code == 130
    assert names(images) == []


def test_partial_file_of_a_killed_run_is_removed_by_the_next(make_platform, make_request, images):
    (images / PARTIAL).write_bytes(b"half")
    log = Log()
    upload(make_platform(), make_request(), log.reporter, Cancel())
    assert names(images) == ["my image.raw"]
    assert f"Removed {images / PARTIAL}, left from a run that was killed." in log.text


def test_partial_file_of_a_living_run_stays(make_platform, make_request, images):
    with (images / PARTIAL).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        upload(make_platform(), make_request(), Log().reporter, Cancel())
        thing = CloudObject("partial file", str(images / PARTIAL))
        report = clean_up(make_platform(), [thing])
        assert report == CleanUpReport((), (Leftover(thing, "it is being written, or not ours"),))
    assert names(images) == [PARTIAL, "my image.raw"]
    assert clean_up(make_platform(), [thing]) == CleanUpReport((thing,), ())
    assert clean_up(make_platform(), [thing]) == CleanUpReport((thing,), ())
    assert names(images) == ["my image.raw"]


def test_partial_file_that_another_run_takes_for_dead_is_made_again(make_platform, make_request, images, monkeypatch):
    lock, looks = fcntl.flock, []

    def late(file, kind):
        if kind == fcntl.LOCK_EX and not looks:
            looks.extend(images.glob(".*.part"))
            upload(make_platform(), make_request(filename="other.raw"), Log().reporter, Cancel())
            assert not looks[0].exists()
        lock(file, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    upload(make_platform(), make_request(), Log().reporter, Cancel())
    assert len(looks) == 1
    assert names(images) == ["my image.raw", "other.raw"]


def test_clean_up_touches_nothing_but_partial_files(make_platform, images, tmp_path):
    (images / "image.raw").write_bytes(b"x")
    (tmp_path / PARTIAL).write_bytes(b"x")
    things = [
        CloudObject("file", str(images / "image.raw")),
        CloudObject("partial file", str(images / "image.raw")),
        CloudObject("partial file", str(tmp_path / PARTIAL)),
        CloudObject("partial file", f"{images}/../{PARTIAL}"),
        CloudObject("partial file", PARTIAL),
        CloudObject("partial file", "\0"),
    ]
    report = clean_up(make_platform(), things)
    assert [left.object for left in report.left] == things
    assert names(images) == ["image.raw"]
    assert (tmp_path / PARTIAL).exists()


def test_partial_files_are_found_by_their_key(make_platform, images):
    platform = make_platform()
    assert find(platform, None) == []
    (images / PARTIAL).write_bytes(b"half")
    (images / "image.raw").write_bytes(b"whole")
    (found,) = find(platform, None)
    assert (found.object, found.keep_reason) == (CloudObject("partial file", str(images / PARTIAL)), None)
    assert (found.key, found.job_name) == ("0123456789abcdef0123456789abcdef", "")
    assert found.created.tzinfo
    assert find(platform, found.key) == [found]
    assert find(platform, "f" * 32) == []
    with (images / PARTIAL).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (held,) = find(platform, None)
        assert held.keep_reason == "it is being written"


def test_run_that_was_killed_is_cleaned_up_by_its_log(make_platform, make_request, images, tmp_path):
    code = """
import os, pathlib, sys, time
from clouduploader.store import job_log
from clouduploader.model.disk import Compression, Image
from clouduploader.plugin import *
from clouduploader.plugin import testing
from clouduploader.platforms import directory
from clouduploader.util.cancel import Cancel
source, images = map(pathlib.Path, sys.argv[1:])
log = job_log.JobLog([os.fdopen(1, "wb", buffering=0)], is_verbose=False)
log.listen(lambda event: time.sleep(60) if isinstance(event, BytesMoved) else None)
image = Image(source, "a.raw", Compression.RAW, source.stat().st_size)
request = testing.make_request(image, {}, source.parent)
platform = directory.DirectoryPlatform(PlatformContext(home=images, settings={"path": str(images)}, environment={}))
platform.upload(UploadContext(platform, request, log, Cancel()))
"""
    source = make_request().image.path
    log_path = tmp_path / "log"
    with log_path.open("wb") as file:
        child = subprocess.Popen([sys.executable, "-c", code, source, images], stdout=file)
    while "Created partial file" not in log_path.read_text():
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    (left,) = images.iterdir()
    platform = make_platform()
    with log_path.open() as lines:
        reading = job_log.read(lines)
    assert reading == job_log.LogReading("copy", (CloudObject("partial file", str(left)),))
    assert clean_up(platform, reading.objects) == CleanUpReport(reading.objects, ())
    assert names(images) == []


@pytest.mark.parametrize("filename", ["a", "a b.raw", "a.", "Removed file x.", "ä"])
def test_log_is_read_back(make_platform, make_request, filename):
    log = Log()
    result = upload(make_platform(), make_request(filename), log.reporter, Cancel())
    assert job_log.read(log.text.splitlines(keepends=True)) == job_log.LogReading("copy", result.objects)


@pytest.mark.parametrize("path", ["", "images", "/nowhere/at/all", "/etc/passwd"])
def test_setting_that_is_wrong_is_named(make_platform, make_request, path):
    platform = make_platform(path)
    for call in (plan, upload):
        with pytest.raises(ConfigError, match=r"the setting path in \[directory\]"):
            call(platform, make_request(), Log().reporter, Cancel())
    (finding,) = check(platform)
    assert finding.level is Level.FAILURE


def test_plan_says_what_upload_does(make_platform, make_request, images):
    target = images / "my image.raw"
    assert plan(make_platform(), make_request(), Log().reporter, Cancel()) == [f"copy the image to {target}"]
    upload(make_platform(), make_request(), Log().reporter, Cancel())
    assert plan(make_platform(), make_request(), Log().reporter, Cancel()) == [
        f"leave {target} as it is, for it is the same"
    ]


def test_check_tells_the_free_space(make_platform, images):
    (finding,) = check(make_platform())
    assert (finding.level, finding.subject) == (Level.OK, str(images))
    assert finding.message.endswith(" GiB free")
