"""Jobs by the API: made, searched, looked at, killed, tried again."""

import concurrent.futures
import datetime
import json
import urllib.parse

import pytest

from clouduploader.model.job import Job, JobState
from clouduploader.store import images
from clouduploader.store.spool import leases

ROOT = "/api/v1/jobs"


@pytest.fixture
def jobs(make_spool):
    return make_spool()


@pytest.fixture
def ask(serve, jobs):
    """Return a function that asks a server, and returns the status and the document."""
    server = serve(jobs)

    def call(method, target, document=None, **headers):
        data = b"" if document is None else json.dumps(document).encode()
        headers = {"Content-Type": "application/json", **headers}
        status, lines, body = server.ask(method, target, data if method == "POST" else None, **headers)
        call.headers = lines
        return int(status[:3]), json.loads(body)

    call.server = server
    return call


def names(found):
    return [job["id"] for job in found[1]["jobs"]]


def test_jobs_are_the_newest_and_go_on_behind_the_cursor(ask, jobs, make_job):
    for name in ("1", "9", "10"):
        make_job(jobs, name, state=JobState.FAILED)
    (jobs.directory / "11").write_text("<")
    status, page = ask("GET", f"{ROOT}?limit=3")
    assert (status, page["total"]) == (200, 4)
    assert [(job["id"], job["state"]) for job in page["jobs"]] == [("11", "damaged"), ("10", "failed"), ("9", "failed")]
    assert names(ask("GET", f"{ROOT}?limit=3&cursor={page['next']}")) == ["1"]
    assert ask("GET", ROOT)[1]["next"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [({"state": ["failed", "scheduled"]}, ["3", "2", "1"]), ({"user": ["anna"]}, ["3"]),
     ({"user": ["anna", "tom"], "target": ["gce"]}, ["3"]), ({"project": ["p"]}, ["2"]),
     ({"text": ["SECOND p"]}, ["2"]), ({"running": ["true"]}, ["4", "3"]),
     ({"since": ["2026-01-01T00:00:00Z"]}, ["4", "3", "2"]),
     ({"since": ["2026-01-01T00:00:00+14:00"]}, ["4", "3", "2"])],
)  # fmt: skip
def test_filters_are_the_servers(ask, jobs, make_job, query, found):
    new_year = int(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp())
    make_job(jobs, "1", state=JobState.FAILED, created=new_year - 86_400)
    make_job(jobs, "2", state=JobState.FAILED, filename="second.raw", project="p", created=new_year)
    make_job(jobs, "3", state=JobState.SCHEDULED, user="anna", target="gce")
    make_job(jobs, "4", state=JobState.UPLOADING)
    assert names(ask("GET", f"{ROOT}?{urllib.parse.urlencode(query, doseq=True)}")) == found


WRONG_QUERIES = [
    "limit=0",
    "limit=201",
    "limit=x",
    "state=gone",
    "since=yesterday",
    "since=0.5",
    "since=5",
    "running=x",
    "since=2026-01-01T00:00:00",
    "cursor=-1",
    "cursor=" + "9" * 19,
]


def test_wrong_query_is_told_with_its_place(ask):
    for query in WRONG_QUERIES:
        status, problem = ask("GET", f"{ROOT}?{query}")
        assert (status, problem["status"], problem["code"]) == (422, 422, "invalid")
        assert f"$.{query.partition('=')[0]}" in problem["detail"]


def test_job_tells_what_its_log_tells(ask, jobs, make_job):
    log = b"@object kind=image id=i-1 region=here\n"
    make_job(jobs, "7", state=JobState.UPLOADING, log=log, progress=40, try_=2, size=3, created=10**14)
    status, job = ask("GET", f"{ROOT}/7")
    assert status == 200
    assert (job["id"], job["progress"], job["tries"], job["size"], job["created"]) == ("7", 40, 2, 3, None)
    assert (job["log_bytes"], job["objects"], job["phase"]) == (len(log), [], None)
    assert ask("GET", f"{ROOT}/8") == (
        404, {"title": "Not Found", "status": 404, "code": "not_found", "detail": "no such job", "hint": None}
    )  # fmt: skip


def test_job_tells_which_host_has_it(ask, jobs, make_job):
    make_job(jobs, "7")
    lease = {"claim": "0" * 64, "journal": "f" * 32, "queue": "uploads", "since": 1795361942.5}
    leases.write(jobs, "7", leases.LeaseRecord(attempt=2, state=leases.LeaseState.CLAIMED, host="h1", **lease))
    for target in (f"{ROOT}/7", f"{ROOT}?text=H1"):
        found = ask("GET", target)[1]
        found = found.get("jobs", [found])[0]
        assert (found["host"], found["attempt"], found["since"]) == ("h1", 2, "2026-11-22T15:39:02Z")


def test_killed_job_is_answered_and_stays_killed(ask, jobs, make_job):
    make_job(jobs, "7", state=JobState.SCHEDULED)
    for _ in range(2):
        status, job = ask("POST", f"{ROOT}/7/kill")
        assert (status, job["state"], job["details"]) == (200, "failed", "killed")


