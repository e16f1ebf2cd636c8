"""Which jobs a search finds."""

import time

import pytest

from clouduploader.model.job import JobState
from clouduploader.server.api import search
from clouduploader.server.api.search import JobSearch


def find(jobs, wanted=None, *, before=None, owner=None, limit=50):
    return search.find(jobs, wanted or JobSearch(), before=before, owner=owner, limit=limit)


def names(found):
    return [job["name"] for job in found.jobs]


@pytest.fixture
def many(make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, details="Quota EXCEEDED for <vpc>", user="ann", project="home:ann")
    make_job(jobs, "2", state=JobState.SUCCEEDED, details="ami-1", user="tom", arch="aarch64", size=123_456)
    make_job(jobs, "3", state=JobState.UPLOADING, user="tom", target="azure", filename="Stra\u00dfe.raw", pid=999,
             progress=40)  # fmt: skip
    (jobs.directory / "4").write_text("<no job")
    return jobs


@pytest.mark.parametrize(
    ("wanted", "before", "limit", "result"),
    [({}, None, 50, "4321"), ({"words": ["exceeded"]}, None, 50, "1"), ({"words": ["ANN", "vpc"]}, None, 50, "1"),
     ({"words": ["ann", "ami"]}, None, 50, ""), ({"words": ["aarch64"]}, None, 50, "2"),
     ({"words": ["123456"]}, None, 50, "2"), ({"words": ["strasse"]}, None, 50, "3"),
     ({"words": ["999"]}, None, 50, ""), ({"words": ["damaged"]}, None, 50, "4"),
     ({"users": ["tom"]}, None, 50, "32"), ({"users": ["to"]}, None, 50, ""),
     ({"targets": ["azure"], "users": ["tom"]}, None, 50, "3"), ({"states": ["failed"]}, None, 50, "1"),
     ({"states": ["failed", "uploading"]}, None, 50, "31"), ({"states": ["damaged"]}, None, 50, "4"),
     ({}, 3, 50, "21"), ({}, 0, 50, ""), ({}, None, 1, "4"),
     ({"users": ["ann"], "states": ["failed"], "words": ["quota"]}, 3, 5, "1")],
)  # fmt: skip
def test_jobs_are_found_by_all_that_is_known_of_them(many, wanted, before, limit, result):
    found = find(many, JobSearch(**wanted), before=before, limit=limit)
    assert names(found) == list(result)
    assert found.total == 4


def test_job_is_told_of_as_clients_may_know_it(many):
    damaged, running, _, failed = find(many).jobs
    assert damaged["state"] == "damaged"
    assert damaged["damage"].startswith("4 is damaged: ")
    assert (running["state"], running["progress"], running["try"]) == ("uploading", 40, None)
    assert "pid" not in running
    assert abs(time.time() - failed["changed"]) < 3600


def test_answers_are_short_and_say_where_to_go_on(make_spool, make_job, monkeypatch):
    jobs = make_spool()
    for number in range(1, 31):
        make_job(jobs, str(number), state=JobState.FAILED, user="ann" if number == 2 else "tom", details="x" * 1000)
    first = find(jobs, limit=10)
    assert (first.before, len(first.jobs)) == (21, 10)
    assert names(find(jobs, limit=10, before=21)) == [str(number) for number in range(20, 10, -1)]
    assert find(jobs, limit=30, before=11).before is None
    monkeypatch.setattr(search, "MAX_RECORDS", 12)
    rare = find(jobs, JobSearch(users=["ann"]))
    assert (rare.jobs, rare.before) == ([], 19)
    assert names(find(jobs, JobSearch(users=["ann"]), before=7)) == ["2"]
    monkeypatch.setattr(search, "MAX_CHARS", 3500)
    assert len(find(jobs).jobs) == 4
