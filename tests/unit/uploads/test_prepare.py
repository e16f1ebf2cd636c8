import dataclasses
import json
import lzma
import os

import hypothesis
import pytest
from hypothesis import strategies as st
from samples.minimal_disk import as_disk
from samples.uploads import JOB, RAW

from clouduploader.errors import (
    ImageError,
    TargetDataError,
)
from clouduploader.model.disk import ZeroBlocks
from clouduploader.model.job import Job, JobState
from clouduploader.plugin import (
    Field,
    FieldKind,
    PhaseStarted,
    UploadResult,
)
from clouduploader.store.keyring import Keyring
from clouduploader.uploads import run as uploads_run
from clouduploader.util.masking import MASK


def test_request_tells_the_platform_what_it_needs(run, platform):
    run(job=JOB, user="caf\udce9", is_by_hand=True, data=b'{"password": "open-sesame", "filename": ""}')
    request = platform.request
    assert (request.user, request.job_name, request.arch, request.is_by_hand) == ("caf\udce9", "42", "x86_64", True)
    assert request.targetdata == {"password": "open-sesame"}
    assert request.image.filename == "from-the-job.raw.xz"
    assert platform.seen["mode"] == 0o700
    assert "open-sesame" not in repr(request)


@pytest.mark.parametrize(
    ("filename", "job_filename", "data", "expected"),
    [
        ("argument.raw", "job.raw", "data.raw", "argument.raw"),
        (None, "job.raw", "data.raw", "job.raw"),
        ("", "job.raw", "data.raw", "job.raw"),
        (None, None, "data.raw", "data.raw"),
        (None, "", "", "42.file"),
        ("../../x/a.raw", None, "", "a.raw"),
    ],
)
def test_real_name_is_the_first_that_somebody_gave(run, platform, filename, job_filename, data, expected):
    job = Job(name="42", state=JobState.UPLOADING, filename=job_filename)
    run(filename=filename, job=job, data=json.dumps({"filename": data}).encode())
    assert platform.request.image.filename == expected


@hypothesis.settings(max_examples=40, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.one_of(st.text(st.characters()), st.text(st.sampled_from("./\\-\n\0 ~"), min_size=1)))
def test_hostile_name_is_linked_as_a_safe_one(run, platform, tmp_path, name):
    before = set(tmp_path.iterdir()) | {tmp_path / "42.file", tmp_path / "journal"}
    run(filename=name)
    found = platform.request.image
    assert found.path.name == f"linked-{found.filename}"
    assert "/" not in found.filename
    assert not found.filename.startswith((".", "-"))
    assert found.filename.isprintable()
    assert found.path.parent == platform.request.work_dir
    assert not found.path.parent.exists()
    assert set(tmp_path.iterdir()) == before


def test_link_is_in_the_private_directory_and_gone_afterwards(run, platform):
    run(filename="a.raw.xz")
    assert platform.seen["is_link"]
    assert lzma.decompress(platform.seen["content"]) == RAW
    assert platform.seen["work_dir"] == [".clouduploader-private", "linked-a.raw.xz"]
    assert not platform.request.work_dir.exists()


def test_link_is_in_the_jobs_own_directory_when_started_there(run, platform, tmp_path, monkeypatch):
    own = tmp_path / "42.dir"
    own.mkdir()
    monkeypatch.chdir(own)
    run(filename="a.raw.xz")
    assert platform.request.image.path == own / "linked-a.raw.xz"
    assert platform.seen["is_link"]
    assert list(own.iterdir()) == []
    assert platform.seen["work_dir"] == [".clouduploader-private"]


def test_link_is_in_the_private_directory_where_the_jobs_own_takes_none(run, platform, tmp_path, monkeypatch):
    own = tmp_path / "42.dir"
    own.mkdir()
    (own / "linked-a.raw.xz").write_text("in the way")
    monkeypatch.chdir(own)
    run(filename="a.raw.xz")
    assert platform.request.image.path.parent == platform.request.work_dir
    assert platform.seen["is_link"]


def test_link_is_not_in_the_directory_of_another_job(run, platform, tmp_path, monkeypatch):
    for name in ("42.dir", "43.dir"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "43.dir")
    run()
    assert platform.request.image.path.parent == platform.request.work_dir