def test_job_that_waits_is_scheduled_and_no_other(ask, jobs, make_job):
    make_job(jobs, "1", state=JobState.WAITING, details="later")
    make_job(jobs, "2", state=JobState.UPLOADING)
    make_job(jobs, "3", state=JobState.FAILED)
    status, job = ask("POST", f"{ROOT}/1/retry")
    assert (status, job["state"], job["details"]) == (200, "scheduled", None)
    assert jobs.read("1")[0].state is JobState.SCHEDULED
    for name in ("2", "3"):
        status, problem = ask("POST", f"{ROOT}/{name}/retry")
        assert (status, problem["code"]) == (409, "job_state")
    assert ask("POST", f"{ROOT}/4/retry")[0] == 404


# --- made

NEW = {"user": "tom", "target": "directory", "filename": "a.raw", "project": "p", "data": {"directory": "/x"}}


@pytest.fixture
def image(jobs):
    """A whole image of three bytes."""
    store = images.ImageStore(jobs.directory)
    made = store.create(None, 3, metadata={"filename": "sent.raw"}, now=datetime.datetime.now(datetime.UTC))
    with store.open(made.id) as opened:
        opened.write(b"abc")
        opened.sync()
    return store.find(made.id)


def test_job_without_an_image_waits_for_it(ask, jobs):
    status, job = ask("POST", ROOT, NEW | {"size": 3})
    assert (status, job["state"], job["size"], job["project"], job["arch"]) == (201, "created", 3, "p", "")
    assert f"Location: {ROOT}/{job['id']}" in ask.headers
    assert json.loads(jobs.data_path(job["id"]).read_bytes()) == NEW["data"]
    assert ask.server.ask("PUT", f"/cloudupload/{job['id']}", b"abc")[0] == "200 OK"
    assert ask("GET", f"{ROOT}/{job['id']}")[1]["state"] == "scheduled"


def test_of_an_image_there_is_one_job(ask, jobs, image):
    wanted = {"user": "tom", "target": "directory", "image": image.id}
    status, job = ask("POST", ROOT, wanted)
    assert (status, job["state"], job["filename"], job["size"]) == (201, "scheduled", "sent.raw", 3)
    assert jobs.file_path(job["id"]).read_bytes() == b"abc"
    assert ask("POST", ROOT, wanted) == (200, job)
    status, problem = ask("POST", ROOT, NEW | wanted)  # which that job does not do
    assert (status, problem["code"]) == (409, "job_state")
    assert problem["detail"] == f"the job {job['id']} was made of this image for another request"
    assert [path.suffix for path in images.ImageStore(jobs.directory).directory.iterdir()] == [".json"]


def test_requests_at_once_make_one_job_of_an_image(ask, jobs, image):
    """A client asks again while its first request is still answered."""
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: ask("POST", ROOT, NEW | {"image": image.id}), range(4)))
    assert sorted(status for status, _ in found) == [200, 200, 200, 201]
    assert {job["id"] for _, job in found} == set(jobs.running_names())


def test_job_whose_maker_died_gets_its_image_when_asked_for_again(ask, jobs, image):
    """The server died between the lines of `job_changes.make_job`."""
    made = jobs.create(Job(name="", state=JobState.CREATED, user="tom", target="directory", size=3), targetdata=b"{}")
    images.ImageStore(jobs.directory).bind(image, made.name)
    jobs.file_path(made.name).write_bytes(b"half")
    status, job = ask("POST", ROOT, NEW | {"image": image.id})
    assert (status, job["id"], job["state"]) == (200, made.name, "scheduled")
    assert jobs.file_path(made.name).read_bytes() == b"abc"


def test_data_that_are_encrypted_as_a_whole_are_a_text(ask, jobs):
    text = "-----BEGIN PGP MESSAGE-----\n..."
    status, job = ask("POST", ROOT, NEW | {"size": 3, "data": text})
    assert (status, jobs.data_path(job["id"]).read_text()) == (201, text)


WRONG_JOBS = [
    ({"size": None}, 422, "size"),
    ({"size": -1}, 422, "$.size"),
    ({"size": "3"}, 422, "$.size"),
    ({"target": ""}, 422, "$.target"),
    ({"user": ""}, 400, "user is empty"),
    ({"pid": 1}, 422, "pid"),
    ({"image": "x"}, 404, "no such image"),
    ({"project": "p" * 1025}, 422, "$.project"),
    ({"data": [1]}, 422, "$.data"),
    ({"size": 10**17}, 507, "No space left"),
]


def test_wrong_job_is_refused_with_what_is_wrong(ask, jobs):
    for changes, status, words in WRONG_JOBS:
        found, problem = ask("POST", ROOT, NEW | {"size": 3} | changes)
        assert found == status
        assert words in problem["detail"]
        assert jobs.running_names() == []


def test_image_must_be_whole_and_of_the_size_that_is_said(ask, jobs, image):
    status, problem = ask("POST", ROOT, NEW | {"image": image.id, "size": 4})
    assert (status, problem["code"]) == (422, "invalid")
    begun = images.ImageStore(jobs.directory).create(None, 3, metadata={}, now=image.created)
    status, problem = ask("POST", ROOT, NEW | {"image": begun.id})
    assert (status, problem["code"], problem["detail"]) == (409, "job_state", "3 bytes of the image are still to come")


NO_DOCUMENTS = [(b"{", 400), (b"[" * 100_000, 422), (b"\xff", 400), (b"{}", 422), (b"", 400)]


def test_body_that_is_no_document_is_refused(ask):
    for body, status in NO_DOCUMENTS:
        headers = {"Content-Type": "application/json"}
        assert ask.server.ask("POST", ROOT, body, **headers)[0].startswith(f"{status} ")
        assert ask.server.ask("POST", ROOT, body)[0].startswith("415 ")
