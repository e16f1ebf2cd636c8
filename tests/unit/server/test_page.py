"""What the page gets: its files, jobs by search, one job, pieces of its log."""

import json
import re

import pytest

from clouduploader.model.job import JobState
from clouduploader.server import page, replies, search


@pytest.mark.parametrize("name", page.FILES)
def test_files_of_the_page_name_no_other_host_and_make_no_markup(serve, make_spool, name):
    status, headers, body = serve(make_spool()).ask("GET", f"/ui/files/{name}")
    assert status.startswith("200")
    assert f"Content-Type: {page.FILES[name]}" in headers
    assert "X-Content-Type-Options: nosniff" in headers
    assert not re.search(rb"https?://", body)
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", body)


def test_pages_may_run_nothing_but_their_own_scripts(serve, make_spool):
    server = serve(make_spool(), sign_in="token", hosts="obs")
    for path in ("/ui", "/ui/job/1", "/ui/sign-in"):
        _, headers, body = server.ask("GET", path)
        assert "Content-Type: text/html; charset=utf-8" in headers
        assert f"Content-Security-Policy: {replies.POLICY}" in headers
        assert not re.search(rb"<script(?! type=\"module\" src=)|<style|\son\w+=|style=|https?://", body)
    assert "unsafe" not in replies.POLICY


@pytest.mark.parametrize("name", ["x.js", "index.html", "..", "%2e%2e%2fpage.py", ""])
def test_other_files_are_not_shown(serve, make_spool, name):
    assert serve(make_spool()).ask("GET", f"/ui/files/{name}")[0][:3] in ("404", "400")


def test_jobs_for_the_page_are_the_newest(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, details="no")
    make_job(jobs, "10", state=JobState.UPLOADING, progress=40, pid=77)
    make_job(jobs, "9", state=JobState.SCHEDULED)
    (jobs.directory / "11").write_text("<")
    server = serve(jobs)
    found = json.loads(server.ask("GET", "/ui/jobs?limit=3")[2])
    assert found["total"] == 4
    assert [job["name"] for job in found["jobs"]] == ["11", "10", "9"]
    damaged, running, _ = found["jobs"]
    assert damaged["state"] == "damaged"
    assert (running["state"], running["progress"], running["try"]) == ("uploading", 40, None)
    assert "pid" not in running


def test_jobs_for_the_page_may_be_limited_by_any_number(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    assert json.loads(serve(jobs).ask("GET", f"/ui/jobs?limit={'9' * 5000}")[2])["total"] == 1


def found(server, query=""):
    return json.loads(server.ask("GET", f"/ui/jobs?{query}")[2])


def names(server, query=""):
    return [job["name"] for job in found(server, query)["jobs"]]


@pytest.fixture
def many(make_spool, make_job, serve):
    jobs = make_spool()
    make_job(jobs, "1", state=JobState.FAILED, details="Quota EXCEEDED for <vpc>", user="ann", project="home:ann")
    make_job(jobs, "2", state=JobState.SUCCEEDED, details="ami-1", user="tom", arch="aarch64", size=123_456)
    make_job(jobs, "3", state=JobState.UPLOADING, user="tom", target="azure", filename="Stra\u00dfe.raw", pid=999)
    (jobs.directory / "4").write_text("<no job")
    return serve(jobs)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [("", "4321"), ("q=exceeded", "1"), ("q=ANN+vpc", "1"), ("q=ann+ami", ""), ("q=aarch64", "2"), ("q=123456", "2"),
     ("q=strasse", "3"), ("q=999", ""), ("q=damaged", "4"), ("q=%3Cvpc%3E", "1"), ("user=tom", "32"), ("user=to", ""),
     ("target=azure&user=tom", "3"), ("state=failed", "1"), ("state=failed&state=uploading", "31"),
     ("state=damaged", "4"), ("state=none", ""), ("before=3", "21"), ("before=0", ""), ("limit=0", "4"),
     ("before=3&user=ann&state=failed&q=quota&limit=5", "1"), (f"before={'9' * 5000}&limit={'9' * 5000}", "4321")],
)  # fmt: skip
def test_jobs_are_found_by_all_that_is_known_of_them(many, query, wanted):
    assert names(many, query) == list(wanted)
    assert found(many, query)["total"] == 4


def test_answers_are_short_and_say_where_to_go_on(make_spool, make_job, serve, monkeypatch):
    jobs = make_spool()
    for number in range(1, 31):
        make_job(jobs, str(number), state=JobState.FAILED, user="ann" if number == 2 else "tom", details="x" * 1000)
    server = serve(jobs)
    first = found(server, "limit=10")
    assert (first["before"], len(first["jobs"])) == (21, 10)
    assert names(server, "limit=10&before=21") == [str(number) for number in range(20, 10, -1)]
    assert found(server, "limit=30&before=11")["before"] is None
    monkeypatch.setattr(search, "MAX_RECORDS", 12)
    assert (found(server, "user=ann")["jobs"], found(server, "user=ann")["before"]) == ([], 19)
    assert found(server, "user=ann&before=7")["jobs"][0]["name"] == "2"
    monkeypatch.setattr(search, "MAX_CHARS", 3500)
    assert len(found(server)["jobs"]) == 4


def test_one_job_is_told_of_with_its_times_and_log(many, make_job):
    _, headers, body = many.ask("GET", "/ui/jobs/1")
    answer = json.loads(body)
    assert (answer["job"]["details"], answer["log"]) == ("Quota EXCEEDED for <vpc>", None)
    assert abs(answer["now"] - answer["job"]["changed"]) < 3600
    assert "Content-Type: application/json" in headers
    damaged = json.loads(many.ask("GET", "/ui/jobs/4")[2])["job"]
    assert damaged["state"] == "damaged"
    assert damaged["damage"].startswith("4 is damaged: ")
    for name in ("5", "x", "next", "..", "4.log"):
        assert many.ask("GET", f"/ui/jobs/{name}")[0][:3] in ("400", "404")
        assert many.ask("GET", f"/ui/job/{name}")[0][:3] in ("400", "404")


def test_log_comes_in_pieces(make_spool, make_job, serve):
    jobs = make_spool()
    log = bytes(range(256)) * 1500
    make_job(jobs, "1", state=JobState.FAILED, log=log)
    make_job(jobs, "2", state=JobState.SCHEDULED)
    server = serve(jobs)
    about = json.loads(server.ask("GET", "/ui/jobs/1")[2])["log"]
    assert about == {"size": len(log), "id": str(jobs.done_log_path("1").stat().st_ino)}
    _, headers, first = server.ask("GET", "/ui/jobs/1/log")
    assert first == log[: page.MAX_LOG_BYTES]
    assert "Content-Type: application/octet-stream" in headers
    assert server.ask("GET", f"/ui/jobs/1/log?start={len(first)}")[2] == log[len(first) :]
    assert server.ask("GET", f"/ui/jobs/1/log?start={'9' * 30}")[2] == b""
    assert server.ask("GET", "/ui/jobs/2/log")[0].startswith("404")


@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [("GET", "text/html,application/xhtml+xml,*/*;q=0.8", "303 See Other"), ("HEAD", "text/html", "303 See Other"),
     ("GET", "*/*", "200 OK"), ("POST", "text/html", "200 OK")],
)  # fmt: skip
def test_browser_alone_is_led_to_the_page(many, method, accept, status):
    given, headers, _ = many.ask(method, "/", b"" if method == "POST" else None, Accept=accept)
    assert given == status
    assert ("Location: /ui" in headers) == status.startswith("303")
