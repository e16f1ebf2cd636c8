"""The pages, and their files."""

import re

import pytest

from clouduploader.server import page, replies


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


@pytest.mark.parametrize(
    ("hosts", "path", "code", "said"),
    [("obs", "/ui/no%3Cthing", "400", b": unknown request: GET:/ui/no&lt;thing.</p>"),
     ("elsewhere", "/ui", "421", b": this service has another name")],
)  # fmt: skip
def test_user_of_a_browser_is_refused_by_a_page(serve, make_spool, hosts, path, code, said):
    server = serve(make_spool(), sign_in="token", hosts=hosts)
    status, headers, body = server.ask("GET", path, Accept="text/html,application/xhtml+xml")
    assert (status[:3], said in body) == (code, True)
    assert "Content-Type: text/html; charset=utf-8" in headers
    assert f"Content-Security-Policy: {replies.POLICY}" in headers
    assert server.ask("GET", path)[2].startswith(b"<status ")


@pytest.mark.parametrize("name", ["x.js", "index.html", "..", "%2e%2e%2fpage.py", ""])
def test_other_files_are_not_shown(serve, make_spool, name):
    assert serve(make_spool()).ask("GET", f"/ui/files/{name}")[0][:3] in ("404", "400")


def test_page_of_a_job_says_whether_there_is_one(serve, make_spool, make_job):
    jobs = make_spool()
    make_job(jobs, "1")
    (jobs.directory / "4").write_text("<no job")
    server = serve(jobs)
    for name, status in (("1", "200"), ("4", "200"), ("5", "404"), ("x", "404"), ("next", "404"), ("..", "404")):
        answer = server.ask("GET", f"/ui/job/{name}")
        assert answer[0].startswith(status)
        assert b"<title>Job - Cloud uploads</title>" in answer[2]


@pytest.mark.parametrize(
    ("method", "accept", "status"),
    [("GET", "text/html,application/xhtml+xml,*/*;q=0.8", "303 See Other"), ("HEAD", "text/html", "303 See Other"),
     ("GET", "*/*", "200 OK"), ("POST", "text/html", "200 OK")],
)  # fmt: skip
def test_browser_alone_is_led_to_the_page(serve, make_spool, method, accept, status):
    given, headers, _ = serve(make_spool()).ask(method, "/", b"" if method == "POST" else None, Accept=accept)
    assert given == status
    assert ("Location: /ui" in headers) == status.startswith("303")
