"""The client of the API: what it sends, and what it makes of answers that no server of ours gives."""

import json

import pytest
from fakes.scripted_server import answer, ok

from clouduploader.client.api import ApiServer
from clouduploader.errors import (
    ClouduploaderError,
    DeniedError,
    JobFileError,
    NoSuchJobError,
    PlatformReplyError,
    TransientError,
    UnavailableError,
)
from clouduploader.model.job import Job, JobState

JOB = {"id": "7", "state": "failed", "details": "no", "created": "2026-11-29T12:00:00Z", "user": "tom", "size": 3}


def document(found, status="200 OK"):
    return answer(status, json.dumps(found).encode(), "Content-Type: application/json")


def problem(status, detail, hint=None):
    return document({"status": int(status[:3]), "code": "x", "detail": detail, "hint": hint, "title": "x"}, status)


@pytest.fixture
def api(make_server):
    """Return a function that makes a client of a server with these answers."""

    def make(*answers):
        server = make_server(*answers)
        made = ApiServer(server.url)
        made.requests = server.requests
        return made

    return make


def test_job_is_read(api):
    found = api(document(JOB)).read("7")
    assert found == Job(
        name="7", state=JobState.FAILED, details="no", created=1795953600, user="tom", size=3
    )  # fmt: skip


def test_host_of_a_job_is_read(api):
    found = api(document(JOB | {"host": "h1", "attempt": 2, "since": "2026-11-29T12:00:00Z"})).read("7")
    assert (found.host, found.attempt, found.since) == ("h1", 2, 1795953600)


@pytest.mark.parametrize(
    "changes", [{"id": "8"}, {"id": None}, {"id": 7}, {"state": "gone"}, {"state": None}, {"size": "3"}, {"size": True},
                {"user": ["tom"]}, {"progress": 1.5}],
)  # fmt: skip
def test_job_that_makes_no_sense_is_refused(api, changes):
    with pytest.raises(PlatformReplyError, match="answers with"):
        api(document(JOB | changes)).read("7")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"[" * 100_000, b"\xff"])
def test_answer_that_is_no_object_is_refused(api, data):
    with pytest.raises(PlatformReplyError, match="answers with no JSON object"):
        api(ok(data)).read("7")


def test_damaged_job_is_told_of(api):
    with pytest.raises(JobFileError, match=r"the job 7 of http.* is damaged: line 1"):
        api(document({"id": "7", "state": "damaged", "damage": "line 1"})).read("7")


@pytest.mark.parametrize(
    ("status", "error"),
    [("404 Not Found", NoSuchJobError), ("401 Unauthorized", DeniedError), ("409 Conflict", PlatformReplyError),
     ("503 Service Unavailable", TransientError), ("429 Too Many Requests", TransientError)],
)  # fmt: skip
def test_problem_is_one_line_with_its_detail(api, status, error):
    with pytest.raises(error) as caught:
        api(problem(status, "as things\nare")).read("7")
    assert error is NoSuchJobError or "as things are (HTTP" in caught.value.message


@pytest.mark.parametrize("status", ["403 Forbidden", "409 Conflict", "429 Too Many Requests", "507 Full"])
def test_hint_of_a_problem_is_handed_on(api, status):
    for hint, shown in (("Hand it\nin again.", "Hand it in again."), (["no text"], None), (None, None)):
        with pytest.raises(ClouduploaderError) as caught:
            api(problem(status, "it has failed", hint)).read("7")
        assert caught.value.hint == shown


def test_redirect_is_not_followed(api):
    with pytest.raises(UnavailableError, match="redirects to"):
        api(answer("302 Found", b"", "Location: http://elsewhere/")).read("7")


def test_log_is_read_by_a_range(api):
    server = api(answer("206 Partial Content", b"two", "Content-Range: bytes 4-6/9"))
    assert b"".join(server.log("7", start=4, end=7)) == b"two"
    (request,) = server.requests
    assert request.line == "GET /api/v1/jobs/7/log"
    assert request.headers["Range"] == "bytes=4-6"


@pytest.mark.parametrize("found", [{}, {"jobs": None}, {"jobs": [1]}, {"jobs": [{"id": "x"}]}])
def test_list_that_makes_no_sense_is_refused(api, found):
    server = api(document(found))
    with pytest.raises(PlatformReplyError):
        list(server.find()[1])


@pytest.mark.parametrize("offset", ["-1", "", "x", "9" * 20])
def test_offset_that_makes_no_sense_is_refused(api, offset):
    with pytest.raises(PlatformReplyError, match="no offset"):
        api(answer("200 OK", b"", f"Upload-Offset: {offset}")).image_offset("a")


@pytest.mark.parametrize("found", [{"id": "../x"}, {"id": None}, {}])
def test_image_without_an_id_is_refused(api, found):
    server = api(document({"images": []}), document(found, "201 Created"))
    with pytest.raises(PlatformReplyError, match="without an id"):
        server.begin_image(filename="a", size_bytes=3, fingerprint="f")


def test_yes_before_the_piece_is_nonsense(api):
    sending = api(answer("204 No Content", b"")).send_piece("a1", offset_bytes=0, size_bytes=5)
    with pytest.raises(PlatformReplyError, match="a yes to an image that it has not got"), sending:
        raise AssertionError("the piece is sent")


@pytest.mark.parametrize("found", [b"{}", b"[]", b"kind", b"{", b"7"])
def test_server_without_the_api_is_known(make_server, found):
    server = make_server(ok(found))
    server.is_obs = False
    assert not ApiServer(server.url).answers()