def test_image_that_is_no_job_is_linked_in_the_private_directory(run, platform, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(image="my.raw.xz")
    assert platform.request.image.path.parent == platform.request.work_dir
    assert platform.request.image.filename == "my.raw.xz"


def test_secret_of_the_target_data_is_masked_from_then_on(run, platform, lines):
    def work(_request, reporter, _cancel):
        reporter.line("the password is open-sesame")
        reporter.event(PhaseStarted("open-sesame"))
        return UploadResult("ami-1")

    platform.work = work
    run(data=b'{"password": "open-sesame"}')
    assert "the password is ********" in lines
    assert b"open-sesame" not in lines.data


def test_unknown_keys_are_named_in_the_verbose_log(run, platform, lines):
    run(data=b'{"user_id": 7, "x": "secret?"}')
    assert "The target data have keys that made-up does not use: user_id, x." in lines
    assert b"secret?" not in lines.data


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("password", "a", "password is a string of 1 characters, but must have at least 8 characters"),
        ("password", "1234567", "password is a string of 7 characters, but must have at least 8 characters"),
        ("filename", "a", "an encrypted value of less than 8 characters"),
    ],
)
def test_secret_that_would_mask_other_words_is_refused(run, platform, lines, tmp_path, name, value, message):
    if name != "password":
        (tmp_path / "home").mkdir()
        keys = Keyring(tmp_path / "home", os.environ)
        keys.gpg.generate()
        value = keys.gpg.encrypt(value)
    with pytest.raises(TargetDataError, match=message):
        run(data=json.dumps({name: value}).encode())
    assert platform.request is None
    assert MASK.encode() not in lines.data


def test_provenance_is_that_of_the_job(run, platform):
    run(job=dataclasses.replace(JOB, project="P", package="a:b", repository=None))
    assert platform.request.provenance == {"project": "P", "package": "a:b", "arch": "x86_64"}
    run()
    assert platform.request.provenance == {}


PAGE = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


@pytest.mark.parametrize("what", [uploads_run.run, uploads_run.plan])
@pytest.mark.parametrize("pack", [bytes, lzma.compress])
@pytest.mark.parametrize(
    ("content", "words"),
    [(PAGE, "looks like a web page"), (bytes(1 << 20), "nothing but zeros"), (as_disk(b"x" * 999)[:-1], "1023")],
)
def test_image_that_is_no_disk_is_refused(run, platform, what, pack, content, words):
    platform.work = lambda request, _reporter, _cancel: (blocks(request), UploadResult("ami-1"))[1]
    platform.plan = lambda ctx: [str(ctx.request.measure_image())]
    with pytest.raises(ImageError, match=rf"42\.file is not the image of a disk: .*{words}"):
        run(what=what, content=pack(content))


@pytest.mark.parametrize("pack", [bytes, lzma.compress])
@pytest.mark.parametrize("content", [PAGE, as_disk(b"x" * 999)[:-1]])
def test_force_uploads_what_is_no_disk(run, platform, lines, pack, content):
    platform.fields = (*platform.fields, Field(name="force", description="Go on.", kind=FieldKind.BOOLEAN))
    seen = []
    platform.work = lambda request, _reporter, _cancel: (seen.append(blocks(request)), UploadResult("ami-1"))[1]
    run(content=pack(content), data=b'{"force": true}')
    assert seen[0][0].startswith(content)
    assert seen[0][1].size_bytes == len(content)


def test_platform_that_stores_files_takes_what_may_be_a_disk(run, platform, lines):
    platform.needs_disk = False
    for content in (b"ab\n", bytes(1 << 20), lzma.compress(b"ab\n")[:-5]):
        run(content=content)
    warnings = [line for line in lines if line.startswith("Warning: ")]
    assert [("text" in line, "zeros" in line, "cut off" in line) for line in warnings] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]
    with pytest.raises(ImageError, match="a web page"):
        run(content=PAGE)


def blocks(request):
    with request.open_blocks(4096, ZeroBlocks.SEND) as source:
        buffer, found = bytearray(4096), b""
        while block := source.next_into(buffer):
            found += bytes(4096) if block.is_zero else bytes(buffer)
        return found, source.stats()
