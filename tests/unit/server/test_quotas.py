"""What one user may take of the service."""

import datetime
import urllib.parse

import pytest

from clouduploader.model.job import JobState
from clouduploader.server import quotas
from clouduploader.server.quotas import Usage
from clouduploader.server.replies import RefusalError
from clouduploader.store.images import ImageStore
from clouduploader.store.tokens import Role, TokenStore

FIELDS = {"user": "tom", "target": "directory", "project": "p", "repository": "r", "package": "k", "arch": "x86_64",
          "filename": "a.raw"}  # fmt: skip


@pytest.fixture
def create(serve, make_spool, make_job, tmp_path):
    """A factory of servers: returns a function that makes a job and gives the status.

    In the spool are two jobs of tom's with 10 bytes each that are not over, one that is, and one of anna's.
    """
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.SCHEDULED, user="tom", size=10)
    make_job(jobs, "2", state=JobState.UPLOADING, user="tom", size=10)
    make_job(jobs, "3", state=JobState.FAILED, user="tom", size=10)
    make_job(jobs, "4", state=JobState.SCHEDULED, user="anna", size=10)
    (jobs.directory / "5").write_text("damaged")
    (jobs.directory / "next").write_text('<clouduploadjob name="6" />\n')
    home = tmp_path / "etc" / "cloudupload"
    home.mkdir(parents=True)
    store, now = TokenStore(home), datetime.datetime.now(datetime.UTC)

    def start(**section):
        server = serve(jobs, **section)

        def call(size=1, *, user="tom", role=Role.USER):
            query = urllib.parse.urlencode({**FIELDS, "size": size})
            headers = {}
            if role:
                text = store.create(user, role, note="", expires=None, now=now)[1]
                headers = {"Authorization": f"Bearer {text}"}
            return server.ask("POST", f"/cloudupload?{query}", b"{}", **headers)[0]

        return call

    return start


def test_user_may_have_so_many_jobs_that_are_not_over(create):
    ask = create(user_jobs="3")
    assert ask() == "200 OK"
    assert ask() == "429 tom has 3 jobs that are not over, and may have 3"
    assert ask(user="anna") == "200 OK"
    assert ask(role=Role.ADMIN) == "200 OK"
    assert ask(role=None) == "200 OK"


def test_user_may_have_so_many_bytes_in_the_spool(create):
    ask = create(user_bytes="30")
    assert ask(11) == "429 with this image those of tom in the spool have 31 bytes, and may have 30"
    assert ask(10) == "200 OK"
    assert ask(1) == "429 with this image those of tom in the spool have 31 bytes, and may have 30"
    assert ask(31, user="eve") == "413 the image has 31 bytes, and those of eve may have 30"
    assert ask(31, role=None) == "200 OK"


def test_images_of_jobs_count_no_more(make_spool, make_job):
    jobs, now = make_spool(), datetime.datetime.now(datetime.UTC)
    make_job(jobs, "1", state=JobState.SCHEDULED, user="tom", size=5)
    make_job(jobs, "2", state=JobState.FAILED, user="tom", size=5)
    images = ImageStore(jobs.directory)
    image, other = (images.create("tom", size, metadata={}, now=now) for size in (6, 10))
    for owner in ("anna", None):
        images.create(owner, 100, metadata={}, now=now)
    tom = Usage(jobs=1, images=2, size_bytes=21)
    assert quotas.usage(jobs, images) == {"tom": tom, "anna": Usage(images=1, size_bytes=100)}
    assert quotas.usage(jobs, images, but=other.id)["tom"] == Usage(jobs=1, images=1, size_bytes=11)
    images.bind(image, "1")
    assert quotas.usage(jobs, images)["tom"] == Usage(jobs=1, images=1, size_bytes=15)


def test_user_may_send_so_many_requests_a_minute(create):
    ask = create(user_requests="2")
    assert [ask()[:3] for _ in range(3)] == ["200", "200", "429"]
    assert ask() == "429 tom sends more than 2 requests a minute"
    assert [ask(role=Role.ADMIN)[:3] for _ in range(3)] == ["200"] * 3
    assert ask(user="anna") == "200 OK"


def test_requests_are_forgotten_as_time_goes_by():
    counts = quotas.RequestCounts()

    def is_taken(now):
        try:
            counts.count("tom", most=6, now=now)
        except RefusalError as exc:
            return int(exc.headers["Retry-After"])
        return True

    assert [is_taken(100.0) for _ in range(7)] == [*[True] * 6, 10]
    assert is_taken(109.0) == 1
    assert is_taken(110.0) is True
    assert is_taken(110.0) == 10
    assert [is_taken(1000.0) for _ in range(7)] == [*[True] * 6, 10]
